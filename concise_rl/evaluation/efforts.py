"""Accuracy and tokens at each level of effort: the same problems, asked for at low, medium and high."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from concise_rl.data import Prompt
from concise_rl.evaluation.evaluate import Evaluation
from concise_rl.methods.drawing import seeded
from concise_rl.methods.edits.effort import Level, PromptEffort
from concise_rl.options import choose

POINT = ("accuracy", "accuracy_interval", "mean_tokens", "mean_tokens_interval")


def effort_levels(names: Sequence[str]) -> list[Level]:
    """The named levels, each once, least effort first.

    Raises:
        UserError: no such level.
    """
    asked = {choose("sweep.efforts", Level, name) for name in names}
    return [level for level in Level if level in asked]


def effort_sweep(
    levels: Sequence[Level],
    prompts: Sequence[Prompt],
    evaluate: Callable[[Level, Sequence[Prompt]], Evaluation],
) -> dict[str, Any]:
    """Evaluate the problems at each level.

    Args:
        prompts: as they are, which is the level `high`.
        evaluate: a level and its prompts to their evaluation.

    Returns:
        `points`: a dict a level with `level`, `accuracy`, `mean_tokens` and their 95 % intervals; `problems`.
    """
    points = []
    for level in levels:
        edit = PromptEffort(level, share=1.0)
        summary = evaluate(level, [edit(prompt, seeded("effort", prompt.id)) for prompt in prompts]).summary()
        points.append({"level": level.value, **{key: summary[key] for key in POINT if key in summary}})
    return {"points": points, "problems": len(prompts)}
