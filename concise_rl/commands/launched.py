"""A rank ends when its launcher does. Light: it is called before anything heavy is imported."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

PATIENCE_SECONDS = 30.0
"""How long a rank may take to save after its launcher is gone; launchers give as long after SIGTERM."""

_PR_SET_PDEATHSIG = 1


def end_with_launcher() -> None:
    """From now on this process gets SIGTERM when its launcher dies, and SIGKILL `PATIENCE_SECONDS` later.

    A process that nobody launched as a rank is left as it is: a run outlives the shell that started it. On Linux the
    kernel sends the signal, even to a process that is stuck in a library; elsewhere a thread does.
    """
    if not _is_launched():
        return
    launcher = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    threading.Thread(target=_watch, args=(launcher,), daemon=True, name="launcher-watch").start()


def _is_launched() -> bool:
    """torchrun, DeepSpeed and Slurm name a rank's place; accelerate's launcher of one process leaves its settings."""
    return "LOCAL_RANK" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ


def _watch(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(0.5)
    if sys.platform != "linux":
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
