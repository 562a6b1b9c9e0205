"""Long runs, killed at uniformly random times again and again: nothing is lost, and no rollout used twice or never.

    OMP_NUM_THREADS=1 python benchmarks/soak.py                       # writes docs/results/soak.md and soak.json
    OMP_NUM_THREADS=1 python benchmarks/soak.py --kills 4 --ranks 0 --starts 6 --out /tmp/soak

A run takes 20 steps over 12 prompts, two a step: three epochs and a part. It is killed up to five times at moments
drawn from its whole length, start-up, evaluations and the last save among them; now and then it is sent back to an
older checkpoint of its own. Then it is left to end. `witness.py` tells what it consumed: each step once, each prompt
once an epoch, and the state of the method exactly the rollouts that are logged. On one rank the end is also that of a
run left alone, bit for bit. On two ranks, launched, the launcher, one rank, or all of them are killed, and the run goes
on with two ranks or with one, which draw other numbers: there the witness alone can tell.

At last many processes start on one folder at once: one runs, all others are refused.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import witness
from attempts import Attempt, logged_steps, outcome, saved_step
from faults import ROOT, commit, cpu_name, import_everything

from concise_rl.engine import checkpoint

STEPS, PROMPTS = 20, 12
LONG = [
    f"data.train_size={PROMPTS}", f"trainer.max_steps={STEPS}", "trainer.save_steps=3", "trainer.save_total_limit=4",
    f"method.shapers=[hapo,{{path: {ROOT}/benchmarks/witness.py:Witness}}]",
]  # fmt: skip
VARIANTS: dict[str, list[str]] = {
    "HAPO": [],
    "refill": ["zero_variance=refill"],
    "masks": ["truncated=mask", "zero_variance=drop", "trainer.max_completion_length=32"],
    "guards": ["guard.action=stop", "guard.window=3", "guard.accuracy_share=0.0", "guard.entropy=0.0"],
}
RANKS = "two ranks"
MOST_KILLS = 5
GOING_BACK = 0.2
"""Share of the starts after a kill that name an older checkpoint."""


@dataclass
class Kill:
    """One SIGKILL: of what, how long after the start, with how many steps logged and saved."""

    variant: str
    run: int
    target: str
    seconds: float
    logged: int
    saved: int
    orphan_seconds: float


@dataclass
class Soak:
    """Runs of every variant; `failures` has a line for each one that lost something."""

    folder: Path
    rng: random.Random
    kills: list[Kill] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=dict)
    went_back: int = 0
    failures: list[str] = field(default_factory=list)
    runs: int = 0

    def variant(self, name: str, kills: int) -> None:
        """Kill runs of a variant until there are so many kills; lead all to their end."""
        if not kills:
            return
        overrides = [*LONG, *VARIANTS.get(name, [])]
        expected, seconds = self._alone(name, overrides)
        target = len(self.kills) + kills
        while len(self.kills) < target:
            self.runs += 1
            run = self.folder / f"run-{self.runs}"
            wanted = min(self.rng.randint(1, MOST_KILLS), target - len(self.kills))
            attempt = self._start(name, run, overrides)
            for _ in range(wanted):
                if not self._kill(name, attempt, seconds):
                    break
                attempt = self._start(name, run, [*overrides, *self._going_back(run)])
            self._judge(name, run, attempt, overrides, expected)
            print(f"{name}: {kills - target + len(self.kills)} of {kills}, failures {len(self.failures)}", flush=True)

    def _start(self, name: str, run: Path, overrides: list[str]) -> Attempt:
        if name != RANKS:
            return Attempt(run, *overrides)
        ranks = self.rng.choice([1, 2])
        return Attempt(run, *overrides, f"trainer.per_device_train_batch_size={8 // ranks}", ranks=ranks)

    def _alone(self, name: str, overrides: list[str]) -> tuple[dict[str, Any] | None, float]:
        run = self.folder / f"alone-{name.replace(' ', '-')}"
        attempt = self._start(name, run, overrides)
        started = time.monotonic()
        if attempt.wait():
            sys.exit(f"the undisturbed run ended with {attempt.code}: {attempt.log.read_text()[-2000:]}")
        return (None if name == RANKS else outcome(run, STEPS)), time.monotonic() - started

    def _going_back(self, run: Path) -> list[str]:
        whole = [step for step in checkpoint.steps(run) if checkpoint.verify(run / f"checkpoint-{step}") is None]
        if len(whole) < 2 or self.rng.random() > GOING_BACK:
            return []
        self.went_back += 1
        return [f"resume={run / f'checkpoint-{self.rng.choice(whole[:-1])}'}"]

    def _kill(self, name: str, attempt: Attempt, seconds: float) -> bool:
        """Kill at a moment drawn from the length of a whole run; False if it ended before."""
        due = attempt.started + self.rng.uniform(0, seconds)
        while time.monotonic() < due:
            if attempt.ended():
                return False
            time.sleep(0.001)
        ranks = attempt.rank_pids()
        target = self.rng.choice(["launcher", "rank", "all"]) if ranks else "run"
        for pid in {"launcher": [attempt.pid], "rank": ranks[:1], "all": [attempt.pid, *ranks]}.get(
            target, [attempt.pid]
        ):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        attempt.wait()
        gone = attempt.orphans_gone_after(ranks)
        after = time.monotonic() - attempt.started
        self.kills.append(
            Kill(name, self.runs, target, after, logged_steps(attempt.folder), saved_step(attempt.folder), gone)
        )
        return True

    def _judge(
        self, name: str, run: Path, attempt: Attempt, overrides: list[str], expected: dict[str, Any] | None
    ) -> None:
        code, lost = attempt.wait(), []
        if code:
            lost.append(f"exit code {code}, {attempt.said()}")
        else:
            last = run / f"checkpoint-{STEPS}"
            lost += witness.faults(run, last, STEPS, None if name == "refill" else PROMPTS)
            found = outcome(run, STEPS) if expected else {}
            differing = [part for part in expected or () if part != "names" and found[part] != expected[part]]
            if differing:
                lost.append(f"not the undisturbed end: {differing}")
        self.ends[name] = self.ends.get(name, 0) + (not lost)
        self.failures += [f"{name}, run {self.runs}: {fault}" for fault in lost]

    def starts(self, count: int) -> dict[str, int]:
        """So many processes on one folder at once: how many run, are refused, or do another thing."""
        run = self.folder / "contended"
        attempts = [Attempt(run, "trainer.max_steps=100000", log=f"start-{number}") for number in range(count)]
        while sum(not attempt.ended() for attempt in attempts) > 1:
            time.sleep(0.01)
        refused = sum(attempt.code == 2 and "is in use by process" in attempt.log.read_text() for attempt in attempts)
        running = [attempt for attempt in attempts if attempt.code is None]
        while logged_steps(run) < 2 and not running[0].ended():
            time.sleep(0.01)
        for attempt in running:
            attempt.kill()
        return {"started": count, "ran": len(running), "refused": refused}


def table(soak: Soak) -> list[str]:
    """One line a variant."""
    lines = [
        "| run | kills | runs | ends whole | of the kills: before the first step | after the last step |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name in dict.fromkeys(kill.variant for kill in soak.kills):
        mine = [kill for kill in soak.kills if kill.variant == name]
        runs = len({kill.run for kill in mine})
        first = sum(kill.logged == 0 for kill in mine)
        last = sum(kill.logged == STEPS for kill in mine)
        lines.append(f"| {name} | {len(mine)} | {runs} | {soak.ends.get(name, 0)} | {first} | {last} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="of each variant on one rank")
    parser.add_argument("--ranks", type=int, default=20, help="kills of runs on two ranks")
    parser.add_argument("--starts", type=int, default=30, help="processes that start on one folder at once")
    parser.add_argument("--only", help="one variant alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="concise-rl-soak-") as name:
        folder = Attempt.logs = Path(name)
        import_everything(folder)
        soak = Soak(folder, random.Random(options.seed))
        contended = soak.starts(options.starts) if options.starts else {}
        for variant in VARIANTS if not options.only else [options.only]:
            soak.variant(variant, options.kills)
        if not options.only:
            soak.variant(RANKS, options.ranks)
        write(options, soak, contended, time.monotonic() - started)
    if soak.failures:
        sys.exit("\n".join(soak.failures))


def write(options: argparse.Namespace, soak: Soak, contended: dict[str, int], seconds: float) -> None:
    """The table as Markdown, and every kill as JSON."""
    options.out.mkdir(parents=True, exist_ok=True)
    asked = f"--kills {options.kills} --ranks {options.ranks} --starts {options.starts} --seed {options.seed}"
    orphans = max((kill.orphan_seconds for kill in soak.kills), default=0.0)
    text = [
        "# Soak",
        "",
        f"Made by `python benchmarks/soak.py {asked}` on {datetime.now(timezone.utc).date().isoformat()}, commit "
        f"{commit()}, {cpu_name()}, one thread, {seconds / 60:.0f} minutes. What a run is and what is checked: the "
        "script's first lines.",
        "",
        f"{len(soak.kills)} kills of {soak.runs} runs, {soak.went_back} times sent back to an older checkpoint; runs "
        f"that lost something: {len({fault.partition(':')[0] for fault in soak.failures})}. The last process of a "
        f"killed run was gone within {orphans:.1f} s.",
        "",
        *table(soak),
    ]
    if contended:
        text += ["", "{started} starts on one folder at once: {ran} ran, {refused} were refused.".format(**contended)]
    text += ["", *(f"- {fault}" for fault in soak.failures)]
    (options.out / "soak.md").write_text("\n".join(text).rstrip() + "\n")
    content = {"kills": [asdict(kill) for kill in soak.kills], "failures": soak.failures, "starts": contended}
    (options.out / "soak.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
