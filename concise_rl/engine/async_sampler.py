"""A process that samples beside the trainer: weights come in shared memory, prompts and rows over a pipe.

It is a fresh interpreter, as verifiers' workers are, and builds the trainer's model from class and configuration. Its
weights are views of the shared memory, so that publishing a version is one copy and taking it none. The memory holds
several versions, a slot each; it has no name in the file system and is gone with the two processes.

The process ignores SIGTERM and Ctrl-C, which a whole process group may get: the trainer still needs its rows for a
checkpoint. It ends when the trainer closes the pipe or is gone.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import subprocess
import tempfile
import threading
import traceback
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor, nn

from concise_rl.errors import UserError
from concise_rl.interpreters import start_interpreter
from concise_rl.model.sampling import sample_tokens
from concise_rl.rollouts import Sampled

ALIGNMENT = 64
"""Bytes that every tensor of a slot begins at a multiple of."""


@dataclass(frozen=True)
class Place:
    """Where a parameter or buffer lies in a slot; tied ones share theirs."""

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Order:
    """What is to be sampled: the weights by their slot, and what `sample_tokens` takes."""

    slot: int
    prompt_ids: Sequence[Sequence[int]]
    settings: dict[str, Any]


@dataclass(frozen=True)
class _Setup:
    """What the process must know before its first order."""

    model: type
    config: Any
    places: dict[str, Place]
    slot_bytes: int
    slots: int
    threads: int


# --- the trainer's side -----------------------------------------------------------------------------------------------


class SamplerProcess:
    """The process, from the trainer's side; it starts at once, as imports take seconds, and ends with this object."""

    def __init__(self) -> None:
        self._memory = _unnamed_file()
        self._connection, theirs = Pipe()
        with theirs:
            self._process = _start(theirs.fileno(), self._memory)
        self.end = weakref.finalize(self, _end, self._process)
        self._slots: list[dict[str, Tensor]] = []
        self._answers: SimpleQueue[Any] = SimpleQueue()
        # The process is to go on with its next order at once, whether or not its last answer is wanted yet.
        threading.Thread(
            target=_receive, args=(self._connection, self._answers), daemon=True, name="sampler-answers"
        ).start()

    def hold(self, model: Any, slots: int) -> None:
        """Let the process build a model like this one, and share memory for so many versions of its weights.

        Args:
            model: a plain transformers model on the CPU, of a class that can be imported.
        """
        places, slot_bytes = layout(model)
        os.ftruncate(self._memory, slots * slot_bytes)
        self._slots = slots_of(self._memory, places, slot_bytes, slots)
        os.close(self._memory)
        self.ask(_Setup(type(model), model.config, places, slot_bytes, slots, torch.get_num_threads()))

    @torch.no_grad()
    def publish(self, model: nn.Module, slot: int) -> None:
        """Copy the weights as they are into a slot."""
        views = self._slots[slot]
        for name, tensor in named_tensors(model):
            views[name].copy_(tensor)

    def ask(self, message: Order | _Setup) -> None:
        """Send it; orders are answered one after the other."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # `answer` says that the process is gone
            self._connection.send(message)

    def answer(self) -> list[Sampled]:
        """The rows of the oldest order that was not answered yet, once they are there.

        Raises:
            UserError: the process has ended, or what it was told to sample cannot be.
        """
        found = self._answers.get()
        if isinstance(found, list):
            return found
        if isinstance(found, UserError):
            raise found
        if found is not None:
            raise RuntimeError(f"the sampler process failed:\n{found}")
        self._answers.put(None)
        code = self._process.wait()
        raise UserError(
            f"the sampler process {self._process.pid} was ended "
            + (f"by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"with exit code {code}")
            + ", for want of memory or from outside: go on from the last checkpoint with resume=auto"
        )


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer, tied ones under each of their names."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def layout(model: nn.Module) -> tuple[dict[str, Place], int]:
    """The place of each tensor in a slot, and the slot's bytes."""
    places: dict[str, Place] = {}
    first: dict[int, int] = {}
    end = 0
    for name, tensor in named_tensors(model):
        offset = first.setdefault(id(tensor), end)
        places[name] = Place(offset, tuple(tensor.shape), tensor.dtype)
        if offset == end:
            end += -(-max(1, tensor.nbytes) // ALIGNMENT) * ALIGNMENT
    return places, end


def slots_of(descriptor: int, places: dict[str, Place], slot_bytes: int, slots: int) -> list[dict[str, Tensor]]:
    """The tensors of each slot, as views of the shared memory."""
    memory = mmap.mmap(descriptor, slots * slot_bytes)

    def view(start: int, place: Place) -> Tensor:
        count = torch.Size(place.shape).numel()
        if not count:
            return torch.empty(place.shape, dtype=place.dtype)
        return torch.frombuffer(memory, dtype=place.dtype, count=count, offset=start + place.offset).view(place.shape)

    return [{name: view(slot * slot_bytes, place) for name, place in places.items()} for slot in range(slots)]


def _unnamed_file() -> int:
    """In memory where the system can do that."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("concise-rl-weights")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _start(pipe: int, memory: int) -> subprocess.Popen[bytes]:
    code = f"from concise_rl.engine.async_sampler import main; main({pipe}, {memory}, {os.getpid()})"
    return start_interpreter(code, pass_fds=[pipe, memory])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _receive(connection: Connection, answers: SimpleQueue[Any]) -> None:
    """Every answer, and None once there will be no more."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            answers.put(connection.recv())
    answers.put(None)


# --- the sampler's side -----------------------------------------------------------------------------------------------


def main(pipe: int, memory: int, trainer: int) -> None:
    """Answer orders until the trainer is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _serve(Connection(pipe), memory, trainer)
    os._exit(0)


def _serve(connection: Connection, memory: int, trainer: int) -> None:
    import transformers.modeling_layers  # noqa: F401  what the module of any model imports, meanwhile

    setup: _Setup = connection.recv()
    torch.set_num_threads(setup.threads)
    model: Any = setup.model(setup.config).eval()
    slots = slots_of(memory, setup.places, setup.slot_bytes, setup.slots)
    while True:
        order: Order = connection.recv()
        try:
            point_to(model, slots[order.slot])
            answer: Any = _sample(model, order, trainer)
        except UserError as error:
            answer = error
        except Exception:
            answer = traceback.format_exc()
        connection.send(answer)


def point_to(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Let the model compute with these tensors in place of its own."""
    for name, tensor in tensors.items():
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        if leaf in module._parameters:
            module._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
        else:
            module._buffers[leaf] = tensor


def _sample(model: Any, order: Order, trainer: int) -> list[Sampled]:
    logprobs: list[list[float]] = [[] for _ in order.prompt_ids]

    def drawn(row: int, logprob: float) -> None:
        if os.getppid() != trainer:
            os._exit(1)  # the trainer was killed: nobody wants the rest
        logprobs[row].append(logprob)

    rows = sample_tokens(model, order.prompt_ids, on_drawn=drawn, **order.settings)
    return [Sampled(tuple(ids), tuple(own)) for ids, own in zip(rows, logprobs, strict=True)]
