"""ShorterBetter by hand."""

from __future__ import annotations

import math

import pytest

from concise_rl.errors import UserError
from concise_rl.methods.shapers.shorter_better import ShorterBetter
from tests.methods.one_group import CORRECT, LENGTHS, one_group, values


def test_by_hand():
    assert values(ShorterBetter(), one_group(LENGTHS, CORRECT)) == pytest.approx([2, 1.5, -0.3, 0.8])
    assert values(ShorterBetter(), one_group([100, 200, 600], [0, 0, 0])) == pytest.approx([-0.2, -0.1, -0.3])


def test_the_safe_option_drops_the_length_term_where_none_is_right():
    shaper = ShorterBetter(when_none="zero")
    assert values(shaper, one_group([100, 200, 600], [0, 0, 0])) == [0, 0, 0]
    assert values(shaper, one_group(LENGTHS, CORRECT)) == values(ShorterBetter(), one_group(LENGTHS, CORRECT))


def test_a_wrong_answer_pays_for_being_shorter_too():
    assert values(ShorterBetter(), one_group([1000, 100], [1, 0])) == pytest.approx([2, -0.9])


def test_the_reward_handed_in_is_replaced_except_where_rows_do_not_count():
    batch = one_group([100, 50, 200, 10], [1, 1, 0, 0], scorable=[1, 0, 1, 0])
    assert values(ShorterBetter(), batch, [5, 6, 7, 8]) == pytest.approx([2, 6, -0.1, 8])
    assert ShorterBetter.replaces


@pytest.mark.parametrize("fields", [{"alpha": -1.0}, {"beta": math.nan}, {"when_none": "median"}])
def test_bad_fields_are_refused(fields):
    with pytest.raises(UserError, match=f"ShorterBetter.{next(iter(fields))}="):
        ShorterBetter(**fields)
