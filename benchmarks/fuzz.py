"""Hostile completions through everything that reads a completion: no exception, no hang over the deadline, no NaN.

    python benchmarks/fuzz.py                                         2,000 completions, some minutes
    python benchmarks/fuzz.py --completions 100000 --markdown out.md  the campaign of docs/results/fuzz.md

Each completion goes through the embedded tokenizer and back, every registered verifier (one at a time, so that each
has a time of its own), the phase split, every shaper, advantage, filter, cut and curriculum, rollouts.jsonl, and an
evaluation; each few thousand through report.html, the comparison's page with its Markdown, CSV and figures, and the
terminal's tables. What goes wrong is printed with the number that makes it again: everything is drawn from `--seed`.
Exits with 1 if anything did.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.firing import DEADLINE_SECONDS, GRACE_SECONDS, GROUP_SIZE, Range, Slowest, Tally
from benchmarks.hostile import Hostile
from concise_rl.reporting.run_log import RunLog, read_rollouts
from concise_rl.verifiers import Verdict

PROMPTS = 8
CHUNK_STEPS = 64
"""Steps whose completions one pair of evaluations and one page of each kind take."""


def campaign(
    completions: int, seed: int, first_step: int = 0, progress: Callable[[str], None] = lambda line: None
) -> Tally:
    """Throw so many completions, drawn from the seed and the number of their step, and say what came of it."""
    tally = Tally()
    firing = Range(tally)
    last_step = first_step + math.ceil(completions / (PROMPTS * GROUP_SIZE)) - 1
    started = time.monotonic()
    judged: list[tuple[str, Verdict, list]] = []
    told = 0
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(first_step, last_step + 1):
            chunk = Path(scratch) / f"chunk-{number // CHUNK_STEPS}"
            source = Hostile(random.Random(f"{seed} {number}"))
            texts = [source.text() for _ in range(PROMPTS * GROUP_SIZE)]
            with guarded(tally, f"step {number}"):
                log = RunLog(chunk / "run")
                judged += firing.step(number, texts, source, log)
            if (number + 1) % CHUNK_STEPS == 0 or number == last_step:
                with guarded(tally, f"pages at step {number}"):
                    stored = [text for step in read_rollouts(chunk / "run") for text in step.completions]
                    if stored != [text for text, _, _ in judged]:
                        tally.failures.append(f"rollouts.jsonl of step {number} differs from what was logged")
                    firing.pages(chunk, judged, source)
                judged = []
                for failure in tally.failures[told:]:
                    progress(f"FAILURE by step {number}: {failure}")
                told = len(tally.failures)
                killed = sum(counts["killed"] for counts in tally.outcomes.values())
                progress(f"{tally.completions} completions, {time.monotonic() - started:.0f} s, {killed} killed, "
                         f"{tally.late} late, {len(tally.failures)} failures")  # fmt: skip
    return tally


class guarded:
    """Notes an exception as a failure of this stage, and goes on."""

    def __init__(self, tally: Tally, stage: str) -> None:
        self.tally, self.stage = tally, stage

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if not isinstance(error, Exception):
            return False
        self.tally.failures.append(f"{self.stage}: {''.join(traceback.format_exception(error))}")
        return True


def lines(tally: Tally, seed: int, seconds: float) -> Iterator[str]:
    """The result as Markdown."""
    kinds = ("right", "wrong", "unscorable", "killed", "died")
    yield f"{tally.completions:,} completions from seed {seed} in {seconds / 60:.0f} minutes; "
    yield f"{sum(sum(c[k] for k in kinds[:3]) for c in tally.outcomes.values()):,} verdicts, "
    yield f"{tally.numbers:,} rewards, credits and metrics, {tally.pages} pages.\n\n"
    yield f"**{len(tally.failures)} exceptions, NaNs or leaks; {tally.late} verdicts later than "
    yield f"{DEADLINE_SECONDS:g} s + {GRACE_SECONDS:g} s.**\n\n"
    yield f"| verifier | {' | '.join(kinds)} | slowest, s | that text |\n| --- |{' ---: |' * (len(kinds) + 1)} --- |\n"
    for name, counts in tally.outcomes.items():
        slowest = tally.slowest.get(name, Slowest())
        cells = " | ".join(f"{counts[kind]:,}" for kind in kinds)
        yield f"| {name} | {cells} | {slowest.seconds:.2f} | {_preview(slowest.text)} |\n"
    yield "\nUnscorable counts hostile references; killed (at the deadline) and died are among them.\n\n"
    for stage in ("tokenizer", "compare.html", "report.html"):
        if stage in tally.slowest:
            yield f"Slowest {stage}: {tally.slowest[stage].seconds:.2f} s ({_preview(tally.slowest[stage].text)}). "
    yield "\n"


def _preview(text: str) -> str:
    shown = ascii(text[:40])[1:-1].replace("`", "'").replace("|", "/")
    return f"`{shown}`{f' ... {len(text):,} characters' if len(text) > 40 else ''}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--completions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first-step", type=int, default=0, help="begin here, to make a failure again")
    parser.add_argument("--markdown", type=Path, help="also write the result here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    tally = campaign(options.completions, options.seed, options.first_step, lambda line: print(line, flush=True))
    text = "".join(lines(tally, options.seed, time.monotonic() - started))
    print(text)
    if options.markdown:
        options.markdown.write_text(text)
    return bool(tally.failures or tally.late)


if __name__ == "__main__":
    sys.exit(main())
