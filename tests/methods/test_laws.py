"""Laws that every shaper and every advantage keeps, whatever its formula."""

from __future__ import annotations

import io
import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.methods.advantages import ADVANTAGES, Canon, DifficultyWeighted, GroupRelative, LeaveOneOut, SignSafe
from concise_rl.methods.history import History
from concise_rl.methods.shapers import SHAPERS, Compose, Cosine, Dars, Hapo, KimiLength, Overlong, Pear, Plain

LIMIT = 64

SHAPER_CASES = {
    "plain": Plain(),
    **{
        f"hapo-{kind}-{history}-{variant}": Hapo(kind=kind, history=history, variant=variant)
        for kind in ("cosine", "linear")
        for history in ("min", "mean")
        for variant in ("paper", "code")
    },
    "pear": Pear(alpha=0.5, format_reward=0.1),
    "kimi_length": KimiLength(weight=0.7, warmup_steps=2),
    "cosine": Cosine(max_length=LIMIT, repetition_weight=0.5),
    "cosine-code": Cosine(max_length=LIMIT, margin=0, repetition_weight=0.5, variant="code"),
    "overlong": Overlong(max_length=LIMIT),
    "dars": Dars(factor=3.0, threshold=0.5),
    "composed": Compose([Hapo(), Overlong(max_length=LIMIT, cache=20), Dars(factor=2.0)]),
}

ADVANTAGE_CASES = {
    "group_relative": GroupRelative(),
    "group_relative-none": GroupRelative(scale="none"),
    "leave_one_out": LeaveOneOut(),
    "canon": Canon(mu=0.7, alpha=0.9),
    "canon-entropy": Canon(metric="entropy", mu=0.3, beta=0.1),
    "canon-scheduled": Canon(schedule="cosine_first_inter_later_intra"),
    "difficulty_weighted": DifficultyWeighted(inner=GroupRelative(), kind="pass_rate"),
    "difficulty_weighted-column": DifficultyWeighted(
        inner=LeaveOneOut(), kind="linear", column="difficulty", minimum=0.0, maximum=6.0
    ),
    "sign_safe": SignSafe(inner=LeaveOneOut()),
}
"""Without those that compare across groups by design: `GroupRelative(scale="batch")`, Canon's accuracy schedules."""

shapers = pytest.mark.parametrize("shaper", SHAPER_CASES.values(), ids=SHAPER_CASES.keys())
advantages = pytest.mark.parametrize("advantage", ADVANTAGE_CASES.values(), ids=ADVANTAGE_CASES.keys())
seeds = pytest.mark.parametrize("seed", range(3))


def random_batch(seed: int, *, n_prompts: int = 5, group_size: int = 6, step: int = 3, **rows) -> RolloutBatch:
    """Prompts from a pool of eight, so that some come back and one stands twice; some rows without a verdict."""
    generator = torch.Generator().manual_seed(seed)
    n_rows = n_prompts * group_size

    def uniform(high: float = 1.0, n: int = n_rows) -> Tensor:
        return torch.rand(n, generator=generator, dtype=torch.float64) * high

    pool = torch.randint(8, (n_prompts,), generator=generator).tolist()
    pool[-1] = pool[0]
    lengths = 1 + (uniform() * LIMIT).long()
    defaults = {
        "lengths": lengths,
        "correct": uniform() < 0.6,
        "scorable": uniform() < 0.8,
        "truncated": lengths == LIMIT,
        "think_entropy": uniform(2.0),
        "answer_entropy": uniform(2.0),
        "mean_entropy": uniform(2.0),
        "parts": {name: uniform() for name in ("repetition", "short_similarity", "long_similarity")},
        "columns": {"difficulty": uniform(6.0, n_prompts).tolist()},
    } | rows
    defaults.setdefault("think_lengths", torch.as_tensor(defaults["lengths"]) // 2)
    return RolloutBatch.of(prompt_ids=[f"prompt {p}" for p in pool], group_size=group_size, step=step, **defaults)


def take_rows(batch: RolloutBatch, rows: Tensor) -> RolloutBatch:
    """The batch with each group's rows in another order."""
    tensors = {
        f.name: getattr(batch, f.name)[rows] for f in fields(batch) if isinstance(getattr(batch, f.name), Tensor)
    }
    return batch.replace(parts={name: part[rows] for name, part in batch.parts.items()}, **tensors)


def shuffled_within_groups(batch: RolloutBatch, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(batch.group_size, generator=generator) for _ in range(batch.n_prompts)]
    return torch.cat([p * batch.group_size + order for p, order in enumerate(orders)])


def copied(state):
    if isinstance(state, tuple):
        return tuple(copied(part) for part in state)
    return state.copy() if isinstance(state, History) else state


def saved_and_loaded(state):
    """Through the bytes of an npz, which is all that a checkpoint keeps."""
    if isinstance(state, tuple):
        return tuple(saved_and_loaded(part) for part in state)
    if state is None:
        return None
    file = io.BytesIO()
    np.savez(file, **state.arrays())
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        return History.from_arrays(dict(arrays))


def state_after(shaper, *seeds: int):
    state = shaper.init()
    for seed in seeds:
        batch = random_batch(seed)
        _, state = shaper(batch, batch.task_reward, state)
    return state


def assert_close(actual: Tensor, expected: Tensor) -> None:
    # A vectorised cosine may round the last bit of a row otherwise than its scalar tail does.
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_every_shaper_and_advantage_is_under_law():
    assert {type(case) for case in SHAPER_CASES.values()} - {Compose} == set(SHAPERS.values())
    assert {type(case) for case in ADVANTAGE_CASES.values()} == set(ADVANTAGES.values())


@shapers
@seeds
def test_a_group_is_shaped_the_same_alone_and_among_others(shaper, seed):
    batch, state = random_batch(seed), state_after(shaper, 100, 101)
    together = batch.by_group(shaper(batch, batch.task_reward, copied(state))[0].reward)
    for p in range(batch.n_prompts):
        alone = batch.take_prompts([p])
        assert_close(shaper(alone, alone.task_reward, copied(state))[0].reward, together[p])


@shapers
@seeds
def test_permuting_a_group_permutes_its_reward_and_records_the_same(shaper, seed):
    batch, state = random_batch(seed), state_after(shaper, 100, 101)
    rows = shuffled_within_groups(batch, seed)
    shaped, after = shaper(batch, batch.task_reward, copied(state))
    permuted, after_permuted = shaper(take_rows(batch, rows), batch.task_reward[rows], copied(state))
    assert_close(permuted.reward, shaped.reward[rows])
    assert after_permuted == after


@shapers
@seeds
def test_shaping_is_pure(shaper, seed):
    batch, state = random_batch(seed), state_after(shaper, 100)
    untouched = random_batch(seed)
    first, first_state = shaper(batch, batch.task_reward, copied(state))
    second, second_state = shaper(batch, batch.task_reward, copied(state))
    assert torch.equal(first.reward, second.reward)
    assert first.metrics == second.metrics
    assert first_state == second_state
    for field in fields(batch):
        before, now = getattr(untouched, field.name), getattr(batch, field.name)
        assert torch.equal(before, now) if isinstance(before, Tensor) else str(before) == str(now)


@shapers
def test_a_resumed_run_equals_one_that_never_stopped(shaper):
    batches = [random_batch(seed, step=seed) for seed in range(8)]
    straight, resumed = shaper.init(), shaper.init()
    for k, batch in enumerate(batches):
        if k in (3, 6):
            resumed = saved_and_loaded(resumed)
        shaped, straight = shaper(batch, batch.task_reward, straight)
        shaped_resumed, resumed = shaper(batch, batch.task_reward, resumed)
        assert torch.equal(shaped.reward, shaped_resumed.reward)
    assert straight == resumed
    assert saved_and_loaded(straight) == straight


N_ROWS = 5 * 6
DEGENERATE = {
    "all correct": {"correct": [True] * N_ROWS},
    "all wrong": {"correct": [False] * N_ROWS},
    "equal lengths": {"lengths": [17] * N_ROWS},
    "all truncated": {"lengths": [LIMIT] * N_ROWS, "truncated": [True] * N_ROWS, "correct": [False] * N_ROWS},
    "all unscorable": {"correct": [False] * N_ROWS, "scorable": [False] * N_ROWS},
    "one scorable": {"scorable": [True] + [False] * (N_ROWS - 1)},
    "no tokens": {"lengths": [0] * N_ROWS, "correct": [True] * N_ROWS, "scorable": [True] * N_ROWS},
    "beyond the limit": {"lengths": [50 * LIMIT] * N_ROWS},
    "empty think": {"think_lengths": [0] * N_ROWS, "think_entropy": [0.0] * N_ROWS},
    "group of one": {"n_prompts": N_ROWS, "group_size": 1},
}
degenerate = pytest.mark.parametrize("rows", DEGENERATE.values(), ids=DEGENERATE.keys())


@shapers
@degenerate
def test_degenerate_groups_stay_finite(shaper, rows):
    state = state_after(shaper, 100)
    for seed in (0, 1, 2):
        batch = random_batch(seed, **rows)
        shaped, state = shaper(batch, batch.task_reward, state)
        assert shaped.reward.shape == (batch.n_rows,)
        assert shaped.reward.dtype == torch.float64
        assert bool(torch.isfinite(shaped.reward).all())
        assert all(type(value) is float and math.isfinite(value) for value in shaped.metrics.values())


@shapers
@seeds
def test_rows_without_a_verdict_keep_their_reward_and_touch_nothing_else(shaper, seed):
    batch, state = random_batch(seed), state_after(shaper, 100)
    gone = ~batch.scorable
    other = random_batch(seed + 50)
    replaced = batch.replace(
        lengths=torch.where(gone, other.lengths, batch.lengths),
        think_lengths=torch.zeros_like(batch.think_lengths),
        correct=torch.where(gone, ~batch.correct, batch.correct),
        think_entropy=torch.where(gone, other.think_entropy, batch.think_entropy),
        parts={name: torch.where(gone, other.parts[name], part) for name, part in batch.parts.items()},
    )
    shaped, after = shaper(batch, batch.task_reward, copied(state))
    shaped_replaced, after_replaced = shaper(replaced, batch.task_reward, copied(state))
    assert_close(shaped.reward, shaped_replaced.reward)
    assert torch.equal(shaped.reward[gone], batch.task_reward[gone])
    assert shaped.metrics == pytest.approx(shaped_replaced.metrics)
    assert after == after_replaced


@pytest.mark.parametrize("name", SHAPERS)
def test_a_shaper_is_its_own_configuration(name):
    required = {"cosine": {"max_length": LIMIT}, "overlong": {"max_length": LIMIT}}.get(name, {})
    node = OmegaConf.merge(OmegaConf.structured(SHAPERS[name]), required)
    assert OmegaConf.to_object(node) == SHAPERS[name](**required)


@advantages
@seeds
def test_a_group_is_credited_the_same_alone_and_among_others(advantage, seed):
    batch = random_batch(seed)
    together = batch.by_group(advantage(batch, batch.task_reward))
    for p in range(batch.n_prompts):
        alone = batch.take_prompts([p])
        assert_close(advantage(alone, alone.task_reward), together[p])


@advantages
@seeds
def test_permuting_a_group_permutes_its_credit(advantage, seed):
    batch = random_batch(seed)
    rows = shuffled_within_groups(batch, seed)
    assert_close(advantage(take_rows(batch, rows), batch.task_reward[rows]), advantage(batch, batch.task_reward)[rows])


@advantages
@seeds
def test_crediting_is_pure_and_blind_to_rows_without_a_verdict(advantage, seed):
    batch = random_batch(seed)
    reward = random_batch(seed + 50).answer_entropy
    before = reward.clone()
    credit = advantage(batch, reward)
    assert torch.equal(credit, advantage(batch, reward))
    assert torch.equal(reward, before)
    assert not credit[~batch.scorable].any()
    assert_close(advantage(batch, torch.where(batch.scorable, reward, 7.0)), credit)


@advantages
@degenerate
def test_degenerate_groups_have_finite_credit(advantage, rows):
    batch = random_batch(0, **rows)
    for reward in (batch.task_reward, torch.zeros(batch.n_rows, dtype=torch.float64)):
        credit = advantage(batch, reward)
        assert bool(torch.isfinite(credit).all())
        assert not credit[~batch.scorable].any()
