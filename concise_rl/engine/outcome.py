"""From sampled rows to what a method makes of them, for whichever trainer sampled them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from concise_rl.engine.collect import Collected, collect, repetition_ngram_of
from concise_rl.engine.groups import DatasetRow, judge
from concise_rl.methods.contracts import Component
from concise_rl.methods.method import Method, Result
from concise_rl.methods.metrics import step_metrics
from concise_rl.options import Teaching
from concise_rl.rollouts import Finish, LocalRollout, StepRecord, TokenVocabulary
from concise_rl.verifiers import Verifier


def judged(
    rollouts: Sequence[LocalRollout],
    rows: Sequence[DatasetRow],
    verifier: Verifier,
    vocabulary: TokenVocabulary,
    teaching: Teaching,
    deadline_seconds: float,
) -> list[LocalRollout]:
    """The completions with their verdicts; `rows` are those of the data set that they answer, one each."""
    verdicts = judge(
        verifier,
        [(rollout.completion, row["reference"]) for rollout, row in zip(rollouts, rows, strict=True)],
        [vocabulary.cut_off(rollout.token_ids) for rollout in rollouts],
        truncated=teaching.truncated,
        deadline_seconds=deadline_seconds,
        think_end=vocabulary.think_end,
    )
    return [
        dataclasses.replace(rollout, verdict=verdict, reference=row["reference"])
        for rollout, verdict, row in zip(rollouts, verdicts, rows, strict=True)
    ]


def batch_of(
    rows: Sequence[LocalRollout],
    components: Sequence[Component],
    *,
    group_size: int,
    step: int,
    vocabulary: TokenVocabulary,
) -> Collected:
    """Rows of all ranks as the batch that these components ask for."""
    return collect(
        rows,
        group_size=group_size,
        step=step,
        vocabulary=vocabulary,
        needs=frozenset().union(*(c.needs for c in components)),
        repetition_ngram=repetition_ngram_of(components),
    )


def step_record(collected: Collected, result: Result, method: Method, teaching: Teaching) -> StepRecord:
    """What logs hear of a step, its metrics among it."""
    taught = collected.batch.replace(counts=result.counts)
    metrics = step_metrics(collected.batch, result.reward, result.credit, taught=taught) | result.metrics
    if method.filters or teaching.leaves_out:
        metrics["left_out_frac"] = float((~result.counts & collected.batch.scorable).double().mean())
    if method.cut:
        metrics["cut_frac"] = collected.finishes.count(Finish.cut.value) / len(collected.finishes)
    return StepRecord(
        taught, result.reward, result.credit, collected.prompts, collected.completions, metrics, collected.finishes
    )
