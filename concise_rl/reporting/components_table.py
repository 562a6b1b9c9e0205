"""The components that recipes are made of, by kind, with their fields: from the registry and the docstrings."""

from __future__ import annotations

import dataclasses
import inspect
from enum import Enum
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from concise_rl.errors import UserError
from concise_rl.methods.registry import SHELVES, closest, components
from concise_rl.verifiers import VERIFIERS


def shelves() -> dict[str, dict[str, type]]:
    """Kind to name to class: all that a recipe may name, verifiers too."""
    return {kind: components(kind) for kind in SHELVES} | {"verifier": VERIFIERS}


def show_components(kind_or_name: str | None = None, console: Console | None = None) -> None:
    """All kinds, one kind, or what is known of one name, for a terminal of 80 columns.

    Raises:
        UserError: no kind and no component has that name.
    """
    console = console or Console(highlight=False)
    known = shelves()
    if kind_or_name is None or kind_or_name in known:
        for kind in [kind_or_name] if kind_or_name else known:
            console.print(f"[bold]{kind}[/bold]")
            for name, cls in known[kind].items():
                console.print(Padding(escape(f"{name}: {_first_line(cls)}"), (0, 0, 0, 2)))
                if _fields(cls):
                    console.print(Padding(f"[dim]{escape(', '.join(_fields(cls)))}[/dim]", (0, 0, 0, 6)))
        console.print("\none of them in full: concise-rl components NAME")
        return
    found = [(kind, shelf[kind_or_name]) for kind, shelf in known.items() if kind_or_name in shelf]
    if not found:
        names = {*known, *(name for shelf in known.values() for name in shelf)}
        raise UserError(f"components {kind_or_name}: no such kind or component{closest(kind_or_name, names)}")
    for kind, cls in found:
        console.print(f"[bold]{kind}.{kind_or_name}[/bold]  {cls.__name__}")
        console.print(Padding(escape(_flowing(inspect.getdoc(cls) or "")), (0, 0, 1, 2)))
        for text in _fields(cls):
            console.print(escape(f"  {kind}.{kind_or_name}.{text}"))


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def _flowing(text: str, filled: int = 90) -> str:
    """A docstring that is as wide as the source, with its wrapped lines joined, for a terminal to wrap anew."""
    lines: list[str] = []
    last = ""
    for line in text.splitlines():
        if line.strip() and len(last) >= filled and (len(last) - len(last.lstrip())) <= len(line) - len(line.lstrip()):
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
        last = line
    return "\n".join(lines)


def _fields(cls: type) -> list[str]:
    if not dataclasses.is_dataclass(cls):
        return []
    return [f"{field.name}={_default(field)}" for field in dataclasses.fields(cls) if field.init]


def _default(field: dataclasses.Field) -> Any:
    if field.default is not dataclasses.MISSING:
        value = field.default.value if isinstance(field.default, Enum) else field.default
        return repr(value) if isinstance(value, str) and not value.isprintable() else value
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else "?"
