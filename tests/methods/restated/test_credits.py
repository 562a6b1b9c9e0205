"""Credits beside their restatement; rows that are not scorable have none, and groups of one have none."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import pytest

from concise_rl.methods import load_method
from tests.methods.restated.groups import Group, Row, batch_of, groups_of, pd, percentile, rate, right, scorable, sd, sg
from tests.methods.restated.test_rewards import lead


def credited(groups: list[Group], credit: Callable[[Row, Group], float]) -> list[float]:
    return [credit(row, group) if row.ok and len(scorable(group)) > 1 else 0.0 for group in groups for row in group]


def centred(row: Row, group: Group) -> float:
    return row.r - statistics.fmean(x.r for x in scorable(group))


def lead_credit(groups: list[Group], step: int) -> list[float]:
    def w(x: float) -> float:
        return 0.4 + 1.1 / (1 + math.exp(10 * (x - 0.75)))

    def credit(row: Row, group: Group) -> float:
        rewards = [lead(x, group) for x in scorable(group)]
        if max(rewards) == min(rewards):
            return 0.0
        a = (lead(row, group) - statistics.fmean(rewards)) / (sd(rewards) + 1e-6)
        q = statistics.fmean(r > 0 for r in rewards)
        return a * w(q if a > 0 else 1 - q)

    return credited(groups, credit)


def ddca(groups: list[Group], step: int) -> list[float]:
    def credit(row: Row, group: Group) -> float:
        known, own = scorable(group), right(group)
        hits = [x.c for x in known]
        accuracy = (row.c - statistics.fmean(hits)) / (pd(hits) + 1e-8)
        if not row.c:
            return accuracy
        lengths = [x.L for x in own]
        s = [sg((L - statistics.fmean(lengths)) / (pd(lengths) + 1e-8)) for L in lengths]
        mine = sg((row.L - statistics.fmean(lengths)) / (pd(lengths) + 1e-8))
        return accuracy + 0.2 * len(own) / len(known) * (statistics.fmean(s) - mine)

    return credited(groups, credit)


def ddca_rloo(groups: list[Group], step: int) -> list[float]:
    def credit(row: Row, group: Group) -> float:
        known, own = scorable(group), right(group)
        accuracy = row.c - statistics.fmean(x.c for x in known if x is not row)
        if not row.c or len(own) == 1:
            return accuracy
        lengths = [x.L for x in own]
        s = {id(x): sg((x.L - statistics.fmean(lengths)) / (pd(lengths) + 1e-8)) for x in own}
        others = statistics.fmean(s[id(x)] for x in own if x is not row)
        return accuracy + 0.2 * len(own) / len(known) * (others - s[id(row)])

    return credited(groups, credit)


def max_rl(groups: list[Group], step: int) -> list[float]:
    def credit(row: Row, group: Group) -> float:
        mean = statistics.fmean(x.r for x in scorable(group))
        return (row.r - mean) / mean if mean > 0 else 0.0

    return credited(groups, credit)


def qglas(groups: list[Group], step: int) -> list[float]:
    def credit(row: Row, group: Group) -> float:
        a = centred(row, group)
        positive = [x for x in scorable(group) if centred(x, group) > 0]
        if a <= 0:
            return a
        reference = statistics.fmean(x.L for x in positive)
        h = min(max((reference - row.L) / (reference + 1e-8), 0), 0.5) / 0.5
        rewards = [x.r for x in scorable(group)]
        s_all = max(rewards) - percentile(rewards, 0.25)
        s_plus = max(x.r for x in positive) - min(x.r for x in positive)
        beta = 0.3 + 0.3 * (1 - min(max(s_plus / (s_all + 1e-8), 0), 1))
        return a + s_all * beta * h

    return credited(groups, credit)


def vector_cost(groups: list[Group], step: int) -> list[float]:
    def credit(row: Row, group: Group) -> float:
        known = scorable(group)
        sizes = [
            (0.25, lambda x: x.L),
            (0.1, lambda x: x.parts["input_tokens"]),
            (0.1, lambda x: x.parts["turns"]),
        ]
        price = max(statistics.fmean(x.r for x in known), 0)

        def score(x: Row) -> float:
            return x.r - price * sum(w * size(x) / max(1, *(size(y) for y in known)) for w, size in sizes)

        return score(row) - statistics.fmean(score(x) for x in known)

    return credited(groups, credit)


def diet(groups: list[Group], step: int) -> list[float]:
    def n(value: float, values: list[float]) -> float:
        return (value - statistics.fmean(values)) / (sd(values) + 1e-6) if max(values) > min(values) else 0.0

    def credit(row: Row, group: Group) -> float:
        known = scorable(group)
        excess = [max(x.L - 600, 0) for x in known]

        def s(x: Row) -> float:
            spread = pd(excess)
            return -(max(x.L - 600, 0) - statistics.fmean(excess)) / spread if x.c and spread else 0.0

        w = 0.5 * rate(group) * (math.cos(math.pi * min(step, 100) / 100) + 1) / 2
        return n(row.c, [x.c for x in known]) + w * n(s(row), [s(x) for x in known])

    return credited(groups, credit)


def dler(groups: list[Group], step: int, by_tokens: bool = False) -> list[float]:
    def reward(x: Row) -> float:
        return x.c * (0.1 if x.cut else 1.0)

    def a(row: Row, group: Group) -> float:
        known = scorable(group)
        return reward(row) - (statistics.fmean(reward(x) for x in known) if len(known) > 1 else 0.0)  # as released

    pairs = [(a(row, group), row.L) for group in groups for row in scorable(group)]
    values = [value for value, L in pairs for _ in range(L if by_tokens else 1)]
    scale = math.sqrt(statistics.variance(values) + 1e-8) if len(values) > 1 else 1.0
    varies = bool(values) and max(values) > min(values)
    mean = statistics.fmean(values) if values else 0.0
    return [
        ((a(row, group) - mean) / scale if varies else 0.0) + 0.1 * row.c if row.ok else 0.0
        for group in groups
        for row in group
    ]


def gfpo(groups: list[Group], step: int) -> list[float]:
    def credit(row: Row, group: Group) -> float:
        kept = sorted(scorable(group), key=lambda x: x.L)[:3]
        rewards = [x.r for x in kept]
        if not any(row is x for x in kept) or max(rewards) == min(rewards):
            return 0.0
        return (row.r - statistics.fmean(rewards)) / pd(rewards)

    return credited(groups, credit)


def gfpo_efficiency(groups: list[Group], step: int) -> list[float]:
    def credit(row: Row, group: Group) -> float:
        kept = sorted(scorable(group), key=lambda x: -x.r / max(1, x.L))[:3]
        rewards = [x.r for x in kept]
        if not any(row is x for x in kept) or max(rewards) == min(rewards):
            return 0.0
        return (row.r - statistics.fmean(rewards)) / pd(rewards)

    return credited(groups, credit)


Credit = Callable[[list[Group], int], list[float]]

CREDITS: dict[str, tuple[str, dict[str, Any], Credit, tuple[str, ...], dict[str, Any]]] = {
    "grpo_lead": ("grpo_lead", {}, lead_credit, ("format_error",), {}),
    "ddca": ("ddca", {}, ddca, (), {}),
    "ddca-rloo": ("ddca", {"kind": "rloo"}, ddca_rloo, (), {}),
    "maxrl": ("maxrl", {}, max_rl, (), {}),
    "qglas": ("qglas", {}, qglas, (), {}),
    "prime_rl_linear": ("prime_rl_linear", {}, vector_cost, ("input_tokens", "turns"), {}),
    "diet": ("diet", {"column": True}, diet, (), {"target": 600}),
    "dler": ("dler", {}, dler, (), {}),
    "dler-code": ("dler", {"variant": "code"}, lambda groups, step: dler(groups, step, True), (), {}),
    "gfpo": ("gfpo", {"k": 3}, gfpo, (), {}),
    "gfpo-efficiency": ("gfpo", {"k": 3, "metric": "token_efficiency"}, gfpo_efficiency, (), {}),
}


@pytest.mark.parametrize("case", CREDITS)
def test_a_credit_is_its_restatement(case):
    name, fields, restated, parts, columns = CREDITS[case]
    method = load_method(name, **fields)
    for seed in range(40):
        groups, step = groups_of(seed, parts=parts), 7 * seed
        batch = batch_of(groups, step, **{column: [value] * len(groups) for column, value in columns.items()})
        result, _ = method.apply(batch, method.init())
        assert result.credit.tolist() == pytest.approx(restated(groups, step), abs=1e-8), f"seed {seed}"
