"""Configuration values that are one of a few words: enums, so that Hydra and plain strings meet the same check."""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

from concise_rl.errors import UserError

E = TypeVar("E", bound=Enum)


class Variant(str, Enum):
    """Which definition holds where a paper and its released code differ; each component says how they do."""

    paper = "paper"
    code = "code"


def choose(field: str, kind: type[E], value: E | str) -> E:
    """`value` as a member of `kind`, by its value.

    Raises:
        UserError: not one of them; the message names the field and lists the choices.
    """
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(str(member.value) for member in kind)
        raise UserError(f"{field}={value!r}: choose one of {choices}") from None
