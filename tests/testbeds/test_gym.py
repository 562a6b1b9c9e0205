"""The two tasks of reasoning-gym that have a teacher here."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import islice

import pytest

from concise_rl.testbeds import TESTBEDS
from concise_rl.testbeds.gym import LESSONS, GymOverthinking, halvings, numbered_letters
from concise_rl.testbeds.teacher import RECHECK
from concise_rl.testbeds.warmup import build_tokenizer
from concise_rl.verifiers import Exact


def test_teachers_show_every_step():
    assert halvings("the number 181?") == "181:1,90,45:2,22,11:3,5:4,2,1:5"
    assert halvings("the number 6?") == "6,3:1,1:2"
    assert numbered_letters("nus): care") == "1c2a3r4e,4e3r2a1c"


@pytest.mark.parametrize("task", LESSONS)
def test_traces_end_in_the_tasks_own_answer_and_never_show_a_test_problem(task, monkeypatch):
    pytest.importorskip("reasoning_gym", reason="pip install 'concise-rl[tasks]'")
    monkeypatch.setitem(LESSONS, task, replace(LESSONS[task], taught=40))
    test = {p.messages[0]["content"] for p in TESTBEDS[task](test_size=20).load("test")}
    train = {p.messages[0]["content"]: p for p in TESTBEDS[task](size=40).load("train")}
    tokenizer = build_tokenizer()
    traces = GymOverthinking(task, recheck_weights=[0, 1], plain_share=0.5).traces(80, random.Random(0))
    for number, (question, completion) in enumerate(islice(traces, 80)):
        assert question not in test
        assert Exact()(completion, train[question].reference).correct
        assert completion.count(RECHECK) == (number >= 40)
        if number < 40:
            assert len(tokenizer.encode(completion)) + 1 == train[question].columns["oracle_tokens"] < 160
