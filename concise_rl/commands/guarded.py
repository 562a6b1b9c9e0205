"""Training under its guards: ended by a signal, by a guard, or taken back to an older checkpoint at half the rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from concise_rl.engine import checkpoint
from concise_rl.engine.stopping import StopSignals
from concise_rl.options import Action, Guard


@dataclass(frozen=True)
class Start:
    """What a run goes on from.

    Attributes:
        folder: the checkpoint; None starts from step 0.
        saved: the facts that it holds.
        settings: this run's, as `experiment` gives them.
    """

    folder: Path | None
    saved: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def step(self) -> int:
        return checkpoint.step_of(self.folder) if self.folder else 0


def train_guarded(
    args: Any,
    guard: Guard,
    load: Callable[[], Any],
    build: Callable[[Any], Any],
    held: list[Any],
    session: Any,
    start: Start,
    signals: StopSignals,
) -> tuple[Any, bool]:
    """Train to the end under the guards; where they say so, go back to an older checkpoint at half the rate.

    Args:
        load: makes the model that the run begins with, once more.
        build: makes the trainer of a model.
        held: the model, taken out here: one that is given up is to leave the memory.

    Returns:
        The trainer, and whether a signal ended the run.
    """
    import gc

    from transformers import PrinterCallback

    from concise_rl.engine.guards import MAX_ROLLBACKS
    from concise_rl.ranks import on_every_rank

    folder = Path(args.output_dir)
    from_checkpoint, rollbacks = start.folder, None
    while True:
        trainer = build(held.pop())
        trainer.settings, trainer.rollbacks = start.settings, rollbacks
        trainer.honours_end = guard.action is not Action.warn
        if rollbacks is None:
            warn_of_idle_history(trainer, session.warn)
            tell_of_end(start, trainer, session.warn)
        trainer.remove_callback(PrinterCallback)
        collapse = watch(trainer, guard, session.warn, signals, earlier=session.metrics())
        trainer.train(resume_from_checkpoint=str(from_checkpoint) if from_checkpoint else None)
        if any(on_every_rank(signals.received is not None)):
            return trainer, True
        if collapse.rollback_from is None:
            return trainer, False
        rollbacks = (trainer.rollbacks or 0) + 1
        from_checkpoint = go_back(folder, collapse.rollback_from - guard.window, session, rollbacks)
        if from_checkpoint is None:
            session.warn(f"no complete checkpoint is {guard.window} steps older: training ends here")
            return trainer, False
        session.warn(
            f"rollback {rollbacks} of {MAX_ROLLBACKS}: on from {from_checkpoint} at a learning rate of "
            f"{args.learning_rate / 2**rollbacks:g}"
        )
        del trainer, collapse
        gc.collect()
        held.append(load())


def tell_of_end(start: Start, trainer: Any, warn: Callable[[str], None]) -> None:
    """Say that a guard ended the run that goes on, and what follows."""
    reason = start.saved.get("ended")
    if reason:
        follows = (
            "no further step is taken (guard.action=warn goes on)" if trainer.honours_end
            else "guard.action=warn, so it goes on"
        )  # fmt: skip
        warn(f"a guard ended this run at {reason}; {follows}")


def warn_of_idle_history(trainer: Any, warn: Callable[[str], None]) -> None:
    """Tell when a shaper that compares with a prompt's earlier answers will never see a prompt again."""
    from concise_rl.methods.history import History

    names = [type(shaper).__name__ for shaper in trainer.method.shapers if isinstance(shaper.init(), History)]
    visits = trainer.visits_per_prompt()
    if names and visits <= 1:
        warn(
            f"{names[0]} compares with a prompt's earlier answers, but this run draws {visits:.0%} of its prompts, "
            "none twice, so it changes nothing: raise trainer.max_steps, or train on fewer problems"
        )


def go_back(folder: Path, until: int, session: Any, rollbacks: int) -> Path | None:
    """The newest complete checkpoint up to a step, as all ranks see it; later ones and what was logged after it go.

    Args:
        rollbacks: what the checkpoint says from now on, for a run that is killed before it saves the next one.
    """
    from concise_rl.ranks import first_decides

    def find() -> Path | None:
        found = checkpoint.newest_complete(folder, session.warn, until=until)
        if found is not None:
            checkpoint.amend(found, {"rollbacks_to_here": rollbacks})
            checkpoint.discard_after(folder, checkpoint.step_of(found))
            session.rewind(checkpoint.step_of(found))
        return found

    return first_decides(find)


def watch(
    trainer: Any,
    guard: Guard,
    warn: Callable[[str], None],
    signals: StopSignals,
    *,
    earlier: Sequence[Mapping[str, float]] = (),
) -> Any:
    """Set the guards of `concise_rl.engine.guards` over a run; returns the one that tells of a collapse.

    Args:
        earlier: what the main process has logged so far.
    """
    from concise_rl.engine.guards import RecordRollbacks, SaveOnStop, SkipNonFinite, WatchCollapse
    from concise_rl.ranks import on_every_rank

    def record(name: str, value: float) -> None:
        trainer._metrics["train"][name].append(value)

    def rollbacks() -> int:
        return trainer.rollbacks or 0

    def end(reason: str) -> None:
        trainer.ended = reason

    collapse = WatchCollapse(guard, warn, earlier=on_every_rank(earlier)[0], rollbacks=rollbacks, end=end)
    callbacks = [SkipNonFinite(guard.nonfinite_steps, record, lambda: trainer.model_wrapped), collapse]
    callbacks.append(SaveOnStop(signals, lambda here: any(on_every_rank(here))))
    if guard.action is Action.rollback:
        callbacks.append(RecordRollbacks(rollbacks, record))
    for callback in callbacks:
        trainer.add_callback(callback)
    return collapse
