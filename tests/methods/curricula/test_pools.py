"""prime-rl's pools: thresholds, weights, and that chances follow them."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.data import Prompt
from concise_rl.errors import UserError
from concise_rl.methods.curricula.pools import Pools

PROMPTS = [Prompt.of(f"question {n}", "7") for n in range(4)]


def observed(curriculum, state, rewards: list[list[float]], **rows):
    flat = [r for group in rewards for r in group]
    batch = RolloutBatch.of(
        prompt_keys=[PROMPTS[p].id for p in range(len(rewards))],
        group_size=len(rewards[0]),
        lengths=[1] * len(flat),
        correct=[r > 0.5 for r in flat],
        task_reward=flat,
        **rows,
    )
    return curriculum.observe(batch, state)


def test_thresholds_are_within_and_the_unseen_weigh_one():
    weight = Pools().weight
    assert [weight(r) for r in (None, 0.0, 0.25, 0.26, 0.75, 0.76, 1.0)] == [1.0, 0.2, 0.2, 1.0, 1.0, 0.2, 0.2]


def test_the_last_mean_of_rows_with_a_verdict_is_kept():
    curriculum = Pools()
    state = observed(curriculum, curriculum.init(), [[1, 0], [1, 1]])
    assert state == {"rewards": {PROMPTS[0].id: 0.5, PROMPTS[1].id: 1.0}}
    state = observed(curriculum, state, [[0, 0], [0, 0]], scorable=[True, True, False, False])
    assert state["rewards"] == {PROMPTS[0].id: 0.0, PROMPTS[1].id: 1.0}
    state = observed(curriculum, state, [[1, 0]], scorable=[True, False], counts=[False, False])
    assert state["rewards"][PROMPTS[0].id] == 1.0, "what a filter left out is known all the same"


def test_chances_follow_the_weights():
    curriculum = Pools()
    state = observed(curriculum, curriculum.init(), [[0, 0], [1, 0], [1, 1]])
    first = Counter(curriculum.draw(PROMPTS, 1, (), random.Random(k), state)[0] for k in range(6000))
    expected = [0.2 / 2.4, 1 / 2.4, 0.2 / 2.4, 1 / 2.4]
    assert [first[p] / 6000 for p in range(4)] == pytest.approx(expected, abs=0.025)


def test_a_step_draws_no_prompt_twice_and_none_that_is_used():
    curriculum = Pools()
    for k in range(50):
        drawn = curriculum.draw(PROMPTS, 3, {PROMPTS[1].id}, random.Random(k), curriculum.init())
        assert sorted(drawn) == [0, 2, 3]


def test_weight_zero_never_comes_and_all_of_it_is_refused():
    curriculum = Pools(easy_weight=0.0)
    state = observed(curriculum, curriculum.init(), [[1, 1], [1, 0]])
    assert sorted(curriculum.draw(PROMPTS, 4, (), random.Random(0), state)) == [1, 2, 3]
    state = observed(curriculum, state, [[1, 1]] * 4)
    with pytest.raises(UserError, match="every prompt is in a pool of weight 0"):
        curriculum.draw(PROMPTS, 1, (), random.Random(0), state)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hard_threshold": 0.75}, "the first must be below the second"),
        ({"easy_weight": -0.1}, "Pools.easy_weight=-0.1"),
        ({"normal_weight": float("inf")}, "Pools.normal_weight=inf"),
    ],
)
def test_refusals(fields, message):
    with pytest.raises(UserError, match=message):
        Pools(**fields)
