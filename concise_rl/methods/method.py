"""A method: the components of one recipe, and the chain from task reward to credit that they make."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.data.base import Prompt
from concise_rl.errors import UserError
from concise_rl.methods.contracts import (
    Advantage,
    Component,
    Curriculum,
    Cut,
    Edit,
    Filter,
    Sampler,
    Schedule,
    Shaper,
    State,
    Transform,
    check_keep,
    check_kept_tokens,
    check_value,
)
from concise_rl.methods.statistics import zero_where_out

States = dict[str, State]
"""The state of each stateful component, by its slot."""


@dataclass(frozen=True)
class Result:
    """What a method makes of a batch.

    Attributes:
        reward: (N,) float64, shaped.
        credit: (N,) or (N, T) float64, 0 in rows that do not count.
        counts: (N,) bool, the rows that taught.
        metrics: what the components logged.
    """

    reward: Tensor
    credit: Tensor
    counts: Tensor
    metrics: dict[str, float]


@dataclass
class Method:
    """What is compared between papers. Components stand by slot, `shaper.hapo`, in the order in which they apply.

    Attributes:
        name: of the recipe.
        components: slot to component; each of the class that its kind asks for.
        schedules: `slot.field` to the schedule of that field; `trainer.max_completion_length` and
            `trainer.temperature` too.
        loss: TRL's fields that the recipe sets (`loss_type`, `epsilon_high`, ...).

    Raises:
        UserError: a replacing shaper is not first, an advantage is missing, or a slot that holds one has two.
    """

    name: str
    components: Mapping[str, Component]
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    loss: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for slot, component in self.components.items():
            kind = KINDS[slot.partition(".")[0]]
            if not isinstance(component, kind):
                raise UserError(
                    f"{slot} is {type(component).__name__}, which is no {kind.__name__}: derive it from "
                    f"concise_rl.methods.{kind.__name__}"
                )
        for place, shaper in enumerate(self.shapers):
            if place and shaper.replaces:
                raise UserError(
                    f"method.shapers: {type(shaper).__name__} replaces the reward, so what stands before it is lost: "
                    "put it first, and leave out a second one that replaces"
                )
        if not any(isinstance(c, Advantage) for c in self.components.values()):
            raise UserError("method.advantage names none: use group_relative for GRPO's")

    # -- the parts -----------------------------------------------------------------------------------------------------

    def of_kind(self, kind: type) -> Iterator[tuple[str, Any]]:
        """The components of a kind with their slots, in order."""
        return ((slot, c) for slot, c in self.components.items() if isinstance(c, kind))

    @property
    def shapers(self) -> list[Shaper]:
        return [c for _, c in self.of_kind(Shaper)]

    @property
    def advantages(self) -> list[Advantage]:
        return [c for _, c in self.of_kind(Advantage)]

    @property
    def filters(self) -> list[Filter]:
        return [c for _, c in self.of_kind(Filter)]

    @property
    def curriculum(self) -> Curriculum | None:
        return next((c for _, c in self.of_kind(Curriculum)), None)

    @property
    def sampler(self) -> Sampler | None:
        return next((c for _, c in self.of_kind(Sampler)), None)

    @property
    def class_names(self) -> dict[str, str]:
        """Slot to the name of its component's class, by which a checkpoint knows the method."""
        return {slot: type(component).__name__ for slot, component in self.components.items()}

    @property
    def cut(self) -> Cut | None:
        return next((c for _, c in self.of_kind(Cut)), None)

    @property
    def edit(self) -> Edit | None:
        return next((c for _, c in self.of_kind(Edit)), None)

    @property
    def schedule(self) -> Schedule | None:
        """The one schedule of a method that has exactly one."""
        return next(iter(self.schedules.values())) if len(self.schedules) == 1 else None

    @property
    def needs(self) -> frozenset[str]:
        """What the components together ask of a batch."""
        return frozenset().union(*(c.needs for c in self.components.values()))

    def at(self, slot: str, step: int) -> Any:
        """The component of a slot with its scheduled fields as they are at a step."""
        due = self.scheduled(slot, step)
        return replace(self.components[slot], **due) if due else self.components[slot]  # type: ignore[type-var]

    def scheduled(self, slot: str, step: int) -> dict[str, float]:
        """The scheduled fields of a slot, or of `trainer`, as they are at a step."""
        prefix = f"{slot}."
        return {name.removeprefix(prefix): s(step) for name, s in self.schedules.items() if name.startswith(prefix)}

    @property
    def of_sampling(self) -> list[str]:
        """Slots and schedules that act on what is sampled: `apply`, which gets it as it is, does nothing of them."""
        slots = [slot for slot, c in self.components.items() if isinstance(c, Edit | Curriculum | Sampler | Cut)]
        return slots + [name for name in self.schedules if name.startswith("trainer.")]

    # -- the step ------------------------------------------------------------------------------------------------------

    def init(self) -> States:
        """The states before the first step, those of stateless components left out."""
        states = {slot: c.init() for slot, c in self.components.items()}
        return {slot: state for slot, state in states.items() if state is not None}

    def apply(self, batch: RolloutBatch, states: States) -> tuple[Result, States]:
        """Filters, shapers and advantages in order; the states handed in count as consumed.

        Edit, curriculum, sampler, cut and the schedules of sampling come before: `of_sampling` names what is left to
        the caller.

        Raises:
            ValueError: a component returned a wrong type or shape, or a number that is not finite; names it.
        """
        states, metrics = dict(states), dict[str, float]()
        batch, states = self.filter(batch, states)
        value, reward = batch.task_reward, batch.task_reward
        for slot, link in self.of_kind(Transform):
            out, state = _pair(link, self.at(slot, batch.step)(batch, value, states.get(slot)))
            value = check_value(link, batch, out)
            metrics |= out.metrics
            states = _kept(states, slot, state)
            reward = value if isinstance(link, Shaper) else reward
        return Result(reward, zero_where_out(batch, value), batch.counts, metrics), states

    def filter(self, batch: RolloutBatch, states: States) -> tuple[RolloutBatch, States]:
        """The batch with the filters' answers in its `counts`, each seeing those of the ones before."""
        for slot, component in self.of_kind(Filter):
            keep, state = _pair(component, self.at(slot, batch.step)(batch, states.get(slot)))
            batch = batch.replace(counts=batch.counts & check_keep(component, batch, keep))
            states = _kept(states, slot, state)
        return batch, states

    def edit_at(self, step: int) -> Edit | None:
        """The edit with its scheduled fields as they are at a step."""
        return next((self.at(slot, step) for slot, _ in self.of_kind(Edit)), None)

    def kept_tokens(self, batch: RolloutBatch) -> Tensor:
        """(N,) int64, how many of its sampled tokens each row keeps; all of them without a cut.

        Raises:
            ValueError: the cut's answer is none; names it.
        """
        for slot, cut in self.of_kind(Cut):
            return check_kept_tokens(cut, batch, self.at(slot, batch.step)(batch))
        return batch.lengths

    def observe(self, batch: RolloutBatch, states: States) -> States:
        """The states with the step in the curriculum's."""
        for slot, _ in self.of_kind(Curriculum):
            states = _kept(states, slot, self.at(slot, batch.step).observe(batch, states.get(slot)))
        return states

    def draw(
        self, prompts: Sequence[Prompt], n: int, used: Collection[str], rng: random.Random, states: States, step: int
    ) -> list[int]:
        """Indices of up to `n` prompts that the curriculum wants next.

        Raises:
            ValueError: it drew what is used, twice the same, or no index; names it.
        """
        ((slot, curriculum),) = self.of_kind(Curriculum)
        drawn = self.at(slot, step).draw(prompts, n, used, rng, states.get(slot))
        ids = [prompts[i].id for i in drawn if isinstance(i, int) and 0 <= i < len(prompts)]
        if len(ids) != len(drawn) or len(drawn) > n or set(ids) & set(used):
            raise ValueError(
                f"{type(curriculum).__name__}.draw returned {drawn!r}; it must be up to {n} indices of prompts "
                f"(0 to {len(prompts) - 1}) that are not used"
            )
        return drawn


KINDS: dict[str, type] = {
    "edit": Edit,
    "curriculum": Curriculum,
    "sampler": Sampler,
    "cut": Cut,
    "filter": Filter,
    "shaper": Shaper,
    "advantage": Advantage,
}
"""The first word of a slot to the class of its component, in the order of a step."""


def _pair(component: Component, returned: Any) -> tuple[Any, State]:
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise ValueError(
            f"{type(component).__name__} returned {type(returned).__name__}; a component that is called returns a "
            "pair, (what it made, its new state)"
        )
    return returned


def _kept(states: States, slot: str, state: State) -> States:
    return states if state is None and slot not in states else {**states, slot: state}
