"""Rewards that look at the whole step, or at the past: a run of steps beside its restatement in plain Python."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import pytest

from concise_rl.methods import load_method
from tests.methods.restated.groups import LIMIT, Group, Row, batch_of, groups_of, pd, rate, right, scorable, sg

Step = Callable[[list[Group], dict[str, Any]], list[float]]


def flat(groups: list[Group], reward: Callable[[Row, Group], float]) -> list[float]:
    return [reward(row, group) if row.ok else row.r for group in groups for row in group]


def known_rows(groups: list[Group]) -> list[Row]:
    return [row for group in groups for row in scorable(group)]


def top_lambda(groups: list[Group], state: dict[str, Any]) -> list[float]:
    order = sorted(range(len(groups)), key=lambda p: -rate(groups[p]))
    top = set(order[: max(1, math.ceil(0.2 * len(groups) - 1e-12))])

    def reward(row: Row, group: Group) -> float:
        if next(p for p, other in enumerate(groups) if other is group) not in top or not row.c:
            return row.r
        lengths = [x.L for x in right(group)]
        return row.r * (1 - 0.6 * sg((row.L - statistics.fmean(lengths)) / (pd(lengths) + 1e-7)))

    return flat(groups, reward)


def deep_compress(groups: list[Group], state: dict[str, Any]) -> list[float]:
    P_b = state.setdefault("P_b", 1.0)

    def reward(row: Row, group: Group) -> float:
        if not row.c:
            return row.r
        lengths = [x.L for x in scorable(group)]
        z = (row.L - statistics.fmean(lengths)) / (pd(lengths) + 1e-6)
        return row.r + 0.2 * sg(-(rate(group) - P_b) * z)

    found = flat(groups, reward)
    if known_rows(groups):
        state["P_b"] = 0.99 * P_b + 0.01 * rate(known_rows(groups))
    return found


def lazy(groups: list[Group], state: dict[str, Any]) -> list[float]:
    known = known_rows(groups)
    accuracy = rate(known)
    if known:
        state["best"] = max(state.get("best", 0.0), accuracy)

    def reward(row: Row, group: Group) -> float:
        if not row.c or accuracy < state.get("best", 0.0) - 0.05:
            return row.r
        lengths = [x.L for x in right(group)]
        low, high = min(lengths), max(lengths)
        return row.r + (0.5 if row.L <= low + 100 else 0.5 - (row.L - low) / (high - low + 1e-5))

    return flat(groups, reward)


def leash(groups: list[Group], state: dict[str, Any]) -> list[float]:
    lam = state.setdefault("lam", 0.1)
    found = flat(groups, lambda row, group: min(max(2 * row.c - 1 - lam * max(0, row.L / 800 - 1), -1), 1))
    known = known_rows(groups)
    if known:
        state["lam"] = min(max(lam + 0.005 * (statistics.fmean(row.L for row in known) / 800 - 1), 0), 1)
    return found


def acoer(groups: list[Group], state: dict[str, Any]) -> list[float]:
    """With span 4, window 3, warmup 5, drop 0.01, B0 and min_budget 8000 and 400 characters: 2000 and 100 tokens."""
    own = {"alpha": 0.02, "B": 2000.0, "acc": None, "len": None, "past": [], "step": 0} | state
    state.update(own)
    alpha, B = own["alpha"], own["B"]
    found = flat(
        groups,
        lambda row, group: row.r + row.c * alpha * math.log(1 + 5 * (1 - min(row.K / B, 1))) / math.log(6),
    )
    known = known_rows(groups)
    if known:
        d = 2 / (4 + 1)
        state["acc"] = rate(known) if own["acc"] is None else (1 - d) * own["acc"] + d * rate(known)
        thought = [row.K for row in known if row.c]
        if thought:
            now = statistics.fmean(thought)
            state["len"] = now if own["len"] is None else (1 - d) * own["len"] + d * now
        state["past"] = [*own["past"], state["acc"]]
        if own["step"] >= 5 and len(state["past"]) >= 3:
            fallen = state["past"][-3] - state["acc"] > 0.01
            state["alpha"] = max(0.01, alpha * 0.95) if fallen else min(0.5, alpha * 1.02)
            if state["len"]:
                state["B"] = max(100.0, 0.85 * state["len"])
    state["step"] += 1
    return found


def laser_d(groups: list[Group], state: dict[str, Any]) -> list[float]:
    """Updates every 2 steps from at most 7 groups, on the grid 100, 200, ... below the limit."""
    targets = state.setdefault("targets", {"high": 900, "medium": 900, "low": 900})

    def target(group: Group) -> int:
        hits, n = len(right(group)), len(scorable(group))
        return targets["high" if 3 * hits >= 2 * n else "medium" if 3 * hits >= n else "low"]

    found = flat(groups, lambda row, group: row.r + 0.5 * (row.c and row.L <= target(group)))
    seen = state.setdefault("seen", [])
    seen += [scorable(group) for group in groups if scorable(group)]
    state["step"] = state.get("step", 0) + 1
    if state["step"] % 2 == 0:
        bands: dict[str, list[int]] = {"low": [], "medium": [], "high": []}
        for group in seen[-7:]:
            hits, n = sum(row.c for row in group), len(group)
            band = "low" if 3 * hits <= n else "medium" if 3 * hits <= 2 * n else "high"
            bands[band] += [row.L for row in group]
        n_min = {"high": 2 * 6 // 3, "medium": 6 // 3, "low": 1}
        for band, lengths in bands.items():
            fits = [
                t
                for t in range(100, LIMIT, 100)
                if lengths and sum(L <= t for L in lengths) * n_min[band] // len(lengths) >= 1
            ]
            targets[band] = fits[0] if fits else LIMIT
        seen.clear()
    return found


STEPS: dict[str, tuple[str, dict[str, Any], Step]] = {
    "grpo_lambda": ("grpo_lambda", {}, top_lambda),
    "deep_compress": ("deep_compress", {}, deep_compress),
    "short_rl": ("short_rl", {}, lazy),
    "leash": ("leash", {"T": 800}, leash),
    "acoer": ("acoer", {"span": 4, "window": 3, "warmup": 5, "drop": 0.01, "B0": 8000, "min_budget": 400}, acoer),
    "laser_d": (
        "laser_d",
        {"monitor_freq": 2, "monitor_groups": 7, "lower": 100, "grid_step": 100, "target": 900},
        laser_d,
    ),
}


@pytest.mark.parametrize("case", STEPS)
@pytest.mark.parametrize("seed", range(5))
def test_a_run_of_rewards_is_its_restatement(case, seed):
    name, fields, restated = STEPS[case]
    method = load_method(name, **fields)
    states, own = method.init(), {}
    for step in range(24):
        groups = groups_of(100 * seed + step)
        result, states = method.apply(batch_of(groups, step), states)
        assert result.reward.tolist() == pytest.approx(restated(groups, own), abs=1e-9), f"step {step}"
