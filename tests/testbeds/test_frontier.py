"""The best that any policy can do, against worked numbers and against brute force."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from concise_rl.testbeds.frontier import (
    Frontier,
    Point,
    accuracy_at,
    best_checks,
    checking_points,
    combined,
    empirical,
    hull,
    pareto,
    reg,
    tokens_at,
)
from concise_rl.testbeds.which_sum import RANK_LAW

CHECK = 12.4
"""Tokens of a check on this bed, nearly."""


def bed_s() -> Frontier:
    return Frontier.of([checking_points(law, CHECK) for law in RANK_LAW.values()])


def test_the_corners_of_bed_s():
    corners = [(p.policy, round(100 * p.accuracy, 2), round(p.tokens, 1)) for p in bed_s().mixtures]
    assert corners == [
        ((0, 0, 0, 0), 76.5, 4.0),
        ((0, 0, 0, 4), 90.25, 10.5),
        ((0, 0, 3, 4), 97.75, 15.0),
        ((0, 2, 3, 4), 99.75, 18.4),
        ((1, 2, 3, 4), 100.0, 21.5),
    ]


def test_checks_and_accuracy_of_a_law_by_hand():
    none, one, two = checking_points((0.5, 0.3, 0.2), check_tokens=10, guess_tokens=4)
    assert (none.accuracy, none.tokens) == (0.5, 4)
    assert (one.accuracy, one.tokens) == (pytest.approx(0.8), 14)
    assert (two.accuracy, two.tokens) == (pytest.approx(1.0), pytest.approx(4 + 10 * 1.5))


def test_checking_as_simulated():
    rng = random.Random(0)
    law = (0.5, 0.3, 0.2)
    ranks = rng.choices(range(3), law, k=40000)
    for k, point in enumerate(checking_points(law, 1.0, 0.0)):
        assert sum(r <= k for r in ranks) / len(ranks) == pytest.approx(point.accuracy, abs=0.01)
        assert sum(min(k, r + 1) for r in ranks) / len(ranks) == pytest.approx(point.tokens, abs=0.02)


def test_backward_induction_finds_the_best_number_of_checks():
    rng = random.Random(0)
    for _ in range(500):
        weights = [rng.random() for _ in range(rng.randint(2, 6))]
        law = [w / sum(weights) for w in weights]
        price = 0.5 * rng.random()
        values = [point.value(price) for point in checking_points(law, 1.0, 0.0)]
        assert values[best_checks(law, price)] == pytest.approx(max(values))
    assert best_checks((0.5, 0.5, 0.0), 0.1) == 1  # a rank that never occurs


def test_a_price_chooses_the_corner_that_backward_induction_chooses():
    for price in (0.001, 0.003, 0.01, 0.02, 0.03, 0.1):
        chosen = tuple(best_checks(law, price * CHECK) for law in RANK_LAW.values())
        assert bed_s().best(price).policy == chosen
    assert [bed_s().best(price).policy for price in (0.003, 0.01, 0.03)] == [(0, 2, 3, 4), (0, 0, 3, 4), (0, 0, 0, 0)]


def test_pareto_and_hull_by_hand():
    points = [Point(0.5, 4), Point(0.6, 6), Point(0.9, 8), Point(0.55, 6), Point(0.9, 9), Point(0.95, 20)]
    assert [(p.accuracy, p.tokens) for p in pareto(points)] == [(0.5, 4), (0.6, 6), (0.9, 8), (0.95, 20)]
    assert [(p.accuracy, p.tokens) for p in hull(points)] == [(0.5, 4), (0.9, 8), (0.95, 20)]
    assert accuracy_at(hull(points), 6) == pytest.approx(0.7)
    assert math.isnan(accuracy_at(hull(points), 3.9))
    assert accuracy_at(hull(points), 30) == 0.95
    assert tokens_at(hull(points), 0.7) == pytest.approx(6)
    assert tokens_at(hull(points), 0.1) == 4
    assert math.isnan(tokens_at(hull(points), 0.96))


def test_combined_keeps_what_brute_force_keeps():
    rng = random.Random(1)
    levels = [[Point(rng.random(), 10 * rng.random(), i) for i in range(6)] for _ in range(3)]
    shares = (0.5, 0.3, 0.2)
    every = [
        Point(
            sum(w * p.accuracy for w, p in zip(shares, chosen, strict=True)),
            sum(w * p.tokens for w, p in zip(shares, chosen, strict=True)),
            tuple(p.policy for p in chosen),
        )
        for chosen in itertools.product(*levels)
    ]
    assert [p.policy for p in combined(levels, shares)] == [p.policy for p in pareto(every)]
    with pytest.raises(ValueError, match="at least one point"):
        combined([levels[0], []])


def test_regret_and_budgets_of_a_frontier():
    frontier = bed_s()
    for corner in frontier.mixtures:
        assert min(frontier.regret(corner.accuracy, corner.tokens, price / 10000) for price in range(1, 600)) < 1e-12
    assert frontier.regret(0.765, 4.0, 0.01) == pytest.approx(0.9775 - 0.15036 - (0.765 - 0.04), abs=1e-3)
    assert frontier.accuracy_at(7.255) == pytest.approx((0.765 + 0.9025) / 2)
    # 0003 is a pure policy below the chord: within its tokens it is the best that draws no lots.
    assert frontier.pure_accuracy_at(10.0) == pytest.approx((0.99 + 0.92 + 0.70 + 0.92) / 4)
    assert frontier.pure_accuracy_at(10.0) < frontier.accuracy_at(10.0)
    assert math.isnan(frontier.pure_accuracy_at(3.0))
    assert frontier.tokens_at(frontier.accuracy_at(12.0)) == pytest.approx(12.0)


def test_a_mixture_draws_between_the_two_corners_about_its_budget():
    frontier = bed_s()
    drawn = frontier.mixture_at(13.0)
    assert list(drawn) == [(0, 0, 0, 4), (0, 0, 3, 4)]
    points = {point.policy: point for point in frontier.mixtures}
    assert sum(share * points[policy].tokens for policy, share in drawn.items()) == pytest.approx(13.0)
    accuracy = sum(share * points[policy].accuracy for policy, share in drawn.items())
    assert accuracy == pytest.approx(frontier.accuracy_at(13.0))
    assert frontier.mixture_at(4.0) == {(0, 0, 0, 0): 1.0}
    assert frontier.mixture_at(99.0) == {(1, 2, 3, 4): 1.0}
    with pytest.raises(ValueError, match=r"tokens=3: the cheapest policy takes 4\.0"):
        frontier.mixture_at(3)


def test_the_gap_is_the_area_between_frontier_and_curve():
    frontier = empirical([Point(0.2, 4), Point(0.6, 8), Point(0.8, 12)])
    corners = [4, 8, 12], [0.2, 0.6, 0.8]
    assert frontier.gap(*corners) == pytest.approx(0)
    # It stops at 8 tokens: what is left is a triangle of 4 tokens by .2, over a width of 8.
    assert frontier.gap([4, 8], [0.2, 0.6]) == pytest.approx(0.2 * 4 / 2 / 8)
    # From nothing, straight to .6 at 8 tokens: .1 above the frontier at 4, on it at 8, .2 below at 12.
    assert frontier.gap([8], [0.6]) == pytest.approx((-0.1 * 4 / 2 + 0.2 * 4 / 2) / 8)
    assert math.isnan(empirical([Point(0.2, 4)]).gap([4], [0.2]))


def test_compared_entries_are_a_frontier_where_none_is_known():
    found = empirical([Point(0.5, 4, "a"), Point(0.4, 5, "b"), Point(0.9, 9, "c")])
    assert [p.policy for p in found.mixtures] == ["a", "c"]


def test_reg_by_hand():
    assert reg([0, 100, 300], [0.1, 0.3, 0.4], [0.1, 0.2, 0.35]) == pytest.approx(20 / 300)
    assert reg([0, 100], [0.1, 0.1], [0.2, 0.2]) == pytest.approx(-0.1)
    with pytest.raises(ValueError, match="rising"):
        reg([100, 0], [0.1, 0.1], [0.1, 0.1])
