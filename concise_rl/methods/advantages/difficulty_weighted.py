"""Credit weighted by how hard the prompt is: GUI-G1's difficulty weight, from a data column or from the pass rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from concise_rl.batch import COLUMN_PREFIX, RolloutBatch
from concise_rl.errors import DataError, UserError
from concise_rl.methods.contracts import Advantage, Out
from concise_rl.methods.statistics import pass_rate
from concise_rl.options import choose


class Kind(str, Enum):
    """Where a prompt's weight comes from. See `DifficultyWeighted`."""

    pass_rate = "pass_rate"
    weight = "weight"
    linear = "linear"
    inverse = "inverse"


@dataclass
class DifficultyWeighted(Advantage):
    """The credit of the links before, times a weight that grows with the prompt's difficulty.

        A = w_p * credit

    | kind | weight of prompt p | source |
    |---|---|---|
    | `pass_rate` | high - (high - low) * (share of right rows among those that count) | the group itself |
    | `weight` | the column's value as it stands | GUI-G1's released code, column `rate` |
    | `linear` | low + (high - low) * (v - min) / (max - min), larger is harder | a column such as a count |
    | `inverse` | low + (high - low) * (1/v - 1/max) / (1/min - 1/max), smaller is harder | GUI-G1 |

    `inverse` is GUI-G1's weight of a relative box size (arXiv 2505.15810 appendix C.3), usable on any positive column.
    min and max are those of the column over the whole training set, so they are stated, not estimated from a batch.
    Where they are equal no prompt is harder than another and the weight is 1.

    Attributes:
        kind: one of the table.
        column: the dataset column; needed by every kind but `pass_rate`.
        minimum, maximum: smallest and largest value of the column in the training set; for `linear` and `inverse`.
        low, high: the range of the weight; not used by `weight`.

    Raises:
        UserError: fields that do not go together, when built.
        DataError: a value of the column that is no number or outside the stated range, when called.
    """

    kind: Kind = Kind.pass_rate
    column: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    low: float = 0.5
    high: float = 1.5

    def __post_init__(self) -> None:
        self.kind = choose("DifficultyWeighted.kind", Kind, self.kind)
        if not (math.isfinite(self.high) and 0 <= self.low <= self.high):
            raise UserError(f"DifficultyWeighted.low={self.low}, high={self.high}: need 0 <= low <= high")
        if (self.column is None) != (self.kind is Kind.pass_rate):
            raise UserError(
                f"DifficultyWeighted.column={self.column!r} with kind={self.kind.value}: "
                "name the dataset column for kind weight, linear or inverse, and none for pass_rate"
            )
        if self.kind in (Kind.linear, Kind.inverse):
            self._range()
        elif self.minimum is not None or self.maximum is not None:
            raise UserError(f"DifficultyWeighted.minimum/maximum: kind={self.kind.value} has no range, leave them out")

    def _range(self) -> tuple[float, float]:
        """The column's stated smallest and largest value, checked."""
        smallest, largest = self.minimum, self.maximum
        if smallest is None or largest is None or not -math.inf < smallest <= largest < math.inf:
            raise UserError(
                f"DifficultyWeighted.minimum={smallest}, maximum={largest}: kind={self.kind.value} needs the smallest "
                f"and the largest value of column {self.column!r} in the training set"
            )
        if self.kind is Kind.inverse and smallest <= 0:
            raise UserError(f"DifficultyWeighted.minimum={smallest}: kind=inverse divides by it, it must be positive")
        return smallest, largest

    @property
    def needs(self) -> frozenset[str]:
        """The column, where a kind reads one."""
        return frozenset() if self.column is None else frozenset({COLUMN_PREFIX + self.column})

    def apply(self, batch: RolloutBatch, value: Tensor) -> Out:
        """Credit of the shape that came, (N,) or (N, T)."""
        weights_N = self.weights(batch)
        return Out(value * (weights_N if value.ndim == 1 else weights_N[:, None]))

    def weights(self, batch: RolloutBatch) -> Tensor:
        """The weight of each row's prompt, (N,) float64."""
        if self.column is None:
            return self.high - (self.high - self.low) * pass_rate(batch)
        values = zip(batch.prompt_keys, batch.column(self.column), strict=True)
        return batch.per_row(torch.tensor([self._weight(prompt, v) for prompt, v in values], dtype=torch.float64))

    def _weight(self, prompt_key: str, value: Any) -> float:
        where = f"column {self.column!r} of prompt {prompt_key} is {value!r}"
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise DataError(f"{where}: DifficultyWeighted needs a number there") from None
        if self.kind is Kind.weight:
            if not 0 <= number < math.inf:
                raise DataError(f"{where}: a weight is a finite number, not negative")
            return number
        first, last = self._range()
        if not first <= number <= last:
            raise DataError(
                f"{where}: outside DifficultyWeighted.minimum={first} to maximum={last}; "
                "state the range of the whole training set"
            )
        if first == last:
            return 1.0
        if self.kind is Kind.inverse:
            first, last, number = 1 / last, 1 / first, 1 / number
        return self.low + (self.high - self.low) * (number - first) / (last - first)
