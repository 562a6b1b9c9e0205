"""DOT's cut: the worked example, who is left alone, and groups in which nobody can be an outlier."""

from __future__ import annotations

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.cuts.dot import OutlierCut

from ..one_group import one_group

LENGTHS = [300] * 11 + [1500]


def test_the_worked_example():
    assert OutlierCut()(one_group(LENGTHS, [1] * 12)).tolist() == [300] * 11 + [1439]


def test_a_group_with_a_wrong_answer_is_left_alone():
    assert OutlierCut()(one_group(LENGTHS, [0] + [1] * 11)).tolist() == LENGTHS


def test_rows_that_do_not_count_are_neither_counted_nor_cut():
    batch = one_group([*LENGTHS, 9000], [1] * 12 + [0], scorable=[1] * 12 + [0])
    assert OutlierCut()(batch).tolist() == [300] * 11 + [1439, 9000]


@pytest.mark.parametrize(("margin", "kept"), [(61, 1439), (62, 1500), (0.04, 1439), (0.042, 1500), (0, 1439)])
def test_the_margin(margin, kept):
    # 1500 - 1439 = 61 tokens over; a share of 0.042 is 63 of 1500.
    assert OutlierCut(margin=margin)(one_group(LENGTHS, [1] * 12)).tolist()[-1] == kept


def test_a_share_is_at_least_16_tokens():
    # mean 12, deviation 6.93, so 32 tokens are kept of 36: 4 over.
    short = [10] * 11 + [34]
    assert OutlierCut(margin=0.01)(one_group(short, [1] * 12)).tolist() == short
    assert OutlierCut(margin=1)(one_group(short, [1] * 12)).tolist() == [10] * 11 + [32]


def test_groups_do_not_see_each_other():
    batch = RolloutBatch.of(
        prompt_keys=["a", "b"], group_size=12, lengths=LENGTHS + [5000] * 12, correct=[1] * 24
    )  # fmt: skip
    assert OutlierCut()(batch).tolist() == [300] * 11 + [1439] + [5000] * 12


@pytest.mark.parametrize(("group_size", "fine"), [(1, False), (10, False), (11, True)])
def test_groups_that_are_too_small_are_refused(group_size, fine):
    if fine:
        OutlierCut().check(group_size)
        return
    with pytest.raises(UserError, match="sample 11 or more, or lower alpha"):
        OutlierCut().check(group_size)


@pytest.mark.parametrize("fields", [{"alpha": -1}, {"margin": float("nan")}])
def test_bad_fields_are_refused(fields):
    (name,) = fields
    with pytest.raises(UserError, match=rf"OutlierCut\.{name}="):
        OutlierCut(**fields)
