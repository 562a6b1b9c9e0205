"""What a run is called: method, data and seed, and between them every setting of the command line that results hang on.

So two runs that differ have different folders, and a tracker's list of runs says which is which.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from concise_rl.engine.settings import changes_no_result
from concise_rl.reporting.summary import shorten

LONGEST = 120
"""Characters of a name; a longer one is cut, and ends with a digest of all of it."""

_NEVER_NAMED = ("method", "recipe", "data", "seed", "run", "tracking")
"""Those that every name holds, and two that change no result."""

_GROUPS = ("model", "peft")
"""Recipes that a name holds by their value alone."""


def run_name(*, _root_: DictConfig) -> str:
    """The name of the run that a configuration describes, for a folder or a tracker: an OmegaConf resolver."""
    choices, overrides = _of_this_job()
    parts = [_kind(_root_), choices.get("data", ""), *_labels(overrides), f"seed{_root_.seed}"]
    name = "-".join(filter(None, (_plain(part) for part in parts)))
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def differing(overrides: Sequence[str]) -> dict[str, str]:
    """The overrides that results hang on, by dotted name, those that every name holds left out."""
    found: dict[str, str] = {}
    for override in overrides:
        name, equals, value = override.lstrip("+~").partition("=")
        silent = (
            name in _NEVER_NAMED
            or name.startswith(("hydra.", "trainer.save_", "tuning.save_"))
            or changes_no_result(name)
        )
        if equals and not silent:
            found[name] = value
    return found


def title_of(config: DictConfig) -> str:
    """A run for people: method, data, model, what was overridden, seed."""
    choices, overrides = _of_this_job()
    set_here = {name: value for name, value in differing(overrides).items() if name not in _GROUPS}
    settings = [f"{name}={shorten(value, 40)}" for name, value in set_here.items()]
    model = f"{config.model.name}, " + "".join(f"{setting}, " for setting in settings)
    return f"{_kind(config)} on {choices.get('data', config.data.get('task', 'data'))}, {model}seed {config.seed}"


def _kind(config: DictConfig) -> str:
    """The method of a training run, the recipe of a tuning run."""
    return str(config.method.name if "method" in config else config.recipe)


def _labels(overrides: Sequence[str]) -> list[str]:
    """`weight_0.5` of `shaper.hapo.weight=0.5`; with more of the path where two end alike."""
    settings = differing(overrides)
    last = [name.rpartition(".")[2] for name in settings]
    labels = []
    for name, value in settings.items():
        short = name.rpartition(".")[2]
        if last.count(short) > 1:
            short = ".".join(name.split(".")[-2:])
        shown = "/".join(value.strip("\"'").rstrip("/").split("/")[-2:])
        labels.append(shown if name in _GROUPS else f"{short}_{shown}")
    return labels


def _plain(text: str) -> str:
    """Characters that folders, shells and Hydra's overrides take as they are."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", text).strip("_")


def _of_this_job() -> tuple[Mapping[str, str], Sequence[str]]:
    """Recipes and overrides of the command line; of a configuration that nobody runs there are none."""
    if not HydraConfig.initialized():
        return {}, []
    hydra_config = HydraConfig.get()
    return hydra_config.runtime.choices, list(hydra_config.overrides.task)


def tracking_of(config: DictConfig) -> dict[str, Any] | None:
    """What the tracker is told of a run; the jobs of a sweep are one group."""
    if config.tracking is None:
        return None
    fields: Any = OmegaConf.to_container(config.tracking, resolve=True)
    if fields["group"] is None and HydraConfig.get().mode == RunMode.MULTIRUN:
        fields["group"] = Path(HydraConfig.get().sweep.dir).name
    return fields
