"""A short real run, killed and harmed in every way that a machine knows, resumed, and compared with one left alone.

    OMP_NUM_THREADS=1 python benchmarks/faults.py              # writes docs/results/faults.md and faults.json
    OMP_NUM_THREADS=1 python benchmarks/faults.py --anywhere 4 --saving 2 --processes 1 --workers 1 --out /tmp/faults

The run is `concise-rl train` with the embedded model and HAPO, whose history is its state: eight steps, a checkpoint
after every second one, an evaluation before and after. A run is killed up to five times, each time at a moment drawn
anew, and goes on with `resume=auto`; then it is left to end. Its end must be that of the undisturbed run, bit for bit:
metrics without times, rollouts, evaluations, weights, optimizer, random states and history.

Imports take longer than such a run. So this process imports everything once, keeps to one thread, and forks a child for
each attempt; kills of real processes (`python -m concise_rl.train`) check that forking hides nothing. Full and
read-only disks are a tmpfs, which only root may mount.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from statistics import mean, median
from typing import Any

from attempts import Attempt, is_saving, logged_steps, outcome, saved_step
from harms import Harm, Harmed, harm_table

ROOT = Path(__file__).parent.parent
MOST_KILLS = 5  # of one run
WORKERS = ["data.verifier=math_answer"]  # judges in processes of its own


# -- kills -------------------------------------------------------------------------------------------------------------


@dataclass
class Kill:
    """One SIGKILL and what came of it.

    Attributes:
        kind: how its moment was chosen.
        run: which run; its other kills and its end are shared.
        seconds: after the start of the attempt.
        moment: what was going on, by what was left behind.
        logged: steps that the run had logged.
        resumed_at: step of the checkpoint that it goes on from; 0 starts anew.
        orphan_seconds: until the last process that the run had started was gone.
        resumed: whether the run went on to its end.
        equal: whether that was the end of the undisturbed run.
    """

    kind: str
    run: int
    seconds: float
    moment: str
    logged: int
    resumed_at: int
    orphan_seconds: float
    resumed: bool = False
    equal: bool = False


@dataclass
class Campaign:
    """Kills of every kind against the undisturbed run."""

    folder: Path
    rng: random.Random
    kills: list[Kill] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    runs: int = 0
    plain: dict[str, Any] = field(default_factory=dict)

    def undisturbed(self, name: str, *overrides: str, fork: bool = True) -> tuple[dict[str, Any], float, float]:
        """Its outcome, the seconds that it took, and the seconds of a save."""
        attempt = Attempt(self.folder / name, *overrides, fork=fork)
        saves: list[float] = []
        while not attempt.ended():
            started = time.monotonic()
            while is_saving(attempt.folder) and not attempt.ended():
                time.sleep(0.0005)
            if time.monotonic() - started > 0.005:
                saves.append(time.monotonic() - started)
            time.sleep(0.0005)
        if attempt.code:
            sys.exit(f"the undisturbed run ended with {attempt.code}: {attempt.log.read_text()[-2000:]}")
        return outcome(attempt.folder), time.monotonic() - attempt.started, median(saves)

    def kill_runs(self, kind: str, count: int, *overrides: str, fork: bool = True) -> None:
        """Kill until there are `count` kills of this kind; all runs are led to their end."""
        if not count:
            return
        expected, seconds, save_seconds = self.undisturbed(f"undisturbed-{kind}", *overrides, fork=fork)
        if not overrides:  # forked or not, an undisturbed run has one end
            self.plain = self.plain or expected
            assert self.plain == expected
        print(f"{kind}: undisturbed {seconds:.1f} s, a save {save_seconds * 1000:.0f} ms", flush=True)
        of_kind: list[Kill] = []
        while len(of_kind) < count:
            self.runs += 1
            folder = self.folder / f"run-{self.runs}"
            mine: list[Kill] = []
            for _ in range(self.rng.randint(1, min(MOST_KILLS, count - len(of_kind)))):
                attempt = Attempt(folder, *overrides, fork=fork)
                hit = self._await_save(attempt, save_seconds) if kind == "saving" else self._await(attempt, seconds)
                if not hit:
                    break
                attempt.kill()
                mine.append(self._kill_record(kind, attempt, time.monotonic() - attempt.started))
            self._end(folder, attempt, expected, mine, overrides, fork)
            of_kind += mine
            self.kills += mine
            print(f"{kind}: {len(of_kind)} of {count}, equal {sum(k.equal for k in of_kind)}", flush=True)

    def _await(self, attempt: Attempt, seconds: float) -> bool:
        """Wait for a moment drawn from the whole length of an undisturbed run; False if the run ended before."""
        due = attempt.started + self.rng.uniform(0, seconds)
        while time.monotonic() < due and not attempt.ended():
            time.sleep(0.001)
        return not attempt.ended()

    def _await_save(self, attempt: Attempt, save_seconds: float) -> bool:
        """Wait for one of the next saves, then for a moment drawn from its length."""
        for _ in range(self.rng.randint(1, 3)):
            while is_saving(attempt.folder) and not attempt.ended():  # what a killed save left, or the save before
                time.sleep(0.0005)
            while not is_saving(attempt.folder):
                if attempt.ended():
                    return False
                time.sleep(0.0005)
        time.sleep(self.rng.uniform(0, save_seconds))
        return not attempt.ended()

    def _kill_record(self, kind: str, attempt: Attempt, seconds: float) -> Kill:
        folder = attempt.folder
        if is_saving(folder):
            moment = "while saving"
        elif not logged_steps(folder):
            moment = "before the first step"
        else:
            moment = "after training" if (folder / "model").exists() else "in training"
        gone = attempt.orphans_gone_after()
        return Kill(kind, self.runs, seconds, moment, logged_steps(folder), saved_step(folder), gone)

    def _end(
        self,
        folder: Path,
        attempt: Attempt,
        expected: dict[str, Any],
        kills: list[Kill],
        overrides: Sequence[str],
        fork: bool,
    ) -> None:
        """Let the run end, and compare."""
        if attempt.code is not None and attempt.code < 0:
            attempt = Attempt(folder, *overrides, fork=fork)
        code = attempt.wait()
        found = outcome(folder) if code == 0 else {}
        differing = [name for name in expected if found.get(name) != expected[name]]
        for kill in kills:
            kill.resumed, kill.equal = code == 0, not differing
        if differing:
            names = sorted(set(found.get("names", ())) ^ set(expected["names"]))
            self.failures.append(
                f"run {self.runs}: exit code {code}, {differing} differ, names {names}, {attempt.said()}"
            )
        else:
            shutil.rmtree(folder)


def kill_table(kills: Sequence[Kill]) -> list[str]:
    """One line for each way of choosing the moment, and one for each moment that was hit."""
    lines = [
        "| moment of the kill | kills | resumed to the end | equal | lost | steps done again, mean | most |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    groups: list[tuple[str, list[Kill]]] = [
        ("drawn from the whole run", [k for k in kills if k.kind == "anywhere"]),
        ("drawn from the length of a save", [k for k in kills if k.kind == "saving"]),
        ("with verifier workers, from the whole run", [k for k in kills if k.kind == "workers"]),
        ("a process of its own, from the whole run", [k for k in kills if k.kind == "processes"]),
        ("**all**", list(kills)),
    ]
    groups += [
        (f"of these, {moment}", [k for k in kills if k.moment == moment])
        for moment in ("before the first step", "in training", "while saving", "after training")
    ]
    for name, group in groups:
        if group:
            lost = [max(0, kill.logged - kill.resumed_at) for kill in group]
            resumed, equal = sum(kill.resumed for kill in group), sum(kill.equal for kill in group)
            lines.append(
                f"| {name} | {len(group)} | {resumed} | {equal} | {len(group) - equal} "
                f"| {mean(lost):.1f} | {max(lost)} |"
            )
    return lines


# -- the campaign ------------------------------------------------------------------------------------------------------


def import_everything(folder: Path) -> None:
    """Import what a run imports, so that no child has to: one tells which modules it had at its end."""
    from concise_rl.commands import train

    names, stop = folder / "modules.json", train.main

    def main() -> None:
        stop()
        names.write_text(json.dumps([name for name in sys.modules if name != "__main__"]))

    train.main = main
    try:
        attempt = Attempt(folder / "imports", "trainer.max_steps=2")
        if attempt.wait():
            sys.exit(attempt.log.read_text()[-2000:])
    finally:
        train.main = stop
    for name in json.loads(names.read_text()):
        with contextlib.suppress(ImportError, AttributeError):
            __import__(name)
    import torch

    torch.set_num_threads(1)


def commit() -> str:
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return asked.stdout.strip()


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--anywhere", type=int, default=65, help="kills at moments drawn from the whole run")
    parser.add_argument("--saving", type=int, default=32, help="kills at moments drawn from the length of a save")
    parser.add_argument("--workers", type=int, default=4, help="kills of runs whose verifier has worker processes")
    parser.add_argument("--processes", type=int, default=5, help="kills of real processes")
    parser.add_argument("--no-harms", action="store_true", help="kills alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    options = parser.parse_args()
    options.commit, started = commit(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="concise-rl-faults-") as name:
        folder = Attempt.logs = Path(name)
        import_everything(folder)
        campaign = Campaign(folder, random.Random(options.seed))
        harms: list[Harm] = []
        for kind in ("saving", "processes", "workers", "anywhere"):
            overrides = WORKERS if kind == "workers" else []
            campaign.kill_runs(kind, getattr(options, kind), *overrides, fork=kind != "processes")
            write(options, campaign, harms, time.monotonic() - started)
        if not options.no_harms:
            harms = Harmed(folder, campaign.undisturbed("undisturbed-harms")[0]).all()
            write(options, campaign, harms, time.monotonic() - started)
    if campaign.failures or any(harm.equal is False for harm in harms):
        sys.exit("\n".join(campaign.failures) or "a harmed run missed its end")


def write(options: argparse.Namespace, campaign: Campaign, harms: Sequence[Harm], seconds: float) -> None:
    """The tables as Markdown, and every kill and fault as JSON."""
    day = datetime.now(timezone.utc).date().isoformat()
    kills = campaign.kills
    options.out.mkdir(parents=True, exist_ok=True)
    orphans = max((kill.orphan_seconds for kill in kills), default=0.0)
    asked = f"--anywhere {options.anywhere} --saving {options.saving} --workers {options.workers}"
    text = [
        "# Faults",
        "",
        f"Made by `python benchmarks/faults.py {asked} --processes {options.processes} --seed {options.seed}` "
        f"on {day}, commit {options.commit}, {cpu_name()}, one thread, {seconds / 60:.0f} minutes. What a run is, and "
        "what must be equal at its end: the script's first lines.",
        "",
        "## SIGKILL",
        "",
        f"{len(kills)} kills of {campaign.runs} runs; runs whose end differed: {len(campaign.failures)}. After a kill "
        f"the last process that the run had started was gone within {orphans:.2f} s.",
        "",
        *kill_table(kills),
    ]
    if harms:
        text += ["", "## Other faults", "", *harm_table(harms)]
    (options.out / "faults.md").write_text("\n".join(text) + "\n")
    content = {"kills": [asdict(kill) for kill in kills], "harms": [asdict(harm) for harm in harms]}
    (options.out / "faults.json").write_text(json.dumps(content | {"failures": campaign.failures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
