"""LASER-D's targets: bands of difficulty, and the smallest length within which a band may expect right answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.methods.statistics import group_count, right

BANDS = ("high", "medium", "low")
"""The bands of a group by its pass rate."""

LONGEST_TARGET = 16384

Targets = dict[str, int]
"""Band to target, tokens."""

Monitored = list[Any]
"""[right rows of a group, lengths of all that count, in ascending order], as JSON gives it back."""


def target_of_rows(batch: RolloutBatch, targets: Targets) -> Tensor:
    """The target of each row's band, (N,) int64: high from a pass rate of 2/3, medium from 1/3, in whole numbers."""
    right_N, n_N = group_count(batch, batch.correct), group_count(batch)
    lower_N = torch.where(3 * right_N >= n_N, targets["medium"], targets["low"])
    return torch.where(3 * right_N >= 2 * n_N, targets["high"], lower_N)


def monitored(batch: RolloutBatch) -> list[Monitored]:
    """The groups of a step in which a row counts."""
    counts_PG, right_PG, lengths_PG = (batch.by_group(rows) for rows in (batch.counts, right(batch), batch.lengths))
    return [
        [int(right_G.sum()), sorted(lengths_G[counts_G].tolist())]
        for counts_G, right_G, lengths_G in zip(counts_PG, right_PG, lengths_PG, strict=True)
        if bool(counts_G.any())
    ]


def estimate(groups: Sequence[Monitored], group_size: int, grid: range, cap: int, expected: int) -> Targets:
    """Each band's target from monitored groups. Here low goes up to 1/3 and medium up to 2/3, both included."""
    lengths_of: dict[str, list[int]] = {band: [] for band in BANDS}
    for n_right, lengths in groups:
        low, medium = 3 * n_right <= len(lengths), 3 * n_right <= 2 * len(lengths)
        lengths_of["low" if low else "medium" if medium else "high"] += lengths
    n_min = {"high": 2 * group_size // 3, "medium": group_size // 3, "low": 1}
    grid = range(grid.start, min(grid.stop, cap), grid.step)
    return {band: _smallest(grid, lengths_of[band], n_min[band], expected, cap) for band in BANDS}


def _smallest(grid: range, lengths: list[int], n_min: int, expected: int, cap: int) -> int:
    """The smallest t of the grid with floor(n_min * share of lengths <= t) >= expected; else the cap."""
    for t in grid:
        if lengths and sum(length <= t for length in lengths) * n_min // len(lengths) >= expected:
            return t
    return cap
