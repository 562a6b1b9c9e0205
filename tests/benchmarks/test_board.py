"""The leaderboard of the beds: what is stored of a cell, and the page that ranks by any price."""

from __future__ import annotations

import csv
import json
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import board, methods, stored
from benchmarks.cells import Cell
from benchmarks.stored import BEFORE
from concise_rl.evaluation import Evaluation
from tests.benchmarks.fake import BED, records
from tests.reporting.compare.chromium import Chromium, find


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("board")
    stored.save(records().values(), folder / "cells")
    options = Namespace(
        tasks=[BED, "which_sum"], methods=["grpo", "kimi"], seeds=[0, 1], runs=folder / "runs", out=folder
    )
    methods.pages(options, stored.collect(methods.plan(options), options.runs, folder / "cells"))
    return folder


def test_what_is_stored_comes_back_and_two_kilobytes_are_enough(out):
    assert stored.load(out / "cells") == records()
    lines = (out / "cells" / f"{BED}.jsonl").read_text().splitlines()
    assert max(map(len, lines)) < 4000
    one = records()[Cell(BED, "grpo", 0)]
    assert [row.length for row in one.rows()] == list(one.tokens)
    assert Evaluation(one.rows()).summary()["accuracy"] == one.right.count("1") / 512


def test_a_run_folder_is_packed_once(tmp_path):
    cell, record = Cell(BED, "grpo", 3), records()[Cell(BED, "grpo", 0)]
    folder = cell.folder(tmp_path / "runs")
    folder.mkdir(parents=True)
    for name in ("before", "after"):
        Evaluation(list(reversed(record.rows()))).save(folder / f"evaluation-{name}.jsonl")
    (folder / "summary.json").write_text(json.dumps({"steps": 2, "training_seconds": 7.25}))
    (folder / "origin.json").write_text(json.dumps({"commit": "abc", "date": "2026-01-01"}))
    trainer = {"per_device_train_batch_size": 64, "gradient_accumulation_steps": 2}
    (folder / "config.json").write_text(json.dumps({"trainer": trainer}))
    steps = [
        {"step": 1, "mean_tokens": 10, "zero_credit_frac": 0.5},
        {"step": 2, "mean_tokens": 20, "zero_credit_frac": 0},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    found = stored.collect([cell, Cell(BED, "hapo", 3)], tmp_path / "runs", tmp_path / "cells")
    assert set(found) == {cell, Cell(BED, BEFORE, 3)}
    own = found[cell]
    assert (own.right, own.tokens) == (record.right, record.tokens), "in the order of the problems"
    assert (own.steps, own.seconds, own.sampled_tokens, own.taught) == (2, 7.2, 128 * 30, 0.75)
    (folder / "origin.json").unlink()
    assert stored.collect([cell], tmp_path / "runs", tmp_path / "cells") == found


def test_the_plan_has_each_cell_once_and_a_seed_of_everything_first():
    options = Namespace(tasks=["running_total", "which_sum"], methods=["grpo", "hapo", "kimi"], seeds=[0, 1])
    cells = methods.plan(options)
    assert len(set(cells)) == len(cells) == 2 * 2 * (3 + 4) + (2 * 3 - 2 - 2) + 2 * 2 * 3
    assert {cell.seed for cell in cells[:14]} == {0}
    assert len({cell.folder(Path()) for cell in cells}) == len(cells)


def test_text_and_table_say_what_is_there_and_what_is_missing(out):
    text = (out / "leaderboard.md").read_text()
    done = len(records()) - 2
    assert f"{done} of " in text
    assert "are missing; `python benchmarks/methods.py --tasks running_total which_sum` goes on" in text
    assert "## Coefficients, on M, one seed" in text
    with (out / "leaderboard.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["part"], line["method"], line["setting"]) for line in lines] == [
        ("leaderboard", "grpo", ""), ("leaderboard", "kimi", "weight=0.25"), ("leaderboard", "kimi", ""),
        ("coefficient", "kimi", "weight=0.25"), ("coefficient", "kimi", "weight=0.5"), ("coefficient", "kimi", ""),
    ]  # fmt: skip
    assert lines[0]["seeds"] == "2"
    assert (
        float(lines[0]["regret_at_0.01_low"])
        < float(lines[0]["regret_at_0.01"])
        < float(lines[0]["regret_at_0.01_high"])
    )
    for name in ("running_total.svg", "running_total.png"):
        assert (out / f"leaderboard-{name}").stat().st_size > 10000
    assert (out / "leaderboard.html").stat().st_size < 1_000_000


@pytest.fixture(scope="module")
def page(out) -> Iterator[Chromium]:
    if find() is None:
        pytest.skip("no chromium: apt-get install chromium")
    with Chromium(390, 800, dark=True) as browser:
        browser.open(out / "leaderboard.html")
        browser.wait("document.body && document.body.classList.contains('scripted')")
        yield browser
        assert browser.messages == []


def ranking(page: Chromium) -> list[str]:
    return page.ask("[...document.querySelectorAll('#ranking tbody th')].map((cell) => cell.firstChild.textContent)")


def set_price(page: Chromium, price: float) -> None:
    page.ask(f"(price.value = Math.log10({price}), price.dispatchEvent(new Event('input')))")


def test_the_slider_ranks_anew(page):
    set_price(page, 0.001)
    assert ranking(page) == ["grpo", "kimi weight=0.25", "kimi"]
    regret = page.ask("document.querySelector('#ranking tbody td:nth-child(3) span').textContent")
    row = next(r for r in board_rows() if r["method"] == "grpo")
    frontier = board.BEDS[BED].frontier([str(p.messages[0]["content"]) for p in stored.problems(BED)])
    assert float(regret) == pytest.approx(
        100 * frontier.regret(row["accuracy"], row["mean_tokens"], 10**-3.0), abs=0.06
    )
    set_price(page, 0.1)
    assert ranking(page)[0] == "kimi"
    set_price(page, 0.01)


def board_rows():
    options = Namespace(tasks=[BED], methods=["grpo", "kimi"], seeds=[0, 1])
    return methods.rows_of(methods.competing(BED, options.methods, options.seeds), records())


def test_kinds_are_filtered_and_an_entry_tells_of_itself(page):
    chip = "[...document.querySelectorAll('#kinds button')].find((chip) => chip.textContent === 'shaper').click()"
    page.ask(chip)
    assert ranking(page) == ["grpo"]
    page.ask(chip)
    page.ask("[...document.querySelectorAll('#ranking tbody tr')].at(-1).click()")
    assert page.ask("told.textContent").startswith("kimi, rank 3 of 3: ")
    assert page.ask("document.querySelectorAll('svg .drop').length") == 1
    assert page.ask("document.querySelectorAll('svg polyline.sweep').length") == 1
    assert page.ask("document.querySelectorAll('#levels svg').length") == 4
    page.ask("document.querySelector('#ranking tbody tr.chosen').click()")


def test_a_phone_shows_it_without_scrolling_sideways(page):
    assert page.ask("document.documentElement.scrollWidth") <= 390
    assert page.ask("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
