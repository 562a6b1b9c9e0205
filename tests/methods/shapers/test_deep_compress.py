"""DeepCompress by hand, and its running accuracy over steps."""

from __future__ import annotations

import pytest
import torch

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods import DeepCompress, load_method


def shape(shaper: DeepCompress, state, lengths: list[int], correct: list[int], **others):
    outcome = [1.0 if c else -1.0 for c in correct]
    batch = RolloutBatch.of(
        prompt_keys=["q"], group_size=len(lengths), lengths=lengths, correct=correct, task_reward=outcome, **others
    )
    out, state = shaper(batch, batch.task_reward, state)
    return out.value.tolist(), state


def test_by_hand():
    shaped, state = shape(DeepCompress(), {"P_b": 0.5}, [400, 900, 700, 1600], [1, 1, 0, 1])
    assert shaped == pytest.approx([1.1141, 1.1, -1, 1.0804], abs=5e-5)
    assert state == {"P_b": pytest.approx(0.5025)}


def test_a_hard_prompt_pays_long_answers_and_an_easy_one_short_answers():
    lengths, correct = [100, 200, 300, 400], [1, 1, 1, 0]
    hard, _ = shape(DeepCompress(), DeepCompress().init(), lengths, correct)
    easy, _ = shape(DeepCompress(P_b=0.5), DeepCompress(P_b=0.5).init(), lengths, correct)
    assert hard == pytest.approx([1.0834, 1.0944, 1.1056, -1], abs=5e-5)
    assert easy == pytest.approx([1.1166, 1.1056, 1.0944, -1], abs=5e-5)


def test_equal_lengths_get_half_the_weight():
    assert shape(DeepCompress(weight=1.0), {"P_b": 0.2}, [30, 30], [1, 1])[0] == [1.5, 1.5]


def test_a_step_is_scored_with_the_accuracy_of_the_steps_before_it():
    shaper = DeepCompress(decay=0.5)
    state = shaper.init()
    first, state = shape(shaper, state, [10, 30], [1, 0])
    assert state == {"P_b": 0.75}
    assert first[0] == pytest.approx(1 + 0.2 * float(torch.sigmoid(torch.tensor(-0.5))), abs=1e-6)
    _, state = shape(shaper, state, [10, 30], [1, 1])
    assert state == {"P_b": 0.875}
    unchanged, state = shape(shaper, state, [10, 30], [1, 1], scorable=[0, 0])
    assert (unchanged, state) == ([1, 1], {"P_b": 0.875})


def test_rows_that_do_not_count_are_in_no_rate_and_no_deviation():
    alone, after = shape(DeepCompress(), {"P_b": 0.5}, [400, 900, 700], [1, 1, 0])
    beside, after_beside = shape(
        DeepCompress(), {"P_b": 0.5}, [400, 900, 700, 9999], [1, 1, 0, 1], scorable=[1, 1, 1, 0]
    )
    assert beside == [*alone, 1]
    assert after == after_beside


def test_the_accuracy_is_that_of_the_step_and_p_that_of_the_group():
    batch = RolloutBatch.of(prompt_keys=["a", "b"], group_size=2, lengths=[10, 30, 10, 30], correct=[1, 1, 0, 0])
    method = load_method("deep_compress", P_b=0.5)
    result, states = method.apply(batch, method.init())
    assert result.reward[0] > result.reward[1] > 1
    assert states == {"shaper.deep_compress": {"P_b": 0.5}}


@pytest.mark.parametrize("fields", [{"weight": -1.0}, {"weight": float("nan")}, {"decay": 1.5}, {"P_b": -0.1}])
def test_bad_fields_are_refused(fields):
    (name,) = fields
    with pytest.raises(UserError, match=rf"DeepCompress\.{name}="):
        DeepCompress(**fields)
