"""Each selector on a case worked by hand from its paper, on ties, and on problems without a right answer."""

from __future__ import annotations

import numpy as np
import pytest

from concise_rl.errors import DataError, UserError
from concise_rl.methods import load_selector
from concise_rl.methods.picking import NO_RIGHT
from concise_rl.methods.selectors.dart import Dart
from concise_rl.methods.selectors.kimi_pairs import KimiPairs
from concise_rl.methods.selectors.o1_pruner import O1Pruner
from concise_rl.methods.selectors.right_within import RightWithin
from concise_rl.methods.selectors.ruler import WINDOWS, Ruler, length_token
from concise_rl.methods.selectors.tops_seed import TopsSeed
from concise_rl.samples import Samples


def one(lengths, correct, **columns):
    """Samples of one problem, in the order given."""
    return Samples.of(["a"] * len(lengths), lengths, correct, **columns)


def chosen(name, samples, seed=0, **fields):
    """Lengths of what is chosen, and of what is rejected."""
    selection = load_selector(name, **fields)(samples, seed)
    rejected = [] if selection.rejected is None else samples.lengths[selection.rejected].tolist()
    return samples.lengths[selection.rows].tolist(), rejected, dict(selection.dropped)


RIGHT_AND_WRONG = one([120, 170, 185, 110, 119, 300], [1, 1, 1, 0, 0, 0])


@pytest.mark.parametrize("name", ["long2short", "tops"])
def test_the_shortest_right_one_and_of_equals_the_first(name):
    assert chosen(name, RIGHT_AND_WRONG) == ([120], [], {})
    equals = one([50, 40, 40, 30], [1, 1, 1, 0])
    selection = load_selector(name)(equals, 0)
    assert equals.numbers[selection.rows].tolist() == [1]
    assert chosen(name, one([5, 6], [0, 0])) == ([], [], {"a": NO_RIGHT})


def test_kimis_pairs_take_longer_wrong_ones_and_much_longer_right_ones():
    assert chosen("long2short_dpo", RIGHT_AND_WRONG) == ([120, 120], [185, 300], {})
    second = one([100, 140, 150, 300, 80, 100, 250], [1, 1, 1, 1, 0, 0, 0])
    assert chosen("long2short_dpo", second) == ([100] * 3, [150, 300, 250], {})
    odd = one([3, 4, 5], [1, 1, 1])
    assert chosen("long2short_dpo", odd)[1] == [5], "4 is not 1.5 times 3, 5 is more"
    assert chosen("long2short_dpo", one([100, 149, 90], [1, 1, 0]))[0] == []
    assert chosen("long2short_dpo", one([7, 9], [0, 0]))[2] == {"a": NO_RIGHT}
    assert chosen("long2short_dpo", one([0, 1], [1, 0])) == ([0], [1], {}), "an empty answer is lawful"
    with pytest.raises(UserError, match=r"ratio=1\.0: give more than 1"):
        KimiPairs(ratio=1.0)


def test_tops_pairs_reject_the_longest_wrong_one_and_one_that_thought_too_little():
    assert chosen("tops_dpo", one([700, 1500, 500, 2000], [1, 1, 0, 0])) == ([700, 700], [2000, 500], {})
    assert chosen("tops_dpo", one([800, 1500, 600, 3000], [1, 1, 0, 0]))[1] == [3000, 600]
    assert chosen("tops_dpo", one([800, 600], [1, 0]))[1] == [600], "one that is both stands once"
    assert chosen("tops_dpo", one([800, 800, 900], [1, 0, 0]))[1] == [900], "as long as the chosen is not shorter"
    assert chosen("tops_dpo", one([8, 9], [1, 1]))[2] == {"a": "no wrong answer"}
    assert chosen("tops_dpo", one([8, 9], [0, 0]))[2] == {"a": NO_RIGHT}


def efforts(lengths, correct=(1, 1, 1)):
    return one(lengths, correct, edits=["low", "medium", "high"][: len(lengths)])


def test_tops_seed_wants_all_right_and_more_than_the_gap_between():
    assert sorted(chosen("tops_seed", efforts([400, 701, 1002]))[0]) == [400, 701, 1002]
    assert sorted(chosen("tops_seed", efforts([2400, 900, 1300]))[0]) == [900, 1300, 2400]
    assert chosen("tops_seed", efforts([400, 700, 1100]))[2] == {"a": "two efforts are 300 tokens apart or less"}
    assert chosen("tops_seed", efforts([900, 1100, 2400]))[0] == []
    assert chosen("tops_seed", efforts([400, 701, 1002], (1, 0, 1)))[2] == {"a": "not right at every effort"}
    assert chosen("tops_seed", efforts([400, 800], (1, 1)))[2] == {"a": "not sampled at 3 efforts"}
    again = one([400, 5, 701, 1002], [1, 0, 1, 1], edits=["low", "low", "medium", "high"], numbers=[0, 1, 0, 0])
    assert len(chosen("tops_seed", again)[0]) == 3, "of each effort the first completion"
    with pytest.raises(UserError, match="efforts=1"):
        TopsSeed(efforts=1)


def rates(fails, n):
    """Problems a, b, ... with so many wrong ones first."""
    rows = [(key, number >= fail) for key, fail in zip("abcdef", fails, strict=False) for number in range(n)]
    return Samples.of([key for key, _ in rows], [10] * len(rows), [right for _, right in rows])


def test_dart_quotas_follow_the_fail_rate_in_whole_numbers():
    for fails, n, expected in (
        ([1, 3, 0], 4, [17, 50, 1]),
        ([1, 5, 9], 10, [6, 28, 50]),
        ([0, 0], 4, [1, 1]),
        ([4, 4], 4, [50, 50]),
    ):
        quotas = Dart(pilot=n).quotas(dict(rates(fails, n).by_problem()))
        assert list(quotas.values()) == expected
    # 50 * 0.07 / 0.1 is 35.00000000000001 in floating point.
    assert list(Dart(pilot=100).quotas(dict(rates([7, 10], 100).by_problem())).values()) == [35, 50]


def test_dart_takes_the_first_right_ones_and_knows_who_lacks_some():
    samples = rates([1, 3, 0, 4], 4)
    selection = load_selector("dart_prop2diff", pilot=4, most=2)(samples, 0)
    taken = [(samples.problems[samples.problem[row]], int(samples.numbers[row])) for row in selection.rows]
    assert taken == [("a", 1), ("b", 3), ("c", 0)], "quotas 1, 2, 1, 2; b stays short, d has none"
    assert selection.dropped == {"d": NO_RIGHT}
    uniform = load_selector("dart_uniform", most=3)
    assert uniform.unfilled(samples) == {"a", "b", "d"}, "sampling stops at more than the quota: c has 4"
    assert len(uniform(samples, 0)) == 3 + 1 + 3
    assert load_selector("dart_uniform").most == 40
    with pytest.raises(UserError, match="most=0"):
        Dart(most=0)


def test_dart_knows_the_rate_from_the_first_completions():
    early = Samples.of(["a"] * 4 + ["b"] * 4, [1] * 8, [0, 1, 1, 1, 1, 1, 0, 0], numbers=[0, 1, 2, 3] * 2)
    assert list(Dart(pilot=2).quotas(dict(early.by_problem())).values()) == [50, 1]


def test_on_policy_takes_all_right_ones_that_ended_within_the_limit():
    samples = one([3500, 3501, 20, 9], [1, 1, 1, 0], truncated=[0, 0, 1, 0])
    assert chosen("on_policy_sft", samples) == ([3500], [], {})
    assert chosen("on_policy_sft", samples, limit=None)[0] == [3500, 3501]
    assert chosen("on_policy_sft", samples, limit=5)[2] == {"a": "no right answer within 5 tokens"}
    assert chosen("on_policy_sft", one([1], [0]))[2] == {"a": NO_RIGHT}
    with pytest.raises(UserError, match="limit=0"):
        RightWithin(limit=0)


def test_o1_pruners_weights():
    lengths, correct = [500, 1000, 1500, 3000], [1, 0, 1, 0]
    assert O1Pruner().weights(lengths, correct) == pytest.approx([3, -0.5, 1, -1.5])
    assert O1Pruner(low=-1, high=2).weights(lengths, correct) == pytest.approx([2, -0.5, 1, -1])
    samples = one(lengths, correct)
    for seed in range(6):
        selection = O1Pruner()(samples, seed)
        raw = np.array([3, -0.5, 1, -1.5])[samples.numbers[selection.rows]]
        assert selection.weights.tolist() == pytest.approx([1, -1] if raw[0] > raw[1] else [-1, 1])
    assert len({tuple(O1Pruner()(samples, seed).rows.tolist()) for seed in range(20)}) > 3, "the choice is seeded"
    assert O1Pruner()(one([7, 7], [1, 1]), 0).weights.tolist() == [0, 0], "no deviation"
    assert len(O1Pruner(rows=5)(one([7, 9], [1, 0]), 0)) == 2
    with pytest.raises(DataError, match="problem a has a completion of 0 tokens"):
        O1Pruner()(one([0, 9], [0, 1]), 0)
    with pytest.raises(UserError, match="low < high"):
        O1Pruner(low=4, high=-2)


def test_random_right_draws_by_seed_and_problem():
    samples = one([1, 2, 3, 4], [1, 1, 1, 0])
    drawn = [chosen("random_right", samples, seed)[0][0] for seed in range(60)]
    assert set(drawn) == {1, 2, 3}
    assert drawn == [chosen("random_right", samples, seed)[0][0] for seed in range(60)]
    assert chosen("random_right", one([1], [0]))[2] == {"a": NO_RIGHT}


def test_rulers_windows_are_open_below_and_closed_above():
    assert [length_token(n) for n in (5, 6, 15, 16, 135, 136, 155, 156, 800, 801)] == [
        *("", "[MLT:10]", "[MLT:10]", "", "", "[MLT:150]", "[MLT:150]", "", "", "[MLT:>800]")
    ]
    assert [length_token(low + 1) for low, _ in WINDOWS.values()] == [f"[MLT:{target}]" for target in WINDOWS]


def test_ruler_starts_rows_with_their_length_and_fills_each_token():
    samples = Samples.of(list("abcd"), [9] * 4, [1, 1, 1, 0], words=[10, 12, 20, 10])
    selection = Ruler(most=1)(samples, 0)
    assert list(selection.starts) == ["[MLT:10]"]
    assert selection.dropped == {"b": "its tokens are full", "c": "no right answer in a window", "d": NO_RIGHT}
    assert len(Ruler()(samples, 0)) == 2
    with pytest.raises(UserError, match="most=0"):
        Ruler(most=0)
