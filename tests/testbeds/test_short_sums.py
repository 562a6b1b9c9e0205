"""Short sums in words."""

from __future__ import annotations

import re

import pytest

from concise_rl.commands.config import compose, to_object
from concise_rl.errors import DataError, UserError
from concise_rl.testbeds import ShortSums
from concise_rl.verifiers import FinalNumber


def asked(source: ShortSums, split: str) -> list[frozenset[int]]:
    return [frozenset(map(int, re.findall(r"\d+", p.messages[0]["content"]))) for p in source.load(split)]


def test_no_sum_is_trained_in_one_order_and_tested_in_the_other():
    source = ShortSums(max_operand=20, train_size=150, test_size=150)
    again = ShortSums(max_operand=20, train_size=150, test_size=150, seed=5)
    assert source.load("train") == ShortSums(max_operand=20, train_size=150).load("train") != again.load("train")
    train, test = (set(asked(source, split) + asked(again, split)) for split in ("train", "test"))
    assert not train & test
    assert len({p.id for p in source.load("test")}) == 150


def test_a_sentence_with_the_sum_is_right_and_its_digits_are_the_difficulty():
    for prompt in ShortSums().load("test"):
        a, b = map(int, re.findall(r"\d+", prompt.messages[0]["content"]))
        assert prompt.columns["difficulty"] == (1 if a + b < 10 else 2)
        assert FinalNumber()(f"To add {a} and {b}, you add them: {a} + {b} = {a + b}.", prompt.reference).correct
        assert not FinalNumber()(f"{a} + {b} = {a + b + 1}.", prompt.reference).correct


def test_what_cannot_be_made_is_refused_with_its_remedy():
    with pytest.raises(DataError, match=r"train_size=200: only \d+ distinct problems exist; lower it, or raise"):
        ShortSums(train_size=200).load("train")
    with pytest.raises(UserError, match="no split 'validation'"):
        ShortSums().load("validation")
    with pytest.raises(UserError, match="max_operand=0"):
        ShortSums(max_operand=0)


def test_the_recipe_trains_smollm2_on_them():
    config = compose(["model=smollm2_135m", "data=sums_in_words", "method=hapo"])
    assert isinstance(to_object(config.data, "data"), ShortSums)
    assert config.evaluation.temperature == config.trainer.temperature == 0.8
    assert config.evaluation.max_new_tokens == config.trainer.max_completion_length
