"""GR3 by hand."""

from __future__ import annotations

import math

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.shapers.gr3 import Gr3
from tests.methods.one_group import CORRECT, LENGTHS, one_group, values


def test_by_hand():
    assert values(Gr3(), one_group(LENGTHS, CORRECT)) == pytest.approx([0.8824, 0.7692, 0, 0.6522], abs=5e-5)


def test_it_multiplies_what_was_handed_in():
    batch = one_group(LENGTHS, CORRECT)
    once = values(Gr3(), batch, [1, 1, 1, 1])
    assert values(Gr3(), batch, [4, 0.5, 0.1, 0]) == pytest.approx([4 * once[0], 0.5 * once[1], 0.1 * once[2], 0])


def test_no_tokens_at_all_change_nothing():
    assert values(Gr3(), one_group([0, 0], [1, 1])) == [1, 1]


def test_rows_that_do_not_count_are_in_no_mean_and_may_be_negative():
    batch = one_group([100, 300, 9000], [1, 1, 0], scorable=[1, 1, 0])
    assert values(Gr3(), batch, [1, 1, -5]) == pytest.approx([1 / 1.15, 1 / 1.45, -5])


def test_a_negative_reward_is_refused_by_row():
    message = r"Gr3: reward\[1\]=-1.0 of prompt q is negative and would gain from length"
    with pytest.raises(UserError, match=message):
        values(Gr3(), one_group([5, 6], [1, 0]), [1, -1])


def test_calibration_is_the_share_of_groups():
    # By hand, alpha 1: one right row of average length sits on the bound, 1/2; short right rows lift the mean above it.
    batch = RolloutBatch.of(
        prompt_keys=["a", "b", "c", "d"],
        group_size=2,
        lengths=[10, 10, 10, 90, 5, 5, 1, 1],
        correct=[1, 1, 1, 1, 0, 0, 0, 0],
        scorable=[1, 1, 1, 1, 1, 1, 0, 0],
    )
    out, _ = Gr3(alpha=1)(batch, batch.task_reward, None)
    assert out.value.tolist()[:4] == pytest.approx([0.5, 0.5, 1 / 1.2, 1 / 2.8])
    assert out.metrics["gr3/calibration_ok"] == pytest.approx(2 / 3)  # b is not: its mean is 0.595


@pytest.mark.parametrize("alpha", [-0.1, math.inf, math.nan])
def test_bad_fields_are_refused(alpha):
    with pytest.raises(UserError, match=r"Gr3\.alpha="):
        Gr3(alpha=alpha)
