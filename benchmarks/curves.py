"""Draws the logged metrics of several runs side by side: the picture of docs/healthy_run.md.

python benchmarks/curves.py healthy=runs/hapo 'too much pressure'=runs/pressed collapsed=runs/collapsed
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from concise_rl.reporting.glossary import describe
from concise_rl.reporting.plots import BLUE, smooth, smoothing_width
from concise_rl.reporting.run_log import read_metrics

KEYS = ("accuracy", "mean_tokens", "entropy", "zero_variance_frac", "wiped_correct_frac", "grad_norm")


def draw(runs: dict[str, Path], path: Path) -> None:
    """A column a run, a row a metric; thin what each step logged, thick its moving mean."""
    figure = Figure(figsize=(3.6 * len(runs), 1.7 * len(KEYS)), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(KEYS), len(runs), sharex="col", squeeze=False)
    for place, (name, folder) in enumerate(runs.items()):
        lines = read_metrics(folder)
        steps = [line["step"] for line in lines]
        for row, key in enumerate(KEYS):
            metric, ax = describe(key), axes[row][place]
            scale = 100 if metric.unit == "%" else 1
            values = [scale * line.get(key, float("nan")) for line in lines]
            ax.plot(steps, values, color=BLUE, alpha=0.35, linewidth=1)
            ax.plot(steps, smooth(values, smoothing_width(len(values))), color=BLUE, linewidth=2)
            ax.grid(alpha=0.25)
            ax.set_ylim(*((-4, 104) if scale == 100 else (0, None)))
            if place == 0:
                label = f"{metric.label}, %" if scale == 100 else metric.label
                ax.set_ylabel(textwrap.fill(label, 16), fontsize=9)
        axes[0][place].set_title(name)
        axes[-1][place].set_xlabel("optimizer step")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN", help="heading and run folder")
    parser.add_argument("--out", type=Path, default=Path("docs/results/curves.png"))
    options = parser.parse_args()
    draw({name: Path(folder) for name, _, folder in (item.partition("=") for item in options.runs)}, options.out)


if __name__ == "__main__":
    main()
