"""The tag that ends the thinking is the model's."""

import pytest

from concise_rl.errors import UserError
from concise_rl.verifiers import VERIFIERS, verify_many
from concise_rl.verifiers.answer import answer_text, thinking_ends_with

ANSWERS = {"choice": ("Answer: B", "B"), "exact": ("5", "5"), "json_action": ('{"rationale": "", "action": %s}',) * 2}
TERMINATE = '{"type": "terminate"}'


@pytest.mark.parametrize("name", VERIFIERS)
def test_the_tag_that_is_named_ends_the_thinking(name):
    verifier = VERIFIERS[name]()
    said, reference = ANSWERS.get(name, ("The answer is 5", "5"))
    if name == "json_action":
        said, reference = said % TERMINATE, TERMINATE
    pairs = [(f"[THINK]7</think> 8[/THINK]{said}", reference), (f"[THINK]{said}[/THINK]nothing", reference)]
    assert [verdict.correct for verdict in verify_many(verifier, pairs, think_end="[/THINK]")] == [True, False]
    assert [verdict.correct for verdict in verifier.verify_many(pairs, think_end="[/THINK]")] == [True, False]
    (default,) = verify_many(verifier, [(f"<think>7</think>{said}", reference)])
    assert default.correct, "the tag of one call does not stay for the next"


def test_a_text_without_the_tag_is_all_answer():
    assert answer_text("a</think>b") == "b"
    assert answer_text("a</think>b", "[/THINK]") == "a</think>b"
    with thinking_ends_with("[/THINK]"):
        assert answer_text("a[/THINK]b") == "b"
    assert answer_text("a[/THINK]b") == "a[/THINK]b"


def test_an_empty_tag_is_refused():
    with pytest.raises(UserError, match="think_end"):
        verify_many(VERIFIERS["exact"](), [("5", "5")], think_end="")
