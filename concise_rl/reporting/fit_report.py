"""What `concise-rl fit` shows and writes: tables, the prediction in a sentence, two figures, the numbers as JSON."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from concise_rl.errors import UserError
from concise_rl.files import replace_text
from concise_rl.reporting.compare.charts import Chart, Series, draw
from concise_rl.reporting.compare.load import shortest_names
from concise_rl.reporting.fit import (
    COVERAGE,
    SIGMOID,
    Fit,
    Points,
    Prediction,
    fit_power_law,
    fit_sigmoid,
    fit_sizes,
    limits_of,
    power_law,
    predict_end,
    read_points,
    sigmoid,
)
from concise_rl.reporting.glossary import describe
from concise_rl.reporting.run_log import to_json

UNCHANGED = 0.05
"""A curve that fits a constant's noise at least as often as this shows no change."""

_RESOURCE_NAMES = {"step": "optimizer steps", "num_tokens": "tokens trained on", "seconds": "seconds of training"}


@dataclass(frozen=True)
class Fits:
    """Everything that was fitted: per run, per number of parameters (over several runs), over the numbers."""

    runs: Sequence[Points]
    sigmoids: Mapping[str, Fit]
    predictions: Mapping[str, Prediction]
    power_laws: Mapping[int | None, Fit]
    sizes: Fit | None


def fit_runs(folders: Sequence[str | Path], metric: str = "accuracy", against: str = "step") -> Fits:
    """Fit each run's curve and, over several runs of a metric that is a fraction, the power law.

    Raises:
        DataError: a folder that is no run, or a damaged file.
        UserError: too few points, no such metric, one folder twice, or scipy is missing.
    """
    if importlib.util.find_spec("scipy") is None:
        raise UserError("fitting needs scipy: pip install 'concise-rl[fit]'")
    names = shortest_names([Path(folder) for folder in folders])
    runs = [read_points(folder, name, metric, against) for folder, name in zip(folders, names, strict=True)]
    limits = limits_of(metric)
    several = len(runs) > 1 and limits == (0.0, 1.0)
    laws = fit_power_law(runs) if several else {}
    return Fits(
        runs,
        {run.name: fit_sigmoid(run.resource, run.score, limits) for run in runs},
        {run.name: predict_end(run.resource, run.score, limits) for run in runs},
        laws,
        fit_sizes(laws),
    )


def show_fits(fits: Fits, metric: str, against: str, console: Console | None = None) -> None:
    """Print the tables and what each run's first half said of its end."""
    console = console or Console(highlight=False)
    console.print(_table(f"{metric} against {against}", "run", fits.sigmoids, SIGMOID))
    for name, fit in fits.sigmoids.items():
        console.print(f"{name}: {sentence(fits.predictions[name], fit, metric)}", markup=False, soft_wrap=True)
    if fits.power_laws:
        laws = {_size_name(size): fit for size, fit in fits.power_laws.items()}
        console.print(_table("power law of the share of wrong answers", "parameters", laws, ("k", "E")))
    if fits.sizes:
        console.print(_table("over the numbers of parameters", "", {"k(N)": fits.sizes}, ("K_max", "N_0")))


def sentence(prediction: Prediction, fit: Fit, metric: str) -> str:
    """Such as `predicted 94.1 % [92.0, 96.3] for the last 10 points; observed 93.8 %, inside the interval`."""
    text = describe(metric).text
    low, high = (text(end).removesuffix(" %") for end in prediction.interval)
    said = (
        f"the first half predicted {text(prediction.predicted)} [{low}, {high}] for the mean of the last "
        f"{prediction.points} points; observed {text(prediction.observed)}, "
        f"{'inside' if prediction.held else 'outside'} the interval"
    )
    if fit.p_constant >= UNCHANGED:
        said += f"; no change is shown (F test, p = {fit.p_constant:.2f}), so ignore C_mid and B"
    return said


def write_fits(fits: Fits, folder: str | Path, metric: str, against: str) -> list[Path]:
    """Write `fit.json`, `sigmoid.svg` and, where there is one, `power_law.svg`; their paths.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder} cannot be made ({error.strerror}): choose another folder") from error
    numbers = {
        "metric": metric,
        "against": against,
        "runs": {
            name: _numbers(fit) | {"prediction": vars(fits.predictions[name]) | {"held": fits.predictions[name].held}}
            for name, fit in fits.sigmoids.items()
        },
        "power_laws": {_size_name(size): _numbers(fit) for size, fit in fits.power_laws.items()},
        "sizes": _numbers(fits.sizes) if fits.sizes else None,
    }
    charts = [sigmoid_chart(fits, metric, against), *([power_law_chart(fits, against)] if fits.power_laws else [])]
    replace_text(folder / "fit.json", to_json(numbers))
    for chart in charts:
        draw(chart, folder / f"{chart.stem}.svg")
    return [folder / "fit.json", *(folder / f"{chart.stem}.svg" for chart in charts)]


def sigmoid_chart(fits: Fits, metric: str, against: str) -> Chart:
    """Points, curve with its 95 % band, and the curve of the first half carried to the end."""
    scale = 100 if describe(metric).unit == "%" else 1
    series = []
    for style, run in enumerate(fits.runs):
        fit = fits.sigmoids[run.name]
        grid = np.geomspace(run.resource[0], run.resource[-1], 120)
        low, high = np.percentile(sigmoid(grid, *fit.resampled.T[:, :, None]), COVERAGE, axis=0)
        band = list(zip(scale * low, scale * high, strict=True))
        curve = scale * sigmoid(grid, *fit.values.values())
        series.append(
            Series(run.name, run.resource.tolist(), (scale * run.score).tolist(), style, "dots", group=run.name)
        )
        series.append(Series(run.name, grid.tolist(), curve.tolist(), style, y_intervals=band, group=run.name))
        early = fits.predictions[run.name]
        end = [(scale * early.interval[0], scale * early.interval[1])]
        series.append(
            Series("end, from the first half", [run.resource[-1]], [scale * early.predicted], style, "points",
                   y_intervals=end, group=f"{run.name}, from its first half")
        )  # fmt: skip
    unit = ", %" if scale == 100 else ""
    return Chart("sigmoid", "Sigmoid of the score", _RESOURCE_NAMES[against], describe(metric).label + unit, series,
                 log_x=True)  # fmt: skip


def power_law_chart(fits: Fits, against: str) -> Chart:
    """Share of wrong answers and its law, both axes logarithmic; a point without a wrong answer has no place there."""
    series = []
    for style, (size, fit) in enumerate(fits.power_laws.items()):
        same = [run for run in fits.runs if run.parameters == size]
        name = _size_name(size)
        for run in same:
            wrong = 100 * np.where(run.score < 1, 1 - run.score, np.nan)
            series.append(Series(run.name, run.resource.tolist(), wrong.tolist(), style, "dots", group=name))
        ends = min(run.resource[0] for run in same), max(run.resource[-1] for run in same)
        grid = np.geomspace(*ends, 120)
        low, high = np.percentile(power_law(grid, *fit.resampled.T[:, :, None]), COVERAGE, axis=0)
        band = list(zip(100 * low, 100 * high, strict=True))
        law = 100 * power_law(grid, *fit.values.values())
        series.append(Series(name, grid.tolist(), law.tolist(), style, y_intervals=band, group=name))
    return Chart("power_law", "Power law of the share of wrong answers", _RESOURCE_NAMES[against], "wrong, %", series,
                 log_x=True, log_y=True)  # fmt: skip


def _numbers(fit: Fit) -> dict[str, Any]:
    keys = ("values", "intervals", "residual", "r_squared", "p_constant")
    return {key: getattr(fit, key) for key in keys}


def _size_name(size: int | None) -> str:
    return "unknown number of parameters" if size is None else f"{size:,} parameters"


def _table(title: str, first: str, fits: Mapping[str, Fit], names: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", caption="[...] is the 95 % interval", caption_justify="left")
    table.add_column(first, overflow="fold")
    for name in (*names, "R²"):
        table.add_column(name, justify="right")
    for label, fit in fits.items():
        cells = (f"{fit.values[n]:.3g}\n[{fit.intervals[n][0]:.3g}, {fit.intervals[n][1]:.3g}]" for n in names)
        table.add_row(Text(label), *map(Text, cells), f"{fit.r_squared:.2f}")
    return table
