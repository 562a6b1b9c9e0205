"""Schedules: the value of a field at an optimizer step, counted from 0.

Any float field of a component takes one in place of a number, and so do `trainer.max_completion_length` and
`trainer.temperature`: `shaper.kimi_length.weight={linear: {start: 0, end: 1, steps: 50}}`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from concise_rl.errors import UserError
from concise_rl.methods.contracts import Schedule
from concise_rl.methods.registry import closest


@dataclass
class Linear:
    """From `start` to `end` in a straight line over `steps` steps, then `end`. A warm-up of a coefficient starts at 0.

    v(t) = start + (end - start) * min(1, t / steps)
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _at_least_one("linear.steps", self.steps)

    @property
    def turns(self) -> tuple[int, ...]:
        return (self.steps - 1,)

    def __call__(self, step: int) -> float:
        return self.start + (self.end - self.start) * min(1.0, step / self.steps)


@dataclass
class CosineRamp:
    """From `start` to `end` along half a cosine over `steps` steps, then `end`.

    v(t) = end + (start - end) * (1 + cos(pi * min(1, t / steps))) / 2
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _at_least_one("cosine.steps", self.steps)

    @property
    def turns(self) -> tuple[int, ...]:
        return (self.steps - 1,)

    def __call__(self, step: int) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * min(1.0, step / self.steps))) / 2


@dataclass
class Exponential:
    """Multiplied by `factor` every `every` steps: the budget of Train Long, Think Short (arXiv 2508.08940).

        v(t) = max(minimum, start * factor ** floor(t / every))

    The defaults are the paper's, but for its minimum of 1.
    """

    start: float = 256.0
    factor: float = 0.7
    every: int = 100
    minimum: float = 0.0

    stair: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _at_least_one("exponential.every", self.every)
        if not self.factor > 0:
            raise UserError(f"exponential.factor={self.factor}: must be positive")

    @property
    def turns(self) -> tuple[int, ...]:
        return (self.every,)

    def __call__(self, step: int) -> float:
        return max(self.minimum, self.start * self.factor ** (step // self.every))


@dataclass
class CosineLimit:
    """SIRI: a limit that shrinks and grows again, whole tokens (arXiv 2509.25176).

        limit(t) = floor((maximum + minimum) / 2 + (maximum - minimum) / 2 * cos(2 pi t / period))

    It starts at `maximum`, reaches `minimum` at half a period, and comes back. The defaults are the paper's.
    """

    maximum: int = 16384
    minimum: int = 8192
    period: int = 640

    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _at_least_one("cosine_limit.period", self.period)
        if not 1 <= self.minimum <= self.maximum:
            raise UserError(
                f"cosine_limit.minimum={self.minimum}, maximum={self.maximum}: need 1 <= minimum <= maximum"
            )

    @property
    def turns(self) -> tuple[int, ...]:
        return (self.period // 2,)

    def __call__(self, step: int) -> float:
        middle, swing = (self.maximum + self.minimum) / 2, (self.maximum - self.minimum) / 2
        # A cosine that is 0 in exact arithmetic comes out as 1e-16 of a token below a whole number.
        return math.floor(middle + swing * math.cos(2 * math.pi * step / self.period) + 1e-9)


@dataclass
class Stages:
    """Steps of a stair: `[[0, 4000], [180, 3000], [360, 2000]]` is the value of the last stage that has begun.

    ThinkPrune (arXiv 2504.01296) takes the limit down so, DeepScaleR up.

    Raises:
        UserError: no stage, the first does not start at 0, or starts do not rise.
    """

    stages: Sequence[Sequence[float]]

    stair: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.stages or any(len(stage) != 2 for stage in self.stages):
            raise UserError(f"stages={self.stages!r}: give [[0, value], [start, value], ...]")
        starts = [start for start, _ in self.stages]
        if starts[0] != 0 or sorted(set(starts)) != starts:
            raise UserError(f"stages={self.stages!r}: the first stage starts at 0 and starts rise")

    @property
    def turns(self) -> tuple[int, ...]:
        return tuple(int(start) for start, _ in self.stages[1:])

    def __call__(self, step: int) -> float:
        return [value for start, value in self.stages if start <= step][-1]


SCHEDULES: dict[str, type] = {
    "linear": Linear,
    "cosine": CosineRamp,
    "exponential": Exponential,
    "cosine_limit": CosineLimit,
    "stages": Stages,
}
"""Every schedule by the name that recipes and the command line use."""


def is_schedule(value: Any) -> bool:
    """Whether a configured value names a schedule: a mapping with one name."""
    return isinstance(value, Mapping)


def schedule_of(field: str, value: Mapping[str, Any]) -> Schedule:
    """`{cosine: {start: 1, end: 0, steps: 100}}` as its schedule; `{stages: [[0, 4000], ...]}` too.

    Raises:
        UserError: not one name with its fields, an unknown name or field, or a value that the schedule refuses.
    """
    if len(value) != 1:
        raise UserError(f"{field}={dict(value)}: a schedule is {{name: {{field: value}}}}, such as {{linear: {{...}}}}")
    ((name, fields),) = value.items()
    if name not in SCHEDULES:
        raise UserError(f"{field}: schedule {name!r} is not known{closest(str(name), SCHEDULES)}")
    arguments = fields if isinstance(fields, Mapping) else {"stages": fields}
    try:
        # None stands where a recipe takes the value from elsewhere in the run: the schedule's own default.
        return SCHEDULES[name](**{str(key): item for key, item in arguments.items() if item is not None})
    except TypeError as error:
        raise UserError(f"{field}={{{name}: ...}}: {_reason(error)}") from error


def out_of_reach(schedules: Mapping[str, Schedule], steps: int) -> list[str]:
    """What a run of so many steps will not see of its schedules, a sentence each.

    `turns` of a schedule are the steps that show where it leads; a `stair` stands still before the first of them.

    Raises:
        UserError: a stair whose second stage the run never reaches: the run would be one without a schedule.
    """
    told = []
    for name, schedule in schedules.items():
        turns: tuple[int, ...] = getattr(schedule, "turns", ())
        missed = [turn for turn in turns if turn >= steps]
        if missed and missed[0] == turns[0] and getattr(schedule, "stair", False):
            raise UserError(
                f"{name} stays {schedule(0):g} up to step {turns[0]}, and trainer.max_steps={steps} ends before: train "
                "longer, or let the second stage start earlier"
            )
        if missed:
            told.append(
                f"{name} leads to {schedule(missed[-1]):g} at step {missed[-1]}, but trainer.max_steps={steps} ends at "
                f"{schedule(steps - 1):g}: train longer, or shorten the schedule to see it whole"
            )
    return told


def _reason(error: TypeError) -> str:
    return str(error).replace("__init__() ", "").split(".", 1)[-1]


def _at_least_one(field: str, value: int) -> None:
    if value < 1:
        raise UserError(f"{field}={value}: must be 1 or more")
