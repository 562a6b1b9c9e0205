"""The replay table in its three forms."""

from __future__ import annotations

import csv
import io

import pytest
from rich.console import Console

from concise_rl import cli
from concise_rl.errors import UserError
from concise_rl.evaluation.replay import replay
from concise_rl.methods import load_method
from concise_rl.reporting.replay_table import replay_markdown, show_replay, write_csv, write_rows
from concise_rl.reporting.run_log import RunLog

from .fake import fake_batch, fake_run, feed

ROWS = [
    {"method": "hapo [x|y]", "reward_correct": 0.51234, "flipped_correct_frac": 0.125, "rows": 128},
    {"method": "grpo", "reward_correct": float("nan"), "flipped_correct_frac": 0.0, "note": "plain"},
]


def test_markdown() -> None:
    assert replay_markdown(ROWS).splitlines() == [
        "| method | reward if correct | sign flips | rows | note |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| hapo [x\\|y] | 0.512 | 12.5 % | 128 | – |",
        "| grpo | – | 0.0 % | – | plain |",
    ]


def test_a_replay_in_the_terminal_and_as_csv(tmp_path) -> None:
    batches = [(fake_batch(seed, step=seed), None) for seed in range(3)]
    result = replay(batches, {"[red]grpo": load_method("grpo"), "hapo": load_method("hapo")})
    out = io.StringIO()
    show_replay(result, console=Console(file=out, width=160))
    text = out.getvalue()
    assert "36 completions of 3 steps" in text
    assert "[red]grpo" in text
    assert "sign flips" in text
    assert "as sampled" not in text
    write_rows(result, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 72
    assert [float(row["credit"]) for row in rows] == [row["credit"] for row in result.rows]
    told = io.StringIO()
    show_replay(
        replay(batches, {name: load_method(name) for name in ("pools", "dot", "grpo")}), console=Console(file=told)
    )
    assert told.getvalue().endswith("in sampling - pools: curriculum.pools; dot: cut.dot.\n")
    with pytest.raises(UserError, match="cannot write"):
        write_csv(ROWS, tmp_path / "nowhere" / "rows.csv")


def test_the_command_tells_what_it_took_as_sampled(tmp_path, capsys) -> None:
    feed(RunLog(tmp_path), list(fake_run(3)))
    cli.replay([str(tmp_path), "grpo", "dot"])
    said = capsys.readouterr().out
    assert "as in this run" in said
    assert said.endswith("in sampling - dot: cut.dot.\n")
