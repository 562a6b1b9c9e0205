"""run.json: which program, machine and command a run comes from, one entry a start, and the id that trackers know."""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from concise_rl.files import replace_text

RUN_FILE = "run.json"

_PACKAGES = ("concise-rl", "torch", "transformers", "trl", "accelerate", "datasets", "peft", "vllm", "deepspeed")

SECRET = re.compile(r"(?i)(token|secret|password|api_key)$")
"""Settings of such a name are kept nowhere."""


def record_start(folder: Path, name: str, *, title: str = "", step: int, ranks: int) -> dict[str, Any]:
    """Add this start to run.json, made if absent; a new run (step 0) begins a new file.

    Args:
        name, title: of the run, for files and for people; a run that goes on under other settings keeps its name.
        step: what the run goes on from.
        ranks: processes.

    Returns:
        The record: `id`, `name`, `title`, and `starts`, each with `time`, `step`, `command`, `versions`, `commit`,
        `hardware`.

    Raises:
        UserError: the file cannot be written.
    """
    known = read_record(folder) if step else {}
    start = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "step": step,
        "command": command_line(sys.argv),
        "versions": versions(),
        "commit": commit(),
        "hardware": hardware(ranks),
    }
    record = {"id": known.get("id") or secrets.token_hex(6), "name": known.get("name") or name, "title": title or name}
    record["starts"] = [*known.get("starts", []), start]
    replace_text(folder / RUN_FILE, json.dumps(record, indent=2) + "\n")
    return record


def read_record(folder: Path) -> dict[str, Any]:
    """run.json, empty where there is none that can be read: it is told, never obeyed."""
    try:
        found = json.loads((folder / RUN_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def command_line(arguments: Sequence[str]) -> str:
    """The command as a person would give it again, values of secret settings hidden."""
    program, *rest = arguments
    name = Path(program).name
    if name.endswith(".py"):
        parent = Path(program).parent.name
        name = f"python -m {parent + '.' if parent else ''}{name.removesuffix('.py')}"
    elif name.startswith("concise-rl"):
        name = name if " " in name or (rest and rest[0] == "train") else f"{name} train"
    shown = []
    for argument in (item.removeprefix("++") for item in rest):  # which `config.open_foreign` put there
        setting, equals, _ = argument.partition("=")
        shown.append(f"{setting}=***" if equals and SECRET.search(setting) else argument)
    return " ".join([name, *map(shlex.quote, shown)])


def without_secrets(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings whose secret ones are hidden, nested ones too."""
    return {
        name: without_secrets(value) if isinstance(value, Mapping)
        else "***" if value is not None and SECRET.search(str(name)) else value
        for name, value in settings.items()
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Python, and the packages that results hang on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Of the checkout that this package runs from, `-dirty` where files differ from it; None for an installed one."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        asked = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],
            cwd=root, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return asked.stdout.strip() or None


def hardware(ranks: int) -> dict[str, Any]:
    """Processor, cores, memory, accelerators and processes; nothing that names the machine."""
    found: dict[str, Any] = {"processor": _processor(), "cores": os.cpu_count(), "ranks": ranks}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gb"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
    if torch.cuda.is_available():
        found["gpus"] = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    return found


def hardware_line(found: Mapping[str, Any]) -> str:
    """The hardware for people, in one line."""
    gpus = found.get("gpus") or []
    machine = f"{len(gpus)} x {gpus[0]}" if gpus else f"{found.get('processor')}, {found.get('cores')} cores"
    ranks = found.get("ranks", 1)
    return machine + (f", {ranks} processes" if ranks > 1 else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
