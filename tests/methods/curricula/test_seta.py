"""SeTa: the sliding window, the groups, the random part, and epochs end to end."""

from __future__ import annotations

import itertools
import random

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.data import Prompt
from concise_rl.errors import UserError
from concise_rl.methods.curricula.seta import Seta, grouped

PROMPTS = [Prompt.of(f"question {n}", "7") for n in range(24)]


def test_the_worked_example():
    windows = [Seta(n=6, scale=0.5).window(epoch) for epoch in range(5)]
    assert [(w.start, w.stop - 1) for w in windows] == [(0, 5), (1, 3), (2, 4), (3, 5), (0, 2)]


def test_ten_groups_slide_over_six_places():
    assert [Seta().window(e).start for e in range(1, 8)] == [1, 2, 3, 4, 5, 0, 1]
    assert len(Seta(n=5, scale=0.5).window(1)) == 2, "round half to even"


def squares(scores: list[float], groups: list[list[int]]) -> float:
    def within(group: list[int]) -> float:
        mean = sum(scores[i] for i in group) / len(group)
        return sum((scores[i] - mean) ** 2 for i in group)

    return sum(within(group) for group in groups)


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_the_best_there_are(seed):
    rng = random.Random(seed)
    scores = [rng.choice([0.0, 0.1, 0.15, 0.4, 0.45, 0.8, 1.0]) for _ in range(10)] + [0.0, 0.15, 0.8]
    groups = grouped(scores, 3)
    assert sorted(itertools.chain(*groups)) == list(range(13))
    ordered = sorted(range(13), key=scores.__getitem__)
    every = [squares(scores, [ordered[:a], ordered[a:b], ordered[b:]]) for a in range(1, 12) for b in range(a + 1, 13)]
    assert squares(scores, groups) == pytest.approx(min(every), abs=1e-12)
    assert all(max(scores[i] for i in a) < min(scores[i] for i in b) for a, b in itertools.pairwise(groups))


def test_equal_scores_are_cut_into_runs():
    assert grouped([0.5] * 6, 3) == [[0, 1], [2, 3], [4, 5]]
    assert grouped([1.0, 0.0, 1.0, 0.0, 1.0], 3) == [[1, 3], [0, 2], [4]], "fewer distinct scores than groups"


def comes(curriculum: Seta, rates: dict[str, float], epoch: int) -> set[str]:
    return set(rates) - set(curriculum.left_out(rates, epoch))


RATES = {f"p{k}": 1 - k / 10 for k in range(10)}


def test_an_epoch_takes_its_window_easy_first():
    curriculum = Seta(n=5, scale=0.4)
    assert comes(curriculum, RATES, 4) == {f"p{k}" for k in range(4)}, "start 0: the most often solved"
    assert comes(curriculum, RATES, 1) == {f"p{k}" for k in range(2, 6)}
    assert comes(curriculum, RATES, 3) == {f"p{k}" for k in range(6, 10)}
    assert comes(curriculum, RATES, 0) == set(RATES)


def test_the_random_part_and_the_end_of_pruning():
    curriculum = Seta(n=1, scale=1.0, prune_ratio=0.3)
    parts = [comes(curriculum, RATES, epoch) for epoch in range(1, 6)]
    assert {len(part) for part in parts} == {7}
    assert len({frozenset(part) for part in parts}) > 1
    assert len(comes(Seta(n=1, scale=1.0, prune_ratio=0.99), RATES, 1)) == 1, "at least a tenth"
    late = Seta(n=5, scale=0.4, epochs=8)
    assert [len(comes(late, RATES, epoch)) for epoch in (5, 6, 7)] == [4, 4, 10], "epoch 7 is the eighth, 8 > 8 * .875"


def test_epochs_end_to_end():
    """Prompt n is right in n % 4 of 3 rows; four distinct scores, four groups, windows of two."""
    curriculum = Seta(n=4, scale=0.5)
    state, epochs = curriculum.init(), {}
    for step in range(26):
        before = state["epoch"]
        drawn = curriculum.draw(PROMPTS, 4, (), random.Random(step), state)
        batch = RolloutBatch.of(
            prompt_keys=[PROMPTS[n].id for n in drawn],
            group_size=3,
            lengths=[1] * 12,
            correct=[row < n % 4 for n in drawn for row in range(3)],
        )
        state = curriculum.observe(batch, state)
        epochs.setdefault(state["epoch"], []).extend(drawn)
        assert state["epoch"] - before in (0, 1)
    assert sorted(epochs[0]) == list(range(24))
    # Ascending score is descending rate: group 0 has n % 4 = 3. Epoch e starts at e mod 3.
    for epoch, kinds in ((1, {2, 1}), (2, {1, 0}), (3, {3, 2}), (4, {2, 1})):
        assert sorted(epochs[epoch]) == [n for n in range(24) if n % 4 in kinds], epoch


def test_a_prompt_without_a_score_comes_in_every_epoch():
    curriculum = Seta(n=2, scale=0.5)
    state = curriculum.init() | {"epoch": 1, "left_out": [PROMPTS[0].id, PROMPTS[1].id], "rates": {}}
    assert sorted(curriculum.draw(PROMPTS[:4], 2, (), random.Random(0), state)) == [2, 3]


def test_more_prompts_than_groups_are_needed():
    with pytest.raises(UserError, match=r"curriculum\.seta\.n=10 groups of 10 prompts"):
        Seta().draw(PROMPTS[:10], 2, (), random.Random(0), Seta().init())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prune_ratio": 1.0}, "Seta.prune_ratio=1.0"),
        ({"scale": 0.04}, "Seta.scale=0.04 with n=10"),
        ({"scale": 1.2}, "Seta.scale=1.2"),
        ({"n": 1}, "Seta.scale=0.5 with n=1"),
        ({"delta": 2}, "Seta.delta=2"),
        ({"epochs": 0}, "Seta.epochs=0"),
    ],
)
def test_refusals(fields, message):
    with pytest.raises(UserError, match=message):
        Seta(**fields)
