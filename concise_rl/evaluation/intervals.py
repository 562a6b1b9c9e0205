"""95 % intervals by a bootstrap that draws whole problems, with all their samples.

Axes: R rows, P problems, B resamples, K statistics. More samples of the same problems do not pass for more problems.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from concise_rl.evaluation.row import EvaluationRow

RESAMPLES = 2000
BLOCKS = 20
"""The resamples are drawn in so many parts, which bounds the memory."""

BOOTSTRAP_SEED = 0
COVERAGE = (2.5, 97.5)
"""Percentiles of the resampled statistic that bound the 95 % interval."""

NORMAL_QUANTILE = 1.959963984540054
"""z of a 95 % interval: the 97.5th percentile of the standard normal distribution."""

NO_WIDTH = 1e-9
"""What rounding leaves of an interval whose resamples all agree."""

FEW_PROBLEMS = 30
"""Below so many problems a percentile bootstrap is too narrow to be trusted, and is said to be."""

Interval = list[float]


def wilson(share: float, problems: int) -> Interval:
    """The score interval of a share of so many problems: never without width (Wilson 1927, JASA 22:209, eq. 1).

    (share + z^2 / 2n -+ z sqrt(share (1 - share) / n + z^2 / 4n^2)) / (1 + z^2 / n), cut to [0, 1].
    """
    z2 = NORMAL_QUANTILE**2
    middle = share + z2 / (2 * problems)
    reach = math.sqrt(z2 * (share * (1 - share) / problems + z2 / (4 * problems**2)))
    return [max(0.0, (middle - reach) / (1 + z2 / problems)), min(1.0, (middle + reach) / (1 + z2 / problems))]


@dataclass(frozen=True)
class Problems:
    """Which problem each row belongs to: P ids in the order in which they first stand, and a place in them a row."""

    ids: list[str]
    problem_R: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[EvaluationRow], ids: Sequence[str] = ()) -> Problems:
        """Of the rows; `ids` fixes the order of the problems that it names."""
        place = {prompt_id: p for p, prompt_id in enumerate(dict.fromkeys(ids))}
        problem_R = np.array([place.setdefault(row.prompt_id, len(place)) for row in rows], dtype=np.int64)
        return cls(list(place), problem_R)

    @property
    def counts_P(self) -> np.ndarray:
        """Rows a problem."""
        return np.bincount(self.problem_R, minlength=len(self.ids)).astype(np.float64)

    def sums(self, values_R: np.ndarray) -> np.ndarray:
        """The values added up by problem, (P,)."""
        return np.bincount(self.problem_R, weights=np.asarray(values_R, dtype=np.float64), minlength=len(self.ids))


Ratio = tuple[np.ndarray, np.ndarray]
"""Numerator and denominator a problem, each (P,): the statistic is the sum of the one over the sum of the other."""


def ratios(
    statistics: Mapping[str, Ratio], shares: Collection[str] = ()
) -> tuple[dict[str, float | None], dict[str, Interval | None]]:
    """Values and intervals of ratios of sums; None where the denominator is 0.

    Args:
        statistics: by name.
        shares: names of those that are shares of rows, in [0, 1]. Where every resample gives the same share, as when
            all rows are right, the bootstrap sees no uncertainty: the interval is then Wilson's, of the problems.
    """
    names = list(statistics)
    numerators_PK = np.stack([statistics[name][0] for name in names], axis=1)
    denominators_PK = np.stack([statistics[name][1] for name in names], axis=1)

    def statistic(weights_BP: np.ndarray) -> np.ndarray:
        return divided(weights_BP @ numerators_PK, weights_BP @ denominators_PK)

    values_K = statistic(np.ones((1, len(numerators_PK))))[0]
    intervals = resample(len(numerators_PK), statistic)
    defined = [value if np.isfinite(value) else None for value in values_K.tolist()]
    found = dict(zip(names, defined, strict=True)), dict(zip(names, intervals, strict=True))
    for name in shares:
        value, interval = found[0].get(name), found[1].get(name)
        if value is not None and interval is not None and interval[1] - interval[0] < NO_WIDTH:
            found[1][name] = wilson(min(1.0, max(0.0, value)), int((statistics[name][1] > 0).sum()))
    return found


def quantiles(
    values_R: np.ndarray, problems: Problems, shares: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, Interval | None]]:
    """Quantiles over rows with linear interpolation, as `numpy.percentile`, and their intervals."""
    order_R = np.argsort(values_R, kind="stable")
    sorted_R, problem_R = np.asarray(values_R, dtype=np.float64)[order_R], problems.problem_R[order_R]

    def statistic(weights_BP: np.ndarray) -> np.ndarray:
        cumulative_BR = np.cumsum(weights_BP[:, problem_R], axis=1)
        place_BK = (cumulative_BR[:, -1:] - 1) * np.array(list(shares.values()))
        low_BK, high_BK = (
            sorted_R[_first_above(cumulative_BR, rank_BK)] for rank_BK in (np.floor(place_BK), np.ceil(place_BK))
        )
        return low_BK + (high_BK - low_BK) * (place_BK - np.floor(place_BK))

    values_K = statistic(np.ones((1, len(problems.ids))))[0]
    intervals = resample(len(problems.ids), statistic)
    return dict(zip(shares, values_K.tolist(), strict=True)), dict(zip(shares, intervals, strict=True))


def _first_above(cumulative_BR: np.ndarray, rank_BK: np.ndarray) -> np.ndarray:
    """For each rank, counted from 0, the place of the row that holds it when each row stands as often as it weighs."""
    pairs = zip(cumulative_BR, rank_BK, strict=True)
    return np.stack([np.searchsorted(cumulative_R, rank_K, side="right") for cumulative_R, rank_K in pairs])


def resample(problems: int, statistic: Callable[[np.ndarray], np.ndarray]) -> list[Interval | None]:
    """The 95 % percentile interval of each statistic, (B, P) weights to (B, K) values, over resampled problems.

    A resample in which a statistic is not defined (nan) is left out of its interval; None where none defines it.
    """
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    share = np.full(problems, 1 / problems)
    blocks = [
        statistic(generator.multinomial(problems, share, size=RESAMPLES // BLOCKS).astype(np.float64))
        for _ in range(BLOCKS)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of statistics that no resample defines
        low_K, high_K = np.nanpercentile(np.concatenate(blocks), COVERAGE, axis=0)
    return [
        [float(low), float(high)] if np.isfinite(low) and np.isfinite(high) else None
        for low, high in zip(low_K, high_K, strict=True)
    ]


def divided(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """nan where the denominator is 0."""
    safe = np.where(denominator == 0, 1.0, denominator)
    return np.where(denominator == 0, np.nan, numerator / safe)
