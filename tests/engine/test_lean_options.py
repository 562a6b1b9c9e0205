"""What TRL's loss can do besides: entropy bonus, entropy quantile, off-policy mask, VESPO, another sampler's weights.

Each is TRL's where a step is one micro-batch, and stays the same however the step is cut and whoever is left out. In
float64: some weigh a row by an exponential of its sum of log-probs, and in float32 processors differ by more than a
formula could hide.
"""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from trl import GRPOTrainer

from concise_rl.errors import UserError

from . import test_lean
from .test_lean import EXTRA, LOSS_TYPES, assert_same, lean, stock, stored_rollouts

OPTIONS = {
    "entropy bonus": ["trainer.entropy_coef=0.3"],
    "entropy bonus beside a KL": ["trainer.entropy_coef=0.3", "trainer.beta=0.1"],
    "quantile": ["trainer.top_entropy_quantile=0.4"],
    "quantile of a bonus": ["trainer.top_entropy_quantile=0.4", "trainer.entropy_coef=0.3", "trainer.beta=0.1"],
    "off-policy mask": ["trainer.off_policy_mask_threshold=0.02"],
    "vespo": ["trainer.loss_type=vespo"],
    "vespo beside a KL": ["trainer.loss_type=vespo", "trainer.beta=0.1"],
}


def prepared(make_trainer, *overrides):
    trainer = test_lean.prepared(make_trainer, *overrides)
    trainer.model.double()
    return trainer


def rollouts(trainer) -> dict[str, torch.Tensor]:
    """`stored_rollouts`, close enough to the policy that no ratio leaves its bounds, every row with credit."""
    inputs = stored_rollouts(old=True, beta=True)
    inputs["advantages"] = torch.tensor([0.4, 1.3, -0.4, -1.0, 0.7, 0.2])
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    with torch.no_grad():
        logprobs = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, 12)[0]
    for seed, name in enumerate(("old_per_token_logps", "ref_per_token_logps")):
        noise = 0.2 * torch.randn(6, 12, generator=torch.Generator().manual_seed(seed))
        inputs[name] = (logprobs + noise) * inputs["completion_mask"]
    return {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}


@pytest.mark.parametrize("overrides", OPTIONS.values(), ids=OPTIONS.keys())
def test_an_option_is_trls_in_one_micro_batch_and_in_many(make_trainer, overrides):
    trainer = prepared(make_trainer, *overrides)
    inputs = rollouts(trainer)
    expected = stock(trainer, dict(inputs))
    assert_same(lean(trainer, [dict(inputs)]), expected)
    trainer.args.max_tokens_per_microbatch = 20
    assert_same(lean(trainer, [dict(inputs)]), expected)


@pytest.mark.parametrize("overrides", OPTIONS.values(), ids=OPTIONS.keys())
def test_an_option_changes_the_gradient(make_trainer, overrides):
    """Else the test above would compare nothing with nothing."""
    trainer = prepared(make_trainer, *overrides)
    inputs = rollouts(trainer)
    with_option = lean(trainer, [dict(inputs)])[1]
    plain = prepared(make_trainer, *(["trainer.beta=0.1"] if "trainer.beta=0.1" in overrides else []))
    plain.model.load_state_dict(trainer.model.state_dict())
    without = lean(plain, [dict(inputs)])[1]
    assert max(float((a - b).abs().max()) for a, b in zip(with_option, without, strict=True)) > 1e-4


@pytest.mark.parametrize("loss_type", sorted(LOSS_TYPES - {"vespo"}))
def test_another_samplers_weights_leave_the_kl_alone(make_trainer, loss_type):
    trainer = prepared(make_trainer, f"trainer.loss_type={loss_type}", "trainer.beta=0.1", *EXTRA.get(loss_type, []))
    inputs = rollouts(trainer)
    generator = torch.Generator().manual_seed(3)
    inputs["importance_sampling_ratio"] = 0.5 + torch.rand(6, 12, generator=generator)
    trainer.use_vllm = trainer.vllm_importance_sampling_correction = True
    assert_same(lean(trainer, [dict(inputs)]), stock(trainer, dict(inputs)))


def test_another_samplers_weights_enter_the_weight_of_vespo(make_trainer):
    trainer = prepared(make_trainer, "trainer.loss_type=vespo")
    inputs = rollouts(trainer)
    ratio = 0.9 + 0.2 * torch.rand(6, 12, generator=torch.Generator().manual_seed(3))
    inputs["importance_sampling_ratio"] = torch.where(inputs["completion_mask"].bool(), ratio, 1.0)
    trainer.use_vllm = trainer.vllm_importance_sampling_correction = True
    assert_same(lean(trainer, [dict(inputs)]), stock(trainer, dict(inputs)))


@pytest.mark.parametrize("loss_type", ["grpo", "sapo", "luspo", "dr_grpo"])
@pytest.mark.parametrize("option", ["entropy bonus beside a KL", "quantile", "off-policy mask"])
def test_with_an_option_too_rows_left_out_are_in_no_denominator(make_trainer, loss_type, option):
    trainer = prepared(make_trainer, f"trainer.loss_type={loss_type}", *OPTIONS[option])
    inputs = rollouts(trainer)
    rows = torch.tensor([0, 2, 3, 5])
    expected = lean(trainer, [{name: value if value.ndim == 0 else value[rows] for name, value in inputs.items()}])
    masked = dict(inputs, completion_mask=inputs["completion_mask"].clone())
    masked["completion_mask"][[1, 4]] = 0
    assert_same(lean(trainer, [masked]), expected)


@pytest.mark.parametrize("option", ["entropy bonus beside a KL", "quantile of a bonus", "off-policy mask", "vespo"])
def test_with_an_option_too_accumulation_does_not_change_the_step(make_trainer, option):
    trainer = prepared(make_trainer, *OPTIONS[option])
    inputs = rollouts(trainer)
    expected = lean(trainer, [dict(inputs)])
    for pieces in (2, 6):
        trainer.args.gradient_accumulation_steps = pieces
        split = [
            {name: v if v.ndim == 0 else v[piece::pieces] for name, v in inputs.items()} for piece in range(pieces)
        ]
        assert_same(lean(trainer, split), expected)


def test_an_adaptive_bonus_moves_with_the_entropy_of_the_whole_step(make_trainer):
    adaptive = ["trainer.use_adaptive_entropy=true", "trainer.entropy_coef=0.1", "trainer.entropy_coef_delta=0.01"]
    trainer = prepared(make_trainer, *adaptive, "trainer.entropy_target=0.01")
    inputs = rollouts(trainer)
    lean(trainer, [dict(inputs)])
    found = trainer._last_world_entropy
    assert found == pytest.approx(trainer._metrics["train"]["entropy"][-1], rel=1e-5)
    assert found > 0.01
    assert trainer.entropy_coef == pytest.approx(0.09)
    assert trainer._entropy_coefficient() == 0
    trainer.args.entropy_target = 100.0
    lean(trainer, [dict(inputs)])
    assert trainer.entropy_coef == trainer._entropy_coefficient() == pytest.approx(0.10)


@pytest.mark.parametrize("pieces", [1, 3])
def test_the_loss_without_its_bonus_is_logged(make_trainer, pieces):
    trainer = prepared(make_trainer, "trainer.entropy_coef=0.3")
    inputs = rollouts(trainer)
    trainer.args.gradient_accumulation_steps = trainer.current_gradient_accumulation_steps = pieces
    split = [{name: v if v.ndim == 0 else v[piece::pieces] for name, v in inputs.items()} for piece in range(pieces)]
    loss = float(lean(trainer, split)[0])
    logged = trainer._metrics["train"]
    tokens = [float(part["completion_mask"].sum()) for part in split]
    mean = sum(h * n for h, n in zip(logged["entropy"], tokens, strict=True)) / sum(tokens)
    assert len(logged["policy_loss"]) == pieces
    assert sum(logged["policy_loss"]) / pieces == pytest.approx(loss + 0.3 * mean, rel=1e-4)


@pytest.mark.parametrize("loss_type", sorted(LOSS_TYPES))
def test_the_loss_of_an_evaluation_is_trls(make_trainer, loss_type):
    trainer = prepared(make_trainer, f"trainer.loss_type={loss_type}", *EXTRA.get(loss_type, []))
    inputs = rollouts(trainer)
    expected = stock(trainer, dict(inputs))[0]
    trainer.model.eval()
    with torch.no_grad():
        found = trainer._compute_loss(trainer.model, dict(inputs))
        assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    assert trainer._metrics["eval"]["entropy"]


def test_entropy_is_logged_only_where_something_was_scored(make_trainer):
    """A step without credit scores nothing; an entropy of 0 would look like a policy that has collapsed."""
    trainer = prepared(make_trainer)
    lean(trainer, [stored_rollouts(old=False, beta=False) | {"advantages": torch.zeros(6)}])
    assert "entropy" not in trainer._metrics["train"]
    lean(trainer, [rollouts(trainer)])
    (entropy,) = trainer._metrics["train"]["entropy"]
    assert entropy > 0


def test_an_epoch_of_steps_has_no_short_one(make_trainer):
    """TRL draws whole generations, and a generation is whole steps: the last step of an epoch is one like all."""
    with pytest.raises(UserError, match=r"steps_per_generation=2 is no multiple of gradient_accumulation_steps=4"):
        make_trainer("trainer.steps_per_generation=2", "trainer.gradient_accumulation_steps=4")
    with pytest.raises(UserError, match=r"steps_per_generation=3 is no multiple of gradient_accumulation_steps=2"):
        make_trainer("trainer.steps_per_generation=3", "trainer.gradient_accumulation_steps=2")
    make_trainer("trainer.steps_per_generation=4", "trainer.gradient_accumulation_steps=2")


def test_the_cache_is_emptied_as_often_as_asked(make_trainer, monkeypatch):
    emptied = []
    monkeypatch.setattr("concise_rl.engine.lean.clear_device_cache", lambda: emptied.append(1))
    trainer, _ = make_trainer("trainer.torch_empty_cache_steps=2", "trainer.max_steps=4")
    trainer.train()
    assert len(emptied) == 2


def test_a_cache_implementation_is_used(make_trainer, monkeypatch):
    asked = []
    plain = GRPOTrainer._generate_single_turn

    def through_generate(self, *args):
        asked.append(self.generation_config.cache_implementation)
        return plain(self, *args)

    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", through_generate)
    trainer, _ = make_trainer("trainer.cache_implementation=dynamic", "trainer.max_steps=1")
    trainer.train()
    assert asked == ["dynamic"]
