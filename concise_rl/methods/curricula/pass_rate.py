"""ScaleRL's no-positive-resampling: a prompt that is nearly always solved never comes again."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from concise_rl.batch import RolloutBatch
from concise_rl.data.base import Prompt
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Curriculum, State
from concise_rl.methods.drawing import count_draws, eligible, least_drawn, share_of, tally
from concise_rl.options import choose


class Window(str, Enum):
    """Which rollouts a pass rate is over: all so far, or those of the prompt's last step."""

    all = "all"
    last = "last"


@dataclass
class PassRate(Curriculum):
    """Removes a prompt for good once its pass rate reaches `cap`.

    Source: arXiv 2510.13786 section 3. After a step is counted, each of its prompts with

        right >= cap * sampled    and    sampled >= min_samples

    is removed; the comparison is exact, so 9 of 10 reach 0.9. Rows with a verdict are sampled, whether
    a filter leaves them out or not. A perfect first group removes its prompt at once, which is the paper's rule read
    literally; `min_samples` asks for more. The others come in epochs: those that came least often first, at random
    among equals. When fewer than a step needs are left, as many come as there are.

    State: `right` and `sampled` rows of each prompt, `drawn` steps of each, and the keys `removed`. A lost state
    re-admits every prompt, so it stands in the checkpoint.

    Attributes:
        cap: pass rate that removes, above 0.
        window: `all` rollouts so far, or those of the prompt's `last` step.
        min_samples: rows with a verdict that it takes, within the window.

    Raises:
        UserError: an unknown window, or a number out of its range.
    """

    cap: float = 0.9
    window: Window = Window.all
    min_samples: int = 0

    def __post_init__(self) -> None:
        self.window = choose("PassRate.window", Window, self.window)
        if not 0 < self.cap <= 1:
            raise UserError(f"PassRate.cap={self.cap}: must be above 0 and at most 1, 0.9 is the paper's")
        if self.min_samples < 0:
            raise UserError(f"PassRate.min_samples={self.min_samples}: must be 0 or more")

    def init(self) -> State:
        """Nothing is counted, nobody removed."""
        return {"right": {}, "sampled": {}, "drawn": {}, "removed": []}

    def draw(
        self, prompts: Sequence[Prompt], n: int, used: Collection[str], rng: random.Random, state: State
    ) -> list[int]:
        """Up to `n` prompts that are not removed."""
        return least_drawn(prompts, eligible(prompts, used, state["removed"]), n, rng, state["drawn"])

    def observe(self, batch: RolloutBatch, state: State) -> State:
        """The state with the step counted, and whom that removes."""
        cap, removed = share_of(self.cap), dict.fromkeys(state["removed"])
        for key, (right, sampled) in tally(batch).items():
            if self.window is Window.all:
                right += state["right"].get(key, 0)
                sampled += state["sampled"].get(key, 0)
            state["right"][key], state["sampled"][key] = right, sampled
            if right >= cap * sampled and sampled >= self.min_samples:
                removed[key] = None
        return {**state, "drawn": count_draws(state["drawn"], batch), "removed": list(removed)}
