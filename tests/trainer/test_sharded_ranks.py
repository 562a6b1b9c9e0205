"""Two processes that share weights, gradients and optimizer out (FSDP2, ZeRO) are the experiment of one."""

from __future__ import annotations

import pytest

from .ranks import assert_one_experiment, launch


@pytest.mark.parametrize("layout", ["fsdp2", "zero2", "zero3"])
def test_one_rank_equals_two(tmp_path, one_rank, layout):
    if layout.startswith("zero"):
        pytest.importorskip("deepspeed")
    launch(tmp_path / "two", layout, "hapo")
    assert_one_experiment(one_rank("hapo"), tmp_path / "two", "hapo")
