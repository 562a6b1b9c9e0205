"""Which settings the compared runs do not share, from what each run wrote down of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concise_rl.engine.settings import changes_no_result, flat
from concise_rl.errors import printable
from concise_rl.reporting.run_record import hardware_line, read_record

if TYPE_CHECKING:
    from concise_rl.reporting.compare.load import Entry

LONGEST = 60
"""Characters of a value that is shown."""

_OF_RUN_JSON = ("torch", "transformers", "trl", "concise-rl")


def run_settings(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Settings of a run by dotted name, as text, with the commit, versions and machine that run.json tells of."""
    try:
        settings = flat(config)
    except RecursionError:  # no run writes so deep a file
        return {}
    shown = {
        name: value for name, value in settings.items() if name.startswith("evaluation.") or not changes_no_result(name)
    }
    try:
        start = read_record(folder)["starts"][-1]
        shown |= {"commit": start["commit"], "machine": hardware_line(start["hardware"])}
        shown |= {name: start["versions"].get(name) for name in _OF_RUN_JSON}
    except (KeyError, IndexError, TypeError, AttributeError):
        pass  # an older run, or a file that was changed by hand
    return _texts(shown)


def evaluation_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings of an evaluation by dotted name, as text."""
    return _texts(flat({name: value for name, value in settings.items() if name != "run"}))


def pooled_settings(settings: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Those of several runs under one name: values that differ between them stand side by side."""
    names = dict.fromkeys(name for own in settings for name in own)
    return {name: ", ".join(dict.fromkeys(own[name] for own in settings if name in own)) for name in names}


def differing_settings(entries: Sequence[Entry]) -> list[str]:
    """Names of the settings that two entries have with different values, `method.name` and `seed` first.

    A slot of the method that its name implies is left out, as are a component's fields that one entry alone has.
    """
    having = [entry.settings for entry in entries if entry.settings]
    names = sorted({name for settings in having for name in settings}, key=_order)
    differ = [name for name in names if len({own[name] for own in having if name in own}) > 1]
    seeds = [own.get("seed") for own in having]
    if [own.get("trainer.seed") for own in having] == seeds:
        differ = [name for name in differ if name != "trainer.seed"]
    return [name for name in differ if not _implied(name, having)]


def settings_rows(entries: Sequence[Entry]) -> tuple[list[list[str]], list[int]]:
    """A row an entry, a column a setting that differs, header first, and the entries' numbers; empty where none do."""
    names = differing_settings(entries)
    if not names:
        return [], []
    numbers = [k for k, entry in enumerate(entries) if entry.settings]
    rows = [[entries[k].name, *(entries[k].settings.get(name, "–") for name in names)] for k in numbers]
    return [["", *names], *rows], numbers


def _order(name: str) -> tuple[bool, bool, str]:
    return name != "method.name", name != "seed", name


def _implied(name: str, having: Sequence[Mapping[str, str]]) -> bool:
    if not name.startswith("method.") or name == "method.name":
        return False
    values: dict[str, set[str]] = {}
    for settings in having:
        values.setdefault(settings.get("method.name", ""), set()).add(settings.get(name, ""))
    return all(len(own) == 1 for own in values.values())


def _texts(settings: Mapping[str, Any]) -> dict[str, str]:
    def text(value: Any) -> str:
        said = value if isinstance(value, str) else f"{value:.6g}" if isinstance(value, float) else json.dumps(value)
        shown = printable(" ".join(said.split()))
        return shown if len(shown) <= LONGEST else f"{shown[: LONGEST // 2]}...{shown[-LONGEST // 2 + 3 :]}"

    return {name: text(value) for name, value in settings.items() if value is not None}
