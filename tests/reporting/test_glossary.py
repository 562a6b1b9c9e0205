"""The glossary, its page, and what people see of a number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from concise_rl.reporting.glossary import METRICS, describe, metrics_markdown
from concise_rl.reporting.progress import SHOWN

from .fake import fake_batch


def test_the_page_is_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "metrics.md"
    assert page.read_text() == metrics_markdown(), "run: python -m concise_rl.reporting.glossary > docs/metrics.md"


def test_no_cell_breaks_the_table() -> None:
    rows = [line for line in metrics_markdown().splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {7}


def test_every_metric_of_a_step_is_explained() -> None:
    from concise_rl.methods.metrics import step_metrics

    batch = fake_batch(0)
    logged = step_metrics(batch, batch.task_reward, torch.randn(batch.n_rows))
    assert logged.keys() <= METRICS.keys()
    assert SHOWN.keys() <= METRICS.keys()


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("accuracy", 0.9551, "95.5 %"),
        ("mean_tokens", 54.96, "55.0"),
        ("problems", 512.0, "512"),
        ("learning_rate", 1e-4, "0.0001"),
        ("reward", -0.25, "-0.250"),
        ("loss", float("nan"), "–"),
        ("shaper/mean_gain", 0.3, "0.300"),
    ],
)
def test_numbers_for_people(key: str, value: float, text: str) -> None:
    assert describe(key).text(value) == text


def test_every_metric_of_an_evaluation_is_explained() -> None:
    from concise_rl.evaluation import EvaluationRow, summarize
    from concise_rl.reporting.summary import MEASURES, summary_rows
    from concise_rl.verifiers import Verdict

    columns = {"difficulty": 1, "oracle_tokens": 4}
    rows = [
        EvaluationRow("p", k, "q", "a", "wait", 9, 3, False, Verdict.of(k % 2 == 0), columns, k, repetition=0.5)
        for k in range(4)
    ]
    summary = summarize(rows)
    numbers = {key for key in summary if not key.endswith("_interval")} - {"by_difficulty"}
    assert all(describe(key).source == "evaluation" or key in METRICS for key in numbers), numbers
    table = summary_rows({"m": summary}, keys=MEASURES)
    assert ["pass@2", "83.3 % [14.4, 99.3]"] in table
    assert ["majority@4", "50.0 % [5.5, 94.5]"] in table
    assert all(cell != "–" for line in table for cell in line)
