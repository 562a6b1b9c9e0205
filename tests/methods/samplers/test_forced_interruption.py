"""ScaleRL's interruption: a length of each row's own, and the paper's share of the limit."""

from __future__ import annotations

import random

import pytest

from concise_rl.errors import UserError
from concise_rl.methods.samplers.forced_interruption import ForcedInterruption
from concise_rl.rollouts import Finish

from .fake import NO_TAG, VOCABULARY, Fake, Rng, rows_of, shown

SAMPLER = ForcedInterruption(low=2, high=4, words="Up.")


def test_each_row_is_interrupted_at_its_own_length():
    fake = Fake(["abcdef", "abc|1$", "ab|1$", "abcd"], ["7$", "8$", "$", "9$"])
    rows = rows_of(SAMPLER, fake, limit=9, group_size=4, rng=Rng(4, 2, 3, 3))
    assert [shown(row) for row in rows] == ["abcd[Up.|]7$", "ab[Up.|]8$", "ab|$", "abc[Up.|]9$"]
    assert [row.finish for row in rows] == [Finish.budget, Finish.budget, None, Finish.budget]
    assert [row.parts["budget"] for row in rows] == [4, 2, 3, 3]
    assert len(fake.asked) == 2, "rows of different budgets go out together"
    assert {request.limit for request in fake.asked[0]} == {4}


def test_the_ends_are_the_papers_share_of_the_limit():
    drawn = set()
    for seed in range(200):
        fake = Fake(["x" * 14], ["$"])
        (row,) = rows_of(ForcedInterruption(), fake, limit=14, group_size=1, rng=random.Random(seed))
        drawn.add(row.parts["budget"])
    assert drawn == {10, 11, 12}


def test_the_same_generator_draws_the_same_rows():
    made = [
        rows_of(SAMPLER, Fake(["abcdef"] * 8, ["$"] * 8), limit=9, group_size=8, rng=random.Random(5)) for _ in range(2)
    ]
    assert made[0] == made[1]
    assert len({row.parts["budget"] for row in made[0]}) > 1


def test_refusals():
    with pytest.raises(UserError, match="no single token"):
        SAMPLER.check(NO_TAG, group_size=4, limit=20)
    with pytest.raises(UserError, match="thoughts of 2 to 4 tokens do not fit into trainer"):
        SAMPLER.check(VOCABULARY, group_size=4, limit=4)
    for fields in ({"low": 5, "high": 4}, {"low": 0}, {"high": 0}):
        with pytest.raises(UserError, match="need 1 <= low <= high"):
            ForcedInterruption(**fields)
    ForcedInterruption().check(VOCABULARY, group_size=4, limit=48)
