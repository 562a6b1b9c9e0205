"""Long runs, killed at uniformly random times again and again: nothing is lost, and no rollout used twice or never.

    OMP_NUM_THREADS=1 python benchmarks/soak.py                       # writes docs/results/soak.md and soak.json
    OMP_NUM_THREADS=1 python benchmarks/soak.py --kills 4 --ranks 0 --starts 6 --out /tmp/soak

A run takes 20 steps over 12 prompts, two a step: three epochs and a part. It is killed up to five times at moments
drawn from its whole length, start-up, evaluations and the last save among them; now and then it is sent back to an
older checkpoint of its own. Then it is left to end. `witness.py` tells what it consumed: each step once, each prompt
once an epoch, and the state of the method exactly the rollouts that are logged. On one rank the end is also that of a
run left alone, bit for bit. On two ranks, launched, the launcher, one rank, or all of them are killed, and the run goes
on with two ranks or with one, which draw other numbers: there the witness alone can tell. The variants of the run are
in `VARIANTS`; three in ten kills wait for a save, which a moment drawn from the whole run seldom meets.

At last many processes start on one folder at once: one runs, all others are refused.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import witness
from attempts import Attempt, is_saving, logged_steps, names_in, outcome, saved_step
from faults import ROOT, commit, cpu_name, import_everything

from concise_rl.engine import checkpoint

STEPS, PROMPTS = 20, 12
LONG = [
    f"data.train_size={PROMPTS}", f"trainer.max_steps={STEPS}", "trainer.save_steps=3", "trainer.save_total_limit=4",
]  # fmt: skip
MOMENTS = ("start-up or first evaluation", "rollout or update", "save", "final save", "last evaluation")
MOST_KILLS = 5
SAVES, AIMED, SAVE_SECONDS = ("save", "final save"), (0.7, 0.2, 0.1), 0.03
"""A save is short: a share of the kills waits for one of these after its moment."""

GOING_BACK = 0.2
"""Share of the starts after a kill that name an older checkpoint."""


@dataclass(frozen=True)
class Variant:
    """What is run.

    Attributes:
        shaper: before the witness.
        overrides: besides.
        by_epoch: every prompt is drawn once an epoch; not so where groups are refilled, or a curriculum chooses.
        last: the step at which it ends.
        ranks: each start draws one rank or two.
    """

    shaper: str = "hapo"
    overrides: tuple[str, ...] = ()
    by_epoch: bool = True
    last: int = STEPS
    ranks: bool = False

    def arguments(self) -> list[str]:
        witness = f"{{path: {ROOT}/benchmarks/witness.py:Witness}}"
        return [*LONG, f"method.shapers=[{self.shaper},{witness}]", *self.overrides]


LEASH = Variant("leash", ("shaper.leash.T=24", "shaper.leash.eta=0.05"))
POOLS = Variant("plain", ("method.curriculum=pools",), by_epoch=False)
VARIANTS = {
    "HAPO": Variant(),
    "refill": Variant(overrides=("zero_variance=refill",), by_epoch=False),
    "masks": Variant(overrides=("truncated=mask", "zero_variance=drop", "trainer.max_completion_length=32")),
    # Every step is a sign, so it goes back from step 8 to 3, twice, and ends at the third step 8.
    "guards": Variant(overrides=("guard.action=rollback", "guard.window=4", "guard.truncated=0.0"), last=8),
    "controller (LEASH)": LEASH,
    "curriculum (pools)": POOLS,
    "curriculum (cascade)": Variant("plain", ("method.curriculum=readmit", "curriculum.readmit.easy=0.2"), False),
    "HAPO, two ranks": Variant(ranks=True),
    "controller (LEASH), two ranks": replace(LEASH, ranks=True),
    "curriculum (pools), two ranks": replace(POOLS, ranks=True),
}


@dataclass
class Kill:
    """One SIGKILL: of what, how long after the start, in the middle of what, with how many steps logged and saved."""

    variant: str
    run: int
    target: str
    seconds: float
    moment: str
    logged: int
    saved: int
    orphan_seconds: float


@dataclass
class Soak:
    """Runs of every variant; `failures` has a line for each thing that one lost."""

    folder: Path
    rng: random.Random
    kills: list[Kill] = field(default_factory=list)
    ends: dict[str, list[bool]] = field(default_factory=dict)
    went_back: int = 0
    failures: list[str] = field(default_factory=list)
    runs: int = 0
    contended: dict[str, int] = field(default_factory=dict)

    def variant(self, name: str, kills: int, write: Callable[[], None]) -> None:
        """Kill runs of a variant until there are so many kills; lead all to their end."""
        if not kills:
            return
        expected, seconds = self._alone(name)
        target = len(self.kills) + kills
        while len(self.kills) < target:
            self.runs += 1
            run = self.folder / f"run-{self.runs}"
            wanted = min(self.rng.randint(1, MOST_KILLS), target - len(self.kills))
            attempt = self._start(name, run)
            for _ in range(wanted):
                if not self._kill(name, attempt, seconds):
                    break
                attempt = self._start(name, run, *self._going_back(run))
            self._judge(name, run, attempt, expected)
            write()
            print(f"{name}: {kills - target + len(self.kills)} of {kills}, failures {len(self.failures)}", flush=True)

    def _start(self, name: str, run: Path, *overrides: str) -> Attempt:
        variant = VARIANTS[name]
        overrides = (*variant.arguments(), *overrides)
        if not variant.ranks:
            return Attempt(run, *overrides)
        ranks = self.rng.choice([1, 2])
        size = f"trainer.per_device_train_batch_size={8 // ranks}"
        return Attempt(run, *overrides, size, ranks=ranks)

    def _alone(self, name: str) -> tuple[dict[str, Any] | None, float]:
        """The undisturbed end, None where it depends on the ranks, and the seconds that it takes."""
        run, variant = self.folder / f"alone-{len(self.ends)}", VARIANTS[name]
        attempt = self._start(name, run)
        started = time.monotonic()
        if attempt.wait():
            sys.exit(f"the undisturbed run ended with {attempt.code}: {attempt.log.read_text()[-2000:]}")
        return (None if variant.ranks else outcome(run, variant.last)), time.monotonic() - started

    def _going_back(self, run: Path) -> list[str]:
        whole = [step for step in checkpoint.steps(run) if checkpoint.verify(run / f"checkpoint-{step}") is None]
        if len(whole) < 2 or self.rng.random() > GOING_BACK:
            return []
        self.went_back += 1
        return [f"resume={run / f'checkpoint-{self.rng.choice(whole[:-1])}'}"]

    def _kill(self, name: str, attempt: Attempt, seconds: float) -> bool:
        """Kill at a moment drawn from the length of a whole run, or of a later save; False if it ended before."""
        folder, last = attempt.folder, VARIANTS[name].last
        before, aim = logged_steps(folder), self.rng.choices(["", *SAVES], AIMED)[0]
        due = attempt.started + (self.rng.uniform(0, 0.5 if aim else 1) * seconds)
        while time.monotonic() < due or (aim and moment(folder, before, last) != aim):
            if attempt.ended():
                return False
            time.sleep(0.001)
        time.sleep(self.rng.uniform(0, SAVE_SECONDS) if aim else 0)
        ranks = attempt.rank_pids()
        target = self.rng.choice(["launcher", "rank", "all"]) if ranks else "run"
        doomed = {"rank": ranks[:1], "all": [attempt.pid, *ranks]}.get(target, [attempt.pid])
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        after = time.monotonic() - attempt.started
        when = moment(folder, before, last)
        attempt.wait()
        gone = attempt.orphans_gone_after(ranks)
        self.kills.append(Kill(name, self.runs, target, after, when, logged_steps(folder), saved_step(folder), gone))
        return True

    def _judge(self, name: str, run: Path, attempt: Attempt, expected: dict[str, Any] | None) -> None:
        code, lost, variant = attempt.wait(), [], VARIANTS[name]
        if code:
            lost.append(f"exit code {code}, {attempt.said()}")
        else:
            last = run / f"checkpoint-{variant.last}"
            lost += witness.faults(run, last, variant.last, PROMPTS if variant.by_epoch else None)
            found = outcome(run, variant.last) if expected else {}
            differing = [part for part in expected or () if part != "names" and found[part] != expected[part]]
            if differing:
                lost.append(f"not the undisturbed end: {differing}")
        self.ends.setdefault(name, []).append(not lost)
        self.failures += [f"{name}, run {self.runs}: {fault}" for fault in lost]
        if not lost:
            shutil.rmtree(run)

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


def moment(folder: Path, before: int, last: int) -> str:
    """What was going on, by what is left behind.

    Args:
        before: steps that were logged when this attempt began.
    """
    logged, names = logged_steps(folder), names_in(folder)
    if "model" in names:
        return "last evaluation"
    if logged == before < last:
        return "start-up or first evaluation"
    if f"checkpoint-{last}" in names:
        return "final save"
    return "save" if is_saving(folder) else "rollout or update"


def table(soak: Soak) -> list[str]:
    """One line a variant: its kills by what was going on."""
    lines = [
        f"| run | runs | ends whole | kills | {' | '.join(MOMENTS)} |",
        f"|---|--:|--:|--:|{'--:|' * len(MOMENTS)}",
    ]
    everything = [whole for ends in soak.ends.values() for whole in ends]
    for name, ends in [*soak.ends.items(), ("**all**", everything)]:
        mine = [kill for kill in soak.kills if kill.variant == name or ends is everything]
        hit = " | ".join(str(sum(kill.moment == when for kill in mine)) for when in MOMENTS)
        lines.append(f"| {name} | {len(ends)} | {sum(ends)} | {len(mine)} | {hit} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, help="of each variant on one rank")
    parser.add_argument("--ranks", type=int, default=10, help="of each variant on one rank or two")
    parser.add_argument("--starts", type=int, default=30, help="processes that start on one folder at once")
    parser.add_argument("--only", choices=VARIANTS, nargs="+", default=list(VARIANTS), help="these variants alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    options = parser.parse_args()
    options.commit, started = commit(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="concise-rl-soak-") as name:
        folder = Attempt.logs = Path(name)
        import_everything(folder)
        soak = Soak(folder, random.Random(options.seed))
        soak.contended = soak.starts(options.starts) if options.starts else {}
        for variant in options.only:
            kills = options.ranks if VARIANTS[variant].ranks else options.kills
            soak.variant(variant, kills, lambda: write(options, soak, time.monotonic() - started))
        if soak.failures:
            sys.exit("\n".join(soak.failures))


def write(options: argparse.Namespace, soak: Soak, seconds: float) -> None:
    """The table as Markdown, and every kill as JSON."""
    options.out.mkdir(parents=True, exist_ok=True)
    asked = f"--kills {options.kills} --ranks {options.ranks} --starts {options.starts} --seed {options.seed}"
    orphans = max((kill.orphan_seconds for kill in soak.kills), default=0.0)
    lost = len({fault.partition(":")[0] for fault in soak.failures})
    text = [
        "# Soak",
        "",
        f"Made by `python benchmarks/soak.py {asked}` on {datetime.now(timezone.utc).date().isoformat()}, commit "
        f"{options.commit}, {cpu_name()}, one thread, {seconds / 60:.0f} minutes. What a run is and what is checked: "
        "the script's first lines.",
        "",
        f"{len(soak.kills)} kills of {soak.runs} runs, {soak.went_back} times sent back to an older checkpoint. Runs "
        f"that lost something: {lost}. The last process of a killed run was gone within {orphans:.1f} s.",
        "",
        *table(soak),
    ]
    if soak.contended:
        text += [
            "",
            "{started} starts on one folder at once: {ran} ran, {refused} were refused.".format(**soak.contended),
        ]
    text += ["", *(f"- {fault}" for fault in soak.failures)]
    (options.out / "soak.md").write_text("\n".join(text).rstrip() + "\n")
    content = {"kills": [asdict(kill) for kill in soak.kills], "failures": soak.failures, "starts": soak.contended}
    (options.out / "soak.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
