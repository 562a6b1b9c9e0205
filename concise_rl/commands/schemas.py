"""What Hydra checks an override against: the fields of every component, verifier, data source and node, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, get_args, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import BooleanNode, FloatNode, IntegerNode, OmegaConf, StringNode

from concise_rl.data import BENCHMARK_SOURCES, DATA_SOURCES
from concise_rl.evaluation import Mode
from concise_rl.evaluation.backends import HTTPBackend
from concise_rl.methods.method import KINDS
from concise_rl.methods.registry import SHELVES, components
from concise_rl.options import Guard
from concise_rl.reporting.tracking import BACKENDS
from concise_rl.testbeds import TESTBEDS
from concise_rl.verifiers import VERIFIERS


@dataclass
class MethodNode:
    """What is compared between papers; an entry of a slot is a registered name, an import path
    (`my_shapers.py:Budget`, `package.module:Class`), or a mapping with `path` and the component's fields.

    Attributes:
        name: recipe name.
        edit, curriculum, sampler, cut: at most one of each.
        filters: which rows teach, each and-ed to those before.
        shapers: applied left to right.
        advantage: one, or a list from reward to credit.
    """

    name: str = "???"
    edit: Any = None
    curriculum: Any = None
    sampler: Any = None
    cut: Any = None
    filters: list[Any] = field(default_factory=list)
    shapers: list[Any] = field(default_factory=list)
    advantage: Any = "group_relative"


@dataclass
class SelectNode:
    """What a selector recipe names.

    Attributes:
        name: recipe name.
        selector: a registered name, an import path (`my_selector.py:Mine`), or a mapping with `path` and fields.
        page: of docs/methods, where its name is not the recipe's.
    """

    name: str = "???"
    selector: Any = "???"
    page: str | None = None


@dataclass
class Model:
    """A causal language model and how to load it.

    Attributes:
        path: `embedded:tiny` or another embedded reasoner, a local folder, a hub id, or a GGUF file, which is unpacked.
        dtype: weights' type, `auto` or a torch dtype name.
        think_end: the tag that ends the thinking phase.
        threads: OpenMP threads of this process on CPU; 0 leaves torch's choice.
        merge_adapter: where `path` is a LoRA adapter, add it to its base's weights and go on from those.
    """

    name: str = "???"
    path: str = "???"
    dtype: str = "auto"
    revision: str | None = None
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    think_end: str = "</think>"
    threads: int = 0
    merge_adapter: bool = False


@dataclass
class EvaluationNode:
    """An evaluation: of a run before and after training, and of `concise-rl eval`.

    A model recipe holds its maker's recommended sampling; recipes of data, and the command line, come after it.

    Attributes:
        problems: how many of the test split, evenly spread; 0 skips the evaluation, null takes all.
        samples: completions a problem.
        temperature, top_p, top_k, min_p: see `concise_rl.evaluation.backends.Sampling`.
        max_new_tokens: token limit of a completion.
        chat_template_kwargs: further arguments of the model's chat template, such as `{enable_thinking: false}`.
        split: of the data source.
    """

    problems: int | None = 512
    samples: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_new_tokens: int | None = "${longest_completion:}"  # type: ignore[assignment]
    chat_template_kwargs: dict[str, Any] | None = "${trainer.chat_template_kwargs}"  # type: ignore[assignment]
    split: str = "test"
    seed: int = 1234


@dataclass
class RunEvaluationNode(EvaluationNode):
    """The evaluations of a run, before and after training.

    Attributes:
        before: an evaluation of the same weights, problems and settings, such as another run's
            `evaluation-before.jsonl`; it is taken in place of one before training.
    """

    before: str | None = None


@dataclass
class TrainingEvaluationNode(RunEvaluationNode):
    """The evaluations of a run of reinforcement learning, with `every` on the way too.

    Attributes:
        every, every_problems, best, patience: see `concise_rl.evaluation.validation.Validation`.
    """

    every: int = 0
    every_problems: int = 128
    best: str | None = None
    patience: int | None = None


VALIDATION_FIELDS = tuple(f.name for f in dataclasses.fields(TrainingEvaluationNode) if f.name not in
                          {f.name for f in dataclasses.fields(EvaluationNode)})  # fmt: skip
"""Fields of `evaluation` that say nothing of how a model is evaluated."""


@dataclass
class Tracking:
    """Where a run is followed.

    Attributes:
        tracker: see `concise_rl.reporting.tracking.BACKENDS`.
        project, name, group, tags: under which the run is found there; the group of a sweep's jobs is its folder.
        completions_every: steps between two tables of completions, 0 for none.
    """

    tracker: str = "???"
    project: str = "concise-rl"
    name: str = "${run_name:}"
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    completions_every: int = 10


def store_schemas() -> None:
    """Tell Hydra's ConfigStore every schema."""
    store = ConfigStore.instance()
    shelves = {kind: {name: _defaults(cls) for name, cls in components(kind).items()} for kind in SHELVES}
    schemas: dict[str, Any] = {kind: shelves[kind] for kind in KINDS}
    schemas |= {"verifier": {name: OmegaConf.structured(cls) for name, cls in VERIFIERS.items()}}
    schemas |= {"method": OmegaConf.structured(MethodNode), "model": OmegaConf.structured(Model)}
    schemas |= {"evaluation": OmegaConf.structured(TrainingEvaluationNode), "guard": OmegaConf.structured(Guard)}
    common = {"system_prompt": StringNode(None), "verify_deadline_seconds": FloatNode("???")}
    store.store(name="schemas", node=OmegaConf.create(schemas | common | _run_schema()))
    evaluated = {"verifier": schemas["verifier"], "model": schemas["model"]}
    evaluated |= {"evaluation": OmegaConf.structured(EvaluationNode)}
    store.store(name="evaluation_schemas", node=OmegaConf.create(evaluated | common))
    own = {name: node for name, node in _run_schema().items() if name in ("seed", "resume", "overwrite", "run")}
    evaluated |= {"evaluation": OmegaConf.structured(RunEvaluationNode)}
    tuned = evaluated | common | own | {"rows": StringNode("???"), "recipe": StringNode("???")}
    store.store(name="tune_schemas", node=OmegaConf.create(tuned))
    selected = {"selector": shelves["selector"], "select": OmegaConf.structured(SelectNode)}
    store.store(name="selection_schemas", node=OmegaConf.create(selected))
    groups: dict[str, Mapping[str, Any]] = {
        "data": {**DATA_SOURCES, **TESTBEDS},
        "benchmark": {**BENCHMARK_SOURCES, **TESTBEDS},
        "edit": {"none": {"name": None}, "own": {"name": "own", "path": "???", "fields": {}}}
        | {name: {"name": name, **schema} for name, schema in schemas["edit"].items()},
        "tracking": {name: OmegaConf.structured(Tracking(tracker=name)) for name in BACKENDS},
        "mode": {name: _defaults(Mode) | {"name": name} for name in get_args(get_type_hints(Mode)["name"])},
        "backend": {
            "transformers": {"name": "transformers", "batch_rows": 128},
            "vllm": {"name": "vllm", "wave_rows": 2048, "engine": {}},
            "http": {"name": "http", **_defaults(HTTPBackend)},
        },
    }
    for group, nodes in groups.items():
        for name, node in nodes.items():
            store.store(group=group, name=name, node=node)


def _run_schema() -> dict[str, Any]:
    """Types of what a run has besides its components, so that `seed=one` is refused before anything is loaded.

    The values are those of recipes/train.yaml.
    """
    run = {"dir": StringNode("???"), "progress": BooleanNode("???"), "rollouts_every": IntegerNode("???")}
    return {
        "seed": IntegerNode("???"),
        "resume": StringNode("???"),
        "overwrite": BooleanNode("???"),
        "truncated": StringNode("???"),
        "zero_variance": StringNode("???"),
        "refill_rounds": IntegerNode("???"),
        "run": OmegaConf.create(run),
    }


def _defaults(component: type) -> dict[str, Any]:
    """A dataclass's fields as a node without types: OmegaConf knows no `Literal`, and any float takes a schedule."""

    def default(f: dataclasses.Field) -> Any:
        if f.default is dataclasses.MISSING:
            return f.default_factory() if f.default_factory is not dataclasses.MISSING else "???"
        value = f.default.value if isinstance(f.default, Enum) else f.default
        return list(value) if isinstance(value, tuple) else value

    # A tokenizer is an object, which no recipe can name.
    return {f.name: default(f) for f in dataclasses.fields(component) if f.init and f.name != "tokenizer"}
