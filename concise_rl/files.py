"""Files that are complete or as they were, whatever interrupts the writing."""

from __future__ import annotations

import os
from pathlib import Path

from concise_rl.errors import UserError


def replace_text(path: Path, text: str) -> None:
    """Replace a text file whole, or leave it as it was.

    Raises:
        UserError: it cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("w", encoding="utf-8", errors="replace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path} ({error.strerror}): free some space or choose another output folder"
        ) from error


def append_lines(path: Path, text: str, *, go_on_with: str) -> None:
    """Append whole lines and hand them to the system, or leave the file as it was.

    Args:
        path: made if absent.
        text: lines, each with its newline.
        go_on_with: what a person does once there is space again, as the message says it.

    Raises:
        UserError: they cannot be written.
    """
    rest = memoryview(text.encode())
    try:
        with path.open("ab", buffering=0) as file:
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
