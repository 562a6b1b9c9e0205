"""AnytimeReasoner's rows: budgets, siblings, thoughts that end early, and each token of a chain trained once."""

from __future__ import annotations

import pytest

from concise_rl.engine.rows import loss_mask
from concise_rl.errors import UserError
from concise_rl.methods.samplers.brpo import BudgetedSummaries
from concise_rl.rollouts import Finish

from .fake import NO_TAG, VOCABULARY, Fake, rows_of, shown

SAMPLER = BudgetedSummaries(S=2, A=2, thinking=6, answer_start="=")


def test_chains_are_answered_at_each_budget():
    fake = Fake(["abcdefgh", "xyzuvw"], [f"{n}$" for n in range(8)])
    rows = rows_of(SAMPLER, fake, limit=20, group_size=8)
    assert [shown(row) for row in rows] == [
        "abc[|=]0$", "abc[|=]1$", "abcdef[|=]2$", "abcdef[|=]3$",
        "xyz[|=]4$", "xyz[|=]5$", "xyzuvw[|=]6$", "xyzuvw[|=]7$",
    ]  # fmt: skip
    assert [row.parts["chain"] for row in rows] == [0] * 4 + [1] * 4
    assert [row.parts["segment"] for row in rows] == [0, 0, 1, 1] * 2
    assert {(row.parts["budgets"], row.parts["forced"]) for row in rows} == {(2, 2)}
    assert {row.finish for row in rows} == {Finish.budget}
    assert [len(wave) for wave in fake.asked] == [2, 8]


def test_each_token_of_a_chain_is_trained_once():
    rows = rows_of(SAMPLER, Fake(["abcdefgh"], ["0$", "1$", "2$", "3$"]), limit=20, group_size=4)
    assert [loss_mask(row) for row in rows] == [
        [1, 1, 1, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 1, 1],
        [0, 0, 0, 1, 1, 1, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 1],
    ]


@pytest.mark.parametrize(
    ("chain", "shown_rows", "segments", "masks"),
    [
        (
            "ab|9$", ["ab|0$", "ab|1$", "ab|2$", "ab|3$"], [0, 0, 0, 0],
            [[1, 1, 1, 1, 1], *[[0, 0, 0, 1, 1]] * 3],
        ),
        (
            "abcd|9", ["abc[|=]0$", "abc[|=]1$", "abcd|2$", "abcd|3$"], [0, 0, 1, 1],
            [[1, 1, 1, 0, 0, 1, 1], [0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1, 1]],
        ),
        (
            "abc|9$", ["abc[|=]0$", "abc[|=]1$", "abc|2$", "abc|3$"], [0, 0, 1, 1],
            [[1, 1, 1, 0, 0, 1, 1], [0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1]],
        ),
    ],
)  # fmt: skip
def test_a_thought_that_ends_before_a_budget_keeps_its_end(chain, shown_rows, segments, masks):
    rows = rows_of(SAMPLER, Fake([chain], ["0$", "1$", "2$", "3$"]), limit=20, group_size=4)
    assert [shown(row) for row in rows] == shown_rows
    assert [row.parts["segment"] for row in rows] == segments
    assert [loss_mask(row) for row in rows] == masks


def test_a_completion_that_ends_inside_its_thought_stands_in_all_its_rows_and_is_trained_once():
    rows = rows_of(SAMPLER, Fake(["ab$"]), limit=20, group_size=4)
    assert [shown(row) for row in rows] == ["ab$"] * 4
    assert [loss_mask(row) for row in rows] == [[1, 1, 1], *[[0, 0, 0]] * 3]


def test_the_largest_budget_is_four_fifths_of_the_limit():
    sampler = BudgetedSummaries(S=2, A=1)
    rows = rows_of(sampler, Fake(["abcdefghij"], ["012345678", "012345678"]), limit=10, group_size=2)
    assert [shown(row) for row in rows] == ["abcd[|]012345", "abcdefgh[|]01"]


@pytest.mark.parametrize(
    ("sampler", "vocabulary", "message"),
    [
        (SAMPLER, NO_TAG, "no single token"),
        (BudgetedSummaries(), VOCABULARY, r"num_generations=8 is no multiple of S \* A = 16"),
        (BudgetedSummaries(S=2, A=2, thinking=20), VOCABULARY, "2 budgets and an answer do not fit"),
        (BudgetedSummaries(S=8, A=1), VOCABULARY, ""),
    ],
)
def test_what_does_not_fit_is_refused_at_start(sampler, vocabulary, message):
    if not message:
        sampler.check(vocabulary, group_size=8, limit=20)
        return
    with pytest.raises(UserError, match=message):
        sampler.check(vocabulary, group_size=8, limit=20)


@pytest.mark.parametrize("fields", [{"S": 0}, {"A": 0}, {"thinking": 3}])
def test_bad_fields_are_refused(fields):
    with pytest.raises(UserError, match="BudgetedSummaries"):
        BudgetedSummaries(**fields)
