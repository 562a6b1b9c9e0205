"""Where a method will settle on a test bed, in seconds: a tabular policy on the bed's law, under the method itself.

    states and choices of a bed   ->  episodes: tokens, right or wrong     `Merging`, `Checking`
    episodes                      ->  `RolloutBatch`, as the trainer's     `predict`
    the method's credit           ->  a step on the logits of the choices that were made

What it leaves out is what a network adds: states that share weights, arithmetic that improves or decays in training, a
reward that reaches a choice through the loss of many tokens. It foretells the order of the methods and the side of a
threshold on which one ends, not how fast, nor how deep a collapse goes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from concise_rl.batch import RolloutBatch
from concise_rl.data.base import Prompt
from concise_rl.errors import UserError
from concise_rl.methods.method import Method
from concise_rl.testbeds import TESTBEDS, running_total, which_sum
from concise_rl.testbeds.beds import merging_law
from concise_rl.testbeds.frontier import Point

GIVEN = {"lengths", "correct", "truncated", "think_lengths"}
"""What an episode has; a method that needs entropies, texts or the like cannot be foretold."""

PROMPTS_PER_STEP, GROUP_SIZE = 16, 8
LEAST_CHANCE = 0.005
"""Of a choice that the reasoner was never shown."""

Choose = Callable[[Hashable, np.ndarray], int]
"""State and starting chances of its choices to the choice taken."""


@dataclass
class Episode:
    """One completion: what it took, whether it is right, and the choices that made it."""

    length: int
    correct: bool
    choices: list[tuple[Hashable, int]]


class Simulated(Protocol):
    """A bed as states and choices."""

    prompts: Sequence[Prompt]
    test: Sequence[Prompt]

    def play(self, prompt: Prompt, choose: Choose, rng: random.Random) -> Episode: ...


STOP_FIRST = dict(zip(sorted(which_sum.RANK_LAW), (0.55, 0.5, 0.4, 0.3), strict=True))
"""Level of bed S to the chance that the reasoner answers before any check, as its last warm-up taught it."""


class Merging:
    """Bed M: at (n, k) choose how many operations the next total merges; it is right, or recovers, as the law says."""

    def __init__(self) -> None:
        task = TESTBEDS["running_total"]()
        self.prompts, self.test = task.load("train"), task.load("test")
        self.levels = merging_law().levels

    def play(self, prompt: Prompt, choose: Choose, rng: random.Random) -> Episode:
        true = running_total.totals(prompt.messages[-1]["content"])
        n, k, length, correct = len(true) - 1, 0, 3, True
        level = self.levels[n]
        composition: tuple[int, ...] = ()
        choices: list[tuple[Hashable, int]] = []
        while k < n:
            start = np.array([0.5, 0.38, 0.12][: n - k] + [0.0] * (n - k - 3))
            merged = choose((n, k), start) + 1
            choices.append(((n, k), merged - 1))
            correct &= rng.random() >= level.errors[k, merged]
            composition = (*composition, merged)
            k += merged
            length += (k < n) + len(str(true[k]))
        correct = correct or rng.random() < level.recovery[composition]
        return Episode(length, correct, choices)


class Checking:
    """Bed S: at (N, k) answer or check; after a `y` stop or check again, at most twice. Checks are always right."""

    def __init__(self) -> None:
        task = TESTBEDS["which_sum"]()
        self.prompts, self.test = task.load("train"), task.load("test")

    def play(self, prompt: Prompt, choose: Choose, rng: random.Random) -> Episode:
        question = prompt.messages[-1]["content"]
        n, right = int(prompt.columns["difficulty"]), int(prompt.columns["rank"])
        choices: list[tuple[Hashable, int]] = []
        checks = 0
        while checks < n and checks <= right:
            halt = STOP_FIRST[n] if checks == 0 else 0.3 if checks == n - 1 else 0.15
            choices.append(((n, checks), choose((n, checks), np.array([halt, 1 - halt]))))
            if choices[-1][1] == 0:
                break
            checks += 1
        found, waste = checks > right, 0
        while found and waste < 2:
            choices.append(((n, "y", waste), choose((n, "y", waste), np.array([0.4, 0.6]))))
            if choices[-1][1] == 0:
                break
            waste += 1
        text = which_sum.completion(question, checks, waste)
        return Episode(which_sum.tokens(text), found or checks == right, choices)


BEDS: dict[str, Callable[[], Simulated]] = {"running_total": Merging, "which_sum": Checking}


@dataclass
class Policy:
    """Logits of the choices of each state met, (choices,)."""

    logits: dict[Hashable, np.ndarray] = field(default_factory=dict)

    def chances(self, state: Hashable, start: np.ndarray) -> np.ndarray:
        """The chances of a state's choices; those of the start when it is met first."""
        if state not in self.logits:
            self.logits[state] = np.log(np.maximum(start, LEAST_CHANCE) / np.maximum(start, LEAST_CHANCE).sum())
        shifted = np.exp(self.logits[state] - self.logits[state].max())
        return shifted / shifted.sum()

    def chooser(self, rng: random.Random) -> Choose:
        def choose(state: Hashable, start: np.ndarray) -> int:
            return rng.choices(range(len(start)), self.chances(state, start).tolist())[0]

        return choose

    def step(self, episodes: Sequence[Episode], credit: np.ndarray, rate: float) -> None:
        """One step of the policy gradient: the mean over rows of credit times the gradient of the log-chance."""
        moves = {state: np.zeros_like(logits) for state, logits in self.logits.items()}
        for episode, advantage in zip(episodes, credit.tolist(), strict=True):
            for state, choice in episode.choices:
                moves[state] -= advantage * self.chances(state, self.logits[state])
                moves[state][choice] += advantage
        for state, move in moves.items():
            self.logits[state] = self.logits[state] + rate / len(episodes) * move


def predict(method: Method, bed: str, limit: int, steps: int = 200, rate: float = 1.0, seed: int = 0) -> list[Point]:
    """Accuracy and mean tokens on the test split, before the first step and after every tenth of the steps.

    Args:
        method: its filters, shapers and advantages are called as the trainer calls them.
        bed: key of `BEDS`.
        limit: tokens that a completion is allowed; none of the beds' is as long, but a method may look at it.
        steps: of 16 prompts x 8 completions of the bed's train split.
        rate: of the gradient step.
        seed: of the prompts and the choices.

    Raises:
        UserError: no such bed, or the method needs what an episode does not have.
    """
    if bed not in BEDS:
        raise UserError(f"data={bed} has no known law: predict takes {', '.join(BEDS)}")
    missing = {need for need in method.needs if need not in GIVEN and not need.startswith("columns.")}
    if missing:
        raise UserError(f"method={method.name} needs {', '.join(sorted(missing))}: no tabular policy has that")
    simulated, policy, states = BEDS[bed](), Policy(), method.init()
    rng = random.Random(seed)
    reached = [measured(simulated, policy)]
    order: list[Prompt] = []
    for step in range(steps):
        if len(order) < PROMPTS_PER_STEP:
            order = rng.sample(list(simulated.prompts), len(simulated.prompts))
        prompts, order = order[:PROMPTS_PER_STEP], order[PROMPTS_PER_STEP:]
        choose = policy.chooser(rng)
        episodes = [simulated.play(prompt, choose, rng) for prompt in prompts for _ in range(GROUP_SIZE)]
        result, states = method.apply(batch_of(prompts, episodes, step, limit, method), states)
        credit = result.credit if result.credit.ndim == 1 else result.credit.mean(1)
        policy.step(episodes, credit.numpy(), rate)
        if (step + 1) % max(1, steps // 10) == 0:
            reached.append(measured(simulated, policy))
    return reached


def batch_of(
    prompts: Sequence[Prompt], episodes: Sequence[Episode], step: int, limit: int, method: Method
) -> RolloutBatch:
    """The episodes of a step as the trainer would hand them on."""
    columns = {need.removeprefix("columns.") for need in method.needs if need.startswith("columns.")}
    lengths = [episode.length for episode in episodes]
    return RolloutBatch.of(
        prompt_keys=[prompt.id for prompt in prompts],
        group_size=GROUP_SIZE,
        step=step,
        lengths=lengths,
        correct=[episode.correct for episode in episodes],
        limits=[limit] * len(lengths),
        think_lengths=[length - 2 for length in lengths],
        columns={name: [prompt.columns[name] for prompt in prompts] for name in columns},
    )


def measured(simulated: Simulated, policy: Policy) -> Point:
    """One episode of each test problem."""
    rng = random.Random(0)
    episodes = [simulated.play(prompt, policy.chooser(rng), rng) for prompt in simulated.test]
    return Point(
        sum(episode.correct for episode in episodes) / len(episodes),
        sum(episode.length for episode in episodes) / len(episodes),
    )
