"""Records of policies that are known, on the test problems of the beds."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from benchmarks.cells import Cell
from benchmarks.stored import BEFORE, Record, problems
from concise_rl.evaluation import EvaluationRow
from concise_rl.evaluation.tradeoff import behaviour
from concise_rl.testbeds import running_total as m
from concise_rl.testbeds import which_sum
from concise_rl.verifiers import Exact

BED = "running_total"


def merging(n: int, merged: int) -> tuple[int, ...]:
    return (merged,) * (n // merged) + (n % merged,) * (n % merged > 0)


def composer(cell: Cell, merged: int) -> Record:
    """A policy of bed M that merges so many operations into each total, and is wrong the oftener the more it merges."""
    questions = [str(prompt.messages[0]["content"]) for prompt in problems(BED)]
    texts = [m.completion(q, merging(len(m.totals(q)) - 1, merged)) for q in questions]
    tokens = tuple(len(text.replace("<think>", "T").replace("</think>", "T")) + 1 for text in texts)
    right = "".join("0" if place % 50 < 3 * merged - 2 * cell.seed else "1" for place in range(len(texts)))
    took = {"steps": 120, "seconds": 60.0, "sampled_tokens": 9000, "taught": 0.5}
    record = Record(cell, right, tokens, None, "abc", "2026-01-01", **took)
    rows = [replace(row, completion=text) for row, text in zip(record.rows(), texts, strict=True)]
    return replace(record, behaviour=behaviour(rows))


@cache
def records() -> dict[Cell, Record]:
    """Two methods and three settings of one, on bed M; one has two seeds."""
    sweep = [Cell(BED, "kimi", 0, f"weight={w}", (f"shaper.kimi_length.weight={w}",)) for w in ("0.25", "0.5")]
    own = {
        Cell(BED, BEFORE, 0): 2, Cell(BED, BEFORE, 1): 2, Cell(BED, "grpo", 0): 1, Cell(BED, "grpo", 1): 1,
        Cell(BED, "kimi", 0): 4, sweep[0]: 1, sweep[1]: 2,
    }  # fmt: skip
    return {cell: composer(cell, merged) for cell, merged in own.items()}


def checker(method: str, most: int, seed: int = 0) -> Record:
    """A policy of bed S that checks at most so many options, rightly."""
    texts = [which_sum.completion(str(p.messages[0]["content"]), most) for p in problems("which_sum")]
    rows = [
        EvaluationRow(
            p.id, 0, str(p.messages[0]["content"]), p.reference, text, which_sum.tokens(text), None, False,
            Exact()(text, p.reference), p.columns,
        )
        for p, text in zip(problems("which_sum"), texts, strict=True)
    ]  # fmt: skip
    answers = "".join("1" if row.correct else "0" for row in rows)
    lengths = tuple(row.length for row in rows)
    return Record(Cell("which_sum", method, seed), answers, lengths, behaviour(rows), "abc", "2026-01-01", steps=40)
