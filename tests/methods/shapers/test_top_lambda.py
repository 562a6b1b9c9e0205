"""GRPO-lambda by hand: which groups pay, and what."""

from __future__ import annotations

import math

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods import TopLambda, load_method

LENGTHS = [300, 500, 200, 900, 100, 100, 700, 50, 400, 400]
CORRECT = [1, 1, 1, 0, 0, 0, 1, 0, 0, 0]


def rewards(shaper: TopLambda, lengths: list[int], correct: list[int], group_size: int = 2, **others) -> list[float]:
    keys = [f"q{p}" for p in range(len(lengths) // group_size)]
    batch = RolloutBatch.of(prompt_keys=keys, group_size=group_size, lengths=lengths, correct=correct, **others)
    return shaper.apply(batch, batch.task_reward).value.tolist()


def priced(z: float, alpha: float = 0.6) -> float:
    return 1 - alpha / (1 + math.exp(-z))


def test_by_hand():
    shaped = rewards(TopLambda(), LENGTHS, CORRECT)
    assert shaped == pytest.approx([priced(-1), priced(1), 1, 0, 0, 0, 1, 0, 0, 0], abs=1e-6)
    assert shaped[:2] == pytest.approx([0.8386, 0.5614], abs=5e-5)


def test_ties_at_the_cut_go_by_the_order_of_the_batch():
    # 11 first, then the first of the two groups with 1 of 2 right: one right row, and its wrong one at 0
    shaped = rewards(TopLambda(lam=0.4), LENGTHS, CORRECT, task_reward=[1, 1, 1, 0.25, 0, 0, 1, 0.25, 0, 0])
    assert shaped[2:] == pytest.approx([0.7, 0, 0, 0, 1, 0.25, 0, 0])


def test_how_many_groups_pay_is_counted_without_rounding_errors():
    # 0.07 * 100 is above 7 in binary; at 1 of 100 it is one group
    lengths, correct = [10, 30] * 100, [1, 1] * 100
    assert sum(r != 1 for r in rewards(TopLambda(lam=0.07), lengths, correct)) == 14
    assert sum(r != 1 for r in rewards(TopLambda(lam=0.001), lengths, correct)) == 2
    assert sum(r != 1 for r in rewards(TopLambda(lam=1.0), lengths, correct)) == 200


def test_one_right_row_equal_lengths_and_a_best_group_without_a_right_row():
    assert rewards(TopLambda(), [10, 90], [1, 0]) == pytest.approx([0.7, 0])
    assert rewards(TopLambda(), [40, 40], [1, 1]) == pytest.approx([0.7, 0.7])
    assert rewards(TopLambda(), [40, 90], [0, 0]) == [0, 0]


def test_rows_that_do_not_count_are_in_no_rate_and_groups_of_them_are_no_groups():
    # the second group is all right once its unscorable row is left out, and so the best; the third has none left
    shaped = rewards(
        TopLambda(lam=0.5),
        [10, 20, 30, 5, 50, 60],
        [1, 0, 1, 0, 1, 1],
        scorable=[1, 1, 1, 0, 0, 0],
        task_reward=[1] * 6,
    )
    assert shaped == pytest.approx([1, 1, 0.7, 1, 1, 1])


def test_the_recipe_and_its_reach():
    method = load_method("grpo_lambda", lam=1.0, alpha=0.2)
    assert method.shapers[0].across_groups
    batch = RolloutBatch.of(prompt_keys=["q"], group_size=2, lengths=[300, 500], correct=[1, 1])
    result, _ = method.apply(batch, {})
    assert result.reward.tolist() == pytest.approx([priced(-1, 0.2), priced(1, 0.2)])


@pytest.mark.parametrize("fields", [{"lam": 0.0}, {"lam": 1.2}, {"alpha": -0.1}, {"alpha": 1.5}, {"lam": math.nan}])
def test_bad_fields_are_refused(fields):
    (name,) = fields
    with pytest.raises(UserError, match=rf"TopLambda\.{name}="):
        TopLambda(**fields)
