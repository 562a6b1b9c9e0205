"""Runs of two_ranks.py on one rank and on two, and what makes them one experiment."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml
from transformers import AutoModelForCausalLM

from concise_rl.engine import checkpoint

from .jobs import CPU2, ROOT, accelerate_launch, run_to_end

SCRIPT = Path(__file__).parent / "two_ranks.py"
STEPS = 10
HELD = {
    "one": ["MULTI_CPU", "Parameter"],
    "ddp": ["MULTI_CPU", "Parameter"],
    "fsdp2": ["FSDP", "DTensor"],
    "zero2": ["DEEPSPEED", "Parameter"],
    "zero3": ["DEEPSPEED", "ZeRO-3's shard"],
}
"""How accelerate shares a layout out, and what a rank holds of a weight."""


def launch(out: Path, layout: str, method: str, *overrides: str) -> None:
    """Train in this layout: 24 rows a step, on one rank or half of them on each of two."""
    out.mkdir()
    config = CPU2 if layout in ("one", "ddp") else sharded_config(layout, out)
    command = [*accelerate_launch(config), "--num_processes", "1" if layout == "one" else "2"]
    command += [str(SCRIPT), str(out), method, f"trainer.per_device_train_batch_size={24 if layout == 'one' else 12}"]
    command += [f"trainer.max_steps={STEPS}", f"trainer.save_steps={STEPS}", *overrides]
    run_to_end(command, seconds=280)
    assert json.loads((out / "layout.json").read_text()) == HELD[layout], "else it shows nothing of this layout"


def sharded_config(layout: str, out: Path) -> Path:
    """The project's own recipe for eight GPUs, turned to two processes on CPU."""
    recipe = (ROOT / "launch" / "accelerate" / f"{layout}.yaml").read_text()
    config = yaml.safe_load(recipe) | {"num_processes": 2, "use_cpu": True, "mixed_precision": "no"}
    path = out / "accelerate.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def read_steps(run: Path) -> list[dict]:
    """The rollouts of each step of a run, as two_ranks.py wrote them."""
    return json.loads((run / "steps.json").read_text())


def assert_one_experiment(one_path: Path, two_path: Path, method: str) -> None:
    """Batch, credits, history and weights of the run on two ranks are those of the run on one."""
    one, two = read_steps(one_path), read_steps(two_path)
    assert len(one) == len(two) == STEPS
    first, other = one[0], two[0]
    for name in ("prompt_keys", "lengths", "correct", "think_lengths", "task_reward", "group_size"):
        assert first["batch"][name] == other["batch"][name], name
    assert first["completions"] == other["completions"]
    np.testing.assert_allclose(first["credit"], other["credit"], rtol=1e-5, atol=1e-7)
    if method == "hapo":  # entropies differ by the rounding of other batch shapes; lengths do not
        assert one == two
        folders = (one_path / "rank0", two_path / "rank0", two_path / "rank1")
        states = [checkpoint.load_state(folder)[0] for folder in folders]
        assert states[0] == states[1] == states[2]
        assert len(states[0]["shaper.hapo"]) > 0
    saved = two_path / f"checkpoint-{STEPS}"
    assert checkpoint.verify(saved) is None
    # A checkpoint of any layout loads as a plain model, and it is the model that one rank made.
    weights = AutoModelForCausalLM.from_pretrained(saved).state_dict()
    expected = AutoModelForCausalLM.from_pretrained(one_path / f"checkpoint-{STEPS}").state_dict()
    for name in expected:
        assert (weights[name] - expected[name]).abs().mean() < 1e-6, name
