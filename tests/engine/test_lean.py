"""The lean step is TRL's: the same loss and gradient, however the step is cut and whatever is left out of it."""

from __future__ import annotations

import types

import pytest
import torch
from torch.testing import assert_close
from trl import GRPOTrainer

from concise_rl.errors import UserError
from concise_rl.methods.losses.policy_loss import LOSS_TYPES
from concise_rl.model.scoring import Rows, microbatches, score_rows

LENGTHS = torch.tensor([3, 9, 1, 12, 7, 5])
CREDIT = torch.tensor([0.0, 1.3, -0.4, 0.0, 0.7, 0.0])
EXTRA = {"cispo": ["trainer.epsilon_high=3"], "luspo": ["trainer.importance_sampling_level=sequence"]}


def stored_rollouts(old: bool, beta: bool) -> dict[str, torch.Tensor]:
    """Six rows as TRL hands them to its loss, three of them without credit; two prompts, one of them padded."""
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(12) < LENGTHS[:, None]).long()
    of_row = torch.tensor([0, 1, 1, 0, 1, 0])
    prompt_lengths = torch.tensor([4, 2])[of_row]
    inputs = {
        "prompt_ids": torch.randint(10, 60, (2, 4), generator=generator)[of_row],
        "prompt_mask": (torch.arange(4) >= 4 - prompt_lengths[:, None]).long(),
        "completion_ids": torch.randint(10, 60, (6, 12), generator=generator) * mask,
        "completion_mask": mask,
        "advantages": CREDIT.clone(),
        "num_items_in_batch": mask.sum(),
    }
    if old:
        inputs["old_per_token_logps"] = -3 * torch.rand(6, 12, generator=generator) * mask
    if beta:
        inputs["ref_per_token_logps"] = -4 * torch.rand(6, 12, generator=generator) * mask
    return inputs


def gradient(trainer) -> list[torch.Tensor]:
    found = [p.grad.clone() for p in trainer.model.parameters()]
    trainer.model.zero_grad()
    return found


def stock(trainer, inputs) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """TRL's own loss through TRL's own scoring."""
    scoring = trainer._get_per_token_logps_and_entropies
    plain = GRPOTrainer._get_per_token_logps_and_entropies
    trainer._get_per_token_logps_and_entropies = types.MethodType(plain, trainer)
    loss = GRPOTrainer._compute_loss(trainer, trainer.model, inputs)
    loss.backward()
    trainer._get_per_token_logps_and_entropies = scoring
    return loss.detach(), gradient(trainer)


def lean(trainer, buffered) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Ours, over the accumulation steps of one optimizer step."""
    trainer._weigh(buffered, trainer.args.gradient_accumulation_steps)
    loss = sum(trainer._forward_backward(trainer.model, trainer._loss_rows(inputs)) for inputs in buffered)
    return loss, gradient(trainer)


def assert_same(found, expected) -> None:
    assert_close(found[0].double(), expected[0].double(), rtol=1e-5, atol=1e-6)
    for a, b in zip(found[1], expected[1], strict=True):
        assert_close(a, b, rtol=1e-4, atol=2e-6 * max(1.0, float(b.abs().max())))


def prepared(make_trainer, *overrides):
    trainer, _ = make_trainer("method=grpo", *overrides)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer


@pytest.mark.parametrize("old", [False, True], ids=["on-policy", "off-policy"])
@pytest.mark.parametrize("loss_type", sorted(LOSS_TYPES))
def test_each_optimisation_and_all_of_them_change_nothing(make_trainer, loss_type, old):
    trainer = prepared(make_trainer, f"trainer.loss_type={loss_type}", *EXTRA.get(loss_type, []))
    assert trainer._share_prompts
    inputs = stored_rollouts(old, beta=False)
    expected = stock(trainer, dict(inputs))
    assert any(g.abs().sum() > 0 for g in expected[1])
    for drop, fuse, share, tokens in [
        (False, False, False, 999),
        (True, False, False, 999),
        (False, True, False, 999),
        (False, False, True, 999),
        (False, False, False, 20),
        (True, True, True, 20),
    ]:
        trainer._drop_idle_rows, trainer._fuse_loss, trainer._share_prompts = drop, fuse, share
        trainer.args.max_tokens_per_microbatch = tokens
        assert_same(lean(trainer, [dict(inputs)]), expected)


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.beta=0.1"],
        ["trainer.beta=0.1", "trainer.use_bias_correction_kl=true"],
        ["trainer.delta=1.1"],
        ["trainer.importance_sampling_level=sequence"],
        ["trainer.temperature=0.7"],
    ],
    ids=lambda overrides: overrides[-1],
)
def test_options_of_the_loss_are_those_of_trl(make_trainer, overrides):
    trainer = prepared(make_trainer, *overrides)
    inputs = stored_rollouts(old=True, beta=True)
    inputs["advantages"] = torch.tensor([0.4, 1.3, -0.4, -1.0, 0.7, 0.2])
    trainer.args.max_tokens_per_microbatch = 20
    assert_same(lean(trainer, [dict(inputs)]), stock(trainer, dict(inputs)))


@pytest.mark.parametrize("loss_type", sorted(LOSS_TYPES))
def test_accumulation_does_not_change_the_step(make_trainer, loss_type):
    """1 x 6 = 2 x 3 = 6 x 1, for losses whose denominator TRL takes of each micro-batch too."""
    trainer = prepared(make_trainer, f"trainer.loss_type={loss_type}", *EXTRA.get(loss_type, []))
    inputs = stored_rollouts(old=True, beta=False)
    expected = lean(trainer, [dict(inputs)])
    for pieces in (2, 6):
        trainer.args.gradient_accumulation_steps = pieces
        split = [
            {name: v if v.ndim == 0 else v[piece::pieces] for name, v in inputs.items()} for piece in range(pieces)
        ]
        assert_same(lean(trainer, split), expected)


def test_two_optimizer_steps_of_one_generation_have_a_denominator_each(make_trainer):
    trainer = prepared(make_trainer, "trainer.loss_type=bnpo")
    inputs = stored_rollouts(old=True, beta=False)
    halves = [{name: v if v.ndim == 0 else v[part] for name, v in inputs.items()} for part in (slice(3), slice(3, 6))]
    trainer._weigh(halves, 1)
    for half, tokens in zip(halves, (13, 24), strict=True):
        assert_close(half["weight"], half["completion_mask"] / tokens)


def test_a_step_without_credit_still_runs_backward(make_trainer):
    trainer = prepared(make_trainer)
    inputs = stored_rollouts(old=False, beta=False) | {"advantages": torch.zeros(6)}
    loss, found = lean(trainer, [inputs])
    assert loss == 0
    assert not any(g.any() for g in found)


def test_microbatches_hold_every_active_row_once_under_the_budget():
    mask = (torch.arange(12) < LENGTHS[:, None]).long()
    rows = Rows(torch.ones(6, 4), torch.ones(6, 4), torch.ones(6, 12), mask, mask)
    active = torch.tensor([True, True, False, True, True, True])
    for budget in (1, 16, 23, 40, 1000):
        parts = microbatches(rows, budget, active)
        assert sorted(torch.cat(parts).tolist()) == [0, 1, 3, 4, 5]
        for part in parts:
            taken = rows.take(part)
            assert taken.completion_ids.shape[1] == LENGTHS[part].max()
            assert len(part) == 1 or taken.completion_ids.numel() + taken.prompt_ids.numel() <= budget
    assert len(microbatches(rows, 1000)) == 1


def test_scores_come_back_in_their_rows():
    mask = (torch.arange(6) < torch.tensor([2, 6, 0, 4, 1])[:, None]).long()
    ids = torch.arange(30).view(5, 6)
    rows = Rows(torch.ones(5, 2), torch.ones(5, 2), ids, mask, mask)
    parts = microbatches(rows, 16, torch.tensor([True, True, True, False, True]))
    scores, entropies = score_rows(rows, parts, lambda some, _: (some.completion_ids * some.completion_mask, None))
    assert entropies is None
    assert_close(scores, ids * mask * (torch.arange(5) != 3)[:, None])


def test_a_budget_of_nothing_is_refused(make_trainer):
    with pytest.raises(UserError, match="max_tokens_per_microbatch=0: must be positive"):
        make_trainer("method=grpo", "trainer.max_tokens_per_microbatch=0")
