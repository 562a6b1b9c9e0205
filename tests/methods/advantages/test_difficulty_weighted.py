"""GUI-G1's difficulty weight: the paper's worked sizes, the column forms, the pass rate, and what is refused."""

from __future__ import annotations

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.errors import DataError, UserError
from concise_rl.methods import DifficultyWeighted, GroupRelative


def batch_of(column: list, correct: list[int] | None = None, **others) -> RolloutBatch:
    n_prompts = len(column)
    return RolloutBatch.of(
        prompt_keys=[f"p{p}" for p in range(n_prompts)],
        group_size=2,
        lengths=[1] * 2 * n_prompts,
        correct=correct or [1, 0] * n_prompts,
        columns={"size": column},
        **others,
    )


def weighted(advantage: DifficultyWeighted, batch: RolloutBatch) -> list[float]:
    """As the recipe gui_g1 chains it: behind a baseline that divides by nothing."""
    return advantage.apply(batch, GroupRelative(scale="none").apply(batch, batch.task_reward).value).value.tolist()


def test_inverse_size_is_the_papers_worked_weight() -> None:
    advantage = DifficultyWeighted(kind="inverse", column="size", minimum=1e-4, maximum=1.0)
    batch = batch_of([1e-4, 1e-2, 1.0])
    # 1/v: 10000, 100, 1; (100 - 1) / 9999 = 0.00990099
    assert advantage.weights(batch).tolist() == pytest.approx([1.5, 1.5, 0.50990099, 0.50990099, 0.5, 0.5])
    credit = weighted(advantage, batch)
    assert credit == pytest.approx([0.75, -0.75, 0.254950495, -0.254950495, 0.25, -0.25])


def test_linear_and_plain_weight() -> None:
    linear = DifficultyWeighted(kind="linear", column="size", minimum=2, maximum=6)
    assert linear.weights(batch_of([2, 3, 6])).tolist() == pytest.approx([0.5, 0.5, 0.75, 0.75, 1.5, 1.5])
    plain = DifficultyWeighted(kind="weight", column="size")
    assert plain.weights(batch_of([0.0, 1.0, 3.5])).tolist() == [0, 0, 1, 1, 3.5, 3.5]


@pytest.mark.parametrize("kind", ["linear", "inverse"])
def test_all_equal_weighs_one(kind: str) -> None:
    advantage = DifficultyWeighted(kind=kind, column="size", minimum=0.3, maximum=0.3)
    assert advantage.weights(batch_of([0.3])).tolist() == [1, 1]


def test_pass_rate_counts_scorable_rows() -> None:
    batch = RolloutBatch.of(
        prompt_keys=["hard", "easy", "half", "none"],
        group_size=3,
        lengths=[1] * 12,
        correct=[0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0],
        scorable=[1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0],
    )
    weights = DifficultyWeighted().weights(batch).tolist()
    assert weights[:9] == pytest.approx([1.5] * 3 + [0.5] * 3 + [1.0] * 3)
    credit = weighted(DifficultyWeighted(), batch)
    assert credit == pytest.approx([0] * 6 + [0.5, -0.5] + [0] * 4)


def test_weights_credit_per_token_too() -> None:
    advantage = DifficultyWeighted(kind="weight", column="size")
    batch = batch_of([2.0, 3.0])
    per_token = batch.task_reward[:, None].expand(-1, 3)
    assert advantage.apply(batch, per_token).value.tolist() == [[2.0] * 3, [0.0] * 3, [3.0] * 3, [0.0] * 3]


def test_needs() -> None:
    assert DifficultyWeighted().needs == frozenset()
    assert DifficultyWeighted(kind="weight", column="rate").needs == {"columns.rate"}


@pytest.mark.parametrize(
    ("value", "kind", "match"),
    [
        ("big", "linear", "a number"),
        (None, "weight", "a number"),
        (float("nan"), "weight", "finite"),
        (-1.0, "weight", "not negative"),
        (7, "linear", "whole training set"),
        (float("nan"), "inverse", "whole training set"),
    ],
)
def test_bad_values_name_column_and_prompt(value: object, kind: str, match: str) -> None:
    bounds = {} if kind == "weight" else {"minimum": 2.0, "maximum": 6.0}
    advantage = DifficultyWeighted(kind=kind, column="size", **bounds)
    with pytest.raises(DataError, match=rf"column 'size' of prompt p1 .*{match}"):
        advantage.weights(batch_of([3.0, value]))


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"kind": "easy"}, "kind"),
        ({"kind": "linear", "minimum": 1, "maximum": 2}, "column"),
        ({"column": "size"}, "column"),
        ({"kind": "linear", "column": "size"}, "minimum"),
        ({"kind": "linear", "column": "size", "minimum": 3, "maximum": 2}, "minimum"),
        ({"kind": "inverse", "column": "size", "minimum": 0, "maximum": 2}, "minimum"),
        ({"kind": "weight", "column": "size", "maximum": 2}, "minimum"),
        ({"low": 2.0}, "low"),
    ],
)
def test_refuses_and_names_the_field(fields: dict, name: str) -> None:
    with pytest.raises(UserError, match=rf"DifficultyWeighted\.{name}"):
        DifficultyWeighted(**fields)
