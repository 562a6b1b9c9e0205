"""Two gloo processes, a vLLM in each."""

from __future__ import annotations

import json

from concise_rl.engine import checkpoint
from tests.engine.jobs import CPU2, accelerate_launch, run_to_end

from .test_colocate import SAME


def test_two_ranks_sample_for_one_batch(tmp_path):
    half = "trainer.per_device_train_batch_size=8"
    command = [*accelerate_launch(CPU2), "--module", "tests.vllm.rank", str(tmp_path), "method=hapo", half]
    run_to_end(command, seconds=300)
    folders = tmp_path / "rank0", tmp_path / "rank1"
    first, second = (json.loads((folder / "found.json").read_text()) for folder in folders)
    history, other = (checkpoint.load_state(folder)[0]["shaper.hapo"] for folder in folders)
    assert max(first["gaps"] + second["gaps"]) < SAME
    assert len(first["gaps"]) == len(second["gaps"]) == 2
    assert history == other
    assert len(history) > 0
    assert first["weights"] == second["weights"]
    assert first["own"] != second["own"]
    assert all(len(keys) == 4 for keys in first["prompts"])
