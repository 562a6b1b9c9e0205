"""What a sweep (`-m`) shows: which job is which, and at its end one table and a page that compares them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console

from concise_rl.errors import UserError, printable


class ShowSweep(Callback):
    """Hydra calls it; recipes/train.yaml names it."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Path, list[str]]] = []
        self.total = 0

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        if os.environ.get("RANK", "0") != "0":
            return  # the first process of a launcher shows it for all
        self.total = number_of_jobs(list(config.hydra.overrides.task))
        _tell(f"sweep of {self.total} jobs in {config.hydra.sweep.dir}")

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        if not self.total:
            return
        folder = Path(config.hydra.runtime.output_dir)
        overrides = [override.lstrip("+") for override in config.hydra.overrides.task]
        self.jobs.append((folder, overrides))
        _tell(f"job {len(self.jobs)} of {self.total}: {' '.join(overrides)}  ({folder.name})")

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        if not self.total:
            return
        from concise_rl.reporting.run_log import SUMMARY_FILE
        from concise_rl.reporting.sweep_table import sweep_table

        done = [(folder, overrides) for folder, overrides in self.jobs if (folder / SUMMARY_FILE).exists()]
        named = [(folder, name) for (folder, _), name in zip(self.jobs, without_common(self.jobs), strict=True)]
        Console(highlight=False).print(sweep_table(named))
        _compare(done, Path(config.hydra.sweep.dir) / "compare.html")


def number_of_jobs(overrides: Sequence[str]) -> int:
    """How many jobs Hydra's own sweeper makes of the overrides."""
    jobs = 1
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        jobs *= len(list(override.sweep_string_iterator())) if override.is_sweep_override() else 1
    return jobs


def without_common(jobs: Sequence[tuple[Path, Sequence[str]]]) -> list[str]:
    """Each job's overrides, those that all have left out."""
    common = set.intersection(*(set(overrides) for _, overrides in jobs)) if len(jobs) > 1 else set()
    return [" ".join(o for o in overrides if o not in common) or "job" for _, overrides in jobs]


def entries(jobs: Sequence[tuple[Path, Sequence[str]]]) -> dict[str, list[Path]]:
    """What a comparison shows as one entry: jobs that differ in the seed alone, under what they have in common."""
    found: dict[str, list[Path]] = {}
    shown = without_common(
        [(folder, [o for o in overrides if not o.startswith("seed=")]) for folder, overrides in jobs]
    )
    for (folder, _), name in zip(jobs, shown, strict=True):
        found.setdefault(name.replace("=", " ").replace("/", "_"), []).append(folder)
    return found


def _compare(jobs: Sequence[tuple[Path, Sequence[str]]], page: Path) -> None:
    from concise_rl.reporting.compare import compare

    grouped: Mapping[str, Sequence[Path]] = entries(jobs)
    paths = [f"{name}={','.join(map(str, folders))}" for name, folders in grouped.items()]
    try:
        written = compare(paths, page)
    except UserError as error:
        _tell(f"no comparison: {error}")
        return
    _tell(f"comparison: {written.page}")


def _tell(text: str) -> None:
    Console(highlight=False).print(printable(text), markup=False, soft_wrap=True)
