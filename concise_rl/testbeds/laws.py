"""What is measured of a reasoner: on bed M how often it gets all totals of a composition right; on S, a check.

Every choice is forced: the model is shown a true completion, and the chance that it writes each total is read from its
log-probs, at temperature 1. An answer can be right though a total before it was not: how often it recovers is sampled
for each composition. The problems are those of the split `law`: nothing is trained on them and no method is
tested on them.

Axes: P problems of a level, C compositions of its n operations.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from concise_rl.data.base import Prompt
from concise_rl.errors import DataError
from concise_rl.testbeds import which_sum
from concise_rl.testbeds.forcing import Forcer, force_composition
from concise_rl.testbeds.frontier import Frontier, Point
from concise_rl.testbeds.running_total import Composition, completion, compositions, parse, totals
from concise_rl.testbeds.teacher import THINK_CLOSE, THINK_OPEN

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Cell = tuple[int, int]
"""Operations that the total before stands for, and operations merged into this one."""

RESAMPLES = 400
_ROWS = 128
_SAMPLED = 256
"""Problems of a level on which recovery is sampled."""
_PRIOR = 10


def cells_of(composition: Composition) -> list[Cell]:
    """The cells that a composition passes."""
    starts = np.cumsum([0, *composition[:-1]]).tolist()
    return list(zip(starts, composition, strict=True))


@dataclass(frozen=True)
class Level:
    """The law of one level.

    Attributes:
        n: operations.
        right_PC: chance that all totals are right, by composition as `compositions` orders them.
        digits_PN: digits of the true totals after 1, ..., n operations.
        errors: mean error of a total by its cell, over the compositions that pass it: what the chances come down to.
        recovery: by composition, the share of right answers where not all totals are right.
    """

    n: int
    right_PC: np.ndarray
    digits_PN: np.ndarray
    errors: dict[Cell, float]
    recovery: dict[Composition, float]

    @cached_property
    def compositions(self) -> list[Composition]:
        return list(compositions(self.n))

    @cached_property
    def accuracy_PC(self) -> np.ndarray:
        """Chance of a right answer: right + (1 - right) * recovery."""
        recovery_C = np.array([self.recovery[composition] for composition in self.compositions])
        return self.right_PC + (1 - self.right_PC) * recovery_C

    @cached_property
    def tokens_PC(self) -> np.ndarray:
        """Both tags and EOS, a letter and the digits of each written total, the digits of the answer."""
        ends = [np.cumsum(composition) for composition in self.compositions]
        written = [3 + len(end) - 1 + self.digits_PN[:, end - 1].sum(1) for end in ends]
        return np.stack(written, axis=1)

    def points(self, weights_P: np.ndarray | None = None) -> list[Point]:
        """Every composition's accuracy and tokens; the problems weighted, alike where None."""
        weights = np.ones(len(self.accuracy_PC)) if weights_P is None else weights_P
        accuracy_C, tokens_C = ((weights @ values) / weights.sum() for values in (self.accuracy_PC, self.tokens_PC))
        return [
            Point(*values) for values in zip(accuracy_C.tolist(), tokens_C.tolist(), self.compositions, strict=True)
        ]


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
                n_problems = len(level.accuracy_PC)
                weights_P = np.bincount(rng.integers(n_problems, size=n_problems), minlength=n_problems)
                drawn.append(level.points(weights_P.astype(float)))
            found.append(statistic(Frontier.of(drawn)))
        low, high = np.nanpercentile(found, [2.5, 97.5]).tolist()
        return low, high

    def save(self, path: Path) -> None:
        """As JSON: by level, each problem's chances in thousandths, its digits, errors by cell, and recovery."""
        stored = {
            str(n): {
                "errors": {f"{start}+{merged}": round(error, 4) for (start, merged), error in level.errors.items()},
                "recovery": {"+".join(map(str, own)): round(share, 4) for own, share in level.recovery.items()},
                "digits": level.digits_PN.tolist(),
                "right": np.round(1000 * level.right_PC).astype(int).tolist(),
            }
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
            levels = {int(n): _level(int(n), stored) for n, stored in json.loads(path.read_text()).items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} holds no law ({error}): make it: concise-rl warmup task=running_total --out DIR"
            ) from error
        return cls(levels)


def _level(n: int, stored: Mapping[str, Any]) -> Level:
    errors = {
        (int(k), int(m)): e for (k, _, m), e in ((cell.partition("+"), e) for cell, e in stored["errors"].items())
    }
    recovery = {tuple(map(int, own.split("+"))): share for own, share in stored["recovery"].items()}
    return Level(n, np.array(stored["right"]) / 1000, np.array(stored["digits"]), errors, recovery)


def measure_law(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[Prompt]) -> MergingLaw:
    """Force every composition of every problem once."""
    by_level: dict[int, list[str]] = {}
    for prompt in prompts:
        by_level.setdefault(int(prompt.columns["difficulty"]), []).append(prompt.messages[-1]["content"])
    return MergingLaw({n: _measure_level(model, tokenizer, n, own) for n, own in sorted(by_level.items())})


def _measure_level(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, n: int, questions: Sequence[str]
) -> Level:
    chosen = list(compositions(n))
    forced = [(question, completion(question, composition)) for question in questions for composition in chosen]
    chances = number_chances(model, tokenizer, forced)
    right_PC = np.array([np.prod(own) for own in chances]).reshape(len(questions), -1)
    by_cell: dict[Cell, list[float]] = {}
    for row, own in enumerate(chances):
        for cell, chance in zip(cells_of(chosen[row % len(chosen)]), own, strict=True):
            by_cell.setdefault(cell, []).append(1 - chance)
    errors = {cell: float(np.mean(by_cell[cell])) for cell in sorted(by_cell)}
    digits_PN = np.array([[len(str(total)) for total in totals(question)[1:]] for question in questions])
    return Level(n, right_PC, digits_PN, errors, measure_recovery(Forcer(model, tokenizer), n, questions[:_SAMPLED]))


def measure_recovery(forcer: Forcer, n: int, questions: Sequence[str]) -> dict[Composition, float]:
    """Share of right answers among the completions in which not all totals are right, by composition.

    Sampled; one total recovers from nothing. Where few have fallen the share is drawn towards that of all compositions
    of as many totals, which weighs as much as `_PRIOR` completions.
    """
    counts: dict[Composition, tuple[int, int]] = {}
    for composition in compositions(n):
        texts = force_composition(forcer, questions, composition) if len(composition) > 1 else ()
        stated = [(q, text, parse(q, text)) for q, text in zip(questions, texts, strict=len(composition) > 1)]
        fallen = [(q, text) for q, text, own in stated if own is None or not all(total.right for total in own)]
        recovered = sum(text.endswith(f"{THINK_CLOSE}{totals(q)[-1]}") for q, text in fallen)
        counts[composition] = recovered, len(fallen)
    found = {}
    for composition, (recovered, fallen_count) in counts.items():
        alike = [own for other, own in counts.items() if len(other) == len(composition)]
        prior = sum(r for r, _ in alike) / max(1, sum(f for _, f in alike))
        found[composition] = (recovered + _PRIOR * prior) / (fallen_count + _PRIOR)
    return found


def measure_checks(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[Prompt]
) -> dict[str, list[float]]:
    """How often a check of bed S is written right, by level and by the number of checks before it: its law says always.

    Forced as the totals of bed M are: every check that settles the answer, up to the right option's own.
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
        found.setdefault(str(n), []).append(round(float(np.mean(text_chances(model, tokenizer, rows))), 4))
    return found


def number_chances(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, forced: Sequence[tuple[str, str]]
) -> list[list[float]]:
    """The chance at temperature 1 of each number of a completion, given that all before it is as it stands.

    A number is written when its digits are, and no further digit follows; the last one, the answer, when EOS follows.

    Args:
        model: with a tokenizer of one token a character.
        tokenizer: its tokenizer.
        forced: question and completion of bed M.
    """
    digits = set(tokenizer.convert_tokens_to_ids(list("0123456789")))
    found = []
    for prefix, ids, chances_TV in _forward(model, tokenizer, forced):
        own: list[float] = []
        for place in range(prefix, len(ids)):
            if ids[place] not in digits:
                continue
            if ids[place - 1] not in digits:
                own.append(1.0)
            own[-1] *= float(chances_TV[place - 1, ids[place]])
            if place + 1 == len(ids):
                own[-1] *= float(chances_TV[place, tokenizer.eos_token_id])
            elif ids[place + 1] not in digits:
                own[-1] *= 1 - float(chances_TV[place, sorted(digits)].sum())
        found.append(own)
    return found


def text_chances(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, forced: Sequence[tuple[str, str]]
) -> list[float]:
    """The chance at temperature 1 of each text after its prefix."""
    found = []
    for prefix, ids, chances_TV in _forward(model, tokenizer, forced):
        places = torch.arange(prefix, len(ids))
        found.append(float(chances_TV[places - 1, torch.tensor(ids[prefix:])].prod()))
    return found


@torch.no_grad()
def _forward(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, forced: Sequence[tuple[str, str]]
) -> Iterator[tuple[int, list[int], Tensor]]:
    """Tokens of each prefix, ids of prefix and text, and the chances (T, V) of what follows each, in the order given.

    Texts come `_ROWS` at a time, so those of like length should stand together.
    """
    model.eval()
    for first in range(0, len(forced), _ROWS):
        rows = [(tokenizer.encode(prefix), tokenizer.encode(text)) for prefix, text in forced[first : first + _ROWS]]
        width = max(len(prefix) + len(text) for prefix, text in rows)
        ids = [[*prefix, *text] for prefix, text in rows]
        padded = torch.tensor([own + [tokenizer.pad_token_id] * (width - len(own)) for own in ids])
        chances_BTV = model(input_ids=padded, use_cache=False).logits.float().softmax(-1)  # causal: no mask is needed
        for (prefix, _), own, chances_TV in zip(rows, ids, chances_BTV, strict=True):
            yield len(prefix), own, chances_TV


def load_checkpoint(folder: Path) -> tuple[Any, Any]:
    """A tiny reasoner and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
