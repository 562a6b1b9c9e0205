"""One killable worker process, started by `pool.py` alone.

Two requests come on the pipe. A pickled verifier is loaded and answered with `READY`, or with the error's text. A
(deadline in seconds, think-end tag, pairs) is answered with one verdict a pair, each sent at once, so that the parent
knows which pair is in hand.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection

from concise_rl.verifiers.answer import THINK_END, thinking_ends_with
from concise_rl.verifiers.base import Verdict, Verifier

READY = "ready"
MEMORY_BYTES = 2 << 30
ORPHAN_GRACE_SECONDS = 10.0

Pair = tuple[str, str]
Chunk = tuple[float, str, Sequence[Pair]]


def judge(verifier: Verifier, completion: str, reference: str, *, think_end: str = THINK_END) -> Verdict:
    """The verdict; any exception (memory and recursion included) is a row that cannot be scored."""
    try:
        with thinking_ends_with(think_end):
            return verifier(completion, reference)
    except Exception as error:
        return Verdict.unscorable(f"verifier raised {type(error).__name__}: {str(error)[:200]}")


def serve(connection: Connection) -> None:
    """Answer requests until the parent closes the pipe."""
    verifier: Verifier
    while True:
        try:
            request: bytes | Chunk = connection.recv()
        except EOFError:
            return
        if isinstance(request, bytes):
            try:
                verifier = pickle.loads(request)
                getattr(verifier, "warm_up", lambda: None)()
            except Exception as error:
                connection.send(f"{type(error).__name__}: {error}")
                return
            connection.send(READY)
            continue
        deadline_seconds, think_end, pairs = request
        for completion, reference in pairs:
            # The parent keeps the deadline; the alarm ends a worker whose parent was killed while it was computing.
            signal.setitimer(signal.ITIMER_REAL, deadline_seconds + ORPHAN_GRACE_SECONDS)
            verdict = judge(verifier, completion, reference, think_end=think_end)
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send(verdict)


def main(pipe_fd: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ValueError, OSError):  # not every system lets a process limit its address space
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        serve(Connection(pipe_fd))
    os._exit(0)
