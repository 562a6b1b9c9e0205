"""What `concise-rl plan` was asked for: its own keys, and the rest for the training configuration."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from concise_rl.errors import UserError
from concise_rl.planning.models import dimensions_of
from concise_rl.planning.plan import Plan
from concise_rl.planning.workload import HARDWARE, LAYOUTS, workload_of

RUNS = {"cpu2": "cpu", "h100x1": "gpu1", "h100x8": "gpu8"}
"""The run recipe that a machine takes, where none is named."""

SHORT = {"group_size": "trainer.num_generations", "steps": "trainer.max_steps"}
LENGTHS = ("prompt_tokens", "completion_tokens", "prompts_per_step")


@dataclass(frozen=True)
class PlanRequest:
    """A plan's keys, and the overrides that `concise-rl train` would take."""

    hardware: str
    layout: str
    lengths: dict[str, int]
    price: float | None
    overrides: list[str]

    @classmethod
    def of(cls, arguments: Sequence[str]) -> PlanRequest:
        """Sort `key=value` arguments.

        Raises:
            UserError: an argument that is no `key=value`, an unknown machine or layout, a number that is none.
        """
        given, overrides = {}, []
        for argument in arguments:
            name, equals, value = argument.partition("=")
            if not equals:
                raise UserError(f"plan takes key=value, not {argument!r}: model=qwen3_1.7b hardware=h100x8 steps=500")
            if name in ("hardware", "layout", "price", *LENGTHS):
                given[name] = value
            else:
                if name in SHORT:
                    _number(name, value)
                overrides.append(f"{SHORT.get(name, name)}={value}")
        runs = [item.removeprefix("run=") for item in overrides if item.startswith("run=")]
        machines = {"gpu8_server": "h100x8"} | {run: machine for machine, run in RUNS.items()}
        hardware = given.get("hardware") or machines.get(runs[-1] if runs else "cpu", "cpu2")
        if hardware not in HARDWARE:
            _refuse("hardware", hardware, HARDWARE)
        layout = given.get("layout") or ("ddp" if HARDWARE[hardware].ranks == 1 else "zero2")
        if layout not in LAYOUTS:
            _refuse("layout", layout, LAYOUTS)
        if not runs:
            overrides.insert(0, f"run={RUNS[hardware]}")
        lengths = {name: int(_number(name, given[name])) for name in LENGTHS if name in given}
        price = _number("price", given["price"]) if "price" in given else None
        return cls(hardware, layout, lengths, price, overrides)

    @property
    def title(self) -> str:
        return " ".join(["plan", f"hardware={self.hardware}", f"layout={self.layout}", *self.overrides])

    def plan(self) -> Plan:
        """The plan of the configuration that these overrides compose.

        Raises:
            UserError: it does not compose, its model is unknown, or its lengths and rows do not fit together.
        """
        from concise_rl.commands import config

        composed = config.compose(self.overrides)
        method, hardware = config.method_of(composed), HARDWARE[self.hardware]
        if composed.trainer.get("use_vllm") and composed.trainer.get("vllm_mode") == "server":
            hardware = replace(hardware, ranks=max(1, hardware.ranks // 2))  # the server has the other half
        work = workload_of(
            composed,
            hardware,
            self.layout,
            self.lengths,
            needs=method.needs,
            history=bool(method.init()),
        )
        return Plan(dimensions_of(composed.model.path), work, hardware)


def _number(name: str, value: str) -> float:
    try:
        number = float(value) if name == "price" else int(value)
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        raise UserError(f"{name}={value}: give a positive {'number' if name == 'price' else 'whole number'}")
    return number


def _refuse(name: str, value: str, known: Sequence[str] | dict) -> NoReturn:
    near = difflib.get_close_matches(value, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}"
    raise UserError(f"{name}={value} is not known; {hint}")
