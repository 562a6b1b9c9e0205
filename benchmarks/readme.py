"""Writes the generated parts of README and method pages: the demo, the table of methods, the measured changes.

python benchmarks/readme.py        # after benchmarks/methods.py and make demo
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from concise_rl.evaluation import Evaluation
from concise_rl.reporting.session import completion_pairs
from concise_rl.reporting.summary import pick_pairs, summary_markdown

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


def demo(run: Path) -> str:
    """The table, the sentence and a typical completion of the demo's run."""
    summary = json.loads((run / "summary.json").read_text())
    _, pair = pick_pairs(
        completion_pairs(*(Evaluation.load(run / f"evaluation-{name}.jsonl") for name in ("before", "after")))
    )[0]
    table = summary_markdown({name: summary[name] for name in ("before", "after")}, summary["difference"])
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return (
        f"{table}\n**{summary['headline']}** ({summary['steps']} steps in {summary['training_seconds']:.0f} s; "
        f"`make demo`, two-core virtual machine, {time.strftime('%Y-%m-%d')}, commit {commit.stdout.strip()}).\n\n"
        f"A typical problem, `{pair.prompt}`:\n\n```\nbefore  {pair.before.text}\nafter   {pair.after.text}\n```\n"
    )


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
    if (ROOT / "runs" / "demo" / "summary.json").exists():
        text = between(text, "demo", "\n" + demo(ROOT / "runs" / "demo") + "\n")
    path.write_text(text)
    results = ROOT / "docs" / "results" / "methods.json"
    write_pages(json.loads(results.read_text()) if results.exists() else [])


if __name__ == "__main__":
    main()
