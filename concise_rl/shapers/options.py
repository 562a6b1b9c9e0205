"""What the shapers' configurations share: words that must be one of a few, and the mean that metrics report."""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

from torch import Tensor

from concise_rl.errors import UserError

E = TypeVar("E", bound=Enum)


class Variant(str, Enum):
    """Which definition holds where a paper and its released code differ; each shaper says how they do."""

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


def mean_where(values_N: Tensor, mask_N: Tensor) -> float:
    """Mean of the values that the mask keeps; 0 where it keeps none."""
    return float(values_N[mask_N].double().mean()) if bool(mask_N.any()) else 0.0
