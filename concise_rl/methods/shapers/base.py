"""What a shaper is: reward in, reward out, with the state of earlier steps handed in and the new state handed back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch

State = Any
"""`None` (stateless), a JSON-able value, a flat dict of numpy arrays, or a `concise_rl.methods.history.History`."""


@dataclass(frozen=True)
class Shaped:
    """What a shaper returns: the new reward, (N,) float64, and scalars worth logging."""

    reward: Tensor
    metrics: dict[str, float] = field(default_factory=dict)


@runtime_checkable
class Shaper(Protocol):
    """Reward in, reward out; pure: no globals, I/O, clock, randomness, rank or trainer.

    `needs` names the optional `RolloutBatch` fields it reads (`"think_entropy"`, ...) and dataset columns
    (`"columns.difficulty"`); `init` gives the state before the first step; the call scores the whole step against the
    state of earlier steps, then returns the state with this step in it. The state handed in counts as consumed.
    """

    @property
    def needs(self) -> frozenset[str]: ...

    def init(self) -> State: ...

    def __call__(self, batch: RolloutBatch, reward: Tensor, state: State) -> tuple[Shaped, State]: ...


class StatelessShaper:
    """Base of the shapers that keep nothing between steps: say `shape`, get the protocol."""

    needs: frozenset[str] = frozenset()

    def init(self) -> State:
        return None

    def __call__(self, batch: RolloutBatch, reward: Tensor, state: State) -> tuple[Shaped, State]:
        return self.shape(batch, reward), state

    def shape(self, batch: RolloutBatch, reward: Tensor) -> Shaped:
        raise NotImplementedError


@dataclass
class Compose:
    """Several shapers, left to right: the shaped reward is passed along, the states are a tuple."""

    shapers: Sequence[Shaper]

    @property
    def needs(self) -> frozenset[str]:
        return frozenset().union(*(shaper.needs for shaper in self.shapers))

    def init(self) -> State:
        return tuple(shaper.init() for shaper in self.shapers)

    def __call__(self, batch: RolloutBatch, reward: Tensor, state: State) -> tuple[Shaped, State]:
        metrics: dict[str, float] = {}
        states = []
        for shaper, shaper_state in zip(self.shapers, state, strict=True):
            shaped, shaper_state = shaper(batch, reward, shaper_state)
            check_reward(shaper, batch, shaped.reward)
            reward = shaped.reward
            metrics |= shaped.metrics
            states.append(shaper_state)
        return Shaped(reward, metrics), tuple(states)


def check_reward(shaper: Shaper, batch: RolloutBatch, reward: Tensor) -> None:
    """Refuse a reward of the wrong shape or with a NaN, naming the shaper, the row and its prompt."""
    name = type(shaper).__name__
    if reward.shape != (batch.n_rows,):
        raise ValueError(f"{name} returned a reward of shape {tuple(reward.shape)}; it must be ({batch.n_rows},)")
    bad = ~torch.isfinite(reward)
    if bool(bad.any()):
        row = int(bad.nonzero()[0, 0])
        prompt_id = batch.prompt_ids[row // batch.group_size]
        raise ValueError(
            f"{name} returned reward[{row}]={float(reward[row])} for prompt {prompt_id}: "
            "a reward must be finite; check the shaper for a division by zero or by an empty group"
        )
