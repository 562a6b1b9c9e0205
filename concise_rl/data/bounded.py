"""Work on what others have written, in a process of its own that can be killed: bounded in time and in memory.

A template that loops for ever, or a file that unpacks to many times its size, does so in C code or in a library, where
nothing in this process could stop it.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from concise_rl.interpreters import start_interpreter

MEMORY_BYTES = 512 << 20
"""What the work may take beyond its interpreter and libraries."""

START_SECONDS = 120.0
"""For the start and the imports, on a busy machine."""

SILENCE_SECONDS = 20.0
"""Between one result and the next."""

RESULT_BYTES = 16 << 20
TOTAL_BYTES = 256 << 20
"""Of all results together, as JSON."""

ORPHAN_GRACE_SECONDS = 10.0


class OutOfBounds(Exception):
    """The work took too long, too much memory, or gave too much; the text says which."""


class WorkFailed(Exception):
    """The work raised, of its own; `kind` is the name of the exception."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class Bounded:
    """A process in which the function `work` (`package.module:name`) answers one request after the other.

    It starts with the first request. One that goes beyond its bounds, raises, or is not read to its end kills it; the
    next one starts another.

    Args:
        work: makes of a request, a JSON value, an iterator over JSON values; what is none becomes its text. It imports
            what it needs; the bounds hold for what the iterator does.
        silence_seconds: longest wait for the next result.
        extra_bytes: that memory and results may take besides, because the input is large by itself.
    """

    def __init__(self, work: str, *, silence_seconds: float = SILENCE_SECONDS, extra_bytes: int = 0) -> None:
        self.work, self.silence_seconds, self.extra_bytes = work, silence_seconds, extra_bytes
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: Mapping[str, Any]) -> Iterator[Any]:
        """What the function makes of a request, one result after the other.

        Raises:
            OutOfBounds: a bound was reached.
            WorkFailed: the function raised.
        """
        patience = self.silence_seconds if self._process else START_SECONDS
        process = self._process = self._process or self._start()
        whole = False
        try:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # a dead process shows when it is read
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
            yield from self._results(process, patience)
            whole = True
        finally:
            if not whole:
                self.close()

    def close(self) -> None:
        """End the process, whatever it does."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def __del__(self) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        memory_bytes = MEMORY_BYTES + self.extra_bytes
        return start_interpreter(
            f"from concise_rl.data.bounded import serve; serve({self.work!r}, {self.silence_seconds}, {memory_bytes})",
            # The other memory pools of arrow reserve address space by the gigabyte.
            {"OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def _results(self, process: subprocess.Popen[bytes], patience: float) -> Iterator[Any]:
        lines = _lines(process, patience, self.silence_seconds, TOTAL_BYTES + self.extra_bytes)
        next(lines, None)  # it is up
        for line in lines:
            kind, content = json.loads(line)
            if kind == "done":
                return
            if kind == "MemoryError":
                raise OutOfBounds(f"takes more than {(MEMORY_BYTES + self.extra_bytes) >> 20} MiB of memory")
            if kind != "result":
                raise WorkFailed(kind, content)
            yield content
        # C++ aborts where it gets no memory, and the system kills for it.
        raise OutOfBounds(f"ends the process that runs it (exit code {process.wait()}), mostly for want of memory")


def bounded(work: str, request: Mapping[str, Any], **bounds: Any) -> Iterator[Any]:
    """`Bounded.ask` for a single request."""
    process = Bounded(work, **bounds)
    try:
        yield from process.ask(request)
    finally:
        process.close()


def _lines(
    process: subprocess.Popen[bytes], patience: float, silence_seconds: float, total_bytes: int
) -> Iterator[bytes]:
    """What it writes: the first line within `patience` seconds, each other one within `silence_seconds`."""
    assert process.stdout is not None
    waiting, total = bytearray(), 0
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        due = time.monotonic() + patience
        while True:
            if not selector.select(max(0.0, due - time.monotonic())):
                raise OutOfBounds(f"takes more than {patience:g} s")
            piece = os.read(process.stdout.fileno(), 1 << 16)
            if not piece:
                return
            total += len(piece)
            waiting += piece
            if len(waiting) > RESULT_BYTES and b"\n" not in piece:
                raise OutOfBounds(f"makes a text of more than {RESULT_BYTES >> 20} MiB")
            if total > total_bytes:
                raise OutOfBounds(f"makes more than {total_bytes >> 20} MiB of text")
            if b"\n" in piece:
                *whole, rest = bytes(waiting).split(b"\n")
                waiting = bytearray(rest)
                yield from whole
                patience = silence_seconds
                due = time.monotonic() + patience


# --- on the other side ------------------------------------------------------------------------------------------------


def serve(work: str, silence_seconds: float, memory_bytes: int) -> None:
    """Answer requests, a line each; started by `Bounded` alone."""
    import importlib

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    module, _, name = work.partition(":")
    function: Callable[[Any], Iterator[Any]] = getattr(importlib.import_module(module), name)
    unlimited = True
    for line in sys.stdin.buffer:
        results = function(json.loads(line))
        _say("up", None)
        if unlimited:
            _limit_memory(memory_bytes)
            unlimited = False
        _answer(results, silence_seconds)
    os._exit(0)


def _answer(results: Iterator[Any], silence_seconds: float) -> None:
    try:
        for result in _each(results, silence_seconds):
            _say("result", result)
    except MemoryError:
        _say("MemoryError", "")
    except Exception as error:
        _say(type(error).__name__, str(error)[:1000])
    else:
        _say("done", None)


def _each(results: Iterator[Any], silence_seconds: float) -> Iterator[Any]:
    """The parent keeps the time; the alarm ends a process whose parent was killed while it was at work."""
    while True:
        signal.setitimer(signal.ITIMER_REAL, silence_seconds + ORPHAN_GRACE_SECONDS)
        try:
            result = next(results)
        except StopIteration:
            return
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        yield result


def _say(kind: str, content: Any) -> None:
    sys.stdout.write(json.dumps([kind, content], default=str) + "\n")
    sys.stdout.flush()


def _limit_memory(memory_bytes: int) -> None:
    """From here on, on top of what the interpreter and its libraries have taken."""
    with contextlib.suppress(OSError, ValueError):  # not every system lets a process limit its address space
        with open("/proc/self/statm") as sizes:
            taken = int(sizes.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory_bytes,) * 2)
