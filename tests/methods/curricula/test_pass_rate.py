"""ScaleRL's no-positive-resampling: who is removed, when, and that it holds."""

from __future__ import annotations

import random

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.data import Prompt
from concise_rl.errors import UserError
from concise_rl.methods.curricula.pass_rate import PassRate

PROMPTS = [Prompt.of(f"question {n}", "7") for n in range(6)]


def step(curriculum, state, right_of: dict, size: int = 10, **rows):
    """Observe one step; `right_of` gives the right rows of each prompt's group."""
    correct = [row < n for n in right_of.values() for row in range(size)]
    batch = RolloutBatch.of(
        prompt_keys=[str(key).rstrip("'") for key in right_of],
        group_size=size,
        lengths=[1] * len(correct),
        correct=correct,
        **rows,
    )
    return curriculum.observe(batch, state)


def draws(curriculum, state, n=6, used=(), seed=0) -> list[int]:
    return curriculum.draw(PROMPTS, n, set(used), random.Random(seed), state)


def removed(right_of, size=10, **fields) -> list[str]:
    curriculum = PassRate(**fields)
    return step(curriculum, curriculum.init(), right_of, size)["removed"]


def test_nine_tenths_remove_and_less_does_not():
    assert removed({"a": 9, "b": 8, "c": 10, "d": 0}) == ["a", "c"]
    assert removed({"a": 10}, size=11) == ["a"]
    assert removed({"a": 9}, size=11) == []
    assert removed({"a": 7}, cap=0.7) == ["a"], ".7 * 10 is 7.000000000000001 nowhere here"


def test_all_rollouts_so_far_count():
    curriculum = PassRate()
    state = step(curriculum, curriculum.init(), {"a": 8, "b": 5})
    state = step(curriculum, state, {"a": 9})
    assert state["removed"] == [], "17 of 20"
    state = step(curriculum, state, {"a": 10})
    assert state["removed"] == ["a"], "27 of 30 is exactly .9"
    assert (state["right"], state["sampled"]) == ({"a": 27, "b": 5}, {"a": 30, "b": 10})


def test_the_last_window_forgets():
    curriculum = PassRate(window="last")
    state = step(curriculum, curriculum.init(), {"a": 0})
    assert step(curriculum, state, {"a": 9})["removed"] == ["a"]
    assert removed({"a": 9}, window="last", min_samples=11) == []


def test_two_groups_of_a_prompt_in_a_step_are_counted_before_they_are_tested():
    assert removed({"a": 10, "a'": 7}) == []
    assert removed({"a": 10, "a'": 8}) == ["a"]


def test_a_perfect_first_group_removes_unless_more_is_asked():
    assert removed({"a": 4}, size=4) == ["a"]
    curriculum = PassRate(min_samples=8)
    state = step(curriculum, curriculum.init(), {"a": 4}, size=4)
    assert state["removed"] == []
    assert step(curriculum, state, {"a": 4}, size=4)["removed"] == ["a"]


def test_a_removed_prompt_never_comes_back():
    curriculum = PassRate()
    state = step(curriculum, curriculum.init(), {PROMPTS[2].id: 10})
    state = step(curriculum, state, {PROMPTS[2].id: 0})
    assert state["removed"] == [PROMPTS[2].id]
    assert sorted(draws(curriculum, state)) == [0, 1, 3, 4, 5], "fewer than asked for"
    assert sorted(draws(curriculum, state, used=[PROMPTS[0].id])) == [1, 3, 4, 5]


def test_rows_without_a_verdict_are_not_sampled_but_what_a_filter_left_out_is():
    curriculum = PassRate()
    half = [True] * 5 + [False] * 5
    assert step(curriculum, curriculum.init(), {"a": 5}, scorable=half)["sampled"] == {"a": 5}
    unknown = step(curriculum, curriculum.init(), {"a": 10}, scorable=[False] * 10)
    assert (unknown["removed"], unknown["sampled"]) == ([], {})
    assert step(curriculum, curriculum.init(), {"a": 10}, counts=[False] * 10)["removed"] == ["a"]


def test_prompts_come_in_epochs_each_shuffled():
    curriculum, orders = PassRate(), []
    state = curriculum.init()
    for epoch in range(4):
        seen: list[int] = []
        for half in range(2):
            drawn = draws(curriculum, state, n=3, seed=10 * epoch + half)
            assert len(drawn) == 3
            state = step(curriculum, state, {PROMPTS[i].id: 5 for i in drawn})
            seen += drawn
        assert sorted(seen) == list(range(6))
        orders.append(tuple(seen))
    assert len(set(orders)) > 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cap": 0}, "PassRate.cap=0"),
        ({"cap": 1.1}, "PassRate.cap=1.1"),
        ({"window": "first"}, "choose one of all, last"),
        ({"min_samples": -1}, "PassRate.min_samples=-1"),
    ],
)
def test_refusals(fields, message):
    with pytest.raises(UserError, match=message):
        PassRate(**fields)
