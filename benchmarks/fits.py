"""What a recipe must be told of a task: its levels, and in tokens of its answers what papers say in thousands.

A limit, a target or a budget of 4,000 tokens asks nothing of answers of twenty. As a multiple of the tokens with which
the task's reasoner begins it asks what the paper's own asks of a language model; the recipes' headers give the same
for the embedded task.
"""

from __future__ import annotations

from benchmarks.reasoners import REASONERS
from concise_rl.methods.recipes import read_recipe
from concise_rl.testbeds.beds import BEDS

START = {"running_total": 10.7, "which_sum": 19.0}
"""Mean tokens of each bed's reasoner before training, on the test problems."""

MULTIPLES: dict[str, dict[str, float]] = {
    "acoer": {"shaper.acoer.B0": 12, "shaper.acoer.min_budget": 1.2},  # in characters, four a token
    "effort": {"shaper.effort.ub": 2.3},
    "l1_exact": {"edit.l1_prompt.low": 0.4, "edit.l1_prompt.high": 2.2},
    "l1_max": {"edit.l1_prompt.low": 0.4, "edit.l1_prompt.high": 2.2},
    "laser": {"shaper.laser.target": 1.2},
    "laser_d": {"shaper.laser.target": 1.2, "shaper.laser.lower": 0.3, "shaper.laser.grid_step": 0.3},
    "laser_de": {"shaper.laser.target": 1.2, "shaper.laser.lower": 0.3, "shaper.laser.grid_step": 0.3},
    "leash": {"shaper.leash.T": 0.9},
    "short_rl": {"shaper.lazy.tau": 0.2},
}
"""Method and field to a multiple of `START`, rounded to whole tokens."""

RATES = {"leash": ("shaper.leash.eta=0.05",), "shorter_better": ("shaper.shorter_better.beta=0.03",)}
"""A step, and a price of a token, that go with answers of that size."""

STAGES = {
    "length_stages": "{{stages: [[0, {most}], [{third}, {between}], [{two_thirds}, {least}]]}}",
    "siri": "{{cosine_limit: {{maximum: {most}, minimum: {least}, period: {third}}}}}",
}
"""Limits of tokens that change in a run, from its own limit on."""


def of_task(method: str, task: str) -> tuple[str, ...]:
    """Overrides without which the method's recipe asks nothing, or too much, of this task."""
    if method == "gui_g1":
        return of_levels(task)
    start = START.get(task)
    if start is None:
        return ()
    found = [f"{field}={max(1, round(share * start))}" for field, share in MULTIPLES.get(method, {}).items()]
    return (*found, *RATES.get(method, ()), *of_limits(method, task))


def of_levels(task: str) -> tuple[str, ...]:
    """GUI-G1's difficulty: the task's levels, or pass rates where it has none."""
    prefix = "advantage.difficulty_weighted"
    levels = REASONERS[task].levels
    if levels is None:
        return (f"{prefix}.kind=pass_rate", *(f"{prefix}.{name}=null" for name in ("column", "minimum", "maximum")))
    return (f"{prefix}.minimum={levels[0]}", f"{prefix}.maximum={levels[1]}")


def of_limits(method: str, task: str) -> tuple[str, ...]:
    """A schedule of the limit over the steps of the task's recipe, down to twice what its answers take."""
    if method not in STAGES:
        return ()
    trainer = read_recipe(BEDS[task].model, "model")["trainer"]
    steps, most, least = trainer["max_steps"], trainer["max_completion_length"], round(2 * START[task])
    schedule = STAGES[method].format(
        most=most, least=least, between=(most + least) // 2, third=steps // 3, two_thirds=2 * steps // 3
    )
    return (f"trainer.max_completion_length={schedule}",)
