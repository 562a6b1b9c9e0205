"""PEAR by hand, from equations 5 to 7 of the paper."""

from __future__ import annotations

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods import Pear


def rewards(shaper: Pear, think: list[float], answer: list[float], correct: list[bool], **others) -> list[float]:
    batch = RolloutBatch.of(
        prompt_keys=["q"],
        group_size=len(think),
        lengths=[10] * len(think),
        correct=correct,
        think_entropy=think,
        answer_entropy=answer,
        **others,
    )
    return shaper.apply(batch, batch.task_reward).value.tolist()


def test_by_hand():
    think, answer = [0.9, 0.3, 0.5, 0.9], [0.4, 0.7, 0.0, 0.4]
    correct = [True, True, True, False]
    assert rewards(Pear(), think, answer, correct) == pytest.approx([0.5, 1.0, 0.5, 0.0])
    assert rewards(Pear(alpha=2.0, score=0.9, format_reward=0.1), think, answer, correct) == pytest.approx(
        [0.8, 0.9, 0.4, 0.1]
    )
    assert rewards(Pear(alpha=-1.0), think, answer, correct) == pytest.approx([-0.3, 0.0, 0.5, 0.0])


def test_the_reward_has_no_floor_and_its_ceiling_is_the_score():
    assert rewards(Pear(), [3.0, 0.0], [0.0, 5.0], [True, True]) == [-2.0, 1.0]


def test_it_replaces_the_task_reward_and_leaves_rows_without_a_verdict():
    shaped = rewards(
        Pear(), [0.0] * 3, [0.0] * 3, [True, False, False], task_reward=[7.0, 7.0, 7.0], scorable=[1, 1, 0]
    )
    assert shaped == [1.0, 0.0, 7.0]


def test_a_batch_without_entropies_is_refused():
    batch = RolloutBatch.of(prompt_keys=["q"], group_size=1, lengths=[1], correct=[True])
    with pytest.raises(UserError, match="think_entropy"):
        Pear().apply(batch, batch.task_reward)


@pytest.mark.parametrize("fields", [{"score": 0.0}, {"score": 1.1}, {"format_reward": 1.0}, {"alpha": float("inf")}])
def test_bad_fields_are_refused(fields):
    with pytest.raises(UserError, match=f"Pear.{next(iter(fields))}="):
        Pear(**fields)
