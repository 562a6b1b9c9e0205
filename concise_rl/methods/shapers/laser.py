"""LASER, LASER-D and LASER-DE: a bonus for right answers within a target length, which may follow difficulty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from concise_rl.batch import PART_PREFIX, RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Out, Shaper
from concise_rl.methods.shapers.laser_targets import BANDS, LONGEST_TARGET, estimate, monitored, target_of_rows
from concise_rl.methods.statistics import mean_where, right
from concise_rl.options import choose

REPEATED = "repeated"
"""The part that is 1 where `repetition_fraction(ids, 40)` is above 0, else 0."""


class Kind(str, Enum):
    """Right answers within the target gain, those beyond it lose, or both."""

    reward = "reward"
    penalty = "penalty"
    hybrid = "hybrid"


class Reading(str, Enum):
    """Our definition, by the words of LASER-D (`limit`) and of LASER-DE (`guarded`), or that of the released code."""

    limit = "limit"
    guarded = "guarded"
    code = "code"


@dataclass
class Laser(Shaper):
    """Adds alpha to right answers of L <= T sampled tokens, takes it from longer ones, or both, by `kind`.

        reward     reward += alpha * [L <= T]               right rows
        penalty    reward -= alpha * [L > T]                right rows
        hybrid     both
        explore    reward += alpha * [L > T], too           wrong rows that do not repeat themselves

    T is `target`. With `dynamic` (LASER-D) each group has the T of its band by pass rate p: high from 2/3, medium from
    1/3, low below. All three start at `target` and are set anew every `monitor_freq` steps, after the step is scored,
    from the last `monitor_groups` groups since then. There, as released, a group is low up to 1/3, medium up to 2/3,
    high above. A band's T is the smallest t of lower, lower + grid_step, ... up to 16384, below the cap, with

        floor(n_min * share of the band's answers with L <= t) >= expected
        n_min = floor(2 G / 3), floor(G / 3), 1 for high, medium, low

    and the cap where no t has it, or the band is empty. `explore` makes it LASER-DE. `variant`:

        limit, guarded    the cap is the sampling limit, and repetitive wrong answers get nothing (two words, one thing)
        code              the cap is the longest answer of the step of the update, and every long wrong answer is paid:
                          the released detector is handed a tensor, whose n-grams never compare equal

    Source: arXiv 2505.15612, hkust-nlp/Laser at c9e7c4e. Its base is 1 for right and -0.5 for wrong answers; here it is
    the reward handed in. It re-estimates targets from 500 prompts that it samples for that; here from training groups.

    Attributes:
        kind: `reward`, `penalty` or `hybrid`.
        alpha: size of the bonus.
        target: T in tokens, with `dynamic` until the first update; the paper tries 2048, 4096, 8192.
        dynamic: T follows the group's band.
        explore: long wrong answers are paid.
        monitor_freq: steps between updates of T.
        monitor_groups: groups that an update looks at, at most.
        lower, grid_step: the targets that an update chooses from, tokens.
        expected: right answers that a group should have within T.
        variant: `limit`, `guarded` or `code`.

    Raises:
        UserError: a field is out of range.
    """

    kind: Kind = Kind.reward
    alpha: float = 0.5
    target: int = 4096
    dynamic: bool = False
    explore: bool = False
    monitor_freq: int = 20
    monitor_groups: int = 500
    lower: int = 1024
    grid_step: int = 1024
    expected: int = 1
    variant: Reading = Reading.limit

    def __post_init__(self) -> None:
        self.kind = choose("Laser.kind", Kind, self.kind)
        self.variant = choose("Laser.variant", Reading, self.variant)
        if not 0 <= self.alpha < math.inf:
            raise UserError(f"Laser.alpha={self.alpha}: must be 0 or more, 0.5 is the paper's")
        for name in ("target", "monitor_freq", "monitor_groups", "lower", "grid_step", "expected"):
            if getattr(self, name) < 1:
                raise UserError(f"Laser.{name}={getattr(self, name)}: must be 1 or more")

    @property
    def needs(self) -> frozenset[str]:
        """Whether wrong answers repeat themselves, where that costs them the bonus."""
        return frozenset({PART_PREFIX + REPEATED} if self._guarded else ())

    @property
    def _guarded(self) -> bool:
        return self.explore and self.variant is not Reading.code

    def init(self) -> dict[str, Any] | None:
        """`targets` by band, `updated`: steps taken at the last update, `groups`: [right rows, lengths] since then."""
        return {"targets": dict.fromkeys(BANDS, self.target), "updated": 0, "groups": []} if self.dynamic else None

    def __call__(self, batch: RolloutBatch, value: Tensor, state: Any) -> tuple[Out, Any]:
        """Score the step against the targets of earlier steps, then record it."""
        fixed = state is None
        target_N = torch.full_like(batch.lengths, self.target) if fixed else target_of_rows(batch, state["targets"])
        right_N, within_N = right(batch), batch.lengths <= target_N
        gains_N = right_N & within_N if self.kind is not Kind.penalty else torch.zeros_like(right_N)
        loses_N = right_N & ~within_N if self.kind is not Kind.reward else torch.zeros_like(right_N)
        explores_N = batch.counts & ~batch.correct & ~within_N if self.explore else torch.zeros_like(right_N)
        if self._guarded:
            explores_N = explores_N & (batch.part(REPEATED) == 0)
        added_N = self.alpha * (gains_N.double() - loses_N.double() + explores_N.double())
        metrics = {"laser/within_frac": mean_where(within_N, right_N)}
        if self.explore:
            metrics["laser/explore_frac"] = mean_where(explores_N, batch.counts & ~batch.correct)
        if not fixed:
            metrics |= {f"laser/target_{band}": float(state["targets"][band]) for band in BANDS}
            state = self._record(batch, state)
        return Out(value + added_N, metrics), state

    def _record(self, batch: RolloutBatch, state: dict[str, Any]) -> dict[str, Any]:
        """The state with the step in it; new targets where they are due and a row of the step counts."""
        groups = [*state["groups"], *monitored(batch)][-self.monitor_groups :]
        taken = batch.step + 1
        if taken - state["updated"] < self.monitor_freq or not bool(batch.counts.any()):
            return {**state, "groups": groups}
        cap = int((batch.lengths[batch.counts] if self.variant is Reading.code else batch.limits).max())
        grid = range(self.lower, LONGEST_TARGET + 1, self.grid_step)
        return {"targets": estimate(groups, batch.group_size, grid, cap, self.expected), "updated": taken, "groups": []}
