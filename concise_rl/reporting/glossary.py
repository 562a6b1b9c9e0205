"""What every logged number means, for displays and for docs/metrics.md; the table is `metric_table.METRICS`."""

from __future__ import annotations

from dataclasses import replace

from concise_rl.reporting.metric import Metric
from concise_rl.reporting.metric_table import METRICS

__all__ = ["METRICS", "Metric", "describe", "metrics_markdown"]


def describe(key: str) -> Metric:
    """The metric of that key, `pass_at_8` being that of `pass_at_k` with its k.

    An unknown one, such as a component's, is its own label, and `..._frac` a fraction.
    """
    if key in METRICS:
        return METRICS[key]
    stem, _, k = key.rpartition("_")
    if k.isdecimal() and f"{stem}_k" in METRICS:
        family = METRICS[f"{stem}_k"]
        return replace(family, key=key, label=family.label.replace("@k", f"@{k}"))
    label, unit = key.removesuffix("_frac").replace("_", " "), "%" if key.endswith("_frac") else ""
    return Metric(key, label, unit, "logged by a component of the method", "method")


def metrics_markdown() -> str:
    """docs/metrics.md, whole."""
    lines = [
        "# Metrics",
        "",
        "Made by `python -m concise_rl.reporting.glossary > docs/metrics.md`; change the table in metric_table.py, not "
        "here.",
        "",
        "Axes: P prompts, G completions a prompt, N = P x G rows. Lengths are sampled tokens including EOS; entropies",
        "are nats at the sampling temperature. A unit of % means that the file stores the fraction. A component's own",
        "metrics carry its prefix (`shaper/...`) and are explained on its page.",
        "",
        "| key | what people see | unit | definition | made by | better |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{m.key}` | {m.label} | {m.unit or '-'} | {m.definition} | {m.source} | {m.better or '-'} |"
        for m in METRICS.values()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(metrics_markdown(), end="")
