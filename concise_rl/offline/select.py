"""From stores and a selector to a file that TRL's trainers take as it is, with a report of what was kept and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from concise_rl.errors import DataError, UserError
from concise_rl.evaluation.columns import Columns
from concise_rl.files import file_checksum, replace_text, replacing
from concise_rl.methods.contracts import Selector
from concise_rl.methods.picking import check_selection
from concise_rl.methods.registry import plain_fields
from concise_rl.offline.report import report_of, report_path
from concise_rl.offline.stores import Stores
from concise_rl.options import choose
from concise_rl.samples import Selection

Line = dict[str, Any]
"""A row as it is stored."""

BATCH_ROWS = 8192
"""Rows that are held in memory while a file is written."""


class Format(str, Enum):
    """How prompts and completions are written: as the text that the model read and said, or as chat messages."""

    text = "text"
    messages = "messages"


class PromptAs(str, Enum):
    """Which prompt is written: as its edit made it, or without the edit."""

    asked = "asked"
    plain = "plain"


@dataclass(frozen=True)
class Written:
    """How the rows are written.

    Attributes:
        format: see `Format`.
        prompt: see `PromptAs`.

    Raises:
        UserError: an unknown choice.
    """

    format: Format = Format.text
    prompt: PromptAs = PromptAs.asked

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", choose("format", Format, self.format))
        object.__setattr__(self, "prompt", choose("prompt", PromptAs, self.prompt))

    def prompt_of(self, store: Columns, row: Line) -> Any:
        """The prompt as text or messages."""
        asked = row.get("plain", row) if self.prompt is PromptAs.plain else row
        if self.format is Format.messages:
            return asked["messages"]
        return asked["prompt"].removeprefix(store.settings.get("own_bos") or "")

    def said(self, row: Line, start: str = "") -> Any:
        """The completion as text or as one message."""
        text = start + row["completion"]
        return text if self.format is Format.text else [{"role": "assistant", "content": text}]

    def check(self, stores: Stores) -> None:
        """Refuse a format that the stores do not hold.

        Raises:
            UserError: names the store and the format that it holds.
        """
        for store in stores.parts:
            if self.format is Format.text and store.settings.get("endpoint") == "chat":
                raise UserError(
                    f"format=text: the server of store {store.path} applied its own chat template, so the text that "
                    "the model read is not known; use format=messages"
                )
            if self.format is Format.messages and "messages" not in next(store.lines([0])):
                raise UserError(
                    f"format=messages: store {store.path} is of an evaluation, which keeps no messages; use format=text"
                )


def select(
    stores: Stores,
    selector: Selector,
    out: str | Path,
    *,
    name: str,
    seed: int = 0,
    written: Written | None = None,
) -> dict[str, Any]:
    """Select, write the rows to `out` and the report to `<out>.report.json`, and return the report.

    Args:
        out: a `.jsonl` or `.parquet` file.
        name: of the selector's recipe, for the report.

    Raises:
        UserError: another ending, nothing is selected, a format that the stores do not hold, or a file that cannot be
            written. Then nothing is written.
        DataError: a pair whose two sides say the same.
        ValueError: the selector's answer is none; names it.
    """
    out, written = Path(out), written or Written()
    if out.suffix not in (".jsonl", ".parquet"):
        raise UserError(f"out={out}: give a file that ends in .jsonl or .parquet")
    own = {path.resolve(): path for store in stores.parts for path in (store.path, store.table)}
    if out.resolve() in own:
        raise UserError(f"out={out} is a store, or the table beside one: choose another file")
    written.check(stores)
    selection = check_selection(selector, stores.samples, selector(stores.samples, seed))
    report = report_of(stores, selection)
    choices = {field: choice.value for field, choice in vars(written).items()}
    report = {"selector": name, "fields": plain_fields(selector), "seed": seed, **choices, **report}
    if not len(selection):
        reasons = ", ".join(f"{count} problems: {reason}" for reason, count in report["dropped"].items())
        raise UserError(f"selector={name} selects nothing ({reasons}): sample more, or choose another selector")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={out} cannot be written ({error.strerror}): choose another one") from error
    rows = (_pairs if selector.pairs else _rows)(stores, selection, written)
    with replacing(out) as aside:
        (_write_jsonl if out.suffix == ".jsonl" else _write_parquet)(aside, rows)
    report["sha256"] = file_checksum(out)
    replace_text(report_path(out), json.dumps(report, indent=1) + "\n")
    return report


def _rows(stores: Stores, selection: Selection, written: Written) -> Iterator[Line]:
    for place, (store, row) in enumerate(stores.lines(selection.rows)):
        start = selection.starts[place] if selection.starts else ""
        line = {"prompt": written.prompt_of(store, row), "completion": written.said(row, start)}
        if selection.weights is not None:
            line["weight"] = float(selection.weights[place])
        yield line | {"problem": row["prompt_id"]} | _origin(row)


def _pairs(stores: Stores, selection: Selection, written: Written) -> Iterator[dict[str, Any]]:
    assert selection.rejected is not None
    sides = zip(stores.lines(selection.rows), stores.lines(selection.rejected), strict=True)
    for (store, chosen), (_, rejected) in sides:
        if chosen["completion"] == rejected["completion"]:
            raise DataError(
                f"problem {chosen['prompt_id']}: seeds {chosen['seed']} and {rejected['seed']} are a pair and say the "
                "same: truncated=mask leaves those out that were cut, or choose another selector"
            )
        yield (
            {"prompt": written.prompt_of(store, chosen)}
            | {"chosen": written.said(chosen), "rejected": written.said(rejected), "problem": chosen["prompt_id"]}
            | {f"chosen_{name}": value for name, value in _origin(chosen).items()}
            | {f"rejected_{name}": value for name, value in _origin(rejected).items()}
        )


def _origin(row: Line) -> dict[str, Any]:
    sampled = {name: row[name] for name in ("seed", "length", "truncated")}
    return {"edit": row.get("edit", ""), "stage": row.get("stage", "")} | sampled


def _write_jsonl(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    first = pa.Table.from_pylist(list(islice(rows, BATCH_ROWS)))
    with parquet.ParquetWriter(path, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        while batch := list(islice(rows, BATCH_ROWS)):
            writer.write_table(pa.Table.from_pylist(batch, schema=first.schema))
