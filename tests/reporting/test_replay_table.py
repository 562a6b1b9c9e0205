"""The replay table in its three forms."""

from __future__ import annotations

import csv
import io

import pytest
from rich.console import Console

from concise_rl.errors import UserError
from concise_rl.reporting.replay_table import replay_markdown, show_table, write_csv

ROWS = [
    {"method": "hapo [x|y]", "mean_reward": 0.51234, "sign_flip_frac": 0.125, "rows": 128},
    {"method": "grpo", "mean_reward": float("nan"), "sign_flip_frac": 0.0, "note": "plain"},
]


def test_markdown() -> None:
    assert replay_markdown(ROWS).splitlines() == [
        "| method | mean reward | sign flip | rows | note |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| hapo [x\\|y] | 0.512 | 12.5 % | 128 | – |",
        "| grpo | – | 0.0 % | – | plain |",
    ]


def test_terminal_and_csv(tmp_path) -> None:
    out = io.StringIO()
    show_table(ROWS, title="80 steps", console=Console(file=out, width=100))
    assert "hapo [x|y]" in out.getvalue()
    assert "12.5 %" in out.getvalue()
    write_csv(ROWS, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open() as file:
        first, second = csv.DictReader(file)
    assert float(first["mean_reward"]) == 0.51234
    assert second["rows"] == ""
    with pytest.raises(UserError, match="cannot write"):
        write_csv(ROWS, tmp_path / "nowhere" / "rows.csv")
