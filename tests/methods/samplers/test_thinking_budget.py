"""Thinking budgets: who is closed, where, and what of it counts and trains."""

from __future__ import annotations

import pytest

from concise_rl.engine.rows import loss_mask
from concise_rl.errors import UserError
from concise_rl.methods import load_method
from concise_rl.methods.samplers.thinking_budget import ThinkingBudget
from concise_rl.rollouts import Finish

from .fake import NO_TAG, VOCABULARY, Fake, ids, rows_of, shown


def test_only_thoughts_that_are_open_at_the_budget_are_closed():
    fake = Fake(
        ["thinking", "th|7$", "th|is it", "end$"],  # at most 4 tokens of each
        ["A7$", "$", "s it9$"],  # the last row has ended
    )
    rows = rows_of(ThinkingBudget(budget=4, answer_start=" A:"), fake, limit=10, group_size=4)
    assert [shown(row) for row in rows] == ["thin[| A:]A7$", "th|7$", "th|is it9$", "end$"]
    assert [row.finish for row in rows] == [Finish.budget, None, None, None]
    assert [row.length for row in rows] == [7, 5, 10, 4]
    assert {row.limit for row in rows} == {10}
    assert [len(wave) for wave in fake.asked] == [4, 3]
    assert {request.limit for request in fake.asked[0]} == {4}
    assert fake.asked[1][0].start == ids("thin| A:")


def test_forced_tokens_are_no_length_and_not_trained():
    fake = Fake(["abcdef"], ["xy$"], logprobs=True)
    (row,) = rows_of(ThinkingBudget(budget=3, words="Stop."), fake, limit=6, group_size=1)
    assert shown(row) == "abc[Stop.|]xy$"
    assert loss_mask(row) == [1, 1, 1, *[0] * 6, 1, 1, 1]
    assert row.length == 6
    assert row.sampler_logprobs == tuple([-97.0, -98.0, -99.0] + [0.0] * 6 + [-120.0, -121.0, -36.0])


def test_the_answer_has_the_rest_of_the_limit():
    (row,) = rows_of(ThinkingBudget(budget=3), Fake(["abcdef"], ["0123456789"]), limit=5, group_size=1)
    assert shown(row) == "abc[|]01"
    assert row.length == row.limit == 5
    assert VOCABULARY.cut_off(row.token_ids)


def test_without_a_number_the_budget_is_half_of_the_rows_limit():
    (row,) = rows_of(ThinkingBudget(), Fake(["abcdef"], ["$"]), limit=9, group_size=1)
    assert shown(row) == "abcd[|]$"


def test_a_thought_that_meets_a_scheduled_limit_first_is_cut_off():
    (row,) = rows_of(ThinkingBudget(budget=30), Fake(["abcdef"]), limit=4, group_size=1)
    assert (shown(row), row.finish) == ("abcd", None)


@pytest.mark.parametrize(
    ("tail", "kept", "closed"),
    [
        ("so it is 7. Then", "so it is 7.", True),
        ("pi is 3.14 or", "pi is 3.14 or", True),  # no end of a sentence in it: the grace runs out
        ("one\ntwo", "one\n", True),
        ("what? No", "what?", True),
        ("da 是。后", "da 是。", True),
        ("a. b|9", "a.", True),
        ("ab|9. x", "ab|9. x", False),
        ("ab. $", "ab.", True),
        ("ab$", "ab$", False),
    ],
)
def test_soft_then_hard_waits_for_the_end_of_a_sentence(tail, kept, closed):
    sampler = ThinkingBudget(budget=2, mode="soft_then_hard", grace=13)
    rest = [] if kept.endswith("$") else [["!$"]]
    (row,) = rows_of(sampler, Fake(["hmhm"], [tail], *rest), limit=40, group_size=1)
    assert shown(row) == "hm" + kept + ("[|]!$" if closed else "!$" if rest else "")
    assert row.finish == (Finish.budget if closed else None)


def test_under_hard_nothing_waits():
    (row,) = rows_of(ThinkingBudget(budget=2, grace=13), Fake(["hmhm"], ["!$"]), limit=40, group_size=1)
    assert shown(row) == "hm[|]!$"


def test_all_rows_go_out_in_one_call_though_their_rooms_differ():
    sampler = ThinkingBudget(budget=2, mode="soft_then_hard", grace=4)
    fake = Fake(["hmhm", "hmhm"], ["a. b", "abcd"], ["0123456789", "0123456789"])
    rows = rows_of(sampler, fake, limit=8, group_size=2)
    assert {request.limit for request in fake.asked[2]} == {4}
    assert [shown(row) for row in rows] == ["hma.[|]0123", "hmabcd[|]01"]
    assert [row.length for row in rows] == [8, 8]


@pytest.mark.parametrize(
    ("fields", "vocabulary", "message"),
    [
        ({}, NO_TAG, "no single token '</think>': name the model's own tag with model.think_end"),
        ({"budget": 20}, VOCABULARY, "budget=20: a thought may take 20 of trainer.max_completion_length=20 tokens"),
        ({"budget": 10, "mode": "soft_then_hard", "grace": 10}, VOCABULARY, "budget=10, grace=10: a thought may take"),
    ],
)
def test_what_cannot_be_is_refused_at_start(fields, vocabulary, message):
    with pytest.raises(UserError, match=message):
        ThinkingBudget(**fields).check(vocabulary, group_size=4, limit=20)
    ThinkingBudget(budget=19).check(VOCABULARY, group_size=4, limit=20)


@pytest.mark.parametrize("fields", [{"budget": 0}, {"grace": 0}, {"mode": "never"}])
def test_bad_fields_are_refused(fields):
    (name,) = fields
    with pytest.raises(UserError, match=f"ThinkingBudget.{name}="):
        ThinkingBudget(**fields)


def test_the_recipe_takes_its_fields():
    assert load_method("thinking_budget", budget=60).sampler == ThinkingBudget(budget=60)
