"""Foretelling on a law: episodes cost and err as the bed's do, and methods settle on their side of a threshold."""

from __future__ import annotations

import random

import numpy as np
import pytest

from concise_rl.errors import UserError
from concise_rl.evaluation.predict import BEDS, Episode, Policy, measured, predict
from concise_rl.methods.recipes import load_method
from concise_rl.testbeds.beds import checking_frontier, merging_law


def always(*preferred: int):
    """A chooser that takes the first of these choices that a state has."""

    def choose(state, start):
        return next(choice for choice in preferred if choice < len(start))

    return choose


def test_a_checker_of_bed_s_costs_and_errs_as_its_frontier_says():
    bed = BEDS["which_sum"]()
    questions = [prompt.messages[0]["content"] for prompt in bed.test]
    frontier = checking_frontier(questions)

    def settle(state, start):  # no check at levels 2 and 3, all that settle the answer at 4 and 5, none twice
        return int(state[1] != "y" and state[0] > 3 and state[1] < state[0] - 1)

    episodes = [bed.play(prompt, settle, random.Random(0)) for prompt in bed.test]
    corner = next(p for p in frontier.mixtures if p.policy == (0, 0, 3, 4))
    assert np.mean([e.correct for e in episodes]) == pytest.approx(corner.accuracy)
    assert np.mean([e.length for e in episodes]) == pytest.approx(corner.tokens)


def test_a_merger_of_bed_m_errs_as_the_law_says():
    bed = BEDS["running_total"]()
    rng = random.Random(0)
    pairs = [bed.play(prompt, always(1, 0), rng) for prompt in bed.test for _ in range(8)]
    expected = np.mean([merging_law().point((2,) * (n // 2)).accuracy for n in (2, 4, 6, 8)])
    assert np.mean([e.correct for e in pairs]) == pytest.approx(expected, abs=0.03)
    assert {len(e.choices) for e in pairs} == {1, 2, 3, 4}


def test_credit_moves_the_chance_of_what_was_chosen():
    policy = Policy()
    start = np.array([0.5, 0.5])
    policy.chances("s", start)
    policy.step([Episode(1, True, [("s", 0)]), Episode(1, False, [("s", 1)])], np.array([1.0, -1.0]), rate=1.0)
    # Each row moves the logits by its credit times (1 - .5, -.5), and the step takes their mean.
    assert policy.logits["s"] - np.log(0.5) == pytest.approx([0.5, -0.5])


def test_group_scaling_switches_the_coefficient_off_and_without_it_the_coefficient_works():
    """Derived: under group scaling a method goes on checking where a guess is right in less than half of the cases.

    At level 4 the first guess is right with .70, at level 5 with .45.
    """

    def tokens(**fields):
        return [
            predict(load_method("kimi", {"weight": w, **fields}), "which_sum", 128, 150)[-1].tokens for w in (0.25, 1)
        ]

    scaled = tokens()
    assert abs(scaled[0] - scaled[1]) < 2
    plain = tokens(scale="none")
    assert plain[0] > plain[1] + 2
    assert plain[0] > scaled[0] + 2


def test_what_cannot_be_foretold_is_refused():
    with pytest.raises(UserError, match="method=pear needs"):
        predict(load_method("pear"), "which_sum", 128)
    with pytest.raises(UserError, match="data=gsm8k has no known law"):
        predict(load_method("grpo"), "gsm8k", 128)


def test_the_start_is_the_reasoners_habit():
    bed = BEDS["which_sum"]()
    point = measured(bed, Policy())
    assert 0.8 < point.accuracy < 0.95
    assert 15 < point.tokens < 25
