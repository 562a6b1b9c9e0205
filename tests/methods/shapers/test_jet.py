"""JET's reward by hand."""

from __future__ import annotations

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods import Jet, load_method


def rewards(
    shaper: Jet, lengths: list[int], correct: list[int], form=None, n_prompts: int = 1, **others
) -> list[float]:
    batch = RolloutBatch.of(
        prompt_keys=[f"q{p}" for p in range(n_prompts)], group_size=len(lengths) // n_prompts, lengths=lengths,
        correct=correct, parts={"format": correct if form is None else form}, **others,
    )  # fmt: skip
    return shaper.apply(batch, batch.task_reward).value.tolist()


def test_by_hand():
    assert rewards(Jet(), [400, 900, 700, 1600], [1, 1, 0, 1]) == pytest.approx([2.19, 1.715, 0, 1.05])


def test_format_alone_one_right_row_and_none():
    assert rewards(Jet(), [10, 20], [0, 1], form=[1, 0]) == pytest.approx([0.1, 0.95])
    assert rewards(Jet(), [10, 20], [0, 0]) == [0, 0]
    assert rewards(Jet(), [30, 30], [1, 1]) == pytest.approx([1.05, 1.05])


def test_the_released_code_compares_all_questions_of_the_step():
    lengths, correct = [100, 200, 300, 500], [1, 1, 1, 1]
    assert rewards(Jet(), lengths, correct, n_prompts=2) == pytest.approx([2.19, 1.05, 2.19, 1.05])
    released = rewards(Jet(variant="code"), lengths, correct, n_prompts=2)
    assert released == pytest.approx([1.05 + 1.14 * share for share in (1, 0.75, 0.5, 0)])
    assert rewards(Jet(variant="code"), [100, 200, 300, 400], [0, 0, 0, 1], n_prompts=2) == pytest.approx(
        [0, 0, 0, 1.05]
    )
    assert (Jet().across_groups, Jet(variant="code").across_groups) == (False, True)


def test_fields():
    assert rewards(Jet(alpha=2.0, delta=0.5), [10, 20], [1, 1]) == pytest.approx([2.5, 1.5])


def test_it_replaces_needs_the_format_and_leaves_rows_that_do_not_count():
    assert Jet.replaces
    assert Jet().needs == {"parts.format"}
    assert rewards(Jet(), [5, 10, 20], [1, 1, 1], scorable=[0, 1, 1], task_reward=[7, 7, 7]) == pytest.approx(
        [7, 2.19, 1.05]
    )
    batch = RolloutBatch.of(prompt_keys=["q"], group_size=1, lengths=[5], correct=[1])
    with pytest.raises(ValueError, match="parts has no 'format'"):
        load_method("jet").apply(batch, {})


@pytest.mark.parametrize("fields", [{"alpha": -1.0}, {"delta": 1.5}, {"delta": float("nan")}])
def test_bad_fields_are_refused(fields):
    (name,) = fields
    with pytest.raises(UserError, match=rf"Jet\.{name}="):
        Jet(**fields)
