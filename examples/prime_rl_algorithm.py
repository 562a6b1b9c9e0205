"""A method of ours as an algorithm of prime-rl 0.8.0 (PrimeIntellect-ai/prime-rl at 559b4477, 2026-08-21).

prime-rl dispatches on a fixed set of names, so two lines in `prime_rl/orchestrator/algo/__init__.py` put it in the
place of GRPO; `algo.type = "grpo"` then means this:

    from prime_rl_algorithm import concise_algorithm
    ALGORITHM_CLASSES["grpo"] = concise_algorithm("hapo", weight=0.5)

prime-rl scores each group by itself and keeps nothing of an algorithm in its checkpoints: a method that compares groups
with one another is refused, and one with a memory begins with an empty one after a restart, as prime-rl's own RAE does.
A completion is right where its environment's reward reaches `right_at`.
"""

from __future__ import annotations

from typing import Any

from prime_rl.orchestrator.algo.base import Algorithm, iter_trainable_traces
from prime_rl.orchestrator.algo.routing import assign_advantages

from concise_rl import Advantage, RolloutBatch, Shaper, UserError, load_method
from concise_rl.batch import COLUMN_PREFIX, OPTIONAL_FIELDS, PART_PREFIX
from concise_rl.methods.contracts import Transform


def concise_algorithm(method: str, *, right_at: float = 1.0, **fields: Any) -> type[Algorithm]:
    """A subclass of prime-rl's `Algorithm` whose credit is that of a recipe.

    Raises:
        UserError: the recipe has a component that prime-rl has no place for, or needs what a trace does not tell.
    """
    made = load_method(method, fields)
    _check(made)

    class ConciseAlgorithm(Algorithm):
        """Shapers and advantages of concise_rl on prime-rl's traces."""

        def __init__(self, config: Any, policy_pool: Any) -> None:
            super().__init__(config, policy_pool)
            self.states = made.init()

        async def score_group(self, episodes: list[Any]) -> None:
            found = list(iter_trainable_traces(episodes))
            if not found:
                return
            traces = [trace for _, trace in found]
            lengths = [trace.num_output_tokens for trace in traces]
            batch = RolloutBatch.of(
                prompt_keys=[str(found[0][0].task.key)],
                group_size=len(traces),
                lengths=lengths,
                truncated=[trace.is_truncated for trace in traces],
                correct=[trace.reward >= right_at for trace in traces],
                task_reward=[trace.reward for trace in traces],
                costs={
                    "context_tokens": [float(trace.num_total_tokens) for trace in traces],
                    "turns": [float(trace.num_turns) for trace in traces],
                },
            )
            result, self.states = made.apply(batch, self.states)
            for trace, credit, length in zip(traces, result.credit.tolist(), lengths, strict=True):
                assign_advantages(trace, credit[:length] if isinstance(credit, list) else credit)

    return ConciseAlgorithm


def _check(method: Any) -> None:
    for slot, component in method.components.items():
        if not isinstance(component, Shaper | Advantage):
            raise UserError(f"{slot}: prime-rl has its own place for prompts, rows and filters; choose another recipe")
        told = (COLUMN_PREFIX, PART_PREFIX)
        lacking = sorted(n for n in component.needs if n in OPTIONAL_FIELDS or n.startswith(told))
        if lacking:
            raise UserError(f"{slot} needs {', '.join(lacking)}, which a trace does not tell")
        if isinstance(component, Transform) and component.across_groups:
            raise UserError(f"{slot} compares groups with one another, and prime-rl scores each by itself")
    if method.schedules:
        raise UserError(f"{', '.join(method.schedules)}: prime-rl tells an algorithm no step; give a number")
