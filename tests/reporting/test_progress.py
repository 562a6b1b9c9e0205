"""What a person sees while a run goes on."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from concise_rl.reporting import progress as progress_module
from concise_rl.reporting.progress import Progress, clock, sparkline

from .fake import fake_run, feed


class Clock:
    """time.monotonic in the test's hands."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(progress_module, "time", fake)
    return fake


def run(progress: Progress, time: Clock, steps: int, *, seconds: float = 3.0, start: int = 0) -> None:
    with progress:
        for record in fake_run(steps, start=start):
            time.now += seconds
            feed(progress, [record])
        progress.message("saved [checkpoint-20]")


def test_a_log_file_gets_plain_lines(time) -> None:
    out = io.StringIO()
    run(Progress(80, "HAPO", console=Console(file=out, width=60)), time, 80)
    lines = out.getvalue().splitlines()
    assert lines[0] == "HAPO: 80 steps"
    assert lines[-1] == "saved [checkpoint-20]"
    assert [line.split()[1] for line in lines[1:-1]] == ["1/80", *(f"{step}/80" for step in range(4, 81, 4))]
    assert re.fullmatch(
        r"step 40/80  accuracy \d\d\.\d %  tokens \d\d\.\d  truncated \d\.\d %  entropy 0\.\d{3}  reward 0\.\d{3}"
        r"  3\.00 s/step  2:00 left",
        lines[11],
    )
    assert "\x1b" not in out.getvalue()


def test_slow_steps_are_not_silent(time) -> None:
    out = io.StringIO()
    run(Progress(1000, "slow", console=Console(file=out)), time, 5, seconds=40.0)
    assert [line.split()[1] for line in out.getvalue().splitlines()[1:-1]] == ["1/1000", "3/1000", "5/1000"]


def test_a_terminal_gets_one_display_that_is_rewritten(time) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system="standard")
    run(Progress(80, "HAPO", console=console), time, 80)
    text = out.getvalue()
    assert "\x1b[1A" in text or "\x1b[2K" in text
    assert "80/80" in text
    assert "saved [checkpoint-20]" in text
    assert "█" in text  # the sparkline


def test_other_ranks_are_silent(time) -> None:
    for terminal in (False, True):
        out = io.StringIO()
        console = Console(file=out, force_terminal=terminal, quiet=True)
        run(Progress(4, "rank 1", enabled=False, console=console), time, 4)
        assert out.getvalue() == ""


def test_time_left_after_a_resume_counts_only_the_steps_of_this_process(time) -> None:
    out = io.StringIO()
    run(Progress(40, "resumed", console=Console(file=out)), time, 25, seconds=2.0, start=20)
    assert out.getvalue().splitlines()[1].endswith("2.00 s/step  0:38 left")


def test_missing_metrics_are_left_out() -> None:
    out = io.StringIO()
    with Progress(1, "bare", console=Console(file=out)) as progress:
        progress.on_metrics(1, {"accuracy": float("nan")})
    assert out.getvalue().splitlines()[1].startswith("step 1/1  accuracy –  0.00 s/step")


def test_sparkline_and_clock() -> None:
    assert sparkline([1.0, 2.0, 3.0], width=8) == "▁▅█" or sparkline([1.0, 2.0, 3.0], width=8) == "▁▄█"
    assert sparkline([8.0, 8.0, 1.0, 1.0], width=2) == "█▁"
    assert sparkline([float("nan")], width=4) == ""
    assert sparkline([5.0, float("nan"), 5.0], width=4) == "▁▁"
    assert [clock(s) for s in (0, 59.6, 3723)] == ["0:00", "1:00", "1:02:03"]
