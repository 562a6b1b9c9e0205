"""Which completions teach: what one that was cut off counts as, and what becomes of groups without variance.

Every row is judged by `judge`, and `leave_out` says which rows count before the method's own filters do, so that
reward, baseline, history, loss and logs cannot disagree; the trainer and `minimal.py` share both. `refill` samples
other prompts in place of groups that could not teach. What each choice means: `Truncated` and `ZeroVariance` in
`options.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from concise_rl.batch import OPTIONAL_FIELDS, RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Filter
from concise_rl.methods.filters.untruncated import Untruncated
from concise_rl.methods.filters.zero_variance import DropZeroVariance
from concise_rl.methods.method import Method
from concise_rl.options import Teaching, Truncated, ZeroVariance
from concise_rl.ranks import on_every_rank, rank
from concise_rl.rollouts import LocalRollout
from concise_rl.verifiers import Verdict, Verifier, verify_many

DatasetRow = dict[str, Any]
"""A row of the training set: `prompt`, `prompt_key`, `reference`, `columns`."""


def judge(
    verifier: Verifier,
    pairs: Sequence[tuple[str, str]],
    cut_off: Sequence[bool],
    *,
    truncated: Truncated,
    deadline_seconds: float,
    think_end: str = "</think>",
) -> list[Verdict]:
    """One verdict for each (completion, reference), knowing which completions the token limit cut off.

    Under `wrong` the verifier is asked about an empty completion in place of one that was cut off, which gives its own
    reward for no answer; a verifier that calls the empty completion right is overruled, with reward 0.
    """
    options: dict[str, Any] = {"deadline_seconds": deadline_seconds, "think_end": think_end}
    if truncated is not Truncated.wrong:
        return verify_many(verifier, pairs, **options)
    asked = [("" if cut else text, reference) for (text, reference), cut in zip(pairs, cut_off, strict=True)]
    verdicts = verify_many(verifier, asked, **options)
    return [Verdict.of(False) if cut and v.correct else v for v, cut in zip(verdicts, cut_off, strict=True)]


def check_teaching(method: Method, teaching: Teaching, group_size: int) -> None:
    """Refuse a method whose components cannot work on groups of this size, or under these rules.

    Raises:
        UserError: names the component, the rule and the remedy.
    """
    if method.cut:
        method.cut.check(group_size)
        if teaching.truncated is Truncated.mask:
            raise UserError(
                f"truncated=mask leaves the rows that {type(method.cut).__name__} cuts out of the loss, so that "
                "cutting teaches nothing: use truncated=wrong or as_is"
            )
    signals = sorted(set(OPTIONAL_FIELDS) & method.curriculum.needs) if method.curriculum else []
    if signals and teaching.zero_variance is ZeroVariance.refill:
        raise UserError(
            f"{type(method.curriculum).__name__} needs {', '.join(signals)} of every group, and zero_variance=refill "
            "scores none of those it throws away: use zero_variance=drop"
        )


def leave_out(batch: RolloutBatch, teaching: Teaching) -> RolloutBatch:
    """The batch with the rows that teach in `counts`, before the method's own filters.

    A row that does not count is in no baseline and no history, its credit is 0, and none of its tokens is in the loss.
    Variance is that of the task reward, before shaping, over the rows that count.
    """
    filters: list[Filter] = [Untruncated()] if teaching.truncated is Truncated.mask else []
    filters += [] if teaching.zero_variance is ZeroVariance.keep else [DropZeroVariance()]
    for each in filters:
        batch = batch.replace(counts=batch.counts & each.keep(batch))
    return batch


# -- refilling ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """One completion on its way from the sampler to the batch.

    Attributes:
        row: of the training set.
        prompt_ids: its prompt as tokens.
        message: the completion in the form that the trainer logs.
        rollout: the completion, judged.
        cut_off: the token limit came before its end.
    """

    row: DatasetRow
    prompt_ids: list[int]
    message: Any
    rollout: LocalRollout
    cut_off: bool

    def outcome(self, truncated: Truncated) -> RowOutcome:
        """What decides whether its group has variance."""
        verdict = self.rollout.verdict
        assert verdict is not None
        counts = verdict.scorable and not (self.cut_off and truncated is Truncated.mask)
        key, tokens = self.rollout.prompt_key, self.rollout.length
        return RowOutcome(key, counts, verdict.reward, verdict.scorable, verdict.correct, tokens)


class RowOutcome(NamedTuple):
    """What became of one completion; `counts` is False where it is left out of the baseline."""

    prompt_key: str
    counts: bool
    reward: float
    scorable: bool
    correct: bool
    tokens: int


class Refilled(NamedTuple):
    """A step after refilling.

    Attributes:
        kept: this rank's rows of the step.
        thrown: this rank's rows of the groups that are not in the step; the ranks' rows in a row make whole groups.
        cost: `refill_rounds`, `refilled_groups_frac`, `refill_tokens_frac`, and `sampled_accuracy` over all that was
            sampled.
    """

    kept: list[Sample]
    thrown: list[Sample]
    cost: dict[str, float]


class Draw(Protocol):
    """Draws up to `n` rows whose prompts are not `used`, the same ones on every rank, for a round counted from 0."""

    def __call__(self, n: int, used: Collection[str], round_number: int) -> list[DatasetRow]: ...


def draw_rows(dataset: Any, n: int, used: Collection[str], seed: Sequence[int]) -> list[DatasetRow]:
    """Up to `n` rows of a data set, uniformly without replacement, with prompts that are not `used`."""
    rows: list[DatasetRow] = []
    taken = set(used)
    for index in np.random.default_rng(seed).permutation(len(dataset)):
        if len(rows) == n:
            break
        row = dataset[int(index)]
        if row["prompt_key"] not in taken:
            taken.add(row["prompt_key"])
            rows.append(row)
    return rows


def refill(
    own: list[Sample],
    *,
    group_size: int,
    teaching: Teaching,
    draw: Draw,
    sample: Callable[[list[DatasetRow]], list[Sample]],
) -> Refilled:
    """Let other prompts take the places of groups without variance: dynamic sampling, arXiv 2503.14476 section 3.2.

    In each round as many prompts are drawn as groups lack variance, and a new group that has it takes the first such
    place; where none came by the last round, the group that was there stays. No prompt is drawn twice in a step, and
    refilling ends early where the training set has no other. The same completions give the same outcome on any ranks.

    In each round every rank samples the same number of rows, whole groups in rank order (what collective samplers ask
    for), whoever has the places; where that does not come out even, the last prompt is sampled again and discarded.

    Args:
        own: this rank's rows, as many as on every other rank; the ranks' rows in a row make up the groups.
        sample: this rank's part of a round; called on every rank, always with the same number of rows.
    """
    place, ranks = rank()
    unit = ranks // math.gcd(ranks, group_size)  # groups that make an equal number of rows on every rank
    groups = _grouped(on_every_rank([s.outcome(teaching.truncated) for s in own]), group_size)
    sampled = [outcome for group in groups for outcome in group]
    used = {group[0].prompt_key for group in groups}
    newcomers: dict[int, list[Sample]] = {}
    thrown: list[Sample] = []
    used_rounds = 0
    while used_rounds < teaching.refill_rounds and (
        uniform := [p for p, group in enumerate(groups) if _is_uniform(group)]
    ):
        rows = draw(len(uniform), used, used_rounds)
        if not rows:
            break
        used |= {row["prompt_key"] for row in rows}
        used_rounds += 1
        padded = [*rows, *[rows[-1]] * (-len(rows) % unit)]
        asked = [row for row in padded for _ in range(group_size)]
        share = len(asked) // ranks
        offered = _grouped(on_every_rank(sample(asked[place * share :][:share])), group_size)
        for group in offered[: len(rows)]:
            outcomes = [s.outcome(teaching.truncated) for s in group]
            sampled += outcomes
            if _is_uniform(outcomes):
                thrown += group if place == 0 else []  # every rank holds them: the first one's count
            else:
                p = uniform.pop(0)
                newcomers[p], groups[p] = group, outcomes
    kept = list(own)
    for b, old in enumerate(own):
        p, g = divmod(place * len(own) + b, group_size)
        if p in newcomers:
            kept[b] = newcomers[p][g]
            thrown.append(old)
    return Refilled(kept, thrown, _cost(groups, sampled, used_rounds, len(newcomers)))


def _cost(
    groups: Sequence[Sequence[RowOutcome]], sampled: Sequence[RowOutcome], rounds: int, refilled: int
) -> dict[str, float]:
    kept_tokens = sum(outcome.tokens for group in groups for outcome in group)
    scorable = [outcome for outcome in sampled if outcome.scorable]
    return {
        "refill_rounds": float(rounds),
        "refilled_groups_frac": refilled / len(groups),
        "refill_tokens_frac": 1 - kept_tokens / max(1, sum(outcome.tokens for outcome in sampled)),
        "sampled_accuracy": sum(outcome.correct for outcome in scorable) / max(1, len(scorable)),
    }


def _grouped(ranks: Sequence[Sequence[Any]], group_size: int) -> list[list[Any]]:
    """The rows of all ranks in rank order, cut into groups."""
    rows = [row for own in ranks for row in own]
    return [rows[start : start + group_size] for start in range(0, len(rows), group_size)]


def _is_uniform(group: Sequence[RowOutcome]) -> bool:
    """Whether the rows that count all have one task reward, as `RolloutBatch.without_variance` says of a batch."""
    return len({outcome.reward for outcome in group if outcome.counts}) < 2
