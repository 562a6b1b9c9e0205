"""What is measured of a reasoner: on bed M how often a total is right that merges m operations after k; on S, a check.

Every cell is forced: the model is shown a true prefix and the letter of the total, and the chance that it writes that
total is read from its log-probs, at temperature 1. No sampling noise is left, only that of the problems, which are
those of the split `law`: nothing is trained on them and no method is tested on them.

Axes: P problems of a level, C compositions of its n operations, K cells (k, m).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from concise_rl.data.base import Prompt
from concise_rl.errors import DataError
from concise_rl.testbeds import which_sum
from concise_rl.testbeds.frontier import Frontier, Point
from concise_rl.testbeds.running_total import LETTERS, Composition, compositions, totals
from concise_rl.testbeds.teacher import THINK_CLOSE, THINK_OPEN

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Cell = tuple[int, int]
"""Operations that the total before stands for, and operations merged into this one."""

RESAMPLES = 400
_ROWS = 128


def cells(n: int) -> list[Cell]:
    """All cells of level n, by k and then m."""
    return [(k, m) for k in range(n) for m in range(1, n - k + 1)]


def cells_of(composition: Composition) -> list[Cell]:
    """The cells that a composition passes."""
    starts = np.cumsum([0, *composition[:-1]]).tolist()
    return list(zip(starts, composition, strict=True))


@dataclass(frozen=True)
class Level:
    """The law of one level.

    Attributes:
        n: operations.
        right_PK: chance of a right total, by cell as `cells` orders them.
        digits_PN: digits of the true totals after 1, ..., n operations.
    """

    n: int
    right_PK: np.ndarray
    digits_PN: np.ndarray

    @cached_property
    def compositions(self) -> list[Composition]:
        return list(compositions(self.n))

    @cached_property
    def accuracy_PC(self) -> np.ndarray:
        """Chance that all totals of a composition are right: the product over its cells."""
        place = {cell: i for i, cell in enumerate(cells(self.n))}
        chosen = [[place[cell] for cell in cells_of(composition)] for composition in self.compositions]
        return np.stack([self.right_PK[:, columns].prod(1) for columns in chosen], axis=1)

    @cached_property
    def tokens_PC(self) -> np.ndarray:
        """Both tags and EOS, a letter and the digits of each written total, the digits of the answer."""
        ends = [np.cumsum(composition) for composition in self.compositions]
        written = [3 + len(end) - 1 + self.digits_PN[:, end - 1].sum(1) for end in ends]
        return np.stack(written, axis=1)

    def points(self, weights_P: np.ndarray | None = None) -> list[Point]:
        """Every composition's accuracy and tokens; the problems weighted, alike where None."""
        weights = np.ones(len(self.right_PK)) if weights_P is None else weights_P
        accuracy_C, tokens_C = ((weights @ values) / weights.sum() for values in (self.accuracy_PC, self.tokens_PC))
        return [
            Point(*values) for values in zip(accuracy_C.tolist(), tokens_C.tolist(), self.compositions, strict=True)
        ]

    def errors(self) -> dict[Cell, float]:
        """Mean error of each cell."""
        return dict(zip(cells(self.n), (1 - self.right_PK.mean(0)).tolist(), strict=True))


@dataclass(frozen=True)
class MergingLaw:
    """The law of a model on bed M, level by level."""

    levels: Mapping[int, Level]

    def frontier(self) -> Frontier:
        """The best that a policy that knows the level can do with this model's arithmetic."""
        return Frontier.of([level.points() for level in self.levels.values()])

    def point(self, composition: Composition) -> Point:
        """What forcing one composition of a level reaches."""
        return next(p for p in self.levels[sum(composition)].points() if p.policy == composition)

    def interval(self, statistic: Callable[[Frontier], float], seed: int = 0) -> tuple[float, float]:
        """95 % bootstrap interval of a statistic of the frontier: problems are drawn anew within each level."""
        rng = np.random.default_rng(seed)
        found = []
        for _ in range(RESAMPLES):
            drawn = []
            for level in self.levels.values():
                n_problems = len(level.right_PK)
                weights_P = np.bincount(rng.integers(n_problems, size=n_problems), minlength=n_problems)
                drawn.append(level.points(weights_P.astype(float)))
            found.append(statistic(Frontier.of(drawn)))
        low, high = np.nanpercentile(found, [2.5, 97.5]).tolist()
        return low, high

    def save(self, path: Path) -> None:
        """As JSON: by level, each problem's chances to four digits, and its digits."""
        stored = {
            str(n): {"right": np.round(level.right_PK, 4).tolist(), "digits": level.digits_PN.tolist()}
            for n, level in self.levels.items()
        }
        lines = [f'"{n}": {json.dumps(level, separators=(",", ":"))}' for n, level in stored.items()]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")

    @classmethod
    def load(cls, path: Path) -> MergingLaw:
        """The inverse of `save`.

        Raises:
            DataError: there is no such file, or it holds no law.
        """
        try:
            stored = json.loads(path.read_text())
            return cls({int(n): Level(int(n), np.array(v["right"]), np.array(v["digits"])) for n, v in stored.items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} holds no law ({error}): make it: concise-rl warmup task=running_total --out DIR"
            ) from error


def measure_law(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[Prompt]) -> MergingLaw:
    """Force every cell of every problem once, after a true prefix of a random composition."""
    rng = random.Random(0)
    by_level: dict[int, list[str]] = {}
    for prompt in prompts:
        by_level.setdefault(int(prompt.columns["difficulty"]), []).append(prompt.messages[-1]["content"])
    levels = {}
    for n, questions in sorted(by_level.items()):
        forced = [_forced(question, n, cell, rng) for question in questions for cell in cells(n)]
        right_PK = np.array(written_chances(model, tokenizer, forced)).reshape(len(questions), -1)
        digits_PN = np.array([[len(str(total)) for total in totals(question)[1:]] for question in questions])
        levels[n] = Level(n, right_PK, digits_PN)
    return MergingLaw(levels)


def measure_checks(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[Prompt]
) -> dict[str, list[float]]:
    """How often a check of bed S is written right, by level and by the number of checks before it: its law says always.

    Forced as the cells of bed M are; every check that settles the answer, up to the right option's own.
    """
    forced: dict[tuple[int, int], list[tuple[str, str]]] = {}
    for prompt in prompts:
        question, right = prompt.messages[-1]["content"], int(prompt.columns["rank"])
        checks = [which_sum.check(question, place) for place in range(right + 1)]
        for place, check in enumerate(checks):
            prefix = f"{question}{THINK_OPEN}{''.join(checks[:place])}{check[0]}"
            forced.setdefault((int(prompt.columns["difficulty"]), place), []).append((prefix, check[1:]))
    found: dict[str, list[float]] = {}
    for (n, _), rows in sorted(forced.items()):
        found.setdefault(str(n), []).append(round(float(np.mean(written_chances(model, tokenizer, rows))), 4))
    return found


def _forced(question: str, n: int, cell: Cell, rng: random.Random) -> tuple[str, str]:
    start, merged = cell
    true, end = totals(question), start + merged
    written = [k for k in range(1, start) if rng.random() < 0.5] + [start] * (start > 0)
    prefix = "".join(f"{LETTERS[k - 1]}{true[k]}" for k in written)
    asked = THINK_CLOSE if end == n else LETTERS[end - 1]
    return f"{question}{THINK_OPEN}{prefix}{asked}", str(true[end])


@torch.no_grad()
def written_chances(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, forced: Sequence[tuple[str, str]]
) -> list[float]:
    """The chance at temperature 1 that a model, after a prefix, writes a text and no further digit.

    After `</think>` the text is the answer: then EOS must follow.

    Args:
        model: with a tokenizer of one token a character.
        tokenizer: its tokenizer.
        forced: prefix and text, such as a number.
    """
    model.eval()
    digits = tokenizer.convert_tokens_to_ids(list("0123456789"))
    chances = [0.0] * len(forced)
    rows = [(tokenizer.encode(prefix), tokenizer.encode(number)) for prefix, number in forced]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1]))
    for first in range(0, len(order), _ROWS):
        batch = order[first : first + _ROWS]
        width = max(len(rows[i][0]) + len(rows[i][1]) for i in batch)
        ids = torch.full((len(batch), width), tokenizer.pad_token_id)
        for row, i in enumerate(batch):
            whole = [*rows[i][0], *rows[i][1]]
            ids[row, : len(whole)] = torch.tensor(whole)  # padded on the right: causal, so no mask is needed
        chances_BTV = model(input_ids=ids, use_cache=False).logits.float().softmax(-1)
        for row, i in enumerate(batch):
            prefix, number = rows[i]
            places = range(len(prefix) - 1, len(prefix) + len(number) - 1)
            chance = 1.0
            for place, token in zip(places, number, strict=True):
                chance *= float(chances_BTV[row, place, token])
            after = chances_BTV[row, len(prefix) + len(number) - 1]
            is_answer = forced[i][0].endswith(THINK_CLOSE)
            ends = after[tokenizer.eos_token_id] if is_answer else 1 - after[digits].sum()
            chances[i] = chance * float(ends)
    return chances


def load_checkpoint(folder: Path) -> tuple[Any, Any]:
    """A tiny reasoner and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
