"""From Hydra's composed configuration to configured objects; with `entry.py` and its tasks the only Hydra files.

A component's class is its schema: the fields of every component of `methods/registry.py`, verifier and data source are
known here by name, so that `shaper.hapo.weight=0.5` is an override. A component's values are checked when it is built,
before a model is loaded: a float field takes a number or a schedule.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, get_type_hints

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from concise_rl.commands.naming import run_name
from concise_rl.commands.schemas import VALIDATION_FIELDS as VALIDATION_FIELDS
from concise_rl.commands.schemas import store_schemas
from concise_rl.errors import UserError
from concise_rl.evaluation import Mode
from concise_rl.evaluation.validation import Validation
from concise_rl.methods.contracts import Edit
from concise_rl.methods.method import KINDS, Method
from concise_rl.methods.recipes import (
    SCHEDULED,
    assemble,
    check_type,
    configure,
    entries_of,
    load_class,
    resolve,
)
from concise_rl.methods.registry import RECIPES, closest
from concise_rl.methods.schedules import is_schedule, schedule_of
from concise_rl.options import Action, Distillation, Guard, Teaching
from concise_rl.reporting.run_record import without_secrets
from concise_rl.verifiers import VERIFIERS, Verifier


def register() -> None:
    """Tell Hydra's ConfigStore every schema, and OmegaConf what an evaluation and a run's name are made of."""
    OmegaConf.register_new_resolver("longest_completion", longest_completion, replace=True)
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    store_schemas()


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
    if unknown := re.match(r"Could not override '(\w+)'. No match in the defaults list", one_line(cause)):
        return f"{unknown[1]} is no setting of this command; concise-rl COMMAND --cfg job shows those that there are"
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        if isinstance(cause, AttributeError | KeyError) and OmegaConf.is_dict(cause.parent_node):
            return f"{cause.full_key} is not known{closest(str(cause.key), cause.parent_node)}"
        return f"{cause.full_key}: {one_line(cause).partition(' full_key:')[0]}"
    return one_line(cause)


OPEN = re.compile(
    r"trainer\.|tuning\.|(data\.config|benchmark\.config|backend\.engine|backend\.extra_body|edit\.fields|evaluation\.chat_template_kwargs)[.=]"
)
"""Overrides of what others define: fields of TRL's GRPOConfig, of a reasoning-gym task, of a template, a server, a
user's own edit."""


def open_foreign(overrides: Sequence[str]) -> list[str]:
    """Let those mappings take fields that no recipe mentions.

    Raises:
        UserError: an override adds a field elsewhere, which nothing would read.
    """
    for item in overrides:
        if item.startswith("+") and not OPEN.match(item.lstrip("+")) and not item.lstrip("+").startswith("hydra"):
            raise UserError(f"{item}: + adds a setting that nothing reads; write {item.lstrip('+')}")
    return ["++" + item.lstrip("+") if OPEN.match(item.lstrip("+")) else item for item in overrides]


def to_object(node: DictConfig, path: str) -> Any:
    """A structured node as its object, `__post_init__` run; an unset mandatory field is named with its path."""
    try:
        return OmegaConf.to_object(node)
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key or path} must be set: add it to the command line") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {one_line(error)}") from error


def method_of(config: DictConfig) -> Method:
    """The method that a configuration describes.

    Raises:
        UserError: no such component, field or file, a value that a component refuses, or slots that do not go together.
    """
    node, trainer = plain(config.method), plain(config.trainer)
    if not node["shapers"]:
        raise UserError("method.shapers=[] shapes nothing: use [plain] for the task reward as it is")
    return assemble(node, {kind: plain(config[kind]) for kind in KINDS if kind in config}, trainer)


def edit_of(config: DictConfig) -> Edit | None:
    """The one edit of `concise-rl eval`: none, a registered one, or with `edit=own` the class at `edit.path`.

    Raises:
        UserError: no such file or class, an unknown field, or a value that the edit refuses.
    """
    if "edit" not in config:
        return None
    if config.edit.name == "own" and OmegaConf.is_missing(config.edit, "path"):
        raise UserError("edit.path must be set: edit=own edit.path=my_edits.py:MyEdit")
    fields = plain(config.edit)
    name = fields.pop("name")
    if name is None:
        return None
    entry = {"path": fields["path"], **fields["fields"]} if name == "own" else name
    cls, label, own = resolve("edit", entry, {"edit": {name: fields}})
    edit, schedules = configure(f"edit.{label}", cls, own)
    if schedules:
        raise UserError(f"{next(iter(schedules))}: an evaluation has no steps for a schedule to follow; give a number")
    if not isinstance(edit, Edit):
        raise UserError(f"edit={label} is no Edit: derive it from concise_rl.methods.Edit")
    return edit


def mode_of(config: DictConfig) -> Mode:
    """What happens to the thinking phase in an evaluation."""
    return Mode(**to_object(config.mode, "mode"))


def plain(node: DictConfig) -> dict[str, Any]:
    """A node as plain values, interpolations resolved."""
    values = OmegaConf.to_container(node, resolve=True, enum_to_str=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def verifier_of(config: DictConfig, source: str = "data") -> Verifier:
    """The verifier that the data source names, or with `source="benchmark"` the benchmark.

    Raises:
        UserError: no such verifier, field or file.
    """
    entry = config[source].verifier
    entry = OmegaConf.to_container(entry, resolve=True) if OmegaConf.is_config(entry) else entry
    if isinstance(entry, str) and ":" not in entry:
        if entry not in VERIFIERS:
            raise UserError(f"verifier={entry!r} is not known{closest(entry, VERIFIERS)}")
        if not OmegaConf.is_dict(config.verifier):
            raise UserError(
                f"verifier={config.verifier!r}: verifier holds the fields of each one; choose one with "
                f"{source}.verifier"
            )
        return to_object(config.verifier[entry], f"verifier.{entry}")
    fields = dict(entry) if isinstance(entry, Mapping) else {"path": entry}
    if "path" not in fields:
        raise UserError(f"verifier {fields} has no path: write {{path: my_file.py:MyClass, field: value}}")
    kind = load_class(str(fields.pop("path")))
    try:
        return kind(**fields)
    except TypeError as error:
        raise UserError(f"verifier {kind.__name__}: {error}") from error


def teaching_of(config: DictConfig) -> Teaching:
    """What becomes of completions that were cut off and of groups without variance."""
    return Teaching(config.truncated, config.zero_variance, config.refill_rounds)


def distill_of(config: DictConfig) -> Distillation | None:
    """What takes the place of the policy loss; None where the method's credit trains.

    Raises:
        UserError: a method whose credit would have no effect, or a term that the loss has no place for.
    """
    if config.get("distill") is None:
        return None
    method = method_of(config)
    if config.method.name != "grpo" or method.filters:
        raise UserError(
            f"distill takes the place of the policy loss, so the credit of method={config.method.name} would have no "
            "effect: take method=grpo, which is only logged, or distill=none"
        )
    if config.trainer.get("beta") or config.trainer.get("entropy_coef"):
        raise UserError(
            "distill has no KL term to a reference and no entropy bonus: set trainer.beta=0, entropy_coef=0"
        )
    if config.trainer.get("max_staleness") is not None:
        raise UserError(
            f"distill has no ratios, so it cannot correct for weights {config.trainer.max_staleness} steps old: set "
            "engine=sync"
        )
    try:
        return Distillation(**plain(config.distill))
    except TypeError as error:
        raise UserError(f"distill: {error}") from error


def guard_of(config: DictConfig) -> Guard:
    """When the run is warned of, ended, or taken back.

    Raises:
        UserError: a field is out of range, or the sampler could not be taken back.
    """
    guard = to_object(config.guard, "guard")
    if guard.action is Action.rollback and (config.trainer.get("use_vllm") or config.trainer.get("async_server")):
        raise UserError(
            "guard.action=rollback rebuilds the trainer, which a vLLM engine does not survive: use guard.action=stop"
        )
    return guard


def validation_of(config: DictConfig) -> Validation:
    """The evaluations of a run while it trains.

    Raises:
        UserError: a field out of its range, or one that would have no effect.
    """
    options = config.evaluation
    return Validation(options.every, options.every_problems, options.best, options.patience)


def trainer_fields(config: DictConfig) -> dict[str, Any]:
    """The `trainer` node as keyword arguments of ConciseConfig.

    Raises:
        UserError: a field that ConciseConfig lacks, with the closest that it has; fewer than two generations.
    """
    from concise_rl.engine.trainer import ConciseConfig

    fields = plain(config.trainer)
    for name in SCHEDULED:
        if is_schedule(fields.get(name)):
            values = [schedule_of(f"trainer.{name}", fields[name])(step) for step in range(steps_of(config))]
            fields[name] = int(max(values)) if name == "max_completion_length" else values[0]
    known = {f.name for f in dataclasses.fields(ConciseConfig)}
    for name in fields:
        if name not in known:
            raise UserError(f"trainer.{name!s} is no field of trl.GRPOConfig{closest(str(name), known)}")
    for name, hint in get_type_hints(ConciseConfig).items():
        if name in fields:
            check_type(f"trainer.{name}", fields[name], hint)
    if fields.get("num_generations", 8) < 2:
        raise UserError(
            f"trainer.num_generations={fields['num_generations']}: a group needs at least 2 completions to compare"
        )
    return {str(name): value for name, value in fields.items()}


def longest_completion(*, _root_: DictConfig) -> int:
    """`trainer.max_completion_length`; of a schedule the largest value that the run comes to."""
    limit = _root_.trainer.max_completion_length
    return trainer_fields(_root_)["max_completion_length"] if OmegaConf.is_dict(limit) else limit


def steps_of(config: DictConfig) -> int:
    """Optimizer steps of a run with a schedule.

    Raises:
        UserError: the run is given in epochs.
    """
    steps = config.trainer.get("max_steps")
    if not isinstance(steps, int) or steps < 1:
        raise UserError("a schedule needs the number of steps: set trainer.max_steps")
    return steps


def resolved(config: DictConfig) -> dict[str, Any]:
    """The configuration with every interpolation resolved and without the components that this run does not use."""
    full = OmegaConf.to_container(config, resolve=True, enum_to_str=True, throw_on_missing=False)
    assert isinstance(full, dict)
    used = [*entries_of(full.get("method") or {}), ("verifier", config.data.verifier)]
    for kind in full.keys() & {*KINDS, "verifier"}:
        full[kind] = {name: fields for name, fields in full[kind].items() if (kind, name) in used}
    return without_secrets({str(key): value for key, value in full.items()})


def one_line(error: BaseException) -> str:
    """A message without its line breaks."""
    return " ".join(str(error).split())
