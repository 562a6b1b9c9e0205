"""ACOER: a length bonus whose weight and budget follow running accuracy and length."""

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
from concise_rl.methods.statistics import mean_where, right
from concise_rl.options import choose

CHARACTERS_PER_TOKEN = 4
THOUGHT_CHARACTERS = "think_characters"
"""The part that holds how many characters a row's thought has."""


class Variant(str, Enum):
    """What a step with nothing right does to the running length: leaves it, or feeds 0 as the released code does."""

    guarded = "guarded"
    code = "code"


class Unit(str, Enum):
    """What thoughts are measured in."""

    tokens = "tokens"
    characters = "characters"


@dataclass
class Acoer(Shaper):
    """Adds to right rewards a bonus that falls with the length of the thought; a controller moves its size and reach.

        n = min(K / B, 1)          right: reward += alpha * ln(1 + 5 (1 - n)) / ln 6          wrong: + 0

    K is the thought's length (all of the row where it has no think tag), B the budget. After scoring a step:

        accuracy and length: running means with decay 2 / (span + 1) of the step's accuracy and mean right K
        from step `warmup` on, once `window` accuracies are kept:
            alpha = max(lo, alpha * down) if accuracy fell by more than `drop` over the window, else min(hi, alpha * up)
            B = max(min_budget, ratio * length)   if length > 0

    The accuracy of `window` steps ago is the window-th from the end of those kept, this step's included. A step without
    a row that counts changes nothing.

    Source: arXiv 2606.22716, js-lee-AI/ACOER at d13bb6b. That code measures characters, keeps its controller outside
    the checkpoint, moves it in evaluation too, and gives a row without a think block the full bonus (K = 0).

    Attributes:
        alpha: weight of the bonus before the first step.
        lo, hi: its bounds when it moves.
        up, down: its factors.
        span: steps of the running means.
        window: steps over which accuracy is compared; at most 2 * window accuracies are kept.
        drop: loss of accuracy that turns alpha down.
        ratio: budget as a share of the running length.
        warmup: steps before the controller moves.
        B0, min_budget: budget before the first step, and the least; **in characters**, see `unit`.
        unit: `tokens` divides B0 and min_budget by 4; `characters` takes `parts["think_characters"]` for K.
        variant: `guarded`: a step with nothing right leaves the running length; `code`: it counts as length 0.

    Raises:
        UserError: a field is out of its range.
    """

    alpha: float = 0.02
    lo: float = 0.01
    hi: float = 0.5
    up: float = 1.02
    down: float = 0.95
    span: int = 50
    window: int = 100
    drop: float = 0.02
    ratio: float = 0.85
    warmup: int = 200
    B0: float = 16384.0
    min_budget: float = 2048.0
    unit: Unit = Unit.tokens
    variant: Variant = Variant.guarded

    def __post_init__(self) -> None:
        self.unit = choose("Acoer.unit", Unit, self.unit)
        self.variant = choose("Acoer.variant", Variant, self.variant)
        if not (0 <= self.lo <= self.hi and math.isfinite(self.hi)):
            raise UserError(f"Acoer.lo={self.lo}, hi={self.hi}: need 0 <= lo <= hi")
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise UserError(f"Acoer.alpha={self.alpha}: must be 0 or more, 0.02 is the paper's")
        if not (0 < self.down <= 1 <= self.up and math.isfinite(self.up)):
            raise UserError(f"Acoer.down={self.down}, up={self.up}: need 0 < down <= 1 <= up")
        for name in ("span", "window"):
            if getattr(self, name) < 1:
                raise UserError(f"Acoer.{name}={getattr(self, name)}: must be 1 step or more")
        for name in ("drop", "warmup"):
            if not getattr(self, name) >= 0:
                raise UserError(f"Acoer.{name}={getattr(self, name)}: must be 0 or more")
        for name in ("ratio", "B0", "min_budget"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise UserError(f"Acoer.{name}={getattr(self, name)}: must be above 0")

    @property
    def needs(self) -> frozenset[str]:
        """The thought's characters, where they are the unit."""
        return frozenset({PART_PREFIX + THOUGHT_CHARACTERS} if self.unit is Unit.characters else ())

    def init(self) -> dict[str, Any]:
        """Weight, budget, running accuracy and length (None before the first), and the accuracies kept."""
        return {
            "alpha": float(self.alpha),
            "B": self._in_unit(self.B0),
            "accuracy": None,
            "length": None,
            "history": [],
        }

    def __call__(self, batch: RolloutBatch, value: Tensor, state: dict[str, Any]) -> tuple[Out, dict[str, Any]]:
        """Score the step as the controller stands, then move it."""
        thought_N = batch.think_lengths.double()
        if self.unit is Unit.characters:
            thought_N = batch.part(THOUGHT_CHARACTERS)
        spared_N = 1 - (thought_N / state["B"]).clamp(max=1)
        bonus_N = state["alpha"] * torch.log1p(5 * spared_N) / math.log(6)
        right_N = right(batch)
        metrics = {
            "acoer/alpha": state["alpha"],
            "acoer/budget": state["B"],
            "acoer/bonus_mean": mean_where(bonus_N, right_N),
        }
        if bool(batch.counts.any()):
            state = self._moved(batch.step, state, mean_where(batch.correct, batch.counts), thought_N[right_N])
        return Out(torch.where(right_N, value + bonus_N, value), metrics), state

    def _moved(self, step: int, state: dict[str, Any], accuracy: float, thoughts_R: Tensor) -> dict[str, Any]:
        """The controller after a step of this accuracy, whose right rows thought so long."""
        now, length = self._running(state["accuracy"], accuracy), state["length"]
        if thoughts_R.numel() or self.variant is Variant.code:
            # Sorted, so that the order of rows does not show in the last bit of what the controller adds up.
            length = self._running(length, float(thoughts_R.sort().values.mean()) if thoughts_R.numel() else 0.0)
        history = [*state["history"], now][-2 * self.window :]
        alpha, budget = state["alpha"], state["B"]
        if step >= self.warmup and len(history) >= self.window:
            fell = history[-self.window] - now > self.drop
            alpha = max(self.lo, alpha * self.down) if fell else min(self.hi, alpha * self.up)
            if length:
                budget = max(self._in_unit(self.min_budget), self.ratio * length)
        return {"alpha": alpha, "B": budget, "accuracy": now, "length": length, "history": history}

    def _running(self, old: float | None, new: float) -> float:
        decay = 2 / (self.span + 1)
        return new if old is None else decay * new + (1 - decay) * old

    def _in_unit(self, characters: float) -> float:
        return characters / CHARACTERS_PER_TOKEN if self.unit is Unit.tokens else float(characters)
