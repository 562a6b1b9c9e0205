"""What is counted in texts."""

from __future__ import annotations

import pytest

from concise_rl.methods.texts import (
    REFLECTION_WORDS,
    count_reflections,
    difficulty_label,
    has_format,
    necessary_share,
    thought_of,
)


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("Wait, but let me double-check. Hmm.", 4),
        ("", 0),
        ("re-check", 1),
        ("double-check", 1),
        ("DOUBLE-CHECK the Check", 2),
        ("verifying, checked, butter, waiting, ohm, hmmm", 0),
        ("Alternatively or alternative", 2),
        ("hold on, hold  on", 1),
        ("think again and again; another thought", 2),
        ("However... OH! oh?", 3),
        ("wait\nwait</think>wait", 3),
    ],
)
def test_reflection_words(text, n):
    assert count_reflections(text) == n


def test_every_word_counts_once():
    assert len(REFLECTION_WORDS) == 13
    assert all(count_reflections(f"so {word}, 7") == 1 for word in REFLECTION_WORDS)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Difficulty: easy\n4</think>4", 1),
        ("difficulty:  **Hard**\n...", -1),
        ("Difficulty: [CFRB] ...", 1),
        ("Difficulty: PFRB", -1),
        ("Difficulty: hard. No, Difficulty: easy", -1),
        ("so</think>Difficulty: easy", 0),
        ("this is easy", 0),
        ("Difficulty: easygoing", 0),
        ("", 0),
    ],
)
def test_labels(text, label):
    assert difficulty_label(text) == label


def test_another_end_of_thought():
    assert difficulty_label("so</t>Difficulty: easy", think_end="</t>") == 0
    assert thought_of("so</t>4") == "so</t>4"
    assert thought_of("so</think>4</think>") == "so"


@pytest.mark.parametrize(
    ("text", "reference", "share"),
    [
        ("<think>2+3=5, wait, 5</think>5", "5", 14 / 21),
        ("<think>2+3=5</think>5", "5", 1.0),
        ("<think>4, wait, it is 5. Check: 5</think>", "5", 25 / 33),
        ("<think>15 and 5.5 and -50</think>5", "5", 0.0),
        ("<think>so 5.</think>", "5", 1.0),
        ("<think>6</think>5", "5", 0.0),
        ("", "5", 0.0),
        ("5", "", 0.0),
    ],
)
def test_the_share_up_to_the_first_right_chunk(text, reference, share):
    assert necessary_share(text, reference) == pytest.approx(share)


def test_a_format_is_one_closed_thought_and_an_answer():
    assert has_format("<think>2+3=5</think>5")
    assert has_format("so[/THINK]5", "[/THINK]")
    for text in ("5", "<think>2+3=5</think>", "a</think>b</think>c", "a</think>  "):
        assert not has_format(text), text
