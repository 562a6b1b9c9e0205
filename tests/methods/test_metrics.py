"""Each scalar of a step, worked by hand; and that a run logs them beside those of its components."""

from __future__ import annotations

import pytest
import torch

from concise_rl.batch import RolloutBatch
from concise_rl.methods import load_method
from concise_rl.methods.metrics import step_metrics


def test_a_worked_step():
    batch = RolloutBatch.of(
        prompt_keys=["a", "b"],
        group_size=3,
        lengths=[10, 20, 30, 40, 50, 60],
        correct=[1, 1, 0, 1, 0, 0],
        scorable=[1, 1, 1, 1, 1, 0],
        truncated=[0, 0, 0, 0, 0, 1],
        task_reward=[1.0, 1.0, 0.0, 1.0, 0.0, 0.0],
    )
    taught = batch.replace(counts=torch.tensor([True, True, True, True, False, False]))
    reward = torch.tensor([2.0, -1.0, 0.5, 3.0, 100.0, 100.0], dtype=torch.float64)
    credit = torch.tensor([0.5, -0.5, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    assert step_metrics(batch, reward, credit, taught=taught) == pytest.approx(
        {
            "accuracy": 3 / 5,  # of the rows with a verdict
            "mean_tokens": 35.0,
            "truncated_frac": 1 / 6,
            "unscorable_frac": 1 / 6,
            "reward": (2 - 1 + 0.5 + 3) / 4,  # of the rows that count
            "task_reward": 3 / 4,
            "zero_variance_frac": 1 / 2,  # b has one row that counts
            "zero_credit_frac": 4 / 6,
            "wiped_correct_frac": 1 / 3,
            "mean_tokens_correct": 70 / 3,
            "mean_tokens_wrong": 40.0,
        }
    )


def test_a_token_of_credit_is_credit():
    batch = RolloutBatch.of(prompt_keys=["a"], group_size=2, lengths=[2, 2], correct=[1, 0])
    credit = torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    found = step_metrics(batch, batch.task_reward, credit)
    assert (found["zero_credit_frac"], found["wiped_correct_frac"]) == (0.5, 0.0)


@pytest.mark.parametrize("name", ["kimi", "canon_length", "leash"])
def test_what_components_log_is_in_the_result(name):
    batch = RolloutBatch.of(prompt_keys=["a"], group_size=4, lengths=[10, 20, 30, 40], correct=[1, 1, 0, 1])
    method = load_method(name)
    result, _ = method.apply(batch, method.init())
    prefix = {"kimi": "kimi_length/", "canon_length": "canon/", "leash": "leash/"}[name]
    assert [key for key in result.metrics if key.startswith(prefix)]
    if name == "canon_length":
        assert result.metrics == {"canon/mu": 1.0}
    if name == "kimi":
        assert result.metrics["kimi_length/span_mean"] == 30.0
