"""Each method restated in plain Python, a row at a time, and held to the component on random groups.

The groups hold ties, rows without a verdict, truncated right rows, groups of one scorable row, all right, all wrong,
and none scorable. A restatement shares no code with the component: lists and `statistics`, no tensors.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import pytest

from concise_rl.methods import load_method
from tests.methods.restated.groups import (
    LIMIT,
    Group,
    Row,
    batch_of,
    groups_of,
    pd,
    percentile,
    rate,
    right,
    scorable,
    sd,
    sg,
)


def arora(row: Row, group: Group, alpha: float = 0.1) -> float:
    if not row.c:
        return row.r
    if row.cut:
        return 0.0
    lengths = [x.L for x in right(group) if not x.cut]
    return row.r * (1 - alpha * sg((row.L - statistics.fmean(lengths)) / (pd(lengths) + 1e-7)))


def l1_exact(row: Row, group: Group) -> float:
    return row.r - 3e-4 * abs(700 - row.L)


def l1_max(row: Row, group: Group) -> float:
    return row.r * min(max(3e-4 * (700 - row.L) + 0.5, 0), 1)


def l1_max_code(row: Row, group: Group) -> float:
    return row.r * (min(max(0.01 * (700 - row.L), -1), 1) + 1) / 2


def alp(row: Row, group: Group) -> float:
    return row.r - 0.05 * max(rate(group), 1 / len(group)) * row.L / LIMIT


def laser(row: Row, group: Group) -> float:
    return row.r + 0.5 * (row.c and row.L <= 900)


def laser_hybrid(row: Row, group: Group) -> float:
    return row.r + row.c * (0.5 if row.L <= 900 else -0.5)


def shorter_better(row: Row, group: Group) -> float:
    lengths = [x.L for x in right(group)]
    best = min(lengths) if lengths else statistics.fmean(x.L for x in scorable(group))
    return 2 * row.c - 0.001 * abs(row.L - best)


def lead(row: Row, group: Group) -> float:
    if row.parts.get("format_error"):
        return 0.0
    if not row.c:
        return -1.0
    lengths = [x.L for x in right(group) if not x.parts.get("format_error")]  # an answer without a format is none
    spread = 1.0 if len(lengths) == 1 else sd(lengths)
    return math.exp(-0.05 * (row.L - statistics.fmean(lengths)) / (spread + 1e-6))


def arlcp(row: Row, group: Group) -> float:
    if not row.c:
        return row.r
    R = row.parts["reflections"]
    a1 = 0.05 if R <= 40 else 0.10 if R <= 80 else 0.15

    def z(value: float, values: list[float]) -> float:
        return (value - statistics.fmean(values)) / ((1.0 if len(values) == 1 else sd(values)) + 1e-6)

    own = right(group)
    tax_reflection = a1 * sg(z(R, [x.parts["reflections"] for x in own]))
    return row.r - tax_reflection - (0.2 - a1) * sg(z(row.L, [x.L for x in own]))


def gr3(row: Row, group: Group) -> float:
    return row.r / (1 + 0.3 * row.L / statistics.fmean(x.L for x in scorable(group)))


def dast(row: Row, group: Group) -> float:
    p, own = rate(group), right(group)
    target = (p * statistics.fmean(x.L for x in own) if own else 0.0) + (1 - p) * LIMIT
    lam = (row.L - target) / target
    return max(0.5 - 0.5 * lam, 0.1) if row.c else min(0.9 * lam - 0.1, -0.1)


def smart_thinker(row: Row, group: Group) -> float:
    known, own = scorable(group), right(group)
    if not row.c or len(own) == len(known):
        return row.r  # alpha is 0 in an all-right group
    lengths, lengths_C = [x.L for x in known], [x.L for x in own]
    mean, mean_C = statistics.fmean(lengths), statistics.fmean(lengths_C)
    v, v_C = statistics.pvariance(lengths), statistics.pvariance(lengths_C)
    low, high = min(lengths), max(lengths)
    if abs(v_C - v) < 1e-6:
        best = float(low if mean_C < mean else high)
    elif v_C > v:
        best = float(low)
    elif v_C == 0:
        best = mean_C  # what the fraction below is but for rounding
    else:
        best = min(max((v_C * mean - v * mean_C) / (v_C - v), low), high)
    over = [max(x.L - best, 0) * x.c for x in known]
    alpha = (1 - rate(group)) / (max(over) - statistics.fmean(over) + 1e-6)
    return row.r - alpha * max(row.L - best, 0)


def discounted(row: Row, group: Group) -> float:
    return 0.9999**row.K * row.r


def dr_saf(row: Row, group: Group) -> float:
    known, own = scorable(group), right(group)
    n, hits = len(known), len(own)
    middle = statistics.median([x.L for x in (own or known)])
    easy, hard = 20 * hits >= 19 * n, 10 * hits < 3 * n
    points = 0
    if easy and row.c and row.L <= middle:
        points += 5
    if hard and not row.c and row.L >= middle:
        points += 5
    label = row.parts["label"]
    points += (label != 0) + 2 * (label == (1 if easy else -1))
    return row.r + 0.01 * points


def triangle(row: Row, group: Group) -> float:
    B = 256 * 0.7 ** math.floor(230 / 100)
    tri = row.L / B if row.L <= B else 1 - (row.L - B) / B if row.L < 2 * B else 0.0
    return 0.6 * row.c + 0.3 * tri


def group_length(row: Row, group: Group) -> float:
    known = scorable(group)
    gate = percentile([x.r for x in known], 0.8)
    reward = row.r
    for size in (lambda x: x.K, lambda x: x.L - x.K):
        sizes = [size(x) for x in known]
        low, high = min(sizes), max(sizes)
        if len(known) > 1 and high > low:
            weights = [1 - (s - low) / (high - low) for s in sizes]
            reward += 0.5 * (1 - (size(row) - low) / (high - low) - statistics.fmean(weights))
        shortest = next(x for x in known if size(x) == low)
        if len(known) > 1 and row is shortest and row.r >= gate:
            reward += 0.5
    return reward


def effort(row: Row, group: Group) -> float:
    score = min(1, 0.1 * (1 - row.L / 15000))
    return row.r + row.r * max(score, 0) + min(score, 0)


def jet(row: Row, group: Group) -> float:
    lengths = [x.L for x in right(group)]
    reward = 0.9 * row.c + 0.1 * row.parts["format"]
    if row.c:
        reward += (max(lengths) - row.L) / (max(lengths) - min(lengths) + 1e-8) * 1.2 * 0.95 + 0.05
    return reward


REWARDS: dict[str, tuple[str, dict[str, Any], Callable[[Row, Group], float], tuple[str, ...], dict[str, Any]]] = {
    "arora": ("arora", {}, arora, (), {}),
    "l1_exact": ("l1_exact", {}, l1_exact, (), {"num_tokens": 700}),
    "l1_max": ("l1_max", {}, l1_max, (), {"num_tokens": 700}),
    "l1_max-code": ("l1_max", {"variant": "code", "alpha": 0.01}, l1_max_code, (), {"num_tokens": 700}),
    "alp": ("alp", {}, alp, (), {}),
    "laser": ("laser", {"target": 900}, laser, (), {}),
    "laser-hybrid": ("laser", {"target": 900, "kind": "hybrid"}, laser_hybrid, (), {}),
    "shorter_better": ("shorter_better", {}, shorter_better, (), {}),
    "grpo_lead": ("grpo_lead", {}, lead, ("format_error",), {}),
    "arlcp": ("arlcp", {}, arlcp, ("reflections",), {}),
    "gr3": ("gr3", {}, gr3, (), {}),
    "dast": ("dast", {}, dast, (), {}),
    "smart_thinker": ("smart_thinker", {}, smart_thinker, (), {}),
    "discounted": ("discounted", {}, discounted, (), {}),
    "dr_saf": ("dr_saf", {}, dr_saf, ("label",), {}),
    "train_long": ("train_long", {}, triangle, (), {}),
    "grlc": ("grlc", {}, group_length, (), {}),
    "effort": ("effort", {}, effort, (), {"low_effort": True}),
    "jet": ("jet", {}, jet, ("format",), {}),
}


@pytest.mark.parametrize("case", REWARDS)
def test_a_reward_is_its_restatement(case):
    name, fields, restated, parts, columns = REWARDS[case]
    method = load_method(name, **fields)
    for seed in range(40):
        groups = groups_of(seed, parts=parts)
        batch = batch_of(groups, 230, **{column: [value] * len(groups) for column, value in columns.items()})
        result, _ = method.apply(batch, method.init())
        expected = [restated(row, group) if row.ok else row.r for group in groups for row in group]
        assert result.reward.tolist() == pytest.approx(expected, abs=1e-9), f"seed {seed}"
