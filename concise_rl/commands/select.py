"""`concise-rl select`: from stored samples to a file for TRL's trainers."""

from __future__ import annotations

import glob

from omegaconf import DictConfig

from concise_rl.commands import config as configuration
from concise_rl.commands.entry import through_hydra
from concise_rl.commands.sample import plain
from concise_rl.errors import UserError
from concise_rl.methods.recipes import selector_of
from concise_rl.options import Truncated, choose


def main() -> None:
    """Hydra's entry: overrides on the command line."""
    through_hydra(run, "select")


def run(config: DictConfig) -> None:
    """Select from the stores, write the rows and the report, and show the report."""
    selector = selector_of(plain(config.select.selector), configuration.plain(config.selector))

    from rich.console import Console

    from concise_rl.offline.select import Written, select
    from concise_rl.offline.stores import open_stores
    from concise_rl.reporting.selection import show_selection

    written = Written(config.format, config.prompt)
    data = config.get("data")
    problems = None
    if data is not None:
        problems = {prompt.id for prompt in configuration.to_object(data, "data").load(config.split)}
    stores = open_stores(
        paths_of(plain(config.stores)),
        truncated=choose("truncated", Truncated, config.truncated),
        needs=selector.needs,
        problems=problems,
    )
    report = select(stores, selector, config.out, name=config.select.name, seed=config.seed, written=written)
    show_selection(report, config.out, Console(highlight=False))


def paths_of(names: str | list[str]) -> list[str]:
    """The files that are named; `*` and `?` stand for several, in the order of their names.

    Raises:
        UserError: a pattern that no file has.
    """
    found: list[str] = []
    for name in [names] if isinstance(names, str) else names:
        matched = sorted(glob.glob(name)) if set(name) & set("*?") else [name]
        if not matched:
            raise UserError(f"stores: no file is named {name}: give the files that concise-rl sample has written")
        found += [path for path in matched if path not in found]
    return found
