"""The tables of docs/testbeds.md: what counts as holding the law, and forced cells against it."""

from __future__ import annotations

import pytest

from benchmarks.testbeds import Forced, checking_cells, corners, forced_table
from concise_rl.testbeds import WhichSum, which_sum
from concise_rl.testbeds.beds import checking_frontier


def test_a_cell_holds_within_three_points_or_by_sampling_alone():
    cells = [
        Forced("near", (0.90, 4.0), (0.925, 4.0), 0.0),
        Forced("sampled", (0.50, 9.0), (0.56, 9.1), 0.04),
        Forced("far", (0.50, 9.0), (0.60, 9.1), 0.04),
    ]
    table = forced_table(cells)
    assert table[3] == "| sampled | 50.0 | 56.0 | 7.8 | 9.0 | 9.1 |"
    assert table[-1].startswith("1 of 3 cells lie within 3 points of the law, 2 within those or")


def test_a_reasoner_that_checks_rightly_has_the_law_exactly():
    class Right:
        """Checks and answers as the teacher does."""

        def write(self, texts, ends):
            return [self.go_on(*text.partition("<think>")[::2]) for text in texts]

        def go_on(self, question: str, thought: str) -> str:
            if not thought.endswith("</think>"):
                return which_sum.check(question, which_sum.LETTERS.index(thought[-1]))[1:]
            checks = thought.count("n") + thought.count("y") - thought.count("think")
            return which_sum.completion(question, checks)[-1]

    prompts = WhichSum(test_size=64).load("test")
    cells = list(checking_cells(Right(), prompts))
    assert len(cells) == 14
    for cell in cells:
        assert cell.forced == pytest.approx(cell.law)


def test_corners_name_what_is_best_at_each_price():
    frontier = checking_frontier([p.messages[0]["content"] for p in WhichSum().load("test")])
    assert [line.rsplit("|", 2)[1].strip() for line in corners(frontier)[2:]] == ["0.03", "", "0.01", "0.003", ""]
