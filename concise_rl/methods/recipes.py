"""From a recipe to a `Method`, without trainer, Hydra or model: `load_method("hapo", weight=0.5)`."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import re
import sys
import types
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

from concise_rl.errors import UserError
from concise_rl.methods.contracts import Advantage, Component, Schedule, Selector
from concise_rl.methods.method import KINDS, Method
from concise_rl.methods.registry import RECIPES, closest, component, name_of, recipe_names
from concise_rl.methods.schedules import is_schedule, schedule_of

SLOT_OF = {
    "edit": "edit",
    "curriculum": "curriculum",
    "sampler": "sampler",
    "cut": "cut",
    "filters": "filter",
    "shapers": "shaper",
    "advantage": "advantage",
}
"""Field of a recipe's `method` node to kind of component, in the order of a step."""

SCHEDULED = ("max_completion_length", "temperature")
"""The trainer's fields that take a schedule."""


def read_recipe(name: str, group: str = "method") -> dict[str, Any]:
    """`recipes/<group>/<name>.yaml` as plain values; an interpolation is None, the component's own default.

    Raises:
        UserError: there is no such recipe.
    """
    path = RECIPES / group / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"{group}={name} is not known{closest(name, recipe_names(group))}")
    return yaml.safe_load(re.sub(r"\$\{[^}]*\}", "null", path.read_text()))


def load_method(name: str, fields: Mapping[str, Any] | None = None, /, **more: Any) -> Method:
    """The method of a recipe, with some fields of its components changed.

    A field that one component of the recipe has goes by its name; where two have it, or a schedule of the recipe is
    meant, it goes by its path in a dict: `load_method("hapo", {"shaper.hapo.weight": 0.5})`. A float field takes a
    schedule in place of a number: `load_method("kimi", weight={"linear": {"start": 0, "end": 1, "steps": 50}})`.

    Raises:
        UserError: no such recipe or field, a field that two components have, or a value that is refused.
    """
    recipe = read_recipe(name)
    asked = dict(fields or {}) | more
    settings = {kind: {n: dict(f or {}) for n, f in (recipe.get(kind) or {}).items()} for kind in KINDS}
    trainer = dict(recipe.get("trainer") or {})
    slots = list(entries_of(recipe["method"]))
    for key, value in asked.items():
        _assign(name, key, value, slots, settings, trainer)
    return assemble(recipe["method"], settings, trainer)


def as_method(what: str | Method | Component | Sequence[Component]) -> Method:
    """A method from a recipe's name or from components, which apply by kind in the order of a step.

    `as_method([Hapo(weight=0.5), Overlong(cache=32)])` shapes with one after the other. Without an advantage among them
    the credit is GRPO's, and the loss is whatever the trainer is told.

    Raises:
        UserError: no such recipe, something that is no component, or components that do not go together.
    """
    if isinstance(what, Method):
        return what
    if isinstance(what, str):
        return load_method(what)
    given: list[Any] = list(what) if isinstance(what, Sequence) else [what]
    for each in given:
        if not isinstance(each, Component):
            raise UserError(f"method={each!r} is no component: give objects, such as Hapo(), or a recipe's name")
    if not any(isinstance(each, Advantage) for each in given):
        given.append(component("advantage", "group_relative")())
    slots: list[tuple[str, Any]] = [
        (f"{kind}.{name_of(type(each))}", each)
        for kind, cls in KINDS.items()
        for each in given
        if isinstance(each, cls)
    ]
    names = [slot for slot, _ in slots]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"method: {name} stands twice: leave one out")
    return Method("+".join(name.partition(".")[2] for name in names), dict(slots))


def load_selector(name: str, /, **fields: Any) -> Selector:
    """The selector of a recipe, with some of its fields changed: `load_selector("dart_uniform", most=20)`.

    Raises:
        UserError: no such recipe or field, or a value that is refused.
    """
    recipe = read_recipe(name, "selector")
    return selector_of(recipe["select"]["selector"], recipe.get("selector") or {}, fields)


def selector_of(
    entry: Any, settings: Mapping[str, Mapping[str, Any]], more: Mapping[str, Any] | None = None
) -> Selector:
    """A selector from plain values.

    Args:
        entry: a registered name, an import path, or a mapping with `path` and the component's fields.
        settings: registered name to fields.
        more: fields that come after those.

    Raises:
        UserError: no such component, field or file, or a value that is refused.
    """
    cls, label, fields = resolve("selector", entry, {"selector": settings})
    if not issubclass(cls, Selector):
        raise UserError(f"selector {label} is no Selector: derive it from concise_rl.methods.Selector")
    selector, schedules = configure(f"selector.{label}", cls, {**fields, **(more or {})})
    if schedules:
        raise UserError(f"{next(iter(schedules))}: a selector knows no steps, so give a number")
    assert isinstance(selector, Selector)
    return selector


def assemble(
    node: Mapping[str, Any], settings: Mapping[str, Mapping[str, Mapping[str, Any]]], trainer: Mapping[str, Any]
) -> Method:
    """A method from plain values.

    Args:
        node: the recipe's `method`: name and slots; an entry is a registered name, an import path
            (`my_shapers.py:Budget`, `package.module:Class`), or a mapping with `path` and the component's fields.
        settings: kind to registered name to fields.
        trainer: fields of the trainer; schedules among them become the method's, the rest is its loss.

    Raises:
        UserError: no such component, field or file, or a value that a component refuses.
    """
    components: dict[str, Component] = {}
    schedules: dict[str, Schedule] = {}
    for kind, entry in entries_of(node):
        cls, label, fields = resolve(kind, entry, settings)
        slot = f"{kind}.{label}"
        while slot in components:
            slot += "'"
        if cls in {type(c) for s, c in components.items() if s.startswith(f"{kind}.")} and fields == {}:
            raise UserError(f"method: {kind} {label} is given twice: leave one out")
        components[slot], own = configure(slot, cls, fields)
        schedules |= own
    for field in SCHEDULED:
        if is_schedule(trainer.get(field)):
            schedules[f"trainer.{field}"] = schedule_of(f"trainer.{field}", trainer[field])
    loss = {key: value for key, value in trainer.items() if not is_schedule(value)}
    return Method(str(node["name"]), components, schedules, loss)


def entries_of(node: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """(kind, entry) of every slot that a recipe's `method` node fills, in the order of a step."""
    for field, kind in SLOT_OF.items():
        entries = node.get(field)
        for entry in entries if isinstance(entries, list | tuple) else [] if entries is None else [entries]:
            yield kind, entry


def resolve(
    kind: str, entry: Any, settings: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> tuple[type, str, dict[str, Any]]:
    """An entry's class, the name of its slot, and its fields."""
    if isinstance(entry, str) and ":" not in entry:
        return component(kind, entry), entry, dict(settings.get(kind, {}).get(entry) or {})
    fields = {str(k): v for k, v in entry.items()} if isinstance(entry, Mapping) else {"path": entry}
    if "path" not in fields:
        raise UserError(f"{kind} {fields} has no path: write {{path: my_file.py:MyClass, field: value}}")
    cls = load_class(str(fields.pop("path")))
    return cls, cls.__name__, fields


def configure(slot: str, cls: type, fields: Mapping[str, Any]) -> tuple[Component, dict[str, Schedule]]:
    """A component with these fields; a scheduled one is built with its value at step 0.

    Raises:
        UserError: a field that the class lacks or needs, a value of another type, or one that the class refuses.
    """
    known = {f.name for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    hints = get_type_hints(cls) if known else {}
    schedules: dict[str, Schedule] = {}
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if name not in known:
            raise UserError(f"{slot}.{name} is not known{closest(name, known or {'(no fields)'})}")
        if is_schedule(value) and not _takes(hints[name], dict):
            if not _takes(hints[name], float):
                raise UserError(f"{slot}.{name}={dict(value)}: only a number takes a schedule, {name} is none")
            schedule = schedules[f"{slot}.{name}"] = schedule_of(f"{slot}.{name}", value)
            value = schedule(0)
        check_type(f"{slot}.{name}", value, hints[name])
        values[name] = value
    try:
        return cls(**values), schedules
    except TypeError as error:
        missing = re.findall(r"'(\w+)'", str(error))
        what = f"{slot}.{missing[0]} must be set" if missing else str(error)
        raise UserError(f"{what}: add it to the command line or to the call") from error


def check_type(field: str, value: Any, hint: Any) -> None:
    """Refuse a text or a number where a field has another type.

    Raises:
        UserError: names the field, the value and the type.
    """
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null"}
    kinds = set(_union(hint))
    if any(isinstance(kind, type) and issubclass(kind, Enum) for kind in kinds) or not kinds <= words.keys():
        return  # the class itself checks choices, lists and what else there is
    if not (type(value) in kinds or (type(value) is int and float in kinds)):
        shown = " or ".join(text for kind, text in words.items() if kind in kinds)
        raise UserError(f"{field}={value!r} must be {shown}")


def load_class(path: str) -> type:
    """`my_file.py:Class` or `package.module:Class`.

    Raises:
        UserError: no such file or class, or it cannot be imported.
    """
    source, _, name = path.rpartition(":")
    try:
        if source.endswith(".py"):
            if not Path(source).is_file():
                beside = [each.name for each in Path(source).parent.glob("*.py")]
                hint = closest(Path(source).name, beside) if beside else ""
                raise UserError(f"{path}: there is no file {source}{hint}")
            spec = importlib.util.spec_from_file_location(Path(source).stem, source)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # dataclasses look their module up there
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(source)
        if not hasattr(module, name):
            own = [
                n for n, each in vars(module).items() if isinstance(each, type) and each.__module__ == module.__name__
            ]
            raise UserError(f"{path}: {source} has no class {name}{closest(name, own or ['(none)'])}")
        return getattr(module, name)
    except (ImportError, SyntaxError) as error:
        raise UserError(f"{path}: cannot be imported: {' '.join(str(error).split())}") from error


def _assign(
    name: str,
    key: str,
    value: Any,
    slots: list[tuple[str, Any]],
    settings: dict[str, dict[str, dict[str, Any]]],
    trainer: dict[str, Any],
) -> None:
    """Put one field of `load_method` where it belongs."""
    if "." in key:
        head, _, rest = key.partition(".")
        if head == "trainer":
            trainer[rest] = value
            return
        label, _, field = rest.partition(".")
        if (head, label) not in slots:
            raise UserError(f"load_method({name!r}): {key} is not known{closest(key, _paths(slots))}")
        settings[head].setdefault(label, {})[field] = value
        return
    owners = [(kind, entry) for kind, entry in slots if isinstance(entry, str) and key in _fields(kind, entry)]
    scheduled = [
        field for field in SCHEDULED if is_schedule(trainer.get(field)) and key in _schedule_fields(trainer[field])
    ]
    if len(owners) + len(scheduled) != 1:
        paths = [f"{kind}.{label}.{key}" for kind, label in owners]
        why = (
            f"two components have it: write {{{paths[0]!r}: ...}}"
            if owners
            else closest(key, _paths(slots)).lstrip("; ")
        )
        raise UserError(f"load_method({name!r}): {key}={value!r} is not clear, {why}")
    if owners:
        settings[owners[0][0]].setdefault(owners[0][1], {})[key] = value
    else:
        ((kind, fields),) = trainer[scheduled[0]].items()
        trainer[scheduled[0]] = {kind: {**fields, key: value} if isinstance(fields, Mapping) else value}


def _paths(slots: list[tuple[str, Any]]) -> list[str]:
    return [f"{k}.{e}.{f}" for k, e in slots if isinstance(e, str) for f in _fields(k, e)] + [
        f for k, e in slots if isinstance(e, str) for f in _fields(k, e)
    ]


def _fields(kind: str, name: str) -> list[str]:
    return [f.name for f in dataclasses.fields(component(kind, name))] if ":" not in name else []


def _schedule_fields(value: Mapping[str, Any]) -> set[str]:
    from concise_rl.methods.schedules import SCHEDULES

    return {f.name for name in value if name in SCHEDULES for f in dataclasses.fields(SCHEDULES[name])}


def _union(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _takes(hint: Any, kind: type) -> bool:
    return any((get_origin(part) or part) is kind for part in _union(hint))
