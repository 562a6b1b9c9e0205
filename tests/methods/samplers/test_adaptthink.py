"""AdaptThink's rows: how they begin, and what of the beginning is trained."""

from __future__ import annotations

import math

import pytest

from concise_rl.engine.rows import loss_mask
from concise_rl.errors import UserError
from concise_rl.methods.samplers.adaptthink import ForcedStarts

from .fake import NO_TAG, VOCABULARY, Fake, rows_of, shown


def test_half_of_the_rows_skip_their_thought():
    sampler = ForcedStarts(think_start="So")
    rows = rows_of(sampler, Fake(["9$", "012345", "is|8$", "is|7$"]), limit=16, group_size=4)
    assert [shown(row) for row in rows] == ["[|]9$", "[|]0123", "[So]is|8$", "[So]is|7$"]
    assert [row.limit for row in rows] == [4, 4, 16, 16]
    assert [row.length for row in rows] == [2, 4, 5, 5]
    assert [row.parts["no_think"] for row in rows] == [1, 1, 0, 0]


def test_the_first_token_is_trained_with_the_probability_of_the_draw():
    rows = rows_of(ForcedStarts(think_start="So", share=0.25), Fake(["9$"] * 4), limit=16, group_size=4)
    assert [loss_mask(row) for row in rows] == [[1, 1, 1], *[[1, 0, 1, 1]] * 3]
    assert [row.drawn for row in rows] == [{0: pytest.approx(math.log(0.25))}] + [
        {0: pytest.approx(math.log(0.75))}
    ] * 3


def test_a_limit_for_rows_that_do_not_think():
    rows = rows_of(ForcedStarts(no_think_limit=2), Fake(["0123", "0123"]), limit=3, group_size=2)
    assert [shown(row) for row in rows] == ["[|]01", "[Alright]012"]


def test_refusals():
    with pytest.raises(UserError, match="no single token"):
        ForcedStarts().check(NO_TAG, group_size=4, limit=20)
    with pytest.raises(UserError, match=r"share=0.1: of trainer.num_generations=4 rows 0 do not think"):
        ForcedStarts(share=0.1).check(VOCABULARY, group_size=4, limit=20)
    for fields in ({"share": 0.0}, {"share": 1.0}, {"no_think_limit": 0}, {"think_start": ""}):
        with pytest.raises(UserError, match="ForcedStarts"):
            ForcedStarts(**fields)
