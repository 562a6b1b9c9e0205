"""Nemotron-Cascade's filter between epochs: the counts of the paper's rule, and epochs end to end."""

from __future__ import annotations

import random

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.data import Prompt
from concise_rl.errors import UserError
from concise_rl.methods.curricula.readmit import Readmit


def rates(mixed: int, never: int, always: int) -> dict[str, float]:
    return (
        {f"m{k}": 0.5 for k in range(mixed)}
        | {f"n{k}": 0.0 for k in range(never)}
        | {f"a{k}": 1.0 for k in range(always)}
    )


def comes(found: dict[str, float], epoch: int = 1, **fields) -> set[str]:
    return set(found) - set(Readmit(**fields).left_out(found, epoch))


@pytest.mark.parametrize(
    ("mixed", "never", "always", "back"),
    [(400, 100, 200, (10, 2)), (500, 200, 300, (20, 3)), (0, 5, 50, (1, 1)), (1, 4, 49, (0, 0))],
)
def test_counts_are_rounded_half_up(mixed, never, always, back):
    next_epoch = comes(rates(mixed, never, always))
    by_kind = [sum(key.startswith(kind) for key in next_epoch) for kind in "mna"]
    assert by_kind == [mixed, *back]


def test_the_choice_is_seeded_by_epoch():
    found = rates(0, 100, 0)
    assert comes(found) == comes(dict(reversed(found.items())))
    assert comes(found) != comes(found, epoch=2)
    assert comes(found) != comes(found, seed=1)


PROMPTS = [Prompt.of(f"question {n}", "7") for n in range(20)]


def test_epochs_end_to_end():
    """Prompt n is right in n % 3 of 2 rows, so a third each is never, sometimes and always right."""
    curriculum = Readmit(hard=0.5, easy=0.0)
    state, epochs = curriculum.init(), {}
    for step in range(60):
        epoch = state["epoch"]
        drawn = curriculum.draw(PROMPTS, 4, (), random.Random(step), state)
        assert len(set(drawn)) == len(drawn) == 4
        batch = RolloutBatch.of(
            prompt_keys=[PROMPTS[n].id for n in drawn],
            group_size=2,
            lengths=[1] * 8,
            correct=[row < n % 3 for n in drawn for row in range(2)],
            counts=[False] * 8,
        )
        state = curriculum.observe(batch, state)
        if state["epoch"] == epoch:
            epochs.setdefault(epoch, []).extend(drawn)
    assert sorted(epochs[0]) == list(range(20)), "20 = 5 steps of 4, nobody twice"
    middle = [n for n in range(20) if n % 3 == 1]
    assert len(epochs) >= 4
    for epoch in range(1, max(epochs)):
        assert not any(n % 3 == 2 for n in epochs[epoch]), "always right pauses"
        assert sum(n % 3 == 0 for n in epochs[epoch]) <= 4, "half of seven, rounded up"
        assert set(epochs[epoch]) <= {n for n in range(20) if n % 3 != 2}
        assert len(set(epochs[epoch])) == len(epochs[epoch])
    assert {n for epoch in range(1, max(epochs)) for n in epochs[epoch]} >= set(middle)


def test_a_step_across_the_end_of_an_epoch_takes_what_is_left_first():
    curriculum, prompts = Readmit(hard=0.0, easy=0.0), PROMPTS[:5]
    first = RolloutBatch.of(
        prompt_keys=[p.id for p in prompts[:3]], group_size=2, lengths=[1] * 6, correct=[True, False] * 3
    )
    state = curriculum.observe(first, curriculum.init())
    drawn = curriculum.draw(prompts, 4, (), random.Random(0), state)
    assert set(drawn[:2]) == {3, 4}
    assert set(drawn[2:]) < {0, 1, 2}
    second = RolloutBatch.of(
        prompt_keys=[prompts[n].id for n in drawn],
        group_size=2,
        lengths=[1] * 8,
        correct=[n < 3 and row == 0 for n in drawn for row in range(2)],
    )
    state = curriculum.observe(second, state)
    assert state["epoch"] == 1
    assert state["seen"] == [prompts[n].id for n in drawn[2:]]
    assert state["left_out"] == sorted([prompts[3].id, prompts[4].id]), "both were never right"


def test_a_prompt_without_a_verdict_comes_again():
    curriculum, prompts = Readmit(), PROMPTS[:2]
    batch = RolloutBatch.of(
        prompt_keys=[p.id for p in prompts], group_size=1, lengths=[1, 1], correct=[True, True], scorable=[True, False]
    )
    state = curriculum.observe(batch, curriculum.init())
    assert curriculum.draw(prompts, 2, (), random.Random(0), state) == [1], "the other is at 100 %"


def test_nobody_left_gives_nobody():
    curriculum, prompts = Readmit(), PROMPTS[:2]
    batch = RolloutBatch.of(prompt_keys=[p.id for p in prompts], group_size=1, lengths=[1, 1], correct=[True, True])
    assert curriculum.draw(prompts, 2, (), random.Random(0), curriculum.observe(batch, curriculum.init())) == []


@pytest.mark.parametrize("fields", [{"hard": 1.1}, {"easy": -0.1}])
def test_refusals(fields):
    with pytest.raises(UserError, match=f"Readmit.{next(iter(fields))}="):
        Readmit(**fields)
