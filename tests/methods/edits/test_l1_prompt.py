"""L1's prompt: what is asked, and that nothing but the generator handed in decides it."""

from __future__ import annotations

import random

import pytest

from concise_rl.data.base import Prompt
from concise_rl.errors import DataError, UserError
from concise_rl.methods.edits.l1_prompt import L1Prompt

QUESTION = Prompt.of("What is 3 + 4?", "7", difficulty=2)


@pytest.mark.parametrize(
    ("kind", "text"),
    [("exact", "What is 3 + 4? Think for 300 tokens."), ("max", "What is 3 + 4? Think for maximum 300 tokens.")],
)
def test_the_budget_stands_in_the_question_and_in_its_column(kind, text):
    edited = L1Prompt(kind=kind, low=300, high=300)(QUESTION, random.Random(0))
    assert edited.messages == ({"role": "user", "content": text},)
    assert edited.columns == {"difficulty": 2, "num_tokens": 300}
    assert (edited.id, edited.reference) == (QUESTION.id, QUESTION.reference)
    assert QUESTION.messages[0]["content"] == "What is 3 + 4?"
    assert "num_tokens" not in QUESTION.columns


def test_earlier_turns_stay_as_they_are():
    turns = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}, *QUESTION.messages)
    edited = L1Prompt(low=9, high=9)(Prompt("id", turns, "7"), random.Random(0))
    assert edited.messages[:2] == turns[:2]
    assert edited.messages[2]["content"].endswith("Think for 9 tokens.")


def test_both_ends_can_be_drawn_and_the_seed_decides():
    def drawn(seed: int) -> int:
        return L1Prompt(low=100, high=103)(QUESTION, random.Random(seed)).columns["num_tokens"]

    assert {drawn(seed) for seed in range(60)} == {100, 101, 102, 103}
    assert [drawn(seed) for seed in range(20)] == [drawn(seed) for seed in range(20)]
    wide = [L1Prompt()(QUESTION, random.Random(seed)).columns["num_tokens"] for seed in range(300)]
    assert 100 <= min(wide) < 200
    assert 3900 < max(wide) <= 4000


def test_a_budget_that_the_data_has_is_kept():
    rng = random.Random(0)
    own = L1Prompt()(Prompt.of("q", "7", num_tokens=0), rng)
    assert own.messages[0]["content"] == "q Think for 0 tokens."
    none = Prompt.of("q", "7", num_tokens=None)
    assert L1Prompt()(none, rng) == none
    assert rng.random() == random.Random(0).random(), "nothing was drawn"
    with pytest.raises(DataError, match="num_tokens"):
        L1Prompt()(Prompt.of("q", "7", num_tokens=-1), rng)


@pytest.mark.parametrize("fields", [{"low": -1}, {"low": 200, "high": 100}, {"kind": "about"}])
def test_bad_fields_are_refused(fields):
    with pytest.raises(UserError, match=r"L1Prompt\.(low|kind)="):
        L1Prompt(**fields)
