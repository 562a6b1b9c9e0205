"""Many answers judged at once, hostile ones among them, each within its own deadline.

Answers are written by a model: `9^{9^{9^9}}` keeps SymPy busy for ever, in C code that no signal handler interrupts. So
verifiers that are not `hostile_input_safe` run in worker processes that can be killed. A worker gets a chunk of pairs
and answers each at once, so the parent always knows which pair is in hand: when that one exceeds the deadline, the
worker is killed, the pair is unscorable, and the rest of the chunk goes to another worker.

Workers are fresh interpreters on a pipe, not `multiprocessing` children (which is what pebble's are): those are forked,
unsafe beside OpenMP and CUDA threads, or they import the parent's main script again, torch and all, at each restart.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import ClassVar, NamedTuple

from concise_rl.errors import UserError
from concise_rl.interpreters import start_interpreter
from concise_rl.verifiers.answer import THINK_END
from concise_rl.verifiers.base import Verdict, Verifier
from concise_rl.verifiers.worker import READY, Pair, judge

DEADLINE_SECONDS = 5.0
WORKERS = 2
LOAD_SECONDS = 120.0
"""How long a worker may take to start and import the verifier, which no pair is charged for."""

MAX_CHUNK = 32
MAX_DEATHS = 2
"""A pair whose worker dies unasked is tried once more: the system may have killed the worker for another's memory."""


class BatchVerifier:
    """Base of the verifiers: adds `verify_many` as a method.

    `hostile_input_safe` says that a call takes linear time and memory whatever the text, so it needs no worker.
    """

    hostile_input_safe: ClassVar[bool] = False

    def __call__(self, completion: str, reference: str) -> Verdict:
        raise NotImplementedError

    def verify_many(
        self,
        pairs: Iterable[Pair],
        *,
        deadline_seconds: float = DEADLINE_SECONDS,
        workers: int = WORKERS,
        think_end: str = THINK_END,
    ) -> list[Verdict]:
        """See `concise_rl.verifiers.verify_many`."""
        return verify_many(self, pairs, deadline_seconds=deadline_seconds, workers=workers, think_end=think_end)


def verify_many(
    verifier: Verifier,
    pairs: Iterable[Pair],
    *,
    deadline_seconds: float = DEADLINE_SECONDS,
    workers: int = WORKERS,
    think_end: str = THINK_END,
) -> list[Verdict]:
    """One verdict for each (completion, reference), in their order; identical pairs are judged once.

    Args:
        verifier: picklable. One with a true `hostile_input_safe` runs in this process, without a deadline.
        pairs: (completion text, reference text).
        deadline_seconds: wall-clock time that one pair may take; then it is unscorable.
        workers: worker processes, started at the first call and kept until the interpreter ends.
        think_end: the model's tag; `answer_text` gives verifiers what follows its last occurrence.

    Raises:
        UserError: `deadline_seconds` or `workers` is not positive, `think_end` is empty, or the verifier cannot be
            pickled or loaded.

    A pair is unscorable, with the reason, when it exceeds the deadline, raises, runs out of a worker's memory, or when
    its worker dies twice.
    """
    if deadline_seconds <= 0 or workers < 1:
        raise UserError(f"deadline_seconds={deadline_seconds}, workers={workers}: both must be positive")
    if not think_end:
        raise UserError(f"think_end={think_end!r}: name the tag that ends the model's thinking, such as {THINK_END}")
    pairs = [(completion, reference) for completion, reference in pairs]
    unique = list(dict.fromkeys(pairs))
    if getattr(verifier, "hostile_input_safe", False):
        verdicts = [judge(verifier, *pair, think_end=think_end) for pair in unique]
    else:
        with _pool_lock:
            verdicts = _pool().run(_pickled(verifier), unique, _Terms(deadline_seconds, think_end), workers)
    verdict_of = dict(zip(unique, verdicts, strict=True))
    return [verdict_of[pair] for pair in pairs]


def _pickled(verifier: Verifier) -> bytes:
    if type(verifier).__module__ == "__main__":
        raise UserError(
            f"verifier {type(verifier).__name__} is defined in the main script, which workers do not run: "
            "move it to a module of its own, or set its class attribute hostile_input_safe = True"
        )
    try:
        return pickle.dumps(verifier)
    except Exception as error:
        raise UserError(
            f"verifier {type(verifier).__name__} cannot be pickled ({error}): define its class at the top of a module "
            "and keep its fields plain, or set its class attribute hostile_input_safe = True"
        ) from error


class _Terms(NamedTuple):
    """What holds for all pairs of a call."""

    deadline_seconds: float
    think_end: str


class _Worker:
    """A worker process, the pairs it was given and has not answered yet, and when it must have answered the first."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        with theirs:
            self.process = start_interpreter(
                f"from concise_rl.verifiers.worker import main; main({theirs.fileno()})",
                {"OMP_NUM_THREADS": "1"},
                pass_fds=[theirs.fileno()],
            )
        self._outbox: SimpleQueue[object] = SimpleQueue()
        self._postman = threading.Thread(target=self._post, daemon=True, name="verifier-postman")
        self._postman.start()
        self.jobs: deque[int] = deque()
        self.due = 0.0
        self.verifier = b""
        self.pending_loads = 0

    def load(self, pickled: bytes) -> None:
        if self.verifier != pickled:
            self.verifier = pickled
            self.pending_loads += 1
            self._send(pickled)

    def give(self, terms: _Terms, jobs: Sequence[int], pairs: Sequence[Pair]) -> None:
        self.jobs = deque(jobs)
        self.due = time.monotonic() + (LOAD_SECONDS if self.pending_loads else terms.deadline_seconds)
        self._send((terms.deadline_seconds, terms.think_end, [pairs[job] for job in jobs]))

    def _send(self, message: object) -> None:
        """Leave it to a thread: a worker that is stopped takes nothing in, and nobody here must wait for it."""
        self._outbox.put(message)

    def _post(self) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a dead worker shows when it is read
            while (message := self._outbox.get()) is not None:
                self.connection.send(message)

    def end(self) -> int:
        """Kill the process if it lives, and give its exit code."""
        self.process.kill()
        code = self.process.wait()
        self._outbox.put(None)
        self._postman.join()  # the pipe is broken by now; closed before, its number could be another file's
        self.connection.close()
        return code


class _Pool:
    def __init__(self) -> None:
        self.owner_pid = os.getpid()
        self.workers: list[_Worker] = []

    def run(self, pickled: bytes, pairs: Sequence[Pair], terms: _Terms, n_workers: int) -> list[Verdict]:
        return _Run(self, pickled, pairs, terms, n_workers).verdicts()

    def discard(self, worker: _Worker) -> int:
        self.workers.remove(worker)
        return worker.end()

    def close(self) -> None:
        if os.getpid() == self.owner_pid:
            while self.workers:
                self.discard(self.workers[-1])


class _Run:
    """One call of `verify_many`: `queue` holds the indices of the pairs that no worker has in hand."""

    def __init__(self, pool: _Pool, pickled: bytes, pairs: Sequence[Pair], terms: _Terms, n_workers: int) -> None:
        self.pool = pool
        self.pickled = pickled
        self.pairs = pairs
        self.terms = terms
        self.n_workers = n_workers
        self.queue = deque(range(len(pairs)))
        self.results: dict[int, Verdict] = {}
        self.deaths = [0] * len(pairs)
        self.failed_starts = 0

    def verdicts(self) -> list[Verdict]:
        for worker in [worker for worker in self.pool.workers if worker.process.poll() is not None]:
            self.pool.discard(worker)
        try:
            while len(self.results) < len(self.pairs):
                self._hand_out()
                self._read()
        finally:
            # Left behind by an interrupt: their late replies would be taken for those of the next call.
            for worker in [worker for worker in self.pool.workers if worker.jobs]:
                self.pool.discard(worker)
        return [self.results[job] for job in range(len(self.pairs))]

    def _hand_out(self) -> None:
        """Give each idle worker a chunk, small enough that the last chunks end together."""
        while self.queue:
            idle = [worker for worker in self.pool.workers if not worker.jobs]
            if len(self.pool.workers) - len(idle) >= self.n_workers:
                return
            worker = idle[0] if idle else self._start_worker()
            worker.load(self.pickled)
            chunk = max(1, min(MAX_CHUNK, len(self.queue) // (2 * self.n_workers)))
            jobs = [self.queue.popleft() for _ in range(chunk)]
            worker.give(self.terms, jobs, self.pairs)

    def _start_worker(self) -> _Worker:
        worker = _Worker()
        self.pool.workers.append(worker)
        worker.load(self.pickled)
        return worker

    def _read(self) -> None:
        """Wait for replies or for the next deadline, then take in both."""
        busy = {worker.connection: worker for worker in self.pool.workers if worker.jobs}
        patience = min(worker.due for worker in busy.values()) - time.monotonic()
        answering = wait(list(busy), timeout=max(0.0, patience))
        for connection in answering:
            if isinstance(connection, Connection):
                self._receive(busy[connection])
        for connection, worker in busy.items():
            if connection not in answering and worker.jobs and time.monotonic() > worker.due:
                self._expire(worker)

    def _receive(self, worker: _Worker) -> None:
        try:
            reply = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            self._bury(worker)
            return
        if reply == READY:
            worker.pending_loads -= 1
        elif isinstance(reply, str):
            raise UserError(f"the verifier cannot be loaded in a worker process: {reply}")
        else:
            self.results[worker.jobs.popleft()] = reply
        worker.due = time.monotonic() + self.terms.deadline_seconds

    def _expire(self, worker: _Worker) -> None:
        if worker.pending_loads:
            self._bury(worker)
            return
        self.results[worker.jobs.popleft()] = Verdict.unscorable(f"verifier exceeded {self.terms.deadline_seconds:g} s")
        self.pool.discard(worker)
        self._replace(worker)

    def _bury(self, worker: _Worker) -> None:
        """A worker that died unasked, or that did not come up: the pair in hand gets one more try."""
        job = worker.jobs[0]
        exit_code = self.pool.discard(worker)
        if not worker.pending_loads:
            self.deaths[job] += 1
            if self.deaths[job] >= MAX_DEATHS:
                self.results[worker.jobs.popleft()] = Verdict.unscorable(
                    f"verifier worker died (exit code {exit_code})"
                )
        else:
            self.failed_starts += 1
            if self.failed_starts >= MAX_DEATHS * self.n_workers:
                raise RuntimeError(
                    f"verifier workers do not start (exit code {exit_code}): "
                    f"try `{sys.executable} -c 'import concise_rl.verifiers.worker'`"
                )
        self._replace(worker)

    def _replace(self, worker: _Worker) -> None:
        """Queue what the lost worker left, and start another at once: it loads while the others work."""
        self.queue.extendleft(reversed(worker.jobs))
        self._start_worker()


_pool_lock = threading.Lock()
_shared: list[_Pool] = []


def _pool() -> _Pool:
    """This process's pool; a forked child must not talk to its parent's workers."""
    if not _shared or _shared[0].owner_pid != os.getpid():
        _shared[:] = [_Pool()]
        atexit.register(_shared[0].close)
    return _shared[0]
