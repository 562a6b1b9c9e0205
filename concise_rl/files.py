"""Files that are complete or as they were, whatever interrupts the writing; written by one process, through no link."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from concise_rl.errors import UserError

_OWN = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""`O_NONBLOCK` keeps a named pipe, which nobody reads, from holding the caller; a plain file does not know it."""

_UNFINISHED = ".unfinished"
"""Ends the name of a file until all of it is written."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The name of a file to write, which takes the place of `path` once all is written; else `path` stays as it was.

    Raises:
        UserError: it cannot be written.
    """
    with _replacing(path) as (aside, _):
        yield aside


def replace_text(path: Path, text: str) -> None:
    """Replace a text file whole, or leave it as it was.

    Raises:
        UserError: it cannot be written.
    """
    # Through the descriptor, so that nothing planted under the name meanwhile is written to.
    with (
        _replacing(path) as (_, descriptor),
        open(descriptor, "w", encoding="utf-8", errors="replace", closefd=False) as file,
    ):
        file.write(text)


@contextmanager
def _replacing(path: Path) -> Iterator[tuple[Path, int]]:
    """Name and descriptor of the file that takes the place of `path`; a link of that name is refused."""
    aside = _aside(path)
    descriptor = None
    try:
        descriptor = os.open(aside, _OWN | os.O_EXCL, 0o666)
        yield aside, descriptor
        os.fsync(descriptor)
        aside.replace(path)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}): free some space or choose another output folder"
        ) from error
    finally:
        if descriptor is not None:
            os.close(descriptor)
            aside.unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    """A name that nobody can guess and plant a link under; one that exists is refused, a link too."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}{_UNFINISHED}")


def clear_unfinished(folder: Path) -> None:
    """Delete what killed writers left in a folder and in those in it; only where nobody else writes meanwhile."""
    for aside in (*folder.glob(f".*{_UNFINISHED}"), *folder.glob(f"*/.*{_UNFINISHED}")):
        aside.unlink(missing_ok=True)


def check_own(path: Path) -> None:
    """Refuse a file that has another name elsewhere, or is none: what is written to it would land there too.

    Raises:
        UserError: it is a symbolic link, a hard link, or no plain file. One that does not exist passes.
    """
    try:
        found = path.lstat()
    except OSError:
        return
    _refuse_shared(path, found)


def _refuse_shared(path: Path, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        kind = "a symbolic link"
    elif not stat.S_ISREG(found.st_mode):
        kind = "no plain file"
    elif found.st_nlink > 1:
        kind = f"one file under {found.st_nlink} names (hard links)"
    else:
        return
    raise UserError(f"{path} is {kind}, and what is written there would change another file: replace it by a copy")


def append_lines(path: Path, text: str, *, go_on_with: str) -> None:
    """Append whole lines and hand them to the system, or leave the file as it was.

    Args:
        path: made if absent.
        text: lines, each with its newline.
        go_on_with: what a person does once there is space again, as the message says it.

    Raises:
        UserError: they cannot be written, or the file is a link (see `check_own`).
    """
    rest = memoryview(text.encode())
    check_own(path)
    try:
        with open(os.open(path, _OWN | os.O_APPEND, 0o666), "ab", buffering=0) as file:
            _refuse_shared(path, os.fstat(file.fileno()))
            start = file.tell()
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(start)
                raise
    except FileNotFoundError as error:
        raise UserError(
            f"cannot append to {path}: its folder was removed; bring it back and {go_on_with}, or start anew"
        ) from error
    except OSError as error:
        raise UserError(
            f"cannot append to {path} ({error.strerror}): free some space or make it writable, then "
            f"{go_on_with}; all earlier lines are intact"
        ) from error


def file_checksum(path: Path) -> str:
    """sha256 of a file, in hex."""
    digest = hashlib.sha256()
    feed(digest, path)
    return digest.hexdigest()


def feed(digest: Any, path: Path) -> None:
    """A file's bytes into a digest of `hashlib`."""
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)


_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def sole_writer(lock: Path, field: str, value: object, *, wait: str) -> Iterator[None]:
    """While this is open no other process has the lock; its folder is made if absent.

    The lock is the kernel's (`flock`): it ends with the process, however that dies; a child that is forked meanwhile
    holds it on. A file system that knows no locks grants nothing, and the process goes on without.

    Args:
        lock: a file that stays, with host and process of who held it last; one that is removed locks nothing.
        field, value: what is written to, as the messages name it.
        wait: what a person does where it is taken, before choosing another `field`.

    Raises:
        UserError: another process has it, named with its host; or the folder cannot be written.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UserError(f"{field}={value} cannot be written ({error.strerror}): choose another {field}") from error
    try:
        if not _taken(descriptor):
            holder = _holder(descriptor)
            raise UserError(f"{field}={value} is in use by {holder}: {wait}, or choose another {field}")
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _WITHOUT_LOCKS
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a name on it
        holder = json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode()
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder, 0)
    return True


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 1000, 0))
        return f"process {int(holder['pid'])} on host {str(holder['host'])[:255]}"
    except (KeyError, OSError, TypeError, ValueError):
        return "another process"
