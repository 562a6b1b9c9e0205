"""ARLCP by hand, and against its formula written anew for one group."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from concise_rl.methods.recipes import load_method
from concise_rl.methods.shapers.arlcp import Arlcp
from tests.methods.one_group import CORRECT, LENGTHS, one_group, values


def test_by_hand():
    batch = one_group(LENGTHS, CORRECT, parts={"reflections": [5, 45, 3, 90]})
    assert values(Arlcp(), batch) == pytest.approx([0.9442, 0.9037, 0, 0.8527], abs=5e-5)
    other = one_group([2000, 4000, 9000, 6000], [1, 1, 1, 0], parts={"reflections": [10, 30, 90, 60]})
    assert values(Arlcp(), other) == pytest.approx([0.9390, 0.9143, 0.8493, 0], abs=5e-5)


@pytest.mark.parametrize("reflections", [0, 40, 41, 80, 81])
def test_a_lone_right_answer_and_equal_ones_lose_a_tenth(reflections):
    lone = one_group([500, 9], [1, 0], parts={"reflections": [reflections, 7]})
    assert values(Arlcp(), lone) == pytest.approx([0.9, 0])
    equal = one_group([500] * 3, [1] * 3, parts={"reflections": [reflections] * 3})
    assert values(Arlcp(), equal) == pytest.approx([0.9] * 3)


def test_against_the_formula_written_anew():
    draw = random.Random(3)

    def sg(x: int, of: list[int]) -> float:
        spread = statistics.stdev(of) if len(of) > 1 else 1
        return 1 / (1 + math.exp(-(x - statistics.fmean(of)) / (spread + 1e-6)))

    for _ in range(20):
        rows = [
            (draw.randint(0, 1), draw.choice([0, 39, 40, 41, 80, 81, 200]), draw.randint(1, 9000)) for _ in "abcdef"
        ]
        own = [(r, n) for c, r, n in rows if c]
        expected = []
        for c, r, n in rows:
            a1 = 0.05 if r <= 40 else 0.1 if r <= 80 else 0.15
            cost = a1 * sg(r, [x for x, _ in own]) + (0.2 - a1) * sg(n, [x for _, x in own]) if c else 0
            expected.append(2 * c - cost)
        batch = one_group([n for *_, n in rows], [c for c, *_ in rows], parts={"reflections": [r for _, r, _ in rows]})
        assert values(Arlcp(), batch, [2 * c for c, *_ in rows]) == pytest.approx(expected)


def test_it_asks_for_the_count():
    assert load_method("arlcp").needs == {"parts.reflections"}
    batch = one_group([5], [1])
    with pytest.raises(ValueError, match="parts has no 'reflections'"):
        values(Arlcp(), batch)
