"""Shop-R1's scaling by hand, and through the verifier that yields its parts."""

from __future__ import annotations

import json

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods import Dars
from concise_rl.verifiers import JsonAction


def batch_of(short: list[float], long: list[float], others: list[float], **rows) -> RolloutBatch:
    task_reward = [0.1 * s + x + o for s, x, o in zip(short, long, others, strict=True)]
    return RolloutBatch.of(
        prompt_keys=["q"],
        group_size=len(short),
        lengths=[9] * len(short),
        correct=[False] * len(short),
        task_reward=task_reward,
        parts={"short_similarity": short, "long_similarity": long},
        **rows,
    )


def rewards(shaper: Dars, batch: RolloutBatch) -> list[float]:
    return shaper.apply(batch, batch.task_reward).value.tolist()


def test_by_hand():
    short, long = [0.8, 0.8, 0.5, 0.0, 0.75], [0.5, 0.9, 1.0, 0.0, 0.75]
    batch = batch_of(short, long, [1.0, 1.0, 1.0, 0.8, 0.0])
    assert rewards(Dars(), batch) == pytest.approx([1.08, 901.08, 1001.0, 0.8, 750.075])
    assert rewards(Dars(factor=2.0, threshold=0.95), batch) == pytest.approx([1.0, 1.0, 3.0, 0.8, 0.0], abs=1e-6)


def test_factor_one_without_threshold_changes_nothing():
    batch = batch_of([0.3, 0.0, 1.0], [0.2, 0.7, 0.0], [0.5, 0.9, 0.0])
    assert rewards(Dars(factor=1.0, threshold=0.0), batch) == pytest.approx(batch.task_reward.tolist())


def test_rows_without_a_verdict_keep_what_they_came_with():
    batch = batch_of([1.0, 1.0], [1.0, 1.0], [0.0, 0.0], scorable=[True, False])
    assert rewards(Dars(), batch) == pytest.approx([1000.1, 1.1])


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (
            {"type": "type_and_submit", "name": "search box", "text": "red running shoes"},
            0.5 + 0.3 + 0.1 + 0.1 + 0.1 + 1000,
        ),
        ({"type": "type_and_submit", "name": "search box", "text": "lamp"}, 0.5 + 0.3 + 0.1 + 0.1 + 0.1),
        ({"type": "type_and_submit", "name": "footer", "text": "red running shoes"}, 0.5 + 0.3 + 0.1 + 0.1 + 1000),
        ({"type": "click", "name": "search box"}, 0.5),
    ],
)
def test_whole_reward_of_a_judged_action(action, expected):
    reference = json.dumps({"type": "type_and_submit", "name": "search box", "text": "red running shoes"})
    verdict = JsonAction()(json.dumps({"rationale": "they want shoes", "action": action}), reference)
    batch = RolloutBatch.of(
        prompt_keys=["q"],
        group_size=1,
        lengths=[40],
        correct=[verdict.correct],
        task_reward=[verdict.reward],
        parts={name: [value] for name, value in verdict.parts.items()},
    )
    assert rewards(Dars(), batch) == pytest.approx([expected])


def test_one_similarity_without_the_other_is_refused():
    parts = {"short_similarity": [0.5]}
    batch = RolloutBatch.of(prompt_keys=["q"], group_size=1, lengths=[1], correct=[True], parts=parts)
    with pytest.raises(
        UserError, match=r"'long_similarity', only \['short_similarity'\]; use the verifier json_action"
    ):
        Dars().apply(batch, batch.task_reward)


def test_without_parts_the_answer_is_the_hard_field():
    batch = RolloutBatch.of(prompt_keys=["q"], group_size=2, lengths=[1, 1], correct=[True, False])
    assert rewards(Dars(), batch) == [1000, 0]
    assert rewards(Dars(), batch.replace(parts={"repetition": batch.task_reward})) == [1000, 0]


@pytest.mark.parametrize("fields", [{"factor": -1.0}, {"threshold": 1.5}])
def test_bad_fields_are_refused(fields):
    with pytest.raises(UserError, match=f"Dars.{next(iter(fields))}="):
        Dars(**fields)
