"""S-GRPO's rows: token-exact cuts of one chain, answered anew, each token of the chain trained once."""

from __future__ import annotations

import random

import pytest

from concise_rl.engine.rows import loss_mask
from concise_rl.errors import UserError
from concise_rl.methods.samplers.exits import EarlyExits
from concise_rl.rollouts import Finish

from .fake import NO_TAG, VOCABULARY, Fake, Rng, ids, rows_of, shown

SAMPLER = EarlyExits(words="Now.", answer_start="=")


def test_one_chain_is_left_early_and_answered():
    fake = Fake(["abcdef|9$"], ["1$", "2$", "3$"])
    rows = rows_of(SAMPLER, fake, limit=20, group_size=4, rng=Rng(5, 2, 5))
    assert [shown(row) for row in rows] == ["ab[Now.|=]1$", "abcde[Now.|=]2$", "abcde[Now.|=]3$", "abcdef|9$"]
    assert [row.finish for row in rows] == [Finish.forced] * 3 + [None]
    assert [row.length for row in rows] == [4, 7, 7, 9]
    assert [len(wave) for wave in fake.asked] == [1, 3], "the chain is sampled once"
    assert fake.asked[1][0].start == ids("abNow.|=")


def test_each_token_of_the_chain_is_trained_once_and_no_forced_one():
    rows = rows_of(SAMPLER, Fake(["abcdef|9$"], ["1$", "2$", "3$"]), limit=20, group_size=4, rng=Rng(5, 2, 4))
    masks = [loss_mask(row) for row in rows]
    assert masks[0] == [1, 1, *[0] * 6, 1, 1]
    assert masks[1] == [0, 0, 1, 1, *[0] * 6, 1, 1]
    assert masks[2] == [0, 0, 0, 0, 1, *[0] * 6, 1, 1]
    assert masks[3] == [0] * 5 + [1] * 4
    for place in range(6):
        assert sum(row[place] for row in masks if place < len(row) - 8) + masks[3][place] == 1


def test_an_exit_answers_with_what_is_left_of_the_limit():
    rows = rows_of(SAMPLER, Fake(["abcdef"], ["0123456789"]), limit=6, group_size=3, rng=Rng(6, 2))
    assert [shown(row) for row in rows] == ["ab[Now.|=]0123", "abcdef[Now.|=]", "abcdef"]
    assert [row.length for row in rows] == [6, 6, 6]


def test_a_chain_that_does_not_think_is_answered_again_at_once():
    rows = rows_of(SAMPLER, Fake(["|9$"], ["1$"]), limit=20, group_size=2)
    assert [shown(row) for row in rows] == ["[Now.|=]1$", "|9$"]


def test_a_thought_that_ends_without_the_tag_is_left_before_its_end():
    drawn = set()
    for seed in range(60):
        first, _ = rows_of(SAMPLER, Fake(["abc$"], ["1$"]), limit=20, group_size=2, rng=random.Random(seed))
        drawn.add(shown(first))
    assert drawn == {"a[Now.|=]1$", "ab[Now.|=]1$", "abc[Now.|=]1$"}


def test_refusals():
    with pytest.raises(UserError, match="no single token"):
        SAMPLER.check(NO_TAG, group_size=4, limit=20)
    with pytest.raises(UserError, match="num_generations=1 leaves no early exit"):
        SAMPLER.check(VOCABULARY, group_size=1, limit=20)
