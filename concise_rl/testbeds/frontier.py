"""The best that any policy can do: accuracy against tokens where a bed's law is known.

    law of a bed   ->  by level, the points (accuracy, tokens) of its pure policies     `checking_points`, `laws`
    points         ->  those worth having: none is both cheaper and better              `pareto`
    levels         ->  policies that choose by level, averaged over the levels          `combined`
    mixtures       ->  the concave hull of the points: policies that draw between two   `hull`

The price of a token, lambda, is in units of one right answer: a policy is worth accuracy - lambda * tokens.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PRICES = (0.003, 0.01, 0.03)
"""Prices of a token at which regret is reported by default."""


@dataclass(frozen=True)
class Point:
    """What a policy reaches.

    Attributes:
        accuracy: share of right answers, 0..1.
        tokens: mean of a completion, EOS included.
        policy: what it does; of a policy that chooses by level, a tuple of that by level.
    """

    accuracy: float
    tokens: float
    policy: Any = None

    def value(self, price: float) -> float:
        """accuracy - price * tokens."""
        return self.accuracy - price * self.tokens


@dataclass(frozen=True)
class Frontier:
    """The best of a bed: `pure` policies, cheapest first, and the corners of the hull of their `mixtures`."""

    pure: tuple[Point, ...]
    mixtures: tuple[Point, ...]

    @classmethod
    def of(cls, levels: Sequence[Sequence[Point]], shares: Sequence[float] | None = None) -> Frontier:
        """The frontier of policies that see the level; `shares` of the problems, alike where None."""
        pure = combined(levels, shares)
        return cls(tuple(pure), tuple(hull(pure)))

    def accuracy_at(self, tokens: float) -> float:
        """Best accuracy of a mixture within so many tokens: linear between corners; nan below the cheapest policy."""
        return accuracy_at(self.mixtures, tokens)

    def pure_accuracy_at(self, tokens: float) -> float:
        """Best accuracy of a pure policy within so many tokens; nan below the cheapest."""
        return max((point.accuracy for point in self.pure if point.tokens <= tokens), default=math.nan)

    def tokens_at(self, accuracy: float) -> float:
        """Fewest tokens with which a mixture reaches an accuracy; nan above the best policy."""
        return tokens_at(self.mixtures, accuracy)

    def mixture_at(self, tokens: float) -> dict[Any, float]:
        """The best mixture within so many tokens: each policy that it draws, and how often; one or two of them.

        Raises:
            ValueError: even the cheapest policy takes more.
        """
        if tokens < self.mixtures[0].tokens:
            raise ValueError(f"tokens={tokens}: the cheapest policy takes {self.mixtures[0].tokens:.1f}")
        for a, b in itertools.pairwise(self.mixtures):
            if tokens < b.tokens:
                share = (tokens - a.tokens) / (b.tokens - a.tokens)
                return {a.policy: 1 - share, b.policy: share} if share else {a.policy: 1.0}
        return {self.mixtures[-1].policy: 1.0}

    def gap(self, tokens: Sequence[float], accuracy: Sequence[float]) -> float:
        """Mean of frontier - curve over token budgets from the cheapest corner to the dearest: `reg` of the two.

        Args:
            tokens: of the curve's points, rising; it is 0 at 0 tokens, straight between two points, and stays as it is
                after the last: more budget gives a policy nothing that it does not use.
            accuracy: of its points.

        nan where the frontier has one corner.
        """
        corners, best = zip(*((point.tokens, point.accuracy) for point in self.mixtures), strict=True)
        if len(corners) < 2:
            return math.nan
        own_tokens, own = np.append(0.0, tokens), np.append(0.0, accuracy)
        inside = own_tokens[(corners[0] < own_tokens) & (own_tokens < corners[-1])]
        budgets = np.union1d(corners, inside)
        return reg(budgets, np.interp(budgets, corners, best), np.interp(budgets, own_tokens, own))

    def best(self, price: float) -> Point:
        """The pure policy of most value at a price of a token; of equals the cheapest. No mixture is worth more."""
        return max(self.mixtures, key=lambda point: (point.value(price), -point.tokens))

    def regret(self, accuracy: float, tokens: float, price: float) -> float:
        """Value that a policy leaves, in units of one right answer: best value at the price - its own."""
        return self.best(price).value(price) - Point(accuracy, tokens).value(price)


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats, being as cheap and better, or as good and cheaper; cheapest first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.tokens, -p.accuracy)):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return kept


def hull(points: Sequence[Point]) -> list[Point]:
    """The corners of the upper concave hull of a Pareto set: the accuracy a token buys falls from corner to corner."""
    corners: list[Point] = []
    for point in pareto(points):
        while len(corners) > 1 and _slope(corners[-2], corners[-1]) <= _slope(corners[-2], point):
            corners.pop()
        corners.append(point)
    return corners


def _slope(a: Point, b: Point) -> float:
    return (b.accuracy - a.accuracy) / (b.tokens - a.tokens)


def combined(levels: Sequence[Sequence[Point]], shares: Sequence[float] | None = None) -> list[Point]:
    """The Pareto set of the policies that choose a point by level: accuracy and tokens are the means over levels.

    Args:
        levels: the points of each level.
        shares: of the problems by level, summing to 1; alike where None.

    Raises:
        ValueError: a level has no point.
    """
    if not levels or not all(levels):
        raise ValueError("levels: each needs at least one point")
    weights = shares or [1 / len(levels)] * len(levels)
    sums = [Point(0.0, 0.0, ())]
    for points, weight in zip(levels, weights, strict=True):
        sums = pareto(
            [
                Point(s.accuracy + weight * p.accuracy, s.tokens + weight * p.tokens, (*s.policy, p.policy))
                for s in sums
                for p in pareto(points)
            ]
        )
    return sums


def accuracy_at(corners: Sequence[Point], tokens: float) -> float:
    """Accuracy on the line through the corners at so many tokens: the last one's beyond it, nan before the first."""
    if tokens < corners[0].tokens:
        return math.nan
    for a, b in itertools.pairwise(corners):
        if tokens <= b.tokens:
            return a.accuracy + _slope(a, b) * (tokens - a.tokens)
    return corners[-1].accuracy


def tokens_at(corners: Sequence[Point], accuracy: float) -> float:
    """The inverse of `accuracy_at`: the first one's below it, nan above the last."""
    if accuracy <= corners[0].accuracy:
        return corners[0].tokens
    for a, b in itertools.pairwise(corners):
        if accuracy <= b.accuracy:
            return a.tokens + (accuracy - a.accuracy) / _slope(a, b)
    return math.nan


# --- bed S: the law is known ------------------------------------------------------------------------------------------


def checking_points(rank_law: Sequence[float], check_tokens: float, guess_tokens: float = 4.0) -> list[Point]:
    """What at most k checks reach, k = 0..N-1, where the right option's rank is drawn from a law.

    With F(j) the chance of a rank among the first j, accuracy is F(k + 1) and the mean number of checks is
    sum_{j < k} (1 - F(j)): an option is checked where none before it was right.

    Args:
        rank_law: p_N, summing to 1.
        check_tokens: of a check, on average.
        guess_tokens: of a completion without a check.
    """
    chances = [sum(rank_law[:j]) for j in range(len(rank_law) + 1)]
    return [
        Point(chances[k + 1], guess_tokens + check_tokens * sum(1 - chances[j] for j in range(k)), k)
        for k in range(len(rank_law))
    ]


def best_checks(rank_law: Sequence[float], check_price: float) -> int:
    """Checks of the best policy where a check costs `check_price` = lambda * its tokens, by backward induction.

    With h_k the chance that the next option is right when the first k are not, and V_{N-1} = 1 as the last is certain:

        V_k = max(h_k, -check_price + h_k + (1 - h_k) V_{k+1})

    so that it checks at k as long as (1 - h_k) V_{k+1} > check_price. It stops at the first k where that fails.
    """
    n = len(rank_law)
    hazards = [rank_law[k] / left if (left := sum(rank_law[k:])) > 0 else 1.0 for k in range(n)]
    value, checks = 1.0, n - 1
    for k in range(n - 2, -1, -1):
        gain = (1 - hazards[k]) * value
        if gain > check_price:
            value = hazards[k] + gain - check_price
        else:
            value, checks = hazards[k], k
    return checks


# --- areas ------------------------------------------------------------------------------------------------------------


def reg(
    budgets: Sequence[float] | np.ndarray,
    frontier: Sequence[float] | np.ndarray,
    reached: Sequence[float] | np.ndarray,
) -> float:
    """Mean gap to the frontier over token budgets: the trapezoid area between the two curves over the budgets' width.

    Reasoning efficiency gap (arXiv 2506.07104; this definition is the project's). Gaps are not clamped, so a curve
    above its frontier has a negative one. Budgets 0, 100, 300, frontier .1, .3, .4 and reached .1, .2, .35 give .0667.

    Raises:
        ValueError: fewer than two budgets, or they do not rise.
    """
    if len(budgets) < 2 or (np.diff(budgets) <= 0).any():
        raise ValueError(f"budgets={list(budgets)}: give two or more, rising")
    gaps = np.asarray(frontier) - np.asarray(reached)
    return float(np.trapezoid(gaps, budgets) / (budgets[-1] - budgets[0]))


def empirical(entries: Sequence[Point]) -> Frontier:
    """The frontier of compared entries, where a task's own is not known: their Pareto set and its hull."""
    pure = pareto(entries)
    return Frontier(tuple(pure), tuple(hull(pure)))
