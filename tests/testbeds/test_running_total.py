"""Test bed M: grammar, tokens, splits, the teacher's habits."""

from __future__ import annotations

import random
import re
from collections import Counter
from itertools import islice

import pytest

from concise_rl.errors import DataError, UserError
from concise_rl.testbeds import RunningTotal
from concise_rl.testbeds.running_total import (
    Merging,
    Total,
    completion,
    compositions,
    draw_question,
    parse,
    tokens,
    totals,
)
from concise_rl.testbeds.splits import split_of
from concise_rl.testbeds.warmup import build_tokenizer
from concise_rl.verifiers import Exact

QUESTION = "7a+4b-3c+9d-5="


def test_worked_examples():
    assert totals(QUESTION) == [7, 11, 8, 17, 12]
    assert completion(QUESTION, (1, 1, 1, 1)) == "<think>a11b8c17</think>12"
    assert completion(QUESTION, (2, 2)) == "<think>b8</think>12"
    assert completion(QUESTION, (4,)) == "<think></think>12"
    assert tokens(QUESTION, (1, 1, 1, 1)) == 2 + len("a11b8c17") + len("12") + 1
    assert sorted(compositions(3)) == [(1, 1, 1), (1, 2), (2, 1), (3,)]
    with pytest.raises(ValueError, match="does not sum to the 4 operations"):
        completion(QUESTION, (2, 1))


def test_what_a_completion_states_comes_back_with_its_errors():
    assert parse(QUESTION, "<think>b9d12</think>12") is None  # the answer works in no operation
    assert parse(QUESTION, "<think>b8a11</think>12") is None
    assert parse(QUESTION, "<think>b8</think>12 ") is None
    assert parse(QUESTION, "<think>b8") is None
    assert parse(QUESTION, "<think>b9</think>12") == [Total(0, 2, 9, False), Total(2, 2, 12, True)]


def test_every_composition_is_right_parsed_and_counted_as_the_tokenizer_counts():
    rng, tokenizer = random.Random(0), build_tokenizer()
    for n in (1, 2, 5, 8):
        question = draw_question(rng, n)
        found = list(compositions(n))
        assert len(set(found)) == 2 ** (n - 1)
        for composition in found:
            text = completion(question, composition)
            stated = parse(question, text)
            assert stated is not None
            assert tuple(total.merged for total in stated) == composition
            assert all(total.right for total in stated)
            assert len(tokenizer.encode(text)) + 1 == tokens(question, composition)
            assert Exact()(text, str(totals(question)[-1])).correct


@pytest.mark.parametrize("split", ["train", "test", "law"])
def test_a_split_is_distinct_balanced_and_right(split):
    prompts = RunningTotal().load(split)
    assert len({p.id for p in prompts}) == len(prompts) == {"train": 256, "test": 512, "law": 1024}[split]
    assert Counter(p.columns["difficulty"] for p in prompts) == dict.fromkeys((2, 4, 6, 8), len(prompts) / 4)
    for prompt in prompts:
        question = prompt.messages[0]["content"]
        assert split_of(question) == split
        assert all(0 <= total <= 30 for total in totals(question))
        assert all(1 <= abs(int(term)) <= 9 for term in re.findall(r"[+-]?\d+", question))
        assert int(prompt.reference) == eval(re.sub("[a-z=]", "", question))
        n = prompt.columns["difficulty"]
        assert prompt.columns["hard"] == (n >= 6)
        assert prompt.columns["oracle_tokens"] == tokens(question, (1,) * n) > prompt.columns["least_tokens"]


def test_splits_are_disjoint_for_any_sizes_and_seeds():
    sides = {
        split: {p.messages[0]["content"] for seed in range(3) for p in RunningTotal(seed=seed).load(split)}
        for split in ("train", "test", "law")
    }
    assert not sides["train"] & sides["test"]
    assert not sides["law"] & (sides["train"] | sides["test"])
    assert RunningTotal(seed=3).load("test") == RunningTotal(seed=3).load("test") != RunningTotal(seed=4).load("test")


def test_too_much_and_the_unknown_are_refused():
    with pytest.raises(DataError, match=r"level 1: only \d+ of 2000 distinct test"):
        RunningTotal(levels=[1], test_size=2000).load("test")
    for fields, message in (
        ({"levels": [4, 2]}, "rising"),
        ({"test_size": 0}, "test_size=0"),
        ({"levels": [27]}, "26"),
    ):
        with pytest.raises(UserError, match=message):
            RunningTotal(**fields)
    with pytest.raises(UserError, match="no split 'dev'"):
        RunningTotal().load("dev")


def test_the_teacher_merges_as_often_as_asked_and_never_shows_another_side():
    teacher = Merging(levels=(8,), jump_weights=(0.5, 0.38, 0.12), plain_share=0.5)
    traces = list(islice(teacher.traces(4000, random.Random(0)), 4000))
    stated = [parse(question, text) for question, text in traces]
    assert all(split_of(question) == "train" for question, _ in traces)
    assert all(total.right for found in stated for total in found)
    assert all(total.merged == 1 for found in stated[:2000] for total in found)
    # Totals that have three or more operations left draw all three jumps.
    jumps = Counter(total.merged for found in stated[2000:] for total in found if total.start <= 5)
    shares = {jump: count / jumps.total() for jump, count in jumps.items()}
    assert shares == pytest.approx({1: 0.5, 2: 0.38, 3: 0.12}, abs=0.02)
