"""Shaping may not turn a right answer's credit negative, nor a wrong one's positive."""

from __future__ import annotations

import pytest
import torch

from concise_rl.batch import RolloutBatch
from concise_rl.methods import GroupRelative, Method, SignSafe
from concise_rl.methods.metrics import step_metrics


def credit(batch: RolloutBatch, reward: list[float], *links) -> torch.Tensor:
    method = Method("test", {f"advantage.{n}": link for n, link in enumerate(links)})
    return method.apply(batch.replace(task_reward=torch.tensor(reward, dtype=torch.float64)), {})[0].credit


def test_a_long_right_answer_is_not_pushed_down() -> None:
    batch = RolloutBatch.of(prompt_keys=["p"], group_size=4, lengths=[5, 5, 90, 9], correct=[1, 1, 1, 0])
    reward = [1.0, 1.0, -0.6, 0.2]  # the length term put the third below the wrong one
    plain = credit(batch, reward, GroupRelative(scale="none"))
    safe = credit(batch, reward, GroupRelative(scale="none"), SignSafe())
    assert plain.tolist() == pytest.approx([0.6, 0.6, -1.0, -0.2])
    assert safe.tolist() == pytest.approx([0.6, 0.6, 0.0, -0.2])
    assert step_metrics(batch, batch.task_reward, plain)["wiped_correct_frac"] == pytest.approx(1 / 3)
    assert step_metrics(batch, batch.task_reward, safe)["wiped_correct_frac"] == 0


def test_a_wrong_answer_is_not_pushed_up() -> None:
    batch = RolloutBatch.of(prompt_keys=["p"], group_size=2, lengths=[5, 5], correct=[1, 0])
    assert credit(batch, [0.0, 1.0], GroupRelative(scale="none"), SignSafe()).tolist() == [0.0, 0.0]


def test_the_share_of_taken_credit_is_logged() -> None:
    batch = RolloutBatch.of(prompt_keys=["p"], group_size=2, lengths=[5, 5], correct=[1, 0])
    out = SignSafe().apply(batch, torch.tensor([[-1.0, 2.0], [-1.0, -2.0]], dtype=torch.float64))
    assert out.value.tolist() == [[0.0, 2.0], [-1.0, -2.0]]
    assert out.metrics == {"sign_safe/changed_frac": 0.5}
