"""DART's quotas: the paper's numbers, whose turn it is, and rounds."""

from __future__ import annotations

import random

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.data import Prompt
from concise_rl.errors import UserError
from concise_rl.methods.curricula.dart import Dart
from concise_rl.methods.quotas import Quota, quotas

PROMPTS = [Prompt.of(f"question {n}", "7") for n in range(4)]
A, B, C, D = (prompt.id for prompt in PROMPTS)


def step(curriculum, state, right_of: dict[str, int], size: int, **rows):
    correct = [row < n for n in right_of.values() for row in range(size)]
    batch = RolloutBatch.of(
        prompt_keys=list(right_of), group_size=size, lengths=[1] * len(correct), correct=correct, **rows
    )
    return curriculum.observe(batch, state)


def draws(curriculum, state, n=4, used=(), prompts=PROMPTS) -> list[int]:
    return curriculum.draw(prompts, n, set(used), random.Random(0), state)


def test_the_worked_examples():
    """Fail rates 1/4, 3/4, 0 with k 50, and .1, .5, .9: exact, where floating point makes whole results one more."""
    assert list(quotas(Quota.prop2diff, 50, {A: 3, B: 1, C: 4}, {A: 4, B: 4, C: 4}).values()) == [17, 50, 1]
    assert list(quotas(Quota.prop2diff, 50, {A: 9, B: 5, C: 1}, {A: 10, B: 10, C: 10}).values()) == [6, 28, 50]
    assert list(quotas(Quota.prop2diff, 50, {A: 4, B: 2}, {A: 4, B: 2}).values()) == [1, 1]
    assert list(quotas(Quota.uniform, 40, {A: 4, B: 0}, {A: 4, B: 2}).values()) == [40, 40]


def test_a_quota_is_filled_by_more_right_answers_than_it_says():
    curriculum = Dart(k=4)
    state = step(curriculum, curriculum.init(), {A: 2, B: 0}, 4)  # quotas 2 and 4
    assert curriculum.closed(state) == set(), "as many as the quota is not yet more"
    state = step(curriculum, state, {A: 2}, 4)
    assert curriculum.closed(state) == {A}
    assert 0 not in draws(curriculum, state, n=3)


def test_the_ceiling_closes_what_is_never_solved():
    curriculum = Dart(max_trials=8)
    state = step(curriculum, curriculum.init(), {A: 0}, 4)
    assert curriculum.closed(state) == set()
    assert curriculum.closed(step(curriculum, state, {A: 0}, 4)) == {A}


def test_the_unknown_come_first_and_then_who_came_least():
    curriculum = Dart()
    state = step(curriculum, curriculum.init(), {A: 1, B: 1}, 4)
    assert sorted(draws(curriculum, state, n=2)) == [2, 3]
    assert set(draws(curriculum, state, n=3, used={C})) == {0, 1, 3}


def test_filled_prompts_join_where_too_few_are_open_and_begin_a_new_round():
    curriculum = Dart(k=1)
    state = step(curriculum, curriculum.init(), {A: 2, B: 2, C: 2}, 2)
    assert curriculum.closed(state) == {A, B, C}
    assert draws(curriculum, state, n=4)[0] == 3, "the open one first"
    state = step(curriculum, state, {D: 2, A: 0}, 2)
    assert (state["tried"], state["drawn"]) == ({D: 2, A: 2}, {D: 1, A: 1})
    assert state["sampled"] == {A: 4, B: 2, C: 2, D: 2}, "difficulty is over all that was seen"
    assert curriculum.closed(state) == {D}


def test_rows_without_a_verdict_fill_nothing():
    curriculum = Dart()
    state = step(curriculum, curriculum.init(), {A: 4}, 4, scorable=[0, 0, 0, 0])
    assert state["sampled"] == {}
    assert state["drawn"] == {A: 1}


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"k": 0}, "Dart.k=0"), ({"max_trials": 0}, "Dart.max_trials=0"), ({"kind": "hard"}, "Dart.kind='hard'")],
)
def test_refusals(fields, message):
    with pytest.raises(UserError, match=message):
        Dart(**fields)
