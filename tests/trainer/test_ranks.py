"""One process and two (gloo, `accelerate launch`) are one experiment, with a group astride the ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from concise_rl import checkpoint

SCRIPT = Path(__file__).parent / "two_ranks.py"
ROOT = Path(__file__).parents[2]


def launch(out: Path, processes: int, method: str, rows_per_rank: int) -> None:
    out.mkdir()
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    command += ["--config_file", str(ROOT / "launch" / "accelerate" / "cpu2.yaml")]
    command += ["--num_processes", str(processes), "--main_process_port", "0"]
    command += [str(SCRIPT), str(out), method, f"trainer.per_device_train_batch_size={rows_per_rank}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("method", ["hapo", "canon_entropy"])
def test_one_rank_equals_two(tmp_path, method):
    # 24 rows are three groups of 8; two ranks hold 12 rows each, so the second group lies astride them.
    launch(tmp_path / "one", 1, method, 24)
    launch(tmp_path / "two", 2, method, 12)
    one, two = (json.loads((tmp_path / name / "steps.json").read_text()) for name in ("one", "two"))
    assert len(one) == len(two) == 2
    first, other = one[0], two[0]
    for name in ("prompt_ids", "lengths", "correct", "think_lengths", "task_reward", "group_size"):
        assert first["batch"][name] == other["batch"][name], name
    assert first["completions"] == other["completions"]
    np.testing.assert_allclose(first["credit"], other["credit"], rtol=1e-5, atol=1e-7)
    if method == "hapo":  # entropies differ by the rounding of other batch shapes; lengths do not
        assert one == two
        states = [checkpoint.load_state(tmp_path / name)[0] for name in ("one/rank0", "two/rank0", "two/rank1")]
        assert states[0] == states[1] == states[2]
        assert len(states[0]["shaper"][0]) > 0
    assert checkpoint.verify(tmp_path / "two" / "checkpoint-2") is None
    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two")]
    for name in weights[0]:
        assert np.abs(weights[0][name] - weights[1][name]).mean() < 1e-6, name
