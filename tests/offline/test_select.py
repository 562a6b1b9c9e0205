"""From stored samples to rows that TRL takes: each completion once, the problem's own prompt, and refusals by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from concise_rl.errors import DataError, UserError
from concise_rl.evaluation import store as storage
from concise_rl.evaluation.row import EvaluationRow
from concise_rl.methods import load_selector
from concise_rl.offline.select import report_path, select
from concise_rl.offline.store import SampleStore
from concise_rl.verifiers import Verdict

SETTINGS = {"model": "m", "weights": "w", "verifier": {"class": "Exact"}, "tokenizer": "9 tokens (a)", "samples": 2}
LOW = {"edit": {"class": "PromptEffort", "level": "low"}}


def row(problem: str, sample: int, text: str, length: int, correct: bool, **others) -> EvaluationRow:
    fields = {"prompt": f"{problem}=", "columns": {"difficulty": 2}, "seed": 1000 * sample + length} | others
    verdict = Verdict(correct, reward=float(correct))
    return EvaluationRow(problem, sample, reference="7", completion=text, length=length, think_length=0,
                         truncated=False, verdict=verdict, **fields)  # fmt: skip


ROWS = [
    row("a", 0, "long and right", 30, True),
    row("a", 1, "short", 10, True),
    row("b", 0, "wrong", 4, False),
    row("b", 1, "right", 8, True),
    row("c", 0, "no", 5, False),
]


def written(path: Path, rows=ROWS, **settings) -> Path:
    storage.write(path, SETTINGS | settings, rows)
    return path


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_shortest_right_answers_as_rows(tmp_path):
    store = SampleStore([written(tmp_path / "plain.jsonl")])
    report = select(store, load_selector("long2short"), tmp_path / "sft.jsonl")
    assert [(r["prompt"], r["completion"], r["tokens"]) for r in read(tmp_path / "sft.jsonl")] == [
        ("a=", "short", 10), ("b=", "right", 8)
    ]  # fmt: skip
    assert json.loads(report_path(tmp_path / "sft.jsonl").read_text()) == report
    assert (report["problems"], report["problems_kept"], report["problems_without_right"]) == (3, 2, 1)
    assert (report["tokens_right"], report["tokens_kept"]) == (16, 9)
    assert report["by_difficulty"][0]["accuracy"] == 0.6


def test_pairs_and_parquet(tmp_path):
    from datasets import load_dataset

    store = SampleStore([written(tmp_path / "plain.jsonl")])
    select(store, load_selector("long2short", {"kind": "dpo"}), tmp_path / "dpo.parquet")
    (pair,) = load_dataset("parquet", data_files=str(tmp_path / "dpo.parquet"), split="train")
    assert (pair["prompt"], pair["chosen"], pair["rejected"]) == ("a=", "short", "long and right")
    assert (pair["chosen_tokens"], pair["rejected_tokens"]) == (10, 30)


def test_an_effort_is_answered_without_being_asked_for(tmp_path):
    """What was sampled under an edit is tuned on under the problem's own prompt, unless asked otherwise."""
    written(tmp_path / "plain.jsonl")
    written(tmp_path / "low.jsonl", [row("a", 0, "tiny", 3, True, prompt="a, briefly=")], **LOW)
    store = SampleStore([tmp_path])
    select(store, load_selector("tops"), tmp_path / "rows.jsonl")
    assert read(tmp_path / "rows.jsonl")[0] | {} == {
        "prompt": "a=", "completion": "tiny", "problem": "a", "tokens": 3, "truncated": False
    }  # fmt: skip
    select(store, load_selector("tops"), tmp_path / "asked.jsonl", prompts="as_asked")
    assert read(tmp_path / "asked.jsonl")[0]["prompt"] == "a, briefly="
    with pytest.raises(UserError, match=r"sampled with efforts alone.*prompts=as_asked"):
        select(SampleStore([tmp_path / "low.jsonl"]), load_selector("tops"), tmp_path / "none.jsonl")
    assert not (tmp_path / "none.jsonl").exists()


def test_weights_stand_in_the_rows(tmp_path):
    store = SampleStore([written(tmp_path / "plain.jsonl")])
    select(store, load_selector("o1_pruner"), tmp_path / "rows.jsonl")
    assert sum(r["weight"] for r in read(tmp_path / "rows.jsonl")) == pytest.approx(0)


def test_several_machines_and_each_completion_once(tmp_path):
    written(tmp_path / "one.jsonl")
    written(tmp_path / "two.jsonl", [ROWS[0], row("a", 0, "another seed", 6, True, seed=99)], seed=2)
    store = SampleStore([tmp_path / "one.jsonl", tmp_path / "two.jsonl"])
    assert store.repeated == 1
    assert len(store.samples) == 6
    assert [s.number for s in store.samples if s.problem == "a"] == [0, 1, 2]


def test_refusals(tmp_path):
    plain = written(tmp_path / "plain.jsonl")
    for name, value in (("tokenizer", "5 tokens (b)"), ("verifier", {"class": "Other"})):
        other = written(tmp_path / "other.jsonl", **{name: value})
        with pytest.raises(UserError, match=rf"other.jsonl was made with {name}="):
            SampleStore([plain, other])
    with pytest.raises(UserError, match="no such file or folder"):
        SampleStore([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no \.jsonl file"):
        SampleStore([tmp_path / "empty"])
    torn = tmp_path / "torn.jsonl"
    torn.write_bytes(plain.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"torn.jsonl, line 6 is damaged \(cut short\)"):
        SampleStore([torn])
    with pytest.raises(UserError, match=r"AllRight selected none of 5 samples of 3 problems, 3 of them right"):
        select(SampleStore([plain]), load_selector("all_right", {"limit": 1}), tmp_path / "x.jsonl")
    twins = written(tmp_path / "twins.jsonl", [row("a", 0, "same", 4, True), row("a", 1, "same", 9, False)])
    with pytest.raises(UserError, match="both sides of a pair are 'same'"):
        select(SampleStore([twins]), load_selector("tops", {"kind": "dpo"}), tmp_path / "x.jsonl")
    with pytest.raises(UserError, match=r"name a \.jsonl or a \.parquet file"):
        select(SampleStore([plain]), load_selector("tops"), tmp_path / "x.csv")
    assert not (tmp_path / "x.jsonl").exists()
