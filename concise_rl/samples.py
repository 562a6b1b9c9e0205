"""Stored completions as numbers, and what a selector makes of them; texts stay where they are stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np

from concise_rl.options import Truncated

Array = np.ndarray[Any, Any]


class Sample(NamedTuple):
    """One judged completion of a problem.

    Attributes:
        row: its place in the `Samples`.
        edit: how its prompt was edited; empty where it was not.
        stage: of a pipeline; empty where there is one only.
        number: which completion of the problem, from 0.
        length: sampled tokens, EOS included.
        correct: its answer is right.
        truncated: the limit came before EOS.
        words: words of its text, split at white space; 0 where the selector does not need them.
    """

    row: int
    edit: str
    stage: str
    number: int
    length: int
    correct: bool
    truncated: bool
    words: int


@dataclass(frozen=True)
class Samples:
    """N completions of P problems, those of a problem together, in an order that no order of storing changes.

    The order is by problem key, stage, edit, number and seed, so that the first of several equals is the same one
    whatever machine sampled first.

    Attributes:
        problems: (P,) content keys, sorted.
        problem: (N,) int64, whose each is; not decreasing.
        edits, stages: (N,) text.
        numbers, seeds, lengths: (N,) int64.
        correct, scorable, truncated: (N,) bool.
        words: (N,) int64; zeros where no selector asked for them.
        places: (N,) int64, where each stood in what this was made from.
    """

    problems: tuple[str, ...]
    problem: Array
    edits: Array
    stages: Array
    numbers: Array
    seeds: Array
    lengths: Array
    correct: Array
    scorable: Array
    truncated: Array
    words: Array
    places: Array

    @classmethod
    def of(cls, problems: Sequence[str] | Array, lengths: Any, correct: Any, **columns: Any) -> Samples:
        """From columns in any order, one value a completion.

        Args:
            problems: content keys.
            lengths, correct: see the class.
            columns: any other of its columns. Absent ones are empty texts, a judged row each, no truncation, and
                numbers that count the rows of a problem.
        """
        keys, problem = _coded(problems)
        n = len(problem)
        blank = np.full(n, "", dtype=object)
        given = {
            "edits": blank,
            "stages": blank,
            "numbers": _counted(problem),
            "seeds": np.zeros(n, dtype=np.int64),
            "scorable": np.ones(n, dtype=bool),
            "truncated": np.zeros(n, dtype=bool),
            "words": np.zeros(n, dtype=np.int64),
            **columns,
            "lengths": np.asarray(lengths, dtype=np.int64),
            "correct": np.asarray(correct, dtype=bool),
        }
        arrays = {name: np.asarray(column) for name, column in given.items()}
        codes = [_coded(arrays[name])[1] for name in ("edits", "stages")]
        order = np.lexsort((arrays["seeds"], arrays["numbers"], *codes, problem))
        sorted_columns = {name: column[order] for name, column in arrays.items()}
        return cls(problems=keys, problem=problem[order], places=order, **sorted_columns)

    def __len__(self) -> int:
        return len(self.problem)

    def keep(self, rows: Array) -> Samples:
        """Those rows of a mask alone, with the same problems."""
        columns = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "problems"}
        return Samples(problems=self.problems, **columns)

    def counting(self, truncated: Truncated) -> Samples:
        """The same with truncated completions wrong, as they were judged, or without a verdict."""
        if truncated is Truncated.wrong:
            return replace(self, correct=self.correct & ~self.truncated)
        if truncated is Truncated.mask:
            return replace(self, scorable=self.scorable & ~self.truncated)
        return self

    def by_problem(self) -> Iterator[tuple[str, list[Sample]]]:
        """Each problem's key and its completions that have a verdict, in order; a problem without any has none."""
        bounds = np.searchsorted(self.problem, np.arange(len(self.problems) + 1))
        names = ("edits", "stages", "numbers", "lengths", "correct", "truncated", "words")
        columns = [getattr(self, name) for name in names]
        for key, first, last in zip(self.problems, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            parts = [column[first:last].tolist() for column in columns]
            judged = self.scorable[first:last].tolist()
            rows = map(Sample, range(first, last), *parts)
            yield key, [row for row, known in zip(rows, judged, strict=True) if known]


@dataclass(frozen=True)
class Selection:
    """What a selector chose of `Samples`: M rows for supervised tuning, or M pairs.

    Attributes:
        rows: (M,) int64, rows of the samples; of a pair the chosen side.
        rejected: (M,) int64, the other side of each pair; None for rows.
        weights: (M,) float64, the weight of each row in the loss; None where all weigh the same.
        starts: what is put before each completion, such as a length token; None for nothing.
        dropped: problem key to the reason why nothing of it was chosen.
    """

    rows: Array
    rejected: Array | None = None
    weights: Array | None = None
    starts: Sequence[str] | None = None
    dropped: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)


def _coded(texts: Sequence[str] | Array) -> tuple[tuple[str, ...], Array]:
    """The different texts, sorted, and which of them each is."""
    known = sorted(set(texts))
    code = dict(zip(known, range(len(known)), strict=True))
    return tuple(known), np.fromiter(map(code.__getitem__, texts), dtype=np.int64, count=len(texts))


def _counted(problem: Array) -> Array:
    """0, 1, 2, ... within each problem, in the order given."""
    order = np.argsort(problem, kind="stable")
    first = np.searchsorted(problem[order], problem[order])
    numbers = np.empty(len(problem), dtype=np.int64)
    numbers[order] = np.arange(len(problem)) - first
    return numbers
