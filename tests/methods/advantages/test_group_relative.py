"""Group-relative and leave-one-out credit, against TRL's arithmetic and the definitions, written out anew."""

from __future__ import annotations

import pytest
import torch

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods import GroupRelative, LeaveOneOut


def make_batch(
    n_prompts: int, group_size: int, seed: int = 0, unscorable: float = 0.0
) -> tuple[RolloutBatch, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    n = n_prompts * group_size
    reward = torch.randn(n, generator=generator, dtype=torch.float64)
    batch = RolloutBatch.of(
        prompt_keys=[f"p{p}" for p in range(n_prompts)],
        group_size=group_size,
        lengths=torch.randint(1, 9, (n,), generator=generator),
        correct=torch.rand(n, generator=generator) < 0.5,
        scorable=torch.rand(n, generator=generator) >= unscorable,
    )
    return batch, reward


def trl_advantages(batch: RolloutBatch, reward: torch.Tensor, scale: str) -> torch.Tensor:
    """TRL's recipe: unscorable is NaN, NaN-aware mean and Bessel-corrected deviation, then NaN becomes 0."""
    rows = [float("nan") if not ok else float(r) for r, ok in zip(reward, batch.scorable, strict=True)]

    def deviation(values: list[float]) -> float:
        kept = torch.tensor([v for v in values if v == v], dtype=torch.float64)
        return float(kept.var(unbiased=True)) ** 0.5 if len(kept) > 1 else 0.0

    out = []
    for p in range(batch.n_prompts):
        group = rows[p * batch.group_size : (p + 1) * batch.group_size]
        kept = [v for v in group if v == v]
        for value in group:
            if value != value:
                out.append(0.0)
                continue
            centred = value - sum(kept) / len(kept)
            divisor = {"group": deviation(group), "batch": deviation(rows)}.get(scale)
            out.append(centred if divisor is None else centred / (divisor + 1e-4))
    return torch.tensor(out, dtype=torch.float64)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize(("group_size", "unscorable"), [(4, 0.0), (5, 0.3), (2, 0.6), (1, 0.0), (3, 1.0)])
def test_group_relative_is_trl_arithmetic(scale: str, group_size: int, unscorable: float) -> None:
    batch, reward = make_batch(6, group_size, seed=group_size, unscorable=unscorable)
    credit = GroupRelative(scale=scale).apply(batch, reward).value
    torch.testing.assert_close(credit, trl_advantages(batch, reward, scale))


def test_worked_group() -> None:
    batch = RolloutBatch.of(prompt_keys=["a"], group_size=4, lengths=[1, 1, 1, 1], correct=[1, 0, 0, 0])
    reward = batch.task_reward
    assert GroupRelative(scale="none").apply(batch, reward).value.tolist() == [0.75, -0.25, -0.25, -0.25]
    # deviation: sqrt((0.75² + 3 * 0.25²) / 3) = 0.5
    assert GroupRelative().apply(batch, reward).value.tolist() == pytest.approx([0.75 / 0.5001] + [-0.25 / 0.5001] * 3)
    assert LeaveOneOut().apply(batch, reward).value.tolist() == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3])


def test_batch_scale_counts_the_spread_between_groups() -> None:
    batch = RolloutBatch.of(prompt_keys=["a", "b"], group_size=2, lengths=[1] * 4, correct=[1, 0, 0, 0])
    assert GroupRelative(scale="batch").apply(batch, batch.task_reward).value.tolist() == pytest.approx(
        [0.5 / 0.5001, -0.5 / 0.5001, 0, 0]
    )


def test_leave_one_out_is_the_mean_of_the_others() -> None:
    batch, reward = make_batch(8, 5, seed=3, unscorable=0.5)
    expected = []
    for i in range(batch.n_rows):
        first = i // 5 * 5
        others = [float(reward[j]) for j in range(first, first + 5) if j != i and batch.scorable[j]]
        expected.append(float(reward[i]) - sum(others) / len(others) if others and batch.scorable[i] else 0.0)
    torch.testing.assert_close(LeaveOneOut().apply(batch, reward).value, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("bad", [{"scale": "groups"}, {"epsilon": -1e-4}, {"epsilon": float("nan")}])
def test_refuses_and_names_the_field(bad: dict) -> None:
    with pytest.raises(UserError, match=rf"GroupRelative\.{next(iter(bad))}="):
        GroupRelative(**bad)


def test_the_deviation_of_a_population_and_none_added_to_it() -> None:
    batch, _ = make_batch(2, 4)
    reward = torch.tensor([1.0, 0, 1, 1, 2, 2, 2, 2], dtype=torch.float64)
    credit = GroupRelative(epsilon=0.0, population=True).apply(batch, reward).value
    assert credit.tolist() == pytest.approx([3**-0.5, -(3**0.5), 3**-0.5, 3**-0.5, 0, 0, 0, 0])
    step = GroupRelative(scale="batch", epsilon=0.0, population=True).apply(batch, reward).value
    assert step[0].item() == pytest.approx(0.25 / float(reward.std(correction=0)))
    level = GroupRelative(scale="batch", epsilon=0.0).apply(batch, torch.ones_like(reward)).value
    assert not level.any()


@pytest.mark.parametrize("advantage", [GroupRelative(), GroupRelative(scale="none"), LeaveOneOut()])
def test_equal_rewards_get_exactly_nothing(advantage) -> None:
    batch = RolloutBatch.of(prompt_keys=["a"], group_size=6, lengths=[1] * 6, correct=[1] * 6, task_reward=[0.8] * 6)
    assert advantage.apply(batch, batch.task_reward).value.tolist() == [0.0] * 6
