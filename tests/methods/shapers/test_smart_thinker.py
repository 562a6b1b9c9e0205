"""SmartThinker by hand: the optimum in each of its cases, and the penalty."""

from __future__ import annotations

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods import SmartThinker, load_method


def group(lengths: list[int], correct: list[int], **others) -> RolloutBatch:
    return RolloutBatch.of(prompt_keys=["q"], group_size=len(lengths), lengths=lengths, correct=correct, **others)


def rewards(lengths: list[int], correct: list[int], variant: str = "derived", **others) -> list[float]:
    batch = group(lengths, correct, **others)
    return SmartThinker(variant=variant).apply(batch, batch.task_reward).value.tolist()


def optimum(lengths: list[int], correct: list[int], variant: str = "derived") -> float:
    return float(SmartThinker(variant=variant).optimum(group(lengths, correct))[0])


def test_by_hand():
    lengths, correct = [1000, 1400, 1500, 3000], [1, 1, 1, 0]
    assert optimum(lengths, correct) == pytest.approx(1262.59, abs=5e-3)
    assert rewards(lengths, correct) == pytest.approx([1, 0.7610, 0.5870, 0], abs=5e-5)


def test_the_optimum_in_each_case():
    assert optimum([30, 10, 20], [1, 1, 1]) == 10
    assert optimum([30, 10, 20], [0, 0, 0]) == 30
    assert optimum([10, 90, 50, 50], [1, 1, 0, 0]) == 10  # right answers spread wider than all of them
    assert optimum([40, 44, 90, 100], [1, 1, 0, 0]) == pytest.approx((4 * 68.5 - 716.75 * 42) / (4 - 716.75))
    # v_C = 100 and v = 125: the mode is at 0 and at 40, outside of the group's lengths
    assert optimum([10, 30, 40, 20], [1, 1, 0, 0]) == 10
    assert optimum([10, 30, 0, 20], [1, 1, 0, 0]) == 30


@pytest.mark.parametrize(
    ("lengths", "derived", "code"),
    [
        ([0, 3, 3, 4], 0, 4),  # v = v_C = 9/4, right answers shorter (1.5) than all (2.5)
        ([1, 4, 0, 1], 4, 0),  # the same, right answers longer (2.5) than all (1.5)
        ([1, 4, 1, 4], 4, 1),  # and alike
    ],
)
def test_equal_variances_go_to_the_side_on_which_right_answers_lie(lengths, derived, code):
    assert optimum(lengths, [1, 1, 0, 0]) == derived
    assert optimum(lengths, [1, 1, 0, 0], variant="code") == code


def test_the_worst_right_row_lands_on_the_groups_mean():
    lengths, correct = [100, 400, 900, 1000, 2000], [1, 1, 1, 0, 0]
    shaped = rewards(lengths, correct)
    assert shaped[2] == pytest.approx(sum(shaped) / 5, abs=1e-6)
    assert shaped[0] >= shaped[1] >= shaped[2]


def test_groups_that_are_not_mixed_are_left_alone():
    assert rewards([10, 500, 900], [1, 1, 1]) == [1, 1, 1]
    assert rewards([10, 500, 900], [0, 0, 0]) == [0, 0, 0]
    assert rewards([10], [1]) == [1]


def test_no_right_row_above_the_optimum_no_penalty():
    assert rewards([10, 30, 0, 20], [1, 1, 0, 0]) == [1, 1, 0, 0]


def test_right_rows_of_one_length_pay_nothing_however_long_they_are():
    for length in (31337, 99991):
        assert rewards([length, 7, 50021, 80000, 3], [1, 0, 0, 0, 0]) == [1, 0, 0, 0, 0]
        assert rewards([length, length, 50021, 80000, 3], [1, 1, 0, 0, 0]) == [1, 1, 0, 0, 0]


def test_rows_that_do_not_count_are_in_no_moment():
    alone = rewards([1000, 1400, 1500, 3000], [1, 1, 1, 0])
    beside = rewards([1000, 1400, 1500, 3000, 5], [1, 1, 1, 0, 1], scorable=[1, 1, 1, 1, 0])
    assert beside == [*alone, 1]


def test_the_recipe_loads():
    batch = group([1000, 1400, 1500, 3000], [1, 1, 1, 0])
    assert load_method("smart_thinker").apply(batch, {})[0].reward.tolist() == pytest.approx(
        [1, 0.7610, 0.5870, 0], abs=5e-5
    )


def test_bad_fields_are_refused():
    with pytest.raises(UserError, match="choose one of derived, code"):
        SmartThinker(variant="paper")
