"""QGLAS by hand, and that no credit changes its sign."""

from __future__ import annotations

import pytest
import torch

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.advantages.group_relative import GroupRelative
from concise_rl.methods.advantages.qglas import Qglas

LENGTHS = [400, 900, 700, 1600]


def credit(reward, lengths=LENGTHS, scorable=None, **fields) -> list[float]:
    batch = RolloutBatch.of(
        prompt_keys=["q"],
        group_size=len(reward),
        lengths=lengths,
        correct=[r > 0.5 for r in reward],
        scorable=scorable,
    )
    return Qglas(**fields).apply(batch, torch.tensor(reward, dtype=torch.float64)).value.tolist()


def test_the_worked_examples():
    assert credit([1, 1, 0, 1]) == pytest.approx([0.4, 0.2707, -0.75, 0.25], abs=5e-5)
    assert credit([0.9, 0.7, 0.2, 0.8]) == pytest.approx([0.385, 0.0686, -0.45, 0.15], abs=5e-5)


def test_grpo_inside_divides_credit_and_bonus():
    centred = credit([1, 1, 0, 1])
    assert credit([1, 1, 0, 1], inner="group") == pytest.approx([a / (0.5 + 1e-4) for a in centred])


def test_without_a_positive_credit_the_inner_credit_stands():
    assert credit([1, 1, 1, 1]) == [0.0] * 4
    assert credit([0, 0, 0, 0]) == [0.0] * 4
    assert credit([1], lengths=[5]) == [0.0]


def test_the_longest_good_answer_gets_nothing_and_a_full_saving_is_capped():
    base = [0.25, 0.25, -0.75, 0.25]
    found = credit([1, 1, 0, 1], lengths=[10, 20, 5, 2000])
    assert [f - b for f, b in zip(found, base, strict=True)] == pytest.approx([0.15, 0.15, 0, 0]), "both save over half"
    assert credit([1, 1, 0, 1], lengths=[0, 0, 0, 0]) == base


def test_rows_without_a_verdict_set_no_reference():
    found = credit([1, 1, 0, 1, 1], lengths=[*LENGTHS, 1], scorable=[True] * 4 + [False])
    assert found == pytest.approx([0.4, 0.2707, -0.75, 0.25, 0.0], abs=5e-5)


@pytest.mark.parametrize("inner", ["centred", "group"])
@pytest.mark.parametrize("seed", range(20))
def test_no_sign_flips(inner, seed):
    generator = torch.Generator().manual_seed(seed)
    batch = RolloutBatch.of(
        prompt_keys=["a", "b"],
        group_size=6,
        lengths=torch.randint(0, 99, (12,), generator=generator),
        correct=[True] * 12,
    )
    reward = torch.randn(12, generator=generator, dtype=torch.float64)
    scale = {"centred": "none", "group": "group"}[inner]
    before = GroupRelative(scale=scale).apply(batch, reward).value
    after = Qglas(inner=inner).apply(batch, reward).value
    assert torch.equal(before.sign(), after.sign())
    assert bool((after >= before).all())
    assert bool((after > before).any())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inner": "rloo"}, "choose one of centred, group"),
        ({"c": 0}, "Qglas.c=0"),
        ({"bmin": 0.7}, "need 0 <= bmin <= bmax"),
    ],
)
def test_refusals(fields, message):
    with pytest.raises(UserError, match=message):
        Qglas(**fields)
