"""What a comparison finds, writes and refuses; the page itself is opened in test_page.py."""

from __future__ import annotations

import csv
import gzip
import json
import re
from base64 import b64decode
from pathlib import Path

import plotly.graph_objects as go
import pytest

from concise_rl.cli import main
from concise_rl.errors import UserError
from concise_rl.evaluation import Evaluation, difference
from concise_rl.evaluation.measures import curve_summary
from concise_rl.reporting.compare import compare
from concise_rl.reporting.compare.charts import to_plotly
from concise_rl.reporting.compare.completions import RIGHT, TRUNCATED, UNSCORABLE, pack
from concise_rl.reporting.compare.load import BEFORE, load_entries
from concise_rl.reporting.compare.pictures import budget_chart, front_chart, looks, result_charts, training_charts
from concise_rl.reporting.compare.results import choose_baseline, results
from concise_rl.reporting.compare.settings import settings_rows
from concise_rl.reporting.compare.verdict import verdict
from concise_rl.reporting.summary import headline

from .fake import HOSTILE, evaluation, write_evaluation, write_run


@pytest.fixture
def runs(tmp_path) -> list[Path]:
    return [
        write_run(tmp_path / "hapo-0", seed=0),
        write_run(tmp_path / "hapo-1", seed=1),
        write_run(tmp_path / "grpo-0", seed=2, method="grpo", saving=0.1),
    ]


def found_in(paths, baseline=None):
    entries = load_entries(paths)
    return entries, results(entries, choose_baseline(entries, baseline))["test split"]


def test_one_model_before_training_and_each_after_it(runs) -> None:
    entries, rows = found_in(runs)
    assert [entry.name for entry in entries] == [BEFORE, "hapo-0", "hapo-1", "grpo-0"]
    assert rows[0].difference is None, "nothing is compared with itself"
    assert rows[1].difference == difference(entries[0].evaluations["test split"], entries[1].evaluations["test split"])
    styles = [look.style for look in looks(entries)]
    assert styles == [None, 0, 0, 1], "the runs of a method share a colour"
    _, against_grpo = found_in(runs, "grpo-0")
    assert [row.difference is None for row in against_grpo] == [False, False, False, True]


def test_models_that_differ_before_training_stay_apart(tmp_path, runs) -> None:
    other = write_run(tmp_path / "other", before=evaluation(seed=99))
    assert [entry.name for entry in load_entries([runs[0], other])] == [
        "hapo-0, before", "other, before", "hapo-0", "other",
    ]  # fmt: skip


def test_seeds_under_one_name_are_one_entry(tmp_path, runs) -> None:
    entries, rows = found_in([f"hapo={runs[0]},{runs[1]}", runs[2]])
    assert [(entry.name, entry.method) for entry in entries] == [(BEFORE, BEFORE), ("hapo", "hapo"), ("grpo-0", "grpo")]
    _, apart = found_in(runs[:2])
    first, second = (row.summary for row in apart[1:])
    both = rows[1].summary
    for key in ("accuracy", "mean_tokens"):
        assert both[key] == pytest.approx((first[key] + second[key]) / 2)
        assert both[f"{key}_spread"] == pytest.approx(abs(first[key] - second[key]) / 2)
    assert (both["runs"], both["problems"]) == (2, first["problems"])
    assert len({row.key for row in rows[1].evaluation.rows}) == 2 * len(apart[1].evaluation.rows), "no sample is lost"
    curves = [[line["accuracy"] for line in load_entries([run])[-1].metrics] for run in runs[:2]]
    means = [(one + other) / 2 for one, other in zip(*curves, strict=True)]
    assert [line["accuracy"] for line in entries[1].metrics] == pytest.approx(means)
    written = compare([f"hapo={runs[0]},{runs[1]}", runs[2]], tmp_path / "page.html")
    assert "± tokens" in written.markdown.read_text()
    with pytest.raises(UserError, match="two entries are named grpo-0"):
        load_entries([f"grpo-0={runs[0]},{runs[1]}", runs[2]])
    with pytest.raises(UserError, match="NAME=FOLDER"):
        load_entries([f"hapo={runs[0]},"])
    gsm = write_evaluation(tmp_path / "gsm", evaluation(prefix="g"), benchmark="gsm8k")
    with pytest.raises(UserError, match="hapo: hapo-0 was evaluated on test split, gsm on gsm8k"):
        load_entries([f"hapo={runs[0]},{gsm}"])


def test_the_front_is_what_nothing_beats_in_both(tmp_path) -> None:
    shapes = {"dear": (0.2, 0.99), "cheap": (0.8, 0.7), "beaten": (0.1, 0.6)}
    folders = [
        write_evaluation(tmp_path / name, evaluation(200, saving=saving, accuracy=accuracy))
        for name, (saving, accuracy) in shapes.items()
    ]
    entries, rows = found_in(folders)
    assert {row.entry for row in rows if row.on_front} == {"dear", "cheap"}
    stairs = front_chart(rows, looks(entries)).series[0]
    cheap, dear = rows[1].summary, rows[0].summary
    assert stairs.x[:2] == [cheap["mean_tokens"], dear["mean_tokens"]]
    assert stairs.y == pytest.approx([100 * cheap["accuracy"], 100 * dear["accuracy"], 100 * dear["accuracy"]])


def test_the_budget_curve_counts_what_is_right_and_ended(runs) -> None:
    entries, rows = found_in(runs)
    chart = budget_chart(rows, looks(entries))
    for series, row in zip(chart.series, rows, strict=True):
        answers = row.evaluation.rows
        for budget, share in zip(series.x, series.y, strict=True):
            assert share == pytest.approx(100 * sum(a.correct and a.length <= budget for a in answers) / len(answers))
        assert series.y[-1] == pytest.approx(100 * row.summary["accuracy"])


def test_budgets_measured_apart_and_swept_make_curves(tmp_path) -> None:
    modes = {budget: {"name": "forced", "budget": budget} for budget in (64, 32, 16)}
    at = {b: evaluation(accuracy=b / 100, settings={"weights": "w", "mode": mode}) for b, mode in modes.items()}
    folders = [write_evaluation(tmp_path / f"forced-{b}", found) for b, found in at.items()]
    sweep = {
        "mode": "truncated",
        **curve_summary([8, 16], [evaluation(accuracy=0.2).rows, evaluation(accuracy=0.4).rows]),
    }
    folders.append(write_evaluation(tmp_path / "swept", evaluation(), budget_curve=sweep))
    entries, rows = found_in(folders)
    charts = {chart.stem: chart for chart in result_charts(entries, {"test split": rows})["test split"]}
    (forced,) = charts["budget_forced"].series
    assert list(forced.x) == [16, 32, 64]
    assert forced.y == pytest.approx([100 * rows[k].summary["accuracy"] for k in (2, 1, 0)])
    (swept,) = charts["budget_truncated"].series
    assert (swept.name, list(swept.x)) == ("swept", [8, 16])


def test_benchmarks_are_tabulated_apart_and_an_unnamed_one_finds_its_own(tmp_path, runs) -> None:
    folder = tmp_path / "judged"
    write_evaluation(folder / "sums", evaluation(seed=5), benchmark="sums")
    write_evaluation(folder / "other", evaluation(seed=6, prefix="q"), benchmark="other")
    entries = load_entries([runs[0], folder])
    assert [sorted(entry.evaluations) for entry in entries] == [["sums"], ["sums"], ["other", "sums"]]
    found = results(entries, entries[0])
    assert [row.entry for row in found["other"]] == ["judged"]
    assert found["other"][0].difference is None
    stems = [chart.stem for charts in result_charts(entries, found).values() for chart in charts]
    assert len(stems) == len(set(stems)), "no figure overwrites another"


def test_the_settings_that_differ_are_listed_and_no_others(tmp_path) -> None:
    def run(name: str, method: str, seed: int, **more: object) -> Path:
        folder = write_run(tmp_path / name, method=method, seed=seed)
        config = {"method": {"name": method, "shapers": [method]}, "seed": seed, "trainer": {"seed": seed, "beta": 0.0}}
        config |= {"shaper": {method: {"weight": 0.5}}, "run": {"dir": str(folder)}, "evaluation": {"problems": 60}}
        (folder / "config.json").write_text(json.dumps(config | more))
        start = {"versions": {"torch": "2.13"}, "commit": name[0], "hardware": {"processor": "x", "cores": 2}}
        (folder / "run.json").write_text(json.dumps({"starts": [start]}))
        return folder

    same = [run("a0", "hapo", 0), run("a1", "hapo", 1)]
    rows, numbers = settings_rows(load_entries(same))
    assert rows == [["", "seed"], ["a0", "0"], ["a1", "1"]]
    assert numbers == [1, 2], "before training has no settings"
    other = run("b0", "grpo", 0, trainer={"seed": 0, "beta": 0.04})
    rows, _ = settings_rows(load_entries([f"hapo={same[0]},{same[1]}", other]))
    assert rows == [
        ["", "method.name", "seed", "commit", "trainer.beta"],
        ["hapo", "hapo", "0, 1", "a", "0"],
        ["b0", "grpo", "0", "b", "0.04"],
    ], "what the method implies is not a setting that differs"
    (same[0] / "run.json").write_text("[]")
    assert settings_rows(load_entries(same))[0][0] == ["", "seed"]
    assert settings_rows(load_entries([tmp_path / "a0", write_run(tmp_path / "c", method="hapo")]))[0] == []


def test_the_sentence_on_top_says_what_the_intervals_show(tmp_path) -> None:
    shapes = {"base": (0.0, 0.95), "short": (0.6, 0.95), "shorter": (0.62, 0.95), "lossy": (0.8, 0.5)}
    folders = {
        name: write_evaluation(tmp_path / name, evaluation(300, saving=saving, accuracy=accuracy, seed=1))
        for name, (saving, accuracy) in shapes.items()
    }
    _, rows = found_in([*folders.values()])
    said = verdict(rows, "base")
    assert said.startswith("Against base, shorter saves the most tokens without a shown loss of accuracy: tokens -6")
    assert said.endswith("; with a loss of accuracy: lossy.")
    twin = write_evaluation(tmp_path / "twin", evaluation(300, saving=0.62, accuracy=0.95, seed=2))
    _, rows = found_in([folders["base"], folders["shorter"], twin])
    assert "not told apart from it in tokens: " in verdict(rows, "base")
    _, rows = found_in([folders["base"], folders["lossy"]])
    assert verdict(rows, "base") == (
        "Against base, no entry is shown to save tokens without a loss of accuracy; with a loss: lossy."
    )
    few = [write_evaluation(tmp_path / f"few{k}", evaluation(40, saving=k / 2, seed=k)) for k in range(2)]
    _, rows = found_in(few)
    assert re.search(r"a loss of up to \d+ points is not ruled out", verdict(rows, "few0"))


def test_that_nobody_is_right_is_shown(tmp_path) -> None:
    a, b = (write_evaluation(tmp_path / n, evaluation(seed=i, accuracy=-1.0)) for i, n in enumerate("ab"))
    made = compare([a, b], tmp_path / "page.html")
    header, _, first, *_ = [line for line in made.markdown.read_text().splitlines() if line.startswith("|")]
    assert "accuracy" in header
    assert "0.0 % [0.0, 6.0]" in first
    assert "accuracy +0.0 points [-6.0, +6.0]" in made.sentences[0][2]


def test_page_markdown_table_and_figures_are_written(tmp_path, runs) -> None:
    written = compare(runs, tmp_path / "out.html")
    with written.table.open() as file:
        lines = list(csv.DictReader(file))
    whole = [line for line in lines if line["difficulty"] == "all"]
    assert [line["entry"] for line in whole] == [BEFORE, "hapo-0", "hapo-1", "grpo-0"]
    assert len(lines) == 4 * (1 + 5), "each entry as a whole and at five difficulties"
    _, rows = found_in(runs)
    assert float(whole[1]["accuracy"]) == rows[1].summary["accuracy"]
    assert float(whole[1]["tokens_percent_low"]) == rows[1].difference["tokens_percent_interval"][0]
    text = written.markdown.read_text()
    assert f"- **hapo-0**: {headline(rows[1].difference)}" in text
    for name in re.findall(r"\]\((.*\.svg)\)", text):
        assert (tmp_path / name).read_text().startswith("<?xml")
    assert len(written.figures) == text.count(".svg)") >= 9
    again = written.figures[0].read_bytes()
    compare(runs, tmp_path / "out.html")
    assert written.figures[0].read_bytes() == again, "the same numbers give the same bytes"


def test_what_tokens_are_worth_is_told_at_the_prices_asked_for(tmp_path, runs, capsys) -> None:
    out = tmp_path / "cmp.html"
    main(["compare", *map(str, runs), "--out", str(out), "--price", "0", "0.002"])
    with out.with_suffix(".csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["difficulty"] == "all"]
    best = max(float(line["accuracy"]) for line in lines)
    for line in lines:
        assert float(line["regret_at_0"]) == pytest.approx(100 * (best - float(line["accuracy"])))
    values = [float(line["accuracy"]) - 0.002 * float(line["mean_tokens"]) for line in lines]
    regrets = [float(line["regret_at_0.002"]) for line in lines]
    assert regrets == pytest.approx([100 * (max(values) - value) for value in values])
    text = out.with_suffix(".md").read_text()
    assert "regret at 0, points | regret at 0.002, points |" in text
    assert "best of the compared, which are not the best that is possible" in text
    assert "Against the best of the compared" in out.read_text()
    assert (tmp_path / "cmp-figures" / "regret.svg").exists()
    with pytest.raises(SystemExit):
        main(["compare", *map(str, runs), "--out", str(out), "--price", "-1"])
    assert "prices=[-1.0]: need rows, and prices of 0 or more" in capsys.readouterr().err


def test_the_figures_are_valid_plotly(runs) -> None:
    entries, rows = found_in(runs)
    for chart in [*result_charts(entries, {"test split": rows})["test split"], *training_charts(entries)]:
        figure = to_plotly(chart)
        go.Figure(data=figure["data"], layout=figure["layout"])  # refuses an unknown property


def block(text: str) -> dict:
    return json.loads(gzip.decompress(b64decode(text)))


def test_packed_completions_are_those_of_the_evaluation(runs) -> None:
    _, rows = found_in(runs)
    packed = pack({"test split": rows})
    assert packed.note == ""
    problems, answers = block(packed.blocks["p0"]), block(packed.blocks["c0-1"])
    for k, row in enumerate(rows[1].evaluation.rows):
        assert problems["prompt"][answers["problem"][k]] == row.prompt
        assert answers["tokens"][k] == row.length
        bits = RIGHT * row.correct + UNSCORABLE * (not row.verdict.scorable) + TRUNCATED * row.truncated
        assert answers["state"][k] == bits
        if row.completion != HOSTILE:
            assert answers["text"][k] == row.completion
    assert "\x1b" not in answers["text"][7]
    assert "\u202e" not in answers["text"][7]
    assert "\\x202e" in answers["text"][7], "what steers is shown, not obeyed"


def test_the_page_stays_small_by_cutting_text_and_then_problems(tmp_path) -> None:
    folders = [write_evaluation(tmp_path / str(k), evaluation(100, seed=k, words=400)) for k in range(2)]
    _, rows = found_in(folders)
    full = sum(map(len, pack({"test split": rows}).blocks.values()))
    cut = pack({"test split": rows}, full // 4)
    assert sum(map(len, cut.blocks.values())) <= full // 4
    assert "cut in the middle" in cut.note
    assert len(block(cut.blocks["p0"])["prompt"]) == 100
    few = pack({"test split": rows}, full // 100)
    assert "of the problems are here" in few.note
    assert 1 <= len(block(few.blocks["p0"])["prompt"]) < 100
    nothing = pack({"test split": rows}, 10)
    assert not nothing.blocks
    assert "too large" in nothing.note


def test_bad_input_is_refused_in_one_clear_line(tmp_path, runs) -> None:
    def refused(*paths: Path, **options: str) -> str:
        with pytest.raises(UserError) as caught:
            compare(paths, tmp_path / "page.html", **options)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "page.html").exists()
        return str(caught.value)

    (tmp_path / "empty").mkdir()
    assert "is no run and no evaluation" in refused(runs[0], tmp_path / "empty")
    assert "does not exist" in refused(runs[0], tmp_path / "nowhere")
    assert "is given twice" in refused(runs[0], runs[0])
    assert "alone is one point" in refused(write_evaluation(tmp_path / "one", evaluation()))
    others = write_run(tmp_path / "others", before=evaluation(), prefix="q")
    said = refused(runs[0], others)
    assert "hold different problems of test split: 60 of 60 are only in the first" in said
    half = Evaluation(evaluation(samples=2).rows[:-1], {"samples": 2})
    assert "lacks 1 of the 2 completions a problem" in refused(runs[0], write_evaluation(tmp_path / "half", half))
    fewer = write_evaluation(tmp_path / "fewer", evaluation(50))
    assert "10 of 60 are only in the first, 0 of 50 only in the second" in refused(runs[0], fewer)
    named = write_evaluation(tmp_path / "named", evaluation(prefix="q"), benchmark="gsm8k")
    assert "were evaluated on different problems, gsm8k and test split" in refused(runs[0], named)
    assert "choose from before training, hapo-0" in refused(runs[0], baseline="hapo-9")
    with (runs[1] / "evaluation-after.jsonl").open("a") as file:
        file.write('{"prompt_id": "p')
    assert "evaluation-after.jsonl, line 61 is damaged" in refused(*runs)
    (runs[2] / "evaluation-after.jsonl").write_text("")
    assert "holds no completion" in refused(runs[0], runs[2])
    (tmp_path / "page.html").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        compare([runs[0]], tmp_path / "page.html")


def test_names_are_as_short_as_they_can_be(tmp_path) -> None:
    a = write_evaluation(tmp_path / "a" / "last", evaluation())
    b = write_evaluation(tmp_path / "b" / "last", evaluation(seed=1))
    assert [entry.name for entry in load_entries([a, b / "evaluation.jsonl"])] == ["a/last", "b/last"]


def test_the_commands_say_it_in_one_line_and_exit_with_2(tmp_path, runs, capsys) -> None:
    main(["compare", str(runs[0]), "--out", str(tmp_path / "page.html")])
    assert capsys.readouterr().out.startswith("hapo-0 on test split: tokens -")
    short = write_run(tmp_path / "short", steps=1)
    for command in (["compare", str(tmp_path)], ["fit", str(short)], ["fit", str(tmp_path / "nowhere")]):
        with pytest.raises(SystemExit) as ended:
            main(command)
        said = capsys.readouterr().err
        assert (ended.value.code, said.count("\n"), said[:7]) == (2, 1, "error: ")
