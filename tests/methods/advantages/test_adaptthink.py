"""AdaptThink's credit: by hand, with and without a reference, and rows that do not count."""

from __future__ import annotations

import pytest

from concise_rl.errors import UserError
from concise_rl.methods import load_method
from concise_rl.methods.advantages.adaptthink import AdaptThink

from ..one_group import one_group, values

LENGTHS = [5, 5, 50, 60]
NO_THINK = {"no_think": [1, 1, 0, 0]}


def test_against_the_reference_of_the_column():
    batch = one_group(LENGTHS, [1, 0, 1, 0], parts=NO_THINK, columns={"p_ref": [0.6]})
    assert values(AdaptThink(column="p_ref"), batch) == pytest.approx([0.45, -0.55, 0.4, -0.6])
    assert values(AdaptThink(column="p_ref", delta=0.2), batch)[:2] == pytest.approx([0.6, -0.4])


def test_without_one_against_the_rows_that_thought():
    batch = one_group(LENGTHS, [1, 0, 1, 1], parts=NO_THINK)
    assert values(AdaptThink(), batch) == pytest.approx([0.05, -0.95, 0, 0])


def test_rows_that_do_not_count():
    batch = one_group(LENGTHS, [1, 0, 1, 0], parts=NO_THINK, scorable=[1, 1, 1, 0])
    assert values(AdaptThink(), batch) == pytest.approx([0.05, -0.95, 0, 0])
    none_thought = one_group(LENGTHS, [1, 0, 1, 0], parts=NO_THINK, scorable=[1, 1, 0, 0])
    assert values(AdaptThink(), none_thought) == pytest.approx([0.55, -0.45, 0, 0])


def test_the_accuracy_of_both_kinds_is_told():
    batch = one_group(LENGTHS, [1, 0, 1, 1], parts=NO_THINK)
    out, _ = AdaptThink()(batch, batch.task_reward, None)
    assert out.metrics == {"adaptthink/accuracy_no_think": 0.5, "adaptthink/accuracy_think": 1}


@pytest.mark.parametrize("p_ref", [None, 1.2, "often"])
def test_a_reference_that_is_no_accuracy_is_refused(p_ref):
    batch = one_group(LENGTHS, [1, 0, 1, 0], parts=NO_THINK, columns={"p_ref": [p_ref]})
    with pytest.raises(UserError, match="an accuracy is a number from 0 to 1"):
        values(AdaptThink(column="p_ref"), batch)


def test_refusals():
    for delta in (-0.1, float("nan")):
        with pytest.raises(UserError, match=r"AdaptThink\.delta="):
            AdaptThink(delta=delta)
    assert load_method("adaptthink", delta=0.1).needs == {"parts.no_think", "logprobs"}
