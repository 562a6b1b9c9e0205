"""A shaper that changes nothing and remembers every rollout that it was given, with the state of the run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.engine import checkpoint
from concise_rl.methods import Out, Shaper
from concise_rl.reporting.run_log import StoredStep, read_metrics, read_rollouts


@dataclass
class Witness(Shaper):
    """The reward as it came; the state is one digest a generation, in the order in which they were consumed."""

    def init(self) -> list[str]:
        return []

    def __call__(self, batch: RolloutBatch, value: Tensor, state: list[str]) -> tuple[Out, list[str]]:
        return Out(value), [*state, digest(batch)]


def digest(batch: RolloutBatch) -> str:
    """A generation as a short text: its step, its prompts, and each row's length and verdict."""
    rows = [batch.step, list(batch.prompt_keys), batch.lengths.tolist(), batch.correct.tolist()]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def consumed(last: Path) -> list[str]:
    """The digests in the state of a run's last checkpoint."""
    return checkpoint.load_state(last)[0]["shaper.Witness"]


def faults(run: Path, last: Path, steps: int, prompts: int | None) -> list[str]:
    """What is wrong with what a finished run consumed; nothing where each rollout was used exactly once.

    Args:
        last: its last checkpoint.
        steps: that it was to take, one generation each.
        prompts: of the data set, each to be drawn once an epoch; None where groups are refilled with others.
    """
    logged = list(read_rollouts(run))
    found, every = [], list(range(1, steps + 1))
    metrics = [line["step"] for line in read_metrics(run)]
    for name, its_steps in (("rollouts", [step.step for step in logged]), ("metrics", metrics)):
        if its_steps != every:
            found.append(f"the {name} of steps {its_steps} are logged")
    checkpoint.newest_complete(run, found.append)
    if consumed(last) != [digest(step.batch) for step in logged]:
        found.append("what the state consumed is not what is logged, rollout for rollout")
    return found + (_epochs(logged, prompts) if prompts else [])


def _epochs(logged: list[StoredStep], prompts: int) -> list[str]:
    drawn = [prompt for step in logged for prompt in step.batch.prompt_keys]
    found = []
    for number, start in enumerate(range(0, len(drawn) - prompts + 1, prompts), start=1):
        twice = prompts - len(set(drawn[start : start + prompts]))
        if twice:
            found.append(f"epoch {number} draws {twice} of {prompts} prompts twice, and as many never")
    return found
