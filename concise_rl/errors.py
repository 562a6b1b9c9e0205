"""The errors a person can mend: raised early, one line, exit code 2; and how any error reaches the terminal."""

from __future__ import annotations

import sys
import unicodedata
from types import TracebackType


class UserError(ValueError):
    """Bad input of any kind: the message names the field, the value and the remedy."""


class DataError(UserError):
    """A data set that cannot be used: names the source and the row."""


def printable(text: str) -> str:
    """The text with control characters other than newline and tab made visible, so none can steer a terminal."""
    if text.replace("\n", "").replace("\t", "").isprintable():  # a hundred times faster than character by character
        return text
    return "".join(c if c in "\n\t" or unicodedata.category(c)[0] != "C" else f"\\x{ord(c):02x}" for c in text)


def show_printable_tracebacks() -> None:
    """From now on an error that nobody catches is shown as always, but with its text made `printable`.

    A template or a server may have put escape codes into the message of an exception that a library raises.
    """
    sys.excepthook = _show


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    import traceback

    sys.stderr.write(printable("".join(traceback.format_exception(kind, error, trace))))
