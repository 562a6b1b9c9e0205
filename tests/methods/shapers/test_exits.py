"""S-GRPO's exit rewards: the worked example, and rows that do not count."""

from __future__ import annotations

import pytest

from concise_rl.errors import UserError
from concise_rl.methods import Method, load_method
from concise_rl.methods.shapers.exits import Exits

from ..one_group import one_group, values

LENGTHS = [10, 20, 30, 40, 50]


def test_the_worked_example():
    method = load_method("s_grpo")
    result, _ = method.apply(one_group(LENGTHS, [0, 1, 1, 0, 1]), method.init())
    assert result.reward.tolist() == [0, 1, 0.5, 0, 0.25]
    assert result.credit.tolist() == pytest.approx([-0.35, 0.65, 0.15, -0.35, -0.1])
    assert result.metrics["exits/first_right"] == 1


@pytest.mark.parametrize(
    ("correct", "expected"),
    [([1, 1, 1, 1, 1], [1, 0.5, 0.25, 0.125, 0.0625]), ([0] * 5, [0] * 5), ([0, 0, 0, 0, 1], [0, 0, 0, 0, 1])],
)
def test_all_none_and_only_the_whole_answer(correct, expected):
    assert values(Exits(), one_group(LENGTHS, correct)) == expected


def test_a_row_that_does_not_count_is_no_exit():
    batch = one_group(LENGTHS, [1, 1, 1, 0, 1], scorable=[0, 1, 1, 1, 1], task_reward=[0.7, 1, 1, 0, 1])
    assert values(Exits(), batch) == [0.7, 1, 0.5, 0, 0.25]


def test_it_is_not_stacked_on_another_reward():
    method = load_method("s_grpo")
    chain = {"shaper.hapo": load_method("hapo").shapers[0]} | dict(method.components)
    with pytest.raises(UserError, match="Exits replaces the reward"):
        Method("both", chain)
