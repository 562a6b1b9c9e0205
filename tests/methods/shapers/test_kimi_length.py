"""Kimi k1.5's length reward by hand."""

from __future__ import annotations

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods import KimiLength


def rewards(shaper: KimiLength, lengths: list[int], correct: list[bool], **others) -> list[float]:
    batch = RolloutBatch.of(prompt_keys=["q"], group_size=len(lengths), lengths=lengths, correct=correct, **others)
    return shaper.apply(batch, batch.task_reward).value.tolist()


def test_by_hand():
    lengths = [10, 15, 20, 25, 30]
    assert rewards(KimiLength(), lengths, [True] * 5) == pytest.approx([1.5, 1.25, 1.0, 0.75, 0.5])
    assert rewards(KimiLength(), lengths, [False] * 5) == pytest.approx([0, 0, 0, -0.25, -0.5])
    # the wrong answers set the range too
    assert rewards(KimiLength(weight=2.0), lengths, [False, True, True, True, False]) == pytest.approx(
        [0, 1.5, 1.0, 0.5, -1.0]
    )


def test_equal_lengths_and_a_group_of_one_have_no_length_reward():
    assert rewards(KimiLength(), [9, 9], [True, False]) == [1, 0]
    assert rewards(KimiLength(), [9], [True]) == [1]


def test_rows_without_a_verdict_are_in_neither_minimum_nor_maximum():
    shaped = rewards(KimiLength(), [1, 10, 20, 500], [True] * 4, scorable=[False, True, True, False])
    assert shaped == pytest.approx([1, 1.5, 0.5, 1])


def test_warm_up_ends_at_its_step():
    shaper = KimiLength(warmup_steps=5)
    assert rewards(shaper, [10, 20], [True, True], step=4) == [1, 1]
    assert rewards(shaper, [10, 20], [True, True], step=5) == [1.5, 0.5]


@pytest.mark.parametrize("fields", [{"weight": -0.5}, {"warmup_steps": -1}])
def test_bad_fields_are_refused(fields):
    with pytest.raises(UserError, match=f"KimiLength.{next(iter(fields))}="):
        KimiLength(**fields)
