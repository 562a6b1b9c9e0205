"""Word problems: their answers follow from their sentences, their sides never overlap."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from concise_rl.errors import UserError
from concise_rl.testbeds import WordProblems
from concise_rl.verifiers import VERIFIERS


def worked_out(question: str) -> int:
    """The answer, from the sentences alone."""
    first, *rest = question.split(". ")
    count = int(re.findall(r"\d+", first)[0])
    for sentence in rest[:-1]:
        numbers = [int(n) for n in re.findall(r"\d+", sentence)]
        if "more" in sentence:
            count += numbers[0]
        elif "gives" in sentence or "loses" in sentence:
            count -= numbers[0]
        elif "as many" in sentence:
            count *= {"twice": 2, "three": 3, "four": 4}[re.search(r"has (\w+)", sentence)[1]]
        else:
            assert count % numbers[0] == 0
            count //= numbers[0]
        assert count > 0
    return count


@pytest.mark.parametrize("split", ["train", "test"])
def test_answers_follow_from_the_sentences(split):
    prompts = WordProblems().load(split)
    assert len({p.id for p in prompts}) == len(prompts) == {"train": 512, "test": 256}[split]
    levels = Counter(p.columns["difficulty"] for p in prompts)
    assert max(levels.values()) - min(levels.values()) <= 1
    for prompt in prompts:
        question = prompt.messages[0]["content"]
        assert int(prompt.reference) == worked_out(question) <= 400
        assert len(question.split(". ")) == prompt.columns["difficulty"] + 2
        assert VERIFIERS["final_number"]()(f"So it is {prompt.reference}.", prompt.reference).correct


def test_every_kind_of_sentence_comes_up():
    told = " ".join(p.messages[0]["content"] for p in WordProblems().load("train"))
    for words in ("finds", "is given", "buys", "gives", "loses", "twice", "three times", "four times", "equal piles"):
        assert words in told


def test_sides_are_disjoint_and_seeds_differ():
    train = {p.messages[0]["content"] for seed in range(3) for p in WordProblems(seed=seed).load("train")}
    test = {p.messages[0]["content"] for seed in range(3) for p in WordProblems(seed=seed).load("test")}
    assert not train & test
    assert WordProblems(seed=1).load("test") == WordProblems(seed=1).load("test") != WordProblems().load("test")


def test_bad_fields_are_refused_by_name():
    with pytest.raises(UserError, match="min_operations=4"):
        WordProblems(min_operations=4)
    with pytest.raises(UserError, match="test_size=0"):
        WordProblems(test_size=0)
    with pytest.raises(UserError, match="no split 'law'"):
        WordProblems().load("law")
