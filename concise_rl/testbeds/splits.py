"""Sides of an embedded task: a hash of the question decides, so no size and no seed can make them overlap.

A task with a measured law has a third side beside train and test, on which nothing is trained and no method is tested.
"""

from __future__ import annotations

from collections.abc import Callable

from concise_rl.data.base import content_key
from concise_rl.errors import DataError, UserError

SPLITS = ("train", "test", "law")

_SHARES = {"test": 0.3, "law": 0.2}  # the rest is train; constants: every configuration must agree on the sides


def split_of(question: str) -> str:
    """The side on which a question lies, from its content alone."""
    place, reached = int(content_key(question), 16) / 2**64, 0.0
    for split, share in _SHARES.items():
        reached += share
        if place < reached:
            return split
    return "train"


def check_split(task: str, split: str) -> None:
    """Refuse a side that the task does not have.

    Raises:
        UserError: names the sides that there are.
    """
    if split not in SPLITS:
        raise UserError(f"{task} has no split {split!r}; it has {list(SPLITS)}")


def draw_distinct(draw: Callable[[], str], split: str, wanted: int, what: str) -> list[str]:
    """`wanted` distinct questions of one side, in the order in which they are drawn.

    Args:
        draw: makes a question of any side.
        split: the side.
        wanted: how many.
        what: names them in the error, such as `RunningTotal level 2`.

    Raises:
        DataError: a hundred draws for each that is wanted have not found as many.
    """
    found: dict[str, None] = {}
    for _ in range(1000 + 100 * wanted):
        if len(found) == wanted:
            break
        question = draw()
        if split_of(question) == split:
            found[question] = None
    if len(found) < wanted:
        raise DataError(f"{what}: only {len(found)} of {wanted} distinct {split} problems were found; ask for fewer")
    return list(found)
