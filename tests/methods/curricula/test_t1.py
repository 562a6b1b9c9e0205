"""T1: only what is seldom solved, from a column or measured once."""

from __future__ import annotations

import random

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.data import Prompt
from concise_rl.errors import DataError, UserError
from concise_rl.methods.curricula.t1 import T1

RATES = [0.0, 0.3, 0.3001, 1.0, 0.25]
PROMPTS = [Prompt.of(f"question {n}", "7", pass_rate=rate) for n, rate in enumerate(RATES)]


def draws(curriculum, state, prompts=PROMPTS, n=5, used=()) -> list[int]:
    return sorted(curriculum.draw(prompts, n, set(used), random.Random(0), state))


def step(curriculum, state, right_of: dict, size: int, **rows):
    correct = [row < n for n in right_of.values() for row in range(size)]
    batch = RolloutBatch.of(
        prompt_keys=list(right_of), group_size=size, lengths=[1] * len(correct), correct=correct, **rows
    )
    return curriculum.observe(batch, state)


def test_a_column_decides_and_its_bound_is_within():
    curriculum = T1(column="pass_rate")
    assert curriculum.needs == {"columns.pass_rate"}
    assert draws(curriculum, curriculum.init()) == [0, 1, 4]
    state = step(curriculum, curriculum.init(), {PROMPTS[0].id: 16}, 16)
    assert draws(curriculum, state) == [0, 1, 4], "what happens in training changes nothing"
    assert draws(curriculum, state, n=2) == [1, 4], "the others have come less often"


@pytest.mark.parametrize("value", ["often", 1.5, True])
def test_a_column_without_a_share_is_refused(value):
    with pytest.raises(DataError, match=r"column 'pass_rate' of prompt .* a pass rate is from 0 to 1"):
        draws(T1(column="pass_rate"), T1().init(), [Prompt.of("q", "1", pass_rate=value)])


def test_a_missing_column_is_named():
    with pytest.raises(DataError, match="has no column 'rate': T1 needs it"):
        draws(T1(column="rate"), T1().init())


def test_it_is_measured_until_enough_is_known_and_then_for_good():
    curriculum, (a, b) = T1(), (PROMPTS[0].id, PROMPTS[1].id)
    state = step(curriculum, curriculum.init(), {a: 2, b: 3}, 8)
    assert (state["easy"], state["hard"]) == ([], [])
    state = step(curriculum, state, {a: 2, b: 2}, 8)
    assert (state["easy"], state["hard"]) == ([b], [a]), "5 of 16 is above .3, 4 of 16 is not"
    assert state["right"] == state["sampled"] == {}
    state = step(curriculum, state, {a: 8}, 8)
    assert state["hard"] == [a], "it was decided"
    assert draws(curriculum, state) == [0, 2, 3, 4]


def test_three_tenths_stay_exactly():
    curriculum = T1(samples=10)
    state = step(curriculum, curriculum.init(), {"a": 3, "b": 4}, 10)
    assert (state["hard"], state["easy"]) == (["a"], ["b"])


def test_rows_without_a_verdict_are_no_samples():
    curriculum = T1(samples=4)
    state = step(curriculum, curriculum.init(), {"a": 4}, 4, scorable=[True, True, False, False])
    assert (state["easy"], state["sampled"]) == ([], {"a": 2})


@pytest.mark.parametrize(
    ("fields", "message"), [({"maximum": 1.2}, "T1.maximum=1.2"), ({"samples": 0}, "T1.samples=0")]
)
def test_refusals(fields, message):
    with pytest.raises(UserError, match=message):
        T1(**fields)
