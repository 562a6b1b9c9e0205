"""Writing that reaches the disk, folders that are replaced whole, and one line where the disk refuses."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from concise_rl.errors import UserError

REPLACED = ".replaced-"
"""A folder that is being replaced has this before its name until the new one stands in its place."""


class CheckpointError(UserError):
    """A checkpoint that cannot be written or read: names the file and the remedy."""


@contextmanager
def saving(folder: Path) -> Iterator[None]:
    """Around code that writes a folder: a full or unwritable disk becomes one line that names the remedy.

    Raises:
        CheckpointError: in place of an OSError, and of what torch and safetensors raise when a write fails.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise CheckpointError(_write_failed(folder, error)) from error
    except Exception as error:
        failed = _failed_write(str(error))
        if failed is None and _free_bytes(folder) > 1 << 20:
            raise
        raise CheckpointError(
            _write_failed(folder, failed or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        ) from error


def _failed_write(message: str) -> OSError | None:
    """The system's refusal in the words of other libraries: safetensors gives its number, torch at most its text."""
    number = re.search(r"\(os error (\d+)\)", message)
    if number:
        return OSError(int(number[1]), os.strerror(int(number[1])))
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG):
        if os.strerror(code) in message:
            return OSError(code, os.strerror(code))
    if re.match(r"Parent directory .* does not exist", message):
        return OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    if "inline_container.cc" in message or "PytorchStreamWriter" in message:
        return OSError(
            errno.EIO, "a file could not be written whole: the disk is full, or a limit of the system is met"
        )
    return None


def _write_failed(folder: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free some space (or inodes: df -i), or choose another run.dir"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = "make it writable, or choose another run.dir"
    elif error.errno == errno.EFBIG:
        remedy = "raise the limit (ulimit -f), or choose another run.dir"
    elif error.errno == errno.ENOENT:
        return (
            f"{folder} cannot be saved: its folder was removed; bring it back and go on with resume=auto, or start anew"
        )
    else:
        remedy = "mend that, or choose another run.dir"
    return (
        f"{folder} cannot be saved ({error.strerror or error}): {remedy}; then go on with resume=auto, "
        "checkpoints saved before are intact"
    )


def _free_bytes(folder: Path) -> int:
    there = next(path for path in [folder.absolute(), *folder.absolute().parents] if path.exists())
    return shutil.disk_usage(there).free


def replace_folder(staging: Path, final: Path) -> None:
    """Bring a folder to the disk and rename it to `final`; one that is there already is moved aside first.

    At any moment, killed or without power, `final` is complete or absent, or stands aside under `REPLACED`.

    Raises:
        CheckpointError: the disk refuses, or `staging` holds a symbolic link.
    """
    with saving(final):
        for path in [*regular_paths(staging), staging]:
            _to_disk(path)
        aside = final.with_name(REPLACED + final.name)
        if final.exists() or final.is_symlink():
            remove(aside)
            os.rename(final, aside)
        os.rename(staging, final)
        _to_disk(final.parent)
        remove(aside)


def regular_paths(folder: Path) -> list[Path]:
    """All files and folders below `folder`.

    Raises:
        CheckpointError: one of them is a link, a pipe or the like.
    """
    paths = sorted(folder.rglob("*"))
    for path in paths:
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise CheckpointError(f"{path} is no regular file: write the file itself into the checkpoint")
    return paths


def write(path: Path, content: bytes) -> None:
    """Write a file, and wait until it has reached the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
