"""The table of built-in methods: made from the recipes, so that it cannot say what they do not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from concise_rl.methods.contracts import Selector
from concise_rl.methods.method import Method
from concise_rl.methods.recipes import load_method, load_selector, read_recipe
from concise_rl.methods.registry import RECIPES
from concise_rl.reporting.summary import markdown_table

BASICS = frozenset({"shaper.plain", "advantage.group_relative"})
"""Components that a table leaves out where a method has others: GRPO's own."""


@dataclass(frozen=True)
class MethodEntry:
    """One recipe: its name, the question it asks (its header), and the method that it is."""

    name: str
    question: str
    method: Method

    @property
    def components(self) -> str:
        """What it is made of besides GRPO, by slot; schedules by the field that they move."""
        slots = [slot for slot in self.method.components if slot not in BASICS]
        slots += [f"schedule.{field.removeprefix('trainer.')}" for field in self.method.schedules]
        return ", ".join(slots or self.method.components)

    @property
    def kinds(self) -> set[str]:
        """The kinds of component that it has besides GRPO's own."""
        kinds = {slot.partition(".")[0] for slot in self.method.components if slot not in BASICS}
        return kinds | ({"schedule"} if self.method.schedules else set())

    @property
    def loss(self) -> str:
        return str(self.method.loss.get("loss_type", "bnpo"))


@dataclass(frozen=True)
class SelectorEntry:
    """One selector recipe: its name, the question it asks, the selector that it is, and its page."""

    name: str
    question: str
    selector: Selector
    page: str

    @property
    def components(self) -> str:
        """The selector's registered name."""
        return f"selector.{type(self.selector).__module__.rpartition('.')[2]}"


Entry = MethodEntry | SelectorEntry


def method_entry(name: str) -> MethodEntry:
    """A recipe's entry, from its header and its components."""
    return MethodEntry(name, _question("method", name), load_method(name))


def selector_entry(name: str) -> SelectorEntry:
    """The same for a selector recipe."""
    page = read_recipe(name, "selector")["select"].get("page", name)
    return SelectorEntry(name, _question("selector", name), load_selector(name), page)


def _question(group: str, name: str) -> str:
    lines = (RECIPES / group / f"{name}.yaml").read_text().splitlines()
    header = [line[1:].strip() for line in lines if line.startswith("#")]
    prose = [line for line in header[1:] if not line.startswith(("concise-rl", "accelerate"))]
    question = " ".join(prose).split(": ", 1)[-1] if prose else ""
    return question[:1].upper() + question[1:]


def show_methods(entries: Sequence[Entry], console: Console | None = None) -> None:
    """For the terminal, in 80 columns: a line a method, and its question under it."""
    console = console or Console(highlight=False)
    for entry in entries:
        console.print(f"[bold]{entry.name}[/bold]  [dim]{escape(entry.components)}[/dim]")
        console.print(Padding(escape(entry.question), (0, 0, 0, 2)))
    console.print("\none of them with its fields: concise-rl methods NAME")


def show_method(entry: MethodEntry, console: Console | None = None) -> None:
    """One method for the terminal: its question, its components with their fields, its loss, and its page."""
    console = console or Console(highlight=False)
    console.print(f"[bold]{entry.name}[/bold]: {escape(entry.question)}\n")
    table = Table("field", "value", header_style="bold")
    for slot, component in entry.method.components.items():
        table.add_row(f"[bold]{slot}[/bold]", "")
        for each in dataclasses.fields(component):  # type: ignore[arg-type]
            value = entry.method.schedules.get(f"{slot}.{each.name}", getattr(component, each.name))
            table.add_row(f"  {slot}.{each.name}", escape(str(value.value if isinstance(value, Enum) else value)))
    for name, schedule in entry.method.schedules.items():
        if name.startswith("trainer."):
            table.add_row(name, escape(str(schedule)))
    for name, value in entry.method.loss.items():
        table.add_row(f"trainer.{name}", escape(str(value)))
    console.print(table)
    console.print(f"run it: concise-rl train method={entry.name}   page: docs/methods/{entry.name}.md")


def show_selector(entry: SelectorEntry, console: Console | None = None) -> None:
    """One selector for the terminal: its question, its fields, and its page."""
    console = console or Console(highlight=False)
    console.print(f"[bold]{entry.name}[/bold]: {escape(entry.question)}\n")
    for each in dataclasses.fields(entry.selector):  # type: ignore[arg-type]
        value = getattr(entry.selector, each.name)
        console.print(f"  {entry.components}.{each.name} = {value.value if isinstance(value, Enum) else value}")
    console.print(f"run it: concise-rl select selector={entry.name}   page: docs/methods/{entry.page}.md")


def methods_markdown(entries: Sequence[Entry], results: Sequence[Mapping[str, Any]] = ()) -> str:
    """For docs/methods/README.md; with results, each method's change of accuracy and tokens beside it."""
    found = {row["method"]: row for row in results}
    rows = [["method", "made of", "the question it asks", *(["accuracy", "tokens"] if found else [])]]
    for entry in entries:
        page = entry.page if isinstance(entry, SelectorEntry) else entry.name
        row = [f"[{entry.name}]({page}.md)", entry.components, entry.question]
        if found:
            result = found.get(entry.name)
            row += (
                [f"{result['accuracy_points']:+.1f} points", f"{result['tokens_percent']:+.0f} %"]
                if result
                else ["", ""]
            )
        rows.append(row)
    return markdown_table(rows, text_columns=3)
