"""GDPO by hand: parts normalised apart, TRL's numbers and verl's."""

from __future__ import annotations

import pytest
import torch

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.advantages.gdpo import Gdpo

A, B = [1, 0, 1, 0], [0.2, 0.9, 0.4, 0.4]


def batch_of(parts, lengths=None, group_size=4, **others) -> RolloutBatch:
    n = len(next(iter(parts.values())))
    return RolloutBatch.of(
        prompt_keys=[f"q{p}" for p in range(n // group_size)],
        group_size=group_size,
        lengths=lengths or [1] * n,
        correct=others.pop("correct", [True] * n),
        parts=parts,
        **others,
    )


def credit(batch: RolloutBatch, value=None, **fields) -> list[float]:
    return Gdpo(**fields).apply(batch, batch.task_reward if value is None else value).value.tolist()


def test_the_worked_example():
    found = credit(batch_of({"a": A, "b": B}), weights={"a": 1.0, "b": 0.5})
    assert found == pytest.approx([0.5356, -0.2040, 0.9778, -1.3094], abs=5e-5)


def test_a_constant_part_adds_nothing():
    parts = {"a": A, "b": B, "c": [0.3] * 4}
    assert credit(batch_of(parts), weights={"a": 1, "b": 0.5, "c": 9}) == credit(
        batch_of(parts), weights={"a": 1, "b": 0.5}
    )


def test_verl_weighs_the_last_step_by_tokens():
    """One part, so its normalised values are +-.866 (sample deviation .5774); tokens 1, 2, 3, 4."""
    x = 0.5 / (3**-0.5 + 1e-6)
    values, tokens = [x, -x, x, -x], [1, 2, 3, 4]
    mean = sum(v * t for v, t in zip(values, tokens, strict=True)) / 10
    variance = sum((v - mean) ** 2 * t for v, t in zip(values, tokens, strict=True)) / 9
    found = credit(batch_of({"a": A}, lengths=tokens), weights={"a": 1}, variant="verl")
    assert found == pytest.approx([(v - mean) / (variance + 1e-8) ** 0.5 for v in values])


def test_what_shapers_added_is_a_part_of_its_own():
    batch = batch_of({"x": [0.0] * 4}, correct=[True, False, True, False])
    shaping = torch.tensor(B, dtype=torch.float64)
    assert credit(batch, batch.task_reward + shaping) == pytest.approx(
        credit(batch_of({"a": A, "b": B}), weights={"a": 1, "b": 1})
    )
    assert Gdpo().needs == frozenset()
    assert Gdpo(weights={"task": 1, "format": 1}).needs == {"parts.format"}


def test_small_groups_and_steps():
    assert credit(batch_of({"a": A}, group_size=1), weights={"a": 1}) == [0.0] * 4
    one = batch_of({"a": A}, scorable=[True, False, False, False])
    assert credit(one, weights={"a": 1}) == [0.0] * 4


def test_rows_without_a_verdict_are_nowhere():
    parts = {"a": [*A, 50, 1, 0, 1], "b": [*B, 7, 0, 0, 0]}
    with_more = batch_of(parts, scorable=[True] * 4 + [False] * 4)
    expected = credit(batch_of({"a": A, "b": B}), weights={"a": 1, "b": 0.5})
    assert credit(with_more, weights={"a": 1, "b": 0.5}) == pytest.approx([*expected, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variant": "nemo"}, "choose one of trl, verl"),
        ({"weights": {}}, "name at least one part"),
        ({"weights": {"a": float("inf")}}, "a weight is a finite number"),
        ({"weights": {"a": "much"}}, "a weight is a finite number"),
    ],
)
def test_refusals(fields, message):
    with pytest.raises(UserError, match=message):
        Gdpo(**fields)


def test_a_missing_part_is_named():
    with pytest.raises(ValueError, match="parts has no 'format'"):
        credit(batch_of({"a": A}), weights={"format": 1})
