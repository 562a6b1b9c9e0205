"""What a component is, each kind on this page: pure functions of a batch, a value and a state.

A component is a plain dataclass. Its fields are its configuration, their defaults are the paper's setting, and
`__post_init__` refuses bad values with `UserError`. It has no globals, files, clock, rank or trainer; its randomness is
the `rng` that it is handed, seeded by run seed, step and prompt key, so that any layout and any resumed run draw alike.

State is `None`, a value that JSON takes, a flat dict of numpy arrays, or a `History`. A component scores a step against
the state of earlier steps, then returns the state with this step in it; the state handed in counts as consumed. Every
rank holds the same batch and so computes the same state; rank 0 saves `{slot: state}`. Evaluation never moves state.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.data.base import Prompt
from concise_rl.rollouts import Generate, LocalRollout, PolicyPrompt, TokenVocabulary
from concise_rl.samples import Samples, Selection

State = Any


class Component:
    """Base of every component: what it needs of a batch, and its state before the first step.

    `needs` names optional `RolloutBatch` fields (`think_entropy`), dataset columns (`columns.difficulty`) and row
    values of the verifier step (`parts.reflections`). A class may say it as an attribute, `needs = frozenset({...})`.
    """

    @property
    def needs(self) -> frozenset[str]:
        """Nothing beyond what every batch has."""
        return frozenset()

    def init(self) -> State:
        """The state before the first step; None where nothing is kept."""
        return None


@dataclass(frozen=True)
class Out:
    """What a transform returns: the new value, (N,) or (N, T) float64, and scalars worth logging."""

    value: Tensor
    metrics: dict[str, float] = field(default_factory=dict)


class Transform(Component):
    """A link of the chain from task reward to credit. A stateless one says `apply`; one with state says `__call__`.

    A method is one chain: shapers turn reward into reward, (N,); advantages turn reward into credit, (N,) or (N, T).
    Rows that do not count (`batch.counts`) are in no mean, minimum or history. A shaper hands their reward on as it
    came, an advantage gives them 0.
    """

    replaces: ClassVar[bool] = False
    """It does not build on the value handed in, so it stands first in a chain."""

    @property
    def across_groups(self) -> bool:
        """Whether a group's value depends on the other groups of the step, by design."""
        return False

    @property
    def order_matters(self) -> bool:
        """Whether ties within a group are broken by the order of its rows, by design."""
        return False

    def __call__(self, batch: RolloutBatch, value: Tensor, state: State) -> tuple[Out, State]:
        """`value` is (N,) float64, the reward handed in, or the credit of the links before."""
        return self.apply(batch, value), state

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """The same without a state."""
        raise NotImplementedError(f"{type(self).__name__} says neither apply(batch, value) nor __call__")


class Shaper(Transform):
    """Reward in, reward out, (N,) float64."""


class Advantage(Transform):
    """Reward in, credit out, (N,) or (N, T) float64; or credit in, credit out, such as `SignSafe`.

    Attributes:
        by_token: it makes credit (N, T) of a reward; an engine whose rows have one credit refuses it at start.
    """

    by_token: ClassVar[bool] = False


class Filter(Component):
    """Which rows teach. The answer is and-ed into `batch.counts`, so a filter only ever leaves rows out."""

    def __call__(self, batch: RolloutBatch, state: State) -> tuple[Tensor, State]:
        """(N,) bool, True where the row may teach, and the new state. A stateless one says `keep`."""
        return self.keep(batch), state

    def keep(self, batch: RolloutBatch) -> Tensor:
        """The same without a state."""
        raise NotImplementedError(f"{type(self).__name__} says neither keep(batch) nor __call__")


class Curriculum(Component):
    """Which prompts come, from what is remembered of them."""

    def draw(
        self, prompts: Sequence[Prompt], n: int, used: Collection[str], rng: random.Random, state: State
    ) -> list[int]:
        """Indices of up to `n` prompts whose ids are not in `used`; refilling calls the same. `state` is only read."""
        raise NotImplementedError

    def observe(self, batch: RolloutBatch, state: State) -> State:
        """The state with all groups of a step in it, those that a refill threw away behind the others."""
        return state


class Sampler(Component):
    """How the rows of a group come about: plainly, cut, forced, continued."""

    gives: ClassVar[frozenset[str]] = frozenset()
    """The row values that it puts into the `parts` of every row: `parts.budget`."""

    def check(self, vocabulary: TokenVocabulary, *, group_size: int, limit: int) -> None:
        """Refuse, before the first step, what the tokenizer, the group size or the token limit cannot give.

        Raises:
            UserError: names the field, its value and the remedy.
        """

    def __call__(
        self, prompts: Sequence[PolicyPrompt], group_size: int, generate: Generate, rng: random.Random
    ) -> list[LocalRollout]:
        """`group_size` rows for each prompt, in prompt-major order, not yet judged.

        Every rank calls it with the same prompts and the same `rng`; `generate` deals requests evenly over ranks.
        """
        raise NotImplementedError


class Cut(Component):
    """How many tokens of each row are kept, once all rows are judged; a row that is cut is judged again."""

    def check(self, group_size: int) -> None:
        """Refuse, before the first step, a group size with which nothing can be cut.

        Raises:
            UserError: names the field, its value and the remedy.
        """

    def __call__(self, batch: RolloutBatch) -> Tensor:
        """(N,) int64, sampled tokens that the row keeps, from 1 to its length; in training alone."""
        raise NotImplementedError


class Edit(Component):
    """A change of a prompt's text and columns, in training and evaluation; its content key never changes."""

    def __call__(self, prompt: Prompt, rng: random.Random) -> Prompt:
        raise NotImplementedError


class Schedule(Protocol):
    """The value of a field at an optimizer step, counted from 0. Any float field of a component takes one."""

    def __call__(self, step: int) -> float: ...


class Selector(Component):
    """Offline: the stored samples of some problems to rows for SFT, or to preference pairs.

    One that decides problem by problem derives from `concise_rl.methods.picking.PerProblem`. `needs` may name `words`.
    """

    pairs: ClassVar[bool] = False
    """It gives preference pairs."""

    takes_wrong: ClassVar[bool] = False
    """Wrong completions are among its rows, by design."""

    def __call__(self, samples: Samples, seed: int) -> Selection:
        """What is chosen; rows without a verdict count nowhere. Chance comes from `seed` and problem keys alone."""
        raise NotImplementedError

    def unfilled(self, samples: Samples) -> Collection[str] | None:
        """The problems that want more samples than there are; None for a selector without a quota."""
        return None


# -- what is refused, by name ------------------------------------------------------------------------------------------


def check_value(link: Transform, batch: RolloutBatch, out: Any) -> Tensor:
    """The value of what a link returned, refused where it has the wrong type or shape, or a number is not finite.

    Raises:
        ValueError: names the class, what came, and what was expected; of a number also its row and prompt.
    """
    name, noun = type(link).__name__, "reward" if isinstance(link, Shaper) else "credit"
    if not isinstance(out, Out) or not isinstance(out.value, Tensor):
        raise ValueError(f"{name} returned {_kind(out)}; it must return (Out({noun} tensor, metrics), state)")
    shapes = f"({batch.n_rows},)" + ("" if isinstance(link, Shaper) else f" or ({batch.n_rows}, T)")
    if out.value.ndim not in ((1,) if isinstance(link, Shaper) else (1, 2)) or out.value.shape[0] != batch.n_rows:
        raise ValueError(f"{name} returned {noun} of shape {tuple(out.value.shape)}; it must be {shapes}")
    if not out.value.dtype.is_floating_point:
        raise ValueError(f"{name} returned {noun} of type {out.value.dtype}; it must be float64")
    _check_finite(name, noun, batch, out.value)
    return out.value.to(torch.float64)


def check_keep(component: Filter, batch: RolloutBatch, keep: Any) -> Tensor:
    """A filter's answer, refused unless it is (N,) bool.

    Raises:
        ValueError: names the class, what came, and what was expected.
    """
    if not isinstance(keep, Tensor) or keep.dtype != torch.bool or keep.shape != (batch.n_rows,):
        came = f"{keep.dtype} of shape {tuple(keep.shape)}" if isinstance(keep, Tensor) else _kind(keep)
        raise ValueError(f"{type(component).__name__} returned {came}; a filter returns bool of ({batch.n_rows},)")
    return keep


def check_kept_tokens(component: Cut, batch: RolloutBatch, kept: Any) -> Tensor:
    """A cut's answer, refused unless it is (N,) int64 from 1 (0 for an empty row) to the row's length.

    Raises:
        ValueError: names the class, what came, and what was expected.
    """
    name = type(component).__name__
    if not isinstance(kept, Tensor) or kept.dtype != torch.int64 or kept.shape != (batch.n_rows,):
        came = f"{kept.dtype} of shape {tuple(kept.shape)}" if isinstance(kept, Tensor) else _kind(kept)
        raise ValueError(f"{name} returned {came}; a cut returns int64 of ({batch.n_rows},)")
    odd = (kept > batch.lengths) | (kept < batch.lengths.clamp(max=1))
    if bool(odd.any()):
        row = int(odd.nonzero()[0, 0])
        raise ValueError(
            f"{name} keeps {int(kept[row])} tokens of row {row}, which has {int(batch.lengths[row])}: a cut keeps "
            "from 1 token to all"
        )
    return kept


def _check_finite(name: str, noun: str, batch: RolloutBatch, value: Tensor) -> None:
    if bool(torch.isfinite(value.sum())):  # a tenth of the time of looking at each
        return
    bad = ~torch.isfinite(value)
    if bool(bad.any()):
        row = int(bad.nonzero()[0, 0])
        raise ValueError(
            f"{name} returned {noun}[{row}]={value[row].tolist()} for prompt "
            f"{batch.prompt_keys[row // batch.group_size]}: it must be finite; check for a division by zero or by an "
            "empty group"
        )


def _kind(value: Any) -> str:
    return "a tuple" if isinstance(value, tuple) else type(value).__name__
