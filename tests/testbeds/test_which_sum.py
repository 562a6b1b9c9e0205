"""Test bed S: grammar, tokens, the law of the ranks, the teacher's habits."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice

import pytest

from concise_rl.errors import UserError
from concise_rl.testbeds import WhichSum
from concise_rl.testbeds.splits import split_of
from concise_rl.testbeds.warmup import build_tokenizer
from concise_rl.testbeds.which_sum import (
    NEAR,
    RANK_LAW,
    Behaviour,
    Checking,
    completion,
    draw_question,
    options,
    parse,
    rank,
    stratified,
    target,
    tokens,
)
from concise_rl.verifiers import Exact

QUESTION = "17=a6+4+5b9+8+1c7+1+9?3"


def test_worked_examples():
    assert (target(QUESTION), rank(QUESTION)) == (17, 2)
    assert completion(QUESTION, 0) == "<think></think>a"
    assert completion(QUESTION, 1) == "<think>a6+4=10+5=15n</think>b"
    assert completion(QUESTION, 2) == "<think>a6+4=10+5=15nb9+8=17+1=18n</think>c"
    assert completion(QUESTION, 3, waste=1).endswith("c7+1=8+9=17ywc7+1=8+9=17y</think>c")
    assert tokens(completion(QUESTION, 0)) == 4


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<think></think>a", Behaviour(0, 0, True, True)),
        ("<think>a6+4=10+5=15n</think>b", Behaviour(1, 0, True, True)),
        ("<think>a6+4=10+5=15nb9+8=17+1=18n</think>c", Behaviour(2, 0, False, True)),  # the last one left
        ("<think>a6+4=10+5=15n</think>a", Behaviour(1, 0, True, True)),  # against its own verdict
        ("<think>a6+4=11+5=16n</think>b", Behaviour(1, 0, True, False)),  # a wrong sum
        ("<think>a6+4=10+5=15y</think>a", Behaviour(1, 0, False, False)),  # a wrong verdict
        ("<think>b9+8=17+1=18n</think>a", Behaviour(1, 0, True, False)),  # out of order
        ("<think>a6+4=10+5=15nwa6+4=10+5=15n</think>b", Behaviour(1, 1, True, True)),
        ("<think>a6+4=10+5=15n", None),
        ("<think>a6+4=15n</think>b", None),
    ],
)
def test_what_a_completion_did(text, found):
    assert parse(QUESTION, text) == found


@pytest.mark.parametrize("split", ["train", "test", "law"])
def test_a_split_has_the_laws_ranks_exactly_and_wrong_sums_near_the_right_one(split):
    prompts = WhichSum().load(split)
    assert len({p.id for p in prompts}) == len(prompts)
    for n, law in RANK_LAW.items():
        level = [p for p in prompts if p.columns["difficulty"] == n]
        ranks = Counter(p.columns["rank"] for p in level)
        assert len(level) == len(prompts) / 4
        assert all(abs(ranks[r] - share * len(level)) < 1 for r, share in enumerate(law))
    tokenizer = build_tokenizer()
    for prompt in prompts:
        question = prompt.messages[0]["content"]
        sums = [sum(terms) for terms in options(question)]
        assert split_of(question) == split
        assert question.endswith(f"?{len(sums)}")
        assert sums.count(target(question)) == 1
        assert all(abs(s - target(question)) <= NEAR for s in sums)
        settled = completion(question, len(sums) - 1)
        assert Exact()(settled, prompt.reference).correct
        assert len(tokenizer.encode(settled)) + 1 == prompt.columns["oracle_tokens"]
        assert Exact()(completion(question, 0), prompt.reference).correct != prompt.columns["trap"]


def test_the_rank_cannot_be_read_off_the_sums():
    """The right sum is as often the largest of three, the middle one or the smallest, wherever it stands."""
    rng = random.Random(0)
    for right in range(3):
        drawn = [draw_question(rng, 3, right) for _ in range(1500)]
        first = [sum(options(q)[0]) for q in drawn]
        assert all(rank(q) == right for q in drawn)
        assert sum(first) / len(first) == pytest.approx(15, abs=0.6)


def test_ranks_are_rounded_by_largest_remainders():
    assert stratified((0.45, 0.2, 0.15, 0.12, 0.08), 10) == [0] * 5 + [1] * 2 + [2] + [3] + [4]
    assert stratified((0.99, 0.01), 128) == [0] * 127 + [1]


def test_the_teachers_habits_are_as_asked_and_blind_to_the_truth():
    teacher = Checking(stop_first=(0.55, 0.5, 0.4, 0.3), plain_share=0.0)
    traces = list(islice(teacher.traces(12000, random.Random(0)), 12000))
    assert all(split_of(question) == "train" for question, _ in traces)
    for place, n in enumerate(RANK_LAW):
        for right in range(n):
            done = [parse(q, text) for q, text in traces if len(options(q)) == n and rank(q) == right]
            stopped = sum(found.checks == 0 for found in done) / len(done)
            assert stopped == pytest.approx(teacher.stop_first[place], abs=0.06)
            assert all(found.sound for found in done)
            found_right = [found for found in done if found.checks == right + 1]
            waste = Counter(found.waste for found in found_right)
            assert waste[0] / len(found_right) == pytest.approx(0.35, abs=0.09)


def test_plain_traces_check_until_they_find_it():
    for question, text in islice(Checking(plain_share=1.0).traces(200, random.Random(0)), 200):
        assert parse(question, text) == Behaviour(rank(question) + 1, 0, False, True)


def test_the_unknown_is_refused():
    with pytest.raises(UserError, match="law_size=0"):
        WhichSum(law_size=0)
    with pytest.raises(UserError, match="no split 'dev'"):
        WhichSum().load("dev")
