"""The warm-ups by task, those of the shipped checkpoints among them: stages, each going on from the one before.

`concise-rl warmup task=NAME --out DIR` runs one.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from concise_rl.assets import REASONERS, TINY
from concise_rl.data.efforts import Level
from concise_rl.errors import UserError
from concise_rl.testbeds.chain_sum import Overthinking
from concise_rl.testbeds.gym import CountBits, GymOverthinking, SpellBackward
from concise_rl.testbeds.laws import load_checkpoint, measure_checks, measure_law
from concise_rl.testbeds.running_total import Merging, RunningTotal, measured_problems
from concise_rl.testbeds.teacher import AtEfforts
from concise_rl.testbeds.warmup import WarmupConfig, run_warmup
from concise_rl.testbeds.which_sum import RANK_LAW, Checking, WhichSum

logger = logging.getLogger(__name__)

CHAIN_SUM = (
    WarmupConfig(),
    WarmupConfig(
        teacher=Overthinking(recheck_weights=[0.1, 0.3, 0.4, 0.2], plain_share=0.0),
        steps=80,
        learning_rate=1e-4,
        warmup_steps=10,
        seed=1,
    ),
)
"""Learn the task, then the habit of checking oneself more often."""

_M = WarmupConfig(data=RunningTotal(), batch_size=16, max_new_tokens=64)
_MERGING = Merging(jump_weights=(0.5, 0.38, 0.12))
RUNNING_TOTAL = (
    replace(_M, teacher=Merging(plain_share=0.4), steps=3000, like_length=False, start=str(TINY)),
    replace(_M, teacher=_MERGING, steps=2200, like_length=False, seed=1),
    replace(_M, teacher=_MERGING, steps=2200, seed=2),
)
"""Learn the totals, then to merge two or three operations, then that once more, short completions weighing more.

The first stage alone leaves totals of two operations at a third to two thirds of errors: too steep for anything but
every total to pay.
"""

EFFORTS = (
    replace(
        _M,
        teacher=AtEfforts(
            {
                Level.low: Merging(jump_weights=(1, 2, 3, 4, 5, 6, 7, 8)),
                Level.medium: Merging(jump_weights=(3, 1)),
                Level.high: Merging(jump_weights=(1.0,)),
            }
        ),
        steps=3000,
        like_length=False,
        start=str(REASONERS["tiny_running_total"]),
    ),
)
"""From the reasoner of the bed, which merges operations at any prompt: merge many, some or none, as the prompt asks."""

_S = WarmupConfig(data=WhichSum(), max_new_tokens=128)
_HABITS = replace(
    _S,
    teacher=Checking(stop_first=(0.55, 0.5, 0.4, 0.3), recheck_weights=(0.2, 0.4, 0.3, 0.1)),
    steps=400,
    like_length=False,
    learning_rate=3e-4,
)
WHICH_SUM = (
    replace(_S, teacher=Checking(plain_share=0.5), steps=3000, start=str(TINY)),
    replace(_HABITS, seed=1),
    replace(_S, teacher=Checking(plain_share=1.0), steps=1000, seed=2),
    replace(_HABITS, seed=3),
)
"""Learn the checks, then to stop before any of them, at the easy levels the oftener; then both once more.

After the first two stages a tenth of the verdicts on a sum is still wrong, though the sum is right.
"""

_GYM = WarmupConfig(steps=3000, start=str(TINY))
"""From the embedded model, which can look letters up and keep sums already."""

WARMUPS: dict[str, tuple[WarmupConfig, ...]] = {
    "chain_sum": CHAIN_SUM,
    "running_total": RUNNING_TOTAL,
    "efforts": EFFORTS,
    "which_sum": WHICH_SUM,
    "count_bits": (replace(_GYM, data=CountBits(), teacher=GymOverthinking("count_bits")),),
    "spell_backward": (replace(_GYM, data=SpellBackward(), teacher=GymOverthinking("spell_backward")),),
}


def make(task: str, out_dir: str | Path, seed: int = 0) -> dict[str, Any]:
    """Make the reasoner of a task: its stages in turn, each seeded from `seed`; returns the last one's metrics.

    Beside the reasoner of a bed its law is written, `law.json`, measured on the split `law`.

    Raises:
        UserError: there is no such warm-up, or `out_dir` cannot be made.
    """
    if task not in WARMUPS:
        raise UserError(f"task={task} has no warm-up; choose from {', '.join(WARMUPS)}")
    metrics = run_stages(WARMUPS[task], out_dir, seed)
    write_law(task, Path(out_dir))
    return metrics


def write_law(task: str, folder: Path) -> None:
    """Measure the law of a bed on the reasoner in a folder, and write it there; nothing for a task that has none."""
    if task == "running_total":
        measure_law(*load_checkpoint(folder), measured_problems("law")).save(folder / "law.json")
    elif task == "which_sum":
        right = measure_checks(*load_checkpoint(folder), WhichSum().load("law"))
        stored = {"rank_law": {str(n): law for n, law in RANK_LAW.items()}, "checks_right": right}
        (folder / "law.json").write_text(json.dumps(stored, indent=1) + "\n")


def run_stages(stages: Sequence[WarmupConfig], out_dir: str | Path, seed: int = 0) -> dict[str, Any]:
    """The stages in turn; the last one's checkpoint is kept in `out_dir`, and its metrics are returned."""
    metrics: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        start = ""
        for number, stage in enumerate(stages, 1):
            target = Path(out_dir) if number == len(stages) else Path(folder) / str(number)
            metrics = run_warmup(replace(stage, seed=stage.seed + seed, start=start or stage.start), target)
            start = str(target)
            logger.info(
                "stage %d of %d: %.1f %% right at %.1f tokens",
                *(number, len(stages), 100 * metrics["accuracy"], metrics["mean_tokens"]),
            )
    return metrics
