"""The prompt average: its weights, and that a token mean of the rescaled credit is the same number."""

from __future__ import annotations

import pytest
import torch

from concise_rl.batch import RolloutBatch
from concise_rl.methods.advantages.prompt_average import PromptAverage
from concise_rl.methods.losses.aggregation import prompt_average_weights


def batch_of(lengths, group_size, **others) -> RolloutBatch:
    keys = [f"q{p}" for p in range(len(lengths) // group_size)]
    return RolloutBatch.of(
        prompt_keys=keys, group_size=group_size, lengths=lengths, correct=[True] * len(lengths), **others
    )


def test_one_prompt():
    batch = batch_of([400, 900, 700, 1600], 4)
    assert prompt_average_weights(batch).tolist() == pytest.approx([1 / 3600] * 4)
    assert PromptAverage().apply(batch, torch.arange(4.0).double()).value.tolist() == pytest.approx([0, 1, 2, 3])


def test_the_three_means_of_the_literature_differ():
    """(+1, 10 tokens), (-1, 30) and (+1, 100), (-1, 100): prompt average -.25, token mean -.0833."""
    batch = batch_of([10, 30, 100, 100], 2)
    credit = torch.tensor([1.0, -1, 1, -1], dtype=torch.float64)
    tokens = batch.lengths.double()
    assert float((prompt_average_weights(batch) * tokens * credit).sum()) == pytest.approx(-0.25)
    assert float((tokens * credit).sum() / tokens.sum()) == pytest.approx(-0.0833, abs=5e-5)
    rescaled = PromptAverage().apply(batch, credit).value
    assert float((tokens * rescaled).sum() / tokens.sum()) == pytest.approx(-0.25)


def test_weights_of_all_tokens_add_up_to_one_and_left_out_rows_weigh_nothing():
    batch = batch_of([10, 30, 100, 100, 7, 8], 2, scorable=[True, False, True, True, False, False])
    weights = prompt_average_weights(batch)
    assert weights.tolist() == pytest.approx([1 / 20, 0, 1 / 400, 1 / 400, 0, 0])
    assert float((weights * batch.lengths).sum()) == pytest.approx(1.0)


def test_prompts_without_tokens_are_not_kept():
    weights = prompt_average_weights(batch_of([0, 0, 4, 4], 2))
    assert weights.tolist() == pytest.approx([0, 0, 1 / 8, 1 / 8])
    assert prompt_average_weights(batch_of([0, 0], 2)).tolist() == [0.0, 0.0]


def test_credit_a_token_is_rescaled_alike():
    batch = batch_of([10, 30, 100, 100], 2)
    credit = torch.ones(4, 3, dtype=torch.float64)
    out = PromptAverage().apply(batch, credit).value
    assert out[:, 0].tolist() == pytest.approx([3.0, 3.0, 0.6, 0.6])
    assert torch.equal(out, out[:, :1].expand(4, 3))
