"""SIGTERM and Ctrl-C: a run that is asked to end leaves a checkpoint, wherever it is, and says so."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """A signal came where there was no step to finish; no `except Exception` of a library may swallow it."""


class StopSignals:
    """While this is open SIGTERM and Ctrl-C ask the run to end; a second Ctrl-C ends the process at once.

    In a training step they are noted, and `guards.SaveOnStop` ends the step and saves. Anywhere else (loading, an
    evaluation, the last save) what was saved last is all there is to keep, so they raise `Stopped`. A second SIGTERM
    changes nothing: schedulers send several.

    Attributes:
        received: the name of the first signal, or None.
        finishing: whether a step is to be finished first.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self.finishing = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            # The system's own action from here on: it ends a process that is stuck in a library too.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if self.finishing and sys.stderr.isatty():
                os.write(2, b"\x1b[?25h\nCtrl-C: this step is finished and saved; once more ends at once\n")
        first, self.received = self.received is None, self.received or signal.Signals(number).name
        if first and not self.finishing:
            raise Stopped
