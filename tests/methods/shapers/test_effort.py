"""The reward of effort levels by hand."""

from __future__ import annotations

import random

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.data import Prompt
from concise_rl.errors import UserError
from concise_rl.methods import Effort, load_method


def rewards(shaper: Effort, lengths: list[int], reward: list[float], low=(True,), **others) -> list[float]:
    batch = RolloutBatch.of(
        prompt_keys=[f"q{p}" for p in range(len(low))], group_size=len(lengths) // len(low), lengths=lengths,
        correct=[r > 0 for r in reward], task_reward=reward, columns={"low_effort": list(low)}, **others,
    )  # fmt: skip
    return shaper.apply(batch, batch.task_reward).value.tolist()


def test_by_hand():
    shaped = rewards(Effort(), [3000, 5000, 30000, 5000, 30000, 15000], [1, 1, 1, 0, 0, 1])
    assert shaped == pytest.approx([1.08, 1 + 0.1 * 2 / 3, 0.9, 0, -0.1, 1])
    assert rewards(Effort(), [30000], [0.5]) == pytest.approx([0.4])


def test_only_prompts_that_ask_for_little_effort_pay():
    assert rewards(Effort(), [30000] * 4, [1] * 4, low=[True, False, None, 1]) == pytest.approx([0.9, 1, 1, 0.9])


def test_weights_and_the_cap():
    assert rewards(Effort(w=0.0), [3000, 90000], [1, 1]) == [1, 1]
    assert rewards(Effort(q=0.0), [30000], [1]) == [1]
    assert rewards(Effort(w=5.0), [3000, 0], [1, 1]) == [2, 2]  # l is at most 1
    assert rewards(Effort(ub=100.0), [200], [1]) == pytest.approx([0.9])


def test_rows_that_do_not_count_keep_their_reward():
    assert rewards(Effort(), [3000, 3000], [1, 1], scorable=[1, 0]) == pytest.approx([1.08, 1])


def test_the_flag_is_no_text():
    with pytest.raises(UserError, match=r"columns\.low_effort holds the text 'false'"):
        rewards(Effort(), [3], [1], low=["false"])


def test_the_recipes_edit_gives_the_column_that_its_shaper_needs():
    method = load_method("effort", share=1.0)
    assert method.needs == {"columns.low_effort"}
    edited = method.edit(Prompt.of("2+2?", "4"), random.Random(0))
    batch = RolloutBatch.of(
        prompt_keys=[edited.id], group_size=2, lengths=[3000, 30000], correct=[1, 1],
        columns={"low_effort": [edited.columns["low_effort"]]},
    )  # fmt: skip
    assert method.apply(batch, {})[0].reward.tolist() == pytest.approx([1.08, 0.9])


@pytest.mark.parametrize("fields", [{"w": -0.1}, {"q": float("nan")}, {"ub": 0.0}])
def test_bad_fields_are_refused(fields):
    (name,) = fields
    with pytest.raises(UserError, match=rf"Effort\.{name}="):
        Effort(**fields)
