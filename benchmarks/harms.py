"""Faults other than kills, for `faults.py`: damaged checkpoints, disks that are full or read-only, a folder removed.

Each is done to a run that was killed after its second checkpoint; the run is resumed, and what a user sees is kept.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attempts import Attempt, outcome

from concise_rl.engine import checkpoint, state


@dataclass
class Harm:
    """One fault and what came of it.

    Attributes:
        fault: what was done.
        code: exit code of the run that met it.
        said: what it said, one line each.
        equal: whether the run came to the undisturbed end, at once or resumed once the fault was mended; None where
            it must not go on.
    """

    fault: str
    code: int
    said: list[str]
    equal: bool | None


def damage(path: Path, how: str) -> None:
    """Truncate, flip one bit of, or remove a file."""
    content = bytearray(path.read_bytes())
    path.unlink()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "one bit flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def another_version(folder: Path) -> None:
    """Make a checkpoint what a later version would write: format 2, sealed as it should be."""
    format_here, state.FORMAT = state.FORMAT, state.FORMAT + 1
    try:
        path = folder / checkpoint.STATE_FILE
        path.write_bytes(state.seal(json.loads(path.read_bytes())["content"]))
        os.rename(folder, folder.with_name("unsealed"))
        checkpoint.publish(folder.with_name("unsealed"), folder)
    finally:
        state.FORMAT = format_here


def torn_and_sealed(path: Path) -> None:
    """Cut a file in half and seal its checkpoint anew: the manifest finds nothing wrong."""
    damage(path, "truncated")
    folder = path.parent
    os.rename(folder, folder.with_name("unsealed"))
    checkpoint.publish(folder.with_name("unsealed"), folder)


def lists_nothing(path: Path) -> None:
    """A manifest, sealed as it should be, of no files."""
    path.write_bytes(state.seal({"step": 4, "files": {}}))


HARMS: list[tuple[str, str, Callable[[Path], None]]] = [
    (f"newest checkpoint, `{name}` {how}", name, lambda path, how=how: damage(path, how))
    for name, how in (
        ("model.safetensors", "truncated"),
        ("model.safetensors", "one bit flipped"),
        ("optimizer.pt", "one bit flipped"),
        (checkpoint.STATE_FILE, "missing"),
        (checkpoint.ARRAYS_FILE, "one bit flipped"),
        (checkpoint.MANIFEST_FILE, "missing"),
    )
]
HARMS += [
    (f"newest checkpoint, `{name}` torn before it was sealed", name, torn_and_sealed)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", checkpoint.ARRAYS_FILE)
]
HARMS += [
    ("newest checkpoint, the manifest lists no files", checkpoint.MANIFEST_FILE, lists_nothing),
    ("newest checkpoint written by a later version", "", another_version),
]


class Harmed:
    """Copies of one killed run, each harmed in its own way and resumed."""

    def __init__(self, folder: Path, expected: dict[str, Any]) -> None:
        self.folder, self.expected = folder, expected
        self.killed = folder / "killed"
        attempt = Attempt(self.killed)
        while not (self.killed / "checkpoint-4").exists() and not attempt.ended():
            time.sleep(0.001)
        attempt.kill()
        self.number = 0

    def all(self) -> list[Harm]:
        """Every harm in turn; those of disks only as root."""
        found = [self._damaged(fault, name, harm) for fault, name, harm in HARMS]
        found += [self._nothing_left(), self._removed()]
        if os.geteuid() == 0:
            found += [self._full_disk(), self._read_only_from_the_start(), self._read_only_midway()]
            found += [
                self._full_at_the_end("size=30m", "full"),
                self._full_at_the_end("nr_inodes={}", "without inodes"),
            ]
        return found

    def _copy(self, parent: Path | None = None) -> Path:
        self.number += 1
        copy = (parent or self.folder) / f"harmed-{self.number}"
        shutil.copytree(self.killed, copy)
        return copy

    def _is_equal(self, run: Path) -> bool:
        return outcome(run) == self.expected

    def _damaged(self, fault: str, name: str, harm: Callable[[Path], None]) -> Harm:
        run = self._copy()
        harm(run / "checkpoint-4" / name)
        attempt = Attempt(run)
        code = attempt.wait()
        return Harm(fault, code, attempt.said(), code == 0 and self._is_equal(run))

    def _nothing_left(self) -> Harm:
        run = self._copy()
        for step in (2, 4):
            damage(run / f"checkpoint-{step}" / checkpoint.STATE_FILE, "one bit flipped")
        metrics = (run / "metrics.jsonl").read_bytes()
        attempt = Attempt(run)
        code = attempt.wait()
        assert (run / "metrics.jsonl").read_bytes() == metrics, "a run that was refused lost its metrics"
        return Harm(f"every checkpoint, `{checkpoint.STATE_FILE}` one bit flipped", code, attempt.said(), None)

    def _removed(self) -> Harm:
        run = self._copy()
        attempt = Attempt(run)
        self._await_step(attempt, run, 5)
        while run.exists():
            shutil.rmtree(run, ignore_errors=True)
        return Harm("run folder removed in mid-run", attempt.wait(), attempt.said(), None)

    def _await_step(self, attempt: Attempt, run: Path, step: int) -> None:
        while (run / "metrics.jsonl").read_bytes().count(b"\n") < step and not attempt.ended():
            time.sleep(0.001)

    def _full_disk(self) -> Harm:
        with Mounted(self.folder / "disk", "size=30m") as disk:
            run = self._copy(disk)  # 22 MB in two checkpoints: a third one does not fit
            attempt = Attempt(run)
            code, said = attempt.wait(), attempt.said()
            assert checkpoint.verify(run / "checkpoint-4") is None
            return Harm("disk full while saving", code, said, self._mended(run, "size=60m"))

    def _mended(self, run: Path, options: str) -> bool:
        subprocess.run(["mount", "-o", f"remount,{options}", str(run.parent)], check=True)
        return Attempt(run).wait() == 0 and self._is_equal(run)

    def _read_only_from_the_start(self) -> Harm:
        with Mounted(self.folder / "disk", "size=60m") as disk:
            run = self._copy(disk)
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            attempt = Attempt(run)
            code, said = attempt.wait(), attempt.said()
            return Harm("disk read-only at the start", code, said, self._mended(run, "rw"))

    def _read_only_midway(self) -> Harm:
        with Mounted(self.folder / "disk", "size=60m") as disk:
            run = self._copy(disk)
            attempt = Attempt(run)
            self._await_step(attempt, run, 5)
            # The run holds its lock open, and no disk with a file open for writing is remounted; what is mounted over
            # it is what every later file is opened on.
            subprocess.run(["mount", "--bind", str(disk), str(disk)], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)
            code, said = attempt.wait(), attempt.said()
            subprocess.run(["umount", str(disk)], check=True)
            assert code, "the run did not notice"
            return Harm("disk turned read-only in mid-run", code, said, self._mended(run, "rw"))

    def _full_at_the_end(self, options: str, what: str) -> Harm:
        """The disk takes all but the trained model."""
        with Mounted(self.folder / "disk", "size=80m") as disk:
            run = disk / "run"
            shutil.copytree(self.folder / "undisturbed-harms", run)
            shutil.rmtree(run / "model")
            for name in ("summary.json", "evaluation-after.jsonl"):
                (run / name).unlink()
            used = 1 + sum(1 for _ in disk.rglob("*"))
            subprocess.run(["mount", "-o", f"remount,{options.format(used + 4)}", str(disk)], check=True)
            if "size" in options:
                fill(disk / "filling", leave=1 << 20)
            attempt = Attempt(run)
            code, said = attempt.wait(), attempt.said()
            assert not (run / "model").exists()
            (disk / "filling").unlink(missing_ok=True)
            return Harm(f"disk {what} at the last save", code, said, self._mended(run, "size=80m,nr_inodes=100k"))


def fill(path: Path, leave: int) -> None:
    """A file that leaves so many bytes of its disk."""
    with path.open("wb") as file:
        for _ in range((shutil.disk_usage(path.parent).free - leave) >> 16):
            file.write(bytes(1 << 16))


class Mounted:
    """A tmpfs of its own, for as long as the block runs."""

    def __init__(self, folder: Path, options: str) -> None:
        self.folder, self.options = folder, options

    def __enter__(self) -> Path:
        self.folder.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", self.options, "tmpfs", str(self.folder)], check=True)
        return self.folder

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)


def harm_table(harms: Sequence[Harm]) -> list[str]:
    """One line a fault, with what a user sees."""
    lines = ["| fault | what a user sees | exit code | the undisturbed end |", "|---|---|--:|---|"]
    for harm in harms:
        said = "; ".join(f"`{line}`" for line in harm.said)
        end = {True: "reached", False: "**missed**", None: "-"}[harm.equal]
        lines.append(f"| {harm.fault} | {said} | {harm.code} | {end} |")
    return lines
