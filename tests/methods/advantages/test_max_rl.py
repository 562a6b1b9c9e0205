"""MaxRL by hand."""

from __future__ import annotations

import pytest
import torch

from concise_rl.batch import RolloutBatch
from concise_rl.methods.advantages.max_rl import MaxRl


def credit(reward, scorable=None) -> list[float]:
    batch = RolloutBatch.of(
        prompt_keys=["q"],
        group_size=len(reward),
        lengths=[1] * len(reward),
        correct=[r > 0 for r in reward],
        scorable=scorable,
    )
    return MaxRl().apply(batch, torch.tensor(reward, dtype=torch.float64)).value.tolist()


def test_the_rarer_the_more():
    assert credit([1, 0, 0, 0]) == [3, -1, -1, -1]
    assert credit([1, 1, 0, 0]) == [1, 1, -1, -1]
    assert credit([0.5, 0.1]) == pytest.approx([0.2 / 0.3, -0.2 / 0.3])


def test_nothing_right_or_nothing_wrong_is_nothing():
    assert credit([0, 0]) == [0, 0]
    assert credit([1, 1]) == [0, 0]
    assert credit([1]) == [0]


def test_rows_without_a_verdict_are_not_in_the_mean():
    assert credit([1, 0, 1], scorable=[True, True, False]) == [1, -1, 0]


def test_negative_rewards_warn_and_a_mean_of_zero_or_less_is_nothing():
    with pytest.warns(UserWarning, match="negative reward"):
        assert credit([1, -1]) == [0, 0]
    with pytest.warns(UserWarning, match="negative reward"):
        assert credit([1, -3]) == [0, 0]
