"""DAST by hand."""

from __future__ import annotations

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods import Dast, load_method


def rewards(shaper: Dast, lengths: list[int], correct: list[int], **others) -> list[float]:
    batch = RolloutBatch.of(prompt_keys=["q"], group_size=len(lengths), lengths=lengths, correct=correct, **others)
    return shaper.apply(batch, batch.task_reward).value.tolist()


def test_by_hand():
    # budget = 0.75 * 2900/3 + 0.25 * 2000 = 1225
    shaped = rewards(Dast(max_length=2000), [400, 900, 700, 1600], [1, 1, 0, 1])
    assert shaped == pytest.approx([1 - 0.5 * 400 / 1225, 1 - 0.5 * 900 / 1225, 0.9 * 700 / 1225 - 1, 0.3469388])
    assert shaped == pytest.approx([0.8367, 0.6327, -0.4857, 0.3469], abs=5e-5)


def test_the_floor_of_right_and_the_ceiling_of_wrong_rows():
    # p = 1/2, budget = 0.5 * 3000 + 0.5 * 1000 = 2000
    assert rewards(Dast(max_length=1000), [0, 6000, 2000, 9000], [1, 1, 0, 0]) == pytest.approx([1, 0.1, -0.1, -0.1])
    assert rewards(Dast(max_length=1000), [3600, 2400, 0, 1000], [1, 1, 0, 0]) == pytest.approx([0.1, 0.4, -1, -0.55])


def test_with_nothing_right_the_budget_is_all_that_is_allowed():
    assert rewards(Dast(max_length=1000), [100, 500], [0, 0]) == pytest.approx([-0.91, -0.55])


def test_without_max_length_each_rows_own_limit_counts():
    shaped = rewards(Dast(), [100, 100], [0, 0], limits=[1000, 200])
    assert shaped == pytest.approx([-0.91, -0.55])


def test_no_budget_keeps_the_reward():
    assert rewards(Dast(), [0, 0], [1, 1], limits=[50, 50], task_reward=[0.25, 1.0]) == [0.25, 1.0]


def test_rows_that_do_not_count_are_in_no_mean():
    alone = rewards(Dast(max_length=2000), [400, 900], [1, 0])
    beside = rewards(Dast(max_length=2000), [400, 900, 9], [1, 0, 1], scorable=[1, 1, 0], task_reward=[1, 0, 7])
    assert beside == [*alone, 7]


def test_it_replaces_and_the_recipe_loads():
    assert Dast.replaces
    batch = RolloutBatch.of(
        prompt_keys=["q"], group_size=2, lengths=[400, 900], correct=[1, 0], task_reward=[5, 5], limits=[2000, 2000]
    )
    result, _ = load_method("dast").apply(batch, {})
    assert result.reward.tolist() == pytest.approx([0.5 - 0.5 * (400 - 1200) / 1200, 0.9 * (900 - 1200) / 1200 - 0.1])


def test_bad_fields_are_refused():
    with pytest.raises(UserError, match=r"Dast\.max_length=0"):
        Dast(max_length=0)
