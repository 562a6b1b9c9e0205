"""HBPO's credit: both terms by hand, paper and code."""

from __future__ import annotations

from math import cos, pi
from statistics import mean, stdev

import pytest

from concise_rl.errors import UserError
from concise_rl.methods import load_method
from concise_rl.methods.advantages.hbpo import HbpoCredit

from ..one_group import one_group, values

BUDGETS = [512, 512, 2048, 2048]
PROMISED = [4 * cos(pi * b / 8192) for b in BUDGETS]


def batch_of(lengths, correct, **others):
    size = len(lengths)
    return one_group(lengths, correct, parts={"budget": BUDGETS[:size]}, limits=[4096] * size, **others)


@pytest.mark.parametrize(("variant", "times"), [("paper", 1), ("code", 2)])
def test_by_hand(variant, times):
    rewards = [3.9, 0.0, 2.5, 2.8]
    means = [1.95, 1.95, 2.65, 2.65]
    expected = [
        (r - mean(rewards)) / (stdev(rewards) + 1e-6) + times * (mu - promised)
        for r, mu, promised in zip(rewards, means, PROMISED, strict=True)
    ]
    batch = batch_of([100, 100, 100, 100], [1, 0, 1, 1])
    assert values(HbpoCredit(variant=variant), batch, rewards) == pytest.approx(expected)


def test_a_group_that_is_right_within_its_budgets_has_the_term_of_the_group_alone():
    method = load_method("hbpo")
    result, _ = method.apply(batch_of([100] * 4, [1] * 4), method.init())
    assert result.reward.tolist() == pytest.approx(PROMISED)
    expected = [(r - mean(PROMISED)) / (stdev(PROMISED) + 1e-6) for r in PROMISED]
    assert result.credit.tolist() == pytest.approx(expected)


def test_a_wrong_group_loses_what_its_budgets_promise():
    assert values(HbpoCredit(), batch_of([100] * 4, [0] * 4)) == pytest.approx([-p for p in PROMISED])


def test_rows_that_do_not_count_and_a_group_of_one():
    batch = batch_of([100] * 4, [1, 0, 1, 1], scorable=[1, 0, 1, 1])
    credit = values(HbpoCredit(), batch, [PROMISED[0], 9.0, *PROMISED[2:]])
    rewards = [PROMISED[0], *PROMISED[2:]]
    assert credit[0] == pytest.approx((rewards[0] - mean(rewards)) / (stdev(rewards) + 1e-6))
    assert credit[1] == 0
    assert values(HbpoCredit(), batch_of([100], [1]), [3.0]) == [0]


@pytest.mark.parametrize("fields", [{"beta": 0}, {"epsilon": 0}, {"max_length": 0}, {"variant": "both"}])
def test_refusals(fields):
    (name,) = fields
    with pytest.raises(UserError, match=rf"HbpoCredit\.{name}="):
        HbpoCredit(**fields)
