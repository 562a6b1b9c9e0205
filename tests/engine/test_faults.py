"""A run that is killed, moved to other ranks, or loses one: it goes on as the same experiment, or ends with one line.

The campaign of kills is `benchmarks/faults.py`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from concise_rl.commands.run_folder import prepare, run_lock
from concise_rl.engine import checkpoint
from concise_rl.engine.resuming import check_continues
from concise_rl.errors import UserError

from .jobs import accelerate_launch, kill_group, run_to_end, start

SCRIPT = Path(__file__).parent / "two_ranks.py"

FACTS = {
    "components": {"shaper.hapo": "Hapo", "advantage.group_relative": "GroupRelative"},
    "ranks": 2,
    "optimizer": "whole",
    "rows_per_step": 24,
    "num_generations": 8,
    "num_iterations": 1,
    "prompts": "128 prompts (1234)",
}


def test_a_run_resumed_at_its_end_takes_no_step(make_trainer):
    trainer, _ = make_trainer("trainer.save_strategy=steps", "trainer.save_steps=2")
    trainer.train()
    saved = Path(trainer.args.output_dir) / "checkpoint-2"
    resumed, recorder = make_trainer("trainer.save_strategy=steps", "trainer.save_steps=2")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 2
    assert recorder.records == []
    trained = resumed.model.state_dict()
    assert all(
        (trained[name].numpy() == weights).all() for name, weights in load_file(saved / "model.safetensors").items()
    )
    assert resumed.states == trainer.states


def test_a_run_killed_before_it_deleted_an_old_checkpoint_deletes_it_when_resumed(make_trainer):
    saving = ("trainer.save_strategy=steps", "trainer.save_steps=1")
    trainer, _ = make_trainer(*saving)
    trainer.train()
    run = Path(trainer.args.output_dir)
    assert checkpoint.steps(run) == [1, 2]
    resumed, _ = make_trainer(*saving, "trainer.save_total_limit=1")
    resumed.train(resume_from_checkpoint=True)
    assert checkpoint.steps(run) == [2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"components": {"shaper.pear": "Pear", "advantage.group_relative": "GroupRelative"}},
            r"was trained with other components \(shaper\.hapo, shaper\.pear\): resume with the same method",
        ),
        ({"optimizer": "fsdp"}, "holds its optimizer as whole on 2 ranks, this run would read fsdp on 2"),
        ({"rows_per_step": 12}, "rows_per_step=12, .* was trained with 24, so prompts would be skipped or repeated"),
        ({"num_generations": 4}, "num_generations=4, .* was trained with 8"),
        ({"num_iterations": 2}, "num_iterations=2, .* was trained with 1"),
        (
            {"prompts": "8 prompts (5)"},
            r"was trained on 128 prompts \(1234\), this run would go on with 8 prompts \(5\)",
        ),
    ],
)
def test_what_would_be_another_experiment_is_refused(tmp_path, change, said):
    (tmp_path / "scheduler.pt").touch()
    check_continues(str(tmp_path), FACTS, FACTS | {"ranks": 1})
    with pytest.raises(UserError, match=said):
        check_continues(str(tmp_path), FACTS, FACTS | change)


def test_an_optimizer_in_shards_stays_on_its_ranks_and_none_is_no_cold_start(tmp_path):
    (tmp_path / "scheduler.pt").touch()
    sharded = FACTS | {"optimizer": "zero2"}
    check_continues(str(tmp_path), sharded, sharded)
    with pytest.raises(UserError, match="as zero2 on 2 ranks, this run would read zero2 on 1"):
        check_continues(str(tmp_path), sharded, sharded | {"ranks": 1})
    (tmp_path / "scheduler.pt").unlink()
    with pytest.raises(UserError, match="saved without optimizer and schedule"):
        check_continues(str(tmp_path), FACTS, FACTS)


def test_on_another_number_of_ranks_no_random_number_is_drawn_twice(make_trainer):
    trainer, _ = make_trainer()
    drawn = {}
    for saved_ranks, step in ((2, 2), (2, 4), (4, 2)):
        trainer._saved, trainer.state.global_step = {"ranks": saved_ranks}, step
        for _ in range(2):  # a second resumption draws the same
            trainer._load_rng_state("no such folder")
            numbers = tuple(torch.rand(3).tolist())
            assert drawn.setdefault((saved_ranks, step), numbers) == numbers
    torch.manual_seed(trainer.args.seed)
    assert len({*drawn.values(), tuple(torch.rand(3).tolist())}) == 4


def test_a_run_moves_from_one_rank_to_two_and_back(tmp_path):
    """Steps 1 to 6 on one rank; 3 to 6 on two, from the first's checkpoint; 5 and 6 on one, from the second's."""
    steps, weights, states = {}, {}, {}
    for name, ranks, checkpoint_of in (
        ("whole", 1, None),
        ("two", 2, "whole/checkpoint-2"),
        ("back", 1, "two/checkpoint-4"),
    ):
        out = tmp_path / name
        command = [sys.executable, str(SCRIPT)] if ranks == 1 else [*accelerate_launch(), str(SCRIPT)]
        command += [str(out), "hapo", f"trainer.per_device_train_batch_size={24 // ranks}", "trainer.max_steps=6"]
        command += ["trainer.save_total_limit=3", "trainer.learning_rate=1e-4"]
        out.mkdir()
        run_to_end([*command, *([f"resume={tmp_path / checkpoint_of}"] if checkpoint_of else [])], seconds=280)
        steps[name] = {line["step"]: line for line in json.loads((out / "steps.json").read_text())}
        last = out / "checkpoint-6"
        weights[name] = load_file(last / "model.safetensors")
        states[name] = checkpoint.load_state(last)[0]["shaper.hapo"]
        rates = [line["learning_rate"] for line in json.loads((last / "trainer_state.json").read_text())["log_history"]]
        assert rates == pytest.approx([1e-4 * (6 - step) / 6 for step in range(6)])
    assert [list(steps[name]) for name in steps] == [[1, 2, 3, 4, 5, 6], [3, 4, 5, 6], [5, 6]]
    for name in ("two", "back"):
        assert all(line == steps["whole"][step] for step, line in steps[name].items())  # data, completions, credit
        assert states[name] == states["whole"]
        for key, expected in weights["whole"].items():
            assert np.abs(weights[name][key] - expected).mean() < 1e-6, key


def test_what_a_killed_writer_left_is_cleared_at_the_next_start(tmp_path):
    killed = "import os, sys; from pathlib import Path; from concise_rl.files import replacing\n"
    killed += "with replacing(Path(sys.argv[1])) as aside: aside.write_text('half'); os.kill(os.getpid(), 9)"
    (tmp_path / "model").mkdir()
    for path in (tmp_path / "summary.json", tmp_path / "model" / "README.md"):
        assert subprocess.run([sys.executable, "-c", killed, str(path)], check=False).returncode == -signal.SIGKILL
    (tmp_path / ".env").write_text("the user's own")
    assert len(list(tmp_path.rglob(".*"))) == 3
    prepare(tmp_path, resume="auto", overwrite=False)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".env"]


def test_a_rank_that_dies_takes_the_others_with_it_and_is_named(tmp_path):
    run, victim = tmp_path / "run", 1
    command = [*accelerate_launch(), "-m", "concise_rl.train", f"run.dir={run}", "run.progress=false"]
    command += ["evaluation.problems=0"]
    command += ["trainer.per_device_train_batch_size=4", "trainer.num_generations=4", "trainer.max_steps=1000"]
    with start(command) as launcher:
        try:
            await_steps(run / "metrics.jsonl", 2, launcher)
            os.kill(pid_of_rank(victim, launcher.pid), signal.SIGKILL)
            errors = launcher.communicate(timeout=60)[1]
        finally:
            kill_group(launcher.pid)
    assert launcher.returncode == 1
    said = [line for line in errors.splitlines() if line.startswith("error:")]
    assert len(said) == 1
    assert said[0].startswith(f"error: rank {1 - victim} lost another rank (")
    assert said[0].endswith("go on with resume=auto")
    assert "work.wait()" not in errors, "a traceback of the survivor buries the cause"
    cause = errors[errors.index("Root Cause") :]
    assert f"rank      : {victim} (" in cause
    assert "(SIGKILL)" in cause


@pytest.mark.parametrize("steps", [0, 2])
def test_ranks_end_with_their_launcher(tmp_path, steps):
    """Killed at start-up, and in training: the ranks save, let the folder go, and none is left."""
    run = tmp_path / "run"
    command = [*accelerate_launch(), "-m", "concise_rl.train", f"run.dir={run}", "run.progress=false"]
    command += ["evaluation.problems=0", "trainer.per_device_train_batch_size=4", "trainer.num_generations=4"]
    with start([*command, "trainer.max_steps=1000", "trainer.save_steps=1000"]) as launcher:
        try:
            if steps:
                await_steps(run / "metrics.jsonl", steps, launcher)
            ranks = await_ranks(launcher.pid, 2)
            os.kill(launcher.pid, signal.SIGKILL)
            deadline = time.monotonic() + 60
            while any(alive(pid) for pid in ranks):
                assert time.monotonic() < deadline, "a rank outlives its launcher"
                time.sleep(0.1)
        finally:
            for pid in ranks:
                kill_group(pid)  # each rank leads a group of its own
            kill_group(launcher.pid)
    if steps:
        newest = checkpoint.newest_complete(run, pytest.fail)
        assert checkpoint.step_of(newest) >= steps
    with run_lock(run):
        pass


def await_ranks(launcher: int, ranks: int) -> list[int]:
    """The processes of the ranks, as soon as each is past its first imports."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        try:
            found = [pid_of_rank(rank, launcher) for rank in range(ranks)]
        except AssertionError:
            found = []
        if found and all(threads(pid) > 1 for pid in found):
            return found
        time.sleep(0.05)
    raise AssertionError("the launcher starts no ranks")


def threads(pid: int) -> int:
    """Of a process; a second one is that which watches the launcher."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def await_steps(path: Path, steps: int, process: subprocess.Popen[str], seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists() or path.read_text().count("\n") < steps:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def pid_of_rank(rank: int, launcher: int) -> int:
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"RANK={rank}" in Path(f"/proc/{child}/environ").read_text().split("\0"):
            return int(child)
    raise AssertionError(f"the launcher has no rank {rank}")
