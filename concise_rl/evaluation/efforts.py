"""Accuracy and tokens at each level of effort: the same problems, asked for at low, medium and high."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from concise_rl.data.efforts import Level
from concise_rl.evaluation.evaluate import Evaluation
from concise_rl.methods.edits.effort import PromptEffort
from concise_rl.options import choose

POINT = ("accuracy", "accuracy_interval", "mean_tokens", "mean_tokens_interval")


def effort_levels(names: Sequence[str]) -> list[Level]:
    """The named levels, each once, least effort first.

    Raises:
        UserError: no such level.
    """
    asked = {choose("sweep.efforts", Level, name) for name in names}
    return [level for level in Level if level in asked]


def effort_sweep(levels: Sequence[Level], evaluate: Callable[[PromptEffort], Evaluation]) -> dict[str, Any]:
    """Evaluate the problems at each level; at `high` prompts are as they are.

    Args:
        evaluate: what asks for a level, to the evaluation under it.

    Returns:
        `points`: a dict a level with `level`, `accuracy`, `mean_tokens` and their 95 % intervals; `problems`.
    """
    points, problems = [], 0
    for level in levels:
        summary = evaluate(PromptEffort(level, share=1.0)).summary()
        problems = summary["problems"]
        points.append({"level": level.value, **{key: summary[key] for key in POINT if key in summary}})
    return {"points": points, "problems": problems}
