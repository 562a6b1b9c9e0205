"""How fast the comparison of 20 runs with 2,000 completions each opens, and how much it weighs.

    python benchmarks/compare.py [--runs 20] [--problems 2000] [--words 150]

Simulated runs, compared once; the page is opened in a headless Chromium that has been up for some seconds, each time a
new one. Two times from the start of navigation: `shown`, when tables, sentences, the front as a picture and the
completions stand on the screen; `interactive`, when plotly has been unpacked and run and has drawn its figures over the
picture. Processor seconds are the tab's main thread's, so that other work on the machine counts less.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

from concise_rl.reporting.compare import compare
from tests.reporting.compare.chromium import Chromium, find
from tests.reporting.compare.fake import evaluation, write_run

OPENINGS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--problems", type=int, default=2000)
    parser.add_argument(
        "--words", type=int, default=150, help="of a completion before training, about 5 characters each"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        before = evaluation(options.problems, words=options.words // 2)
        sizes = {"problems": options.problems, "words": options.words // 2}
        runs = [
            write_run(Path(folder) / f"run-{k}", method=f"method-{k // 2}", seed=k, steps=500, before=before, **sizes)
            for k in range(options.runs)
        ]
        stored = sum(file.stat().st_size for run in runs for file in run.glob("evaluation-*.jsonl"))
        started = time.process_time()
        page = compare(runs, Path(folder) / "compare.html").page
        print(f"{options.runs} runs of {options.problems} problems, {stored / 1e6:.0f} MB of evaluations")
        print(f"compared in {time.process_time() - started:.1f} processor seconds")
        print(f"page: {page.stat().st_size / 1e6:.1f} MB")
        if find() is None:
            print("no chromium: not opened")
            return
        measured = [opened(page) for _ in range(OPENINGS)]
        for k, name in enumerate(("shown, s", "interactive, s", "processor s until interactive")):
            print(f"{name}: {median(m[k] for m in measured):.2f} (of {sorted(round(m[k], 2) for m in measured)})")


def opened(page: Path) -> tuple[float, float, float]:
    """Seconds until shown and until interactive, and the main thread's processor seconds until then."""
    with Chromium() as browser:
        # A person's browser is up before the page is asked for.
        time.sleep(2)
        browser.send("Performance.enable", timeDomain="threadTicks")
        browser.open(page)
        interactive = browser.wait("document.documentElement && document.documentElement.dataset.readyMs", 60)
        shown = browser.ask("document.documentElement.dataset.shownMs")
        metrics = {item["name"]: item["value"] for item in browser.send("Performance.getMetrics")["metrics"]}
    return float(shown) / 1000, float(interactive) / 1000, metrics["TaskDuration"]


if __name__ == "__main__":
    main()
