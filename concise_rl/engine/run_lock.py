"""A run folder belongs to one run at a time: a lock that the system holds, and lets go when the process is gone."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from concise_rl.errors import UserError

LOCK_FILE = ".lock"
"""Stays in the folder, with host and process of the run that held it last; a file that is removed locks nothing."""

_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """While this is open no other process runs in the folder; made if absent.

    The lock is the kernel's (`flock`): it ends with the process, however that dies; a child that is forked meanwhile
    holds it on. A file system that knows no locks grants nothing, and the run goes on without.

    Raises:
        UserError: another process runs there, named with its host; or the folder cannot be written.
    """
    path = folder / LOCK_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UserError(f"run.dir={folder} cannot be written ({error.strerror}): choose another run.dir") from error
    try:
        _take(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _WITHOUT_LOCKS:
            return
        raise UserError(
            f"run.dir={folder} is in use by {_holder(descriptor)}: wait for that run or end it, or choose another "
            "run.dir"
        ) from error
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a name on it
        holder = json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode()
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder, 0)


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 1000, 0))
        return f"process {int(holder['pid'])} on host {str(holder['host'])[:255]}"
    except (KeyError, OSError, TypeError, ValueError):
        return "another process"
