"""report.html: one file that holds a run's result and needs nothing else, neither network nor server."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from concise_rl.evaluation.tradeoff import Tradeoff
from concise_rl.files import replace_text
from concise_rl.reporting.page import SCRIPT, STYLE
from concise_rl.reporting.plots import (
    Entries,
    Figure,
    Metrics,
    metric_figures,
    smoothing_width,
    training_figures,
    zero_metrics,
)
from concise_rl.reporting.run_log import plain
from concise_rl.reporting.summary import (
    CompletionPair,
    Summary,
    difficulty_rows,
    headline,
    pick_pairs,
    printable,
    summary_rows,
)
from concise_rl.reporting.tradeoff import frontier_sentence, tradeoff_tables

# A page that may load nothing but itself: a slip in escaping could not fetch or send either.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def write_report(
    path: str | Path,
    *,
    title: str,
    columns: Mapping[str, Summary],
    difference: Summary | None = None,
    metrics: Metrics = (),
    validation: Entries = (),
    pairs: Sequence[CompletionPair] = (),
    config: Mapping[str, Any] | None = None,
    facts: Mapping[str, str] | None = None,
    picture: str | Path | None = None,
    held: Tradeoff | None = None,
) -> None:
    """Write the report of a run, whole or not at all.

    Args:
        path: of the HTML file.
        title: name of the run.
        columns: heading to summary, `{"before": ..., "after": ...}`; see `concise_rl.reporting.summary`.
        difference: of after to before; without it there is no headline.
        metrics: lines of metrics.jsonl.
        validation: lines of validation.jsonl, the evaluations in training.
        pairs: the problems answered before and after, in the order of the test split; three are shown.
        config: the resolved configuration.
        facts: short remarks under the title, such as machine, commit, time.
        picture: a PNG shown where the interactive figures cannot be drawn.
        held: before and after against the best that is possible, where that is known.

    Raises:
        UserError: the file cannot be written.
    """
    before, after = columns.get("before"), columns.get("after")
    training = training_figures(metrics, before=before, after=after, validation=validation) if metrics else []
    every_metric = metric_figures(metrics)
    sections = [
        _head(title, difference, facts or {}),
        _table(columns, difference),
        _tradeoff(held),
        _figures("Training", "wide", training, picture),
        _completions(pairs),
        _figures("Every metric, step by step", "small", every_metric, note=_metrics_note(metrics)),
        _config(config),
    ]
    figures = training + every_metric
    data = {
        "figures": ("application/json", script_json(figures)),
        "plotly": ("text/plain", packed_plotly() if figures else ""),
    }
    replace_text(Path(path), page_html(title, "".join(sections), data=data, script=SCRIPT))


def page_html(title: str, body: str, *, data: Mapping[str, tuple[str, str]], script: str, style: str = STYLE) -> str:
    """A whole page that loads nothing but itself.

    Args:
        title: plain text.
        body: HTML, all of whose text went through `text_html`.
        data: element id to media type and content; JSON comes from `script_json`, anything else may hold no `<`.
        script: runs once the page is there.
        style: the style sheet.
    """
    blocks = "".join(f'<script type="{kind}" id="{key}">{content}</script>\n' for key, (kind, content) in data.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text_html(title)}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
{blocks}<script>{script}</script>
</body>
</html>
"""


def text_html(text: object) -> str:
    """Anything as text of the page: neither tag, attribute nor invisible control character gets through."""
    return escape(printable(str(text)), quote=True)


def script_json(content: object) -> str:
    """JSON that may stand in a script element: no `<`, so nothing in it can end the element."""
    return json.dumps(plain(content), allow_nan=False).replace("<", "\\u003c").replace("&", "\\u0026")


def packed(text: str) -> str:
    """Text gzipped, as base64, which browsers unpack with their own DecompressionStream: `unpack` of the script."""
    return base64.b64encode(gzip.compress(text.encode(errors="replace"), mtime=0)).decode("ascii")


def packed_plotly() -> str:
    """plotly.js: 2 MB of text instead of 5."""
    from plotly.offline import get_plotlyjs

    return packed(get_plotlyjs())


def _head(title: str, difference: Summary | None, facts: Mapping[str, str]) -> str:
    line = f'<p class="headline">{text_html(headline(difference))}</p>' if difference else ""
    remarks = "".join(f"<li>{text_html(name)}: {text_html(value)}</li>" for name, value in facts.items())
    return f'<header><h1>{text_html(title)}</h1>{line}<ul class="facts">{remarks}</ul></header>\n'


def _table(columns: Mapping[str, Summary], difference: Summary | None) -> str:
    if not columns:
        return ""
    table = table_html(summary_rows(columns, difference))
    levels = difficulty_rows(columns)
    more = f"<h3>By difficulty</h3>{table_html(levels)}" if levels else ""
    note = "[…] is the 95 % confidence interval; the change is paired by problem."
    return f'<section><h2>Test split</h2>{table}<p class="note">{note}</p>{more}</section>\n'


def _tradeoff(held: Tradeoff | None) -> str:
    if held is None:
        return ""
    tables = "".join(f"<h3>{text_html(name)}</h3>{table_html(table)}" for name, table in tradeoff_tables(held).items())
    note = f'<p class="note">{text_html(frontier_sentence(held))}</p>'
    return f"<section><h2>What the tokens buy</h2>{tables}{note}</section>\n"


def table_html(rows: Sequence[Sequence[str]]) -> str:
    """Header and body as a table that scrolls by itself where the page is narrower."""
    header, *body = rows
    head = "".join(f'<th scope="col">{text_html(cell)}</th>' for cell in header)
    lines = "".join(
        f'<tr><th scope="row">{text_html(name)}</th>{"".join(map(_cell, cells))}</tr>' for name, *cells in body
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def _cell(text: str) -> str:
    """A value and its interval, which may stand below it where the page is narrow."""
    value, bracket, interval = text.partition(" [")
    below = f' <span class="interval">[{text_html(interval)}</span>' if bracket else ""
    return f"<td><span>{text_html(value)}</span>{below}</td>"


def _metrics_note(metrics: Metrics) -> str:
    """What the small figures' lines are, and the metrics that have none."""
    width = smoothing_width(len(metrics))
    key = (
        '<p class="note"><span class="key thin"></span> each step &ensp; '
        f'<span class="key"></span> mean of {width} step{"s" * (width > 1)}</p>'
    )
    zero = zero_metrics(metrics)
    if not zero:
        return key
    named = ", ".join(map(text_html, zero))
    summary = f"{len(zero)} more were 0 at every step"
    return f'{key}<details class="zero"><summary>{summary}</summary><p class="note">{named}</p></details>'


def _figures(
    heading: str, kind: str, figures: Sequence[Figure], picture: str | Path | None = None, note: str = ""
) -> str:
    if not figures:
        return ""
    cells = "".join(
        f'<figure><figcaption title="{text_html(figure.get("note", ""))}">{text_html(figure["title"])}</figcaption>'
        '<div class="plot"></div></figure>'
        for figure in figures
    )
    instead = ""
    if picture and Path(picture).exists():
        data = base64.b64encode(Path(picture).read_bytes()).decode("ascii")
        instead = f'<img class="instead" alt="Accuracy and tokens over training" src="data:image/png;base64,{data}">'
    return f'<section><h2>{text_html(heading)}</h2>{note}{instead}<div class="figures {kind}">{cells}</div></section>\n'


def _completions(pairs: Sequence[CompletionPair]) -> str:
    blocks = []
    for reason, pair in pick_pairs(pairs):
        answers = "".join(
            f'<div class="answer {"right" if answer.correct else "wrong"}">'
            f"<h4>{name} <span>{answer.caption}</span></h4><pre>{text_html(answer.text)}</pre></div>"
            for name, answer in (("Before", pair.before), ("After", pair.after))
        )
        blocks.append(
            f"<article><h3>{text_html(reason.capitalize())}</h3>"
            f'<pre class="prompt">{text_html(pair.prompt)}</pre>'
            f'<p class="note">Reference answer: {text_html(pair.reference)}</p>'
            f'<div class="pair">{answers}</div></article>'
        )
    return f"<section><h2>Three problems, before and after</h2>{''.join(blocks)}</section>\n" if blocks else ""


def _config(config: Mapping[str, Any] | None) -> str:
    if not config:
        return ""
    text = json.dumps(plain(config), indent=2, ensure_ascii=False)
    summary = "<summary>Resolved configuration</summary>"
    return f"<section><details>{summary}<pre>{text_html(text)}</pre></details></section>\n"
