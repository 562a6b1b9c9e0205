"""A simulated run: what a trainer would hand to the sinks, without a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from concise_rl.batch import RolloutBatch
from concise_rl.reporting.summary import Answer, CompletionPair
from concise_rl.rollouts import StepRecord

HOSTILE = (
    "<think>7+4=11 </script><script>window.hacked = 1</script> [bold]11[/bold] <img src=x onerror=alert(1)></think>11"
)


def fake_batch(seed: int, *, step: int = 0, prompts: int = 3, group: int = 4, tokens: bool = True) -> RolloutBatch:
    """A random batch with every optional field."""
    draw = torch.Generator().manual_seed(seed)
    rows = prompts * group
    lengths = torch.randint(1, 40, (rows,), generator=draw)
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    optional: dict[str, Any] = {
        name: torch.rand(rows, generator=draw, dtype=torch.float64)
        for name in ("think_entropy", "answer_entropy", "mean_entropy")
    }
    if tokens:
        optional |= {"entropies": torch.rand(mask.shape, generator=draw) * mask}
        optional |= {"logprobs": -torch.rand(mask.shape, generator=draw).exp() * mask}
    return RolloutBatch.of(
        prompt_keys=[f"{seed:08x}{p:08x}" for p in range(prompts)],
        group_size=group,
        step=step,
        lengths=lengths,
        correct=torch.rand(rows, generator=draw) < 0.9,
        scorable=torch.rand(rows, generator=draw) < 0.95,
        truncated=torch.rand(rows, generator=draw) < 0.05,
        task_reward=torch.rand(rows, generator=draw, dtype=torch.float64),
        think_lengths=(lengths * 0.7).long(),
        parts={"format": torch.rand(rows, generator=draw, dtype=torch.float64)},
        columns={"difficulty": [0.1 * p for p in range(prompts)], "name": [f"ä {p}" for p in range(prompts)]},
        **optional,
    )


def fake_run(steps: int, *, seed: int = 0, start: int = 0, token_credit: bool = False) -> Iterator[StepRecord]:
    """Records of a run in which tokens fall from 55 to 25; the same step is the same record in every run."""
    for step in range(start, steps):
        batch = fake_batch(1000 * seed + step, step=step)
        draw = torch.Generator().manual_seed(7919 * seed + step)
        noise = torch.randn(8, generator=draw).tolist()
        reward = torch.rand(batch.n_rows, generator=draw, dtype=torch.float64)
        progress = 1 - 2.718 ** (-4 * step / max(1, steps))
        tokens = 55 - 30 * progress + noise[0]
        metrics = {
            "accuracy": min(1.0, 0.95 - 0.03 * progress * (1 - progress) * 4 + 0.01 * noise[1]),
            "mean_tokens": tokens,
            "mean_tokens_correct": tokens - 1,
            "mean_tokens_wrong": tokens + 9 + noise[2],
            "truncated_frac": max(0.0, 0.02 + 0.01 * noise[3]),
            "unscorable_frac": 0.0,
            "entropy": 0.25 - 0.1 * progress + 0.01 * noise[4],
            "reward": 0.7 + 0.2 * progress + 0.02 * noise[5],
            "task_reward": 0.95,
            "zero_variance_frac": 0.1,
            "zero_credit_frac": 0.12,
            "wiped_correct_frac": 0.2 + 0.02 * noise[6],
            "loss": 0.01 * noise[7],
            "grad_norm": 0.4 + 0.05 * abs(noise[0]),
            "learning_rate": 1e-4 * (1 - step / steps),
            "step_time": 3.0,
            "generate_seconds": 2.0,
            "shaper/mean_gain": 0.3 * progress,
        }
        credit = reward - reward.mean()
        yield StepRecord(
            batch=batch,
            reward=reward,
            credit=credit[:, None] * (batch.entropies > 0) if token_credit else credit,
            prompts=[f"{p} + 4 = ?" for p in range(batch.n_prompts)],
            completions=[f"<think>{n} + 4 = {n + 4}</think>{n + 4} ✓" for n in range(batch.n_rows)],
            metrics=metrics,
            finishes=["limit" if cut else "eos" for cut in batch.truncated.tolist()],
        )


def feed(sink: Any, records: Iterable[StepRecord]) -> None:
    """What the trainer tells a sink: each generation, then the step that it trained."""
    for record in records:
        sink.on_rollouts(record)
        sink.on_metrics(record.batch.step + 1, record.metrics)


BEFORE = {
    "accuracy": 0.955,
    "accuracy_interval": [0.935, 0.970],
    "mean_tokens": 55.0,
    "mean_tokens_interval": [53.6, 56.4],
    "mean_tokens_correct": 54.1,
    "mean_tokens_wrong": 73.9,
    "truncated_frac": 0.012,
    "oracle_ratio": 2.21,
    "problems": 512,
    "by_difficulty": {
        "2": {"accuracy": 0.99, "mean_tokens": 21.2, "oracle_ratio": 2.0, "problems": 100},
        "6": {"accuracy": 0.91, "mean_tokens": 81.4, "oracle_ratio": 2.3, "problems": 101},
    },
}
AFTER = {
    "accuracy": 0.951,
    "accuracy_interval": [0.930, 0.967],
    "mean_tokens": 25.8,
    "mean_tokens_interval": [25.1, 26.6],
    "mean_tokens_correct": 25.5,
    "mean_tokens_wrong": 31.6,
    "truncated_frac": 0.0,
    "oracle_ratio": 1.04,
    "problems": 512,
    "by_difficulty": {
        "2": {"accuracy": 0.98, "mean_tokens": 11.0, "oracle_ratio": 1.02, "problems": 100},
        "6": {"accuracy": 0.90, "mean_tokens": 37.9, "oracle_ratio": 1.06, "problems": 101},
    },
}
DIFFERENCE = {
    "accuracy_points": -0.4,
    "accuracy_points_interval": [-1.6, 0.8],
    "tokens_percent": -53.1,
    "tokens_percent_interval": [-54.6, -51.4],
}


def fake_pairs() -> list[CompletionPair]:
    """Eight problems: savings of 12, 20, 28 ... tokens, one lost answer, one hostile completion that saves most."""
    pairs = []
    for k in range(8):
        trace = f"7+{k}={7 + k}. {7 + k}+4={11 + k}."
        before = Answer(f"<think>{trace} Wait, again: {trace} Check: {trace}</think>{11 + k}", 44 + 8 * k, True)
        after = Answer(f"<think>{trace}</think>{11 + k}" if k < 7 else HOSTILE, 32, k != 3)
        pairs.append(CompletionPair(f"7+{k}+4", str(11 + k), before, after))
    return pairs
