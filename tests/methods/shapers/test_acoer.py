"""ACOER by hand, and its controller against one written out in plain Python."""

from __future__ import annotations

import math
import random

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods import Acoer, load_method


def shape(shaper: Acoer, state, thoughts: list[int], correct: list[int], **others):
    batch = RolloutBatch.of(
        prompt_keys=["q"], group_size=len(thoughts), lengths=[k + 9 for k in thoughts], think_lengths=thoughts,
        correct=correct, **others,
    )  # fmt: skip
    out, state = shaper(batch, batch.task_reward, state)
    return out.value.tolist(), state


def test_by_hand():
    shaper = Acoer(alpha=0.1, B0=16000)
    shaped, _ = shape(shaper, shaper.init(), [1000, 4000, 9000, 100], [1, 1, 1, 0])
    assert shaped == pytest.approx([1 + 0.1 * math.log(4.75) / math.log(6), 1, 1, 0], abs=1e-6)


def test_the_defaults_in_tokens_and_in_characters():
    assert (Acoer().init()["B"], Acoer(unit="characters").init()["B"]) == (4096, 16384)
    assert Acoer(unit="characters").needs == {"parts.think_characters"}
    expected = [1.0200, 1.0174, 1.0140, 1.0079, 1]
    tokens, _ = shape(Acoer(), Acoer().init(), [0, 1024, 2048, 3250, 4096], [1] * 5)
    assert tokens == pytest.approx(expected, abs=5e-5)
    shaper, parts = Acoer(unit="characters"), {"think_characters": [0, 4096, 8192, 13000, 16384]}
    assert shape(shaper, shaper.init(), [1] * 5, [1] * 5, parts=parts)[0] == pytest.approx(expected, abs=5e-5)
    with pytest.raises(ValueError, match="parts has no 'think_characters'"):
        shape(shaper, shaper.init(), [1], [1])


class Controller:
    """The rule of the page, step by step."""

    def __init__(self, variant: str) -> None:
        self.variant, self.alpha, self.budget = variant, 0.02, 400.0
        self.accuracy: list[float] = []
        self.averages: dict[str, float] = {}

    def step(self, number: int, thoughts: list[int], correct: list[int]) -> None:
        rights = [k for k, c in zip(thoughts, correct, strict=True) if c]
        self.average("accuracy", sum(correct) / len(correct))
        if rights or self.variant == "code":
            self.average("length", sum(rights) / len(rights) if rights else 0.0)
        self.accuracy.append(self.averages["accuracy"])
        if number < 4 or len(self.accuracy) < 3:
            return
        fell = self.accuracy[-3] - self.accuracy[-1] > 0.02
        self.alpha = max(0.01, self.alpha * 0.95) if fell else min(0.5, self.alpha * 1.02)
        if self.averages.get("length", 0) > 0:
            self.budget = max(50.0, 0.85 * self.averages["length"])

    def average(self, name: str, new: float) -> None:
        old = self.averages.get(name)
        self.averages[name] = new if old is None else (2 / 6) * new + (4 / 6) * old


@pytest.mark.parametrize("variant", ["guarded", "code"])
def test_the_controller_over_steps(variant):
    shaper = Acoer(span=5, window=3, warmup=4, B0=1600, min_budget=200, variant=variant)
    state, expected, chooser = shaper.init(), Controller(variant), random.Random(3)
    alphas = set()
    for number in range(40):
        share = 0.0 if number < 5 or number in (20, 21, 22) else chooser.random()
        thoughts = [chooser.randrange(500) for _ in range(6)]
        correct = [int(chooser.random() < share) for _ in range(6)]
        alpha, budget = expected.alpha, expected.budget
        shaped, state = shape(shaper, state, thoughts, correct, step=number)
        bonus = [alpha * math.log(1 + 5 * (1 - min(k / budget, 1))) / math.log(6) for k in thoughts]
        assert shaped == pytest.approx([c + c * b for c, b in zip(correct, bonus, strict=True)])
        expected.step(number, thoughts, correct)
        assert (state["alpha"], state["B"]) == pytest.approx((expected.alpha, expected.budget))
        assert state["history"] == pytest.approx(expected.accuracy[-6:])
        alphas.add(round(state["alpha"] / alpha, 6))
    assert alphas == {1.0, 1.02, 0.95}, "the run goes through all three moves"


def test_a_step_with_nothing_right_leaves_the_running_length_or_feeds_zero():
    for variant, first, second in (("guarded", None, 100), ("code", 0.0, 50)):
        shaper = Acoer(span=3, variant=variant)
        _, state = shape(shaper, shaper.init(), [80, 90], [0, 0])
        assert state["length"] == first
        _, state = shape(shaper, state, [100, 90], [1, 0])
        assert state["length"] == second


def test_bounds():
    shaper = Acoer(alpha=0.5, window=1, warmup=0)
    _, state = shape(shaper, shaper.init(), [1], [1])
    assert (state["alpha"], state["B"]) == (0.5, 512)
    shaper = Acoer(alpha=0.01, window=2, warmup=0, span=1)
    _, state = shape(shaper, shaper.init(), [1], [1])
    _, state = shape(shaper, state, [1], [0])
    assert state["alpha"] == 0.01


def test_a_fall_of_exactly_drop_is_none():
    shaper = Acoer(window=2, warmup=0, span=1, drop=0.5)
    _, state = shape(shaper, shaper.init(), [1, 1], [1, 1])
    _, state = shape(shaper, state, [1, 1], [1, 0])
    assert state["alpha"] == pytest.approx(0.02 * 1.02)


def test_rows_that_do_not_count_and_steps_of_them():
    shaper = Acoer()
    _, alone = shape(shaper, shaper.init(), [100, 300], [1, 0])
    shaped, beside = shape(shaper, shaper.init(), [100, 300, 7], [1, 0, 1], scorable=[1, 1, 0], task_reward=[1, 0, 0.5])
    assert shaped[2] == 0.5
    assert alone == beside
    assert shape(shaper, alone, [5, 5], [1, 1], scorable=[0, 0])[1] == beside


def test_the_recipe_carries_the_state():
    method = load_method("acoer", window=1, warmup=1)
    states = method.init()
    for step in range(2):
        batch = RolloutBatch.of(prompt_keys=["q"], group_size=2, lengths=[2000, 1000], correct=[1, 0], step=step)
        _, states = method.apply(batch, states)
    assert states["shaper.acoer"]["alpha"] == pytest.approx(0.0204)
    assert states["shaper.acoer"]["B"] == pytest.approx(1700)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alpha", -0.1), ("lo", 0.9), ("hi", math.inf), ("up", 0.9), ("down", 0.0), ("span", 0), ("window", 0),
        ("drop", -1.0), ("drop", math.nan), ("warmup", -1), ("ratio", 0.0), ("B0", 0.0), ("min_budget", math.inf),
    ],
)  # fmt: skip
def test_bad_fields_are_refused(field, value):
    with pytest.raises(UserError, match=rf"Acoer\..*{field}="):
        Acoer(**{field: value})
