"""One process, and two under DDP (gloo, `accelerate launch`), are one experiment, a group astride the ranks."""

from __future__ import annotations

import pytest

from .ranks import assert_one_experiment, launch


@pytest.mark.parametrize("method", ["hapo", "canon_entropy"])
def test_one_rank_equals_two(tmp_path, one_rank, method):
    # 24 rows are three groups of 8; two ranks hold 12 rows each, so the second group lies astride them.
    launch(tmp_path / "two", "ddp", method)
    assert_one_experiment(one_rank(method), tmp_path / "two", method)
