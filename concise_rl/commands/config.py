"""From Hydra's composed configuration to configured objects; with `entry.py` and its tasks the only Hydra files.

A component's class is its schema: every shaper, advantage, verifier and data source is registered here by its name,
so that `shaper.hapo.weight=0.5` is type-checked when the configuration is composed.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import BooleanNode, DictConfig, FloatNode, IntegerNode, OmegaConf, StringNode
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from concise_rl.data import BENCHMARK_SOURCES, DATA_SOURCES
from concise_rl.errors import UserError
from concise_rl.evaluation import Mode
from concise_rl.evaluation.backends import HTTPBackend
from concise_rl.methods.advantages import ADVANTAGES, Advantage
from concise_rl.methods.shapers import SHAPERS, Shaper
from concise_rl.options import Action, Guard, Teaching
from concise_rl.testbeds import TESTBEDS
from concise_rl.verifiers import VERIFIERS, Verifier

RECIPES = Path(__file__).parents[1] / "recipes"
"""Hydra's root: a link to the checkout's `recipes/`, a folder of its own in an installed wheel."""

COMPONENTS: dict[str, dict[str, type]] = {"shaper": SHAPERS, "advantage": ADVANTAGES, "verifier": VERIFIERS}


@dataclass
class Method:
    """What is compared between papers: how the reward is shaped and how credit is assigned.

    Attributes:
        name: recipe name.
        shapers: applied left to right; each a registered name, an import path (`my_shapers.py:Budget`,
            `package.module:Class`), or a mapping with `path` and the component's fields.
        advantage: one such entry.
    """

    name: str = "???"
    shapers: list[Any] = field(default_factory=list)
    advantage: Any = "group_relative"


@dataclass
class Model:
    """A causal language model and how to load it.

    Attributes:
        path: `embedded:tiny` or another embedded reasoner, a local folder, or a hub id.
        dtype: weights' type, `auto` or a torch dtype name.
        think_end: the tag that ends the thinking phase.
        threads: OpenMP threads of this process on CPU; 0 leaves torch's choice.
    """

    name: str = "???"
    path: str = "???"
    dtype: str = "auto"
    revision: str | None = None
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    think_end: str = "</think>"
    threads: int = 0


@dataclass
class Evaluation:
    """The evaluation before and after training.

    Attributes:
        problems: how many of the test split, evenly spread; 0 skips the evaluation, null takes all.
        samples: completions a problem.
        max_new_tokens: token limit of a completion.
        split: of the data source.
    """

    problems: int | None = 512
    samples: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = "${trainer.max_completion_length}"  # type: ignore[assignment]
    split: str = "test"
    seed: int = 1234


def register() -> None:
    """Tell Hydra's ConfigStore every schema."""
    store = ConfigStore.instance()
    schemas: dict[str, Any] = {
        kind: {name: OmegaConf.structured(component) for name, component in classes.items()}
        for kind, classes in COMPONENTS.items()
    }
    schemas |= {"method": OmegaConf.structured(Method), "model": OmegaConf.structured(Model)}
    schemas |= {"evaluation": OmegaConf.structured(Evaluation), "guard": OmegaConf.structured(Guard)}
    common = {"system_prompt": StringNode(None), "verify_deadline_seconds": FloatNode("???")}
    store.store(name="schemas", node=OmegaConf.create(schemas | common | _run_schema()))
    evaluated = {kind: schemas[kind] for kind in ("verifier", "model", "evaluation")}
    store.store(name="evaluation_schemas", node=OmegaConf.create(evaluated | common))
    groups: dict[str, Mapping[str, Any]] = {
        "data": {**DATA_SOURCES, **TESTBEDS},
        "benchmark": {**BENCHMARK_SOURCES, **TESTBEDS},
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
    """A dataclass's fields as a node without types: OmegaConf knows no `Literal`."""
    return {
        f.name: f.default if f.default is not dataclasses.MISSING
        else {} if f.default_factory is not dataclasses.MISSING else "???"
        for f in dataclasses.fields(component)
    }  # fmt: skip


def compose(overrides: Sequence[str], config_name: str = "train") -> DictConfig:
    """The configuration that `concise-rl train` with these overrides would run, without running it.

    Raises:
        UserError: Hydra refuses an override; its own message, one line.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    register()
    running = GlobalHydra.instance().is_initialized()
    try:
        with nullcontext() if running else initialize_config_dir(str(RECIPES), version_base="1.3"):
            return hydra_compose(config_name, overrides=open_foreign(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error


def explain(error: Exception) -> str:
    """Why Hydra or OmegaConf refuses a configuration: in one line, with the override and the remedy."""
    cause = error.__cause__ or error
    if isinstance(error, OverrideParseException):
        name = error.override.partition("=")[0]
        return (
            f"{error.override} is not read as name=value: quote a value that holds = , [ ] {{ }} or blanks, twice for "
            f"the shell: '{name}=\"...\"'"
        )
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"{group}={name} is not known{closest(name, error.options)}"
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        if isinstance(cause, AttributeError | KeyError) and OmegaConf.is_dict(cause.parent_node):
            return f"{cause.full_key} is not known{closest(str(cause.key), cause.parent_node)}"
        return f"{cause.full_key}: {one_line(cause).partition(' full_key:')[0]}"
    return one_line(cause)


OPEN = re.compile(r"trainer\.|(data\.config|benchmark\.config|backend\.engine)[.=]")
"""Overrides of what others define: fields of TRL's GRPOConfig, of a reasoning-gym task, of vLLM's engine."""


def open_foreign(overrides: Sequence[str]) -> list[str]:
    """Let those mappings take fields that no recipe mentions."""
    return ["++" + item if OPEN.match(item) else item for item in overrides]


def build(entry: Any, kind: str, config: DictConfig) -> Any:
    """One configured component: `entry` is a registered name, an import path, or a mapping with `path` and fields.

    Raises:
        UserError: no such component, field or file, or a value that the component refuses.
    """
    if OmegaConf.is_config(entry):
        entry = OmegaConf.to_container(entry, resolve=True)
    if isinstance(entry, str) and ":" not in entry:
        if entry not in COMPONENTS[kind]:
            raise UserError(f"{kind}={entry!r} is not known{closest(entry, COMPONENTS[kind])}")
        return to_object(config[kind][entry], f"{kind}.{entry}")
    fields = dict(entry) if isinstance(entry, Mapping) else {"path": entry}
    if "path" not in fields:
        raise UserError(f"{kind} {fields} has no path: write {{path: my_file.py:MyClass, field: value}}")
    component = load_class(str(fields.pop("path")))
    try:
        return component(**fields)
    except TypeError as error:
        raise UserError(f"{kind} {component.__name__}: {error}") from error


def to_object(node: DictConfig, path: str) -> Any:
    """A structured node as its object, `__post_init__` run; an unset mandatory field is named with its path."""
    try:
        return OmegaConf.to_object(node)
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key or path} must be set: add it to the command line") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {one_line(error)}") from error


def load_class(path: str) -> type:
    """`my_file.py:Class` or `package.module:Class`."""
    source, _, name = path.rpartition(":")
    try:
        if source.endswith(".py"):
            if not Path(source).is_file():
                raise UserError(f"{path}: there is no file {source}")
            spec = importlib.util.spec_from_file_location(Path(source).stem, source)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # dataclasses look their module up there
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(source)
        return getattr(module, name)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise UserError(f"{path}: cannot be imported: {one_line(error)}") from error


def shapers_and_advantage(config: DictConfig) -> tuple[list[Shaper], Advantage]:
    """The method's components, configured."""
    shapers = [build(entry, "shaper", config) for entry in config.method.shapers]
    if not shapers:
        raise UserError("method.shapers=[] shapes nothing: use [plain] for the task reward as it is")
    return shapers, build(config.method.advantage, "advantage", config)


def verifier_of(config: DictConfig, source: str = "data") -> Verifier:
    """The verifier that the data source names, or with `source="benchmark"` the benchmark."""
    return build(config[source].verifier, "verifier", config)


def teaching_of(config: DictConfig) -> Teaching:
    """What becomes of completions that were cut off and of groups without variance."""
    return Teaching(config.truncated, config.zero_variance, config.refill_rounds)


def guard_of(config: DictConfig) -> Guard:
    """When the run is warned of, ended, or taken back.

    Raises:
        UserError: a field is out of range, or the sampler could not be taken back.
    """
    guard = to_object(config.guard, "guard")
    if guard.action is Action.rollback and config.trainer.get("use_vllm"):
        raise UserError(
            "guard.action=rollback builds the trainer anew, and no vLLM engine outlives that: use guard.action=stop"
        )
    return guard


def trainer_fields(config: DictConfig) -> dict[str, Any]:
    """The `trainer` node as keyword arguments of ConciseConfig.

    Raises:
        UserError: a field that ConciseConfig lacks, with the closest that it has; fewer than two generations.
    """
    from concise_rl.engine.trainer import ConciseConfig

    fields = OmegaConf.to_container(config.trainer, resolve=True)
    assert isinstance(fields, dict)
    known = {f.name for f in dataclasses.fields(ConciseConfig)}
    for name in fields:
        if name not in known:
            raise UserError(f"trainer.{name!s} is no field of trl.GRPOConfig{closest(str(name), known)}")
    check_types(fields, get_type_hints(ConciseConfig))
    if fields.get("num_generations", 8) < 2:
        raise UserError(
            f"trainer.num_generations={fields['num_generations']}: a group needs at least 2 completions to compare"
        )
    return {str(name): value for name, value in fields.items()}


def check_types(fields: Mapping[Any, Any], hints: Mapping[str, Any]) -> None:
    """Refuse a text or a number where the trainer's field has another type; GRPOConfig itself looks at few of them.

    Raises:
        UserError: the first such field, with its value.
    """
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null"}
    for name, value in fields.items():
        kinds = set(get_args(hints[name])) or {hints[name]}
        if kinds <= words.keys() and not (type(value) in kinds or (type(value) is int and float in kinds)):
            shown = " or ".join(text for kind, text in words.items() if kind in kinds)
            raise UserError(f"trainer.{name}={value!r} must be {shown}")


def resolved(config: DictConfig) -> dict[str, Any]:
    """The configuration with every interpolation resolved and without the components that this run does not use."""
    full = OmegaConf.to_container(config, resolve=True, enum_to_str=True, throw_on_missing=False)
    assert isinstance(full, dict)
    used = {
        "shaper": [entry for entry in config.method.shapers if isinstance(entry, str)],
        "advantage": [config.method.advantage],
        "verifier": [config.data.verifier],
    }
    for kind, names in used.items():
        full[kind] = {name: fields for name, fields in full[kind].items() if name in names}
    return {str(key): value for key, value in full.items()}


def closest(name: str, known: Any) -> str:
    """`; did you mean x?` or `; choose from a, b, c`."""
    near = difflib.get_close_matches(name, [str(k) for k in known], n=1)
    return f"; did you mean {near[0]}?" if near else f"; choose from {', '.join(sorted(str(k) for k in known))}"


def one_line(error: BaseException) -> str:
    """A message without its line breaks."""
    return " ".join(str(error).split())


def method_names() -> list[str]:
    """The method recipes, plain GRPO first."""
    names = sorted(recipe.stem for recipe in (RECIPES / "method").glob("*.yaml"))
    return sorted(names, key=lambda name: name != "grpo")
