"""HBPO's reward: within and beyond the budget, paper and code, and where the curves of two budgets cross."""

from __future__ import annotations

from math import cos, pi

import pytest

from concise_rl.errors import UserError
from concise_rl.methods.shapers.hbpo import Hbpo

from ..one_group import one_group, values


def batch_of(lengths, correct, budgets, **others):
    return one_group(lengths, correct, parts={"budget": budgets}, limits=[4096] * len(lengths), **others)


def test_by_hand():
    batch = batch_of([100, 512, 1000, 1000, 4096], [1, 1, 1, 0, 1], [512, 512, 512, 2560, 2560])
    within = 4 * cos(pi * 512 / 8192)
    expected = [within, within, 4 * cos(pi * 1000 / 8192) - 488 / 4096, 0, -1536 / 4096]
    assert values(Hbpo(), batch) == pytest.approx(expected)
    assert expected == pytest.approx([3.9231411, 3.9231411, 3.5903095, 0, -0.375])


def test_the_released_code_takes_the_smaller_of_both():
    batch = batch_of([0, 100, 600], [1, 1, 1], [512, 512, 512])
    expected = [4 - 0.125, 4 * cos(pi * 100 / 8192) - 412 / 4096, 4 * cos(pi * 600 / 8192) - 88 / 4096]
    assert values(Hbpo(variant="code"), batch) == pytest.approx(expected)


def test_short_answers_earn_more_under_small_budgets_and_long_ones_under_large():
    short = values(Hbpo(), batch_of([300] * 3, [1] * 3, [512, 1024, 2560]))
    long = values(Hbpo(), batch_of([3000] * 3, [1] * 3, [512, 1024, 2560]))
    assert short == sorted(short, reverse=True)
    assert long == sorted(long)


def test_coefficients_and_the_limit():
    batch = batch_of([30], [1], [10])
    assert values(Hbpo(beta=1, alpha=0.01, max_length=60), batch) == pytest.approx([cos(pi / 4) - 0.2])


def test_rows_that_do_not_count_keep_their_reward():
    batch = batch_of([100, 100], [1, 1], [512, 512], scorable=[0, 1], task_reward=[0.3, 1])
    assert values(Hbpo(), batch) == pytest.approx([0.3, 4 * cos(pi / 16)])


@pytest.mark.parametrize("fields", [{"beta": 0}, {"alpha": -1}, {"max_length": 0}, {"variant": "both"}])
def test_refusals(fields):
    (name,) = fields
    with pytest.raises(UserError, match=rf"Hbpo\.{name}="):
        Hbpo(**fields)
