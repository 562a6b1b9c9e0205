"""prime-rl's difficulty pools: prompts that are too hard or too easy just now come less often."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from concise_rl.batch import RolloutBatch
from concise_rl.data.base import Prompt
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Curriculum, State
from concise_rl.methods.drawing import eligible, judged
from concise_rl.methods.statistics import group_count, group_mean


@dataclass
class Pools(Curriculum):
    """Draws prompts with the weight of their pool; the pool follows the mean task reward of the prompt's last group.

    Source: PrimeIntellect-ai/prime-rl, `curriculum/samplers/pool.py`.

        mean reward <= hard_threshold: hard    <= normal_threshold: normal    else easy    never seen: weight 1

    A step draws without replacement, one prompt after another, each with a chance proportional to its weight among
    those left (prime-rl draws each with replacement). Weight 0 never comes. A prompt is scored by its rows with a
    verdict, whether they teach or not; a group without one leaves its score. Scores act from the next step on.

    State: `rewards`, the last mean of each prompt.

    Attributes:
        hard_threshold, normal_threshold: largest mean task reward of the pool.
        hard_weight, normal_weight, easy_weight: of a prompt of the pool.

    Raises:
        UserError: thresholds that do not rise or a weight below 0, when built; no prompt with a weight, when drawing.
    """

    hard_threshold: float = 0.25
    normal_threshold: float = 0.75
    hard_weight: float = 0.2
    normal_weight: float = 1.0
    easy_weight: float = 0.2

    def __post_init__(self) -> None:
        if not -math.inf < self.hard_threshold < self.normal_threshold < math.inf:
            raise UserError(
                f"Pools.hard_threshold={self.hard_threshold}, normal_threshold={self.normal_threshold}: the first "
                "must be below the second"
            )
        for name in ("hard_weight", "normal_weight", "easy_weight"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise UserError(f"Pools.{name}={getattr(self, name)}: must be 0 or more")

    def init(self) -> State:
        """No prompt has a score."""
        return {"rewards": {}}

    def draw(
        self, prompts: Sequence[Prompt], n: int, used: Collection[str], rng: random.Random, state: State
    ) -> list[int]:
        """Up to `n` prompts, by weight."""
        rewards = state["rewards"]
        if n and not any(self.weight(rewards.get(prompt.id)) for prompt in prompts):
            raise UserError(
                "curriculum.pools: every prompt is in a pool of weight 0, so none can come; give that pool a weight"
            )
        # The n largest of u ** (1 / weight) are a weighted draw without replacement; its logarithm cannot underflow.
        ranked = []
        for index in eligible(prompts, used):
            weight, chance = self.weight(rewards.get(prompts[index].id)), 1.0 - rng.random()
            if weight > 0:
                ranked.append((math.log(chance) / weight, index))
        return [index for _, index in sorted(ranked, reverse=True)[:n]]

    def weight(self, reward: float | None) -> float:
        """Of a prompt whose last mean reward is this; None: never seen."""
        if reward is None:
            return 1.0
        if reward <= self.hard_threshold:
            return self.hard_weight
        return self.normal_weight if reward <= self.normal_threshold else self.easy_weight

    def observe(self, batch: RolloutBatch, state: State) -> State:
        """The state with the step's means."""
        batch = judged(batch)
        means_P = batch.by_group(group_mean(batch, batch.task_reward))[:, 0].tolist()
        counts_P = batch.by_group(group_count(batch))[:, 0].tolist()
        groups = zip(batch.prompt_keys, means_P, counts_P, strict=True)
        return {"rewards": {**state["rewards"], **{key: mean for key, mean, count in groups if count}}}
