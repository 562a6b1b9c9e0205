"""A store in columns: the same rows as a Parquet file beside it, to open at once and for whatever else reads Parquet.

The JSONL file stays the store. `columns_of` makes `NAME.parquet` from `NAME.jsonl` where there is none, or the store
has changed since; that reads every line once and finds what is torn, damaged or there twice. Texts are then read from
the store itself, by the place of their line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from concise_rl.errors import UserError
from concise_rl.evaluation.row import EvaluationRow
from concise_rl.evaluation.store import SETTINGS, damaged, duplicate, settings_in
from concise_rl.files import replacing
from concise_rl.samples import Array, Samples

BATCH_ROWS = 16384
"""Rows that are held in memory while a store is read."""

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema(
    [
        ("problem", pa.string()),
        ("edit", pa.string()),
        ("stage", pa.string()),
        ("seed", pa.int64()),
        ("sample", pa.int64()),
        ("length", pa.int64()),
        ("think_length", pa.int64()),
        ("truncated", pa.bool_()),
        ("correct", pa.bool_()),
        ("scorable", pa.bool_()),
        ("reward", pa.float64()),
        ("difficulty", pa.string()),
        ("prompt", pa.string()),
        ("messages", _MESSAGES),
        ("completion", pa.string()),
        ("reference", pa.string()),
        ("columns", pa.string()),
        ("place", pa.int64()),
    ]
)
"""What stands in the Parquet file; `columns` and `difficulty` are JSON, `place` the first byte of the row's line."""

NUMBERS = ("problem", "edit", "stage", "seed", "sample", "length", "truncated", "correct", "scorable", "difficulty",
           "place")  # fmt: skip
KEY = ("problem", "edit", "stage", "seed")
TEXTS = ("problem", "edit", "stage", "difficulty")


@dataclass(frozen=True)
class Columns:
    """A store that has been looked through.

    Attributes:
        path: the store, JSONL.
        settings: in its first line.
        numbers: name of a column of `NUMBERS` to its (N,) values, in the order of the store.
    """

    path: Path
    settings: Mapping[str, Any]
    numbers: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.numbers["place"])

    @property
    def table(self) -> Path:
        """The Parquet file."""
        return self.path.with_suffix(".parquet")

    def lines(self, which: Sequence[int] | Array) -> Iterator[dict[str, Any]]:
        """What the store holds of these rows, texts included, in the order asked for; they were checked before."""
        before, line = -1, dict[str, Any]()
        with self.path.open("rb") as file:
            for place in self.numbers["place"][np.asarray(which, dtype=np.int64)].tolist():
                if place != before:  # of pairs one side often stands several times in a row
                    file.seek(place)
                    before, line = place, json.loads(file.readline())
                yield line

    def words(self) -> Array:
        """(N,) int64, the words of each completion, split at white space."""
        found: list[int] = []
        with parquet.ParquetFile(self.table) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=["completion"]):
                found += [len(text.split()) for text in batch["completion"].to_pylist()]
        return np.array(found, dtype=np.int64)


def columns_of(path: str | Path) -> Columns:
    """The store in columns, from the Parquet file beside it where that is of the store as it is now.

    Raises:
        UserError: the store has no settings, a row has no seed, or the Parquet file cannot be written.
        DataError: no such store; or a line that is torn, damaged, or holds a completion that stands there already,
            named.
    """
    path = Path(path)
    settings = settings_in(path)
    table = path.with_suffix(".parquet")
    if table == path:
        raise UserError(f"store {path}: name the .jsonl file, not the Parquet file that was made from it")
    made_from = _made_from(table)
    if made_from == "":
        raise UserError(f"store {path}: {table} is a file of something else, and its name is needed: move it")
    if made_from != _state(path):
        _write(path, table, settings)
    return Columns(path, settings, _read(table))


def samples_of(numbers: Mapping[str, Array], **more: Array) -> Samples:
    """Columns of `NUMBERS` as selectors see them, as judged; `more` has columns of `Samples` that stand in no store."""
    return Samples.of(
        numbers["problem"],
        numbers["length"],
        numbers["correct"],
        edits=numbers["edit"],
        stages=numbers["stage"],
        numbers=numbers["sample"],
        seeds=numbers["seed"],
        scorable=numbers["scorable"],
        truncated=numbers["truncated"],
        **more,
    )


def _state(path: Path) -> str:
    found = path.stat()
    return f"{found.st_size}/{found.st_mtime_ns}/{','.join(SCHEMA.names)}"


def _made_from(table: Path) -> str | None:
    """The state of the store that a table was made from; None where none can be read, empty for another file."""
    if not table.is_file():
        return None
    try:
        metadata = parquet.read_schema(table).metadata or {}
    except (OSError, pa.ArrowException):
        return None  # it is made again
    return metadata.get(b"made_from", b"").decode()


def _read(table: Path) -> dict[str, Array]:
    found = parquet.read_table(table, columns=list(NUMBERS), read_dictionary=list(TEXTS), use_threads=False)
    return {name: _array(found[name].combine_chunks()) for name in NUMBERS}


def _array(column: Any) -> Array:
    """Numbers as they are; texts as objects, each text once in memory."""
    if not pa.types.is_dictionary(column.type):
        return column.to_numpy(zero_copy_only=False)
    known = np.array([*column.dictionary.to_pylist(), None], dtype=object)
    return known[column.indices.fill_null(len(known) - 1).to_numpy(zero_copy_only=False)]


def _write(path: Path, table: Path, settings: Mapping[str, Any]) -> None:
    """Read every line of a store once; the Parquet file is complete or as it was."""
    metadata = {"made_from": _state(path), SETTINGS: json.dumps(settings)}
    keys: list[int] = []
    places: list[int] = []
    with (
        replacing(table) as aside,
        parquet.ParquetWriter(aside, SCHEMA.with_metadata(metadata), compression="zstd") as writer,
    ):
        for batch in _batches(path):
            keys += map(hash, zip(*(batch[name] for name in KEY), strict=True))
            places += batch["place"]
            writer.write_table(pa.Table.from_pydict(batch, schema=SCHEMA))
        _refuse_twice(path, np.array(keys, dtype=np.int64), places)


def _batches(path: Path) -> Iterator[dict[str, list[Any]]]:
    batch: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    with path.open("rb") as file:
        place = len(file.readline())
        for number, line in enumerate(file, start=2):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("cut short")
                row = EvaluationRow.from_json(json.loads(line))
            except (TypeError, ValueError, RecursionError) as error:
                raise damaged(path, number, error) from error
            if row.seed is None:
                raise UserError(f"store {path}, line {number} has no seed, as in older versions: sample again")
            for name, value in _values(row, place).items():
                batch[name].append(value)
            place += len(line)
            if len(batch["place"]) == BATCH_ROWS:
                yield batch
                batch = {name: [] for name in SCHEMA.names}
    yield batch


def _values(row: EvaluationRow, place: int) -> dict[str, Any]:
    difficulty = row.columns.get("difficulty")
    return {
        "problem": row.prompt_id,
        "edit": row.edit,
        "stage": row.stage,
        "seed": row.seed,
        "sample": row.sample,
        "length": row.length,
        "think_length": row.think_length,
        "truncated": row.truncated,
        "correct": row.verdict.correct,
        "scorable": row.verdict.scorable,
        "reward": row.verdict.reward,
        "difficulty": None if difficulty is None else json.dumps(difficulty),
        "prompt": _utf8(row.prompt),
        "messages": [{name: _utf8(text) for name, text in message.items()} for message in row.messages],
        "completion": _utf8(row.completion),
        "reference": _utf8(row.reference),
        "columns": json.dumps(row.columns) if row.columns else "{}",
        "place": place,
    }


def _utf8(text: str) -> str:
    """Half of a character, which a token limit may leave, as a question mark."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _refuse_twice(path: Path, keys: Array, places: Sequence[int]) -> None:
    """Raises `DataError` where two rows have one key, by their lines."""
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    with path.open("rb") as file:
        for place in same.tolist():
            pair = sorted(order[place : place + 2].tolist())
            rows = []
            for row in pair:  # hashes may meet by chance; the lines themselves decide
                file.seek(places[row])
                rows.append(EvaluationRow.from_json(json.loads(file.readline())))
            if rows[0].stored_key == rows[1].stored_key:
                raise duplicate(path, pair[0] + 2, pair[1] + 2)
