"""LASER by hand; LASER-D's targets by hand and over steps; LASER-DE's guard."""

from __future__ import annotations

import json
import math
import random

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.recipes import load_method
from concise_rl.methods.shapers.laser import Laser
from tests.methods.one_group import CORRECT, LENGTHS, one_group, values


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("reward", [1.5, 1.5, 0, 1]), ("penalty", [1, 1, 0, 0.5]), ("hybrid", [1.5, 1.5, 0, 0.5])],
)
def test_by_hand(kind, expected):
    assert values(Laser(kind=kind, target=900), one_group(LENGTHS, CORRECT)) == expected


def test_it_adds_to_what_was_handed_in_and_leaves_wrong_answers():
    assert values(Laser(target=900), one_group(LENGTHS, CORRECT), [2, 0, -0.5, 1]) == [2.5, 0.5, -0.5, 1]


# -- LASER-D -----------------------------------------------------------------------------------------------------------

MONITORED = [([900, 1800, 2500, 4000], 3), ([3000, 5000, 6000, 7000], 1), ([2000, 2100, 4000, 9000], 2)]


def example(step: int = 0, **others) -> RolloutBatch:
    """Three groups of eight, four rows each without a verdict."""
    lengths = [n for group, _ in MONITORED for n in (*group, 1, 1, 1, 1)]
    correct = [k < n_right for _, n_right in MONITORED for k in range(8)]
    return RolloutBatch.of(
        prompt_keys=["a", "b", "c"],
        group_size=8,
        step=step,
        lengths=lengths,
        correct=correct,
        scorable=[True, True, True, True, False, False, False, False] * 3,
        limits=[8192] * 24,
        **others,
    )


def test_targets_by_hand():
    shaper = Laser(dynamic=True, monitor_freq=1)
    batch = example()
    _, state = shaper(batch, batch.task_reward, shaper.init())
    assert state == {"targets": {"high": 1024, "medium": 3072, "low": 7168}, "updated": 1, "groups": []}


def test_the_released_cap_is_the_longest_answer_of_the_batch():
    def low(variant: str, longest: int) -> int:
        shaper = Laser(dynamic=True, monitor_freq=1, variant=variant)
        batch = one_group([3000, longest], [0, 0], limits=[20_000, 20_000])
        return shaper(batch, batch.task_reward, shaper.init())[1]["targets"]["low"]

    assert low("limit", 9000) == low("guarded", 9000) == 9216
    assert low("code", 9000) == 9000
    assert low("limit", 17_000) == 20_000, "the grid ends at 16384"
    assert low("code", 9216) == 9216


def test_an_empty_band_has_the_cap():
    shaper = Laser(dynamic=True, monitor_freq=1)
    batch = one_group([500, 500], [1, 1], limits=[8192, 8192])
    _, state = shaper(batch, batch.task_reward, shaper.init())
    assert state["targets"] == {"high": 1024, "medium": 8192, "low": 8192}


@pytest.mark.parametrize(
    ("n_right", "scored_as", "monitored_as"), [(1, "medium", "low"), (2, "high", "medium"), (3, "high", "high")]
)
def test_thirds_belong_to_the_better_band_when_scored_and_to_the_worse_one_when_monitored(
    n_right, scored_as, monitored_as
):
    shaper = Laser(dynamic=True, monitor_freq=1, target=5, lower=10, grid_step=10)
    correct = [k < n_right for k in range(3)]
    batch = one_group([100, 100, 100], correct, limits=[1000] * 3)
    state = shaper.init() | {"targets": dict.fromkeys(("high", "medium", "low"), 5) | {scored_as: 100}}
    out, after = shaper(batch, batch.task_reward, state)
    assert out.value[0] == 1.5, "the target of its band is the one it keeps"
    assert {band for band, target in after["targets"].items() if target < 1000} == {monitored_as}


def test_targets_hold_for_monitor_freq_steps_and_come_from_the_steps_since():
    shaper = Laser(dynamic=True, monitor_freq=3, target=50, lower=10, grid_step=10)
    state = shaper.init()
    for step, length in enumerate([95, 95, 95, 15, 15, 15, 15]):
        batch = one_group([length, length], [1, 1], step=step, limits=[200, 200])
        out, state = shaper(batch, batch.task_reward, json.loads(json.dumps(state)))
        expected = [50, 50, 50, 100, 100, 100, 20][step]
        assert out.metrics["laser/target_high"] == expected
        assert out.value[0] == (1.5 if length <= expected else 1.0)
    assert (state["updated"], len(state["groups"])) == (6, 1)


def test_only_the_last_groups_are_monitored_and_a_step_without_rows_puts_off_the_update():
    shaper = Laser(dynamic=True, monitor_freq=2, monitor_groups=1, lower=10, grid_step=10)
    state = shaper.init()
    for step, (length, scorable) in enumerate([(95, True), (15, True), (5, False), (5, True)]):
        batch = one_group([length, length], [1, 1], step=step, limits=[200, 200], scorable=[scorable] * 2)
        _, state = shaper(batch, batch.task_reward, state)
        assert state["targets"]["high"] == [4096, 20, 20, 10][step]
    late = Laser(dynamic=True, monitor_freq=1, lower=10, grid_step=10)
    out_of_it = one_group([5, 5], [1, 1], step=0, scorable=[False] * 2)
    _, state = late(out_of_it, out_of_it.task_reward, late.init())
    assert state["updated"] == 0


def test_shares_are_compared_in_whole_numbers():
    # A medium band of 49 answers in a group of 147, one of them short: 49 * (1/49) is a little below 1 in binary.
    shaper = Laser(dynamic=True, monitor_freq=1, lower=10, grid_step=10)
    lengths, counts = [5] + [95] * 146, [True] * 49 + [False] * 98
    batch = one_group(lengths, [1] * 20 + [0] * 127, counts=counts, limits=[100] * 147)
    _, state = shaper(batch, batch.task_reward, shaper.init())
    assert 1 / 49 * 49 < 1
    assert state["targets"] == {"high": 100, "medium": 10, "low": 100}


# -- LASER-DE ----------------------------------------------------------------------------------------------------------


def explored(shaper: Laser) -> list[float]:
    batch = one_group([900, 2001, 2000, 5000], [1, 0, 0, 0], parts={"repeated": [0, 0, 0, 1]})
    state = shaper.init() | {"targets": {"high": 500, "medium": 1000, "low": 2000}}
    return values(shaper, batch, state=state)


def test_long_wrong_answers_are_paid_unless_they_repeat_themselves():
    assert explored(Laser(dynamic=True, explore=True)) == [1.5, 0.5, 0, 0]
    assert explored(Laser(dynamic=True, explore=True, variant="guarded")) == [1.5, 0.5, 0, 0]
    assert explored(Laser(dynamic=True, explore=True, variant="code")) == [1.5, 0.5, 0, 0.5]


def test_only_the_guard_asks_for_repetition():
    assert load_method("laser_de").needs == {"parts.repeated"}
    assert load_method("laser_de", variant="code").needs == set()
    assert load_method("laser_d").needs == load_method("laser").needs == set()


def test_recipes_are_the_three_of_the_paper():
    chosen = {name: load_method(name).shapers[0] for name in ("laser", "laser_d", "laser_de")}
    assert {name: (s.dynamic, s.explore) for name, s in chosen.items()} == {
        "laser": (False, False),
        "laser_d": (True, False),
        "laser_de": (True, True),
    }


def test_targets_against_the_rule_written_anew():
    draw = random.Random(4)
    for _ in range(30):
        size = draw.choice([3, 4, 8])
        groups = [([draw.randint(1, 9000) for _ in range(size)], draw.randint(0, size)) for _ in range(6)]
        expected = {}
        for band, n_min, keep in (
            ("high", math.floor(2 * size / 3), lambda p: p > 2),
            ("medium", math.floor(size / 3), lambda p: 1 < p <= 2),
            ("low", 1, lambda p: p <= 1),
        ):
            pool = [n for lengths, k in groups if keep(3 * k / size) for n in lengths]
            fits = [t for t in range(1024, 8192, 1024) if pool and n_min * sum(n <= t for n in pool) >= len(pool)]
            expected[band] = min(fits, default=8192)
        batch = RolloutBatch.of(
            prompt_keys=[str(p) for p in range(6)],
            group_size=size,
            lengths=[n for lengths, _ in groups for n in lengths],
            correct=[k < n_right for _, n_right in groups for k in range(size)],
            limits=[8192] * 6 * size,
        )
        shaper = Laser(dynamic=True, monitor_freq=1)
        assert shaper(batch, batch.task_reward, shaper.init())[1]["targets"] == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "bonus"},
        {"variant": "paper"},
        {"alpha": -1.0},
        {"target": 0},
        {"monitor_freq": 0},
        {"monitor_groups": 0},
        {"lower": 0},
        {"grid_step": 0},
        {"expected": 0},
    ],
)
def test_bad_fields_are_refused(fields):
    with pytest.raises(UserError, match=f"Laser.{next(iter(fields))}="):
        Laser(**fields)
