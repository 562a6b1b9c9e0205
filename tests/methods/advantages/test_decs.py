"""DECS's credit by hand: the released example, and what becomes of rows without redundant tokens."""

from __future__ import annotations

import pytest
import torch

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods import load_method
from concise_rl.methods.advantages.decs import Decs


def credit(lengths, thoughts, correct, nrp, **others) -> torch.Tensor:
    batch = RolloutBatch.of(
        prompt_keys=["q"], group_size=len(lengths), lengths=lengths, think_lengths=thoughts, correct=correct,
        limits=[8] * len(lengths), parts={"nrp": nrp}, **others,
    )  # fmt: skip
    return Decs().apply(batch, batch.task_reward).value


def test_the_worked_example():
    """Right with 4 tokens; right with 6, of which the last two are redundant; wrong with 5. Limit 8."""
    found = credit([4, 6, 5], [4, 6, 5], [1, 1, 0], [1.0, 4 / 6, 0.0])
    assert found.shape == (3, 6)
    assert found[:, 0].tolist() == pytest.approx([0.5773, 0.5773, -1.1547], abs=1e-4)
    assert found[1, 4:].tolist() == pytest.approx([0.5153, 0.5153], abs=1e-4)
    assert found[2, 4].item() == pytest.approx(-1.1525, abs=1e-4)
    assert found[0, 4:].tolist() == [0, 0], "no credit behind a row's end"
    assert found[2, 5].item() == 0


def test_among_right_answers_redundant_tokens_alone_are_pushed_down():
    found = credit([4, 8], [3, 7], [1, 1], [1.0, 3 / 7])
    assert found[:, :3].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert (found[1, 3:7] < 0).all()
    assert found[1, 7].item() == 0, "the answer behind the thought is needed"


def test_no_right_chunk_and_wrong_rows_have_no_redundant_tokens():
    assert credit([4, 6], [4, 6], [1, 1], [0.0, 0.0]).abs().max() == 0
    found = credit([6, 6], [6, 6], [1, 0], [1.0, 0.5])
    assert found[1].unique().numel() == 1


def test_rows_that_do_not_count_are_in_no_statistic():
    lone = credit([4, 6, 5], [4, 6, 5], [1, 1, 0], [1.0, 4 / 6, 0.0], scorable=[1, 0, 0])
    assert lone.abs().max() == 0
    pair = credit([4, 6, 5], [4, 6, 5], [1, 1, 0], [1.0, 4 / 6, 0.0], scorable=[1, 0, 1])
    assert pair[:, 0].tolist() == pytest.approx([0.7071, 0, -0.7071], abs=1e-4)


def test_the_recipe_lets_solved_groups_in_by_kappa():
    method = load_method("decs", b=0.2)
    assert [slot for slot, _ in method.components.items()] == ["filter.decs_kappa", "shaper.plain", "advantage.decs"]
    with pytest.raises(UserError, match=r"Decs.b=0"):
        load_method("decs", b=0)
