"""Every prompt weighs the same in the loss, whatever its tokens: ScaleRL's aggregation as a link of the chain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.methods.contracts import Advantage, Out
from concise_rl.methods.losses.aggregation import prompt_average_weights


@dataclass
class PromptAverage(Advantage):
    """Rescales credit so that a loss which averages over all tokens of the step averages over prompts instead.

        A = credit * (tokens of the step) / (kept prompts * tokens of the prompt)

    A token mean (TRL's `dapo`, `cispo`, `bnpo`) weighs each token 1 / (tokens of the step); times this factor it weighs
    `prompt_average_weights`, ScaleRL's prompt average (arXiv 2510.13786 section 3). Tokens are those of rows that
    count. A prompt with the step's mean number of tokens keeps its credit, shorter prompts gain, longer ones lose.
    With a KL term or an entropy bonus those parts stay token means. Clipping sees the sign of credit alone, so it is
    untouched. Put it last.
    """

    @property
    def across_groups(self) -> bool:
        """A prompt's share depends on the tokens of the others."""
        return True

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Credit of the shape that came, (N,) or (N, T)."""
        tokens = torch.where(batch.counts, batch.lengths, 0).sum()
        factor_N = prompt_average_weights(batch) * tokens
        return Out(value * (factor_N if value.ndim == 1 else factor_N[:, None]))
