"""GRLC by hand: the ranking of thought and answer, and who gets the bonus."""

from __future__ import annotations

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods import GroupLength, load_method


def rewards(shaper: GroupLength, reward: list[float], thoughts: list[int], answers: list[int], **others) -> list[float]:
    batch = RolloutBatch.of(
        prompt_keys=["q"], group_size=len(reward), lengths=[k + a for k, a in zip(thoughts, answers, strict=True)],
        think_lengths=thoughts, correct=[r > 0.5 for r in reward], task_reward=reward, **others,
    )  # fmt: skip
    return shaper.apply(batch, batch.task_reward).value.tolist()


def bonuses(
    reward: list[float], thoughts: list[int], answers: list[int], variant: str = "paper", **others
) -> list[float]:
    """What is added without the ranking: 1 for the thought, 10 for the answer."""
    shaper = GroupLength(lam_think=0, lam_answer=0, bonus_think=1, bonus_answer=10, variant=variant)
    shaped = rewards(shaper, reward, thoughts, answers, **others)
    return [round(s - r, 9) for s, r in zip(shaped, reward, strict=True)]


def test_by_hand():
    shaped = rewards(GroupLength(), [0.9, 0.2, 0.8, 0.1], [100, 50, 300, 400], [10, 20, 30, 40])
    assert shaped == pytest.approx([1.8107, 0.5155, 0.5917, -0.4179], abs=5e-5)


def test_the_ranking_alone():
    shaper = GroupLength(lam_think=1, lam_answer=0, bonus_think=0, bonus_answer=0)
    shaped = rewards(shaper, [0, 0, 0], [100, 200, 400], [5, 5, 5])
    assert shaped == pytest.approx([0.4444, 0.1111, -0.5556], abs=5e-5)
    both = GroupLength(lam_think=0, lam_answer=2, bonus_think=0, bonus_answer=0)
    assert rewards(both, [1, 0], [7, 7], [0, 10]) == pytest.approx([2, -1])


def test_a_bonus_is_worth_its_value_to_the_last_digits():
    shaper = GroupLength(lam_think=0, lam_answer=0, bonus_think=0.1, bonus_answer=0.2)
    assert rewards(shaper, [1, 1], [1, 2], [1, 2]) == pytest.approx([1.3, 1], abs=1e-15)


def test_the_first_of_the_shortest_gets_the_bonus_and_nobody_steps_in_for_it():
    assert bonuses([1, 1, 1], [5, 3, 3], [2, 2, 9]) == [10, 1, 0]
    assert bonuses([1, 1, 0], [5, 6, 3], [9, 9, 2]) == [0, 0, 0]


def test_the_gate_is_the_eightieth_percentile():
    # place 0.8 * 5 = 4 of 0, 0, 0, 0, 0.7, 1
    assert bonuses([0.7, 1, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6], [1] * 6) == [11, 0, 0, 0, 0, 0]
    assert bonuses([0.69, 1, 0, 0, 0.7, 0], [1, 2, 3, 4, 5, 6], [9, 1, 9, 9, 9, 9]) == [0, 10, 0, 0, 0, 0]
    # of two, only the best reaches it; of equals, all
    assert bonuses([0.9, 1], [1, 2], [2, 1]) == [0, 10]
    assert bonuses([0.3, 0.3], [1, 2], [2, 1]) == [1, 10]


@pytest.mark.parametrize(("n", "place"), [(2, 1), (5, 1), (9, 1), (10, 2), (14, 2), (15, 3), (20, 4)])
def test_the_released_gate_is_a_place_from_the_top(n, place):
    at_the_gate = [1.0 - 0.01 * k for k in range(n)]
    thoughts, answers = [[1 if k == at else 9 for k in range(n)] for at in (place - 1, place)]
    gained = bonuses(at_the_gate, thoughts, answers, variant="code")
    assert gained == [1 if k == place - 1 else 0 for k in range(n)]


def test_the_released_code_leaves_out_empty_parts_and_lets_a_bonus_lift_over_the_gate():
    assert bonuses([1, 1], [0, 4], [3, 0]) == [1, 10]
    assert bonuses([1, 1], [0, 4], [3, 0], variant="code") == [10, 1]
    assert bonuses([1, 1], [0, 0], [0, 0], variant="code") == [0, 0]


def test_one_row_and_rows_that_do_not_count():
    assert rewards(GroupLength(), [0.7], [5], [5]) == [0.7]
    assert rewards(GroupLength(), [0.7, 0.2], [5, 1], [5, 1], scorable=[1, 0]) == [0.7, 0.2]
    group = ([0.9, 0.2, 0.8, 0.1], [100, 50, 300, 400], [10, 20, 30, 40])
    beside = [[*rows, extra] for rows, extra in zip(group, (5.0, 1, 0), strict=True)]
    for variant in ("paper", "code"):
        shaper = GroupLength(variant=variant)
        alone = rewards(shaper, *group)
        assert rewards(shaper, *beside, scorable=[1, 1, 1, 1, 0]) == [*alone, 5.0]


def test_the_recipe_loads():
    batch = RolloutBatch.of(prompt_keys=["q"], group_size=2, lengths=[30, 60], think_lengths=[20, 40], correct=[1, 0])
    assert load_method("grlc").apply(batch, {})[0].reward.tolist() == pytest.approx([2.5, -0.5])


@pytest.mark.parametrize("field", ["lam_think", "lam_answer", "bonus_think", "bonus_answer"])
def test_bad_fields_are_refused(field):
    for value in (-0.5, float("nan")):
        with pytest.raises(UserError, match=rf"GroupLength\.{field}="):
            GroupLength(**{field: value})
