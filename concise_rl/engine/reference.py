"""The model that a KL term compares with: the one that the run began with, however that was loaded; or one that follows
the policy (`trainer.sync_ref_model`), which is part of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_model
from trl.trainer import grpo_trainer

from concise_rl.engine.disk import CheckpointError
from concise_rl.errors import UserError

REFERENCE_FILE = "reference.safetensors"
"""The weights of a reference that follows the policy, in a checkpoint."""


@contextmanager
def reference_from(load: Callable[[], Any]) -> Iterator[None]:
    """While this is open, a trainer that is built makes its reference by `load`.

    TRL loads it by the name that the policy's config carries: of revision `main`, without remote code, and not at all
    where the policy came out of a GGUF file or had an adapter merged.
    """
    kept = grpo_trainer.create_model_from_path
    grpo_trainer.create_model_from_path = lambda *_, **__: load()
    try:
        yield
    finally:
        grpo_trainer.create_model_from_path = kept


def check_moving(args: Any, *, adapter: bool, sharded: bool = False) -> None:
    """Refuse a reference that should follow the policy and cannot, or that no checkpoint could hold.

    Raises:
        UserError: there is no KL term, the policy is an adapter, or the weights are sharded.
    """
    if not args.sync_ref_model:
        return
    if args.beta == 0:
        raise UserError("trainer.sync_ref_model=true without a KL term has no reference: set trainer.beta above 0")
    if adapter:
        raise UserError(
            "trainer.sync_ref_model=true: with an adapter the reference is the model without it and cannot follow; "
            "train all weights, peft=none, or set trainer.sync_ref_model=false"
        )
    if sharded:
        raise UserError(
            "trainer.sync_ref_model=true: under ZeRO-3 and FSDP no checkpoint holds the reference, a resumed run would "
            "be another: use DDP or ZeRO-2, or set trainer.sync_ref_model=false"
        )


def load_beside(model: Any, path: Path, *, field: str) -> None:
    """Bring back the weights of a second model that a checkpoint holds beside the policy's.

    Args:
        field: the setting without which a checkpoint has no such file.

    Raises:
        CheckpointError: the file is missing, damaged or of another model.
    """
    try:
        load_model(model, str(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} cannot be read ({reason}): the checkpoint was saved without {field}, or is damaged; resume from "
            "another"
        ) from error
