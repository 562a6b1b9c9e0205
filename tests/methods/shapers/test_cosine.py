"""The cosine length reward at the released script's values, and its repetition measure."""

from __future__ import annotations

import random

import pytest
from omegaconf import OmegaConf

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods import Cosine
from concise_rl.methods.repetition import repetition_fraction

SCRIPT = {"correct": (1.0, 2.0), "wrong": (-10.0, 0.0), "max_length": 14336, "exceed": -10.0}
LENGTHS = [0, 3584, 7168, 10752, 14319, 14320, 14336, 20000]
RIGHT = [2.0, 1.8535534, 1.5, 1.1464466, 1.0000035, -10.0, -10.0, -10.0]
WRONG = [-10.0, -8.535534, -5.0, -1.4644661, -3.46961e-5, -10.0, -10.0, -10.0]


def rewards(shaper: Cosine, lengths: list[int], correct: list[bool], **others) -> list[float]:
    batch = RolloutBatch.of(prompt_keys=["q"], group_size=len(lengths), lengths=lengths, correct=correct, **others)
    return shaper.apply(batch, batch.task_reward).value.tolist()


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_the_released_values(variant):
    shaper = Cosine(**SCRIPT, variant=variant)
    assert rewards(shaper, LENGTHS, [True] * 8) == pytest.approx(RIGHT, rel=1e-6)
    assert rewards(shaper, LENGTHS, [False] * 8) == pytest.approx(WRONG, rel=2e-5)


def test_right_falls_wrong_rises_and_short_is_the_bolder_bet():
    shaper = Cosine(max_length=100, margin=0)
    right, wrong = (rewards(shaper, list(range(100)), [verdict] * 100) for verdict in (True, False))
    assert right == sorted(right, reverse=True)
    assert wrong == sorted(wrong)
    assert rewards(shaper, [100], [True]) == [-10]


def test_other_bounds_and_margin():
    shaper = Cosine(correct=(5.0, 6.0), wrong=(-1.0, -0.5), max_length=64, exceed=0.0, margin=4)
    assert rewards(shaper, [0, 32, 59, 60], [True] * 4)[1:2] == pytest.approx([5.5])
    assert rewards(shaper, [0, 32, 60], [False] * 3) == pytest.approx([-1.0, -0.75, 0.0])


def test_who_pays_for_repetition():
    lengths, correct = [32, 32, 64], [True, False, False]
    parts = {"repetition": [0.5, 0.25, 1.0]}
    common = {"correct": (0.0, 1.0), "wrong": (-1.0, 0.0), "max_length": 64, "exceed": -2.0, "repetition_weight": 0.4}
    assert rewards(Cosine(**common), lengths, correct, parts=parts) == pytest.approx([0.3, -0.6, -2.4])
    assert rewards(Cosine(**common, variant="code"), lengths, correct, parts=parts) == pytest.approx([0.5, -0.6, -2.0])


def test_repetition_is_needed_only_when_it_is_weighed():
    assert Cosine(max_length=64).needs == frozenset()
    shaper = Cosine(max_length=64, repetition_weight=0.1)
    assert shaper.needs == {"parts.repetition"}
    with pytest.raises(UserError, match="repetition_fraction"):
        rewards(shaper, [3], [True])


def test_rows_without_a_verdict_keep_what_they_came_with():
    assert rewards(Cosine(max_length=64), [64, 64], [True, False], scorable=[False, True], task_reward=[3, 3]) == [
        3,
        -10,
    ]


def test_from_omegaconf():
    node = OmegaConf.merge(OmegaConf.structured(Cosine), {"max_length": 64, "correct": [9, 10], "variant": "code"})
    assert OmegaConf.to_object(node) == Cosine(max_length=64, correct=(9.0, 10.0), variant="code")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("wrong", (-1.0, 0.5)),
        ("correct", (2.0, 1.0)),
        ("correct", (1.0,)),
        ("margin", 64),
        ("margin", -1),
        ("exceed", float("nan")),
        ("repetition_weight", -0.05),
        ("repetition_ngram", 0),
    ],
)
def test_bad_fields_are_refused(field, value):
    with pytest.raises(UserError, match=f"Cosine.{field}="):
        Cosine(**{"max_length": 64, field: value})


def test_repetition_by_hand():
    assert repetition_fraction([1, 2, 3, 1, 2, 3], 3) == 0.5
    assert repetition_fraction([7, 7, 7, 7], 2) == 0.75
    assert repetition_fraction([1, 2, 1, 2, 1, 2, 9, 1, 2], 2) == 6 / 9
    assert repetition_fraction([0, 0, 0], 3) == 0
    assert repetition_fraction([0, 0], 3) == 0
    assert repetition_fraction([], 1) == 0
    with pytest.raises(UserError, match="repetition_ngram=0"):
        repetition_fraction([1], 0)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_repetition_equals_marking_tokens_one_by_one(n):
    chooser = random.Random(n)
    for _ in range(200):
        tokens = [chooser.randrange(chooser.choice([2, 4, 50_000])) for _ in range(chooser.randrange(1, 40))]
        marked, seen = [False] * len(tokens), []
        for start in range(len(tokens) - n + 1):
            window = tokens[start : start + n]
            if window in seen:
                marked[start : start + n] = [True] * n
            seen.append(window)
        assert repetition_fraction(tokens, n) == sum(marked) / len(tokens)
