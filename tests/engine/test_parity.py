"""`minimal.py` and `trainer.py` are one algorithm: same rollouts, same rewards, same credits, same first update."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from concise_rl import minimal
from concise_rl.batch import RolloutBatch
from concise_rl.commands.config import compose, method_of, teaching_of
from concise_rl.errors import UserError
from concise_rl.methods import load_method, method_names
from concise_rl.testbeds import ChainSum

LEAVE_OUT = ("truncated=mask", "zero_variance=drop", "trainer.per_device_train_batch_size=64")
METHODS = {"hapo": "bnpo", "kimi": "grpo", "dr_grpo": "dr_grpo", "dapo": "dapo", "canon_length": "dr_grpo"}


@pytest.mark.parametrize(
    ("method", "rules"), [*((method, ()) for method in METHODS), *((m, LEAVE_OUT) for m in ("hapo", "kimi", "dr_grpo"))]
)
def test_first_update_is_that_of_the_screen(make_trainer, monkeypatch, method, rules):
    loss_type = METHODS[method]
    overrides = (
        f"method={method}",
        *rules,
        f"trainer.loss_type={loss_type}",
        "trainer.max_steps=1",
        "trainer.optim=adamw_torch",
    )
    trainer, seen = make_trainer(*overrides)
    sampled = {}
    sample = type(trainer)._generate_single_turn

    def remember(self, prompt_ids, *args):
        completion_ids, logprobs = sample(self, prompt_ids, *args)
        sampled.update(prompts=[list(map(int, ids)) for ids in prompt_ids], completions=completion_ids)
        return completion_ids, logprobs

    monkeypatch.setattr(type(trainer), "_generate_single_turn", remember)
    start = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    trainer.train()
    record = seen.records[0]

    composed = compose([*overrides, "trainer.max_completion_length=48"])
    own = method_of(composed)
    twin, _ = make_trainer(*overrides)
    model = twin.model
    model.load_state_dict(start)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)
    result, _ = minimal.update(
        model,
        optimizer,
        record.batch.replace(counts=record.batch.scorable),  # before the rules left rows out
        sampled["prompts"],
        sampled["completions"],
        own,
        own.init(),
        teaching_of(composed),
        loss_type=loss_type,
        max_tokens=48,
        epsilon_high=composed.trainer.get("epsilon_high", 0.2),
    )
    assert_close(result.reward, record.reward, rtol=0, atol=0)
    assert_close(result.credit, record.credit, rtol=0, atol=0)
    assert torch.equal(result.counts, record.batch.counts)
    assert result.credit.abs().sum() > 0, "a group without credit would prove nothing"
    if rules:
        assert 0 < seen.metrics[0]["left_out_frac"] < 1
    moved = 0.0
    for name, weight in trainer.model.state_dict().items():
        moved = max(moved, float((weight - start[name]).abs().max()))
        # Adam's first step has the size of the learning rate whatever the gradient, so signs must agree, not sizes.
        assert (weight - model.state_dict()[name]).abs().mean() < 2e-6, name
    assert moved > 5e-5


def test_the_screen_refuses_what_it_leaves_out(capsys):
    """One recipe a reason; those that pass change nothing but rewards, credits and what `policy_loss` takes."""
    for name, what in {
        "cascade": "curriculum.readmit",
        "brpo": "sampler.brpo, parts.chain, parts.segment",
        "dot": "cut.dot, trainer.beta",
        "effort": "edit.effort, columns.low_effort",
        "siri": "trainer.max_completion_length",
        "pear": "answer_entropy, think_entropy",
        "e2h": "curriculum.e2h",
        "scalerl": "curriculum.pass_rate, trainer.loss_type=cispo",
    }.items():
        with pytest.raises(SystemExit, match="2"):
            minimal.main(["--method", name])
        said = " ".join(capsys.readouterr().err.split())
        assert f"error: method {name} asks for {what}, which is left out here" in said
    passed = []
    for name in method_names():
        method = load_method(name)
        try:
            loss = minimal.loss_options(method, columns=[])
        except UserError:
            continue
        passed.append(name)
        assert {slot.partition(".")[0] for slot in method.components} <= {"filter", "shaper", "advantage"}
        assert loss | {"num_generations": 16} == {"loss_type": "bnpo"} | dict(method.loss) | {"num_generations": 16}
    assert {"grpo", "hapo", "kimi", "toggle"} <= set(passed)


def test_the_screen_runs(capsys):
    minimal.main(["--steps", "2", "--prompts", "2", "--group-size", "2", "--max-tokens", "24"])
    assert capsys.readouterr().out.count("accuracy") == 2


def test_columns_reach_the_batch(make_trainer):
    trainer, seen = make_trainer("method=gui_g1", "trainer.max_steps=1")
    trainer.train()
    batch: RolloutBatch = seen.records[0].batch
    difficulty_of = {prompt.id: prompt.columns["difficulty"] for prompt in ChainSum().load("train")}
    assert [difficulty_of[key] for key in batch.prompt_keys] == list(batch.columns["difficulty"])
