"""The evaluations of one run: before training, while it trains, and after it; one set of settings for all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from concise_rl.commands import config as configuration
from concise_rl.commands import evaluation as evaluations
from concise_rl.commands.run_folder import check_stored_evaluation
from concise_rl.engine.settings import flat
from concise_rl.engine.stopping import Stopped, StopSignals
from concise_rl.errors import UserError
from concise_rl.evaluation.validation import Validation, choose_problems

if TYPE_CHECKING:
    from concise_rl.evaluation import Evaluation
    from concise_rl.reporting.session import Session


class RunEvaluations:
    """What a run evaluates, and when; on several ranks each takes every n-th problem, and all get the whole.

    Args:
        config: of the run.
        tokenizer, verifier: as in training.
        session: stores and shows.
        signals: a signal breaks an evaluation off.
        test: the problems before and after training; may be empty.
        watched: those on the way; empty without `evaluation.every`.

    Attributes:
        before, after: the evaluations, once they are made; None where there is no problem.
    """

    def __init__(
        self,
        config: DictConfig,
        tokenizer: Any,
        verifier: Any,
        session: Session,
        signals: StopSignals,
        *,
        test: Sequence[Any],
        watched: Sequence[Any],
    ) -> None:
        self.config, self.tokenizer, self.verifier, self.session = config, tokenizer, verifier, session
        self.signals = signals
        self.problems = {"before": test, "after": test, "start": watched}
        self.before: Evaluation | None = None
        self.after: Evaluation | None = None
        self._start: Evaluation | None = None

    def check_stored(self, *, resumed: bool) -> None:
        """Compare what is known without a model of the evaluations that the run would take, and of those to come.

        Raises:
            UserError: they could not be compared; or there is none where `evaluation.before` says so.
        """
        from concise_rl.reporting.session import EVALUATIONS

        for name in ("before", *(["start"] if self.problems["start"] else [])) if resumed else ():
            settings = evaluation_settings(self.config, self.problems[name])
            check_stored_evaluation(self.session.folder / EVALUATIONS[name], settings)
        path, problems = self.config.evaluation.before, self.problems["before"]
        if path is None:
            return
        stored = resumed and (self.session.folder / EVALUATIONS["before"]).is_file()
        if not problems or not (stored or Path(path).is_file()):
            what = "there is no such file" if problems else "evaluation.problems=0 evaluates nothing"
            raise UserError(f"evaluation.before={path}: {what}; name a run's evaluation-before.jsonl, or leave it out")
        check_stored_evaluation(Path(path), evaluation_settings(self.config, problems), "leave out evaluation.before")

    def begin(self, model: Any, *, stored: bool) -> None:
        """Evaluate the model before training; with `stored`, take what the folder holds."""
        self.before = self._evaluate("before", model, stored=stored)
        self._start = self._evaluate("start", model, stored=stored)

    def watch(self, trainer: Any) -> None:
        """Evaluate while this trainer trains."""
        from concise_rl.commands.validation import Validate

        if self._start is not None:
            options = configuration.validation_of(self.config)
            trainer.add_callback(
                Validate(options, trainer, partial(self._made, self.problems["start"]), self._start, self.session)
            )

    def end(self, model: Any) -> None:
        """Evaluate the trained model."""
        self.after = self._evaluate("after", model, stored=False)

    def _evaluate(self, name: str, model: Any, *, stored: bool) -> Evaluation | None:
        problems = self.problems[name]
        if not problems:
            return None
        taken = name == "before" and self.config.evaluation.before is not None
        found = self.session.evaluation(
            name,
            partial(self._taken if taken else self._made, problems, model),
            stored=stored,
            settings={"run": evaluation_settings(self.config, problems)},
        )
        if found is None:
            raise Stopped  # what the handler raised was lost, as in a destructor, or another rank got the signal
        return found

    def _made(self, problems: Sequence[Any], model: Any) -> Evaluation | None:
        """None where a signal broke it off, on any rank."""
        return evaluate(self.config, model, self.tokenizer, problems, self.verifier, signals=self.signals)

    def _taken(self, problems: Sequence[Any], model: Any) -> Evaluation | None:
        """The evaluation of this start that `evaluation.before` names.

        Raises:
            UserError: it is of other weights, settings or problems; names the first.
        """
        from concise_rl.evaluation import Evaluation
        from concise_rl.ranks import first_decides

        path = self.config.evaluation.before
        self.session.progress.message(f"the evaluation before training is that of {path}")
        own = self._made([], model)  # its settings count
        if own is None:
            return None

        def read() -> Evaluation:
            found = Evaluation.load(path)
            theirs, ours = (flat(side.settings) for side in (found, own))
            theirs["problems"] = sorted(row.prompt_id for row in found.rows)
            ours["problems"] = sorted(prompt.id for prompt in problems for _ in range(own.settings["samples"]))
            # A path may be another name of the same weights; what the other run says of itself was compared before.
            for key in sorted({*theirs, *ours} - {"model"}):
                if not key.startswith("run.") and theirs.get(key) != ours.get(key):
                    raise UserError(
                        f"evaluation.before={path} is of other {key} than this run's start: leave it out, and the "
                        "start is evaluated"
                    )
            return found

        return first_decides(read)


class BrokenOff(Exception):
    """An evaluation that is not to be finished."""


def evaluate(
    config: DictConfig,
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Any],
    verifier: Any,
    *,
    signals: StopSignals | None = None,
) -> Evaluation | None:
    """A run's evaluation of a model; several ranks each take every n-th problem, and all get the whole.

    Args:
        signals: looked at every few completions; where one came, on any rank, None comes back on all.
    """
    from concise_rl.evaluation import Evaluation
    from concise_rl.ranks import on_every_rank, own_share

    def look(done: int, total: int) -> None:
        if signals is not None and signals.received is not None:
            raise BrokenOff

    # One prompt before and after, whatever a schedule does; tuning has no method.
    edit = configuration.method_of(config).edit_at(0) if "method" in config else None
    share = None
    with contextlib.suppress(BrokenOff):  # the other ranks hear of it below
        own = own_share(prompts)
        share = evaluations.evaluate(config, model, tokenizer, own, verifier, edit=edit, on_progress=look)
    shares = on_every_rank((share.rows, share.settings) if share else None)
    if None in shares:
        return None
    place = {prompt.id: k for k, prompt in enumerate(prompts)}
    rows = sorted((row for rows, _ in shares for row in rows), key=lambda row: (place[row.prompt_id], row.sample))
    return Evaluation(rows, shares[0][1])


def evaluation_settings(config: DictConfig, problems: Sequence[Any]) -> dict[str, Any]:
    """What an evaluation before training must share with the one after it."""
    from concise_rl.engine.resuming import fingerprint

    resolved = configuration.resolved(config)
    shared = {name: resolved[name] for name in ("verifier", "system_prompt", "verify_deadline_seconds")}
    own = resolved["evaluation"].items()
    shared["evaluation"] = {name: value for name, value in own if name not in configuration.VALIDATION_FIELDS}
    shared["model"] = {"think_end": config.model.think_end}
    shared["trainer"] = {"chat_template_kwargs": resolved["trainer"].get("chat_template_kwargs")}
    return flat(shared) | {"data": fingerprint(prompt.id for prompt in problems)}


def problems_to_watch(
    config: DictConfig, source: Any, verifier: Any, test: Sequence[Any], tell: Callable[[str], None]
) -> list[Any]:
    """The problems of the evaluations in training; none without `evaluation.every`.

    Raises:
        DataError: the split is empty, or a reference does not verify against itself.
    """
    from concise_rl.model.loading import checked

    options, split = configuration.validation_of(config), config.evaluation.split
    if not options.every:
        return []
    watched, apart = choose_problems(source.load(split), test, options.problems)
    if not apart:
        tell(
            f"evaluation.every: its {len(watched)} problems are among those of the evaluation after training, so the "
            "best checkpoint's numbers are optimistic; a larger test split keeps them apart"
        )
    return checked(watched, split, config, verifier)


def check_window_of(options: Validation, args: Any) -> None:
    """Raises `UserError` where a best checkpoint would have to be written inside a generation window."""
    from concise_rl.engine.resuming import generation_window

    window = generation_window(args)
    if options.every % window:
        raise UserError(
            f"evaluation.every={options.every} is no multiple of the {window} optimizer steps that share one "
            f"generation, and the best checkpoint is saved where it is found: use a multiple of {window}"
        )
