"""On-policy SFT: tune on everything that the model itself answered right, and short enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from concise_rl.errors import UserError
from concise_rl.methods.contracts import Choice, Sample, Selection, Selector


@dataclass
class AllRight(Selector):
    """Every right answer that ended by itself, within `limit` tokens.

    Attributes:
        limit: tokens, EOS included; None takes any length.

    Raises:
        UserError: a limit below 1.
    """

    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UserError(f"AllRight.limit={self.limit}: must be 1 token or more, or null for any length")

    def select(self, problems: Mapping[str, Sequence[Sample]]) -> Selection:
        """A row for each."""
        right = [s for samples in problems.values() for s in samples if s.correct and not s.truncated]
        return [Choice(s) for s in right if self.limit is None or s.length <= self.limit]
