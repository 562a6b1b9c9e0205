"""`concise-rl sample` and `select` from the command line, on the embedded model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from concise_rl.commands import config
from concise_rl.commands.sample import check_quota, short_of_quota
from concise_rl.data import Prompt
from concise_rl.errors import UserError

SMALL = ["evaluation.problems=12", "evaluation.samples=2", "evaluation.max_new_tokens=40"]


def cli(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "concise_rl.cli", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def test_sampled_twice_is_sampled_once_and_selected(tmp_path):
    edits = "edits=[none,{effort: {share: 1}}]"
    done = cli(tmp_path, "sample", *SMALL, edits)
    assert done.returncode == 0, done.stderr
    files = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert files == ["PromptEffort-1.jsonl", "plain.jsonl"]
    before = (tmp_path / "samples" / "plain.jsonl").read_bytes()
    assert len(before.splitlines()) == 25
    again = cli(tmp_path, "sample", *SMALL, edits)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "samples" / "plain.jsonl").read_bytes() == before
    chosen = cli(tmp_path, "select", "long2short", "samples", "--out", "rows.jsonl")
    assert chosen.returncode == 0, chosen.stderr
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert rows
    assert all(set(row) >= {"prompt", "completion"} and "effort" not in row["prompt"] for row in rows)
    bad = cli(tmp_path, "select", "long2short", "samples", "kid=dpo", "--out", "x.jsonl")
    assert (bad.returncode, bad.stderr) == (2, "error: selector.long2short.kid is not known; did you mean kind?\n")


def test_a_quota_asks_for_more_where_right_answers_are_few():
    class Row:
        def __init__(self, problem, correct):
            self.prompt_id, self.correct = problem.id, correct
            self.verdict = type("V", (), {"scorable": True})

    easy, hard = Prompt.of("easy", "1"), Prompt.of("hard", "2")
    rows = [Row(easy, True)] * 4 + [Row(hard, True)] + [Row(hard, False)] * 3
    composed = config.compose(
        ["quota.kind=prop2diff", "quota.k=4", "quota.ceiling=8", "evaluation.samples=4"], "sample"
    )
    assert short_of_quota(composed, [easy, hard], rows) == [hard]
    assert short_of_quota(composed, [easy, hard], rows + [Row(hard, False)] * 4) == [], "the ceiling"
    assert short_of_quota(config.compose([], "sample"), [easy, hard], rows) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["quota.kind=some"], "quota.kind='some'"),
        (["quota.kind=uniform", "quota.ceiling=4"], "a ceiling of at least evaluation.samples=8"),
        (["edits=[none,none]"], "edits names none twice"),
        (["edits=[]"], r"edits=\[\] samples nothing"),
        (["edits=[{effort: {lvl: low}}]"], "effort.lvl is not known; did you mean level"),
        (["edits=[efort]"], "edit='efort' is not known; did you mean effort"),
    ],
)
def test_refusals(overrides, message):
    composed = config.compose(overrides, "sample")
    check = check_quota if overrides[0].startswith("quota") else config.edits_of
    with pytest.raises(UserError, match=message):
        check(composed)
