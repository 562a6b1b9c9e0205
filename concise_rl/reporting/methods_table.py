"""The table of built-in methods: made from the recipes, so that it cannot say what they do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from concise_rl.reporting.summary import markdown_table


@dataclass(frozen=True)
class MethodEntry:
    """One recipe: its name, the question it asks (its header), and the components it names."""

    name: str
    question: str
    shapers: str
    advantage: str
    loss: str


def method_entry(recipe: Path, composed: Any) -> MethodEntry:
    """A recipe's entry, from its header and its composed configuration."""
    header = [line[1:].strip() for line in recipe.read_text().splitlines() if line.startswith("#")]
    prose = [line for line in header[1:] if not line.startswith(("concise-rl", "accelerate"))]
    question = " ".join(prose).split(": ", 1)[-1] if prose else ""
    return MethodEntry(
        name=recipe.stem,
        question=question[:1].upper() + question[1:],
        shapers=", ".join(map(str, composed.method.shapers)),
        advantage=str(composed.method.advantage),
        loss=str(composed.trainer.loss_type),
    )


def show_methods(entries: Sequence[MethodEntry]) -> None:
    """For the terminal."""
    table = Table(header_style="bold")
    for heading in ("method", "shapers", "advantage", "loss", "the question it asks"):
        table.add_column(heading, overflow="fold")
    for entry in entries:
        table.add_row(entry.name, entry.shapers, entry.advantage, entry.loss, entry.question)
    Console(highlight=False).print(table)


def methods_markdown(entries: Sequence[MethodEntry], results: Sequence[Mapping[str, Any]] = ()) -> str:
    """For the README; with results, each method's change of accuracy and tokens beside it."""
    found = {row["method"]: row for row in results}
    rows = [
        ["method", "shapers", "advantage", "loss", "the question it asks", *(["accuracy", "tokens"] if found else [])]
    ]
    for entry in entries:
        row = [
            f"[{entry.name}](docs/methods/{entry.name}.md)",
            entry.shapers,
            entry.advantage,
            entry.loss,
            entry.question,
        ]
        if found:
            result = found.get(entry.name)
            row += (
                [f"{result['accuracy_points']:+.1f} points", f"{result['tokens_percent']:+.0f} %"]
                if result
                else ["", ""]
            )
        rows.append(row)
    return markdown_table(rows)
