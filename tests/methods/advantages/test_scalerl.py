"""ScaleRL's credit and the recipe as a whole, by hand."""

from __future__ import annotations

import pytest
import torch

from concise_rl.batch import RolloutBatch
from concise_rl.methods.advantages.scalerl import Scalerl
from concise_rl.methods.recipes import load_method

LENGTHS = [400, 900, 700, 1600]


def batch_of(correct, lengths, group_size=4, **others) -> RolloutBatch:
    keys = [f"q{p}" for p in range(len(correct) // group_size)]
    return RolloutBatch.of(prompt_keys=keys, group_size=group_size, lengths=lengths, correct=correct, **others)


def credit(batch: RolloutBatch, reward=None) -> list[float]:
    value = batch.task_reward if reward is None else torch.tensor(reward, dtype=torch.float64)
    return Scalerl().apply(batch, value).value.tolist()


def test_the_worked_example():
    batch = batch_of([True, False, True, True], LENGTHS)
    assert credit(batch) == pytest.approx([0.57735, -1.73205, 0.57735, 0.57735], abs=1e-5)


def test_two_groups_share_one_deviation():
    batch = batch_of([True, True, False, False, True, False, False, False], [1] * 8)
    expected = [1.0690, 1.0690, -1.0690, -1.0690, 1.6036, -0.5345, -0.5345, -0.5345]
    signed = [1, 1, -1, -1, 1, -1, -1, -1]
    assert credit(batch, signed) == pytest.approx(expected, abs=5e-5)
    assert credit(batch) == pytest.approx(expected, abs=5e-5), "rewards of 0 and 1 give the same"


def test_nothing_kept_or_nothing_varies():
    assert credit(batch_of([True] * 4, LENGTHS)) == [0.0] * 4
    assert credit(batch_of([True, False] * 2, LENGTHS, scorable=[False] * 4)) == [0.0] * 4
    assert credit(batch_of([True, False], [1, 1], group_size=1)) == [0.0, 0.0]


def test_the_recipe_weighs_prompts_alike_and_leaves_out_what_has_no_variance():
    correct = [True, False, True, True, True, False, False, False, True, True, True, True]
    batch = batch_of(correct, [400, 900, 700, 1600, 10, 20, 30, 40, 5, 5, 5, 5])
    method = load_method("scalerl")
    result, states = method.apply(batch, method.init())
    assert result.counts.tolist() == [True] * 8 + [False] * 4
    tokens, kept = 3700, 2
    factors = [tokens / (kept * 3600)] * 4 + [tokens / (kept * 100)] * 4
    pd = (2 * (3 * 0.25**2 + 0.75**2) / 8) ** 0.5
    centred = [0.25, -0.75, 0.25, 0.25, 0.75, -0.25, -0.25, -0.25]
    expected = [c / pd * f for c, f in zip(centred, factors, strict=True)]
    assert result.credit.tolist() == pytest.approx(expected + [0.0] * 4)
    states = method.observe(batch.replace(counts=result.counts), states)
    assert states["curriculum.pass_rate"]["removed"] == ["q2"], "what teaches nothing is what is to be removed"
