"""Several stores of samples as one, when they can be compared."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from concise_rl.errors import DataError, UserError
from concise_rl.evaluation.columns import Columns, columns_of, samples_of
from concise_rl.options import Truncated
from concise_rl.samples import Array, Samples
from concise_rl.verifiers import verdict_version

COMPARABLE = {
    "tokenizer": "their lengths are counts of other tokens",
    "fingerprint": "their prompts were made by another chat template or end in other tokens",
    "verdicts": "they are judged by other rules",
    "verifier": "they are judged by other rules",
}
"""Settings in which all stores agree that know them, and why."""


@dataclass(frozen=True)
class Stores:
    """What a selection is made from.

    Attributes:
        parts: the stores.
        samples: of all of them, as selectors see them; `samples.places` counts through the stores.
        difficulty: (rows of all stores,) JSON of the column `difficulty`, None where a problem has none.
        repeated: completions that stood in two stores, and count once.
    """

    parts: tuple[Columns, ...]
    samples: Samples
    difficulty: Array
    repeated: int

    def lines(self, which: Array) -> Iterator[tuple[Columns, dict[str, Any]]]:
        """Rows of `samples` as they are stored, texts included, each with its store, in the order asked for."""
        places = self.samples.places[which]
        ends = np.cumsum([len(part) for part in self.parts])
        owners = np.searchsorted(ends, places, side="right")
        readers = [
            part.lines(places[owners == number] - (ends[number] - len(part))) for number, part in enumerate(self.parts)
        ]
        for owner in owners.tolist():
            yield self.parts[owner], next(readers[owner])


def open_stores(
    paths: Sequence[str | Path],
    *,
    truncated: Truncated = Truncated.wrong,
    needs: Collection[str] = (),
    problems: Collection[str] | None = None,
) -> Stores:
    """The stores as one. A completion that two of them hold counts once.

    Args:
        truncated: what a completion is that the token limit cut off, as in training.
        needs: `words`, where a selector asks for them.
        problems: the content keys that may stand in them; None for any.

    Raises:
        UserError: no store, or stores that cannot be compared: other tokenizers, verifiers, or verdict versions.
        DataError: a store that is damaged, has no completion, or holds other problems; or one key with two completions.
    """
    if not paths:
        raise UserError("stores=[] names none: give the files that concise-rl sample has written")
    parts = tuple(columns_of(path) for path in paths)
    _check_comparable(parts)
    for part in parts:
        if not len(part):
            raise DataError(f"store {part.path} holds no completion: sample into it first")
        _check_problems(part, problems)
    numbers = {name: np.concatenate([part.numbers[name] for part in parts]) for name in parts[0].numbers}
    words = {"words": np.concatenate([part.words() for part in parts])} if "words" in needs else {}
    samples = samples_of(numbers, **words)
    stores = Stores(parts, samples, numbers["difficulty"], 0)
    once = _first_of_equals(stores)
    samples = samples.keep(once).counting(truncated)
    return replace(stores, samples=samples, repeated=int((~once).sum()))


def _check_comparable(parts: Sequence[Columns]) -> None:
    now = {"verdicts": verdict_version()}
    for name, why in COMPARABLE.items():
        known = [(part.path, part.settings[name]) for part in parts if part.settings.get(name) is not None]
        for path, value in known:
            if name in now and value != now[name]:
                raise UserError(
                    f"store {path} was judged with {name}={json.dumps(value)}, this version judges with "
                    f"{json.dumps(now[name])}: sample again into another store"
                )
            if value != known[0][1]:
                raise UserError(
                    f"stores {known[0][0]} and {path} differ in {name} ({json.dumps(known[0][1])}, "
                    f"{json.dumps(value)}), so {why}: select from each apart"
                )


def _check_problems(part: Columns, problems: Collection[str] | None) -> None:
    others = set() if problems is None else set(part.numbers["problem"]) - set(problems)
    if others:
        raise DataError(
            f"store {part.path} holds {len(others)} problems that are not in data= and split=, such as {min(others)}: "
            "name the data that it was sampled from"
        )


def _first_of_equals(stores: Stores) -> Array:
    """(N,) bool, False for a completion that stands before it in another store, word for word."""
    samples = stores.samples
    same = np.ones(len(samples) - 1, dtype=bool)
    for column in (samples.problem, samples.stages, samples.edits, samples.seeds):
        same &= column[1:] == column[:-1]
    again = 1 + np.flatnonzero(same)
    pairs = zip(stores.lines(again - 1), stores.lines(again), strict=True)
    for (one, first), (other, second) in pairs:
        if any(first[name] != second[name] for name in ("completion", "length", "verdict")):
            raise DataError(
                f"stores {one.path} and {other.path} hold two completions of problem {first['prompt_id']} with seed "
                f"{first['seed']}: sample into one of them with another seed, or give it a stage"
            )
    once = np.ones(len(samples), dtype=bool)
    once[again] = False
    return once
