"""Training as pictures: a PNG by matplotlib, and the same as plotly figures for the report.

Colours are those of Okabe and Ito, told apart by colour-blind readers, and each has one meaning: blue is training, grey
the model before it, orange the model after it, green the test split on the way. Steps run through cividis.
"""

from __future__ import annotations

import math
import re
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concise_rl.reporting.glossary import METRICS, describe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8A8A8A"

FEW_STEPS = 10
"""Up to so many, each step has its mark on the axis, so that none falls between two steps."""

_NOT_DRAWN = re.compile(r"step|time|accuracy|mean_tokens|epoch|num_tokens|(completions|rewards)/.*")
"""Keys that are drawn larger already, count time, or are TRL's own words for what is drawn."""

Metrics = Sequence[Mapping[str, float]]
Entries = Sequence[Mapping[str, Any]]
"""Evaluations in training, entries of `concise_rl.evaluation.validation`."""

Figure = dict[str, Any]


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Centred moving mean over up to `width` steps, fewer at the ends; nan is left out, and stays where it is alone."""
    half = width // 2
    means = []
    for k in range(len(values)):
        window = [v for v in values[max(0, k - half) : k + half + 1] if math.isfinite(v)]
        means.append(sum(window) / len(window) if window else math.nan)
    return means


def smoothing_width(steps: int) -> int:
    """Steps in the moving mean: about a tenth of the run, odd."""
    return max(1, steps // 10) | 1


def _mean_of(width: int) -> str:
    return f"mean of {width} step{'s' * (width > 1)}"


def plot_training(
    metrics: Metrics,
    path: str | Path,
    *,
    title: str = "",
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    validation: Entries = (),
) -> None:
    """Write a PNG: accuracy against mean tokens over training, and both against the step.

    Args:
        metrics: lines of metrics.jsonl with `step`, `accuracy` (fraction) and `mean_tokens`; may be empty.
        path: of the PNG.
        before, after: summaries with `accuracy`, `mean_tokens` and their 95 % intervals, drawn as points with bars.
        validation: evaluations in training, drawn as a curve with bars.
    """
    # Figures made without pyplot need no display and are freed with their last reference.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as MplFigure
    from matplotlib.ticker import MaxNLocator

    figure = MplFigure(figsize=(12, 4.8), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.15, 1))
    _draw_path(figure.add_subplot(grid[:, 0]), metrics, before, after)
    top = figure.add_subplot(grid[0, 1])
    _draw_curve(top, metrics, "mean_tokens", before, after, validation)
    bottom = figure.add_subplot(grid[1, 1], sharex=top)
    _draw_curve(bottom, metrics, "accuracy", before, after, validation)
    bottom.set_xlabel("optimizer step")
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    top.tick_params(labelbottom=False)
    if title:
        figure.suptitle(title, fontweight="bold")
    figure.savefig(path, format="png")


def _draw_path(axes: Axes, metrics: Metrics, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> None:
    width = smoothing_width(len(metrics))
    tokens, accuracy = (_series(metrics, key) for key in ("mean_tokens", "accuracy"))
    if metrics:
        axes.scatter(tokens, accuracy, s=7, color=GREY, alpha=0.35, label="training, each step")
        path = axes.scatter(
            *(smooth(tokens, width), smooth(accuracy, width)),
            c=_series(metrics, "step"), cmap="cividis", s=16, zorder=2, label=f"training, {_mean_of(width)}",
        )  # fmt: skip
        axes.plot(smooth(tokens, width), smooth(accuracy, width), color=GREY, linewidth=0.8, zorder=1)
        assert axes.figure is not None
        axes.figure.colorbar(path, ax=axes, label="optimizer step", pad=0.02, aspect=40)
    for name, summary, colour, marker in (("before", before, GREY, "s"), ("after", after, ORANGE, "D")):
        if summary:
            x, y, x_bars, y_bars = _point(summary)
            axes.errorbar(
                *(x, y, [[bar] for bar in y_bars], [[bar] for bar in x_bars]),
                fmt=marker, color=colour, markersize=9, capsize=4, markeredgecolor="white", zorder=3,
                label=f"{name}, test split, 95 % interval",
            )  # fmt: skip
    axes.set(xlabel="mean tokens a completion", ylabel="accuracy (%)", title="Accuracy against length")
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, loc="best")


def _draw_curve(
    axes: Axes,
    metrics: Metrics,
    key: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    validation: Entries,
) -> None:
    steps, values = _series(metrics, "step"), _series(metrics, key)
    width = smoothing_width(len(metrics))
    axes.plot(steps, values, color=BLUE, alpha=0.3, linewidth=0.9)
    axes.plot(steps, smooth(values, width), color=BLUE, linewidth=2, label=f"training, {_mean_of(width)}")
    if validation:
        at, found, bars = _validation_series(validation, key)
        axes.errorbar(at, found, bars, fmt="o-", color=GREEN, markersize=3, capsize=2, linewidth=1,
                      label="test split on the way, 95 % interval")  # fmt: skip
    for name, summary, line, colour in (("before", before, "--", GREY), ("after", after, ":", ORANGE)):
        if summary and summary.get(key) is not None:
            axes.axhline(
                _scale(key) * summary[key], color=colour, linestyle=line, linewidth=1.2, label=f"{name}, test split"
            )
    axes.set_ylabel("mean tokens" if key == "mean_tokens" else "accuracy (%)")
    axes.grid(alpha=0.25)
    if key == "mean_tokens":
        axes.legend(fontsize=7, loc="best")


def training_figures(
    metrics: Metrics,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    validation: Entries = (),
) -> list[Figure]:
    """The picture of `plot_training` as plotly figures `{"title", "data", "layout"}`; the page sets colours of text."""
    return [
        _path_figure(metrics, before, after),
        _curve_figure(metrics, "mean_tokens", before, after, validation),
        _curve_figure(metrics, "accuracy", before, after, validation),
    ]


def metric_figures(metrics: Metrics) -> list[Figure]:
    """One small plotly figure for each other metric that the run logged and that was not 0 throughout, known ones
    first."""
    figures = [_curve_figure(metrics, key) for key in _other_keys(metrics) if not _is_zero(metrics, key)]
    for figure in figures:
        figure["layout"]["showlegend"] = False
    return figures


def zero_metrics(metrics: Metrics) -> list[str]:
    """The labels of the other metrics, those that were 0 at each step."""
    return [describe(key).label for key in _other_keys(metrics) if _is_zero(metrics, key)]


def _other_keys(metrics: Metrics) -> list[str]:
    logged = dict.fromkeys(key for line in metrics for key in line)
    keys = [key for key in METRICS if key in logged] + sorted(logged.keys() - METRICS.keys())
    return [key for key in keys if not _NOT_DRAWN.fullmatch(key)]


def _is_zero(metrics: Metrics, key: str) -> bool:
    return not any(line.get(key, 0.0) for line in metrics)  # nan is something to look at


def _path_figure(metrics: Metrics, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Figure:
    width = smoothing_width(len(metrics))
    steps, tokens, accuracy = (_series(metrics, key) for key in ("step", "mean_tokens", "accuracy"))
    colour_bar = {"title": {"text": "step", "side": "right"}, "thickness": 10, "outlinewidth": 0}
    hover = "step %{customdata}<br>%{x:.1f} tokens<br>%{y:.1f} %<extra></extra>"
    data: list[dict[str, Any]] = []
    if metrics:
        data = [
            _trace(tokens, accuracy, "each step", mode="markers", marker={"color": GREY, "size": 4, "opacity": 0.4},
                   customdata=steps, hovertemplate=hover),
            _trace(smooth(tokens, width), smooth(accuracy, width), _mean_of(width), mode="lines+markers",
                   line={"color": GREY, "width": 1}, customdata=steps, hovertemplate=hover,
                   marker={"color": steps, "colorscale": "Cividis", "size": 6, "colorbar": colour_bar,
                           "line": {"color": GREY, "width": 0.7}}),
        ]  # fmt: skip
    for name, summary, colour, symbol in (("before", before, GREY, "square"), ("after", after, ORANGE, "diamond")):
        if summary:
            x, y, x_bars, y_bars = _point(summary)
            bars = {
                f"error_{axis}": {
                    "type": "data",
                    "symmetric": False,
                    "arrayminus": [low],
                    "array": [high],
                    "color": colour,
                }
                for axis, (low, high) in (("x", x_bars), ("y", y_bars))
            }
            data.append(
                _trace([x], [y], f"{name}, test split", mode="markers", hovertemplate="%{x:.1f} tokens<br>%{y:.1f} %",
                       marker={"color": colour, "symbol": symbol, "size": 12}, **bars)
            )  # fmt: skip
    layout = {"xaxis": {"title": {"text": "mean tokens a completion"}}, "yaxis": {"title": {"text": "accuracy (%)"}}}
    return {"title": "Accuracy against length over training", "data": data, "layout": layout}


def _curve_figure(
    metrics: Metrics,
    key: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    validation: Entries = (),
) -> Figure:
    metric = describe(key)
    width = smoothing_width(len(metrics))
    steps, values = _series(metrics, "step"), _series(metrics, key)
    hover = "step %{x}<br>%{y:.4~g}<extra></extra>"
    data = [
        _trace(steps, values, "each step", mode="lines", line={"color": BLUE, "width": 1}, opacity=0.35,
               hovertemplate=hover),
        _trace(steps, smooth(values, width), _mean_of(width), mode="lines", hovertemplate=hover,
               line={"color": BLUE, "width": 2.5}),
    ]  # fmt: skip
    if validation:
        at, found, (below, above) = _validation_series(validation, key)
        bars = {"type": "data", "symmetric": False, "arrayminus": below, "array": above, "thickness": 1, "width": 3}
        data.append(
            _trace(at, found, "test split on the way", mode="lines+markers", line={"color": GREEN, "width": 1.5},
                   marker={"size": 6}, error_y=bars, hovertemplate=hover)
        )  # fmt: skip
    for name, summary, dash, colour in (("before", before, "dash", GREY), ("after", after, "dot", ORANGE)):
        if summary and summary.get(key) is not None and steps:
            level = _scale(key) * summary[key]
            data.append(
                _trace([steps[0], steps[-1]], [level, level], f"{name}, test split", mode="lines",
                       line={"color": colour, "dash": dash, "width": 1.5}, hovertemplate="%{y:.4~g}")
            )  # fmt: skip
    unit = f" ({metric.unit})" if metric.unit and metric.unit not in metric.label else ""
    y_axis: dict[str, Any] = {"title": {"text": metric.label + unit}}
    if metric.unit in ("%", "s"):
        y_axis["rangemode"] = "nonnegative"
    x_axis: dict[str, Any] = {"title": {"text": "optimizer step"}} | ({"dtick": 1} if len(steps) <= FEW_STEPS else {})
    layout = {"xaxis": x_axis, "yaxis": y_axis}
    return {"title": metric.label + unit, "note": metric.definition, "data": data, "layout": layout}


def _validation_series(validation: Entries, key: str) -> tuple[list[int], list[float], list[list[float]]]:
    """Steps, values, and how far the intervals reach down and up."""
    scale, reach = _scale(key), []
    for entry in validation:
        low, high = entry.get(f"{key}_interval") or (entry[key], entry[key])
        reach.append((scale * max(0.0, entry[key] - low), scale * max(0.0, high - entry[key])))
    below, above = zip(*reach, strict=True)
    return [entry["step"] for entry in validation], [scale * entry[key] for entry in validation], [[*below], [*above]]


def _trace(x: Sequence[float], y: Sequence[float], name: str, **style: Any) -> dict[str, Any]:
    return {"type": "scatter", "x": list(x), "y": list(y), "name": name, **style}


def _scale(key: str) -> float:
    return 100.0 if describe(key).unit == "%" else 1.0


def _series(metrics: Metrics, key: str) -> list[float]:
    """The metric step by step, percent where its unit is %, nan where a step lacks it."""
    return [_scale(key) * line.get(key, math.nan) for line in metrics]


def _point(summary: Mapping[str, Any]) -> tuple[float, float, list[float], list[float]]:
    """Tokens, accuracy in percent, and how far their intervals reach down and up."""
    x, y = summary["mean_tokens"], 100 * summary["accuracy"]
    low_x, high_x = summary.get("mean_tokens_interval") or (x, x)
    low_y, high_y = summary.get("accuracy_interval") or (y / 100, y / 100)
    return x, y, [x - low_x, high_x - x], [max(0.0, y - 100 * low_y), max(0.0, 100 * high_y - y)]


def plot_methods(
    rows: Sequence[Mapping[str, Any]], path: str | Path, frontier: Sequence[Sequence[float]] | None = None
) -> None:
    """Draw each method's accuracy against its mean tokens, with 95 % intervals, and the model before training.

    Methods far from the others (`outer_fences`) are named below, as they would squeeze the others into a corner.

    Args:
        rows: one a method, with `method`, perhaps `setting`, `accuracy`, `mean_tokens`, their `_interval`s, and
            `before`, a summary.
        path: of the picture, PNG or SVG by its ending.
        frontier: tokens and accuracy of the corners of the best that is possible, drawn as a line.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as MplFigure

    figure = MplFigure(figsize=(9, 6), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if frontier:
        tokens, accuracy = zip(*frontier, strict=True)
        axes.plot(tokens, [100 * a for a in accuracy], color=ORANGE, label="the best that is possible")
        axes.legend(loc="lower right")
    named = [(entry_name(row), row, BLUE) for row in rows]
    points = [("before training", rows[0]["before"], GREY), *named]
    fences = [outer_fences([row[key] for row in rows]) for key in ("mean_tokens", "accuracy")]
    inside = [
        point
        for point in points
        if point[2] == GREY
        or all(low <= point[1][k] <= high for k, (low, high) in zip(("mean_tokens", "accuracy"), fences, strict=True))
    ]
    for _, found, color in inside:
        x, y = found["mean_tokens"], 100 * found["accuracy"]
        across, up = found["mean_tokens_interval"], [100 * v for v in found["accuracy_interval"]]
        axes.errorbar(
            x,
            y,
            xerr=[[x - across[0]], [across[1] - x]],
            yerr=[[y - up[0]], [up[1] - y]],
            fmt="o",
            color=color,
            ecolor=(color, 0.35),
        )
    if frontier:  # the part of it beyond the cheapest method would take half of the picture
        axes.set_xlim(left=min(found["mean_tokens_interval"][0] for _, found, _ in inside) - 0.5)
        axes.set_ylim(bottom=100 * min(found["accuracy_interval"][0] for _, found, _ in inside) - 2)
    far = [
        f"{n} ({100 * f['accuracy']:.0f} % at {f['mean_tokens']:.0f})" for n, f, c in points if (n, f, c) not in inside
    ]
    below = textwrap.fill(f"not drawn: {', '.join(far)}", 110) if far else ""
    axes.set_xlabel("\n".join(filter(None, ("mean tokens of a completion (fewer is better)", below))))
    axes.set_ylabel("accuracy, % (more is better)")
    axes.grid(alpha=0.3)
    figure.canvas.draw()  # labels are placed by where the points come to lie
    name_points(axes, {name: (found["mean_tokens"], 100 * found["accuracy"]) for name, found, _ in inside})
    figure.savefig(path, metadata={"Date": None} if str(path).endswith(".svg") else None)


def entry_name(row: Mapping[str, Any]) -> str:
    """The method, and what differs from its recipe."""
    return " ".join(filter(None, (row["method"], (row.get("setting") or "").replace("_", " "))))


def outer_fences(values: Sequence[float]) -> tuple[float, float]:
    """Tukey's: the quartiles, and three times what lies between them to either side; none for under eight values."""
    if len(values) < 8:
        return -math.inf, math.inf
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low - 3 * (high - low), high + 3 * (high - low)


def name_points(axes: Any, points: Mapping[str, tuple[float, float]]) -> None:
    """Write each point's name beside it, where no point and no other name is yet; in a crowd the first get room."""
    scale = axes.figure.dpi / 72
    dots = {name: axes.transData.transform(point) / scale for name, point in points.items()}
    left, right, low, high = (edge / scale for edge in (axes.bbox.x0, axes.bbox.x1, axes.bbox.y0, axes.bbox.y1))
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in dots.values()]
    for name, (x, y) in dots.items():
        width, height = 6.2 * len(name), 11.0
        spots = [
            (dx if dx > 0 else dx - width, dy) for reach in (6, 16, 28) for dy in (reach, -reach - 6) for dx in (6, -6)
        ]
        boxes = [(x + dx, y + dy, x + dx + width, y + dy + height) for dx, dy in spots]
        free = [
            left < x0
            and x1 < right
            and low < y0
            and y1 < high
            and not any(_overlap((x0, y0, x1, y1), t) for t in taken)
            for x0, y0, x1, y1 in boxes
        ]
        if True not in free:
            continue
        place = free.index(True)
        taken.append(boxes[place])
        far = abs(spots[place][1]) > 20
        axes.annotate(
            name,
            points[name],
            textcoords="offset points",
            xytext=spots[place],
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.5} if far else None,
        )


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
