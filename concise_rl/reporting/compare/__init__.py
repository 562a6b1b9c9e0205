"""Several runs and evaluations in one page, with the same as Markdown, CSV and figures for papers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from concise_rl.errors import UserError
from concise_rl.files import replace_text
from concise_rl.reporting.compare.charts import draw
from concise_rl.reporting.compare.completions import pack
from concise_rl.reporting.compare.html import comparison_html
from concise_rl.reporting.compare.load import load_entries
from concise_rl.reporting.compare.pictures import result_charts, training_charts
from concise_rl.reporting.compare.results import choose_baseline, results
from concise_rl.reporting.compare.settings import settings_rows
from concise_rl.reporting.compare.tables import csv_text, markdown, sentences
from concise_rl.reporting.compare.tradeoffs import tradeoffs, with_tradeoffs
from concise_rl.reporting.compare.verdict import verdict

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True)
class Comparison:
    """What was written; the sentences: entry, benchmark, change against the baseline; and benchmark to verdict."""

    page: Path
    markdown: Path
    table: Path
    figures: list[Path]
    baseline: str
    sentences: list[tuple[str, str, str]]
    verdicts: dict[str, str]


def compare(
    paths: Sequence[str | Path],
    out: str | Path = "compare.html",
    baseline: str | None = None,
    prices: Sequence[float] | None = None,
) -> Comparison:
    """Compare runs and evaluations, and write `out` with its Markdown, CSV and SVG figures beside it.

    Args:
        paths: run folders, folders of `concise-rl eval`, evaluation files.
        out: of the page; `compare.html` brings `compare.md`, `compare.csv` and the folder `compare-figures`.
        baseline: name of the entry that the others are compared with; the model before training if None, or the first.
        prices: of a token, in units of one right answer, at which regret is told; `concise_rl.evaluation.tradeoff` says
            which by default.

    Raises:
        DataError: a path that is no run and no evaluation, or a damaged file.
        UserError: fewer than two things to compare, different problems, an unknown baseline, a price below 0, or an
            unwritable `out`.
    """
    page = Path(out)
    if page.suffix != ".html":
        raise UserError(f"--out {page}: the page is a .html file; the other files are named after it")
    entries = load_entries(paths)
    if len(entries) < 2:
        raise UserError(f"{entries[0].name} alone is one point: name a second run or evaluation to compare it with")
    base = choose_baseline(entries, baseline)
    found = results(entries, base)
    pictures, training = result_charts(entries, found), training_charts(entries)
    held = tradeoffs(found, prices)
    pictures = with_tradeoffs(pictures, entries, found, held)
    folder = page.with_name(f"{page.stem}-figures")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}): choose another --out") from error
    charts = [*(chart for charts in pictures.values() for chart in charts), *training]
    files = {chart.stem: folder / f"{chart.stem}.svg" for chart in charts}
    for chart in charts:
        draw(chart, files[chart.stem])
    text, table = page.with_suffix(".md"), page.with_suffix(".csv")
    images = {chart.title: f"{folder.name}/{files[chart.stem].name}" for chart in charts}
    verdicts = {benchmark: verdict(rows, base.name) for benchmark, rows in found.items()}
    packed = pack(found)
    replace_text(page, comparison_html(entries, found, held, pictures, training, packed, base, files, verdicts))
    replace_text(text, markdown(found, held, base.name, images, verdicts, settings_rows(entries)[0]))
    replace_text(table, csv_text(found, held))
    said = [(name, benchmark, line) for benchmark, rows in found.items() for name, line in sentences(rows)]
    return Comparison(page, text, table, list(files.values()), base.name, said, verdicts)
