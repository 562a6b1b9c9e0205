"""`concise-rl merge --sweep`: averages of two models at several shares, evaluated as one curve."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from concise_rl.commands import config as configuration
from concise_rl.commands.evaluate import Task, evaluate_task, load_backend
from concise_rl.commands.evaluation import check_eval
from concise_rl.errors import UserError
from concise_rl.evaluation.efforts import POINT
from concise_rl.files import replace_text
from concise_rl.offline.merge import merge


def sweep(a: str, b: str, shares: str, out: Path, overrides: Sequence[str]) -> list[dict[str, Any]]:
    """Merge at each share of `a`, evaluate, show the curve, and write it to `out/sweep.json`.

    A share that is there already is evaluated and not merged again, and its stored completions are taken up.

    Raises:
        UserError: shares that are no numbers from 0 to 1, or see `merge` and `check_eval`.
    """
    from rich.console import Console

    from concise_rl.model.loading import load_test

    values = _shares(shares)
    first = configuration.compose([*overrides, f"model.path={a}"], "eval")
    check_eval(first, overrides)  # before anything is merged; the merged folders have the first model's config
    verifier = configuration.verifier_of(first, "benchmark")
    source = configuration.to_object(first.benchmark, "benchmark")
    problems = load_test(first, source, verifier)
    console, curve = Console(highlight=False), []
    out.mkdir(parents=True, exist_ok=True)
    for share in values:
        folder = out / f"weight-{share:g}"
        if not folder.exists():
            merge(a, b, folder, share)
        composed = configuration.compose([*overrides, f"model.path={folder}"], "eval")
        check_eval(composed, overrides)
        task = Task(f"weight {share:g}", composed, source, verifier)
        # Loaded in the call, so that no name holds a share's model while the next is merged and loaded.
        summary = evaluate_task(task, problems, *load_backend(composed), out / f"evaluation-{share:g}", console)
        curve.append({"weight": share} | {name: summary[name] for name in POINT})
    replace_text(out / "sweep.json", json.dumps(curve, indent=1) + "\n")
    console.print(_table(Path(a).name or a, curve))
    console.print(f"written: {out / 'sweep.json'}")
    return curve


def _table(name: str, curve: Sequence[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(f"share of {name}", "accuracy", "mean tokens")
    for point in curve:
        low, high = point["accuracy_interval"]
        least, most = point["mean_tokens_interval"]
        table.add_row(
            f"{point['weight']:g}",
            f"{point['accuracy']:.1%} [{low:.1%}, {high:.1%}]",
            f"{point['mean_tokens']:.1f} [{least:.1f}, {most:.1f}]",
        )
    return table


def _shares(text: str) -> list[float]:
    try:
        values = [float(item) for item in text.split(",")]
    except ValueError:
        values = [-1.0]
    if not all(0 <= value <= 1 for value in values) or len(set(values)) < len(values):
        raise UserError(f"--sweep {text}: give different shares of the first model from 0 to 1, such as 0,0.5,1")
    return values
