"""DART's quotas as a curriculum: a prompt comes until it has as many right answers as its difficulty asks for."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from concise_rl.batch import RolloutBatch
from concise_rl.data.base import Prompt
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Curriculum, State
from concise_rl.methods.drawing import count_draws, eligible, least_drawn, tally
from concise_rl.methods.quotas import Quota, quotas
from concise_rl.options import choose


@dataclass
class Dart(Curriculum):
    """Draws a prompt until it has more right answers than its quota, or `max_trials` completions.

    Source: arXiv 2407.13690, hkust-nlp/dart-math at 219b324, which samples so for supervised tuning; here the rollouts
    that fill a quota (`concise_rl.methods.quotas`) are those that train. How often a prompt is failed is counted over
    all of its rows so far. A prompt without a verdict so far comes first.
    Among those whose quota is open, who came least often in this round comes first, at random among equals. Where
    fewer are open than a step needs, filled ones join; a step that holds one begins a new round, with empty quotas.
    So over a round a prompt's share of the rollouts grows with its difficulty, up to the ceiling.

    State: `right` and `sampled` rows of each prompt in all; `filled` and `tried`, the same of this round; `drawn`
    steps of this round.

    Attributes:
        kind: `prop2diff` or `uniform`.
        k: quota of the hardest prompt, or of each; the paper has 50 and 40 answers a problem, for a data set.
        max_trials: completions of a prompt in a round, at most; ours.

    Raises:
        UserError: an unknown kind, or a number below 1.
    """

    kind: Quota = Quota.prop2diff
    k: int = 50
    max_trials: int = 256

    def __post_init__(self) -> None:
        self.kind = choose("Dart.kind", Quota, self.kind)
        for name in ("k", "max_trials"):
            if getattr(self, name) < 1:
                raise UserError(f"Dart.{name}={getattr(self, name)}: must be 1 or more")

    def init(self) -> State:
        """Nothing is known."""
        return {"right": {}, "sampled": {}, "filled": {}, "tried": {}, "drawn": {}}

    def draw(
        self, prompts: Sequence[Prompt], n: int, used: Collection[str], rng: random.Random, state: State
    ) -> list[int]:
        """Up to `n` prompts whose quota is open, then of the others."""
        closed = self.closed(state)
        drawn = least_drawn(prompts, eligible(prompts, used, closed), n, rng, state["drawn"])
        if len(drawn) < n:
            taken = {*used, *(prompts[index].id for index in drawn)}
            drawn += least_drawn(prompts, eligible(prompts, taken), n - len(drawn), rng, state["drawn"])
        return drawn

    def observe(self, batch: RolloutBatch, state: State) -> State:
        """The state with the step counted, in a new round where the step began one."""
        if self.closed(state) & set(batch.prompt_keys):
            state = {**state, "filled": {}, "tried": {}, "drawn": {}}
        for key, (right, sampled) in tally(batch).items():
            for name, more in (("right", right), ("sampled", sampled), ("filled", right), ("tried", sampled)):
                state[name][key] = state[name].get(key, 0) + more
        return {**state, "drawn": count_draws(state["drawn"], batch)}

    def closed(self, state: State) -> set[str]:
        """The prompts that have what they should in this round."""
        wanted, filled = quotas(self.kind, self.k, state["right"], state["sampled"]), state["filled"]
        tried = state["tried"].items()
        return {key for key, n in tried if n >= self.max_trials or filled[key] > wanted[key]}
