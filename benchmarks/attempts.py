"""One start of a short real run, for `faults.py`: forked or a process of its own, watched, killed, and its end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}
os.environ |= {"COLUMNS": "1000", "DS_ACCELERATOR": "cpu", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

STEPS, SAVE_STEPS = 8, 2
RUN = [  # each prompt comes twice, so that there is a history to compare with
    "method=hapo", "trainer.per_device_train_batch_size=8", "trainer.num_generations=4",
    "trainer.max_completion_length=48", f"trainer.max_steps={STEPS}", f"trainer.save_steps={SAVE_STEPS}",
    "trainer.learning_rate=1e-4", "data.train_size=8", "evaluation.problems=4", "run.progress=false", "resume=auto",
]  # fmt: skip
TIMES = ("time", "step_time", "generate_seconds")
ROOT = Path(__file__).parent.parent
LAUNCHER = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
LAUNCHER += ["--config_file", str(ROOT / "launch" / "accelerate" / "cpu2.yaml"), "--main_process_port", "0"]
LAUNCHED_SECONDS = 60.0
"""Ranks whose launcher is gone save first; one that cannot is killed after 30 s (`commands/launched.py`)."""

ORPHAN_SECONDS = 20.0
"""A verifier worker may outlive its run by the deadline of the answer that it has in hand, 5 s, and 10 s."""


class Attempt:
    """One start of the run in a process group of its own: forked from this process, or a new interpreter."""

    logs: Path

    def __init__(
        self, folder: Path, *overrides: str, fork: bool = True, ranks: int = 1, log: str | None = None
    ) -> None:
        self.folder, self.log = folder, self.logs / f"{log or folder.name}.log"
        arguments = [*RUN, f"run.dir={folder}", *overrides]
        self.started = time.monotonic()
        self.code: int | None = None
        self.ranks = ranks
        if fork and ranks == 1:
            self.pid = os.fork()
            if self.pid == 0:
                self._child(arguments)
        else:
            launcher = [sys.executable] if ranks == 1 else [*LAUNCHER, "--num_processes", str(ranks)]
            command = [*launcher, "-m", "concise_rl.train", *arguments]
            with self.log.open("w") as log:
                self.pid = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True).pid

    def _child(self, arguments: list[str]) -> None:
        from concise_rl.commands import train

        code = 70
        try:
            os.setsid()
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))  # not pytest's
            sys.argv = ["concise-rl", *arguments]
            train.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is not None

    def wait(self) -> int:
        while not self.ended():
            time.sleep(0.002)
        assert self.code is not None
        return self.code

    def kill(self) -> None:
        """SIGKILL for the run itself; what it started is left to notice."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def rank_pids(self) -> list[int]:
        """The processes of its ranks, where a launcher has started some; each leads a group of its own."""
        if self.ranks == 1:
            return []
        with contextlib.suppress(OSError):
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        return []

    def orphans_gone_after(self, ranks: Sequence[int] = ()) -> float:
        """Seconds until no process of its groups is left; inf after a bound, when they are killed."""
        started, groups = time.monotonic(), [self.pid, *ranks]
        while any(in_group(group) for group in groups):
            if time.monotonic() - started > (LAUNCHED_SECONDS if ranks else ORPHAN_SECONDS):
                for group in groups:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(group, signal.SIGKILL)
                return float("inf")
            time.sleep(0.005)
        return time.monotonic() - started

    def said(self) -> list[str]:
        """Its errors and warnings, the run folder being `runs/x`."""
        lines = self.log.read_text(errors="replace").replace(str(self.folder), "runs/x").splitlines()
        return [" ".join(line.split()) for line in lines if line.startswith(("error:", "warning:", "Traceback"))]


def in_group(group: int) -> bool:
    """Whether any process of the group lives; what nobody has waited for yet is dead."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                return True
    return False


def outcome(folder: Path, steps: int = STEPS) -> dict[str, Any]:
    """What a finished run must have come to."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    files = [folder / name for name in ("rollouts.jsonl", "evaluation-before.jsonl", "evaluation-after.jsonl")]
    files.append(folder / "model" / "model.safetensors")
    last = folder / f"checkpoint-{steps}"
    names = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "concise_state.json")
    files += [last / name for name in (*names, "concise_state.safetensors")]
    return {
        "names": sorted(names_in(folder)),
        "metrics": [{name: value for name, value in line.items() if name not in TIMES} for line in lines],
        **{str(path.relative_to(folder)): file_hash(path) for path in files},
    }


def file_hash(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def logged_steps(folder: Path) -> int:
    """Steps in metrics.jsonl, a torn last line not counted."""
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def saved_step(folder: Path) -> int:
    from concise_rl.engine import checkpoint

    newest = checkpoint.newest_complete(folder, lambda _: None)
    return checkpoint.step_of(newest) if newest else 0


def is_saving(folder: Path) -> bool:
    """Between the first file of a save and the last deletion that follows it."""
    return any(name.startswith((".staging", ".replaced-", ".deleted-")) for name in names_in(folder))


def names_in(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []
