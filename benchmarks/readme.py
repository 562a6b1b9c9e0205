"""Writes the generated parts of README and method pages: the demo, the table of methods, the measured changes.

python benchmarks/readme.py        # after benchmarks/methods.py, make demo and concise-rl train run.dir=runs/hapo
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

from concise_rl.evaluation import Evaluation
from concise_rl.methods import method_names
from concise_rl.reporting.methods_table import method_entry
from concise_rl.reporting.session import completion_pairs
from concise_rl.reporting.summary import markdown_table, pick_pairs, summary_markdown

ROOT = Path(__file__).parent.parent


def between(text: str, marker: str, content: str) -> str:
    """The text with what stands between `<!-- marker -->` and `<!-- /marker -->` replaced."""
    pattern = rf"(<!-- {marker} -->\n).*?(<!-- /{marker} -->)"
    return re.sub(pattern, lambda match: match[1] + content + match[2], text, flags=re.DOTALL)


def methods() -> str:
    """As `concise-rl methods --markdown --results docs/results/methods.json` prints it."""
    command = [sys.executable, "-m", "concise_rl.cli", "methods", "--markdown"]
    command += ["--results", "docs/results/methods.json"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


ACTS_ON = {
    "curriculum": "which prompts come",
    "edit": "what a prompt says",
    "sampler": "how completions are sampled",
    "cut": "what is left of a completion",
    "filter": "which completions teach",
    "shaper": "the reward",
    "advantage": "the credit",
    "loss": "the loss",
    "schedule": "limits that move in training",
}
"""Kind of component to what it acts on, in the order of a step; a method stands with the first that it has."""

AVERAGES = {"grpo", "bnpo", "dr_grpo", "dapo"}
"""TRL's losses that differ in the average alone."""


def method_links() -> str:
    """The README's table: every method, with a link, by what it acts on first."""
    groups: dict[str, list[str]] = {kind: [] for kind in ACTS_ON}
    for name in method_names():
        entry = method_entry(name)
        kinds = entry.kinds or {"advantage"}
        if kinds <= {"advantage"} and (entry.loss not in AVERAGES or "importance_sampling_level" in entry.method.loss):
            kinds = {"loss"}
        groups[next(kind for kind in ACTS_ON if kind in kinds)].append(f"[`{name}`](docs/methods/{name}.md)")
    rows = [[ACTS_ON[kind], ", ".join(links)] for kind, links in groups.items() if links]
    return markdown_table([["acts on", "methods"], *rows], text_columns=2)


def demo(run: Path, released: Path) -> str:
    """The demo beside its recipe as released, what each shows, and a typical completion."""
    ours, theirs = (json.loads((folder / "summary.json").read_text()) for folder in (run, released))
    _, pair = pick_pairs(
        completion_pairs(*(Evaluation.load(run / f"evaluation-{name}.jsonl") for name in ("before", "after")))
    )[0]
    columns = {"before": ours["before"], "after the demo": ours["after"], "after HAPO as released": theirs["after"]}
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    changed = "`advantage.group_relative.scale=batch`"
    shown = (
        f"The demo is HAPO with one setting changed, {changed}: **{ours['headline']}**. As released (`concise-rl train "
        f"method=hapo`): **{theirs['headline']}**. {ours['before']['problems']} test problems; {ours['steps']} steps "
        f"in {ours['training_seconds']:.0f} s and {theirs['training_seconds']:.0f} s on a two-core virtual machine, "
        f"{time.strftime('%Y-%m-%d')}, commit {commit.stdout.strip()}; [three seeds](docs/results/demo.md)."
    )
    table = summary_markdown(columns, keys=("accuracy", "mean_tokens", "oracle_ratio"))
    answers = f"problem {pair.prompt}\nbefore  {pair.before.text}\nafter   {pair.after.text}"
    return f"{table}\n{textwrap.fill(shown, 120, break_on_hyphens=False)}\n\n```\n{answers}\n```\n"


def write_pages(results: list[dict[str, Any]]) -> None:
    """Each method's page: what was measured, on the line of its marker."""
    for row in results:
        page = ROOT / "docs" / "methods" / f"{row['method']}.md"
        low, high = row["accuracy_points_interval"]
        least, most = row["tokens_percent_interval"]
        line = (
            f"<!-- results --> On the embedded task, {row['seeds']} seeds: accuracy {row['accuracy_points']:+.1f} "
            f"points [{low:+.1f}, {high:+.1f}], tokens {row['tokens_percent']:+.0f} % [{least:+.0f}, {most:+.0f}]; "
            "beside the others in [docs/results](../results/README.md)."
        )
        before, marker, after = page.read_text().partition("<!-- results -->")
        page.write_text(before + line + after[after.find("\n") :] if marker else before)


def main() -> None:
    guide = ROOT / "docs" / "methods" / "README.md"
    guide.write_text(between(guide.read_text(), "methods", "\n" + methods() + "\n"))
    path = ROOT / "README.md"
    text = path.read_text()
    runs = [ROOT / "runs" / name for name in ("demo", "hapo")]
    if all((run / "summary.json").exists() for run in runs):
        text = between(text, "demo", "\n" + demo(*runs) + "\n")
    path.write_text(between(text, "methods", "\n" + method_links() + "\n"))
    results = ROOT / "docs" / "results" / "methods.json"
    write_pages(json.loads(results.read_text()) if results.exists() else [])


if __name__ == "__main__":
    main()
