"""Shaping may not turn a right answer's credit negative, nor a wrong one's positive."""

from __future__ import annotations

import pytest
import torch

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.advantages import GroupRelative, SignSafe
from concise_rl.methods.metrics import step_metrics


def test_a_long_right_answer_is_not_pushed_down() -> None:
    batch = RolloutBatch.of(prompt_ids=["p"], group_size=4, lengths=[5, 5, 90, 9], correct=[1, 1, 1, 0])
    reward = torch.tensor([1.0, 1.0, -0.6, 0.2])  # the length term put the third below the wrong one
    plain, safe = GroupRelative(scale="none"), SignSafe(inner=GroupRelative(scale="none"))
    assert plain(batch, reward).tolist() == pytest.approx([0.6, 0.6, -1.0, -0.2])
    assert safe(batch, reward).tolist() == pytest.approx([0.6, 0.6, 0.0, -0.2])
    assert step_metrics(batch, reward, plain(batch, reward))["wiped_correct_frac"] == pytest.approx(1 / 3)
    assert step_metrics(batch, reward, safe(batch, reward))["wiped_correct_frac"] == 0


def test_a_wrong_answer_is_not_pushed_up() -> None:
    batch = RolloutBatch.of(prompt_ids=["p"], group_size=2, lengths=[5, 5], correct=[1, 0])
    assert SignSafe(inner=GroupRelative(scale="none"))(batch, torch.tensor([0.0, 1.0])).tolist() == [0.0, 0.0]


def test_the_inner_must_be_an_advantage() -> None:
    with pytest.raises(UserError, match=r"SignSafe\.inner='group_relative': must be an advantage"):
        SignSafe(inner="group_relative")
