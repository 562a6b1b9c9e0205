"""What a training run shows and leaves behind: progress while it runs, and its folder of logs, plots and summary."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from concise_rl.engine.checkpoint import steps as checkpoint_steps
from concise_rl.evaluation import Evaluation, difference
from concise_rl.evaluation.tradeoff import known_tradeoff
from concise_rl.evaluation.validation import Entry, entry_of
from concise_rl.files import replace_text
from concise_rl.ranks import rank
from concise_rl.reporting.evaluations import sampling_line
from concise_rl.reporting.html import write_report
from concise_rl.reporting.model_card import write_model_card
from concise_rl.reporting.plots import plot_training
from concise_rl.reporting.progress import Progress
from concise_rl.reporting.run_log import VALIDATION_FILE, RunLog, plain, read_metrics, read_validation, to_json
from concise_rl.reporting.run_record import hardware_line, record_start
from concise_rl.reporting.summary import Answer, CompletionPair, headline, pairs_view, pick_pairs, summary_table
from concise_rl.reporting.tracking import BACKENDS, TrackedRun, Tracker
from concise_rl.reporting.tradeoff import frontier_sentence, regret_sentence
from concise_rl.rollouts import StepSink

EVALUATIONS = {
    "before": "evaluation-before.jsonl", "after": "evaluation-after.jsonl", "start": "validation-start.jsonl",
}  # fmt: skip
"""Files of a run's evaluations by name; `start` is step 0 of those in training."""

BEST_FILE = "best.json"


class Session:
    """The visible side of one run; on other ranks than the first it is silent and writes nothing.

    Args:
        title: what the run is called.
        folder: the run folder.
        total_steps: optimizer steps of the whole run.
        active: this is the main process.
        show_progress: draw the live display.
        rollouts_every: steps between stored rollouts; 0 stores none.
        name: of the run, for run.json.
        tracking: the fields of `tracking=wandb` or another, or None.
    """

    def __init__(
        self,
        title: str,
        folder: Path,
        *,
        total_steps: int,
        active: bool,
        show_progress: bool = True,
        rollouts_every: int = 1,
        name: str = "",
        tracking: Mapping[str, Any] | None = None,
    ) -> None:
        self.title, self.folder, self.active = title, folder, active
        self.name, self.tracking = name or folder.name, tracking
        self.trackers: list[Tracker] = []
        self.record: Mapping[str, Any] = {}
        self.best: Mapping[str, Any] | None = None
        self.console = Console(highlight=False, quiet=not active)
        self.progress = Progress(total_steps, title, enabled=active and show_progress, console=self.console)
        self.log = RunLog(folder, every=rollouts_every) if active else None
        self.sinks: list[StepSink] = [self.log, self.progress] if self.log is not None else []
        self.config: Mapping[str, Any] = {}
        self.training_seconds = 0.0
        self._started = time.monotonic()

    def warn(self, text: str) -> None:
        self.progress.message(f"warning: {text}")

    def evaluation(
        self,
        name: str,
        run: Callable[[], Evaluation | None],
        *,
        stored: bool,
        settings: Mapping[str, Any] | None = None,
    ) -> Evaluation | None:
        """Run an evaluation and store it with further `settings`; with `stored`, take it from the folder if there."""
        path = self.folder / EVALUATIONS[name]
        if stored and path.exists():
            return Evaluation.load(path)
        result = run()
        if result is not None and self.active:
            result = dataclasses.replace(result, settings={**result.settings, **(settings or {})})
            result.save(path)
            if name != "start":  # which is shown as step 0
                found = result.summary()
                self.console.print(
                    f"{name} training: {found['accuracy']:.1%} right at {found['mean_tokens']:.1f} tokens"
                    f" ({found['problems']} problems)"
                )
        return result

    def begin_validation(self, start: Evaluation) -> tuple[list[Entry], set[int]]:
        """The evaluations in training so far, that at step 0 among them, and the steps whose weights are at hand."""
        assert self.log is not None
        entries = read_validation(self.folder)
        if not entries:
            entries = [self.validated(0, start, start)]
        return entries, {0, *checkpoint_steps(self.folder)}

    def validated(self, step: int, found: Evaluation, start: Evaluation) -> Entry:
        """Keep and show an evaluation in training."""
        assert self.log is not None
        entry: Entry = plain(entry_of(step, found, start))
        self.log.on_validation(entry)
        for sink in self.trackers:
            sink.on_validation(entry)
        self.progress.message(
            f"step {step}: {entry['accuracy']:.1%} right at {entry['mean_tokens']:.1f} tokens "
            f"({entry['problems']} problems of the test split)"
        )
        return entry

    def keep_best(self, best: Entry, rule: str) -> None:
        """Write down which checkpoint is the best one; the model before training has none."""
        shown = ("accuracy", "accuracy_interval", "mean_tokens", "mean_tokens_interval", "change", "problems")
        folder = f"checkpoint-{best['step']}" if best["step"] else None
        self.best = {"step": best["step"], "checkpoint": folder, "rule": rule} | {key: best.get(key) for key in shown}
        replace_text(self.folder / BEST_FILE, to_json(self.best))

    @contextmanager
    def training(self, config: Mapping[str, Any], step: int) -> Iterator[None]:
        """While this is open, steps arrive; what a crashed run logged after the checkpoint at `step` is forgotten."""
        self.config = config
        started = time.monotonic()
        if self.log is None:
            yield
            return
        self.log.write_config(config)
        self.record = record_start(self.folder, self.name, title=self.title, step=step, ranks=rank()[1])
        self.rewind(step)
        if step == 0:
            (self.folder / VALIDATION_FILE).unlink(missing_ok=True)
        with self.progress:
            if self.tracking is not None:
                self._track(self.tracking, config, step)
            yield
        self.training_seconds = time.monotonic() - started

    def _track(self, tracking: Mapping[str, Any], config: Mapping[str, Any], step: int) -> None:
        options = dict(tracking)
        name, every = options.pop("tracker"), options.pop("completions_every")
        if options["name"] == self.name:  # nobody chose another one
            options["name"] = self.record["name"]
        run = TrackedRun(self.folder, self.record["id"], config=plain(config), step=step, **options)
        tracker = Tracker(name, BACKENDS[name](), run, completions_every=every, warn=self.warn)
        self.trackers.append(tracker)
        self.sinks.append(tracker)

    def close(self, summary: Mapping[str, Any] | None = None) -> None:
        """Close the trackers; a second call does nothing."""
        for tracker in self.trackers:
            tracker.finish(summary)

    def metrics(self) -> list[dict[str, float]]:
        """What was logged so far, step by step."""
        return [] if self.log is None else read_metrics(self.folder)

    def rewind(self, step: int) -> None:
        """Training goes on from `step`: what was logged after it is forgotten."""
        if self.log is not None:
            self.log.truncate_after(step)

    def finish(
        self, before: Evaluation | None, after: Evaluation | None, facts: Mapping[str, Any] | None = None
    ) -> None:
        """Write summary, plots and report, and show the before and after; `facts` stand in summary and report."""
        if self.log is None:
            return
        metrics = read_metrics(self.folder)
        evaluations = {name: found for name, found in (("before", before), ("after", after)) if found is not None}
        columns = {name: found.summary() for name, found in evaluations.items()}
        held = known_tradeoff({name: found.rows for name, found in evaluations.items()})
        change = difference(before, after) if before is not None and after is not None else None
        summary: dict[str, Any] = {**columns, "steps": int(metrics[-1]["step"]) if metrics else 0}
        summary |= {"training_seconds": self.training_seconds, "seconds": time.monotonic() - self._started}
        summary |= facts or {}
        if change is not None:
            summary |= {"difference": change, "headline": headline(change)}
        if self.best is not None:
            summary["best"] = self.best
        if held is not None:
            summary["tradeoff"] = dict(held.entries)
        self.log.write_summary(summary)
        self.close(summary)
        write_model_card(self.folder, columns, change, self.config, self.record, steps=summary["steps"])
        validation = read_validation(self.folder)
        picture = self.folder / "training.png"
        plot_training(
            metrics, picture, title=self.title, before=columns.get("before"), after=columns.get("after"),
            validation=validation,
        )  # fmt: skip
        pairs = completion_pairs(before, after) if before is not None and after is not None else []
        write_report(
            self.folder / "report.html",
            title=self.title,
            columns=columns,
            difference=change,
            metrics=metrics,
            validation=validation,
            pairs=pairs,
            config=self.config,
            facts=self._facts(summary["steps"])
            | {name.replace("_", " "): str(value) for name, value in (facts or {}).items()},
            picture=picture,
            held=held,
        )
        if columns:
            self.console.print()
            if line := sampling_line((after or before or Evaluation([])).settings):
                self.console.print(f"before and after: {line}", markup=False, soft_wrap=True)
            self.console.print(summary_table(columns, change))
        if held is not None:
            self.console.print(f"{regret_sentence(held)}\n{frontier_sentence(held)}", markup=False, soft_wrap=True)
        if change is not None:
            self.console.print(pairs_view(pick_pairs(pairs)))
            self.console.print(f"\n[bold]{headline(change)}[/bold]")
        if self.best is not None:
            self.console.print(self._best_line(self.best), markup=False, soft_wrap=True)
        where = f"report: {self.folder / 'report.html'}   plot: {picture}   model: {self.folder / 'model'}"
        self.console.print(where, markup=False, soft_wrap=True)

    def _facts(self, steps: int) -> dict[str, str]:
        facts = {"training": f"{self.training_seconds:.0f} s", "steps": str(steps)}
        for start in self.record.get("starts", [])[-1:]:
            facts |= {"machine": hardware_line(start["hardware"]), "command": start["command"]}
            versions = start["versions"]
            facts["versions"] = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "trl"))
            facts |= {"commit": start["commit"]} if start["commit"] else {}
        if self.best is not None:
            facts["best checkpoint"] = self._best_line(self.best).removeprefix("best ")
        return facts

    def _best_line(self, best: Mapping[str, Any]) -> str:
        where = self.folder / best["checkpoint"] if best["checkpoint"] else "the model before training"
        return (
            f"best by {best['rule']}: step {best['step']}, {best['accuracy']:.1%} right at {best['mean_tokens']:.1f} "
            f"tokens ({best['problems']} problems of the test split): {where}"
        )


def completion_pairs(before: Evaluation, after: Evaluation) -> list[CompletionPair]:
    """Each problem's first completion before and after."""
    later = {row.prompt_id: row for row in after.rows if row.sample == 0}
    return [
        CompletionPair(
            prompt=row.problem,
            reference=row.reference,
            before=Answer(row.completion, row.length, row.verdict.correct),
            after=Answer(
                later[row.prompt_id].completion, later[row.prompt_id].length, later[row.prompt_id].verdict.correct
            ),
        )
        for row in before.rows
        if row.sample == 0 and row.prompt_id in later
    ]
