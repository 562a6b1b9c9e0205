"""Where a method's credit turns to the guess, entries held against each other, and the criteria of the beds."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import criteria, findings, leaderboard, stored
from benchmarks.cells import Cell
from benchmarks.stored import BEFORE
from benchmarks.testbeds import Forced
from benchmarks.thresholds import threshold, turning
from concise_rl.errors import UserError
from concise_rl.evaluation.tradeoff import known_frontier
from tests.benchmarks.fake import BED, checker, records


@pytest.mark.parametrize("weight", [0.05, 0.5, 1.0])
def test_the_groups_scale_switches_a_coefficient_off(weight):
    """h* is 1/2 whatever the weight; without the scale it is (1 - w/2) / (1 + w/2)."""
    own = {"shaper.kimi_length.weight": weight}
    assert threshold("kimi", own) == pytest.approx(0.5, abs=2e-3)
    assert threshold("hapo", {"shaper.hapo.weight": weight}) == pytest.approx(0.5, abs=2e-3)
    unscaled = threshold("kimi", own | {"advantage.group_relative.scale": "none"})
    assert unscaled == pytest.approx((1 - weight / 2) / (1 + weight / 2), abs=1e-6)


def test_thresholds_that_are_known():
    assert threshold("grpo") == threshold("dr_grpo") == threshold("canon_length") == 1.0
    for alpha in (0.7, 0.9):
        assert threshold("canon_length", {"advantage.canon.alpha": alpha}) == pytest.approx(alpha)
    with pytest.raises(UserError, match="pear needs answer_entropy"):
        threshold("pear")


def test_a_drift_turns_where_its_line_crosses_zero():
    def at(*drifts: float) -> float:
        return turning(drifts.__getitem__, len(drifts) - 1)

    assert at(-1.0, -0.5, 0.5, 1.0) == pytest.approx(1.5 / 3)
    assert at(-1.0, -0.5, -0.1) == 1.0
    assert at(0.2, 0.5) == 0.0
    assert at(0.0, 0.0, 0.0) == 1.0
    assert at(-3.0, 1.0) == pytest.approx(0.75)


def test_who_prices_wrong_answers():
    assert [findings.prices_wrong(name) for name in ("grpo", "acoer", "kimi", "cosine", "pear")] == [
        False, False, True, True, None
    ]  # fmt: skip


def test_a_difference_is_paired_by_problem():
    one, other = np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 2.0])
    assert findings.difference([one], [other]) == (1.0, 0.0)
    mean, half = findings.difference([one, one + 2], [other, np.zeros(3)])
    assert (mean, half) == (pytest.approx(2.5), pytest.approx(1.96 * 0.5 / 3**0.5))


def test_a_checker_against_a_guesser():
    cells = {r.cell: r for r in (checker("grpo", 4), checker("kimi", 0), checker("kimi", 0, seed=1))}
    pair = findings.Pair("which_sum", ("grpo", ""), ("kimi", ""))
    name, seeds, accuracy, tokens, *values, better = findings.pair_row(cells, pair)
    assert (name, seeds, better) == ("S: grpo against kimi", "1", "1 of 1")
    assert (accuracy[:3], accuracy[-1]) == ("+23", "*")
    assert tokens.startswith("+17.")
    assert [value.split()[0][0] for value in values] == ["+", "+", "-"]
    assert findings.pair_row(cells, findings.Pair(BED, ("grpo", ""), ("kimi", ""))) is None
    found = {own.name: own for own in findings.outcomes(cells)}
    assert (found["grpo"].stopped, found["kimi"].stopped) == (False, True)
    assert found["kimi"].checks == [0, 0, 0, 0]


def test_a_threshold_foretells_the_best_policies_of_bed_s():
    """At h* = .8 levels 2 and 3 guess and the others check to the end, as the best policy at a price does."""
    frontier = known_frontier(checker("grpo", 1).rows())
    corners = {point.policy: (point.accuracy, point.tokens) for point in frontier.pure}
    assert findings.foretold(0.0) == pytest.approx(corners[(0, 0, 0, 0)])
    assert findings.foretold(0.5) == pytest.approx(corners[(0, 0, 0, 3)])
    assert findings.foretold(0.8) == pytest.approx(corners[(0, 0, 3, 4)])
    assert findings.foretold(1.0) == pytest.approx(corners[(1, 2, 3, 4)])


def test_the_page_keeps_what_is_written_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(findings, "threshold_section", lambda *_: ["thresholds"])
    stored.save(records().values(), tmp_path / "cells")
    (tmp_path / "findings.md").write_text(f"# Mine\n\n{findings.MARKER}\nan earlier number\n")
    monkeypatch.setattr("sys.argv", ["findings.py", "--out", str(tmp_path)])
    findings.main()
    text = (tmp_path / "findings.md").read_text()
    assert text.startswith(f"# Mine\n\n{findings.MARKER}\n")
    assert "an earlier number" not in text
    assert "| M: grpo against before training | 2 | +6." in text
    assert "No cells yet: S: grpo against before training." in text


FORCED = [
    Forced("n=2: 2", (0.50, 4.0), (0.51, 4.0), 0.01),
    Forced("n=2: 1+1", (0.90, 6.0), (0.88, 6.0), 0.01),
    Forced("n=4: 4", (0.10, 4.0), (0.10, 4.0), 0.01),
    Forced("n=4: 2+2", (0.60, 7.0), (0.50, 7.0), 0.01),
    Forced("n=4: 1+1+1+1", (0.95, 12.0), (0.40, 12.0), 0.01),
]


def test_criteria_say_what_is_missed_and_by_how_much():
    assert criteria.rises(FORCED) == ("2 of 3 steps; falls at n=4: 1+1+1+1", False)
    assert criteria.hard_half(FORCED) == ("40.0 points", True)
    text, held = criteria.holds(FORCED)
    assert (text, held) == ("3 of 5; n=4: 2+2 by 10.0, n=4: 1+1+1+1 by 55.0", False)
    assert criteria.holds(FORCED[:3])[1]
    text, held = criteria.diminishes("which_sum")
    assert held
    assert text.startswith("points a step: 17.0, 12.5, ")


def test_neighbours_are_separated_by_paired_differences():
    cells = {r.cell: r for r in (checker(BEFORE, 5), checker("grpo", 4), checker("kimi", 0), checker("hapo", 0, 0))}
    start = leaderboard.start_of([cells[Cell("which_sum", BEFORE, 0)]])
    rows = [leaderboard.row_of([cells[Cell("which_sum", name, 0)]], start) for name in ("grpo", "kimi", "hapo")]
    text, held = criteria.separated("which_sum", rows, cells)
    assert (text, held) == ("1 at 0.003, 1 at 0.01, 1 at 0.03, of 2", False)
    assert criteria.spread(rows)[1]
    assert criteria.seed_spread(rows) == ("one seed each", None)
    assert criteria.above(rows) == ("none of 3", True)
    table = criteria.prototype_table("which_sum", rows)
    assert table[2].startswith("| grpo | 97.7 @ 24.8 | 100.0 @ 21.")


def test_the_criteria_are_a_page(tmp_path, monkeypatch):
    stored.save(records().values(), tmp_path / "cells")
    cells = [{"name": c.name, "law": c.law, "forced": c.forced, "error": c.error} for c in FORCED]
    monkeypatch.setattr(criteria, "best_forced", lambda bed, cells: ("", True))
    content = {BED: cells, "which_sum": cells, "commit": "abc", "date": "2026-01-01"}
    (tmp_path / "cells" / "forced.json").write_text(json.dumps(content))
    monkeypatch.setattr("sys.argv", ["criteria.py", "--out", str(tmp_path)])
    criteria.main()
    text = (tmp_path / "criteria.md").read_text()
    assert "| law within 3 points of forced behaviour in 9 of 10 cells | 3 of 5; n=4: 2+2 by 10.0" in text
    assert "## M: running totals, skip a step and risk an error: against the prototype" in text
