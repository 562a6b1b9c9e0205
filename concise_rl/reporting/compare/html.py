"""compare.html: the whole comparison in one file that needs neither network nor server."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path

from concise_rl.errors import printable
from concise_rl.evaluation.tradeoff import Tradeoff
from concise_rl.reporting.compare.charts import Boxes, Chart, colour, to_plotly, variant
from concise_rl.reporting.compare.completions import Packed
from concise_rl.reporting.compare.load import Entry
from concise_rl.reporting.compare.page import SCRIPT, STYLE
from concise_rl.reporting.compare.pictures import looks
from concise_rl.reporting.compare.results import Result
from concise_rl.reporting.compare.settings import settings_rows
from concise_rl.reporting.compare.tables import FRONT, difficulty_rows, result_rows, sentences
from concise_rl.reporting.compare.tradeoffs import tradeoff_html
from concise_rl.reporting.html import packed_plotly, page_html, script_json, table_html, text_html

FILTERS = {
    "all": "all", "worse": "worse: right in A, wrong in B", "better": "better: wrong in A, right in B",
    "wrong": "wrong in both", "shorter": "shorter in B", "longer": "longer in B", "cut": "cut at the limit in B",
}  # fmt: skip
ORDERS = {"given": "as evaluated", "saving": "largest saving", "growth": "largest growth", "longest": "longest in B"}


def comparison_html(
    entries: Sequence[Entry],
    found: Mapping[str, Sequence[Result]],
    held: Mapping[str, Tradeoff],
    pictures: Mapping[str, Sequence[Chart]],
    training: Sequence[Chart],
    packed: Packed,
    baseline: Entry,
    drawn: Mapping[str, Path],
    verdicts: Mapping[str, str],
) -> str:
    """The page.

    Args:
        entries: what is compared.
        found: benchmark to results.
        held: benchmark to its entries against the frontier.
        pictures: benchmark to charts, the front first.
        training: charts over training.
        packed: the completions.
        baseline: what the differences are to.
        drawn: stem of a chart to its SVG; those of the fronts stand in until plotly has drawn them.
        verdicts: benchmark to what it shows.
    """
    fronts = {
        pictures[benchmark][0].stem: b64encode(drawn[pictures[benchmark][0].stem].read_bytes()).decode("ascii")
        for benchmark in found
    }
    charts = [chart for benchmark in found for chart in pictures[benchmark]] + list(training)
    place = {id(chart): number for number, chart in enumerate(charts)}
    title = f"Comparison of {len(entries)} models"
    sections = [
        f"<header><h1>{text_html(title)}</h1>{_verdicts(verdicts)}"
        '<p class="unpackable note">This browser cannot unpack the figures and the completions: use a newer one.</p>'
        f"</header>\n{_chips(entries)}{_settings(entries)}"
    ]
    for benchmark, results in found.items():
        front, *others = pictures[benchmark]
        figures = _figures([front], place, fronts), _figures(others, place)
        sections.append(_benchmark(benchmark, results, held[benchmark], *figures, baseline, entries))
    if training:
        sections.append(f"<section><h2>Training</h2>{_figures(training, place)}</section>\n")
    if packed.blocks:
        sections.append(_browser(list(found), packed.note))
    elif packed.note:
        sections.append(f'<section><h2>Completions</h2><p class="note">{text_html(packed.note)}</p></section>\n')
    content = {
        "runs": [printable(entry.name) for entry in entries],
        "colours": [colour(look.style) for look in looks(entries)],
        "benchmarks": [_default_pair(results, baseline) for results in found.values()],
        "figures": [to_plotly(chart) for chart in charts],
    }
    data = {"page": ("application/json", script_json(content)), "plotly": ("text/plain", packed_plotly())}
    data |= {key: ("text/plain", block) for key, block in packed.blocks.items()}
    return page_html(title, "".join(sections), data=data, script=SCRIPT, style=STYLE)


def _chips(entries: Sequence[Entry]) -> str:
    chips = "".join(
        f'<button type="button" data-run="{run}" aria-pressed="true">{_swatch(look.style)}'
        f"{text_html(entry.name)}</button>"
        for run, (entry, look) in enumerate(zip(entries, looks(entries), strict=True))
    )
    return f'<div class="chips" role="group" aria-label="Models shown">{chips}</div>'


def _verdicts(verdicts: Mapping[str, str]) -> str:
    several = len(verdicts) > 1
    lines = (f"{benchmark}: {said}" if several else said for benchmark, said in verdicts.items())
    return "".join(f'<p class="headline">{text_html(line)}</p>' for line in lines)


def _settings(entries: Sequence[Entry]) -> str:
    rows, runs = settings_rows(entries)
    if not rows:
        return ""
    return f"<section><h2>Settings that differ</h2>{_table(rows, runs)}</section>\n"


def _swatch(style: int | None) -> str:
    kind = ("", "hollow", "angular", "hollow angular")[variant(style)]
    return f'<i class="{kind}" style="background:{colour(style)};border-color:{colour(style)}"></i>'


def _benchmark(
    benchmark: str,
    results: Sequence[Result],
    held: Tradeoff,
    front: str,
    others: str,
    baseline: Entry,
    entries: Sequence[Entry],
) -> str:
    runs = [result.run for result in results]
    said = "".join(
        f'<li data-run="{_run_of(entries, name)}"><b>{text_html(name)}</b>: {text_html(sentence)}</li>'
        for name, sentence in sentences(results)
    )
    against = f"<h3>Against {text_html(baseline.name)}</h3><ul class='sentences'>{said}</ul>" if said else ""
    tables = "".join(
        f"<h3>{heading}</h3>{_table(rows, runs)}"
        for heading, key in (("Accuracy by difficulty", "accuracy"), ("Tokens by difficulty", "mean_tokens"))
        if (rows := difficulty_rows(results, key))
    )
    note = f"[…] is the 95 % confidence interval, problems resampled;{FRONT} is on the front of accuracy and tokens."
    return (
        f"<section><h2>{text_html(benchmark)}: {results[0].summary['problems']} problems</h2>"
        f"{front}{_table(result_rows(results), runs)}<p class='note'>{note}</p>{against}"
        f"{tradeoff_html(held, lambda rows: _table(rows, runs))}{others}{tables}</section>\n"
    )


def _run_of(entries: Sequence[Entry], name: str) -> int:
    return next(run for run, entry in enumerate(entries) if entry.name == name)


def _table(rows: Sequence[Sequence[str]], runs: Sequence[int]) -> str:
    """A table whose lines go with their run when it is hidden."""
    head, *lines = table_html(rows).split('<tr><th scope="row">')
    return head + "".join(f'<tr data-run="{run}"><th scope="row">{line}' for run, line in zip(runs, lines, strict=True))


def _figures(charts: Sequence[Chart], place: Mapping[int, int], drawn: Mapping[str, str] | None = None) -> str:
    """Places for plotly to draw into, with the picture that is drawn already where there is one."""
    if not charts:
        return ""
    stills = {
        stem: f'<img alt="accuracy against tokens" src="data:image/svg+xml;base64,{picture}">'
        for stem, picture in (drawn or {}).items()
    }
    cells = "".join(
        f"<figure{_wide(chart)}><figcaption>{text_html(chart.title)}</figcaption>"
        f'<div class="plot" data-figure="{place[id(chart)]}">{stills.get(chart.stem, "")}</div>'
        f"{f'<p class=note>{text_html(chart.note)}</p>' if chart.note else ''}</figure>"
        for chart in charts
    )
    return f'<div class="figures {"wide" if len(charts) > 1 else "one"}">{cells}</div>'


def _wide(chart: Chart) -> str:
    return ' class="rows"' if any(isinstance(series, Boxes) for series in chart.series) else ""


def _browser(benchmarks: Sequence[str], note: str) -> str:
    def select(name: str, label: str, options: Mapping[str, str]) -> str:
        choices = "".join(f'<option value="{key}">{text_html(text)}</option>' for key, text in options.items())
        return f'<label>{label}<select id="{name}">{choices}</select></label>'

    controls = "".join(
        [
            select("benchmark", "Benchmark", {str(b): name for b, name in enumerate(benchmarks)}),
            select("a", "A", {}),
            select("b", "B", {}),
            select("filter", "Show", FILTERS),
            select("order", "Order", ORDERS),
            '<label>Search<input id="query" type="search" placeholder="prompt, answer, completion"></label>',
        ]
    )
    remark = f'<p class="note">{text_html(note)}</p>' if note else ""
    return (
        f'<section><h2>Completions, side by side</h2><div class="controls">{controls}</div>{remark}'
        '<div class="browser"><figure><figcaption>Lengths of A and B</figcaption>'
        '<div class="plot" id="lengths-of-two"></div></figure>'
        '<p class="note" aria-live="polite"><span id="count"></span> completions of each</p>'
        '<div id="pairs"></div><button type="button" class="more" id="more" hidden>Show 10 more</button>'
        "</div></section>\n"
    )


def _default_pair(results: Sequence[Result], baseline: Entry) -> dict[str, object]:
    """The runs that a reader may choose, and the pair shown first: the baseline and the best of the others."""
    runs = [result.run for result in results]
    a = next((result.run for result in results if result.entry == baseline.name), runs[0])
    others = [result for result in results if result.run != a]
    b = next((result.run for result in others if result.on_front), others[0].run if others else a)
    return {"runs": runs, "a": a, "b": b}
