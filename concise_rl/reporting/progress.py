"""Live progress of a run: a bar with the newest metrics on a terminal, a line every few steps in a log file."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from concise_rl.errors import printable
from concise_rl.reporting.glossary import describe

if TYPE_CHECKING:
    from concise_rl.rollouts import StepRecord

SHOWN = {
    "accuracy": "accuracy",
    "mean_tokens": "tokens",
    "truncated_frac": "truncated",
    "entropy": "entropy",
    "reward": "reward",
}
"""Metrics on display, in this order, and their short labels; one that a step lacks is left out."""

LOG_LINES = 20
"""Lines that a whole run prints where standard output is no terminal, besides the first and the last."""

LOG_SILENCE_SECONDS = 60.0
"""Where steps are slow, a line comes after this time at the latest."""

_RECENT_STEPS = 20
_BARS = "▁▂▃▄▅▆▇█"


class Progress:
    """A context manager that shows where a run stands.

    Args:
        total_steps: optimizer steps of the whole run, those before a resume included.
        title: name of the run.
        enabled: False shows nothing; give it on all ranks but the first.
        console: where to write; standard output if None.
    """

    def __init__(self, total_steps: int, title: str, *, enabled: bool = True, console: Console | None = None) -> None:
        self.total_steps = total_steps
        self.title = title
        self.enabled = enabled
        self._console = console or Console(file=sys.stdout, highlight=False)
        self._step = 0
        self._metrics: Mapping[str, float] = {}
        self._tokens: list[float] = []
        self._durations: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._started = self._last_step = self._last_line = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to show, and to count the time."""
        self._started = self._last_step = self._last_line = time.monotonic()
        if self.enabled and self._console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=2)
            self._live.start()
        elif self.enabled:
            self._print(f"{self.title}: {self.total_steps} steps")

    def stop(self) -> None:
        """Leave the display as it stands; a second call does nothing."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def on_rollouts(self, record: StepRecord) -> None:
        """Nothing: a step is shown once its update is done."""

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show the step just finished, counted from 1."""
        now = time.monotonic()
        self._durations.append((now - self._last_step) / max(1, step - self._step if self._step else 1))
        self._last_step, self._step, self._metrics = now, step, metrics
        self._tokens.append(metrics.get("mean_tokens", float("nan")))
        if self._live is not None:
            self._live.refresh()
        elif self.enabled:
            due = step % max(1, self.total_steps // LOG_LINES) == 0 or now - self._last_line >= LOG_SILENCE_SECONDS
            if due or step == self.total_steps or len(self._tokens) == 1:
                self._last_line = now
                self._print("  ".join([f"step {step}/{self.total_steps}", *self._cells(), *self._times()]))

    def message(self, text: str) -> None:
        """Show a line of text, above the bar where there is one; markup in it stays text."""
        self._print(text)

    @property
    def seconds_per_step(self) -> float | None:
        """Mean over the latest steps; None before the first."""
        return sum(self._durations) / len(self._durations) if self._durations else None

    def _print(self, text: str) -> None:
        # A checkpoint, a server or a template may have put anything into it.
        self._console.print(Text(printable(text)), soft_wrap=True)

    def _cells(self) -> list[str]:
        return [
            f"{label} {describe(key).text(self._metrics[key])}" for key, label in SHOWN.items() if key in self._metrics
        ]

    def _times(self) -> list[str]:
        pace = self.seconds_per_step
        if pace is None:
            return []
        left = clock(pace * (self.total_steps - self._step))
        return [f"{pace:.2f} s/step" if pace < 10 else f"{pace:.0f} s/step", f"{left} left"]

    def _render(self) -> RenderableType:
        head = Table.grid(padding=(0, 1), expand=True)
        head.add_column(no_wrap=True, overflow="ellipsis", max_width=max(10, self._console.width // 3))
        head.add_column(ratio=1)
        head.add_column(justify="right", no_wrap=True)
        bar = ProgressBar(total=max(1, self.total_steps), completed=self._step)
        # The time passed moves between steps too: a sign of life.
        passed = clock(time.monotonic() - self._started)
        times = "  ".join([f"{self._step}/{self.total_steps}", passed, *self._times()])
        head.add_row(Text(self.title, style="bold"), bar, times)
        if not self._metrics:
            return Group(head, Text("sampling the first rollouts ...", style="dim"))
        return Group(head, Text("  ").join(map(self._styled, self._cells())))

    def _styled(self, cell: str) -> Text:
        label, _, value = cell.replace(" %", "\u00a0%").partition(" ")
        text = Text.assemble((f"{label}\u00a0", "dim"), (value, "bold"))
        if label == SHOWN["mean_tokens"]:
            text.append(f"\u00a0{sparkline(self._tokens, width=12)}", style="cyan")
        return text


def sparkline(values: list[float], *, width: int) -> str:
    """The series as at most `width` block characters, each the mean of its share of the values; nan is left out."""
    finite = [value for value in values if value == value]
    if not finite:
        return ""
    columns = min(width, len(finite))
    edges = [len(finite) * k // columns for k in range(columns + 1)]
    means = [sum(finite[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((mean - low) * scale)] for mean in means)


def clock(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
