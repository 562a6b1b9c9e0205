"""Short-RL's lazy penalty by hand, and its gate over steps."""

from __future__ import annotations

import math

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.shapers.lazy import Lazy
from tests.methods.one_group import CORRECT, LENGTHS, one_group, values


def test_by_hand():
    batch = one_group(LENGTHS, CORRECT)
    out, best = Lazy()(batch, batch.task_reward, 0.5)
    assert (out.value - batch.task_reward).tolist() == pytest.approx([0.5, 0.0833, 0, -0.5], abs=5e-5)
    assert best == 0.75
    closed, best = Lazy()(batch, batch.task_reward, 0.85)
    assert (closed.value.tolist(), best) == ([1, 1, 0, 1], 0.85)


def test_the_tolerance_itself_is_within():
    shaped = values(Lazy(), one_group([400, 500, 501, 1000], [1, 1, 1, 1]))
    assert shaped[:2] == [1.5, 1.5]
    assert shaped[2] == pytest.approx(1.5 - 101 / 600.00001)


def test_one_right_answer_and_equal_lengths_gain_a_half():
    assert values(Lazy(), one_group([900, 100], [1, 0])) == [1.5, 0]
    assert values(Lazy(tau=0), one_group([9, 9], [1, 1])) == [1.5, 1.5]


def test_wrong_answers_neither_gain_nor_set_the_range():
    assert values(Lazy(tau=0), one_group([10, 20, 30, 900], [0, 1, 1, 0])) == pytest.approx([0, 1.5, 0.5, 0], abs=2e-6)


def step(accuracy_of_20: int, state: float, shaper: Lazy) -> tuple[bool, float]:
    """Whether a step with so many right answers of twenty is open, and the best after it."""
    batch = RolloutBatch.of(
        prompt_keys=["a", "b"], group_size=10, lengths=[50] * 20, correct=[n < accuracy_of_20 for n in range(20)]
    )
    out, state = shaper(batch, batch.task_reward, state)
    return bool((out.value - batch.task_reward).any()), state


def test_the_gate_follows_the_best_step_so_far():
    state, shaper = Lazy().init(), Lazy()
    seen = []
    for n_right in (10, 9, 8, 13, 12, 11, 0, 13):
        opened, state = step(n_right, state, shaper)
        seen.append((n_right, opened, state))
    # 12 of 20 is exactly 0.05 below 13 of 20, though 0.65 - 0.05 > 0.6 in binary
    assert seen == [
        (10, True, 0.5),
        (9, True, 0.5),
        (8, False, 0.5),
        (13, True, 0.65),
        (12, True, 0.65),
        (11, False, 0.65),
        (0, False, 0.65),
        (13, True, 0.65),
    ]


def test_a_best_that_decays_opens_the_gate_again():
    shaper, state = Lazy(best_decay=0.1), 1.0
    opened = []
    for _ in range(5):
        was_open, state = step(14, state, shaper)
        opened.append(was_open)
    assert opened == [False, False, True, True, True]  # 0.9, 0.81, 0.729 - 0.05 < 0.7
    assert state == 0.7, "it does not sink below what is reached"


def test_a_step_without_rows_that_count_changes_nothing():
    batch = one_group(LENGTHS, CORRECT, scorable=[0] * 4)
    out, best = Lazy(best_decay=0.5)(batch, batch.task_reward, 0.4)
    assert (out.value.tolist(), best) == ([1, 1, 0, 1], 0.4)


@pytest.mark.parametrize(
    "fields", [{"tau": -1}, {"acc_tol": -0.1}, {"acc_tol": math.nan}, {"best_decay": 1.0}, {"best_decay": -0.1}]
)
def test_bad_fields_are_refused(fields):
    with pytest.raises(UserError, match=f"Lazy.{next(iter(fields))}="):
        Lazy(**fields)
