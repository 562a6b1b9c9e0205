"""Evaluations while a run trains: a callback that evaluates, keeps the best checkpoint, and stops a run that stalls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from concise_rl.evaluation import Evaluation
from concise_rl.evaluation.validation import Entry, Validation, best_of
from concise_rl.ranks import first_decides
from concise_rl.reporting.session import Session

Evaluate = Callable[[Any], Evaluation | None]
"""A model to its evaluation; None where a signal broke it off, so that the step is saved. Called on all ranks."""


class Validate(TrainerCallback):
    """Evaluates every few steps, before the checkpoint of that step is written.

    So a run that goes on from a checkpoint has every evaluation up to it, and none twice. One that is missing there,
    because a signal broke it off, is made before the first step. All ranks decide alike: the rows of all are judged
    together, and the first rank's numbers go to all.

    Args:
        options: when, and by which rule.
        trainer: whose model is evaluated; `kept_steps` tells it which checkpoint to spare.
        evaluate: see `Evaluate`.
        start: the evaluation at step 0, on the first rank.
        session: keeps entries and shows them.
    """

    def __init__(
        self,
        options: Validation,
        trainer: Any,
        evaluate: Evaluate,
        start: Evaluation,
        session: Session,
    ) -> None:
        self.options, self.trainer, self.evaluate, self.start = options, trainer, evaluate, start
        self.session = session
        self.entries: list[Entry] = []
        self.best: Entry | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.entries, kept_steps = first_decides(lambda: self.session.begin_validation(self.start))
        # A better one whose checkpoint is gone, as after a rollback, is history.
        self.best = best_of([entry for entry in self.entries if entry["step"] in kept_steps], self.options.rule)
        self._keep_best()
        if self.options.due(state.global_step) and self.entries[-1]["step"] < state.global_step:
            self._evaluate(state, control)
        self._stop_where_stalled(control)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.options.due(state.global_step):
            self._evaluate(state, control)
            self._stop_where_stalled(control)

    def _evaluate(self, state: Any, control: Any) -> None:
        with self.trainer.generation_model() as model:
            found = self.evaluate(model)
        if found is None:
            return
        entry = first_decides(lambda: self.session.validated(state.global_step, found, self.start))
        self.entries.append(entry)
        if best_of([e for e in (self.best, entry) if e], self.options.rule) is entry:
            self.best, control.should_save = entry, True
            self._keep_best()

    def _keep_best(self) -> None:
        if self.best is not None:
            best, rule = self.best, self.options.rule
            self.trainer.kept_steps = {best["step"]}
            first_decides(lambda: self.session.keep_best(best, rule))

    def _stop_where_stalled(self, control: Any) -> None:
        patience, best = self.options.patience, self.best
        if patience is None or best is None:
            return
        since = sum(entry["step"] > best["step"] for entry in self.entries)
        if since >= patience:
            self.session.warn(
                f"early stop: {since} evaluations since step {best['step']} were no better by {self.options.rule} "
                "(evaluation.patience)"
            )
            control.should_training_stop = control.should_save = True
