"""Files of a comparison that others have written: whatever a field holds, it is compared or refused in one line."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from concise_rl.errors import UserError
from concise_rl.evaluation import Evaluation
from concise_rl.reporting.compare.completions import pack
from concise_rl.reporting.compare.load import load_entries
from concise_rl.reporting.compare.pictures import result_charts, training_charts
from concise_rl.reporting.compare.results import choose_baseline, results
from concise_rl.reporting.compare.settings import settings_rows
from concise_rl.reporting.compare.tables import csv_text, markdown
from concise_rl.reporting.compare.tradeoffs import tradeoffs
from concise_rl.reporting.compare.verdict import verdict

from .fake import evaluation, write_evaluation, write_run

VALUES: list[Any] = [
    None, True, -1, 0, 7, 0.5, 1e308, 1e-320, 10**400, math.nan, math.inf, "", "7", "\x1b[2J\nx", "9" * 3000, [], [[]],
    {}, {"name": {}}, {"a": 1}, [1, 2, 3], [None], [{"budget": 1}],
]  # fmt: skip
CURVE = {
    "mode": "truncated",
    "points": [{"budget": b, "accuracy": 0.5, "mean_tokens": 9.0, "accuracy_interval": [0.4, 0.6]} for b in (8, 16)],
}


def go_through(paths: list[Path]) -> None:
    """All of a comparison but the drawing."""
    entries = load_entries(paths)
    base = choose_baseline(entries, None)
    found = results(entries, base)
    result_charts(entries, found), training_charts(entries)
    verdicts = {benchmark: verdict(rows, base.name) for benchmark, rows in found.items()}
    held = tradeoffs(found, None)
    markdown(found, held, base.name, {}, verdicts, settings_rows(entries)[0])
    csv_text(found, held)
    pack(found)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every field of a JSON value, the value itself first."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    made = copy.deepcopy(value)
    inside = made
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = new
    return made


@pytest.fixture
def folders(tmp_path):
    mode = {"mode": {"name": "truncated", "budget": 8}, "samples": 1, "think_end": "</think>"}
    run = write_run(tmp_path / "run", steps=3, before=evaluation(12), problems=12)
    found = write_evaluation(tmp_path / "eval", evaluation(12, settings=mode), benchmark="sums", budget_curve=CURVE)
    go_through([run, found])
    return run, found


def lines_of(path: Path) -> list[Any]:
    text = path.read_text()
    return [json.loads(text)] if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    "name",
    [
        "eval/summary.json",
        "eval/evaluation.jsonl",
        "run/config.json",
        "run/metrics.jsonl",
        "run/evaluation-after.jsonl",
    ],
)
def test_any_value_of_any_field_is_compared_or_refused_by_file(folders, tmp_path, name):
    path, draw = tmp_path / name, random.Random(0)
    sound = lines_of(path)
    hostile = [(line, place) for line in range(min(2, len(sound))) for place in places(sound[line])]
    tries = [(line, place, value) for line, place in hostile for value in VALUES]
    refusals = []
    for line, place, value in draw.sample(tries, min(120, len(tries))):
        content = [changed(one, place, value) if i == line else one for i, one in enumerate(sound)]
        path.write_text("".join(json.dumps(one) + "\n" for one in content))
        try:
            go_through(list(folders))
        except UserError as error:
            refusals.append(str(error))
    assert len(refusals) > 10
    assert not any("\n" in said for said in refusals)
    # Another problem is refused for what it means, anything else by its file.
    assert [said for said in refusals if path.name not in said and "different problems" not in said] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"benchmark": 7}, r"summary.json: benchmark is 7, not a text of up to 200 characters: evaluate again"),
        ({"benchmark": "x" * 100_000}, r"summary.json: benchmark is \"x{39}\.\.\., not a text of up to 200 characters"),
        ({"budget_curve": [1]}, r"summary.json: budget_curve is \[1\], not an object"),
        ({"budget_curve": CURVE | {"mode": None}}, r"summary.json: budget_curve.mode is null, not a text of up to"),
        (
            {"budget_curve": CURVE | {"points": [CURVE["points"][0], {"budget": 1e308}]}},
            r"summary.json: budget_curve.points\[1\].budget is 1e\+308, not a number from 1 to 1e\+15",
        ),
        ({"budget_curve": CURVE | {"points": [{"budget": 8}]}}, r"points\[0\].accuracy is missing"),
    ],
)
def test_file_and_field_are_named(folders, tmp_path, change, message):
    (tmp_path / "eval" / "summary.json").write_text(json.dumps(change))
    with pytest.raises(UserError, match=message):
        load_entries(folders)


def test_a_count_of_tokens_that_cannot_be_is_a_damaged_line(folders, tmp_path):
    path = tmp_path / "eval" / "evaluation.jsonl"
    path.write_text(path.read_text().replace('"length": ', '"length": 1' + "0" * 308, 1))
    with pytest.raises(UserError, match=r"line 2 is damaged \(length is a number of 31\d digits"):
        Evaluation.load(path)
