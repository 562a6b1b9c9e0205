"""GRPO-LEAD's reward by hand."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from concise_rl.errors import UserError
from concise_rl.methods.shapers.lead import Lead
from tests.methods.one_group import CORRECT, LENGTHS, one_group, values


def test_by_hand():
    assert values(Lead(), one_group(LENGTHS, CORRECT)) == pytest.approx([1.0481, 1.0055, -1, 0.9488], abs=5e-5)


def test_a_lone_right_answer_and_equal_lengths_get_one():
    assert values(Lead(), one_group([100, 900], [1, 0])) == [1, -1]
    assert values(Lead(), one_group([7, 7, 7], [1, 1, 1])) == [1, 1, 1]


def test_a_bad_format_beats_a_wrong_answer_and_is_in_no_mean():
    batch = one_group([*LENGTHS, 50, 9000], [*CORRECT, 0, 1], parts={"format_error": [0, 0, 0, 0, 1, 1]})
    assert values(Lead(), batch) == pytest.approx([*values(Lead(), one_group(LENGTHS, CORRECT)), 0, 0])


@pytest.mark.parametrize(
    ("lengths", "gated"),
    [
        ([3000, 4000, 5000, 9000], True),  # a mean of 4000 exactly
        ([3000, 4001, 5000, 9000], False),
        ([9000, 12_000, 10, 10], True),  # wrong rows are among the shortest
        ([10, 900], False),  # two rows have no gate
    ],
)
def test_the_released_gate(lengths, gated):
    batch = one_group(lengths, [1, 1, 0, 0][: len(lengths)])
    shaped = values(Lead(variant="code"), batch)
    assert (shaped[:2] == [1, 1]) == gated
    assert all(value == -1 for value in shaped[2:])
    assert values(Lead(variant="code", gate=0), batch) == values(Lead(), batch)


def test_the_gate_counts_only_rows_that_count():
    batch = one_group([10, 900, 950, 20_000], [1, 1, 0, 0], scorable=[1, 1, 0, 0])
    assert values(Lead(variant="code"), batch)[:2] == values(Lead(), one_group([10, 900], [1, 1]))


def test_against_the_formula_written_anew():
    draw = random.Random(1)
    for _ in range(20):
        lengths = [draw.randint(0, 9000) for _ in range(8)]
        correct = [draw.randint(0, 1) for _ in range(8)]
        own = [length for length, c in zip(lengths, correct, strict=True) if c]
        spread = statistics.stdev(own) if len(own) > 1 else 1
        expected = [
            math.exp(-0.2 * (length - statistics.fmean(own)) / (spread + 1e-6)) if c else -1
            for length, c in zip(lengths, correct, strict=True)
        ]
        assert values(Lead(alpha=0.2), one_group(lengths, correct)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("fields", [{"alpha": -0.1}, {"alpha": math.inf}, {"gate": -1}, {"variant": "gated"}])
def test_bad_fields_are_refused(fields):
    with pytest.raises(UserError, match=f"Lead.{next(iter(fields))}="):
        Lead(**fields)
