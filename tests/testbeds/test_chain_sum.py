"""The embedded task: its split, its oracle and its balance."""

from __future__ import annotations

import re
from collections import Counter
from itertools import accumulate

import pytest

from concise_rl.errors import DataError, UserError
from concise_rl.testbeds import ChainSum
from concise_rl.testbeds.chain_sum import answer, operands, oracle_completion, oracle_tokens, running_sum
from concise_rl.verifiers import Exact


def question_of(prompt):
    return prompt.messages[-1]["content"]


def test_worked_example():
    question = "7a+4b-3c+9="
    assert operands(question) == [7, 4, -3, 9]
    assert running_sum(question) == "7a+4=11b-3=8c+9=17"
    assert answer(question) == "17"
    assert oracle_completion(question) == "<think>7a+4=11b-3=8c+9=17</think>17"
    assert oracle_tokens(question) == len("7a+4=11b-3=8c+9=17") + len("17") + 3  # two tags and EOS


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_is_distinct_balanced_and_its_oracle_is_right(split):
    prompts = ChainSum(train_size=512).load(split)
    assert len(prompts) == 512
    assert len({p.id for p in prompts}) == 512
    difficulties = Counter(p.columns["difficulty"] for p in prompts)
    assert sorted(difficulties) == [2, 3, 4, 5, 6]
    assert difficulties.pop(2) >= 40  # all that there are
    assert max(difficulties.values()) - min(difficulties.values()) <= 1
    for prompt in prompts:
        question = question_of(prompt)
        assert all(total >= 0 for total in accumulate(operands(question)))
        sizes = [abs(term) for term in operands(question)]
        assert len(set(sizes)) == len(sizes)
        assert set(sizes) <= set(range(1, 10))
        assert int(prompt.reference) == eval(re.sub("[a-z=]", "", question))
        assert Exact()(oracle_completion(question), prompt.reference).correct


def test_train_and_test_are_disjoint_for_any_sizes_and_seeds():
    train = {question_of(p) for seed in range(4) for p in ChainSum(train_size=700, seed=seed).load("train")}
    test = {question_of(p) for seed in range(4) for p in ChainSum(test_size=550, seed=seed).load("test")}
    assert len(train) > 1500
    assert not train & test


def test_the_same_fields_give_the_same_problems_and_the_seed_others():
    assert ChainSum(seed=3).load("train") == ChainSum(seed=3).load("train")
    assert {p.id for p in ChainSum(seed=3).load("train")} != {p.id for p in ChainSum(seed=4).load("train")}


def test_an_unclosed_think_is_wrong_though_its_last_number_is_right():
    prompt = ChainSum().load("test")[0]
    unclosed = oracle_completion(question_of(prompt)).partition("</think>")[0]
    assert unclosed.endswith(prompt.reference)
    assert not Exact()(unclosed, prompt.reference).correct


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train_size": 0}, "train_size=0"),
        ({"test_size": -1}, "test_size=-1"),
        ({"max_operand": 5}, "max_operand=5 must be at least max_operands=6"),
        ({"min_operands": 1}, "min_operands=1"),
        ({"min_operands": 5, "max_operands": 4}, "max_operands=4"),
    ],
)
def test_bad_fields_are_refused_by_name(fields, message):
    with pytest.raises(UserError, match=message):
        ChainSum(**fields)


def test_difficulties_take_turns_where_there_is_enough_of_each():
    difficulties = [p.columns["difficulty"] for p in ChainSum(test_size=12).load("test")]
    assert difficulties == [2, 3, 4, 5, 6, 2, 3, 4, 5, 6, 2, 3]


def test_more_problems_than_exist_are_refused():
    with pytest.raises(DataError, match=r"train_size=500: only \d+ distinct problems exist"):
        ChainSum(train_size=500, max_operands=3, max_operand=3).load("train")


def test_an_unknown_split_is_refused():
    with pytest.raises(UserError, match="no split 'validation'"):
        ChainSum().load("validation")
