"""One process, and two under DDP (gloo, `accelerate launch`), are one experiment, a group astride the ranks."""

from __future__ import annotations

import pytest

from .ranks import assert_one_experiment, launch, read_steps


@pytest.mark.parametrize("method", ["hapo", "canon_entropy"])
def test_one_rank_equals_two(tmp_path, one_rank, method):
    # 24 rows are three groups of 8; two ranks hold 12 rows each, so the second group lies astride them.
    launch(tmp_path / "two", "ddp", method)
    assert_one_experiment(one_rank(method), tmp_path / "two", method)


@pytest.mark.parametrize("method", ["e2h", "pools", "jet", "brpo"])
def test_two_ranks_draw_and_sample_as_one(tmp_path, method):
    """A curriculum offers the same prompts, and a sampler cuts and extends the same rows, wherever the rows lie."""
    few = ("trainer.max_steps=4", "trainer.save_steps=4")
    launch(tmp_path / "one", "one", method, *few)
    launch(tmp_path / "two", "ddp", method, *few)
    one, two = read_steps(tmp_path / "one"), read_steps(tmp_path / "two")
    assert len(one) == 4
    assert one == two
    finishes = {finish for step in one for finish in step["finishes"]}
    assert ("forced" in finishes) == (method == "jet")
