"""Entries against a frontier as rows of text: regret, slices by level, and what the policies do; for page and Markdown.

An entry is a dict with `against`, `slices` and `behaviour`, as `concise_rl.evaluation.tradeoff.Tradeoff` has them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from concise_rl.evaluation.tradeoff import KNOWN, Tradeoff

Entries = Mapping[str, Mapping[str, Any]]
Table = list[list[str]]

DISTANCES = {"below": "below, points", "beyond": "beyond, tokens", "budget_gap": "gap over budgets, points"}


def regret_table(entries: Entries, unranked: Collection[str] = ()) -> Table:
    """Regret at each price, its rank where three or more are ranked, and the distances to the frontier.

    Args:
        entries: of the same prices.
        unranked: names of those that are shown without a rank, such as the model before training.
    """
    prices = list(next(iter(entries.values()))["against"]["regret"])
    regrets = {name: [entry["against"]["regret"][price] for price in prices] for name, entry in entries.items()}
    ranked = [name for name in entries if name not in unranked]
    places = [sorted(regrets[name][column]["regret"] for name in ranked) for column in range(len(prices))]
    ranks = len(ranked) > 2
    heads = [f"regret at {price}, points" for price in prices]
    rows = [["", *heads, *([f"rank at {price}" for price in prices] if ranks else []), *DISTANCES.values()]]
    for name, entry in entries.items():
        cells = [with_interval(found, "regret") for found in regrets[name]]
        if ranks and name in ranked:
            cells += [str(p.index(r["regret"]) + 1) for p, r in zip(places, regrets[name], strict=True)]
        elif ranks:
            cells += [""] * len(prices)
        rows.append([name, *cells, *(with_interval(entry["against"], key) for key in DISTANCES)])
    return rows


def slice_table(entries: Entries) -> Table:
    """Accuracy and tokens by level, on the hard half and on the traps; empty where the problems have no slices."""
    names = list(next(iter(entries.values()))["slices"])
    if not names:
        return []
    rows = [["accuracy, % @ tokens", *names]]
    for entry, found in entries.items():
        own = [found["slices"].get(name) for name in names]  # an entry may have been evaluated at other levels
        rows.append([entry, *(f"{100 * s['accuracy']:.1f} @ {s['mean_tokens']:.1f}" if s else "" for s in own)])
    return rows


def behaviour_table(entries: Entries) -> Table:
    """What the policies do by level (composition) and how well (skill); empty where the bed is none that tells."""
    found = {name: entry["behaviour"] for name, entry in entries.items() if entry.get("behaviour")}
    if not found:
        return []
    first = next(iter(found.values()))
    heads, cells = _merging(first) if "law_accuracy" in first else _checking(first)
    texts = {name: ["–" if value is None else f"{value:.1f}" for value in cells(own)] for name, own in found.items()}
    return [["", *heads], *([name, *own] for name, own in texts.items())]


Cells = Callable[[Mapping[str, Any]], list[float | None]]
MERGES = ("1", "2", "3")


def _merging(first: Mapping[str, Any]) -> tuple[list[str], Cells]:
    levels = list(first["levels"])

    def cells(found: Mapping[str, Any]) -> list[float | None]:
        errors = [found["skill"].get(merged, {}).get("error") for merged in MERGES]
        composition = [found["levels"][level]["totals"] for level in levels]
        return [*composition, *(_percent(error) for error in errors), _percent(found["law_accuracy"])]

    errors = [f"error merging {merged}, %" for merged in MERGES]
    return [*(f"totals, n={level}" for level in levels), *errors, "accuracy by the law, %"], cells


def _checking(first: Mapping[str, Any]) -> tuple[list[str], Cells]:
    levels = list(first["levels"])

    def cells(found: Mapping[str, Any]) -> list[float | None]:
        checks = [found["levels"][level]["checks"] for level in levels]
        return [*checks, found["levels"][levels[-1]]["waste"], _percent(found["skill"]["sound"])]

    return [*(f"checks, n={level}" for level in levels), f"wasted checks, n={levels[-1]}", "checks right, %"], cells


def tradeoff_tables(found: Tradeoff, unranked: Collection[str] = ()) -> dict[str, Table]:
    """Heading to table, of those that have something to say."""
    tables = {
        f"Against the {found.name}": regret_table(found.entries, unranked),
        "By level, on the hard half, on the traps": slice_table(found.entries),
        "What the policies do, and how well": behaviour_table(found.entries),
    }
    return {heading: table for heading, table in tables.items() if table}


def frontier_sentence(found: Tradeoff) -> str:
    """What the regret is measured from: `best possible: 97.1 % right at 12.1 tokens where a token costs 0.01; ...`."""
    best = [(price, found.frontier.best(price)) for price in found.prices]
    points = (f"{100 * p.accuracy:.1f} % right at {p.tokens:.1f} tokens where a token costs {x:g}" for x, p in best)
    whose = "" if found.name == KNOWN else ", which are not the best that is possible"
    return f"{found.name}{whose}: {'; '.join(points)}"


def regret_sentence(found: Tradeoff) -> str:
    """Regret of each entry: `regret at 0.003, 0.01, 0.03 a token: 18.8, 17.7, 14.9 points before; 9.2, ... after`."""
    said = []
    for name, entry in found.entries.items():
        regrets = (f"{own['regret']:.1f}" for own in entry["against"]["regret"].values())
        said.append(f"{', '.join(regrets)} points {name}")
    return f"regret at {', '.join(f'{price:g}' for price in found.prices)} a token: {'; '.join(said)}"


def with_interval(row: Mapping[str, Any], key: str) -> str:
    """`value [low, high]` to one digit; a dash where it is not defined."""
    if row.get(key) is None:
        return "–"
    interval = row.get(f"{key}_interval")
    return f"{row[key]:.1f}" + (f" [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else "")


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
