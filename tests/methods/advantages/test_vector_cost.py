"""prime-rl's linear penalty by hand."""

from __future__ import annotations

import pytest
import torch

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.advantages.vector_cost import VectorCost

COSTS = {"input_tokens": [1000, 1000, 2000, 500], "turns": [1, 2, 4, 2]}


def credit(reward, lengths, scorable=None, parts=None, costs=None, **fields) -> list[float]:
    batch = RolloutBatch.of(
        prompt_keys=["q"],
        group_size=len(reward),
        lengths=lengths,
        correct=[r > 0 for r in reward],
        scorable=scorable,
        parts=parts or {},
        costs=costs or {},
    )
    return VectorCost(**fields).apply(batch, torch.tensor(reward, dtype=torch.float64)).value.tolist()


def test_the_worked_examples():
    found = credit([1, 0, 1, 0], [100, 200, 400, 300], parts=COSTS)
    assert found == pytest.approx([0.5656, -0.4781, 0.4094, -0.4969], abs=5e-5)
    three = {"input_tokens": [1000, 1000, 2000], "turns": [2, 4, 4]}
    assert credit([1, 1, 0], [100, 200, 300], parts=three) == pytest.approx([0.4222, 0.3333, -0.7556], abs=5e-5)


def test_costs_of_the_batch_stand_in_for_parts():
    costs = {"context_tokens": COSTS["input_tokens"], "turns": COSTS["turns"]}
    reward, lengths = [1, 0, 1, 0], [100, 200, 400, 300]
    assert credit(reward, lengths, costs=costs) == credit(reward, lengths, parts=COSTS)
    beside = {"context_tokens": [9.0] * 4, "turns": [1.0] * 4}
    assert credit(reward, lengths, parts=COSTS, costs=beside) == credit(reward, lengths, parts=COSTS)


def test_in_a_single_turn_only_the_output_counts():
    reward, lengths = [1, 0, 1, 0], [100, 200, 400, 300]
    alone = credit(reward, lengths, input_weight=0.0, turns_weight=0.0)
    assert credit(reward, lengths) == pytest.approx(alone)
    # s = r - .5 * .25 * L / 400, whose mean is .5 - .078125.
    assert alone == pytest.approx([0.546875, -0.484375, 0.453125, -0.515625])


def test_nobody_right_pays_nothing_and_zero_costs_divide_by_one():
    assert credit([0, 0], [10, 90]) == [0.0, 0.0]
    assert credit([1, 0], [0, 0], parts={"input_tokens": [0, 0], "turns": [0, 0]}) == [0.5, -0.5]
    assert credit([1], [5]) == [0.0]


def test_a_negative_mean_does_not_pay_for_cost():
    assert credit([-1, -1], [10, 90]) == [0.0, 0.0]
    assert credit([-1, -1], [10, 90], clamp=False)[1] > 0


def test_rows_without_a_verdict_set_no_maximum():
    found = credit([1, 0, 1, 0, 1], [100, 200, 400, 300, 9000], scorable=[True] * 4 + [False])
    assert found == pytest.approx([*credit([1, 0, 1, 0], [100, 200, 400, 300]), 0.0])


def test_refusals():
    with pytest.raises(UserError, match=r"VectorCost\.turns_weight=-1"):
        VectorCost(turns_weight=-1)
