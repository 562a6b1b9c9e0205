"""A step's rows in TRL's asynchronous trainer, between the worker that made them and the loss that learns from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from trl.experimental.async_grpo.async_rollout_worker import RolloutSample

from concise_rl.batch import RolloutBatch
from concise_rl.methods.losses.policy_loss import PolicyLoss, StepTotals
from concise_rl.methods.method import States
from concise_rl.rollouts import LocalRollout, StepRecord
from concise_rl.verifiers import Verdict


@dataclass
class Made:
    """The rows of a step, from when they are judged until the step has learned from them.

    Attributes:
        step: that uses them, optimizer steps before it.
        version: TRL's, of the oldest weights that sampled them.
        prompt_ids: of each row.
        rows: whole groups, judged.
        states: of the method before it saw them.
        record: what the method made of them.
    """

    step: int
    version: int
    prompt_ids: list[list[int]]
    rows: list[LocalRollout]
    states: States
    record: StepRecord

    def saved(self) -> dict[str, Any]:
        """What `RolloutWorker.restore` needs of it, as JSON takes it; what the method makes of it follows."""
        rows = [dataclasses.asdict(dataclasses.replace(row, token_ids=list(row.token_ids))) for row in self.rows]
        return {"step": self.step, "version": self.version, "prompt_ids": self.prompt_ids, "rows": rows}


def rows_of(saved: Mapping[str, Any]) -> list[LocalRollout]:
    """The rows that `Made.saved` was given."""
    return [LocalRollout(**{**row, "verdict": Verdict(**row["verdict"])}) for row in saved["rows"]]


def loss_scale(batch: RolloutBatch, loss: PolicyLoss, microbatch: int) -> Tensor:
    """(N,) float64, what a row's credit is multiplied by so that TRL's loss has the recipe's denominators.

    TRL divides a micro-batch of `microbatch` rows by its tokens in the loss, and by the micro-batches of a step. The
    clipped loss is proportional to the credit, so a factor of the row makes any weights of rows out of that.
    """
    mask_NT = (torch.arange(int(batch.lengths.max())) < batch.lengths[:, None]) & batch.counts[:, None]
    tokens = float(mask_NT.sum())
    weight_N = loss.weights(mask_NT, StepTotals(float(batch.counts.sum()), tokens, tokens)).double().amax(dim=1)
    there_N = torch.where(batch.counts, batch.lengths, 1).double()
    tokens_N = there_N.view(-1, microbatch).sum(dim=1).repeat_interleave(microbatch)
    return weight_N * tokens_N * (len(weight_N) // microbatch)


def samples_of(made: Made, advantage_N: Tensor) -> list[RolloutSample]:
    """A step's rows as TRL takes them; what does not count keeps one token, with advantage 0.

    TRL's loss fails where a process has no token of its own.
    """
    samples = []
    group_size, counts = made.record.batch.group_size, made.record.batch.counts.tolist()
    for n, (row, prompt) in enumerate(zip(made.rows, made.prompt_ids, strict=True)):
        tokens, before = len(row.token_ids), len(prompt)
        taught = tokens if counts[n] else 1
        samples.append(
            RolloutSample(
                prompt=[{"role": "user", "content": row.prompt}],
                completion=[{"role": "assistant", "content": row.completion}],
                input_ids=np.array([*prompt, *row.token_ids], dtype=np.int64),
                completion_mask=np.array([0] * before + [1] * taught + [0] * (tokens - taught), dtype=np.int64),
                old_log_probs=np.array([0.0] * before + list(row.sampler_logprobs or ()), dtype=np.float32),
                advantage=float(advantage_N[n]),
                model_version=made.version,
                group_id=made.step * (len(made.rows) // group_size) + n // group_size,
                metrics={},
            )
        )
    return samples
