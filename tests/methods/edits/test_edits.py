"""What edits write: words behind the question, columns beside it, and never another content key."""

from __future__ import annotations

import random
import re

import pytest

from concise_rl.data import Prompt
from concise_rl.errors import UserError
from concise_rl.methods import BudgetPrompt, PromptEffort, SelfLabel
from concise_rl.methods.texts import difficulty_label

PROMPT = Prompt("key", ({"role": "user", "content": "before"}, {"role": "assistant", "content": "yes"},
                        {"role": "user", "content": "2+2?"}), "4", {"level": 3})  # fmt: skip


def edited(edit, seed: int = 0) -> Prompt:
    after = edit(PROMPT, random.Random(seed))
    assert (after.id, after.reference, after.messages[:2]) == (PROMPT.id, PROMPT.reference, PROMPT.messages[:2])
    assert after.columns["level"] == 3
    assert PROMPT.messages[2] == {"role": "user", "content": "2+2?"}, "the prompt handed in is not the edit's to change"
    return after


def test_a_budget_is_shown_rounded():
    assert edited(BudgetPrompt(budget=125.44)).messages[2]["content"] == "2+2?\n\nUse exactly 125 tokens."
    assert edited(BudgetPrompt(template=" {n}!")).messages[2]["content"] == "2+2? 256!"


@pytest.mark.parametrize("fields", [{"budget": 0.0}, {"budget": float("nan")}, {"template": "no number"}])
def test_bad_budgets_are_refused(fields):
    (name,) = fields
    with pytest.raises(UserError, match=rf"BudgetPrompt\.{name}="):
        BudgetPrompt(**fields)


@pytest.mark.parametrize(
    ("level", "words", "low"),
    [
        ("low", "\n\n{reasoning effort: low}", True),
        ("medium", "\n\n{reasoning effort: efficient}", False),
        ("high", "", False),
    ],
)
def test_effort_levels(level, words, low):
    after = edited(PromptEffort(level=level, share=1.0))
    assert after.messages[2]["content"] == "2+2?" + words
    assert after.columns["low_effort"] is low


def test_a_share_of_the_prompts_asks_for_little_effort():
    drawn = [edited(PromptEffort(share=0.3), seed) for seed in range(400)]
    assert 0.2 < sum(p.columns["low_effort"] for p in drawn) / 400 < 0.4
    for p in drawn:
        assert p.columns["low_effort"] == p.messages[2]["content"].endswith("{reasoning effort: low}")
    assert not edited(PromptEffort(share=0.0)).columns["low_effort"]
    with pytest.raises(UserError, match=r"PromptEffort\.share=1\.5"):
        PromptEffort(share=1.5)
    with pytest.raises(UserError, match="choose one of low, medium, high"):
        PromptEffort(level="max")


def test_the_label_that_is_asked_for_is_the_one_that_is_read():
    words = edited(SelfLabel()).messages[2]["content"]
    asked = re.findall("`(.*?)`", words)
    assert [difficulty_label(line) for line in asked] == [1, -1]
