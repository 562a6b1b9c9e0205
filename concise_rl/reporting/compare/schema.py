"""What a comparison reads of other people's files, field by field; all else in them is left alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from concise_rl.errors import DataError

LARGEST = 1e15
"""No step, token, budget or metric is larger; beyond, sums and figures lose their digits or overflow."""


LONGEST = 200
"""Characters of a name."""


@dataclass(frozen=True)
class Number:
    """A number between two bounds; `whole` for integers alone. NaN is none, but where `undefined` lets it pass."""

    low: float = -LARGEST
    high: float = LARGEST
    whole: bool = False
    undefined: bool = False

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        return kind if self.low == -self.high else f"{kind} from {self.low:g} to {self.high:g}"

    def holds(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        return self.low <= value <= self.high or (self.undefined and value != value)


class Text:
    """A name or a tag: figures draw every character of it, so one of a megabyte would keep them busy for hours."""

    def __str__(self) -> str:
        return f"a text of up to {LONGEST} characters"

    def holds(self, value: Any) -> bool:
        return isinstance(value, str) and 0 < len(value) <= LONGEST


TEXT, SHARE = Text(), Number(0, 1)
COUNT, TOKENS = Number(1, LARGEST, whole=True), Number(0, LARGEST)
ANY_NUMBER = Number(undefined=True)

SUMMARY = {
    "benchmark?": TEXT,
    "budget_curve?": (
        None,
        {
            "mode": TEXT,
            "points": [
                {
                    "budget": Number(1, LARGEST),
                    "accuracy": SHARE,
                    "mean_tokens": TOKENS,
                    "accuracy_interval?": (None, [SHARE, SHARE]),
                }
            ],
        },
    ),
    "effort_curve?": (
        None,
        {
            "points": [
                {
                    "level": TEXT,
                    "accuracy": SHARE,
                    "mean_tokens": TOKENS,
                    "accuracy_interval?": (None, [SHARE, SHARE]),
                    "mean_tokens_interval?": (None, [TOKENS, TOKENS]),
                }
            ],
        },
    ),
}
"""summary.json of `concise-rl eval`."""

CONFIG = {"method?": {"name?": TEXT}}
"""config.json of a run."""

SETTINGS = {
    "samples?": COUNT,
    "think_end?": TEXT,
    "mode?": {"name": TEXT, "budget?": (None, COUNT)},
}
"""The first line of an evaluation."""

STEP = Number(0, LARGEST, whole=True)
"""`step` in a line of metrics.jsonl, whose other fields are `ANY_NUMBER`."""


def check(value: Any, schema: Any, path: Path, place: str) -> None:
    """Refuse a value that is not as its schema says.

    Args:
        schema: a kind of value; a mapping of names to schemas, those that end in `?` may be absent; a list of one
            schema for each item, or of several for as many items; a tuple of alternatives, None among them.
        path, place: the file and the field, for the message.

    Raises:
        DataError: names file and field.
    """
    if isinstance(schema, tuple):
        if value is not None:
            check(value, schema[1], path, place)
    elif isinstance(schema, Mapping):
        _check_fields(value, schema, path, place)
    elif isinstance(schema, Sequence):
        if not isinstance(value, list) or (len(schema) > 1 and len(value) != len(schema)):
            raise _wrong(value, "a list" if len(schema) == 1 else f"a list of {len(schema)}", path, place)
        for number, item in enumerate(value):
            check(item, schema[number % len(schema)], path, f"{place}[{number}]")
    elif not schema.holds(value):
        raise _wrong(value, str(schema), path, place)


def _check_fields(value: Any, schema: Mapping[str, Any], path: Path, place: str) -> None:
    if not isinstance(value, dict):
        raise _wrong(value, "an object", path, place)
    for key, inner in schema.items():
        name = key.removesuffix("?")
        at = f"{place}.{name}" if place else name
        if name in value:
            check(value[name], inner, path, at)
        elif key == name:
            raise DataError(f"{path}: {at} is missing: evaluate again, or leave it out")


def _wrong(value: Any, expected: str, path: Path, place: str) -> DataError:
    shown = json.dumps(value)
    shown = shown if len(shown) <= 40 else f"{shown[:40]}..."
    return DataError(f"{path}: {place or 'it'} is {shown}, not {expected}: evaluate again, or leave it out")
