"""Arora's tax by hand, and against its formula written anew for one group."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from concise_rl.errors import UserError
from concise_rl.methods.recipes import load_method
from concise_rl.methods.shapers.arora import Arora
from tests.methods.one_group import CORRECT, LENGTHS, one_group, values


def test_by_hand():
    assert values(Arora(), one_group(LENGTHS, CORRECT)) == pytest.approx([0.9760, 0.9534, 0, 0.9216], abs=5e-5)


def test_a_lone_right_answer_and_equal_lengths_pay_half_of_alpha():
    assert values(Arora(), one_group([100, 900], [1, 0])) == [0.95, 0]
    assert values(Arora(alpha=0.4), one_group([7, 7, 7], [1, 1, 1])) == [0.8] * 3
    assert values(Arora(), one_group([7], [1])) == [0.95]


def test_wrong_answers_keep_what_they_came_with_and_others_scale_it():
    batch = one_group(LENGTHS, CORRECT)
    taxed = values(Arora(), batch)
    assert values(Arora(), batch, [2, 4, -0.5, 1]) == pytest.approx([2 * taxed[0], 4 * taxed[1], -0.5, taxed[3]])


def test_a_right_answer_that_was_cut_off_gets_nothing_and_is_in_no_mean():
    cut = one_group([*LENGTHS, 4096], [*CORRECT, 1], truncated=[0, 0, 0, 0, 1])
    assert values(Arora(), cut) == pytest.approx([*values(Arora(), one_group(LENGTHS, CORRECT)), 0])
    out, _ = Arora()(cut, cut.task_reward, None)
    assert out.metrics["arora/cut_right_frac"] == 0.25


def test_against_the_formula_written_anew():
    draw = random.Random(0)
    for _ in range(20):
        lengths = [draw.randint(0, 9000) for _ in range(8)]
        correct = [draw.randint(0, 1) for _ in range(8)]
        own = [length for length, c in zip(lengths, correct, strict=True) if c]
        expected = [
            c * (1 - 0.3 / (1 + math.exp(-(length - statistics.fmean(own)) / (statistics.pstdev(own) + 1e-7))))
            if c
            else 0
            for length, c in zip(lengths, correct, strict=True)
        ]
        assert values(Arora(alpha=0.3), one_group(lengths, correct)) == pytest.approx(expected, abs=1e-9)


def test_the_recipe_compares_with_the_others_of_the_group():
    result, _ = load_method("arora").apply(one_group([100, 900], [1, 0]), {})
    assert result.credit.tolist() == pytest.approx([0.95, -0.95])


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_bad_fields_are_refused(alpha):
    with pytest.raises(UserError, match=r"Arora\.alpha="):
        Arora(alpha=alpha)
