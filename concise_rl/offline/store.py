"""Stored samples: the files of `concise-rl sample` and `concise-rl eval`, as `Sample`s whose texts stay on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from concise_rl.errors import DataError, UserError
from concise_rl.evaluation.row import EvaluationRow
from concise_rl.evaluation.store import SETTINGS
from concise_rl.methods.contracts import Sample

ALIKE = ("verifier", "tokenizer", "system", "chat_template_kwargs", "think_end")
"""Settings in which stores must agree, where both have them: else lengths, verdicts or prompts are not comparable."""


class SampleStore:
    """The samples of several files: each completion once, whatever machine made it.

    Args:
        paths: `.jsonl` files, or folders of them.

    Raises:
        UserError: no such file, or files that do not go together.
        DataError: a torn or damaged line, named.

    Attributes:
        samples: in the order of the files.
        repeated: lines that stood in a file before, with the same seed, and were left out.
        references: of each problem.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self.files = [file for path in paths for file in _files(Path(path))]
        self.samples: list[Sample] = []
        self.columns: dict[str, Mapping[str, Any]] = {}
        self.repeated = 0
        self._plain: dict[str, Sample] = {}
        seen: set[tuple[str, str, str, int | None]] = set()
        numbers: dict[tuple[str, str, str], int] = {}
        first: tuple[Path, Mapping[str, Any]] | None = None
        for place, file in enumerate(self.files):
            rows = _rows(file)
            _, settings = next(rows)
            first = first or (file, settings)
            _check_alike(first, (file, settings))
            effort, stage = effort_of(settings), stage_of(settings)
            for offset, row in rows:
                key = (row.prompt_id, effort, stage, row.seed)
                if row.seed is not None and key in seen:
                    self.repeated += 1
                    continue
                seen.add(key)
                number = numbers.get(key[:3], 0)
                numbers[key[:3]] = number + 1
                sample = Sample(
                    row.prompt_id, row.length, row.verdict.correct, row.verdict.scorable, row.truncated, effort, stage,
                    number, len(row.completion.split()), (place, offset),
                )  # fmt: skip
                self.samples.append(sample)
                if row.prompt_id not in self.columns:
                    self.columns[row.prompt_id] = dict(row.columns)
                if not effort:
                    self._plain.setdefault(row.prompt_id, sample)
        if not self.samples:
            raise DataError(f"{', '.join(map(str, self.files))}: no samples; run concise-rl sample first")

    def row(self, sample: Sample) -> EvaluationRow:
        """A sample with its texts, from the disk."""
        place, offset = sample.place
        with self.files[place].open("rb") as file:
            file.seek(offset)
            return EvaluationRow.from_json(json.loads(file.readline()))

    def prompt(self, sample: Sample) -> str:
        """The problem as a model sees it without an effort: that is what a tuned model is to answer.

        Raises:
            UserError: the store holds this problem with an edit alone.
        """
        if sample.problem not in self._plain:
            raise UserError(
                f"problem {sample.problem} was sampled with efforts alone, so its own prompt is not known: sample with "
                "edits='[none, ...]', or select with prompts=as_asked"
            )
        return self.row(self._plain[sample.problem]).prompt


def effort_of(settings: Mapping[str, Any]) -> str:
    """What the prompts of a file asked for, as a short text; empty where they were left as they are."""
    edit = settings.get("edit")
    return json.dumps(edit, sort_keys=True) if edit else ""


def stage_of(settings: Mapping[str, Any]) -> str:
    """Which model answered: its name, and its weights where they are known."""
    return " ".join(str(settings[name]) for name in ("model", "revision", "weights") if settings.get(name))


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(path.glob("*.jsonl")) or sorted(path.glob("*/*.jsonl"))
        if not found:
            raise UserError(f"{path} holds no .jsonl file of samples: name the folder that concise-rl sample wrote")
        return found
    if not path.is_file():
        raise UserError(f"{path}: there is no such file or folder of samples")
    return [path]


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """The settings of a file, then its rows, each with the place of its line.

    Raises:
        DataError: a line is damaged, or the file has no settings.
    """
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("cut short")
                parsed = json.loads(line)
                if number == 1:
                    if not (isinstance(parsed, dict) and parsed.keys() == {SETTINGS}):
                        raise ValueError("it holds no settings: concise-rl sample and eval write them")
                    yield offset, dict(parsed[SETTINGS])
                else:
                    yield offset, EvaluationRow.from_json(parsed)
            except (TypeError, ValueError, RecursionError) as error:
                raise DataError(
                    f"{path}, line {number} is damaged ({error}): sample again, which drops a torn line, or delete it"
                ) from error
            offset += len(line)
    if not offset:
        raise DataError(f"{path} is empty: sample again")


def _check_alike(first: tuple[Path, Mapping[str, Any]], other: tuple[Path, Mapping[str, Any]]) -> None:
    for name in ALIKE:
        ours, theirs = first[1].get(name), other[1].get(name)
        if ours != theirs and None not in (ours, theirs):
            raise UserError(
                f"{other[0]} was made with {name}={json.dumps(theirs)}, {first[0]} with {json.dumps(ours)}: lengths "
                "and verdicts of the two do not compare; select from one of them"
            )
