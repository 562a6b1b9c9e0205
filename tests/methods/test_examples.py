"""The worked example of each method, through its recipe: `load_method(name, **fields).apply`."""

from __future__ import annotations

import pytest
import torch

from concise_rl.batch import RolloutBatch
from concise_rl.methods import History, load_method

C, L = [1, 1, 0, 1], [400, 900, 700, 1600]
"""The group that most examples share: three right answers and a wrong one."""


def group(correct, lengths, **others) -> RolloutBatch:
    others = {"task_reward": [float(c) for c in correct]} | others
    size = others.pop("group_size", len(lengths))
    keys = [f"p{n}" for n in range(len(lengths) // size)]
    return RolloutBatch.of(prompt_keys=keys, group_size=size, lengths=lengths, correct=correct, **others)


REWARDS = [
    ("arora", {"alpha": 0.1}, group(C, L), [0.9760, 0.9534, 0, 0.9216]),
    ("arora", {"alpha": 0.1}, group([1, 0], [5, 9]), [0.95, 0]),
    (
        "l1_exact",
        {"alpha": 3e-4},
        group([1, 0, 1], [1200, 800, 1000], columns={"num_tokens": [1000]}),
        [0.94, -0.06, 1],
    ),
    ("l1_max", {}, group([1, 0, 1], [1200, 800, 950], columns={"num_tokens": [1000]}), [0.44, 0, 0.515]),
    ("alp", {"beta": 0.05, "max_length": 8192}, group(C, L), [0.9982, 0.9959, -0.0032, 0.9927]),
    ("laser", {"target": 900}, group(C, L), [1.5, 1.5, 0, 1]),
    ("shorter_better", {}, group(C, L), [2, 1.5, -0.3, 0.8]),
    ("shorter_better", {}, group([0, 0, 0], [100, 200, 600]), [-0.2, -0.1, -0.3]),
    ("grpo_lead", {}, group(C, L), [1.0481, 1.0055, -1, 0.9488]),
    ("leash", {"T": 4096, "lam0": 0.2}, group([1, 1, 0], [3000, 8192, 8192]), [1, 0.8, -1]),
    (
        "arlcp",
        {},
        group(C, L, parts={"reflections": [5, 45, 3, 90]}),
        [0.9442, 0.9037, 0, 0.8527],
    ),
    ("gr3", {}, group(C, L), [0.8824, 0.7692, 0, 0.6522]),
    ("dast", {"max_length": 2000}, group(C, L), [0.8367, 0.6327, -0.4857, 0.3469]),
    (
        "deep_compress",
        {"P_b": 0.5},
        group(C, L, task_reward=[1, 1, -1, 1]),
        [1.1141, 1.1, -1, 1.0804],
    ),
    ("smart_thinker", {}, group([1, 1, 1, 0], [1000, 1400, 1500, 3000]), [1, 0.7610, 0.5870, 0]),
    (
        "discounted",
        {"gamma": 0.999},
        group([1, 1], [600, 2100], think_lengths=[500, 2000]),
        [0.6064, 0.1352],
    ),
    ("jet", {}, group(C, L, parts={"format": C}), [2.19, 1.715, 0, 1.05]),
    (
        "grlc",
        {},
        group(
            [1, 0, 1, 0],
            [110, 70, 330, 440],
            think_lengths=[100, 50, 300, 400],
            task_reward=[0.9, 0.2, 0.8, 0.1],
        ),
        [1.8107, 0.5155, 0.5917, -0.4179],
    ),
    (
        "grpo_lambda",
        {},
        group([1, 1, 1, 0, 0, 0, 1, 0, 0, 0], [300, 500, *[100] * 8], group_size=2),
        [0.8386, 0.5614, 1, 0, 0, 0, 1, 0, 0, 0],
    ),
]

CREDITS = [
    ("maxrl", {}, group([1, 0, 0, 0], [1] * 4), [3, -1, -1, -1]),
    ("ddca", {}, group(C, L), [0.6158, 0.5819, -1.7321, 0.5343]),
    ("qglas", {}, group(C, L), [0.4, 0.2707, -0.75, 0.25]),
    ("grpo_lead", {}, group(C, L), [0.5195, 0.4791, -2.2371, 0.4253]),
    ("gfpo", {"k": 3}, group([1, 0, 1, 1, 0, 1], [900, 100, 300, 500, 200, 800]), [0, -0.7071, 1.4142, 0, -0.7071, 0]),
    (
        "gfpo",
        {"k": 3, "metric": "token_efficiency"},
        group([1, 0, 1, 1, 0, 1], [900, 100, 300, 500, 200, 800]),
        [0] * 6,
    ),
    (
        "dler",
        {},
        group([1, 0, 1, 0], [100, 300, 200, 400], truncated=[0, 0, 1, 1]),
        [1.5929, -0.5663, -0.2604, -0.5663],
    ),
    (
        "prime_rl_linear",
        {},
        group(
            [1, 0, 1, 0],
            [100, 200, 400, 300],
            parts={"input_tokens": [1000, 1000, 2000, 500], "turns": [1, 2, 4, 2]},
        ),
        [0.5656, -0.4781, 0.4094, -0.4969],
    ),
]


def ids(cases):
    return [f"{name}-{n}" for n, (name, *_) in enumerate(cases)]


@pytest.mark.parametrize(("name", "fields", "batch", "expected"), REWARDS, ids=ids(REWARDS))
def test_rewards(name, fields, batch, expected):
    method = load_method(name, **fields)
    result, _ = method.apply(batch, method.init())
    assert result.reward.tolist() == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize(("name", "fields", "batch", "expected"), CREDITS, ids=ids(CREDITS))
def test_credits(name, fields, batch, expected):
    method = load_method(name, **fields)
    result, _ = method.apply(batch, method.init())
    assert result.credit.tolist() == pytest.approx(expected, abs=6e-5)


def test_short_rl_opens_its_gate_on_a_new_best():
    method = load_method("short_rl", tau=100)
    result, states = method.apply(group(C, L), {"shaper.lazy": 0.5})
    assert (result.reward - group(C, L).task_reward).tolist() == pytest.approx([0.5, 0.0833, 0, -0.5], abs=6e-5)
    assert states["shaper.lazy"] == 0.75
    result, _ = method.apply(group(C, L), {"shaper.lazy": 0.85})
    assert result.reward.tolist() == C


def test_leash_moves_its_price_after_scoring():
    method = load_method("leash", T=4096, lam0=0.2)
    _, states = method.apply(group([1, 1, 0], [3000, 8192, 8192]), method.init())
    assert states["shaper.leash"] == pytest.approx(0.20289, abs=6e-6)


def test_toggle_cuts_over_the_budget_in_its_phase():
    method = load_method("toggle", warmup_steps=0)
    budgets = History.empty().record_min(["p0"], [1000])
    result, _ = method.apply(group(C, L), {"shaper.toggle": budgets})
    assert result.reward.tolist() == [1, 1, 0, 0]


def test_diet_weighs_length_apart_from_being_right():
    method = load_method("diet", column=True)
    batch = group(C, L, step=25, columns={"target": [600]})
    result, _ = method.apply(batch, method.init())
    assert result.credit.tolist() == pytest.approx([0.8136, 0.5855, -1.4525, 0.0534], abs=6e-5)


def test_schedules_of_limits():
    assert load_method("siri", maximum=1024, minimum=256, period=40).schedule(10) == 640
    stages = load_method("length_stages", {"trainer.max_completion_length": {"stages": [[0, 100], [5, 60]]}})
    assert [stages.schedule(step) for step in (4, 5)] == [100, 60]


def test_the_price_of_every_prompt_is_the_same_under_scalerl():
    method = load_method("scalerl")
    batch = group([1, 0, 1, 1], L, task_reward=[1, -1, 1, 1])
    result, states = method.apply(batch, method.init())
    raw = torch.tensor([0.5774, -1.7321, 0.5774, 0.5774], dtype=torch.float64)
    assert (result.credit / raw).std() < 1e-4
    assert method.observe(batch, states) is not None
