"""A comparison's part on what tokens are worth: the frontier in the front's picture, regret over prices, and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from concise_rl.evaluation.tradeoff import COMPARED, Tradeoff, tradeoff
from concise_rl.reporting.compare.charts import Chart, Series
from concise_rl.reporting.compare.load import BEFORE, Entry
from concise_rl.reporting.compare.pictures import looks
from concise_rl.reporting.compare.results import Result
from concise_rl.reporting.html import text_html
from concise_rl.reporting.tradeoff import Table, frontier_sentence, tradeoff_tables

CURVE_POINTS = 60


def tradeoffs(found: Mapping[str, Sequence[Result]], prices: Sequence[float] | None) -> dict[str, Tradeoff]:
    """Benchmark to its entries against the frontier."""
    return {name: tradeoff({row.entry: row.evaluation.rows for row in rows}, prices) for name, rows in found.items()}


def with_tradeoffs(
    pictures: Mapping[str, Sequence[Chart]],
    entries: Sequence[Entry],
    found: Mapping[str, Sequence[Result]],
    held: Mapping[str, Tradeoff],
) -> dict[str, list[Chart]]:
    """The charts of each benchmark, the frontier in the first of them and regret as the second."""
    return {
        name: [with_frontier(front, held[name]), regret_chart(entries, found[name], held[name], front), *others]
        for name, (front, *others) in pictures.items()
    }


def with_frontier(front: Chart, held: Tradeoff) -> Chart:
    """The front's chart with the line of what mixtures of policies reach at best."""
    line = Series(
        held.name if held.name != COMPARED else "mixtures of the compared",
        [point.tokens for point in held.frontier.mixtures],
        [100 * point.accuracy for point in held.frontier.mixtures],
    )
    return replace(front, series=[line, *front.series], note=f"{front.note} The line is {_meaning(held)}.")


def _meaning(held: Tradeoff) -> str:
    if held.name == COMPARED:
        return "what drawing between two of the entries reaches"
    return "the best that any policy can reach with the arithmetic of the model before training"


def regret_chart(entries: Sequence[Entry], rows: Sequence[Result], held: Tradeoff, front: Chart) -> Chart:
    """Regret against the price of a token, from a third of the lowest price to three times the highest."""
    positive = [price for price in held.prices if price > 0] or [1.0]
    prices = np.geomspace(min(positive) / 3, 3 * max(positive), CURVE_POINTS).tolist()
    seen_as = looks(entries)
    series = []
    for row in rows:
        reached = float(row.summary["accuracy"]), float(row.summary["mean_tokens"])
        regrets = [100 * held.frontier.regret(*reached, price) for price in prices]
        series.append(
            Series(row.entry, prices, regrets, seen_as[row.run].style, run=row.run, group=seen_as[row.run].group)
        )
    return Chart(
        front.stem.replace("accuracy_tokens", "regret"),
        front.title.replace("Accuracy against tokens", "Regret at a price of a token"),
        "price of a token, in right answers",
        "regret, points",
        series,
        note=f"Value left against the {held.name}; at 0.01, a hundred tokens cost one right answer.",
        log_x=True,
    )


def tradeoff_html(held: Tradeoff, table_html: Callable[[Table], str]) -> str:
    """The tables with their headings and what they are measured from."""
    tables = tradeoff_tables(held, (BEFORE,))
    parts = [f"<h3>{text_html(heading)}</h3>{table_html(table)}" for heading, table in tables.items()]
    return f"{parts[0]}<p class='note'>{text_html(frontier_sentence(held))}</p>{''.join(parts[1:])}"
