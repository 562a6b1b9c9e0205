"""DAPO's soft overlong punishment at the paper's values."""

from __future__ import annotations

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods import Overlong


def penalties(shaper: Overlong, lengths: list[int], **others) -> list[float]:
    correct = [n % 2 == 0 for n in range(len(lengths))]
    batch = RolloutBatch.of(prompt_keys=["q"], group_size=len(lengths), lengths=lengths, correct=correct, **others)
    return (batch.task_reward - shaper.apply(batch, batch.task_reward).value).tolist()


def test_the_papers_ramp():
    lengths = [0, 16384, 16385, 18432, 20479, 20480, 30000]
    expected = [0, 0, 1 / 4096, 0.5, 4095 / 4096, 1, 1]
    assert penalties(Overlong(max_length=20480, cache=4096), lengths) == pytest.approx(expected, abs=1e-15)
    assert penalties(Overlong(max_length=20480), lengths) == pytest.approx(expected, abs=1e-15)


def test_small_limits_and_a_ramp_from_the_first_token():
    assert penalties(Overlong(max_length=3), [2, 3]) == [0, 1]
    assert penalties(Overlong(max_length=10, cache=10), [0, 5, 10]) == [0, 0.5, 1]


def test_rows_without_a_verdict_are_not_penalised():
    assert penalties(Overlong(max_length=10), [10, 10], scorable=[True, False]) == [1, 0]


@pytest.mark.parametrize(("max_length", "cache"), [(0, None), (10, 0), (10, 11)])
def test_bad_fields_are_refused(max_length, cache):
    with pytest.raises(UserError, match=r"Overlong\.\w+="):
        Overlong(max_length=max_length, cache=cache)
