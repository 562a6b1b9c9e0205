"""DIET by hand: the worked example, where targets come from, and how the weight falls."""

from __future__ import annotations

import math

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.errors import DataError, UserError
from concise_rl.methods import load_method
from concise_rl.methods.advantages.diet import Diet

EXAMPLE = {"correct": [True, True, False, True], "lengths": [400, 900, 700, 1600]}


def batch_of(correct, lengths, group_size=None, target=(), **others) -> RolloutBatch:
    size = group_size or len(correct)
    keys = others.pop("keys", None) or [f"q{p}" for p in range(len(correct) // size)]
    columns = {"target": list(target)} if target else {}
    return RolloutBatch.of(
        prompt_keys=keys, group_size=size, lengths=lengths, correct=correct, columns=columns, **others
    )


def credit(batch: RolloutBatch, **fields) -> list[float]:
    return Diet(**fields).apply(batch, batch.task_reward).value.tolist()


def test_the_worked_example():
    batch = batch_of(**EXAMPLE, target=[600], step=25)
    assert credit(batch) == pytest.approx([0.8136, 0.5855, -1.4525, 0.0534], abs=5e-5)


def test_the_weight_falls_to_zero_and_rises_again_only_in_the_released_code():
    grpo = credit(batch_of(**EXAMPLE, target=[600]), weight=0.0)
    at = {step: credit(batch_of(**EXAMPLE, target=[600], step=step)) for step in (0, 50, 100, 150, 200)}
    gap = {step: found[0] - grpo[0] for step, found in at.items()}
    assert gap[50] == pytest.approx(gap[0] / 2)
    assert gap[100] == gap[150] == gap[200] == 0.0
    code = credit(batch_of(**EXAMPLE, target=[600], step=200), anneal="code")
    assert code == pytest.approx(at[0])


def test_nothing_beyond_the_target_leaves_grpo():
    assert credit(batch_of(**EXAMPLE, target=[1600])) == credit(batch_of(**EXAMPLE, target=[1600]), weight=0.0)


def test_a_group_that_is_all_right_is_pressed_and_one_all_wrong_is_not():
    # Target 0: excess is the length, spread 100; scores +1, -1 have sample deviation sqrt(2); p = 1, weight .5.
    right = credit(batch_of([True, True], [100, 300]))
    assert right == pytest.approx([0.5 / 2**0.5, -0.5 / 2**0.5], abs=1e-6)
    assert credit(batch_of([False, False], [100, 300])) == [0.0, 0.0]


def targets(batch: RolloutBatch, **fields) -> list[float]:
    return Diet(**fields).targets(batch).tolist()


def test_targets_are_drawn_from_the_share_of_wrong_rows():
    half = [batch_of([True, False], [1, 1], step=step) for step in range(300)]
    drawn = [targets(batch, max_length=1000)[0] for batch in half]
    assert min(drawn) >= 400
    assert max(drawn) <= 500
    assert len(set(drawn)) > 50
    assert all(targets(batch, max_length=1000) == [drawn[k]] * 2 for k, batch in enumerate(half)), "one a group, again"
    assert targets(batch_of([True, True], [1, 1]), max_length=1000) == [0.0, 0.0]


def test_a_target_depends_on_seed_step_and_prompt_alone():
    one = batch_of([True, False] * 2, [1] * 4, group_size=2, keys=["a", "b"])
    other = batch_of([True, False] * 2, [1] * 4, group_size=2, keys=["b", "a"])
    assert targets(one, max_length=10**6) == targets(other, max_length=10**6)[2:] + targets(other, max_length=10**6)[:2]
    assert targets(one, max_length=10**6) != targets(one, max_length=10**6, seed=1)
    assert targets(one, max_length=10**6) != targets(one.replace(step=1), max_length=10**6)


def test_the_released_code_draws_a_row_and_may_go_below_zero():
    rows = [True] * 19 + [False]
    drawn = [
        t for step in range(40) for t in targets(batch_of(rows, [1] * 20, step=step), variant="code", max_length=1000)
    ]
    assert -50 <= min(drawn) < 0
    assert max(drawn) <= 50
    drawn = [t for step in range(40) for t in targets(batch_of(rows, [1] * 20, step=step), max_length=1000)]
    assert min(drawn) >= 0


def test_without_a_max_length_the_sampling_limit_is_it():
    batch = batch_of([True, False], [1, 1], limits=[1000, 1000])
    assert targets(batch) == targets(batch, max_length=1000)


def test_a_column_gives_the_target_and_null_draws():
    batch = batch_of([True, False] * 2, [9] * 4, group_size=2, target=[7, None], limits=[1000] * 4)
    found = targets(batch)
    assert found[:2] == [7.0, 7.0]
    assert 400 <= found[2] <= 500
    assert Diet(column=True).needs == {"columns.target"}
    assert Diet().needs == frozenset()
    for bad in ("long", -1, math.nan):
        with pytest.raises(DataError, match="column 'target' of prompt q0"):
            targets(batch_of([True, False], [9, 9], target=[bad]))


def test_rows_without_a_verdict_are_in_no_statistic():
    batch = batch_of([True, True, True], [100, 300, 9000], target=[0], scorable=[True, True, False])
    assert credit(batch) == pytest.approx([0.5 / 2**0.5, -0.5 / 2**0.5, 0.0], abs=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variant": "paper"}, "choose one of group, code"),
        ({"anneal": "never"}, "choose one of hold, code"),
        ({"weight": -1}, "Diet.weight=-1"),
        ({"max_length": 0}, "Diet.max_length=0"),
    ],
)
def test_refusals(fields, message):
    with pytest.raises(UserError, match=message):
        Diet(**fields)


def test_a_key_may_be_any_text():
    batch = RolloutBatch.of(prompt_keys=["\ud800\udfff"], group_size=2, lengths=[3, 5], correct=[1, 0])
    method = load_method("diet")
    assert bool(method.apply(batch, method.init())[0].credit.isfinite().all())
