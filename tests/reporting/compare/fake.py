"""Simulated runs and evaluations on disk, without a model: completions that shorten as training goes on."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from concise_rl.evaluation import Evaluation, EvaluationRow
from concise_rl.verifiers.base import Verdict

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> <b>7</b> \x1b[2J \u202e"
_WORDS = ("so", "the", "sum", "is", "then", "carry", "wait", "check", "again", "add", "first", "hence", "digit")


def evaluation(
    problems: int = 60, *, seed: int = 0, saving: float = 0.0, accuracy: float = 0.9, words: int = 20, samples: int = 1,
    prefix: str = "p", settings: dict[str, Any] | None = None,
) -> Evaluation:  # fmt: skip
    """Judged completions of about `words` words, of which `saving` is cut off; problem 7's is hostile."""
    draw = random.Random(f"{prefix} {seed}")
    rows = []
    for p in range(problems):
        for sample in range(samples):
            count = max(1, round(words * (1 - saving) * draw.uniform(0.5, 1.5) * (1 + p % 5 / 4)))
            text = " ".join(f"{draw.choice(_WORDS)} {draw.randrange(100)}" for _ in range(count))
            rows.append(
                EvaluationRow(
                    prompt_id=f"{prefix}{p}",
                    sample=sample,
                    prompt=f"What is {p} + {p % 5}?",
                    reference=str(p + p % 5),
                    completion=HOSTILE if p == 7 else f"<think>{text}</think>{p + p % 5}",
                    length=2 * count + 3,
                    think_length=2 * count,
                    truncated=p % 29 == 28,
                    verdict=Verdict(
                        correct=draw.random() < accuracy - 0.02 * (p % 5), scorable=p % 31 != 30, reward=1.0
                    ),
                    columns={"difficulty": 2 + p % 5},
                )
            )
    return Evaluation(rows, settings or {})


def write_run(
    folder: Path,
    *,
    method: str = "hapo",
    seed: int = 0,
    steps: int = 40,
    before: Evaluation | None = None,
    **after: Any,
) -> Path:
    """A run folder as `concise-rl train` leaves it."""
    folder.mkdir(parents=True)
    draw = random.Random(seed)
    lines = [
        {"step": k + 1, "time": 1.0 + k, "num_tokens": 1000.0 * (k + 1), "step_time": 2.0, "reward": draw.random(),
         "accuracy": 0.5 + 0.4 / (1 + (12 / (k + 1)) ** 2) + draw.gauss(0, 0.01), "mean_tokens": 50 - k / 2,
         "entropy": None if k == 3 else 0.3}
        for k in range(steps)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.json").write_text(json.dumps({"method": {"name": method}}))
    (before or evaluation()).save(folder / "evaluation-before.jsonl")
    evaluation(**{"seed": seed + 1, "saving": 0.5} | after).save(folder / "evaluation-after.jsonl")
    return folder


def write_evaluation(folder: Path, found: Evaluation, **summary: Any) -> Path:
    """A folder of `concise-rl eval` for one benchmark."""
    folder.mkdir(parents=True)
    found.save(folder / "evaluation.jsonl")
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder
