"""DR. SAF by hand."""

from __future__ import annotations

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods import DrSaf, SelfLabel, load_method

EASY, HARD, NONE = 1, -1, 0


def rewards(shaper: DrSaf, lengths: list[int], correct: list[int], labels: list[int], **others) -> list[float]:
    batch = RolloutBatch.of(
        prompt_keys=["q"], group_size=len(lengths), lengths=lengths, correct=correct, parts={"label": labels}, **others
    )
    return shaper.apply(batch, batch.task_reward).value.tolist()


def test_by_hand():
    labels = [HARD] * 5 + [EASY, NONE, HARD, HARD, NONE]
    shaped = rewards(DrSaf(), list(range(100, 1001, 100)), [1, 1] + [0] * 8, labels)
    assert shaped == pytest.approx([1.03, 1.03, 0.08, 0.08, 0.08, 0.06, 0.05, 0.08, 0.08, 0.05])


def test_points_are_worth_their_weight_to_the_last_digits():
    shaped = rewards(DrSaf(weight=0.1), [10, 20], [1, 1], [EASY, HARD])
    assert shaped == pytest.approx([1.8, 1.1], abs=1e-15)


def test_an_easy_group_pays_its_shorter_half():
    shaped = rewards(DrSaf(), [10, 20, 30, 40], [1] * 4, [EASY, HARD, NONE, EASY])
    assert shaped == pytest.approx([1.08, 1.06, 1, 1.03])  # median 25
    assert rewards(DrSaf(), [10, 20, 30], [1] * 3, [NONE] * 3) == pytest.approx([1.05, 1.05, 1])  # at the median


def test_between_the_bounds_only_labels_count():
    assert rewards(DrSaf(), [10, 20], [1, 0], [HARD, EASY]) == pytest.approx([1.03, 0.01])


def test_with_none_right_the_median_is_of_all_rows():
    assert rewards(DrSaf(), [10, 20, 30], [0] * 3, [NONE] * 3) == pytest.approx([0, 0.05, 0.05])


@pytest.mark.parametrize(("variant", "easy", "hard"), [("paper", 1.05, 0), ("code", 1, 0.05)])
def test_groups_that_lie_on_a_boundary(variant, easy, hard):
    shaper = DrSaf(variant=variant)
    assert rewards(shaper, [50] * 20, [1] * 19 + [0], [NONE] * 20)[0] == pytest.approx(easy)
    assert rewards(shaper, [50] * 10, [1] * 3 + [0] * 7, [NONE] * 10)[-1] == pytest.approx(hard)
    assert rewards(shaper, [50] * 8, [1] * 8, [NONE] * 8)[0] == pytest.approx(1.05)
    assert rewards(shaper, [50] * 10, [1] * 2 + [0] * 8, [NONE] * 10)[-1] == pytest.approx(0.05)


def test_rows_that_do_not_count_are_in_no_share_and_no_median():
    shaped = rewards(
        DrSaf(), [10, 20, 30, 1, 1], [1, 1, 1, 0, 1], [EASY] * 5, scorable=[1, 1, 1, 0, 0], task_reward=[1] * 5
    )
    assert shaped == pytest.approx([1.08, 1.08, 1.03, 1, 1])


def test_the_recipe_asks_for_labels_and_needs_them():
    method = load_method("dr_saf", weight=0.1)
    assert isinstance(method.edit, SelfLabel)
    assert method.needs == {"parts.label"}
    batch = RolloutBatch.of(prompt_keys=["q"], group_size=2, lengths=[10, 20], correct=[1, 1])
    with pytest.raises(ValueError, match="parts has no 'label'"):
        method.apply(batch, {})


@pytest.mark.parametrize("weight", [-0.01, float("inf")])
def test_bad_fields_are_refused(weight):
    with pytest.raises(UserError, match=r"DrSaf\.weight="):
        DrSaf(weight=weight)
    with pytest.raises(UserError, match="choose one of paper, code"):
        DrSaf(variant="derived")
