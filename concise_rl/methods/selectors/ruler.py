"""Ruler's meta length tokens: a completion is told how long it is, and so learns to be as long as it is told."""

from __future__ import annotations

from dataclasses import dataclass

from concise_rl.errors import UserError
from concise_rl.methods.contracts import Selector
from concise_rl.methods.picking import NO_RIGHT, Pick, chosen, right
from concise_rl.samples import Samples, Selection

WINDOWS = {
    10: (5, 15),
    30: (25, 35),
    50: (45, 55),
    80: (75, 85),
    150: (135, 155),
    300: (295, 305),
    500: (495, 505),
    700: (695, 705),
}
"""A token's number to the words of its training rows, more than the first and at most the second; the released code's.
That of 150 is not even, there too."""

ABOVE = 800
"""More words than so many have the last token, `>800`."""


@dataclass
class Ruler(Selector):
    """Ruler (arXiv 2409.18943; Geaming2002/Ruler): supervised rows that begin with their own length.

    Words are the text split at white space. A right completion whose words lie in the window of a token, open below and
    closed above, is chosen, and its text begins with `[MLT:80]`. What lies in no window is left out.

    Attributes:
        most: rows a token, the first by problem key; 20,000 in the paper.

    Raises:
        UserError: fewer than 1.
    """

    most: int = 20_000

    needs = frozenset({"words"})

    def __post_init__(self) -> None:
        if self.most < 1:
            raise UserError(f"Ruler.most={self.most}: give 1 row a token or more")

    def __call__(self, samples: Samples, seed: int) -> Selection:
        """A row for each right completion in a window, up to `most` of each token."""
        taken: dict[str, int] = {}
        picks: list[Pick] = []
        dropped: dict[str, str] = {}
        for key, rows in samples.by_problem():
            tokens = [(row, length_token(row.words)) for row in right(rows)]
            before = len(picks)
            for row, token in tokens:
                if token and taken.get(token, 0) < self.most:
                    taken[token] = taken.get(token, 0) + 1
                    picks.append(Pick(row, start=token))
            if len(picks) == before:
                none_fits = "no right answer in a window" if not any(t for _, t in tokens) else "its tokens are full"
                dropped[key] = none_fits if tokens else NO_RIGHT if rows else "no verdict"
        return chosen(picks, dropped)


def length_token(words: int) -> str:
    """`[MLT:80]` for 76 to 85 words; empty between two windows."""
    if words > ABOVE:
        return f"[MLT:>{ABOVE}]"
    for target, (low, high) in WINDOWS.items():
        if low < words <= high:
            return f"[MLT:{target}]"
    return ""
