"""`concise-rl sample`: completions to select from, into one store."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from concise_rl.commands import config as configuration
from concise_rl.commands.entry import through_hydra
from concise_rl.commands.evaluate import load_backend
from concise_rl.commands.evaluation import check_eval, settings_of
from concise_rl.commands.train import quiet_libraries
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Edit, Selector
from concise_rl.methods.recipes import configure, load_selector, resolve
from concise_rl.methods.registry import plain_fields
from concise_rl.samples import Samples

EDIT_SETS: dict[str, list[dict[str, Any]]] = {
    "efforts": [{"edit": "effort", "level": level, "share": 1.0} for level in ("low", "medium", "high")]
}
"""Lists of edits that `edits=` knows by name."""


def main() -> None:
    """Hydra's entry: overrides on the command line."""
    through_hydra(run, "sample")


def run(config: DictConfig) -> None:
    """Sample what the store lacks, and show what it holds.

    An interrupted call goes on where it stopped when it is made again.
    """
    # What can be refused without a model is refused before one is loaded.
    check_eval(config, list(HydraConfig.get().overrides.task))
    source = configuration.to_object(config.data, "data")
    verifier = configuration.verifier_of(config)
    edits, until = edits_of(plain(config.edits)), quota_of(config)
    settings = settings_of(config)

    import torch
    from rich.console import Console

    from concise_rl.evaluation.backends import Sampling
    from concise_rl.evaluation.sample import sample
    from concise_rl.model.loading import load_test
    from concise_rl.reporting.evaluations import counting
    from concise_rl.reporting.selection import show_samples

    quiet_libraries()
    if config.model.threads:
        torch.set_num_threads(config.model.threads)
    store = Path(config.store or default_store(config))
    if store.suffix != ".jsonl":
        raise UserError(f"store={store}: give a file that ends in .jsonl")
    prompts = load_test(config, source, verifier)
    backend, tokenizer = load_backend(config)
    console = Console(highlight=False)
    sampling = Sampling(**{field.name: settings.pop(field.name) for field in dataclasses.fields(Sampling)})
    try:
        with counting("sample", console) as on_progress:
            stored = sample(
                backend,
                tokenizer,
                prompts,
                verifier,
                sampling,
                store=store,
                stage=config.stage,
                edits=edits,
                until=until,
                max_samples=config.max_samples,
                mode=configuration.mode_of(config),
                on_progress=on_progress,
                **settings,
            )
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on from here\n")
        sys.exit(130)
    show_samples(stored, console)


def default_store(config: DictConfig) -> Path:
    """`runs/samples-`, the model's path and the data, so that two of either never share a store."""
    model = config.backend.model if config.backend.name == "http" else config.model.path
    data = HydraConfig.get().runtime.choices["data"]
    return Path("runs") / f"samples-{re.sub(r'[^A-Za-z0-9._-]+', '-', f'{model}-{data}').strip('-')}.jsonl"


def plain(node: Any) -> Any:
    """A value of the configuration as Python's own."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def edits_of(entries: Any) -> dict[str, Edit]:
    """Description to edit, for each entry of `edits=`.

    Raises:
        UserError: no such set, edit, field or file, or one that stands twice.
    """
    if isinstance(entries, str):
        entries = EDIT_SETS.get(entries, [entries])
    found: dict[str, Edit] = {}
    for entry in entries:
        fields = dict(entry) if isinstance(entry, Mapping) else {"edit": entry}
        name = fields.pop("edit", None)
        cls, label, given = resolve("edit", {"path": name, **fields} if ":" in str(name) else name or fields, {})
        edit, schedules = configure(f"edits.{label}", cls, given if ":" in str(name) else {**given, **fields})
        if schedules or not isinstance(edit, Edit):
            raise UserError(f"edits: {entry} cannot be used: name an edit, with numbers as its fields")
        description = f"{label}({', '.join(f'{key}={value}' for key, value in plain_fields(edit).items())})"
        if description in found:
            raise UserError(f"edits: {description} stands twice: leave one out")
        found[description] = edit
    return found


def quota_of(config: DictConfig) -> Selector | None:
    """The selector of `until=`, which has a quota.

    Raises:
        UserError: no such selector or field, one without a quota, or a ceiling without a quota.
    """
    entry, samples = plain(config.until), config.evaluation.samples
    if entry is None:
        if config.max_samples is not None:
            raise UserError(
                f"max_samples={config.max_samples} does nothing without until=: evaluation.samples={samples} are drawn"
            )
        return None
    fields = dict(entry) if isinstance(entry, Mapping) else {"selector": entry}
    name = fields.pop("selector", None)
    selector = load_selector(str(name), **fields)
    if selector.unfilled(Samples.of([], [], [])) is None:
        raise UserError(
            f"until={name} has no quota, so sampling would never go on: choose dart_uniform, dart_prop2diff"
        )
    if config.max_samples is None or config.max_samples < samples:
        raise UserError(
            f"max_samples={config.max_samples}: until={name} needs a ceiling of completions a problem, at least "
            f"evaluation.samples={samples}"
        )
    if getattr(selector, "pilot", samples) != samples:
        raise UserError(
            f"evaluation.samples={samples} is the first round, and {name} knows a problem's fail rate from "
            f"pilot={selector.pilot}: set evaluation.samples={selector.pilot}"  # type: ignore[attr-defined]
        )
    return selector
