"""What a training run shows and leaves behind: progress while it runs, and its folder of logs, plots and summary."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from concise_rl.evaluation import Evaluation, difference
from concise_rl.evaluation.tradeoff import known_tradeoff
from concise_rl.reporting.evaluations import sampling_line
from concise_rl.reporting.html import write_report
from concise_rl.reporting.plots import plot_training
from concise_rl.reporting.progress import Progress
from concise_rl.reporting.run_log import RunLog, read_metrics
from concise_rl.reporting.summary import Answer, CompletionPair, headline, pairs_view, pick_pairs, summary_table
from concise_rl.reporting.tracking import WandbSink
from concise_rl.reporting.tradeoff import frontier_sentence, regret_sentence
from concise_rl.rollouts import StepSink


class Session:
    """The visible side of one run; on other ranks than the first it is silent and writes nothing.

    Args:
        title: what the run is called.
        folder: the run folder.
        total_steps: optimizer steps of the whole run.
        active: this is the main process.
        show_progress: draw the live display.
        rollouts_every: steps between stored rollouts; 0 stores none.
        tracking: the fields of `tracking=wandb`, or None.
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
        tracking: Mapping[str, Any] | None = None,
    ) -> None:
        self.title, self.folder, self.active = title, folder, active
        self.tracking = tracking
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
        path = self.folder / f"evaluation-{name}.jsonl"
        if stored and path.exists():
            return Evaluation.load(path)
        result = run()
        if result is not None and self.active:
            result = dataclasses.replace(result, settings={**result.settings, **(settings or {})})
            result.save(path)
            found = result.summary()
            self.console.print(
                f"{name} training: {found['accuracy']:.1%} right at {found['mean_tokens']:.1f} tokens"
                f" ({found['problems']} problems)"
            )
        return result

    @contextmanager
    def training(self, config: Mapping[str, Any], step: int) -> Iterator[None]:
        """While this is open, steps arrive; what a crashed run logged after the checkpoint at `step` is forgotten."""
        self.config = config
        started = time.monotonic()
        if self.log is None:
            yield
            return
        self.log.write_config(config)
        self.rewind(step)
        with ExitStack() as stack:
            stack.enter_context(self.progress)
            if self.tracking is not None:
                tracker = WandbSink(self.folder, config=config, warn=self.warn, **self.tracking)
                stack.callback(tracker.finish)
                self.sinks.append(tracker)
            yield
        self.training_seconds = time.monotonic() - started

    def metrics(self) -> list[dict[str, float]]:
        """What was logged so far, step by step."""
        return [] if self.log is None else read_metrics(self.folder)

    def rewind(self, step: int) -> None:
        """Training goes on from `step`: what was logged after it is forgotten."""
        if self.log is not None:
            self.log.truncate_after(step)

    def finish(self, before: Evaluation | None, after: Evaluation | None) -> None:
        """Write summary, plots and report, and show the before and after."""
        if self.log is None:
            return
        metrics = read_metrics(self.folder)
        evaluations = {name: found for name, found in (("before", before), ("after", after)) if found is not None}
        columns = {name: found.summary() for name, found in evaluations.items()}
        held = known_tradeoff({name: found.rows for name, found in evaluations.items()})
        change = difference(before, after) if before is not None and after is not None else None
        summary: dict[str, Any] = {**columns, "steps": int(metrics[-1]["step"]) if metrics else 0}
        summary |= {"training_seconds": self.training_seconds, "seconds": time.monotonic() - self._started}
        if change is not None:
            summary |= {"difference": change, "headline": headline(change)}
        if held is not None:
            summary["tradeoff"] = dict(held.entries)
        self.log.write_summary(summary)
        picture = self.folder / "training.png"
        plot_training(metrics, picture, title=self.title, before=columns.get("before"), after=columns.get("after"))
        pairs = completion_pairs(before, after) if before is not None and after is not None else []
        write_report(
            self.folder / "report.html",
            title=self.title,
            columns=columns,
            difference=change,
            metrics=metrics,
            pairs=pairs,
            config=self.config,
            facts={"training": f"{self.training_seconds:.0f} s", "steps": str(summary["steps"])},
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
        self.console.print(f"report: {self.folder / 'report.html'}   plot: {picture}   model: {self.folder / 'model'}")


def completion_pairs(before: Evaluation, after: Evaluation) -> list[CompletionPair]:
    """Each problem's first completion before and after."""
    later = {row.prompt_id: row for row in after.rows if row.sample == 0}
    return [
        CompletionPair(
            prompt=row.prompt,
            reference=row.reference,
            before=Answer(row.completion, row.length, row.verdict.correct),
            after=Answer(
                later[row.prompt_id].completion, later[row.prompt_id].length, later[row.prompt_id].verdict.correct
            ),
        )
        for row in before.rows
        if row.sample == 0 and row.prompt_id in later
    ]
