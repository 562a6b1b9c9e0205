"""ALP's price by hand."""

from __future__ import annotations

import math

import pytest

from concise_rl.errors import UserError
from concise_rl.methods.shapers.alp import Alp
from tests.methods.one_group import CORRECT, LENGTHS, one_group, values


def test_by_hand():
    shaper = Alp(max_length=8192)
    expected = [1 - 0.05 * 0.75 * 400 / 8192, 0.9959, -0.0032, 0.9927]
    assert values(shaper, one_group(LENGTHS, CORRECT)) == pytest.approx(expected, abs=5e-5)
    assert values(shaper, one_group([100, 200], [0, 0])) == pytest.approx([-0.00030517578, -0.00061035156])


def test_without_the_floor_wrong_answers_alone_pay_nothing():
    assert values(Alp(max_length=8192, floor=False), one_group([100, 200], [0, 0])) == [0, 0]
    batch = one_group(LENGTHS, CORRECT)
    assert values(Alp(floor=False), batch) == values(Alp(), batch)


def test_the_floor_is_that_of_the_whole_group_though_rows_are_left_out():
    batch = one_group([100, 200, 50, 50], [0, 0, 0, 0], scorable=[1, 1, 0, 0], limits=[1000] * 4)
    assert values(Alp(beta=1), batch) == pytest.approx([-0.025, -0.05, 0, 0])


def test_each_row_has_its_own_limit():
    batch = one_group([100, 100], [1, 1], limits=[100, 200])
    assert values(Alp(beta=0.1), batch) == pytest.approx([0.9, 0.95])
    assert values(Alp(beta=0.1, max_length=1000), batch) == pytest.approx([0.99, 0.99])


@pytest.mark.parametrize("fields", [{"beta": -0.1}, {"beta": math.inf}, {"max_length": 0}])
def test_bad_fields_are_refused(fields):
    with pytest.raises(UserError, match=f"Alp.{next(iter(fields))}="):
        Alp(**fields)
