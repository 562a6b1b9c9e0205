"""What curricula share: which prompts may come, whose turn it is, and how often each was solved."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from hashlib import blake2b
from typing import Any

from concise_rl.batch import RolloutBatch
from concise_rl.data.base import Prompt
from concise_rl.errors import DataError
from concise_rl.methods.contracts import Curriculum, State


def eligible(prompts: Sequence[Prompt], used: Collection[str], barred: Collection[str] = ()) -> list[int]:
    """Indices of the prompts that are neither used nor barred, each id once."""
    taken, found = set(used) | set(barred), []
    for index, prompt in enumerate(prompts):
        if prompt.id not in taken:
            taken.add(prompt.id)
            found.append(index)
    return found


def least_drawn(
    prompts: Sequence[Prompt], candidates: list[int], n: int, rng: random.Random, times: Mapping[str, int]
) -> list[int]:
    """Up to `n` of the candidates, those that came least often first and at random among equals: epochs, whoever
    joins or leaves."""
    by_times: dict[int, list[int]] = {}
    for index in candidates:
        by_times.setdefault(times.get(prompts[index].id, 0), []).append(index)
    drawn: list[int] = []
    for drawn_before in sorted(by_times):
        equals = by_times[drawn_before]
        drawn += rng.sample(equals, min(n - len(drawn), len(equals)))
    return drawn


def count_draws(times: dict[str, int], batch: RolloutBatch) -> dict[str, int]:
    """`times` with each prompt of the step counted once, in place."""
    for key in dict.fromkeys(batch.prompt_keys):
        times[key] = times.get(key, 0) + 1
    return times


def judged(batch: RolloutBatch) -> RolloutBatch:
    """The batch with every row that has a verdict counting: a filter says what teaches, not what is known. A group that
    is all right teaches nothing under `zero_variance`, and is what a curriculum most needs to hear of."""
    return batch.replace(counts=batch.scorable)


def tally(batch: RolloutBatch) -> dict[str, tuple[int, int]]:
    """(right, sampled) rows with a verdict of each prompt of the step that has any; its groups together."""
    right_P = batch.by_group(batch.correct & batch.scorable).sum(dim=1).tolist()
    sampled_P = batch.by_group(batch.scorable).sum(dim=1).tolist()
    found: dict[str, tuple[int, int]] = {}
    for key, right, sampled in zip(batch.prompt_keys, right_P, sampled_P, strict=True):
        if sampled:
            before = found.get(key, (0, 0))
            found[key] = (before[0] + right, before[1] + sampled)
    return found


def share_of(share: float) -> Fraction:
    """A share as it is written, 0.9 as 9/10, so that comparing it with counts rounds nothing."""
    return Fraction(str(share))


def place(seed: int, key: str) -> int:
    """Where a prompt stands in the one seeded order of all prompts, 0 to 2**64 - 1, whatever else the data holds."""
    return int.from_bytes(blake2b(f"{seed}/{key}".encode(errors="surrogatepass"), digest_size=8).digest(), "little")


def column_of(prompt: Prompt, column: str, who: str) -> Any:
    """A column of a prompt.

    Raises:
        DataError: the prompt has none, or null.
    """
    if prompt.columns.get(column) is None:
        raise DataError(f"prompt {prompt.id} has no column {column!r}: {who} needs it in every row of the data")
    return prompt.columns[column]


class ByEpoch(Curriculum):
    """A curriculum that decides once an epoch which prompts stand out, from the last pass rate of each.

    In an epoch every prompt that is not left out comes once, in random order. Where fewer are left than a step needs,
    they are joined by prompts of the next epoch, chosen from the rates known by then. The epoch is over when a step
    holds a prompt that had come before, or was left out: then its rates are recorded, and what is left out of the next
    epoch is decided and kept. A prompt without a rate is never left out.

    State: `epoch` from 0, `seen` in it, `left_out` of it, last `rates`.
    """

    def left_out(self, rates: Mapping[str, float], epoch: int) -> Collection[str]:
        """The prompts with a rate that do not come in an epoch after the first."""
        raise NotImplementedError

    def init(self) -> State:
        """The first epoch has everything."""
        return {"epoch": 0, "seen": [], "left_out": [], "rates": {}}

    def draw(
        self, prompts: Sequence[Prompt], n: int, used: Collection[str], rng: random.Random, state: State
    ) -> list[int]:
        """Up to `n` of the prompts whose turn it is, then of the next epoch."""
        now = eligible(prompts, used, {*state["seen"], *state["left_out"]})
        drawn = rng.sample(now, min(n, len(now)))
        if len(drawn) < n:
            out = self.left_out(state["rates"], state["epoch"] + 1)
            then = eligible(prompts, {*used, *(prompts[index].id for index in drawn)}, out)
            drawn += rng.sample(then, min(n - len(drawn), len(then)))
        return drawn

    def observe(self, batch: RolloutBatch, state: State) -> State:
        """The state with the step's rates, and a new epoch where the step began one."""
        keys = list(dict.fromkeys(batch.prompt_keys))
        old = {*state["seen"], *state["left_out"]}
        again = [key for key in keys if key in old]
        rates = {**state["rates"], **{key: right / sampled for key, (right, sampled) in tally(batch).items()}}
        if not again:
            return {**state, "seen": state["seen"] + keys, "rates": rates}
        epoch = state["epoch"] + 1
        return {"epoch": epoch, "seen": again, "left_out": sorted(self.left_out(rates, epoch)), "rates": rates}


def seeded(*parts: object) -> random.Random:
    """The random stream of these parts, such as run seed, step and prompt key; a key may be any text."""
    return random.Random("/".join(map(str, parts)).encode(errors="surrogatepass"))
