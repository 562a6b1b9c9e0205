"""Rows that somebody else wrote: a data set on the Hugging Face hub, or a local JSONL, JSON or Parquet file.

Either way a row becomes a `Prompt` by naming its columns. A reference is kept as it stands (`#### 42` included: reading
it is the verifier's affair); numbers become their `str`, lists and objects their JSON. Whatever is wrong with a row is
said with its place: the line of a `.jsonl` file, elsewhere the row, counted from 0.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from concise_rl.data.base import Message, Prompt, content_key
from concise_rl.data.bounded import OutOfBounds, WorkFailed, bounded
from concise_rl.errors import DataError, UserError

Row = Mapping[str, Any]
Placed = tuple[str, Row]
"""Where a row stands, for people, and the row."""

_SPLITS = ("train", "test")

UNPACKING = 8
"""A Parquet file may unpack to so many times its size, and what `bounded` allows; text shrinks to a third or so."""

PARQUET_ROWS = 64
"""Rows that are unpacked at once."""


@dataclass
class Columns:
    """Which columns make a prompt.

    Attributes:
        question_column: the question, a string.
        context_column: what precedes the question, on lines of its own, in rows where it is not blank (the story of a
            SVAMP problem).
        messages_column: chat messages (`[{"role": ..., "content": ...}, ...]`, the user's last, no system prompt),
            which then stand in place of the question.
        answer_column: the reference.
        reference_columns: where the verifier needs more than the answer (a tolerance, a unit): the reference is then
            the JSON object of these columns, in place of `answer_column`.
        choice_columns: for multiple choice, the columns of the possible answers, the right one first, in place of
            `answer_column`. They follow the question as (A), (B), ... in an order that a hash of the texts decides, so
            it is the same in every run; the reference is the letter.
        difficulty_column: how hard the problem is, carried along as the column `difficulty`.
        columns: further columns to carry along for components and reports.
        verifier: name of the verifier for the answers.
    """

    question_column: str = "question"
    context_column: str | None = None
    messages_column: str | None = None
    answer_column: str = "answer"
    reference_columns: list[str] = field(default_factory=list)
    choice_columns: list[str] = field(default_factory=list)
    difficulty_column: str | None = None
    columns: list[str] = field(default_factory=list)
    verifier: str = "math_answer"

    def prompts(self, rows: Iterable[Placed], source: str) -> list[Prompt]:
        """The prompts of the rows of `source`, in their order.

        Raises:
            DataError: no rows; or a row, named by its place, lacks a column or holds an unusable value.
        """
        prompts = []
        for place, row in rows:
            try:
                prompts.append(self._prompt(row, place))
            except UnicodeEncodeError as error:
                raise DataError(
                    f"{place} holds {error.object[error.start]!r}, half of a surrogate pair, which no tokenizer reads: "
                    "drop the row or mend the character"
                ) from error
        if not prompts:
            raise DataError(f"{source} is empty; give a data set with at least one row")
        return prompts

    def _prompt(self, row: Row, place: str) -> Prompt:
        answer = self.choice_columns or self.reference_columns or [self.answer_column]
        optional = [name for name in (self.context_column, self.difficulty_column) if name]
        for name in (self.messages_column or self.question_column, *answer, *optional, *self.columns):
            if name not in row:
                raise DataError(f"{place} has no column {name!r}; it has {sorted(row)}: name one of these instead")
        # What else a reference holds, such as a unit, may be absent from a row.
        for name in self.choice_columns or answer[:1]:
            if row[name] is None or not _text(row[name]).strip():
                raise DataError(f"{place}: column {name!r} is empty; drop the row or give it an answer")
        if self.messages_column:
            messages = _checked_messages(row[self.messages_column], f"{place}: column {self.messages_column!r}")
        else:
            messages = ({"role": "user", "content": self._question(row, place)},)
        if self.choice_columns:
            options, reference = _lettered([_text(row[name]).strip() for name in self.choice_columns])
            messages = (*messages[:-1], {**messages[-1], "content": f"{messages[-1]['content']}\n\n{options}"})
        elif self.reference_columns:
            reference = json.dumps({name: row[name] for name in self.reference_columns}, ensure_ascii=False)
        else:
            reference = _text(row[self.answer_column])
        carried = {name: row[name] for name in self.columns}
        if self.difficulty_column:
            carried["difficulty"] = row[self.difficulty_column]
        return Prompt(content_key(*(m["content"] for m in messages), reference), messages, reference, carried)

    def _question(self, row: Row, place: str) -> str:
        question = row[self.question_column]
        if not isinstance(question, str) or not question.strip():
            raise DataError(
                f"{place}: column {self.question_column!r} is {question!r}; a question must be non-empty text"
            )
        context = row[self.context_column] if self.context_column else None
        return f"{context.strip()}\n{question}" if isinstance(context, str) and context.strip() else question


@dataclass
class Hub(Columns):
    """A data set on the Hugging Face hub (or any path that `datasets.load_dataset` takes).

    Attributes:
        name: such as `openai/gsm8k`.
        config: the configuration of that data set, such as `main`.
        train_split: its split for training; slices such as `train[:90%]` work.
        test_split: its split for evaluation.

    Raises:
        UserError: no name, or `load` is asked for an unknown split.
        DataError: it cannot be loaded, is empty, or a row lacks a named column.
    """

    name: str = ""
    config: str | None = None
    train_split: str = "train"
    test_split: str = "test"

    def __post_init__(self) -> None:
        if not self.name:
            raise UserError("Hub.name is empty; give a data set such as openai/gsm8k")

    def load(self, split: str) -> list[Prompt]:
        """The problems of `"train"` or `"test"`, under whatever names the data set has for them."""
        _check_split("Hub", split)
        return _load_hub(self, self.name, self.config, self.train_split if split == "train" else self.test_split)


@dataclass
class Benchmark(Columns):
    """A published test set: from the Hugging Face hub, or from a local copy where `path` is given. All of it is test.

    Attributes:
        hub: the data set's name on the hub, such as `openai/gsm8k`.
        config: the configuration of that data set, such as `main`.
        split: its split that serves as the test set; slices such as `test[:100]` work.
        path: a `.jsonl`, `.json` or `.parquet` file in place of the hub, taken whole.
        brevity: the reference is the least that answers, so report how much longer the replies are (YapScore), by the
            column `category`.

    Raises:
        UserError: neither `hub` nor `path`, or `load` is asked for another split than `"test"`.
        DataError: it cannot be loaded, is empty, or a row lacks a named column.
    """

    hub: str = ""
    config: str | None = None
    split: str = "test"
    path: str | None = None
    brevity: bool = False

    def __post_init__(self) -> None:
        if not self.hub and not self.path:
            raise UserError("benchmark.path is empty and benchmark.hub too; give a .jsonl, .json or .parquet file")

    def load(self, split: str) -> list[Prompt]:
        """The problems, in their order."""
        if split != "test":
            raise UserError(
                f"evaluation.split={split!r}: a benchmark is all test; choose its part with benchmark.split"
            )
        if self.path:
            return self.prompts(read_rows(Path(self.path)), self.path)
        return _load_hub(self, self.hub, self.config, self.split, "or give a local copy with benchmark.path=")


def _load_hub(
    columns: Columns, name: str, config: str | None, split: str, otherwise: str = "or give a local copy with data=local"
) -> list[Prompt]:
    from datasets import load_dataset

    source = f"hub data set {name}" + (f"/{config}" if config else "") + f" [{split}]"
    try:
        rows = load_dataset(name, config, split=split)
    except Exception as error:  # the library lets errors of many kinds through: network, names, formats
        first_line = str(error).strip().partition("\n")[0]
        raise DataError(
            f"{source} cannot be loaded ({type(error).__name__}: {first_line}); check name, config and split, "
            f"{otherwise}"
        ) from error
    return columns.prompts(_placed(rows, source), source)


@dataclass
class Local(Columns):
    """A local `.jsonl`, `.json` (a list of objects) or `.parquet` file.

    Attributes:
        path: the file of the train split; of both where `test_path` is not given.
        test_path: the file of the test split.
        test_fraction: without `test_path`, the expected share of `path` that is set aside for test. A hash of the
            question decides: equal questions never lie on both sides, and a row keeps its side when others are added.

    Raises:
        UserError: a field is out of its range, or `load` is asked for an unknown split.
        DataError: the file is missing, empty, of another kind or unparseable, or a row lacks a named column.
    """

    path: str = ""
    test_path: str | None = None
    test_fraction: float = 0.1

    def __post_init__(self) -> None:
        if not self.path:
            raise UserError("Local.path is empty; give a .jsonl, .json or .parquet file")
        if not 0 < self.test_fraction < 1:
            raise UserError(f"Local.test_fraction={self.test_fraction} must lie between 0 and 1")

    def load(self, split: str) -> list[Prompt]:
        """The problems of `"train"` or `"test"`, in the order of the file."""
        _check_split("Local", split)
        if self.test_path:
            path = self.path if split == "train" else self.test_path
            return self.prompts(read_rows(Path(path)), path)
        prompts = [p for p in self.prompts(read_rows(Path(self.path)), self.path) if self._split_of(p) == split]
        if not prompts:
            raise DataError(
                f"{self.path}: test_fraction={self.test_fraction} leaves no row for {split}; change it, add rows, "
                "or give test_path"
            )
        return prompts

    def _split_of(self, prompt: Prompt) -> str:
        key = content_key(*(m["content"] for m in prompt.messages))
        return "test" if int(key, 16) < self.test_fraction * 2**64 else "train"


def _check_split(source: str, split: str) -> None:
    if split not in _SPLITS:
        raise UserError(f"{source} has no split {split!r}; it has {list(_SPLITS)}")


def _checked_messages(messages: Any, place: str) -> tuple[Message, ...]:
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{place} is {messages!r}; it must be a non-empty list of chat messages")
    for message in messages:
        if not isinstance(message, Mapping) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
            raise DataError(f"{place} holds {message!r}; a message has the texts 'role' and 'content'")
        if message["role"] == "system":
            raise DataError(f"{place} holds a system prompt; take it out and set it in the recipe")
    if messages[-1]["role"] != "user":
        raise DataError(f"{place} ends with role {messages[-1]['role']!r}; the user's message must be the last")
    return tuple({"role": m["role"], "content": m["content"]} for m in messages)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value) if isinstance(value, list | dict) else str(value)


def _lettered(choices: list[str]) -> tuple[str, str]:
    """The options as text, and the letter of the first choice."""
    right, *_ = choices
    ordered = sorted(choices, key=lambda choice: content_key(choice, *choices))
    options = zip(string.ascii_uppercase, ordered, strict=False)
    return "\n".join(f"({letter}) {choice}" for letter, choice in options), string.ascii_uppercase[ordered.index(right)]


def _placed(rows: Iterable[Row], source: str) -> Iterator[Placed]:
    return ((f"{source} row {i}", row) for i, row in enumerate(rows))


def read_rows(path: Path) -> list[Placed]:
    """The rows of a .jsonl, .json or .parquet file, each with where it stands.

    Raises:
        DataError: no such file, another kind of file, or a damaged row, named.
    """
    readers = {".jsonl": _read_jsonl, ".json": _read_json, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise DataError(f"{path}: files of kind {path.suffix!r} are not read; give one of {sorted(readers)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path (from {Path.cwd()})")
    return readers[path.suffix](path)


def _read_jsonl(path: Path) -> list[Placed]:
    placed = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                place = f"{path} line {number}"
                placed.append((place, _checked_row(_parse(line, place), place)))
    return placed


def _read_json(path: Path) -> list[Placed]:
    rows = _parse(path.read_bytes(), str(path))
    if not isinstance(rows, list):
        raise DataError(f"{path} holds a {type(rows).__name__}; a .json file must hold a list of objects")
    return [(place, _checked_row(row, place)) for place, row in _placed(rows, str(path))]


def _read_parquet(path: Path) -> list[Placed]:
    """The rows, unpacked within bounds: a file of a few kilobytes can hold many gigabytes."""
    rows: list[Row] = []
    extra = UNPACKING * path.stat().st_size
    try:
        for row in bounded(
            "concise_rl.data.files:parquet_rows", {"path": str(path)}, silence_seconds=60.0, extra_bytes=extra
        ):
            rows.append(row)
    except OutOfBounds as error:
        raise DataError(f"{path} row {len(rows)} {error}: split the file, or write it as .jsonl") from error
    except WorkFailed as error:
        if error.kind == "UnicodeDecodeError":
            raise DataError(f"{path} row {len(rows)}: {error}; mend the text or drop the row") from error
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is not a readable Parquet file ({reason}); write it again") from error
    return list(_placed(rows, str(path)))


def parquet_rows(request: Mapping[str, Any]) -> Iterator[Row]:
    """On the other side of `bounded`: rows of a Parquet file, a few at a time."""
    from pyarrow import parquet

    def rows() -> Iterator[Row]:
        with parquet.ParquetFile(request["path"], pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=PARQUET_ROWS, use_threads=False):
                for place in range(batch.num_rows):
                    yield {name: _value(batch[name][place], name) for name in batch.schema.names}

    return rows()


def _value(scalar: Any, name: str) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        reason = f"column {name!r} holds bytes that are no UTF-8 ({error.reason})"
        raise UnicodeDecodeError(error.encoding, error.object[:40], error.start, error.end, reason) from error


def _parse(text: bytes, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not JSON ({error}); mend or drop it") from error


def _checked_row(row: Any, place: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{place} holds a {type(row).__name__}; a row must be an object with named columns")
    return row
