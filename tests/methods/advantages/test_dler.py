"""DLER by hand."""

from __future__ import annotations

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.advantages.dler import Dler


def batch_of(correct, lengths, group_size=None, **others) -> RolloutBatch:
    size = group_size or len(correct)
    keys = [f"q{p}" for p in range(len(correct) // size)]
    return RolloutBatch.of(prompt_keys=keys, group_size=size, lengths=lengths, correct=correct, **others)


def credit(batch: RolloutBatch, **fields) -> list[float]:
    return Dler(**fields).apply(batch, batch.task_reward).value.tolist()


CUT = {"truncated": [False, False, True, True]}
EXAMPLE = batch_of([True, False, True, False], [100, 300, 200, 400], **CUT)


def test_the_worked_example():
    assert credit(EXAMPLE, variant="code") == pytest.approx([3.0718, -0.4052, 0.0325, -0.4052], abs=5e-5)
    assert credit(EXAMPLE) == pytest.approx([1.5929, -0.5663, -0.2604, -0.5663], abs=5e-5)


def test_the_boost_looks_at_the_reward_before_it_was_scaled():
    with_boost, without = credit(EXAMPLE), credit(EXAMPLE, boost_truncated=False)
    assert [a - b for a, b in zip(with_boost, without, strict=True)] == pytest.approx([0, 0, 0.1, 0])
    assert credit(EXAMPLE, boost=0.0) == pytest.approx([1.4929, -0.5663, -0.3604, -0.5663], abs=5e-5)


def test_an_all_right_group_is_not_idle():
    assert credit(batch_of([True] * 3, [5, 6, 7])) == [0.1] * 3, "in float64"
    assert credit(batch_of([False] * 3, [5, 6, 7])) == [0.0] * 3


def test_few_rows_or_tokens_have_the_boost_alone():
    assert credit(batch_of([True], [5])) == pytest.approx([0.1])
    assert credit(batch_of([True, False], [1, 0]), variant="code") == pytest.approx([0.1, 0.0])


def test_a_group_of_one_has_no_baseline():
    batch = batch_of([True, False, False, True], [5] * 4, group_size=1)
    assert credit(batch, boost=0.0) == pytest.approx([3**0.5 / 2, -(3**0.5) / 2, -(3**0.5) / 2, 3**0.5 / 2], abs=1e-6)


def test_mean_and_variance_are_those_of_the_step():
    alone = credit(batch_of([True, False], [1, 1]), boost=0.0)
    beside = credit(batch_of([True, False, True, True], [1] * 4, group_size=2), boost=0.0)
    assert alone == pytest.approx([2**-0.5, -(2**-0.5)], abs=1e-6)
    assert beside == pytest.approx([0.5 * 6**0.5, -0.5 * 6**0.5, 0, 0], abs=1e-6)


def test_rows_without_a_verdict_are_nowhere():
    batch = batch_of([True, False, True, False], [100, 300, 999, 5], scorable=[True, True, False, False])
    assert credit(batch, boost=0.0) == pytest.approx([2**-0.5, -(2**-0.5), 0, 0], abs=1e-6)
    assert credit(batch)[2:] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variant": "best"}, "choose one of paper, code"),
        ({"truncated_scale": 1.5}, "Dler.truncated_scale=1.5"),
        ({"boost": -0.1}, "Dler.boost=-0.1"),
    ],
)
def test_refusals(fields, message):
    with pytest.raises(UserError, match=message):
        Dler(**fields)
