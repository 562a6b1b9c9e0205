"""LEASH by hand, and its controller over steps."""

from __future__ import annotations

import math

import pytest

from concise_rl.errors import UserError
from concise_rl.methods.contracts import Shaper
from concise_rl.methods.method import Method
from concise_rl.methods.recipes import load_method
from concise_rl.methods.registry import component
from concise_rl.methods.shapers.leash import Leash
from tests.methods.one_group import one_group, values


def test_by_hand():
    batch = one_group([3000, 8192, 8192], [1, 1, 0])
    out, lam = Leash()(batch, batch.task_reward, 0.2)
    assert out.value.tolist() == pytest.approx([1, 0.8, -1])
    assert lam == pytest.approx(0.2 + 0.005 * (19384 / 3 / 4096 - 1))
    assert lam == pytest.approx(0.20289, abs=5e-6)


def test_right_answers_by_length():
    batch = one_group([2048, 4096, 6144, 12288, 12288], [1, 1, 1, 1, 0])
    assert values(Leash(), batch) == pytest.approx([1, 1, 0.95, 0.8, -1])


def test_the_clip_ends_at_minus_one():
    batch = one_group([100_000, 100_000], [1, 0])
    assert values(Leash(), batch, state=1.0) == [-1, -1]


def test_given_outcomes_are_taken_as_they_are():
    shaper = Leash(outcome="given")
    batch = one_group([8192, 8192], [1, 0])
    assert values(shaper, batch, [1, -1]) == pytest.approx([0.9, -1])
    assert values(shaper, batch, [1, 0]) == pytest.approx([0.9, -0.1])  # under 0 and 1 a long wrong answer is punished
    assert values(Leash(), batch, [0.3, 0.3]) == pytest.approx([0.9, -1])


def test_only_signed_outcomes_replace_what_stands_before():
    chain = {
        "shaper.plain": component("shaper", "plain")(),
        "advantage.rloo": component("advantage", "leave_one_out")(),
    }

    def with_leash(leash: Shaper) -> Method:
        return Method("m", {"shaper.plain": chain["shaper.plain"], "shaper.leash": leash, **chain})

    with pytest.raises(UserError, match="Leash replaces the reward"):
        with_leash(Leash())
    assert len(with_leash(Leash(outcome="given")).shapers) == 2


def test_lam_rises_while_too_long_and_falls_while_short_between_its_bounds():
    shaper = Leash(T=100, lam0=0.5, eta=0.3, lam_max=0.9)
    lam, seen = shaper.init(), []
    for length in (200, 200, 100, 50, 1, 1, 1):
        batch = one_group([length, length], [1, 0])
        out, lam = shaper(batch, batch.task_reward, lam)
        seen.append((out.metrics["leash/lam"], lam))
    assert [after for _, after in seen] == pytest.approx([0.8, 0.9, 0.9, 0.75, 0.453, 0.156, 0])
    assert [used for used, _ in seen[1:]] == [after for _, after in seen[:-1]], "a step is scored before lam moves"


def test_the_longest_answer_may_move_lam_and_rows_that_do_not_count_never_do():
    batch = one_group([100, 300, 9000], [1, 1, 1], scorable=[1, 1, 0])
    assert Leash(T=100, eta=0.1, kind="max")(batch, batch.task_reward, 0.1)[1] == pytest.approx(0.3)
    assert Leash(T=100, eta=0.1)(batch, batch.task_reward, 0.1)[1] == pytest.approx(0.2)
    nothing = one_group([100], [0], scorable=[0])
    assert Leash()(nothing, nothing.task_reward, 0.123)[1] == 0.123


def test_the_state_of_the_recipe_is_lam_alone():
    method = load_method("leash", lam0=0.25)
    assert method.init() == {"shaper.leash": 0.25}


@pytest.mark.parametrize(
    "fields",
    [
        {"T": 0},
        {"eta": -0.1},
        {"lam_max": math.inf},
        {"lam0": 1.5},
        {"lam0": -0.1},
        {"kind": "median"},
        {"outcome": "zero"},
    ],
)
def test_bad_fields_are_refused(fields):
    with pytest.raises(UserError, match=f"Leash.{next(iter(fields))}="):
        Leash(**fields)
