"""Where a method stops thinking: the chance h* that a guess is right, above which its own credit favours the guess.

    python benchmarks/thresholds.py                     # every method, under a minute
    python benchmarks/thresholds.py --weights           # Kimi's weight, with and without the group's scale

On a share h of the problems the short answer is right, on the rest it is wrong; the long answer always is right. Half
of each group answers short, half long. The method's own filters, shapers and advantages give credit, step after step
where they have a memory. Below h* the long answers gain, above it the short ones do (docs/results/findings.md).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.evaluation.predict import GIVEN
from concise_rl.methods.method import Method
from concise_rl.methods.recipes import load_method, read_recipe
from concise_rl.methods.registry import method_names

SHORT_TOKENS, LONG_TOKENS, LIMIT = 4, 16, 128
PROMPTS = 40
STEPS = 8
"""So many visits of each problem: a history has begun, and no schedule has come far."""

COLUMNS = {"difficulty": 4, "oracle_tokens": LONG_TOKENS, "target_tokens": LONG_TOKENS}


def drift(method: Method, group_size: int, right: int) -> float:
    """Mean credit of a short answer minus that of a long one, where the short one is right on so many of the prompts.

    The last of `STEPS` steps on the same batch, so that a memory is of this policy.
    """
    half = group_size // 2
    columns = {need.removeprefix("columns.") for need in method.needs if need.startswith("columns.")}
    lengths = ([SHORT_TOKENS] * half + [LONG_TOKENS] * (group_size - half)) * PROMPTS
    correct = [place >= half or prompt < right for prompt in range(PROMPTS) for place in range(group_size)]
    states, credit = method.init(), torch.zeros(len(lengths))
    for step in range(STEPS):
        batch = RolloutBatch.of(
            prompt_keys=[f"p{prompt}" for prompt in range(PROMPTS)],
            group_size=group_size,
            step=step,
            lengths=lengths,
            correct=correct,
            limits=[LIMIT] * len(lengths),
            think_lengths=[length - 2 for length in lengths],
            columns={name: [COLUMNS[name]] * PROMPTS for name in columns},
        )
        result, states = method.apply(batch, states)
        credit = result.credit
    if credit.ndim == 2:
        credit = credit.sum(1) / torch.tensor(lengths)
    by_group = credit.reshape(PROMPTS, group_size)
    return float(by_group[:, :half].mean() - by_group[:, half:].mean())


def threshold(name: str, fields: Mapping[str, Any] | None = None) -> float:
    """h*: the share of problems at which the drift turns to the short answer; 1: never.

    Raises:
        UserError: the method needs what a batch without a model does not have.
    """
    method = load_method(name, dict(fields or {}))
    if missing := missing_needs(method):
        raise UserError(f"{name} needs {', '.join(sorted(missing))}")
    group_size = int(read_recipe(name).get("trainer", {}).get("num_generations", 8))
    return turning(lambda right: drift(method, group_size, right))


def missing_needs(method: Method) -> set[str]:
    """What a method needs and a batch without a model does not have."""
    given = GIVEN | {f"columns.{name}" for name in COLUMNS}
    return {need for need in method.needs if need not in given}


def turning(drift_at: Callable[[int], float], points: int = PROMPTS) -> float:
    """Where a drift that rises over 0..points first exceeds 0, straight between two points, as a share; 1: never."""
    small = 1e-9
    low, high = -1, points + 1  # at `low` it does not exceed 0, at `high` it does
    found: dict[int, float] = {}
    while high - low > 1:
        middle = (low + high) // 2
        found[middle] = drift_at(middle)
        low, high = (low, middle) if found[middle] > small else (middle, high)
    if high > points:
        return 1.0
    before = found.get(low, 0.0)
    return max(0.0, (low + (-before / (found[high] - before) if before < 0 else 0.0)) / points)


def thresholds() -> dict[str, float | str]:
    """Method to h*, or to the reason why it has none here."""
    found: dict[str, float | str] = {}
    for name in method_names():
        try:
            found[name] = threshold(name)
        except UserError as error:
            found[name] = str(error)
    return found


def scaled_and_not(weights: Sequence[float] = (0.05, 0.25, 0.5, 1.0, 2.0)) -> list[tuple[float, float, float, float]]:
    """Kimi's weight, h* with the group's scale and without it, and the formula (1 - w/2) / (1 + w/2) of the latter."""
    return [
        (
            weight,
            threshold("kimi", {"shaper.kimi_length.weight": weight}),
            threshold("kimi", {"shaper.kimi_length.weight": weight, "advantage.group_relative.scale": "none"}),
            max(0.0, (1 - weight / 2) / (1 + weight / 2)),
        )
        for weight in weights
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", action="store_true", help="Kimi's weight, with and without the group's scale")
    options = parser.parse_args()
    if options.weights:
        for weight, scaled, unscaled, formula in scaled_and_not():
            print(f"w={weight:<5g} scaled by the group {scaled:.3f}   unscaled {unscaled:.3f}   formula {formula:.3f}")
        return
    for name, found in thresholds().items():
        print(f"{name:20s} {found if isinstance(found, str) else f'{found:.2f}'}")


if __name__ == "__main__":
    main()
