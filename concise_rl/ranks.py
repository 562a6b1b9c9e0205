"""The processes of a run: which one this is, and what all of them hold; it alone knows `torch.distributed`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from concise_rl.errors import UserError


def rank() -> tuple[int, int]:
    """The number of this process, and of how many."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def on_every_rank(value: Any) -> list[Any]:
    """Each rank's value, in rank order, on every rank."""
    _, ranks = rank()
    if ranks == 1:
        return [value]
    gathered = [None] * ranks
    torch.distributed.all_gather_object(gathered, value)
    return gathered


def first_decides(task: Callable[[], Any]) -> Any:
    """What a task returns that the first rank alone does, on every rank.

    Raises:
        UserError: what the task raises, on the first rank; the others end with the same exit code and say nothing.
    """
    number, _ = rank()
    found, error = None, None
    if number == 0:
        try:
            found = task()
        except UserError as refusal:
            error = refusal
    found, refused = on_every_rank((found, error is not None))[0]
    if error is not None:
        raise error
    if refused:
        sys.exit(2)
    return found


def own_share(items: Sequence[Any]) -> Sequence[Any]:
    """Every n-th item for this one of n ranks."""
    own, ranks = rank()
    return items[own::ranks]


def rank_is_lost(error: RuntimeError) -> bool:
    """Whether a collective failed because another rank is gone; gloo says so by its file names, others by a type."""
    return isinstance(error, getattr(torch.distributed, "DistError", ())) or "/gloo/" in str(error)


def every_rank(rows: Sequence[Any]) -> list[Any]:
    """The rows of all ranks in rank order, on every rank."""
    return [row for rank_rows in on_every_rank(list(rows)) for row in rank_rows]
