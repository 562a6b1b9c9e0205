"""CANON: worked numbers, the released code's loop derived anew, the schedules, what the default variant promises."""

from __future__ import annotations

import math

import pytest
import torch

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods import Canon, GroupRelative

NAMES = [
    "first_intra_later_inter",
    "first_inter_later_intra",
    "cosine_first_intra_later_inter",
    "cosine_first_inter_later_intra",
]


def one_group(lengths: list[int], correct: list[int], **others) -> RolloutBatch:
    return RolloutBatch.of(prompt_keys=["a"], group_size=len(lengths), lengths=lengths, correct=correct, **others)


def random_batch(
    group_size: int, seed: int, *, ties: bool = True, unscorable: float = 0.0, step: int = 0
) -> RolloutBatch:
    """Eight groups; with ties, metrics come from few values (exact in float32), else all differ within a group."""
    generator = torch.Generator().manual_seed(seed)
    n = 8 * group_size
    draw = torch.randint(1, 5, (n,), generator=generator) if ties else torch.randperm(n, generator=generator) + 1
    return RolloutBatch.of(
        prompt_keys=[f"p{p}" for p in range(8)],
        group_size=group_size,
        lengths=draw,
        mean_entropy=draw[torch.arange(n - 1, -1, -1)] / 8,
        correct=torch.rand(n, generator=generator) < 0.6,
        scorable=torch.rand(n, generator=generator) >= unscorable,
        step=step,
    )


def released_loop(batch: RolloutBatch, metric: str, alpha: float, beta: float, mu: float) -> list[float]:
    """What the released estimator does, from its description: a sort and two means for each prompt, in float32."""
    measure = batch.lengths if metric == "length" else batch.mean_entropy
    score = batch.task_reward.float()
    credit = [0.0] * batch.n_rows
    for p in range(batch.n_prompts):
        rows = [i for i in range(p * batch.group_size, (p + 1) * batch.group_size) if batch.scorable[i]]
        ordered = sorted(rows, key=lambda i: float(measure[i]))
        small, big = ordered[: len(rows) // 2], ordered[len(rows) // 2 :]
        mean_small = mean_big = 0.0
        if len(rows) > 1:
            mean_small, mean_big = score[small].mean().item(), score[big].mean().item()
        for i in rows:
            r = score[i].item()
            if metric == "length":
                inter = alpha * r - mean_small + beta if i in big else r - alpha * mean_big - beta
            else:
                inter = r - alpha * mean_small + beta if i in big else alpha * r - mean_big - beta
            credit[i] = mu * inter + (1 - mu) * (r - (mean_big if i in big else mean_small))
    return credit


@pytest.mark.parametrize("metric", ["length", "entropy"])
@pytest.mark.parametrize(("alpha", "beta", "mu"), [(1.0, 0.0, 1.0), (0.9, 0.0, 0.5), (1.2, 0.05, 0.3)])
@pytest.mark.parametrize("group_size", [1, 2, 5, 8])
def test_code_variant_is_the_released_loop(metric: str, alpha: float, beta: float, mu: float, group_size: int) -> None:
    for seed, unscorable in ((0, 0.0), (1, 0.4)):
        batch = random_batch(group_size, seed, unscorable=unscorable)
        canon = Canon(metric=metric, alpha=alpha, beta=beta, mu=mu, variant="code")
        expected = released_loop(batch, metric, alpha, beta, mu)
        assert canon.apply(batch, batch.task_reward).value.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("variant", ["paper", "code"])
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"mu": 1.0}, [0.5, -1, 0.5, 0]),
        ({"mu": 0.0}, [0, -0.5, 0, 0.5]),
        ({"mu": 0.5}, [0.25, -0.75, 0.25, 0.25]),
        ({"mu": 0.5, "alpha": 0.9}, [0.2, -0.7, 0.2, 0.3]),
    ],
)
def test_worked_group_of_four(variant: str, fields: dict, expected: list[float]) -> None:
    batch = one_group([40, 10, 30, 20], [1, 0, 1, 1])
    assert Canon(variant=variant, **fields).apply(batch, batch.task_reward).value.tolist() == pytest.approx(expected)


def test_alpha_is_on_the_higher_half_in_the_paper_and_on_the_lower_in_the_entropy_code() -> None:
    batch = one_group([40, 10, 30, 20], [1, 0, 1, 1], mean_entropy=[4.0, 1.0, 3.0, 2.0])
    paper = Canon(metric="entropy", mu=0.5, alpha=0.9).apply(batch, batch.task_reward).value
    assert paper.tolist() == pytest.approx([0.2, -0.7, 0.2, 0.3])
    # high rows: (1 - 0.9 * 0.5) / 2 + 0; low: (0 - 1) / 2 + (0 - 0.5) / 2 and (0.9 - 1) / 2 + (1 - 0.5) / 2
    code = Canon(metric="entropy", mu=0.5, alpha=0.9, variant="code").apply(batch, batch.task_reward).value
    assert code.tolist() == pytest.approx([0.275, -0.75, 0.275, 0.2])


def test_odd_group_is_dr_grpo_at_one_half_in_the_paper_variant_only() -> None:
    batch = one_group([1, 2, 3, 4, 5], [1, 0, 1, 0, 1])
    reward = batch.task_reward
    assert Canon(mu=0.5).apply(batch, reward).value.tolist() == pytest.approx([0.4, -0.6, 0.4, -0.6, 0.4])
    code = Canon(mu=0.5, variant="code").apply(batch, reward).value.tolist()
    assert code == pytest.approx([5 / 12, -7 / 12, 5 / 12, -7 / 12, 5 / 12])


@pytest.mark.parametrize(("variant", "ties", "sizes"), [("paper", True, [1, 2, 5, 8]), ("code", False, [2, 6])])
def test_mu_one_half_is_dr_grpo(variant: str, ties: bool, sizes: list[int]) -> None:
    for group_size in sizes:
        unscorable = 0.3 if variant == "paper" else 0.0
        batch = random_batch(group_size, seed=group_size, ties=ties, unscorable=unscorable)
        expected = GroupRelative(scale="none").apply(batch, batch.task_reward).value
        torch.testing.assert_close(Canon(mu=0.5, variant=variant).apply(batch, batch.task_reward).value, expected)


def test_ties_are_cut_by_share_in_the_paper_variant_and_by_order_in_the_code() -> None:
    reward, order = [1, 0, 0, 1], [2, 1, 0, 3]
    batch, swapped = one_group([1, 2, 2, 2], reward), one_group([2, 2, 1, 2], [reward[i] for i in order])
    paper, paper_swapped = (Canon().apply(b, b.task_reward).value for b in (batch, swapped))
    assert paper[order].tolist() == pytest.approx(paper_swapped.tolist())
    # Tied rows are 2/3 high and 1/3 low, so m_low = (1 + 1/3) / 2 = 2/3 and m_high = (2/3) / 2 = 1/3.
    assert paper.tolist() == pytest.approx([2 / 3, -5 / 9, -5 / 9, 4 / 9])
    # The same three tied rewards in another order: [1, 0 | 0, 1] against [1, 1 | 0, 0].
    code = Canon(variant="code")
    first, second = one_group([1, 2, 2, 2], [1, 0, 0, 1]), one_group([1, 2, 2, 2], [1, 1, 0, 0])
    assert code.apply(first, first.task_reward).value.tolist() == pytest.approx([0.5, -0.5, -0.5, 0.5])
    assert code.apply(second, second.task_reward).value.tolist() == pytest.approx([1, 1, -1, -1])


@pytest.mark.parametrize("group_size", [1, 2, 3, 8])
def test_halves_are_equal_so_credit_sums_to_zero(group_size: int) -> None:
    batch = random_batch(group_size, seed=5, unscorable=0.2)
    reward = torch.randn(batch.n_rows, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sums = batch.by_group(Canon(mu=0.7).apply(batch, reward).value).sum(dim=1)
    assert sums.tolist() == pytest.approx([0] * 8, abs=1e-13)


def test_a_metric_that_tells_nothing_leaves_dr_grpo() -> None:
    batch = one_group([7, 7, 7, 7], [1, 0, 0, 0])
    for mu in (0.0, 0.3, 1.0):
        assert Canon(mu=mu).apply(batch, batch.task_reward).value.tolist() == pytest.approx([0.75, -0.25, -0.25, -0.25])


def test_one_row_alone() -> None:
    batch = one_group([7], [1])
    assert Canon(mu=0.5, alpha=0.9).apply(batch, batch.task_reward).value.tolist() == pytest.approx([0])
    code = Canon(mu=0.5, alpha=0.9, beta=0.1, variant="code").apply(batch, batch.task_reward).value
    assert code.tolist() == pytest.approx([0.5 * (0.9 + 0.1) + 0.5])


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_equal_rewards(variant: str) -> None:
    right, wrong = one_group([4, 1, 3, 2], [1, 1, 1, 1]), one_group([4, 1, 3, 2], [0, 0, 0, 0])
    pressed = Canon(mu=0.5, alpha=0.9, variant=variant)
    assert Canon(variant=variant).apply(right, right.task_reward).value.tolist() == pytest.approx([0, 0, 0, 0])
    assert pressed.apply(right, right.task_reward).value.tolist() == pytest.approx([-0.05, 0.05, -0.05, 0.05])
    assert pressed.apply(wrong, wrong.task_reward).value.tolist() == pytest.approx([0, 0, 0, 0])


@pytest.mark.parametrize(
    ("schedule", "step", "mu"),
    [
        # `step` counts from 1, as the released code and its paper's figures do.
        ("cosine_first_intra_later_inter", 1, 0.96),
        ("cosine_first_intra_later_inter", 29, 0.4),
        ("cosine_first_intra_later_inter", 30, 0.4),
        ("cosine_first_intra_later_inter", 50, 0.7),
        ("cosine_first_intra_later_inter", 70, 0.4),
        ("cosine_first_intra_later_inter", 150, 0.4),
        ("cosine_first_inter_later_intra", 1, 1 / 15),
        ("cosine_first_inter_later_intra", 29, 1.0),
        ("cosine_first_inter_later_intra", 30, 1.0),
        ("cosine_first_inter_later_intra", 50, 0.7),
        ("cosine_first_inter_later_intra", 69, 0.4 + 0.3 * (1 + math.cos(math.pi * 39 / 40))),
    ],
)
def test_cosine_schedules(schedule: str, step: int, mu: float) -> None:
    batch = random_batch(4, seed=0, step=step - 1)
    assert Canon(schedule=schedule).mu_of(batch) == pytest.approx(mu)


def test_cosine_schedule_scales_to_a_short_run() -> None:
    canon = Canon(schedule="cosine_first_inter_later_intra", schedule_steps=10, warmup_steps=2, cycles=2)
    mus = [canon.mu_of(random_batch(2, seed=0, step=step)) for step in range(10)]
    low_point = 0.4 + 0.3 * (1 + math.cos(math.pi * 3 / 4))
    assert mus[0] == mus[1] == mus[5] == pytest.approx(1.0)
    assert mus[3] == mus[7] == pytest.approx(0.7)
    assert mus[4] == mus[8] == pytest.approx(low_point)


def test_accuracy_schedules_follow_the_scorable_verdicts() -> None:
    batch = one_group([4, 1, 3, 2], [1, 0, 1, 1], scorable=[True, True, True, False])
    assert Canon(schedule="first_intra_later_inter").mu_of(batch) == pytest.approx(2 / 3)
    assert Canon(schedule="first_inter_later_intra").mu_of(batch) == pytest.approx(1 / 3)


@pytest.mark.parametrize("schedule", NAMES)
def test_scheduled_credit_is_that_of_its_mu(schedule: str) -> None:
    batch = random_batch(5, seed=2, step=17)
    scheduled = Canon(metric="entropy", schedule=schedule, variant="code")
    expected = released_loop(batch, "entropy", 1.0, 0.0, scheduled.mu_of(batch))
    assert scheduled.apply(batch, batch.task_reward).value.tolist() == pytest.approx(expected, abs=1e-6)


def test_needs_and_missing_entropy() -> None:
    assert Canon().needs == frozenset()
    assert Canon(metric="entropy").needs == frozenset({"mean_entropy"})
    batch = one_group([1, 2], [1, 0])
    with pytest.raises(UserError, match="mean_entropy"):
        Canon(metric="entropy").apply(batch, batch.task_reward).value


@pytest.mark.parametrize(
    "bad",
    [
        {"metric": "lenth"},
        {"mu": 1.5},
        {"mu": float("nan")},
        {"alpha": float("inf")},
        {"schedule": "annel"},
        {"schedule_steps": 31},
        {"variant": "released"},
    ],
)
def test_refuses_and_names_the_field(bad: dict) -> None:
    with pytest.raises(UserError, match=rf"Canon\.{next(iter(bad))}="):
        Canon(**bad)
