"""The discounted reward by hand."""

from __future__ import annotations

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods import Discount, load_method


def out(shaper: Discount, thoughts: list[int], reward: list[float], **others):
    n = len(thoughts)
    batch = RolloutBatch.of(
        prompt_keys=["q"], group_size=n, lengths=[k + 7 for k in thoughts], think_lengths=thoughts,
        correct=[r > 0 for r in reward], task_reward=reward, **others,
    )  # fmt: skip
    return shaper.apply(batch, batch.task_reward)


def test_by_hand():
    shaped = out(Discount(gamma=0.999), [500, 2000, 0, 300], [1, 1, 1, 0]).value.tolist()
    assert shaped == pytest.approx([0.606379, 0.135200, 1, 0], abs=1e-6)
    defaults = out(Discount(), [200, 500, 1000, 4000], [1] * 4).value.tolist()
    assert defaults == pytest.approx([0.9802, 0.9512, 0.9048, 0.6703], abs=5e-5)


def test_the_format_part_is_not_discounted():
    parts = {"format": [0.1, 0.1, 0.0]}
    shaped = out(Discount(gamma=0.5), [1, 2, 1], [1.1, 0.1, 0.0], parts=parts).value.tolist()
    assert shaped == pytest.approx([0.6, 0.1, 0])


def test_negative_outcomes_are_softened_by_length_and_counted():
    result = out(Discount(gamma=0.5), [1, 2], [-1, 1])
    assert result.value.tolist() == [-0.5, 0.25]
    assert result.metrics["discount/softened_frac"] == 0.5


def test_rows_that_do_not_count_keep_their_reward():
    result = out(Discount(gamma=0.5), [1, 3], [1, 1], scorable=[1, 0])
    assert result.value.tolist() == [0.5, 1]
    assert result.metrics["discount/factor_mean"] == 0.5


def test_the_recipe_loads():
    batch = RolloutBatch.of(prompt_keys=["q"], group_size=2, lengths=[500, 500], correct=[1, 0])
    assert load_method("discounted", gamma=0.999).apply(batch, {})[0].reward.tolist() == pytest.approx([0.606379, 0])


@pytest.mark.parametrize("gamma", [0.0, -1.0, 1.01, float("nan")])
def test_bad_fields_are_refused(gamma):
    with pytest.raises(UserError, match=r"Discount\.gamma="):
        Discount(gamma=gamma)
