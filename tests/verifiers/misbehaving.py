"""Verifiers that do to a worker what hostile answers do; in their own module, because workers import them by name."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from concise_rl.verifiers import Verdict
from concise_rl.verifiers.pool import BatchVerifier


@dataclass
class Misbehaving(BatchVerifier):
    """Does what the completion says; everything else is judged by equality."""

    def __call__(self, completion: str, reference: str) -> Verdict:
        match completion.partition(" "):
            case ("sleep", _, seconds):
                time.sleep(float(seconds))
            case ("die", _, _):
                os.kill(os.getpid(), signal.SIGKILL)
            case ("die-once", _, marker):
                if not Path(marker).exists():
                    Path(marker).touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            case ("eat", _, gigabytes):
                bytearray(int(gigabytes) << 30)
            case ("recurse", _, _):
                return self(completion, reference)
            case ("raise", _, message):
                raise ValueError(message)
            case ("pid", _, _):
                return Verdict.of(True, reason=str(os.getpid()))
        return Verdict.of(completion == reference)


@dataclass
class Unloadable(BatchVerifier):
    def __call__(self, completion: str, reference: str) -> Verdict:
        return Verdict.of(True)

    def warm_up(self) -> None:
        raise ImportError("a library is missing")
