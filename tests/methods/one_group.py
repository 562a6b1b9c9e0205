"""One group of rows, and what a link makes of it: for worked examples."""

from __future__ import annotations

from typing import Any

import torch

from concise_rl.batch import RolloutBatch
from concise_rl.methods.contracts import Transform

LENGTHS, CORRECT = [400, 900, 700, 1600], [1, 1, 0, 1]
"""The group that most worked examples use."""


def one_group(lengths: list[int], correct: list[int], **others: Any) -> RolloutBatch:
    """A batch of one prompt."""
    return RolloutBatch.of(prompt_keys=["q"], group_size=len(lengths), lengths=lengths, correct=correct, **others)


def values(link: Transform, batch: RolloutBatch, value: list[float] | None = None, state: Any = None) -> list[float]:
    """What the link makes of `value`, the task reward unless given, in its first state unless given."""
    handed = batch.task_reward if value is None else torch.tensor(value, dtype=torch.float64)
    out, _ = link(batch, handed, link.init() if state is None else state)
    return out.value.tolist()
