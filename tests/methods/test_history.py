"""The per-prompt store: equal to a plain dict, blind to row order, bit-exact over save and load, clear when refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concise_rl.errors import UserError
from concise_rl.methods.history import History

Row = tuple[str, float]
tokens = st.integers(1, 40_000).map(float)
lengths = st.floats(0.5, 1e5, width=32)


def calls_of(values: st.SearchStrategy[float]) -> st.SearchStrategy[list[list[Row]]]:
    """Steps of a run: lists of (prompt, value), prompts repeating within a step and between steps."""
    prompt = st.integers(0, 60).map(lambda number: f"prompt {number}")
    return st.lists(st.lists(st.tuples(prompt, values), max_size=30), max_size=8)


def record(history: History, kind: str, rows: list[Row]) -> History:
    return getattr(history, f"record_{kind}")([prompt for prompt, _ in rows], [value for _, value in rows])


def plain_dict(kind: str, calls: list[list[Row]]) -> dict[str, tuple[np.float32, int]]:
    """The same rule in the plainest form: a dict, row after row, the mean kept in float32 between calls."""
    kept: dict[str, tuple[np.float32, int]] = {}
    for rows in calls:
        for prompt in {prompt for prompt, _ in rows}:
            new = [value for other, value in rows if other == prompt]
            value, count = kept.get(prompt, (np.float32(0), 0))
            if kind == "min":
                kept[prompt] = (np.float32(min(new + [float(value)] * (count > 0))), count + len(new))
            else:
                total = float(value) * count + sum(new)
                kept[prompt] = (np.float32(total / (count + len(new))), count + len(new))
    return kept


@pytest.mark.parametrize("kind", ["min", "mean"])
@given(calls=calls_of(tokens), resume_at=st.integers(0, 8))
@settings(deadline=None, max_examples=40)
def test_equals_a_plain_dict_resumed_anywhere(kind: str, calls: list[list[Row]], resume_at: int) -> None:
    history = History.empty()
    for number, rows in enumerate(calls):
        if number == resume_at:
            history = History.from_arrays(history.arrays())
        record(history, kind, rows)
    expected = plain_dict(kind, calls)
    values, counts = history.lookup([*expected, "never seen"])
    assert values[:-1].tolist() == [float(value) for value, _ in expected.values()]
    assert counts.tolist() == [count for _, count in expected.values()] + [0]
    assert np.isnan(values[-1])
    assert len(history) == len(expected)


@pytest.mark.parametrize("kind", ["min", "mean"])
@given(calls=calls_of(lengths), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_row_order_does_not_change_a_bit(kind: str, calls: list[list[Row]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = History.empty(), History.empty()
    for rows in calls:
        record(one, kind, rows)
        record(other, kind, [rows[place] for place in rng.permutation(len(rows))])
    assert one == other


@given(calls=calls_of(lengths))
@settings(deadline=None, max_examples=40)
def test_splitting_a_step_changes_no_minimum_and_a_mean_only_in_rounding(calls: list[list[Row]]) -> None:
    whole = {kind: History.empty() for kind in ("min", "mean")}
    split = {kind: History.empty() for kind in ("min", "mean")}
    for rows in calls:
        for kind in whole:
            record(whole[kind], kind, rows)
            for row in rows:
                record(split[kind], kind, [row])
    assert whole["min"] == split["min"]
    ours, theirs = whole["mean"].arrays(), split["mean"].arrays()
    assert np.array_equal(ours["counts"], theirs["counts"])
    np.testing.assert_allclose(ours["values"], theirs["values"], rtol=1e-5)


def test_mean_weighs_values_by_their_counts() -> None:
    history = History.empty().record_mean(["a", "b", "a"], [10.0, 7.0, 40.0], counts=[2, 1, 1])  # (10+10+40) / 3
    assert history.lookup(["a", "b"])[0].tolist() == [20.0, 7.0]
    history.record_mean(["a"], [32.0], counts=[3])  # (3 * 20 + 3 * 32) / 6
    values, counts = history.lookup(["a"])
    assert (values.tolist(), counts.tolist()) == ([26.0], [6])


def test_keys_that_all_want_one_slot_are_kept_apart() -> None:
    keys = (np.arange(60, dtype=np.uint64) << np.uint64(40)) + np.uint64(7)
    arrays = {"keys": keys, "values": np.arange(1, 61, dtype=np.float32), "counts": np.ones(60, np.uint32)}
    history = History.from_arrays(arrays)
    history.record_min([f"prompt {number}" for number in range(500)], np.full(500, 3.0))  # and a growth or two
    again = dict(zip(history.arrays()["keys"].tolist(), history.arrays()["values"].tolist(), strict=True))
    assert len(history) == len(again) == 560
    assert [again[key] for key in keys.tolist()] == arrays["values"].tolist()


def test_assigned_values_replace_what_stood_there() -> None:
    history = History.empty().record_mean(["a", "b"], [10, 20]).assign(["b", "c"], [4.5, 6.0], [7, 2])
    values, counts = history.lookup(["a", "b", "c"])
    assert (values.tolist(), counts.tolist()) == ([10.0, 4.5, 6.0], [1, 7, 2])
    with pytest.raises(UserError, match="a prompt stands twice"):
        history.assign(["a", "a"], [1.0, 2.0], [1, 1])


def test_a_copy_goes_its_own_way() -> None:
    history = History.empty().record_min(["a"], [10])
    twin = history.copy().record_min(["a", "b"], [5, 6])
    assert history.lookup(["a", "b"])[1].tolist() == [1, 0]
    assert twin.lookup(["a", "b"])[0].tolist() == [5.0, 6.0]
    assert history != twin


@pytest.mark.parametrize("value", [-3.0, float("nan"), float("inf"), 1e39])
@pytest.mark.parametrize("kind", ["min", "mean"])
def test_a_value_that_cannot_be_kept_is_refused_and_nothing_recorded(kind: str, value: float) -> None:
    history = History.empty().record_min(["a"], [10])
    before = history.copy()
    with pytest.raises(UserError, match=r"history\.values\[1\].*prompt b.*finite and 0 or more"):
        record(history, kind, [("a", 4.0), ("b", value)])
    assert history == before


def test_bad_counts_and_wrong_lengths_are_refused() -> None:
    with pytest.raises(UserError, match=r"history\.counts\[0\]=1\.5 .*whole number"):
        History.empty().record_mean(["a"], [3.0], counts=[1.5])
    with pytest.raises(UserError, match=r"history\.values has shape \(1,\) for 2 prompt keys"):
        History.empty().record_min(["a", "b"], [3.0])
    with pytest.raises(UserError, match=r"history\.values has shape \(2, 1\) for 2 prompt keys"):
        History.empty().record_min(["a", "b"], [[3.0], [4.0]])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"keys": np.array([5, 5], np.uint64)}, "a key twice"),
        ({"values": np.array([1, np.nan], np.float32)}, "finite and 0 or more"),
        ({"values": np.array([1, 2], np.float64)}, "values is float64"),
        ({"values": np.array([1], np.float32)}, r"values is float32 of shape \(1,\)"),
        ({"counts": np.array([1, 0], np.uint32)}, "counts at least 1"),
        ({"counts": None}, "counts is missing"),
        ({"keys": None}, "keys is missing"),
    ],
)
def test_damaged_arrays_are_refused(change: dict[str, np.ndarray | None], reason: str) -> None:
    arrays = {**History.empty().record_min(["a", "b"], [3, 4]).arrays(), **change}
    with pytest.raises(UserError, match=reason):
        History.from_arrays({name: array for name, array in arrays.items() if array is not None})
