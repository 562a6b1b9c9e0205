"""The model that a KL term compares with is the one that the run began with, however that was loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from trl.trainer import grpo_trainer


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
