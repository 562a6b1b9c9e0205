"""The figures that a diagnosis rests on: how each curve began and ended, and whom the credit favoured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor

from concise_rl.errors import DataError
from concise_rl.methods.advantages.group_relative import GroupRelative
from concise_rl.methods.statistics import group_mean
from concise_rl.reporting.run_log import StoredStep, read_config, read_metrics, read_rollouts
from concise_rl.rollouts import per_row

LOSSES = ("grpo", "bnpo", "dr_grpo")
"""One loss type for each denominator: a row's own tokens, all tokens of the batch (dapo too), the token limit."""


@dataclass(frozen=True)
class Curve:
    """How a metric began and ended: means over the first eighth and the last quarter of the steps, two at least.

    `noise` is the standard error of the difference of the two. A step's own deviation is taken from the median jump
    between neighbouring steps, so that a collapse in a few steps does not count as noise.
    """

    start: float
    end: float
    noise: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Curve:
        known = [v for v in values if math.isfinite(v)] or [math.nan]
        first, last = known[: max(2, len(known) // 8)], known[-max(2, len(known) // 4) :]
        jumps = [abs(after - before) for before, after in pairwise(known)]
        deviation = median(jumps) / 0.954 if jumps else math.nan  # of a normal variable: 0.6745 times the root of 2
        return cls(fmean(first), fmean(last), deviation * math.sqrt(1 / len(first) + 1 / len(last)))

    @property
    def change(self) -> float:
        return self.end - self.start

    def moved(self, least: float) -> bool:
        """Whether it changed by so much, and by more than three standard errors."""
        return abs(self.change) >= max(least, 3 * self.noise)


@dataclass
class Credit:
    """Whom the credit of some steps favoured.

    Attributes:
        rows: that counted.
        shaped: those whose shaped reward is another than their task reward.
        pairs: of a right row and a shorter wrong one of its group.
        inverted: those in which the wrong one earns more.
        right: right rows that counted.
        punished: those with negative credit.
        solved, unsolved, groups: groups that are all right, all wrong, and all groups.
        task_push, push: loss type to the sums whose quotient says how a step presses on length, from the task reward
            alone and from the method's credit.
    """

    rows: int = 0
    shaped: int = 0
    pairs: int = 0
    inverted: int = 0
    right: int = 0
    punished: int = 0
    solved: int = 0
    unsolved: int = 0
    groups: int = 0
    task_push: dict[str, list[float]] = field(default_factory=dict)
    push: dict[str, list[float]] = field(default_factory=dict)

    def add(self, step: StoredStep) -> None:
        """Count a step in."""
        batch = step.batch
        credit = per_row(step.credit)
        right_N = batch.correct & batch.counts
        self.rows += int(batch.counts.sum())
        self.shaped += int((((step.reward - batch.task_reward).abs() > 1e-9) & batch.counts).sum())
        self.right += int(right_N.sum())
        self.punished += int((right_N & (credit < 0)).sum())
        columns = (batch.by_group(rows) for rows in (right_N, batch.counts, credit, batch.lengths))
        for right, counts, earned, lengths in zip(*columns, strict=True):
            self._group(right, counts & ~right, earned, lengths)
        task = GroupRelative().apply(batch, batch.task_reward).value
        for sums, values in ((self.task_push, task), (self.push, credit)):
            for loss in LOSSES:
                _press(sums.setdefault(loss, [0.0, 0.0]), loss, step, values)

    def _group(self, right: Tensor, wrong: Tensor, earned: Tensor, lengths: Tensor) -> None:
        self.groups += 1
        self.solved += bool(right.any()) and not bool(wrong.any())
        self.unsolved += bool(wrong.any()) and not bool(right.any())
        shorter = lengths[wrong][None] < lengths[right][:, None]
        self.pairs += int(shorter.sum())
        self.inverted += int((shorter & (earned[wrong][None] > earned[right][:, None])).sum())

    def pressure(self, loss: str, *, shaped: bool = True) -> float:
        """From -1, all credit shortens, to 1, all of it lengthens; 0 where there is none."""
        up, total = (self.push if shaped else self.task_push).get(loss, (0.0, 0.0))
        return up / total if total else 0.0


def _press(sums: list[float], loss: str, step: StoredStep, credit: Tensor) -> None:
    batch = step.batch
    tokens = batch.lengths.double().clamp(min=1)
    share = {"grpo": 1 / tokens, "bnpo": torch.ones_like(tokens) / tokens.sum(), "dr_grpo": 1 / batch.limits.double()}
    away = tokens - group_mean(batch, tokens)
    pressed = torch.where(batch.counts, share[loss] * credit * away, 0.0)
    sums[0] += float(pressed.sum())
    sums[1] += float(pressed.abs().sum())


@dataclass(frozen=True)
class Evidence:
    """A run as a diagnosis sees it.

    Attributes:
        metrics: a line a step.
        config: as the run resolved it; empty where none is stored.
        early: the credit of the first quarter of the steps.
        whole: of all of them.
        visits: how often a prompt came, on average; 0 without stored rollouts.
    """

    metrics: Sequence[Mapping[str, float]]
    config: Mapping[str, Any]
    early: Credit
    whole: Credit
    visits: float

    @classmethod
    def read(cls, folder: str | Path) -> Evidence:
        """From a run folder; rollouts may be missing, metrics may not.

        Raises:
            DataError: no metrics, or fewer than four steps.
        """
        metrics = read_metrics(folder)
        if len(metrics) < 4:
            raise DataError(f"{folder}: {len(metrics)} steps are too few for a diagnosis: train 4 or more")
        path = Path(folder)
        config = read_config(path) if (path / "config.json").exists() else {}
        rollouts = read_rollouts(path) if (path / "rollouts.jsonl").exists() else ()
        return cls.of(metrics, config, rollouts)

    @classmethod
    def of(
        cls, metrics: Sequence[Mapping[str, float]], config: Mapping[str, Any], rollouts: Iterable[StoredStep]
    ) -> Evidence:
        """From what a folder holds."""
        early, whole, drawn, keys = Credit(), Credit(), 0, set()
        for step in rollouts:
            whole.add(step)
            if step.step <= max(2, len(metrics) // 4):
                early.add(step)
            drawn += step.batch.n_prompts
            keys |= set(step.batch.prompt_keys)
        return cls(metrics, config, early, whole, drawn / len(keys) if keys else 0.0)

    def values(self, name: str) -> list[float]:
        """A metric's values, where it was logged."""
        return [line[name] for line in self.metrics if name in line]

    def curve(self, name: str) -> Curve:
        return Curve.of(self.values(name))

    def mean(self, name: str) -> float:
        """Over the run; 0 where it was never logged."""
        known = [value for value in self.values(name) if math.isfinite(value)]
        return fmean(known) if known else 0.0

    def trainer(self, name: str) -> Any:
        """A field of the trainer, or None."""
        return (self.config.get("trainer") or {}).get(name)
