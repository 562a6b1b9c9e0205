"""What watches a run: gradients that are not finite, a policy that collapses, a job that is about to be killed.

Each guard is a callback of the transformers Trainer. What a guard sees is the same on every rank, so all ranks decide
alike: gradients are looked at after they were summed, and the logged metrics are those of the global batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from transformers import TrainerCallback

from concise_rl.engine.stopping import StopSignals
from concise_rl.errors import UserError
from concise_rl.options import Action, Guard

MAX_ROLLBACKS = 2
"""A run that collapses again at a quarter of its learning rate is ended."""


class SkipNonFinite(TrainerCallback):
    """Drops the gradient of a step where any of it is not finite, so that the optimizer leaves weights and moments be.

    DeepSpeed keeps gradients to itself and skips such a step by itself, before any callback: it is asked how many it
    skipped.

    Args:
        limit: so many such steps in a row end the run.
        record: takes `skipped_steps` for the step's log.
        engine: the model as training calls it; DeepSpeed's has `skipped_steps`.
    """

    def __init__(
        self, limit: int, record: Callable[[str, float], None], engine: Callable[[], Any] = lambda: None
    ) -> None:
        self.limit, self.record, self.engine = limit, record, engine
        self.in_a_row = 0
        self.skipped_by_engine: int | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.skipped_by_engine = getattr(self.engine(), "skipped_steps", None)

    def _finite(self, model: Any) -> bool:
        if self.skipped_by_engine is not None:
            before, self.skipped_by_engine = self.skipped_by_engine, self.engine().skipped_steps
            return self.skipped_by_engine == before
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        return not gradients or bool(torch.isfinite(torch.stack([g.sum() for g in gradients])).all())

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        finite = self._finite(model)
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
    """Compares the last steps with the first ones, and warns of, ends or takes back a run that learns the wrong thing.

    Args:
        guard: what counts as a collapse, and what follows.
        warn: told of each sign, once.
        earlier: what a resumed run logged up to its checkpoint, so that the start stays the start.
        rollbacks: how often the run went back so far.
        end: takes the reason for which training is ended, before its last checkpoint is written.

    Attributes:
        rollback_from: the step at which training was ended so that it goes on from an older checkpoint; None else.
    """

    WATCHED = ("accuracy", "mean_tokens", "entropy", "truncated_frac")

    def __init__(
        self,
        guard: Guard,
        warn: Callable[[str], None],
        earlier: Iterable[Mapping[str, float]] = (),
        *,
        rollbacks: Callable[[], int] = lambda: 0,
        end: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.guard, self.warn, self.rollbacks, self.end = guard, warn, rollbacks, end
        self.seen: dict[str, list[float]] = {name: [] for name in self.WATCHED}
        self.told: set[str] = set()
        self.rollback_from: int | None = None
        for logs in earlier:
            self._see(logs)

    def _see(self, logs: Mapping[str, float]) -> None:
        # Where groups were refilled, the batch has the groups of mixed answers only.
        logs = {**logs, "accuracy": logs["sampled_accuracy"]} if "sampled_accuracy" in logs else logs
        for name, values in self.seen.items():
            if logs.get(name) is not None:
                values.append(float(logs[name]))

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        self._see(logs)
        for sign, text in self.signs().items():
            if sign not in self.told:
                self.told.add(sign)
                self.warn(f"step {state.global_step}: {text}")
                if self.guard.action is Action.warn:
                    continue
                control.should_training_stop = True
                if self.guard.action is Action.rollback and self.rollbacks() < MAX_ROLLBACKS:
                    self.rollback_from = state.global_step
                else:
                    control.should_save = True
                    self.end(f"step {state.global_step}: {text}")

    def signs(self) -> dict[str, str]:
        """What is wrong now, by name, in words with the numbers seen."""
        guard, window = self.guard, self.guard.window

        def mean(values: list[float]) -> float:
            return sum(values) / len(values)

        known = {name: values for name, values in self.seen.items() if len(values) >= 2 * window}
        first = {name: mean(values[:window]) for name, values in known.items()}
        last = {name: mean(values[-window:]) for name, values in known.items()}
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


class RecordRollbacks(TrainerCallback):
    """Logs how often the run went back, and refuses a schedule whose rate cannot be halved.

    Args:
        rollbacks: how often it went back so far.
        record: takes the metric `rollbacks` each step.

    Raises:
        UserError: the schedule has no base rate to lower.
    """

    def __init__(self, rollbacks: Callable[[], int], record: Callable[[str, float], None]) -> None:
        self.rollbacks, self.record = rollbacks, record

    def on_train_begin(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **_: Any) -> None:
        if not hasattr(getattr(lr_scheduler, "scheduler", lr_scheduler), "lr_lambdas"):
            raise UserError(
                f"guard.action=rollback lowers the rate of a schedule, and trainer.lr_scheduler_type="
                f"{args.lr_scheduler_type} has none: use guard.action=stop, or a linear, cosine or constant schedule"
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.record("rollbacks", float(self.rollbacks()))


class SaveOnStop(TrainerCallback):
    """On SIGTERM, which a scheduler sends before it takes the machine, and on Ctrl-C: ends the step, saves, and stops.

    Attributes:
        asked: whether a signal came, on any rank.
    """

    def __init__(self, signals: StopSignals, any_rank: Callable[[bool], bool]) -> None:
        self.signals, self.any_rank = signals, any_rank
        self.asked = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.signals.finishing = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.signals.finishing = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.asked = self.any_rank(self.signals.received is not None)
        if self.asked:
            control.should_save = control.should_training_stop = True
