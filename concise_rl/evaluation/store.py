"""Evaluations on disk: a line of settings, then a line a completion, appended as each is judged."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from concise_rl.errors import DataError, UserError
from concise_rl.evaluation.row import EvaluationRow
from concise_rl.files import append_lines, check_own, replace_text

SETTINGS = "settings"

BLOCK_BYTES = 2**20
"""The end of the last whole line is looked for in blocks of so many bytes."""


class Store:
    """The completions of one evaluation that are there already, and a place for the others.

    A line that a crash tore is dropped. The file holds each completion once, with its seed, in the order in which they
    were judged; `finish` puts them in the order of the problems.

    Args:
        path: a JSONL file; made, with its folder, if absent.
        settings: JSON values on which every completion depends.

    Raises:
        UserError: the file was made with other settings, named; or cannot be written.
        DataError: its first line is damaged.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.settings = dict(settings)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            check_own(self.path)
            whole = self._drop_torn_line()
        except OSError as error:
            raise UserError(f"store={self.path} cannot be written ({error.strerror}): choose another one") from error
        if not whole:
            append_lines(self.path, _line({SETTINGS: self.settings}), go_on_with="evaluate again")
            return
        self._check(settings_in(self.path))

    def rows(self) -> list[EvaluationRow]:
        """What is stored, in the order of the file.

        Raises:
            DataError: a damaged line, or one whose completion stands in the file already; named.
        """
        rows = read(self.path)[1]
        seen: dict[Any, int] = {}
        for line, row in enumerate(rows, start=2):
            first = seen.setdefault(row.key, line)
            if first != line:
                raise duplicate(self.path, first, line)
        return rows

    def append(self, rows: Sequence[EvaluationRow]) -> None:
        """Hand the rows to the system: they outlive this process.

        Raises:
            UserError: the disk is full, or a column holds what JSON cannot; what was stored stays intact.
        """
        append_lines(self.path, lines(rows, self.path), go_on_with="evaluate again with the same store")

    def finish(self, rows: Sequence[EvaluationRow]) -> None:
        """Replace the file by these rows, in their order."""
        replace_text(self.path, _line({SETTINGS: self.settings}) + lines(rows, self.path))

    def _drop_torn_line(self) -> int:
        """Cut what follows the last newline; how many bytes are left."""
        if not self.path.exists():
            return 0
        with self.path.open("rb") as file:
            size = whole = file.seek(0, os.SEEK_END)
            tail = b""
            while whole and b"\n" not in tail:
                whole = max(0, whole - BLOCK_BYTES)
                file.seek(whole)
                tail = file.read(min(BLOCK_BYTES, size - whole))
        whole += tail.rfind(b"\n") + 1
        if whole < size:
            os.truncate(self.path, whole)
        return whole

    def _check(self, stored: Mapping[str, Any]) -> None:
        weights = stored.get("weights")
        moved = weights is not None and weights == self.settings.get("weights")  # the same model in another folder
        for name in {**stored, **self.settings}:
            theirs, ours = stored.get(name), self.settings.get(name)
            if theirs != ours and not (name == "model" and moved):
                raise UserError(
                    f"store={self.path} was made with {name}={json.dumps(theirs)}, now {name}={json.dumps(ours)}: "
                    "ask for the same, or choose another store"
                )


def settings_in(path: Path) -> dict[str, Any]:
    """The settings in the first line of a file.

    Raises:
        UserError: the file has none.
        DataError: no such file, or the line is damaged.
    """
    try:
        with path.open("rb") as file:
            line = file.readline()
    except OSError as error:
        raise DataError(f"store {path} cannot be read ({error.strerror}): name a file of stored samples") from error
    try:
        first = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise damaged(path, 1, error) from error
    if not isinstance(first, dict) or first.keys() != {SETTINGS}:
        raise UserError(f"store={path} holds an evaluation without its settings: choose another file")
    return dict(first[SETTINGS])


def damaged(path: Path, line: int, error: Exception) -> DataError:
    """The error for a line that cannot be read."""
    return DataError(f"{path}, line {line} is damaged ({error}): evaluate again, or delete the line")


def duplicate(path: Path, first: int, line: int) -> DataError:
    """The error for a completion that stands in a file twice."""
    return DataError(f"{path}, line {line} holds the completion of line {first} again: delete one of the two lines")


def read(path: Path) -> tuple[dict[str, Any], list[EvaluationRow]]:
    """Settings (empty where the file has none) and rows of an evaluation.

    Raises:
        DataError: no such file, or a damaged line, named.
    """
    try:
        content = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): name a file that an evaluation has saved"
        ) from error
    settings: dict[str, Any] = {}
    rows = []
    for number, line in enumerate(content, start=1):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("cut short")
            parsed = json.loads(line)
            if number == 1 and isinstance(parsed, dict) and parsed.keys() == {SETTINGS}:
                settings = dict(parsed[SETTINGS])
            else:
                rows.append(EvaluationRow.from_json(parsed))
        except (TypeError, ValueError, RecursionError) as error:
            raise damaged(path, number, error) from error
    return settings, rows


def write(path: Path, settings: Mapping[str, Any], rows: Sequence[EvaluationRow]) -> None:
    """The inverse of `read`; the file is complete or, where writing fails, as it was.

    Raises:
        UserError: the file cannot be written, or a column holds what JSON cannot.
    """
    replace_text(path, (_line({SETTINGS: dict(settings)}) if settings else "") + lines(rows, path))


def lines(rows: Sequence[EvaluationRow], path: Path) -> str:
    """One line a row."""
    try:
        return "".join(_line(row.to_json()) for row in rows)
    except TypeError as error:
        raise UserError(
            f"{path}: a column of the data set is no JSON value ({error}); convert it when loading"
        ) from error


def _line(content: Mapping[str, Any]) -> str:
    return json.dumps(content) + "\n"
