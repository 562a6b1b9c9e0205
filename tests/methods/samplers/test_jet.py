"""JET's rows: which completion is left where, how long an answer may be, and what is trained."""

from __future__ import annotations

import pytest

from concise_rl.engine.rows import loss_mask
from concise_rl.errors import UserError
from concise_rl.methods import load_method
from concise_rl.methods.samplers.jet import ExitsAtShares
from concise_rl.rollouts import Finish

from .fake import NO_TAG, VOCABULARY, Fake, rows_of, shown


def test_whole_completions_and_exits_of_them():
    sampler = ExitsAtShares(words="Stop.", answer_start="[", answer_tokens=2)
    fake = Fake(["0123456789|7$", "abcd|8$"], ["A$", "B$", "C$", "D$", "Exyz"])
    rows = rows_of(sampler, fake, limit=40, group_size=7)
    closed = "Stop.|["
    assert [shown(row) for row in rows] == [
        f"0[{closed}]A$", f"01234[{closed}]B$", f"012345678[{closed}]C$", "0123456789|7$",
        f"a[{closed}]D$", f"ab[{closed}]Ex", "abcd|8$",
    ]  # fmt: skip
    assert [row.limit for row in rows] == [3, 7, 11, 40, 3, 4, 40]
    assert [row.length for row in rows] == [3, 7, 11, 13, 3, 4, 7]
    assert [row.finish for row in rows] == [Finish.forced] * 3 + [None] + [Finish.forced] * 2 + [None]
    assert VOCABULARY.cut_off(rows[5].token_ids), "no end is put behind an answer that met its limit"


def test_a_token_that_several_rows_begin_with_is_trained_once():
    sampler = ExitsAtShares(whole=1, shares=[0.25, 0.75], words="", answer_start="")
    rows = rows_of(sampler, Fake(["abcd|8$"], ["A$", "B$"]), limit=40, group_size=3)
    assert [loss_mask(row) for row in rows] == [[1, 0, 1, 1], [0, 1, 1, 0, 1, 1], [0, 0, 0, 1, 1, 1, 1]]


@pytest.mark.parametrize(("group_size", "places"), [(2, [5]), (3, [3, 7]), (4, [1, 5, 9]), (6, [1, 3, 5, 7, 9])])
def test_fewer_exits_than_shares_are_spread_evenly(group_size, places):
    fake = Fake(["0123456789|7$"], ["A$"] * len(places))
    rows = rows_of(ExitsAtShares(whole=1), fake, limit=40, group_size=group_size)
    assert [row.length - 2 for row in rows[:-1]] == places


def test_the_limit_of_the_row_bounds_the_answer():
    sampler = ExitsAtShares(whole=1, shares=[0.9], words="", answer_start="")
    rows = rows_of(sampler, Fake(["0123456789"], ["ABC"]), limit=10, group_size=2)
    assert [shown(row) for row in rows] == ["012345678[|]A", "0123456789"]
    assert rows[0].limit == 10


def test_refusals():
    with pytest.raises(UserError, match="no single token"):
        ExitsAtShares().check(NO_TAG, group_size=4, limit=20)
    with pytest.raises(UserError, match="num_generations=2 leaves no early exit"):
        ExitsAtShares().check(VOCABULARY, group_size=2, limit=20)
    for fields in ({"whole": 0}, {"answer_tokens": 0}, {"shares": []}, {"shares": [0.5, 0.3]}, {"shares": [0.5, 1.0]}):
        with pytest.raises(UserError, match="ExitsAtShares"):
            ExitsAtShares(**fields)


def test_the_recipe_has_rows_and_reward():
    method = load_method("jet", whole=1)
    assert method.sampler == ExitsAtShares(whole=1)
