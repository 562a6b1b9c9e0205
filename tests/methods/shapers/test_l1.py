"""L1's rewards by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from concise_rl.errors import DataError, UserError
from concise_rl.methods.recipes import load_method
from concise_rl.methods.shapers.l1 import L1
from tests.methods.one_group import one_group, values


def asked(lengths: list[int], correct: list[int], n: object = 1000, **others):
    return one_group(lengths, correct, columns={"num_tokens": [n]}, **others)


def test_exact_by_hand():
    batch = asked([1200, 800, 1000], [1, 0, 1])
    assert values(L1(), batch) == pytest.approx([0.94, -0.06, 1])


def test_exact_has_no_lower_bound_and_takes_a_budget_of_nothing():
    assert values(L1(), asked([100_000], [0])) == pytest.approx([-29.7])
    assert values(L1(), asked([500, 0], [1, 0], n=0)) == pytest.approx([0.85, 0])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [0.44, 0, 0.515]),
        ({"variant": "code", "alpha": 0.01}, [0, 0, 0.75]),
        ({"variant": "code_added", "alpha": 0.01}, [1, 1, 1.75]),
    ],
)
def test_max_by_hand(fields, expected):
    batch = asked([1200, 800, 950], [1, 0, 1])
    assert values(L1(kind="max", **fields), batch) == pytest.approx(expected)


def test_max_halves_the_reward_at_its_budget_and_is_never_negative():
    assert values(L1(kind="max"), asked([1000, 9000, 0], [1, 1, 1])) == pytest.approx([0.5, 0, 0.8])
    assert values(L1(kind="max", alpha=0.01), asked([1000, 9000, 0], [1, 1, 1])) == pytest.approx([0.5, 0, 1])
    assert values(L1(kind="max", variant="code"), asked([1000, 9000], [1, 1])) == pytest.approx([0.5, 0])


def test_a_prompt_without_a_budget_keeps_its_rewards():
    for kind in ("exact", "max"):
        shaper = L1(kind=kind)
        batch = asked([1200, 800], [1, 0], n=None)
        assert values(shaper, batch) == [1, 0]
        out, _ = shaper(batch, batch.task_reward, None)
        assert out.metrics == {"l1/deviation_mean": 0.0, "l1/over_frac": 0.0}


def test_a_budget_may_come_from_an_array():
    assert values(L1(), asked([1200], [1], n=np.int64(1000))) == pytest.approx([0.94])


@pytest.mark.parametrize("n", [-1, "1000", True, math.nan, math.inf])
def test_what_is_no_budget_is_refused_by_prompt(n):
    with pytest.raises(DataError, match=r"column 'num_tokens' of prompt q is .*: give a number of 0 or more, or null"):
        values(L1(), asked([5], [1], n=n))


def test_recipes_say_their_kind_once_for_prompt_and_reward():
    for name, kind in (("l1_exact", "exact"), ("l1_max", "max")):
        method = load_method(name)
        assert method.edit.kind.value == method.shapers[0].kind.value == kind
        assert method.needs == {"columns.num_tokens"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "about"}, "L1.kind='about': choose one of exact, max"),
        ({"alpha": -1e-4}, "L1.alpha=-0.0001"),
        ({"alpha": math.nan}, "L1.alpha=nan"),
        ({"kind": "max", "delta": 1.5}, "L1.delta=1.5"),
        ({"kind": "max", "variant": "other"}, "choose one of paper, code, code_added"),
        ({"variant": "code"}, "L1.variant='code': kind=exact has one form only"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        L1(**fields)
