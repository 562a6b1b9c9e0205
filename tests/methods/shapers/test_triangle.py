"""Train Long, Think Short by hand: the triangle, the budget over steps, and the budget that the prompt states."""

from __future__ import annotations

import math
import random

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.commands import config
from concise_rl.data import Prompt
from concise_rl.errors import UserError
from concise_rl.methods import Triangle, load_method


def rewards(shaper: Triangle, lengths: list[int], correct: list[int], **others) -> list[float]:
    batch = RolloutBatch.of(prompt_keys=["q"], group_size=len(lengths), lengths=lengths, correct=correct, **others)
    return shaper.apply(batch, batch.task_reward).value.tolist()


def test_by_hand():
    shaper = Triangle()
    assert shaper.budget(230) == pytest.approx(125.44)
    shaped = rewards(shaper, [100, 200, 251], [1, 0, 1], step=230)
    assert shaped == pytest.approx([0.6 + 0.3 * 100 / 125.44, 0.3 * (1 - 74.56 / 125.44), 0.6])
    assert shaped == pytest.approx([0.8392, 0.1217, 0.6], abs=5e-5)


def test_the_triangle_alone():
    shaped = rewards(Triangle(w_c=0, w_l=1), [50, 100, 179, 250, 358, 400], [0] * 6, step=150)
    assert shaped == pytest.approx([0.279, 0.558, 0.9989, 0.6049, 0.0022, 0], abs=5e-5)
    assert rewards(Triangle(w_c=0, w_l=1, B0=10), [0, 10, 20], [1, 1, 1]) == [0, 1, 0]


def test_the_budget_holds_for_t_steps_and_never_falls_below_a_token():
    shaper = Triangle()
    assert [shaper.budget(t) for t in (0, 99)] == [256, 256]
    assert [shaper.budget(t) for t in (100, 299, 300, 800)] == pytest.approx([179.2, 125.44, 87.808, 14.758], abs=1e-3)
    assert shaper.budget(1600) == 1


def test_wrong_rows_and_the_format():
    assert rewards(Triangle(wrong_too=False), [256, 256], [1, 0]) == pytest.approx([0.9, 0])
    shaper = Triangle(w_f=0.1)
    assert shaper.needs == {"parts.format"}
    assert rewards(shaper, [256, 256], [1, 0], parts={"format": [1, 1]}) == pytest.approx([1.0, 0.4])
    with pytest.raises(ValueError, match="parts has no 'format'"):
        rewards(shaper, [1], [1])


def test_it_replaces_and_leaves_rows_that_do_not_count():
    assert Triangle.replaces
    assert rewards(Triangle(), [256, 256], [1, 1], task_reward=[7, 7], scorable=[1, 0]) == pytest.approx([0.9, 7])


@pytest.mark.parametrize("step", [0, 99, 100, 230, 800, 1600, 5000])
@pytest.mark.parametrize("changed", [{}, {"B0": 512, "gamma": 0.5, "T": 40}])
def test_prompt_and_reward_of_a_run_have_one_budget(step, changed):
    overrides = [f"shaper.triangle.{name}={value}" for name, value in changed.items()]
    method = config.method_of(config.compose(["method=train_long", *overrides]))
    edited = method.at("edit.budget_prompt", step)(Prompt.of("2+2?", "4"), random.Random(0))
    budget = Triangle(**changed).budget(step)
    assert edited.messages[0]["content"] == f"2+2?\n\nUse exactly {round(budget)} tokens."
    batch = RolloutBatch.of(prompt_keys=[edited.id], group_size=1, lengths=[1], correct=[1], step=step)
    assert method.apply(batch, {})[0].reward.item() == pytest.approx(0.6 + 0.3 / budget)


def test_the_recipe_without_a_run():
    method = load_method("train_long")
    assert method.at("edit.budget_prompt", 230).budget == pytest.approx(125.44)


@pytest.mark.parametrize(
    "fields",
    [{"B0": 0.5}, {"B0": math.inf}, {"gamma": 0.0}, {"gamma": 1.1}, {"T": 0}, {"w_c": -1.0}, {"w_l": math.nan}],
)
def test_bad_fields_are_refused(fields):
    (name,) = fields
    with pytest.raises(UserError, match=rf"Triangle\.{name}="):
        Triangle(**fields)
