"""No text makes a verifier raise, and no text makes a hostile-input-safe one slow."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concise_rl.verifiers import VERIFIERS, MathAnswer, Olympiad, Verdict

SAFE = [cls() for cls in VERIFIERS.values() if cls.hostile_input_safe]
GOLD = {
    "FinalNumber": "7",
    "Choice": "B",
    "Exact": "B",
    "Includes": "B",
    "JsonAction": '{"type": "click", "name": "buy now"}',
}

PIECES = [r"\boxed{", r"\text{", r"\frac", "####", "answer:", "</think>", *'{}()[]$%.,-/^_:x=57B \n"']
TEXTS = st.text() | st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@settings(deadline=None)
@given(completion=TEXTS, reference=TEXTS)
def test_any_text_gets_a_verdict(completion, reference):
    for verifier in SAFE:
        for wanted in (reference, GOLD[type(verifier).__name__]):
            verdict = verifier(completion, wanted)
            assert isinstance(verdict, Verdict)
            assert verdict.scorable or not verdict.correct
        wrapped = verifier(verifier.wrap_reference(reference), reference)
        assert wrapped.correct or not wrapped.scorable or "</think>" in reference


@pytest.mark.parametrize("verifier", [MathAnswer(), Olympiad()], ids=lambda verifier: type(verifier).__name__)
@settings(deadline=None, max_examples=10)
@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), max_size=20))
def test_any_text_gets_a_verdict_from_a_worker(verifier, pairs):
    verdicts = verifier.verify_many(pairs, deadline_seconds=2)
    assert len(verdicts) == len(pairs)
    assert not [v.reason for v in verdicts if v.reason.startswith("verifier raised")]


MEGABYTE = 10**6
UNITS = [
    "1",
    "1,",
    "1,234",
    "(",
    "[",
    "-$ ",
    "1/",
    "answer:",
    " ",
    "A ",
    r"\boxed{",
    r"\boxed(((",
    '{"a":',
    "####",
    "1e",
]


@pytest.mark.parametrize("verifier", SAFE, ids=lambda verifier: type(verifier).__name__)
def test_a_megabyte_of_anything_is_read_in_linear_time(verifier):
    gold = GOLD[type(verifier).__name__]
    for unit in UNITS:
        started = time.process_time()
        verifier(unit * (MEGABYTE // len(unit)), gold)
        assert time.process_time() - started < 4, unit
