"""What watches a run: gradients that are not finite, a policy that collapses, a job that is about to be killed.

Each guard is a callback of the transformers Trainer. What a guard sees is the same on every rank, so all ranks decide
alike: gradients are looked at after they were summed, and the logged metrics are those of the global batch.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import TrainerCallback

from concise_rl.errors import UserError
from concise_rl.options import Action, Guard


class SkipNonFinite(TrainerCallback):
    """Drops the gradient of a step where any of it is not finite, so that the optimizer leaves weights and moments be.

    DeepSpeed keeps gradients to itself and skips such steps by itself under fp16; there this guard sees nothing.
    """

    def __init__(self, limit: int, record: Callable[[str, float], None]) -> None:
        self.limit, self.record = limit, record
        self.in_a_row = 0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        finite = not gradients or bool(torch.isfinite(torch.stack([g.sum() for g in gradients])).all())
        self.record("skipped_steps", 0.0 if finite else 1.0)
        self.in_a_row = 0 if finite else self.in_a_row + 1
        if finite:
            return
        for parameter in model.parameters():
            parameter.grad = None
        if self.in_a_row >= self.limit:
            raise UserError(
                f"step {state.global_step + 1}: the gradient was not finite for {self.in_a_row} steps in a row: lower "
                "trainer.learning_rate, use float32 or bfloat16, and resume=auto from the last checkpoint"
            )


class WatchCollapse(TrainerCallback):
    """Compares the last steps with the first ones, and warns of, or ends, a run that has learned the wrong thing."""

    WATCHED = ("accuracy", "mean_tokens", "entropy", "truncated_frac")

    def __init__(self, guard: Guard, warn: Callable[[str], None]) -> None:
        self.guard, self.warn = guard, warn
        self.seen: dict[str, list[float]] = {name: [] for name in self.WATCHED}
        self.told: set[str] = set()

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        for name, values in self.seen.items():
            if name in logs:
                values.append(float(logs[name]))
        for sign, text in self.signs().items():
            if sign not in self.told:
                self.told.add(sign)
                self.warn(f"step {state.global_step}: {text}")
                if self.guard.action is Action.stop:
                    control.should_save = control.should_training_stop = True

    def signs(self) -> dict[str, str]:
        """What is wrong now, by name, in words with the numbers seen."""
        guard, window = self.guard, self.guard.window
        if any(len(values) < 2 * window for values in self.seen.values() if values):
            return {}

        def mean(values: list[float]) -> float:
            return sum(values) / len(values)

        first = {name: mean(values[:window]) for name, values in self.seen.items() if values}
        last = {name: mean(values[-window:]) for name, values in self.seen.items() if values}
        found: dict[str, str] = {}
        accuracy = f"accuracy {first.get('accuracy', 0):.1%} at the start, {last.get('accuracy', 0):.1%} now"
        if "accuracy" in last and last["accuracy"] < guard.accuracy_share * first["accuracy"]:
            found["accuracy"] = f"{accuracy}: weaken the length term, or lower trainer.learning_rate"
        if "entropy" in last and last["entropy"] < guard.entropy:
            found["entropy"] = (
                f"entropy {last['entropy']:.1e} nats: the completions of a group are all alike and teach nothing; "
                "stop here, or raise trainer.temperature"
            )
        if "truncated_frac" in last and last["truncated_frac"] >= guard.truncated:
            found["truncated"] = (
                f"{last['truncated_frac']:.0%} of completions are cut off: raise trainer.max_completion_length"
            )
        short = "mean_tokens" in last and last["mean_tokens"] < guard.tokens_share * first["mean_tokens"]
        if short and last.get("accuracy", 0) < first.get("accuracy", 0):
            found["tokens"] = (
                f"mean tokens {first['mean_tokens']:.0f} at the start, {last['mean_tokens']:.0f} now, and {accuracy}: "
                "the policy stops instead of thinking; weaken the length term"
            )
        return found


class SaveOnTerm(TrainerCallback):
    """On SIGTERM, which a scheduler sends before it takes the machine: ends the step, saves, and stops training.

    Attributes:
        asked: whether the signal came, on any rank.
    """

    def __init__(self, any_rank: Callable[[bool], bool]) -> None:
        self.any_rank = any_rank
        self.asked = self._here = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._before = signal.signal(signal.SIGTERM, self._note)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _note(self, *_: Any) -> None:
        self._here = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.asked = self.any_rank(self._here)
        if self.asked:
            control.should_save = control.should_training_stop = True
