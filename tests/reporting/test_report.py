"""What a run leaves for people: table, sentence, completions, PNG and the one-file report."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import plotly.graph_objects as go
import pytest
from rich.console import Console

from concise_rl.errors import UserError
from concise_rl.evaluation import EvaluationRow
from concise_rl.evaluation.tradeoff import tradeoff
from concise_rl.reporting.html import write_report
from concise_rl.reporting.plots import metric_figures, plot_training, smooth, training_figures
from concise_rl.reporting.summary import (
    Answer,
    CompletionPair,
    difficulty_rows,
    headline,
    pairs_view,
    pick_pairs,
    shorten,
    summary_markdown,
    summary_table,
)
from concise_rl.verifiers import Verdict

from .fake import AFTER, BEFORE, DIFFERENCE, HOSTILE, fake_pairs, fake_run

COLUMNS = {"before": BEFORE, "after": AFTER}
LINES = [{"step": record.batch.step + 1} | record.metrics for record in fake_run(30)]


def pair(before: int, after: int, right_before: bool = True, right_after: bool = True) -> CompletionPair:
    return CompletionPair("q", "a", Answer("x", before, right_before), Answer("y", after, right_after))


def test_the_headline_says_what_the_intervals_show() -> None:
    assert headline(DIFFERENCE) == "tokens -53 % [-55, -51], accuracy -0.4 points [-1.6, +0.8]: no loss shown at 95 %"

    def verdict(accuracy: list[float], tokens: list[float]) -> str:
        change = DIFFERENCE | {"accuracy_points_interval": accuracy, "tokens_percent_interval": tokens}
        return headline(change).split(": ")[1]

    assert verdict([-3.0, -0.1], [-55, -51]) == "a loss of accuracy at 95 %"
    assert verdict([0.2, 1.0], [-55, -51]) == "a gain of accuracy at 95 %"
    assert verdict([-1.0, 1.0], [-3, 2]) == "no saving shown, no loss shown at 95 %"
    assert verdict([-3.0, -0.1], [4, 9]) == "longer, a loss of accuracy at 95 %"


def test_the_table() -> None:
    text = summary_markdown(COLUMNS, DIFFERENCE)
    assert "| accuracy | 95.5 % [93.5, 97.0] | 95.1 % [93.0, 96.7] | -0.4 points [-1.6, +0.8] |" in text
    assert "| mean tokens | 55.0 [53.6, 56.4] | 25.8 [25.1, 26.6] | -53 % [-55, -51] |" in text
    assert "| truncated | 1.2 % | 0.0 % | -1.2 points |" in text
    assert "unscorable" not in text
    assert summary_markdown({"now": AFTER}).splitlines()[0] == "|  | now |"
    out = io.StringIO()
    Console(file=out, width=100).print(summary_table(COLUMNS, DIFFERENCE))
    assert "95.5 % [93.5, 97.0]" in out.getvalue()


def test_the_levels_of_difficulty() -> None:
    header, easy, hard = difficulty_rows(COLUMNS)
    assert header[:3] == ["difficulty", "accuracy, before", "accuracy, after"]
    assert easy == ["2", "99.0 %", "98.0 %", "21.2", "11.0", "2.00", "1.02"]
    assert hard[0] == "6"
    assert difficulty_rows({"before": BEFORE, "after": AFTER | {"by_difficulty": {}}}) == []


def test_the_pairs_are_the_typical_the_best_and_the_worst() -> None:
    pairs = [pair(50, 40), pair(50, 20), pair(50, 10, right_after=False), pair(50, 30), pair(50, 45), pair(50, 60)]
    assert [(reason, pairs.index(p)) for reason, p in pick_pairs(pairs)] == [
        ("median saving", 0),  # of 60 45 40 30 20, the problems that stayed right
        ("largest saving with a right answer", 1),
        ("was right, is wrong now", 2),
    ]
    kept = [pair(50, 40), pair(50, 20), pair(50, 60)]
    assert [reason for reason, _ in pick_pairs(kept)][2] == "grew most"
    assert [reason for reason, _ in pick_pairs([pair(9, 8)])] == ["median saving"]
    assert pick_pairs([]) == []
    assert len(pick_pairs([pair(9, 8, False, False)] * 2)) == 2


def test_model_text_cannot_steer_the_terminal() -> None:
    evil = CompletionPair("[red]q[/red]", "7", Answer("[bold]x[/bold] \x1b[2J\x07", 3, True), Answer(HOSTILE, 2, True))
    out = io.StringIO()
    Console(file=out, width=120, force_terminal=True, color_system="standard").print(pairs_view(pick_pairs([evil])))
    assert "[bold]x[/bold] \\x1b[2J\\x07" in out.getvalue()
    assert "[red]q[/red]" in out.getvalue()
    assert "\x1b[2J" not in out.getvalue()
    assert shorten("a" * 500 + "b" * 500, 10) == "aaaaa [... 990 characters ...] bbbbb"


def test_smoothing() -> None:
    assert smooth([1.0, 2.0, 6.0], 3) == [1.5, 3.0, 4.0]
    assert smooth([1.0, float("nan"), 3.0], 3) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("lines", [LINES, LINES[:1], []])
def test_a_png_is_written(tmp_path, lines) -> None:
    path = tmp_path / "training.png"
    plot_training(lines, path, title="t", before=BEFORE, after=AFTER if lines else None)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 10_000


def test_figures_are_valid_plotly_in_shown_units() -> None:
    figures = training_figures(LINES, before=BEFORE, after=AFTER) + metric_figures(LINES)
    for figure in figures:
        go.Figure(data=figure["data"], layout=figure["layout"])  # refuses an unknown property
    before = figures[0]["data"][2]
    assert (before["x"], before["y"]) == ([55.0], [95.5])
    assert before["error_y"]["arrayminus"] == pytest.approx([2.0])
    assert "shaper/mean gain" in [figure["title"] for figure in figures]


class Page(HTMLParser):
    """A report as a browser reads it: its elements, and the text of each script by id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data) -> None:
        if self.elements and self.elements[-1][0] == "script":
            self.scripts[-1] += data
        self.text += data


@pytest.fixture
def report(tmp_path) -> Path:
    plot_training(LINES, tmp_path / "training.png")
    hostile_lines = [line | {f"shaper/{HOSTILE}": 1.0} for line in LINES]
    write_report(
        tmp_path / "report.html",
        title=f"run {HOSTILE}",
        columns=COLUMNS,
        difference=DIFFERENCE,
        metrics=hostile_lines,
        pairs=fake_pairs(),
        config={"system": HOSTILE},
        facts={"commit": HOSTILE},
        picture=tmp_path / "training.png",
    )
    return tmp_path / "report.html"


def test_hostile_text_stays_text(report: Path) -> None:
    page = Page(report.read_text())
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 3, "the page's own three and none that a model or a config brought"
    assert [attributes["class"] for tag, attributes in page.elements if tag == "img"] == ["instead"]
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert page.text.count("window.hacked = 1") >= 4
    figures = json.loads(page.scripts[0])
    assert any(HOSTILE in figure["title"] for figure in figures)


def test_the_report_needs_no_network(report: Path) -> None:
    text = report.read_text()
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "base"), tag
        for name in ("src", "href", "srcset", "data"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, name)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", page.scripts[2] + text[: text.index("</style>")])
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert b"plotly" in gzip.decompress(base64.b64decode(page.scripts[1]))[:300].lower()
    assert report.stat().st_size < 3_000_000


def test_the_report_without_training_or_pairs(tmp_path) -> None:
    write_report(tmp_path / "bare.html", title="evaluation", columns={"now": AFTER})
    text = (tmp_path / "bare.html").read_text()
    assert "95.1 %" in text
    assert len(text) < 50_000, "no figures, no plotly"
    with pytest.raises(UserError, match="cannot write"):
        write_report(tmp_path / "nowhere" / "report.html", title="", columns={})


def test_the_report_of_a_bed_holds_it_against_the_best(tmp_path) -> None:
    rows = [EvaluationRow("p", 0, "q", "a", "a", 10, None, False, Verdict.of(True), {"difficulty": 2})]
    held = tradeoff({"before": rows, "after": rows}, (0.01,))
    write_report(tmp_path / "report.html", title="t", columns=COLUMNS, held=held)
    text = (tmp_path / "report.html").read_text()
    assert "What the tokens buy" in text
    assert "regret at 0.01, points" in text
    write_report(tmp_path / "plain.html", title="t", columns=COLUMNS)
    assert "What the tokens buy" not in (tmp_path / "plain.html").read_text()
