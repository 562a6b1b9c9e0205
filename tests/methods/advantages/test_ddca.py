"""DDCA by hand."""

from __future__ import annotations

import math

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.advantages.ddca import Ddca

RIGHT, LENGTHS = [True, True, False, True], [400, 900, 700, 1600]


def credit(correct=RIGHT, lengths=LENGTHS, scorable=None, reward=None, **fields) -> list[float]:
    batch = RolloutBatch.of(
        prompt_keys=["q"], group_size=len(correct), lengths=lengths, correct=correct, scorable=scorable
    )
    return Ddca(**fields).apply(batch, batch.task_reward if reward is None else reward).value.tolist()


def test_the_worked_examples():
    assert credit() == pytest.approx([0.6158, 0.5819, -1.7321, 0.5343], abs=5e-5)
    assert credit(kind="rloo") == pytest.approx([0.3910, 0.3402, -1.0, 0.2688], abs=5e-5)


def test_rho_is_the_share_of_right_rows():
    accuracy = credit(beta=0.0)
    dynamic, fixed = credit(), credit(dynamic=False)
    for a, d, f in zip(accuracy, dynamic, fixed, strict=True):
        assert (d - a) == pytest.approx(0.75 * (f - a))


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_an_all_right_group_has_the_length_part_alone(kind):
    # Two right rows stand one deviation apart from their mean: s = sg(-1), sg(1).
    gap = 1 / (1 + math.exp(-1)) - 1 / (1 + math.exp(1))
    factor = 0.5 if kind == "grpo" else 1.0
    assert credit([True, True], [100, 300], kind=kind) == pytest.approx([0.2 * factor * gap, -0.2 * factor * gap])
    assert credit([False, False], [100, 300], kind=kind) == [0.0, 0.0]


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_a_single_right_row_has_no_length_part(kind):
    assert credit([True, False, False], [9, 8, 7], kind=kind) == credit([True, False, False], [1, 2, 3], kind=kind)
    assert credit([True], [9], kind=kind) == [0.0]


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_equal_lengths_have_no_length_part(kind):
    assert credit(lengths=[5] * 4, kind=kind) == pytest.approx(credit(lengths=[5] * 4, kind=kind, beta=0.0))


def test_rows_without_a_verdict_are_in_no_mean():
    found = credit([*RIGHT, True], [*LENGTHS, 3], scorable=[True] * 4 + [False])
    assert found == pytest.approx([0.6158, 0.5819, -1.7321, 0.5343, 0.0], abs=5e-5)


def test_it_reads_the_verdict_and_not_the_shaped_reward():
    import torch

    assert credit(reward=torch.tensor([9.0, -9, 3, 0]).double()) == credit()


@pytest.mark.parametrize(
    ("fields", "message"), [({"kind": "ppo"}, "choose one of grpo, rloo"), ({"beta": -0.1}, "Ddca.beta=-0.1")]
)
def test_refusals(fields, message):
    with pytest.raises(UserError, match=message):
        Ddca(**fields)
