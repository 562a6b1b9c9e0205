"""Which completions teach: what one that was cut off counts as, and what becomes of groups without variance.

Every row is judged by `judge`, and `leave_out` says what the method sees and what enters the loss, so that reward,
baseline, history, loss and logs cannot disagree; the trainer and `minimal.py` share both. `refill` samples other
prompts in place of groups that could not teach. What each choice means: `Truncated` and `ZeroVariance` in `options.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.options import Teaching, Truncated, ZeroVariance
from concise_rl.ranks import on_every_rank, rank
from concise_rl.rollouts import LocalRollout
from concise_rl.verifiers import Verdict, Verifier, verify_many

Row = dict[str, Any]
"""A row of the training set: `prompt`, `prompt_id`, `reference`, `columns`."""


def judge(
    verifier: Verifier,
    pairs: Sequence[tuple[str, str]],
    cut_off: Sequence[bool],
    *,
    truncated: Truncated,
    deadline_seconds: float,
) -> list[Verdict]:
    """One verdict for each (completion, reference), knowing which completions the token limit cut off.

    Under `wrong` the verifier is asked about an empty completion in place of one that was cut off, which gives its own
    reward for no answer; a verifier that calls the empty completion right is overruled, with reward 0.
    """
    if truncated is not Truncated.wrong:
        return verify_many(verifier, pairs, deadline_seconds=deadline_seconds)
    asked = [("" if cut else text, reference) for (text, reference), cut in zip(pairs, cut_off, strict=True)]
    verdicts = verify_many(verifier, asked, deadline_seconds=deadline_seconds)
    return [Verdict.of(False) if cut and v.correct else v for v, cut in zip(verdicts, cut_off, strict=True)]


def leave_out(batch: RolloutBatch, teaching: Teaching) -> tuple[RolloutBatch, Tensor]:
    """The batch as shapers and advantages see it, and which rows enter the loss, (N,) bool.

    A row that is left out is not scorable in it: it is in no baseline and no history, and its credit is 0. Variance is
    that of the task reward, before shaping, over the rows that count.
    """
    left_out_N = batch.truncated if teaching.truncated is Truncated.mask else torch.zeros_like(batch.truncated)
    taught = batch.replace(scorable=batch.scorable & ~left_out_N)
    if teaching.zero_variance is not ZeroVariance.keep:
        left_out_N = left_out_N | batch.per_row(taught.without_variance(batch.task_reward))
        taught = batch.replace(scorable=batch.scorable & ~left_out_N)
    return taught, ~left_out_N


# -- refilling ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """One completion on its way from the sampler to the batch.

    Attributes:
        row: of the training set.
        prompt_ids: its prompt as tokens.
        message: the completion in the form that the trainer logs.
        sampler_logprobs: of its tokens under the engine that sampled them, or None.
        rollout: the completion, judged.
        cut_off: the token limit came before its end.
    """

    row: Row
    prompt_ids: list[int]
    message: Any
    sampler_logprobs: list[float] | None
    rollout: LocalRollout
    cut_off: bool

    def outcome(self, truncated: Truncated) -> Outcome:
        """What decides whether its group has variance."""
        verdict = self.rollout.verdict
        counts = verdict.scorable and not (self.cut_off and truncated is Truncated.mask)
        tokens = len(self.rollout.token_ids)
        return Outcome(self.rollout.prompt_id, counts, verdict.reward, verdict.scorable, verdict.correct, tokens)


class Outcome(NamedTuple):
    """What became of one completion; `counts` is False where it is left out of the baseline."""

    prompt_id: str
    counts: bool
    reward: float
    scorable: bool
    correct: bool
    tokens: int


class Draw(Protocol):
    """Draws up to `n` rows whose prompts are not `used`, the same ones on every rank, for a round counted from 0."""

    def __call__(self, n: int, used: Collection[str], round_number: int) -> list[Row]: ...


def draw_rows(dataset: Any, n: int, used: Collection[str], seed: Sequence[int]) -> list[Row]:
    """Up to `n` rows of a data set, uniformly without replacement, with prompts that are not `used`."""
    rows: list[Row] = []
    taken = set(used)
    for index in np.random.default_rng(seed).permutation(len(dataset)):
        if len(rows) == n:
            break
        row = dataset[int(index)]
        if row["prompt_id"] not in taken:
            taken.add(row["prompt_id"])
            rows.append(row)
    return rows


def refill(
    own: list[Sample],
    *,
    group_size: int,
    teaching: Teaching,
    draw: Draw,
    sample: Callable[[list[Row]], list[Sample]],
) -> tuple[list[Sample], dict[str, float]]:
    """Let other prompts take the places of groups without variance: dynamic sampling, arXiv 2503.14476 section 3.2.

    In each round as many prompts are drawn as groups lack variance, and a new group that has it takes the first such
    place; where none came by the last round, the group that was there stays. No prompt is drawn twice in a step, and
    refilling ends early where the training set has no other. The same completions give the same outcome on any ranks.

    In each round every rank samples the same number of rows, whole groups in rank order (what collective samplers ask
    for), whoever has the places; where that does not come out even, the last prompt is sampled again and discarded.

    Args:
        own: this rank's rows, as many as on every other rank; the ranks' rows in a row make up the groups.
        sample: this rank's part of a round; called on every rank, always with the same number of rows.

    Returns:
        This rank's rows, and what it cost: `refill_rounds`, `refilled_groups_frac`, `refill_tokens_frac`, and
        `sampled_accuracy` over all that was sampled.
    """
    place, ranks = rank()
    unit = ranks // math.gcd(ranks, group_size)  # groups that make an equal number of rows on every rank
    groups = _grouped(on_every_rank([s.outcome(teaching.truncated) for s in own]), group_size)
    sampled = [outcome for group in groups for outcome in group]
    used = {group[0].prompt_id for group in groups}
    newcomers: dict[int, list[Sample]] = {}
    used_rounds = 0
    while used_rounds < teaching.refill_rounds and (
        uniform := [p for p, group in enumerate(groups) if _is_uniform(group)]
    ):
        rows = draw(len(uniform), used, used_rounds)
        if not rows:
            break
        used |= {row["prompt_id"] for row in rows}
        used_rounds += 1
        padded = [*rows, *[rows[-1]] * (-len(rows) % unit)]
        asked = [row for row in padded for _ in range(group_size)]
        share = len(asked) // ranks
        offered = _grouped(on_every_rank(sample(asked[place * share :][:share])), group_size)
        for group in offered[: len(rows)]:
            outcomes = [s.outcome(teaching.truncated) for s in group]
            sampled += outcomes
            if not _is_uniform(outcomes):
                p = uniform.pop(0)
                newcomers[p], groups[p] = group, outcomes
    first = place * len(own)
    own = [
        newcomers[n // group_size][n % group_size] if n // group_size in newcomers else s
        for n, s in enumerate(own, start=first)
    ]
    kept_tokens = sum(outcome.tokens for group in groups for outcome in group)
    scorable = [outcome for outcome in sampled if outcome.scorable]
    return own, {
        "refill_rounds": float(used_rounds),
        "refilled_groups_frac": len(newcomers) / len(groups),
        "refill_tokens_frac": 1 - kept_tokens / max(1, sum(outcome.tokens for outcome in sampled)),
        "sampled_accuracy": sum(outcome.correct for outcome in scorable) / max(1, len(scorable)),
    }


def _grouped(ranks: Sequence[Sequence[Any]], group_size: int) -> list[list[Any]]:
    """The rows of all ranks in rank order, cut into groups."""
    rows = [row for own in ranks for row in own]
    return [rows[start : start + group_size] for start in range(0, len(rows), group_size)]


def _is_uniform(group: Sequence[Outcome]) -> bool:
    """Whether the rows that count all have one task reward, as `RolloutBatch.without_variance` says of a batch."""
    return len({outcome.reward for outcome in group if outcome.counts}) < 2
