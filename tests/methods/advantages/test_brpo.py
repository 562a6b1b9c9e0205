"""AnytimeReasoner's credit: the worked example, chains that end early, priors, and rows that do not count."""

from __future__ import annotations

import pytest
import torch

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods import load_method
from concise_rl.methods.advantages.brpo import Brpo, segment_advantages

SCORES = [1, 0, 1, 1, 0, 0, 0, 1]
"""Two chains, two budgets, two answers at each."""


def batch_of(scores=SCORES, chains=(0, 0, 0, 0, 1, 1, 1, 1), segments=(0, 0, 1, 1) * 2, **others) -> RolloutBatch:
    """Thoughts of 3 and 5 tokens, one forced token, answers of 2."""
    segments = list(segments)
    thoughts = [3 if s == 0 else 5 for s in segments]
    parts = {"chain": list(chains), "segment": segments, "budgets": [2] * len(scores), "forced": [1] * len(scores)}
    return RolloutBatch.of(
        prompt_keys=["q"], group_size=len(scores), lengths=[k + 2 for k in thoughts], think_lengths=thoughts,
        correct=scores, parts=parts, **others,
    )  # fmt: skip


def credit_of(batch: RolloutBatch, **fields) -> list[list[float]]:
    out, _ = Brpo(S=2, **fields)(batch, batch.task_reward, None)
    return out.value.tolist()


def test_the_worked_example():
    credit = credit_of(batch_of())
    first, second = [0.25, 0.1875], [-0.25, 0.0625]
    answers = [0.5, -0.5, 0, 0, 0, 0, -0.5, 0.5]
    for row, (chain, answer) in enumerate(zip([first] * 4 + [second] * 4, answers, strict=True)):
        thought = [chain[0]] * 3 if row % 4 < 2 else [chain[0]] * 3 + [chain[1]] * 2
        # up to the tag, which the sampler forced here, then the answer
        assert credit[row][: len(thought)] == pytest.approx(thought)
        assert credit[row][len(thought) + 1 : len(thought) + 3] == pytest.approx([answer] * 2)
    assert {len(row) for row in credit} == {8}, "forced tokens are places of the completion"


def test_the_formula_alone():
    scores = torch.tensor([[0.5, 1.0], [0.0, 0.5]], dtype=torch.float64)
    prior = torch.tensor([0.5, 0.5], dtype=torch.float64)
    assert segment_advantages(scores, prior).tolist() == [[0.25, 0.1875], [-0.25, 0.0625]]
    # One chain has no group: V2 is 0.
    assert segment_advantages(scores[:1], prior)[0].tolist() == pytest.approx([0.75, 0.5 - 0.5 * 0.25])


def test_three_budgets_by_hand():
    scores = torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64)
    prior = torch.tensor([1, 2, 3], dtype=torch.float64) / 6
    r = [4 / 6, 3 / 6, 3 / 6]
    v1 = [0, 1 * 5 / 6, (1 * 1 + 2 * 0) / 3 * 3 / 6]
    expected = [r[s] - s * v1[s] / 3 for s in range(3)]
    assert segment_advantages(scores, prior)[0].tolist() == pytest.approx(expected)


def test_a_chain_that_ended_early_repeats_its_last_score():
    early = batch_of(segments=(0, 0, 1, 1, 0, 0, 0, 0))
    # The second chain has four answers at its first budget: b = .25, .25.
    scores = torch.tensor([[0.5, 1.0], [0.25, 0.25]], dtype=torch.float64)
    expected = segment_advantages(scores, torch.tensor([0.5, 0.5], dtype=torch.float64))
    credit = credit_of(early)
    assert credit[4][:4] == pytest.approx([float(expected[1, 0])] * 4), "its own tag belongs to the thought"
    assert [row[5] for row in credit[4:]] == pytest.approx([-0.25, -0.25, -0.25, 0.75])


def test_one_answer_a_budget_is_compared_with_the_groups():
    batch = batch_of([1, 0, 0, 1], chains=(0, 0, 1, 1), segments=(0, 1, 0, 1))
    credit = credit_of(batch)
    assert [credit[0][4], credit[2][4]] == [0.5, -0.5]
    assert [credit[1][6], credit[3][6]] == [-0.5, 0.5]


def test_rows_that_do_not_count_are_in_no_mean():
    batch = batch_of(scorable=[1, 0, 1, 1, 1, 1, 1, 1])
    credit = credit_of(batch)
    scores = torch.tensor([[1.0, 1.0], [0.0, 0.5]], dtype=torch.float64)
    expected = segment_advantages(scores, torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert credit[1] == [0] * 8
    assert credit[0][:3] == pytest.approx([float(expected[0, 0])] * 3)
    # its sibling does not count, so the answer is compared with the group's at this budget: 1, 0, 0
    assert credit[0][4] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("prior", "weights"),
    [("uniform", [0.25] * 4), ("linear", [0.1, 0.2, 0.3, 0.4]), ("base", [0, 0, 0, 1])],
)
def test_priors(prior, weights):
    assert Brpo(prior=prior).weights().tolist() == pytest.approx(weights)


def test_refusals():
    batch = batch_of()
    for S in (1, 4):
        with pytest.raises(UserError, match=f"Brpo.S={S}: the sampler cut at 2 budgets; set advantage.brpo.S=2"):
            Brpo(S=S)(batch, batch.task_reward, None)
    with pytest.raises(UserError, match=r"Brpo\.S=0"):
        Brpo(S=0)
    with pytest.raises(UserError, match=r"Brpo\.prior"):
        Brpo(prior="flat")


def test_the_recipe_goes_through_the_chain():
    method = load_method("brpo", {"advantage.brpo.S": 2, "sampler.brpo.S": 2})
    result, _ = method.apply(batch_of(), method.init())
    assert result.credit.shape == (8, 8)
