"""Every component of the package, one line each: Hydra, the tests of the laws, the commands and the docs read it here.

The key is the name that recipes and the command line use, and the stem of the component's file on its shelf.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Any

from concise_rl.errors import UserError

SHELVES: dict[str, dict[str, str]] = {
    "shaper": {
        "plain": "Plain",
        "hapo": "Hapo",
        "pear": "Pear",
        "kimi_length": "KimiLength",
        "cosine": "Cosine",
        "overlong": "Overlong",
        "dars": "Dars",
        "arora": "Arora",
        "l1": "L1",
        "alp": "Alp",
        "laser": "Laser",
        "shorter_better": "ShorterBetter",
        "lead": "Lead",
        "lazy": "Lazy",
        "leash": "Leash",
        "arlcp": "Arlcp",
        "gr3": "Gr3",
        "toggle": "Toggle",
        "dast": "Dast",
        "top_lambda": "TopLambda",
        "deep_compress": "DeepCompress",
        "smart_thinker": "SmartThinker",
        "discount": "Discount",
        "dr_saf": "DrSaf",
        "triangle": "Triangle",
        "acoer": "Acoer",
        "group_length": "GroupLength",
        "effort": "Effort",
        "jet": "Jet",
        "exits": "Exits",
        "hbpo": "Hbpo",
    },
    "advantage": {
        "group_relative": "GroupRelative",
        "leave_one_out": "LeaveOneOut",
        "canon": "Canon",
        "difficulty_weighted": "DifficultyWeighted",
        "sign_safe": "SignSafe",
        "lead": "LeadCredit",
        "decs": "Decs",
        "dler": "Dler",
        "scalerl": "Scalerl",
        "prompt_average": "PromptAverage",
        "diet": "Diet",
        "qglas": "Qglas",
        "ddca": "Ddca",
        "max_rl": "MaxRl",
        "gdpo": "Gdpo",
        "vector_cost": "VectorCost",
        "brpo": "Brpo",
        "adaptthink": "AdaptThink",
        "hbpo": "HbpoCredit",
    },
    "filter": {
        "untruncated": "Untruncated",
        "zero_variance": "DropZeroVariance",
        "gfpo": "Gfpo",
        "decs_kappa": "DecsKappa",
    },
    "curriculum": {
        "pass_rate": "PassRate",
        "e2h": "E2h",
        "seta": "Seta",
        "readmit": "Readmit",
        "pools": "Pools",
        "t1": "T1",
        "dart": "Dart",
    },
    "sampler": {
        "thinking_budget": "ThinkingBudget",
        "forced_interruption": "ForcedInterruption",
        "exits": "EarlyExits",
        "brpo": "BudgetedSummaries",
        "adaptthink": "ForcedStarts",
        "hbpo": "AnnouncedBudgets",
        "jet": "ExitsAtShares",
    },
    "cut": {
        "dot": "OutlierCut",
    },
    "edit": {
        "l1_prompt": "L1Prompt",
        "budget_prompt": "BudgetPrompt",
        "effort": "PromptEffort",
        "self_label": "SelfLabel",
    },
    "selector": {
        "shortest_right": "ShortestRight",
        "random_right": "RandomRight",
        "right_within": "RightWithin",
        "kimi_pairs": "KimiPairs",
        "tops_seed": "TopsSeed",
        "tops_pairs": "TopsPairs",
        "dart": "Dart",
        "o1_pruner": "O1Pruner",
        "ruler": "Ruler",
    },
}
"""Kind of component to name to class; the class is in `concise_rl.methods.<folder of the kind>.<name>`."""

FOLDERS = {
    "shaper": "shapers",
    "advantage": "advantages",
    "filter": "filters",
    "curriculum": "curricula",
    "sampler": "samplers",
    "cut": "cuts",
    "edit": "edits",
    "selector": "selectors",
}
"""Kind of component to its shelf."""


RECIPES = Path(__file__).parents[1] / "recipes"
"""A link to the checkout's `recipes/`, a folder of its own in an installed wheel."""


def recipe_names(group: str) -> list[str]:
    """The recipes of a group, by the names of their files."""
    return sorted(recipe.stem for recipe in (RECIPES / group).glob("*.yaml"))


def method_names() -> list[str]:
    """The method recipes, plain GRPO first."""
    return sorted(recipe_names("method"), key=lambda name: name != "grpo")


def selector_names() -> list[str]:
    """The selector recipes."""
    return recipe_names("selector")


def component(kind: str, name: str) -> type:
    """The class that is registered under a name.

    Raises:
        UserError: nothing is; says which name is near.
    """
    if name not in SHELVES[kind]:
        raise UserError(f"{kind}={name!r} is not known{closest(name, SHELVES[kind])}")
    module = importlib.import_module(f"concise_rl.methods.{FOLDERS[kind]}.{name}")
    return getattr(module, SHELVES[kind][name])


def components(kind: str) -> dict[str, type]:
    """All classes of a kind by name."""
    return {name: component(kind, name) for name in SHELVES[kind]}


def plain_fields(part: Any) -> dict[str, Any]:
    """The fields of a component and their values, an enum's member as its value; none where it is no dataclass."""
    found = dataclasses.fields(part) if dataclasses.is_dataclass(part) else ()
    values = {field.name: getattr(part, field.name) for field in found}
    return {name: value.value if isinstance(value, Enum) else value for name, value in values.items()}


def home_of(class_name: str) -> str | None:
    """The module of a registered class, by the class's name; None where there is none."""
    for kind, shelf in SHELVES.items():
        for name, found in shelf.items():
            if found == class_name:
                return f"concise_rl.methods.{FOLDERS[kind]}.{name}"
    return None


def name_of(cls: type) -> str:
    """The name that a class is registered under; of one that is not, the class's own."""
    names = (n for shelf in SHELVES.values() for n, found in shelf.items() if found == cls.__name__)
    return next(names, cls.__name__) if cls.__module__.startswith("concise_rl.methods.") else cls.__name__


def closest(name: str, known: Iterable[Any]) -> str:
    """`; did you mean x?` or `; choose from a, b, c`."""
    import difflib

    names = sorted(str(each) for each in known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else f"; choose from {', '.join(names)}"
