"""E2H: the chances of the paper, and that prompts of a level go round."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.data import Prompt
from concise_rl.errors import DataError, UserError
from concise_rl.methods.curricula.e2h import E2h

PROMPTS = [Prompt.of(f"question {n}", "7", level=n % 4) for n in range(24)]


def test_the_worked_examples():
    cosine, gaussian = E2h(kind="cosine", T=1000), E2h(kind="gaussian", T=1000, pmin=0.1)
    assert cosine.probabilities(250, 4) == pytest.approx([0.3561, 0.2854, 0.2146, 0.1439], abs=5e-5)
    assert gaussian.probabilities(250, 4) == pytest.approx([0.1054, 0.3946, 0.3946, 0.1054], abs=5e-5)


@pytest.mark.parametrize(
    ("kind", "t", "expected"),
    [
        ("cosine", 0, [0.4, 0.3, 0.2, 0.1]),
        ("cosine", 800, [0.25] * 4),
        ("cosine", 1600, [0.1, 0.2, 0.3, 0.4]),
        ("gaussian", 0, [0.6283, 0.1715, 0.1002, 0.1]),
        ("gaussian", 800, [0.1001, 0.1383, 0.5604, 0.2012]),
        ("gaussian", 1600, [0.1, 0.1002, 0.1715, 0.6283]),
        ("gaussian", 9999, [0.1, 0.1002, 0.1715, 0.6283]),
        ("classic", 399, [1, 0, 0, 0]),
        ("classic", 400, [0, 1, 0, 0]),
        ("classic", 1600, [0, 0, 0, 1]),
        ("balanced", 3, [0.25] * 4),
    ],
)
def test_chances_over_the_course(kind, t, expected):
    assert E2h(kind=kind).probabilities(t, 4) == pytest.approx(expected, abs=5e-5)
    assert sum(E2h(kind=kind).probabilities(t, 7)) == pytest.approx(1.0)


def test_the_least_chance():
    assert E2h(kind="gaussian", pmin=False).probabilities(0, 4)[3] < 1e-7
    assert min(E2h(kind="cosine", pmin=0.2).probabilities(0, 4)) == pytest.approx(0.2 / 1.1), "floored, then normalised"
    assert E2h(kind="gaussian", s=0.01, pmin=False).probabilities(200, 3) == pytest.approx([0, 1, 0]), "no 0 / 0"
    for kind in ("cosine", "gaussian", "classic", "balanced"):
        assert E2h(kind=kind).probabilities(7, 1) == [1.0]
    with pytest.raises(UserError, match=r"E2h.pmin=0.3 with 4 levels"):
        E2h(pmin=0.3).probabilities(0, 4)


def step(curriculum: E2h, state, drawn: list[int], t: int):
    batch = RolloutBatch.of(
        prompt_keys=[PROMPTS[n].id for n in drawn],
        group_size=1,
        lengths=[1] * len(drawn),
        correct=[True] * len(drawn),
        columns={"level": [PROMPTS[n].columns["level"] for n in drawn]},
        step=t,
    )
    return curriculum.observe(batch, state)


def test_levels_are_drawn_by_chance():
    curriculum = E2h(kind="cosine", T=1000)
    state = {"t": 250, "pointers": {}}
    levels = Counter(
        PROMPTS[curriculum.draw(PROMPTS, 1, (), random.Random(k), state)[0]].columns["level"] for k in range(4000)
    )
    assert [levels[i] / 4000 for i in range(4)] == pytest.approx([0.3561, 0.2854, 0.2146, 0.1439], abs=0.03)


def test_no_prompt_of_a_level_comes_twice_before_all_came_once():
    curriculum = E2h(kind="balanced")
    state, came = curriculum.init(), {level: [] for level in range(4)}
    for t in range(40):
        drawn = curriculum.draw(PROMPTS, 3, (), random.Random(t), state)
        assert len(set(drawn)) == 3
        for n in drawn:
            came[PROMPTS[n].columns["level"]].append(n)
        state = step(curriculum, state, drawn, t)
    assert state["t"] == 40
    for order in came.values():
        assert len(order) > 12
        assert all(order[k] == order[k % 6] for k in range(len(order))), "one order, round and round"
        assert len(set(order[:6])) == 6
    assert E2h(kind="balanced", seed=1).draw(PROMPTS, 24, (), random.Random(0), state) != curriculum.draw(
        PROMPTS, 24, (), random.Random(0), state
    )


def test_refilling_goes_on_where_the_step_stopped():
    curriculum = E2h(kind="classic", T=100)
    first = curriculum.draw(PROMPTS, 3, (), random.Random(0), curriculum.init())
    more = curriculum.draw(PROMPTS, 3, {PROMPTS[n].id for n in first}, random.Random(1), curriculum.init())
    assert sorted(first + more) == [n for n in range(24) if n % 4 == 0]
    # The first was replaced: the pointer stands after the last that came, so its level starts anew there.
    state = step(curriculum, curriculum.init(), [*first[1:], more[0]], 0)
    assert curriculum.draw(PROMPTS, 2, (), random.Random(2), state) == more[1:]


def test_a_level_that_is_used_up_hands_on_to_its_neighbour():
    curriculum = E2h(kind="classic", T=4)
    drawn = curriculum.draw(PROMPTS, 8, (), random.Random(0), {"t": 1, "pointers": {}})
    levels = [PROMPTS[n].columns["level"] for n in drawn]
    assert levels == [1] * 6 + [0] * 2
    everything = curriculum.draw(PROMPTS, 99, (), random.Random(0), curriculum.init())
    assert sorted(everything) == list(range(24))


def test_levels_are_the_distinct_values_in_order():
    prompts = [Prompt.of(f"q{n}", "1", difficulty=d) for n, d in enumerate([6, 2, 2, 4])]
    drawn = E2h(kind="classic", T=3, column="difficulty").draw(prompts, 2, (), random.Random(0), E2h().init())
    assert sorted(drawn) == [1, 2]
    with pytest.raises(DataError, match="has no column 'level': E2h needs it"):
        E2h().draw(prompts, 1, (), random.Random(0), E2h().init())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "linear"}, "choose one of cosine, gaussian, classic, balanced"),
        ({"T": 0}, "E2h.T=0"),
        ({"m": 0.0}, "E2h.m=0.0"),
        ({"s": -1.0}, "E2h.s=-1.0"),
        ({"pmin": 1.5}, "E2h.pmin=1.5"),
    ],
)
def test_refusals(fields, message):
    with pytest.raises(UserError, match=message):
        E2h(**fields)
