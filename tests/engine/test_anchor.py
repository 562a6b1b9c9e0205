"""T1's anchor: a KL reference that follows the policy is state, and is refused where no checkpoint could hold it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from concise_rl.engine.disk import CheckpointError
from concise_rl.engine.reference import REFERENCE_FILE, check_moving
from concise_rl.errors import UserError

ANCHORED = (
    "method=t1",
    "trainer.beta=0.5",
    "trainer.ref_model_mixup_alpha=0.5",
    "trainer.learning_rate=1e-3",
    "trainer.max_steps=4",
    "trainer.save_strategy=steps",
    "trainer.save_steps=2",
    "trainer.save_total_limit=null",
)


def weights(model):
    return dict(model.state_dict())


def test_a_resumed_run_has_the_anchor_of_the_run_that_never_stopped(make_trainer):
    whole, _ = make_trainer(*ANCHORED)
    start = {name: weight.clone() for name, weight in weights(whole.ref_model).items()}
    whole.train()
    assert any(not torch.equal(weight, start[name]) for name, weight in weights(whole.ref_model).items())
    saved = Path(whole.args.output_dir) / "checkpoint-2"

    resumed, _ = make_trainer(*ANCHORED)
    resumed.train(resume_from_checkpoint=str(saved))
    for name, weight in weights(whole.ref_model).items():
        assert torch.equal(weight, weights(resumed.ref_model)[name]), name
    for name, weight in weights(whole.model).items():
        assert torch.equal(weight, weights(resumed.model)[name]), name

    (saved / REFERENCE_FILE).unlink()
    again, _ = make_trainer(*ANCHORED)
    with pytest.raises(CheckpointError, match=r"reference\.safetensors cannot be read.*sync_ref_model"):
        again.train(resume_from_checkpoint=str(saved))


@pytest.mark.parametrize(
    ("beta", "where", "message"),
    [
        (0.0, {"adapter": False}, "set trainer.beta above 0"),
        (0.1, {"adapter": True}, "with an adapter the reference is the model without it"),
        (0.1, {"adapter": False, "sharded": True}, "under ZeRO-3 and FSDP no checkpoint holds the reference"),
    ],
)
def test_an_anchor_that_could_not_follow_is_refused(beta, where, message):
    from types import SimpleNamespace

    args = SimpleNamespace(sync_ref_model=True, beta=beta)
    with pytest.raises(UserError, match=message):
        check_moving(args, **where)
    args.sync_ref_model = False
    check_moving(args, **where)
