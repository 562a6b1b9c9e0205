"""GFPO by hand: which rows are kept, what they earn, and k by difficulty."""

from __future__ import annotations

import pytest
import torch

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.filters.gfpo import Gfpo
from concise_rl.methods.recipes import load_method

LENGTHS, CORRECT = [900, 100, 300, 500, 200, 800], [True, False, True, True, False, True]


def batch_of(lengths=LENGTHS, correct=CORRECT, n_prompts=1, **others) -> RolloutBatch:
    return RolloutBatch.of(
        prompt_keys=[f"q{p}" for p in range(n_prompts)],
        group_size=len(lengths) // n_prompts,
        lengths=lengths,
        correct=correct,
        **others,
    )


def kept(component: Gfpo, batch: RolloutBatch, state=None) -> list[int]:
    return component(batch, component.init() if state is None else state)[0].nonzero().flatten().tolist()


def test_the_worked_example():
    for metric, rows, credit in (
        ("shortest", [1, 2, 4], [0, -(2**-0.5), 2**0.5, 0, -(2**-0.5), 0]),
        ("token_efficiency", [2, 3, 5], [0] * 6),
    ):
        assert kept(Gfpo(k=3, metric=metric), batch_of()) == rows
        method = load_method("gfpo", k=3, metric=metric)
        result, _ = method.apply(batch_of(), method.init())
        assert result.credit.tolist() == pytest.approx(credit, abs=1e-12)
        assert result.counts.nonzero().flatten().tolist() == rows
        assert not result.credit[~result.counts].any()


def test_the_deviation_has_no_epsilon_unless_asked():
    method = load_method("gfpo", k=3, epsilon=1e-4)
    result, _ = method.apply(batch_of(), method.init())
    deviation = (2 / 9) ** 0.5
    assert result.credit[2].item() == pytest.approx((2 / 3) / (deviation + 1e-4))


def test_ties_keep_the_order_of_the_batch():
    assert kept(Gfpo(k=2), batch_of([5, 3, 3, 3], [True] * 4)) == [1, 2]
    assert kept(Gfpo(k=2, metric="token_efficiency"), batch_of([4, 2, 2, 2], [False] * 4)) == [0, 1]


def test_no_tokens_divide_by_one():
    # 1 / max(1, 0) = 1 is more than 1 / 2, and no more than 1 / 1.
    assert kept(Gfpo(k=1, metric="token_efficiency"), batch_of([2, 0], [True, True])) == [1]
    assert kept(Gfpo(k=1, metric="token_efficiency"), batch_of([1, 0], [True, True])) == [0]


def test_rows_without_a_verdict_are_not_kept_and_few_are_all_kept():
    batch = batch_of(scorable=[True, False, True, True, False, True])
    assert kept(Gfpo(k=3), batch) == [2, 3, 5]
    assert kept(Gfpo(k=5), batch) == [0, 2, 3, 5]
    assert kept(Gfpo(), batch_of()) == list(range(6)), "no more rows than k"
    assert kept(Gfpo(k=1), batch_of(scorable=[False] * 6)) == []


def test_groups_are_cut_one_by_one():
    assert kept(Gfpo(k=1), batch_of([9, 8, 1, 2], [True] * 4, n_prompts=2)) == [1, 2]


def test_a_negative_reward_is_best_when_long_and_warns():
    batch = batch_of([10, 20, 40], [False] * 3, task_reward=[-1.0, -1.0, -1.0])
    with pytest.warns(UserWarning, match="negative reward"):
        assert kept(Gfpo(k=1, metric="token_efficiency"), batch) == [2]
    assert kept(Gfpo(k=1), batch) == [0]


def test_k_follows_the_quartiles_of_the_means_seen_so_far():
    component = Gfpo(adaptive=True, k=8, k_very_hard=7, k_hard=6, k_medium=5, k_easy=4, ready_after=4)

    def step(state, *right_of_eight: int):
        correct = [row < n for n in right_of_eight for row in range(8)]
        batch = batch_of([1] * len(correct), correct, n_prompts=len(right_of_eight))
        keep, state = component(batch, state)
        return batch.by_group(keep).sum(dim=1).tolist(), state

    # Means 0, 1/8, 1/2: fewer than four seen. The fourth, 1, joins first: q75 of (0, .125, .5, 1) is .625.
    counts, state = step(component.init(), 0, 1, 4, 8)
    assert counts == [8, 8, 8, 4]
    assert state == {"means": [0.0, 0.125, 0.5, 1.0]}
    # 0: quartiles of (0, 0, .125, .5, 1) are 0, .125, .5; 0 is not below 0 but below .125.
    counts, state = step(state, 0)
    assert counts == [6]
    # .5: (0, 0, .125, .5, .5, 1) has .03125, .3125, .5; .5 is not below .5.
    counts, state = step(state, 4)
    assert counts == [4]
    # .25 in (0, 0, .125, .25, .5, .5, 1): q25 .0625, q50 .25, q75 .5.
    counts, state = step(state, 2)
    assert counts == [5]
    # A minimum of its own is below q25 only once there are means below it to spread: -1 does it.
    keep, state = component(batch_of([1] * 8, [False] * 8, task_reward=[-1.0] * 8), state)
    assert int(keep.sum()) == 7
    assert state["means"][0] == -1.0


def test_a_group_in_which_nothing_counts_has_no_mean():
    component = Gfpo(adaptive=True)
    _, state = component(batch_of(scorable=[False] * 6), component.init())
    assert state == {"means": []}
    _, state = component(batch_of(scorable=[True, True] + [False] * 4), state)
    assert state == {"means": [0.5]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metric": "longest"}, "Gfpo.metric='longest': choose one of shortest, token_efficiency"),
        ({"k": 0}, "Gfpo.k=0"),
        ({"k_easy": -1}, "Gfpo.k_easy=-1"),
        ({"ready_after": -1}, "Gfpo.ready_after=-1"),
    ],
)
def test_refusals(fields, message):
    with pytest.raises(UserError, match=message):
        Gfpo(**fields)


def test_credit_is_exactly_zero_on_rejected_rows_and_they_are_in_no_mean():
    method = load_method("gfpo", k=3)
    one, _ = method.apply(batch_of(), method.init())
    other, _ = method.apply(batch_of(lengths=[5000, 100, 300, 700, 200, 900]), method.init())
    assert torch.equal(one.credit, other.credit)
