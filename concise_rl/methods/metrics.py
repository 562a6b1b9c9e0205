"""The scalars of a step that every method logs, whatever it shapes."""

from __future__ import annotations

from torch import Tensor

from concise_rl.batch import RolloutBatch


def step_metrics(
    batch: RolloutBatch, reward: Tensor, credit: Tensor, *, taught: RolloutBatch | None = None
) -> dict[str, float]:
    """The scalars that every method logs, whatever it shapes. Keys are explained in the metric glossary.

    Args:
        batch: as it was judged.
        reward: (N,) shaped.
        credit: (N,) or (N, T).
        taught: the batch as the method saw it, where rows were left out; rewards and credits are counted over it.
    """
    taught = taught or batch
    credit_N = credit if credit.ndim == 1 else credit.sum(dim=1)
    touched_N = credit != 0 if credit.ndim == 1 else (credit != 0).any(dim=1)
    scorable, correct, lengths = batch.scorable, batch.correct, batch.lengths.double()

    def mean(values: Tensor, of: Tensor | None = None) -> float:
        chosen = values.double() if of is None else values.double()[of]
        return float(chosen.mean()) if chosen.numel() else 0.0

    metrics = {
        "accuracy": mean(correct, scorable),
        "mean_tokens": mean(lengths),
        "truncated_frac": mean(batch.truncated),
        "unscorable_frac": mean(~scorable),
        "reward": mean(reward, taught.counts),
        "task_reward": mean(batch.task_reward, taught.counts),
        "zero_variance_frac": mean(taught.without_variance(reward)),
        "zero_credit_frac": mean(~touched_N),
        "wiped_correct_frac": mean(credit_N < 0, correct & taught.counts),
    }
    if bool((correct & scorable).any()):
        metrics["mean_tokens_correct"] = mean(lengths, correct & scorable)
    if bool((~correct & scorable).any()):
        metrics["mean_tokens_wrong"] = mean(lengths, ~correct & scorable)
    if batch.mean_entropy is not None:
        metrics["mean_entropy"] = mean(batch.mean_entropy)
    return metrics
