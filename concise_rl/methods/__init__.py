"""What papers differ in: one shelf for each kind of component, one file a paper.

Here: pure functions of a batch and a state; `contracts.py` says what each kind is, `registry.py` lists them all, and
`method.py` makes a chain of them. Not here: TRL, Hydra, tokenizers, ranks, clocks.

Every component is imported by its class from here: `from concise_rl.methods import Hapo`.
"""

from __future__ import annotations

import importlib
from typing import Any

from concise_rl.methods.registry import home_of

_HOMES = {
    **dict.fromkeys(
        (
            "Advantage",
            "Component",
            "Curriculum",
            "Cut",
            "Edit",
            "Filter",
            "Out",
            "Sampler",
            "Selector",
            "Shaper",
            "Transform",
        ),
        "concise_rl.methods.contracts",
    ),
    "History": "concise_rl.methods.history",
    "Method": "concise_rl.methods.method",
    "Result": "concise_rl.methods.method",
    "PerProblem": "concise_rl.methods.picking",
    "Pick": "concise_rl.methods.picking",
    "Dropped": "concise_rl.methods.picking",
    "load_method": "concise_rl.methods.recipes",
    "load_selector": "concise_rl.methods.recipes",
    "method_names": "concise_rl.methods.registry",
    "selector_names": "concise_rl.methods.registry",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name) or home_of(name)
    if home is None:
        raise AttributeError(f"module 'concise_rl.methods' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
