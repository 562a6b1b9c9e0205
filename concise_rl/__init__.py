"""Reinforcement learning that trains reasoning models to think no longer than they need.

`RolloutBatch` is one step as data; `ConciseTrainer` trains. Both are imported on first use, so that
`import concise_rl` and `concise-rl --help` stay fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concise_rl.batch import RolloutBatch
    from concise_rl.engine.trainer import ConciseTrainer

__all__ = ["ConciseTrainer", "RolloutBatch"]

_HOME = {"ConciseTrainer": "concise_rl.engine.trainer", "RolloutBatch": "concise_rl.batch"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'concise_rl' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)
