"""A picture, said once: its series as numbers, drawn by plotly for the page and by matplotlib for papers.

A `Chart` knows nothing of either library. Colours are those of Okabe and Ito, told apart by colour-blind readers; where
there are more styles than colours, the mark and the dash change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from concise_rl.errors import printable
from concise_rl.reporting.plots import FEW_STEPS, Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#A6761D")
INK, NEUTRAL = "#4A4A4A", "#8A8A8A"
"""Of what is no run: a front, a baseline, a bound."""

_SYMBOLS = (("circle", "o"), ("diamond", "D"), ("square", "s"), ("triangle-up", "^"))
_DASHES = (("solid", "-"), ("dash", "--"), ("dot", ":"), ("dashdot", "-."))

_SIDES = (("top right", 4, "bottom"), ("bottom right", -4, "top"))
"""Where names stand beside their points, in turn, so that neighbours' do not lie on one another."""

Kind = Literal["points", "dots", "line", "step"]
Intervals = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """Points or a line.

    Attributes:
        name: for the legend and under the pointer.
        x, y: as shown, percent already times 100; nan leaves a gap.
        style: place in the palette, None for neutral.
        kind: `dots` are many small points; `step` holds each y until the next x.
        x_intervals, y_intervals: ends of the bars of points, or of the band about a line (y alone), one a point.
        run: number of the run it belongs to, which the page can hide; None belongs to all.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: int | None = None
    kind: Kind = "line"
    x_intervals: Intervals | None = None
    y_intervals: Intervals | None = None
    run: int | None = None
    group: str = ""
    """Name in a printed legend, shared by the runs of a method; without it the series has its own."""


@dataclass(frozen=True)
class Boxes:
    """A distribution a row, drawn along x: percentiles 5, 25, 50, 75, 95 of each named row, a run's number each."""

    name: str
    rows: Sequence[str]
    percentiles: Sequence[Sequence[float]]
    runs: Sequence[int]
    filled: bool = True
    """Colours tell methods apart, so what tells distributions apart is whether a box is filled."""


@dataclass(frozen=True)
class Chart:
    """A picture with its axes. `stem` names its file."""

    stem: str
    title: str
    x_label: str
    y_label: str
    series: Sequence[Series | Boxes]
    note: str = ""
    log_x: bool = False
    log_y: bool = False
    named_points: bool = False
    """Write each point's name beside it."""
    whole_x: bool = False
    """x counts something: no mark between two numbers."""


def to_plotly(chart: Chart) -> Figure:
    """The chart as `{"title", "note", "data", "layout", "rows"}` for the page, which sets the colours of text."""
    data: list[dict[str, Any]] = []
    for place, series in enumerate(chart.series):
        data += [_plotly_boxes(series)] if isinstance(series, Boxes) else _plotly_series(series, chart, place)
    layout: dict[str, Any] = {
        "xaxis": _plotly_axis(chart.x_label, chart.log_x) | _plotly_whole(chart),
        "yaxis": _plotly_axis(chart.y_label, chart.log_y),
        "showlegend": any(isinstance(series, Boxes) for series in chart.series),
        "boxmode": "group",
    }
    boxes = [series for series in chart.series if isinstance(series, Boxes)]
    if boxes:
        # Lists read from the top, axes from the bottom; a category axis would also guess numbers from names.
        layout["yaxis"] |= {"type": "category", "autorange": "reversed"}
        layout["xaxis"]["rangemode"] = "tozero"
    return {
        "title": chart.title,
        "note": chart.note,
        "data": data,
        "layout": layout,
        "rows": max((len(series.rows) for series in boxes), default=0),
    }


def draw(chart: Chart, path: str | Path) -> None:
    """Write the chart as a file, PNG or SVG by the path's ending."""
    # Figures made without pyplot need no display and are freed with their last reference.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as MplFigure
    from matplotlib.ticker import MaxNLocator

    rows = max((len(series.rows) for series in chart.series if isinstance(series, Boxes)), default=0)
    figure = MplFigure(figsize=(8, 5 if not rows else 1.6 + 0.42 * rows), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, series in enumerate(chart.series):
        if isinstance(series, Boxes):
            _draw_boxes(axes, series, number, len(chart.series))
        else:
            _draw_series(axes, series, chart, number)
    axes.set(xlabel=_plain(chart.x_label), ylabel=_plain(chart.y_label), title=_plain(chart.title))
    if chart.log_x:
        _log_scale(axes, axes.xaxis, "x")
    if chart.log_y:
        _log_scale(axes, axes.yaxis, "y")
    if rows:
        axes.invert_yaxis()
        axes.set_xlim(left=0)
    if chart.whole_x:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    handles, names = axes.get_legend_handles_labels()
    legend = dict(zip(names, handles, strict=True))
    if len(legend) > 1 and not chart.named_points:
        figure.legend(list(legend.values()), list(legend), loc="outside lower center", ncols=4, fontsize=8)
    # Nothing of the day or the machine in the file: the same numbers give the same bytes.
    with rc_context({"svg.hashsalt": chart.stem}):
        figure.savefig(path, metadata={"Date": None} if str(path).endswith(".svg") else None)


def colour(style: int | None) -> str:
    return NEUTRAL if style is None else COLOURS[style % len(COLOURS)]


def variant(style: int | None) -> int:
    """How often the colours have been used up before this style: another mark and dash then tells it apart."""
    return 0 if style is None else style // len(COLOURS) % len(_DASHES)


def _label(text: str) -> str:
    """Text for plotly, which reads tags in it."""
    return escape(printable(text), quote=False)


def _plain(text: str) -> str:
    """Text for matplotlib, which reads formulas between dollar signs."""
    return printable(text).replace("$", r"\$")


# --- plotly -----------------------------------------------------------------------------------------------------------


def _plotly_axis(label: str, log: bool) -> dict[str, Any]:
    title = {"text": _label(label)}
    if not log:
        return {"title": title, "type": "linear"}
    # Left alone, plotly writes a bare 2 for 20.
    marks = [digit * 10.0**power for power in range(-6, 12) for digit in (1, 2, 5)]
    return {"title": title, "type": "log", "tickvals": marks, "ticktext": [f"{mark:.10g}" for mark in marks]}


def _plotly_whole(chart: Chart) -> dict[str, Any]:
    """Marks at each number where there are few; a longer axis has them at whole numbers by itself."""
    xs = [x for series in chart.series if isinstance(series, Series) for x in series.x]
    return {"dtick": 1} if chart.whole_x and xs and max(xs) - min(xs) <= FEW_STEPS else {}


def _plotly_series(series: Series, chart: Chart, place: int) -> list[dict[str, Any]]:
    points = series.kind in ("points", "dots")
    trace: dict[str, Any] = {
        "type": "scatter",
        "name": _label(series.name),
        "x": list(series.x),
        "y": list(series.y),
        "meta": series.run,
        "mode": ("markers+text" if chart.named_points else "markers") if points else "lines",
        "hovertemplate": f"<b>{_label(series.name)}</b><br>%{{x:.4~g}}<br>%{{y:.4~g}}<extra></extra>",
    }
    if points:
        size = 9 if series.kind == "points" else 3
        trace["marker"] = {"color": colour(series.style), "symbol": _SYMBOLS[variant(series.style)][0], "size": size}
        if chart.named_points:
            side = _SIDES[place % len(_SIDES)][0]
            trace |= {"text": [_label(series.name)] * len(series.x), "textposition": side}
        for axis, centres, intervals in (("x", series.x, series.x_intervals), ("y", series.y, series.y_intervals)):
            if intervals:
                below, above = _reach(centres, intervals)
                trace[f"error_{axis}"] = {
                    "type": "data", "symmetric": False, "arrayminus": below, "array": above,
                    "color": colour(series.style), "thickness": 1, "width": 3,
                }  # fmt: skip
        return [trace]
    trace["line"] = {"color": colour(series.style), "dash": _DASHES[variant(series.style)][0], "width": 2}
    if series.kind == "step":
        trace["line"]["shape"] = "hv"
    return [*_plotly_band(series), trace]


def _plotly_band(series: Series) -> list[dict[str, Any]]:
    if not series.y_intervals:
        return []
    low, high = zip(*series.y_intervals, strict=True)
    band = {
        "type": "scatter", "x": [*series.x, *reversed(series.x)], "y": [*high, *reversed(low)], "fill": "toself",
        "fillcolor": colour(series.style), "opacity": 0.15, "mode": "none", "hoverinfo": "skip", "meta": series.run,
    }  # fmt: skip
    return [band]


def _plotly_boxes(boxes: Boxes) -> dict[str, Any]:
    low, first, middle, third, high = zip(*boxes.percentiles, strict=True)
    return {
        "type": "box", "orientation": "h", "name": boxes.name, "y": [_label(row) for row in boxes.rows],
        "lowerfence": low, "q1": first, "median": middle, "q3": third, "upperfence": high,
        "fillcolor": "rgba(138,138,138,0.55)" if boxes.filled else "rgba(0,0,0,0)", "marker": {"color": NEUTRAL},
        "line": {"width": 1.5}, "meta": list(boxes.runs),
    }  # fmt: skip


# --- matplotlib -------------------------------------------------------------------------------------------------------


def _draw_series(axes: Axes, series: Series, chart: Chart, place: int) -> None:
    look, ink = variant(series.style), colour(series.style)
    name, group = _plain(series.name), _plain(series.group or series.name)
    if series.kind == "dots":
        axes.scatter(series.x, series.y, s=9, color=ink, alpha=0.5, linewidths=0)
        return
    if series.kind == "points":
        axes.errorbar(
            series.x,
            series.y,
            xerr=_reach(series.x, series.x_intervals) if series.x_intervals else None,
            yerr=_reach(series.y, series.y_intervals) if series.y_intervals else None,
            fmt=_SYMBOLS[look][1],
            color=ink,
            markersize=5,
            linewidth=0.8,
            label=group,
        )
        for x, y in zip(series.x, series.y, strict=True) if chart.named_points else ():
            _, up, edge = _SIDES[place % len(_SIDES)]
            axes.annotate(name, (x, y), textcoords="offset points", xytext=(5, up), va=edge, fontsize=7)
        return
    drawn = "steps-post" if series.kind == "step" else "default"
    axes.plot(series.x, series.y, color=ink, linestyle=_DASHES[look][1], drawstyle=drawn, linewidth=1.5, label=group)
    if series.y_intervals:
        low, high = zip(*series.y_intervals, strict=True)
        axes.fill_between(series.x, low, high, color=ink, alpha=0.15, linewidth=0)


def _log_scale(axes: Axes, axis: Axis, which: Literal["x", "y"]) -> None:
    """Marks at 1, 2 and 5 of each decade, written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def _draw_boxes(axes: Axes, boxes: Boxes, number: int, beside: int) -> None:
    keys = ("whislo", "q1", "med", "q3", "whishi")
    stats = [dict(zip(keys, row, strict=True)) for row in boxes.percentiles]
    width = 0.8 / beside
    places = [row + (number - (beside - 1) / 2) * width for row in range(len(boxes.rows))]
    pens: dict[str, Any] = {f"{part}props": {"color": INK} for part in ("whisker", "cap", "median")}
    box = {"facecolor": "#C4C4C4" if boxes.filled else "none", "edgecolor": INK}
    axes.bxp(
        stats, positions=places, widths=0.8 * width, orientation="horizontal", showfliers=False, patch_artist=True,
        boxprops=box, **pens,
    )  # fmt: skip
    axes.bar([0], [0], label=boxes.name, facecolor=box["facecolor"], edgecolor=box["edgecolor"])
    axes.set_yticks(range(len(boxes.rows)), [_plain(row) for row in boxes.rows])


def _reach(centres: Sequence[float], intervals: Intervals) -> list[list[float]]:
    """How far the intervals reach down and up from their centres."""
    pairs = list(zip(centres, intervals, strict=True))
    return [[max(0.0, x - low) for x, (low, _) in pairs], [max(0.0, high - x) for x, (_, high) in pairs]]
