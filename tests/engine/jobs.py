"""Runs in processes of their own, by `accelerate launch` and without, that leave nothing running behind them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
CPU2 = ROOT / "launch" / "accelerate" / "cpu2.yaml"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "DS_ACCELERATOR": "cpu"}


def accelerate_launch(config: Path = CPU2) -> list[str]:
    """The start of a command that launches what follows it on this configuration's ranks."""
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    return [*launcher, "--config_file", str(config), "--main_process_port", "0"]


def start(command: Sequence[str]) -> subprocess.Popen[str]:
    """Start it as the head of a process group, for `kill_group`."""
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, start_new_session=True
    )


def kill_group(group: int) -> None:
    """A launcher that is killed leaves its ranks behind: end them too."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def run_to_end(command: Sequence[str], seconds: float) -> str:
    """What the command printed, once it has ended well."""
    with start(command) as job:
        try:
            said, errors = job.communicate(timeout=seconds)
        finally:
            kill_group(job.pid)
    assert job.returncode == 0, errors[-3000:]
    return said
