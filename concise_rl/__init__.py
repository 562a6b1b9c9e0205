"""Reinforcement learning that trains reasoning models to think no longer than they need.

What a user's script needs is here; everything is imported on first use, so that `import concise_rl` and
`concise-rl --help` stay fast. Every component of a method is in `concise_rl.methods`.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concise_rl.batch import RolloutBatch
    from concise_rl.data import Prompt, check_references, content_key
    from concise_rl.engine.trainer import ConciseConfig, ConciseTrainer, training_dataset
    from concise_rl.errors import UserError
    from concise_rl.evaluation import Evaluation, evaluate, replay
    from concise_rl.methods import load_method, method_names
    from concise_rl.methods.contracts import Advantage, Curriculum, Cut, Edit, Filter, Out, Sampler, Shaper
    from concise_rl.methods.history import History
    from concise_rl.methods.method import Method, Result
    from concise_rl.methods.recipes import as_method
    from concise_rl.rewards import as_reward
    from concise_rl.verifiers import Verdict

_HOME = {
    "concise_rl.batch": ("RolloutBatch",),
    "concise_rl.data": ("Prompt", "check_references", "content_key"),
    "concise_rl.engine.trainer": ("ConciseConfig", "ConciseTrainer", "training_dataset"),
    "concise_rl.errors": ("UserError",),
    "concise_rl.evaluation": ("Evaluation", "evaluate", "replay"),
    "concise_rl.methods.contracts": ("Advantage", "Curriculum", "Cut", "Edit", "Filter", "Out", "Sampler", "Shaper"),
    "concise_rl.methods.history": ("History",),
    "concise_rl.methods.method": ("Method", "Result"),
    "concise_rl.methods.recipes": ("as_method", "load_method"),
    "concise_rl.methods.registry": ("method_names",),
    "concise_rl.rewards": ("as_reward",),
    "concise_rl.verifiers": ("Verdict",),
}

__all__ = [
    "Advantage",
    "ConciseConfig",
    "ConciseTrainer",
    "Curriculum",
    "Cut",
    "Edit",
    "Evaluation",
    "Filter",
    "History",
    "Method",
    "Out",
    "Prompt",
    "Result",
    "RolloutBatch",
    "Sampler",
    "Shaper",
    "UserError",
    "Verdict",
    "__version__",
    "as_method",
    "as_reward",
    "check_references",
    "content_key",
    "evaluate",
    "load_method",
    "method_names",
    "replay",
    "training_dataset",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        try:
            return version("concise-rl")
        except PackageNotFoundError:  # a checkout that is not installed
            return "unknown"
    for home, names in _HOME.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    from concise_rl.methods.registry import home_of

    found = home_of(name)
    if found is None:
        raise AttributeError(f"module 'concise_rl' has no attribute {name!r}")
    return getattr(importlib.import_module(found), name)
