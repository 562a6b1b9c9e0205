"""GRPO-LEAD's credit by hand."""

from __future__ import annotations

import math
import random
import statistics

import pytest
import torch

from concise_rl.methods.advantages.lead import LeadCredit, weight
from concise_rl.methods.recipes import load_method
from tests.methods.one_group import CORRECT, LENGTHS, one_group, values


def test_by_hand():
    assert weight(torch.tensor([0.75, 0.25], dtype=torch.float64)).tolist() == pytest.approx([0.95, 1.4926], abs=5e-5)
    result, _ = load_method("grpo_lead").apply(one_group(LENGTHS, CORRECT), {})
    assert result.credit.tolist() == pytest.approx([0.5195, 0.4791, -2.2371, 0.4253], abs=5e-5)


def test_no_variance_no_credit():
    assert values(LeadCredit(), one_group([5, 6, 7], [1, 1, 1]), [0.3] * 3) == [0, 0, 0]
    assert values(LeadCredit(), one_group([5], [1])) == [0]


def test_only_rewards_above_nothing_count_as_solved():
    # 0 is the reward of a bad format: of four rows one is solved, so gains weigh w(1/4) and losses w(3/4).
    credit = values(LeadCredit(), one_group([5, 6, 7, 8], [1, 0, 0, 0]), [1, 0, -1, -1])
    spread = statistics.stdev([1, 0, -1, -1]) + 1e-6
    gain, loss = 1.492638, 0.95
    assert credit == pytest.approx(
        [1.25 / spread * gain, 0.25 / spread * gain, -0.75 / spread * loss, -0.75 / spread * loss], abs=1e-6
    )


def test_against_the_formula_written_anew():
    draw = random.Random(2)
    for _ in range(20):
        rewards = [draw.uniform(-1, 1) for _ in range(6)]
        q = sum(r > 0 for r in rewards) / 6
        mean, spread = statistics.fmean(rewards), statistics.stdev(rewards) + 1e-6
        expected = []
        for r in rewards:
            x = q if r > mean else 1 - q
            expected.append((r - mean) / spread * (0.4 + 1.1 / (1 + math.exp(10 * (x - 0.75)))))
        assert values(LeadCredit(), one_group([1] * 6, [1] * 6), rewards) == pytest.approx(expected)
