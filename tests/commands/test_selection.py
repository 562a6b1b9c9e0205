"""`concise-rl sample` and `concise-rl select`, as a user runs them on the embedded reasoner; and what each refuses."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from concise_rl.commands import config as configuration
from concise_rl.commands.sample import edits_of, plain, quota_of
from concise_rl.commands.select import paths_of
from concise_rl.errors import UserError
from concise_rl.methods.recipes import selector_of

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / "long2short.md", *(ROOT / "docs" / "methods").glob("[a-z]*.md")]
COMMANDS = [
    (page.stem, line.strip())
    for page in PAGES
    for line in page.read_text().replace("\\\n", " ").splitlines()
    if line.startswith(("    concise-rl sample", "    concise-rl select"))
]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    return subprocess.run(
        [sys.executable, "-m", "concise_rl.cli", *arguments], capture_output=True, text=True, cwd=cwd, env=environment
    )


def test_from_samples_to_rows(tmp_path):
    asked = ("sample", "evaluation.problems=8", "evaluation.samples=2", "store=runs/s.jsonl")
    done = run(*asked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "16 completions" in done.stdout
    stored = (tmp_path / "runs" / "s.jsonl").read_bytes()
    again = run(*asked, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "runs" / "s.jsonl").read_bytes() == stored, "each completion is sampled once"

    done = run("select", "stores=[runs/*.jsonl]", "out=out/rows.jsonl", "data=chain_sum", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    report = json.loads((tmp_path / "out" / "rows.jsonl.report.json").read_text())
    assert len(rows) == report["rows"] == report["problems_kept"]
    assert all(row["prompt"].endswith("=") and "</think>" in row["completion"] for row in rows)
    assert report["tokens_kept"]["mean"] <= report["tokens_right"]["mean"]
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if not line.startswith("written"))

    for overrides, message in (
        (["stores=[runs/*.jsonl]", "data=which_sum"], "8 problems that are not in data="),
        (["stores=[runs/none*.jsonl]"], "no file is named runs/none*.jsonl"),
        (["selector=tops_seed", "stores=runs/s.jsonl"], "selects nothing (8 problems: not sampled at 3 efforts)"),
        (["selector=topz", "stores=runs/s.jsonl"], "selector=topz is not known; did you mean tops?"),
        (["selector=dart_uniform", "selector.dart.mozt=1", "stores=runs/s.jsonl"], "did you mean most?"),
        (["truncated=no", "stores=runs/s.jsonl"], "truncated='no': choose one of wrong, as_is, mask"),
    ):
        done = run("select", *overrides, "out=out/never.jsonl", cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert message in done.stderr
    assert not (tmp_path / "out" / "never.jsonl").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["max_samples=9"], "max_samples=9 does nothing without until="),
        (["until=tops", "max_samples=9"], "until=tops has no quota"),
        (["until=dart_uniform"], "max_samples=None: until=dart_uniform needs a ceiling"),
        (["until=dart_uniform", "max_samples=4"], "max_samples=4"),
        (["until=dart_uniform", "max_samples=40", "evaluation.samples=4"], "set evaluation.samples=8"),
        (["until={selector: dart_uniform, mozt: 4}", "max_samples=40"], "mozt is not known"),
        (["until=darts", "max_samples=40"], "selector=darts is not known"),
    ],
)
def test_a_quota_is_refused_by_name(overrides, message):
    with pytest.raises(UserError, match=re.escape(message)):
        quota_of(configuration.compose(overrides, "sample"))


def test_edits_are_named_by_all_their_fields():
    assert list(edits_of("efforts")) == [f"effort(level={level}, share=1.0)" for level in ("low", "medium", "high")]
    assert next(iter(edits_of([{"edit": "effort", "share": 0.25}, "l1_prompt"]))) == "effort(level=low, share=0.25)"
    for entries, message in (
        (["efort"], "did you mean effort?"),
        ([{"edit": "effort", "levle": "low"}], "did you mean level?"),
        (["effort", "effort"], "stands twice"),
        (["nowhere.py:Edit"], "there is no file nowhere.py"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            edits_of(entries)


def test_an_edit_of_ones_own_goes_by_path(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "adding_a_method.md").read_text()
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if b.startswith("# my_edit.py"))
    (tmp_path / "my_edit.py").write_text(block)
    monkeypatch.chdir(tmp_path)
    assert list(edits_of([{"edit": "my_edit.py:Brief", "words": " Short!"}])) == ["Brief(words= Short!)"]


def test_patterns_stand_for_files_in_order(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "c.txt"):
        (tmp_path / name).touch()
    found = paths_of([f"{tmp_path}/*.jsonl", f"{tmp_path}/a.jsonl"])
    assert found == [f"{tmp_path}/a.jsonl", f"{tmp_path}/b.jsonl"]


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_the_commands_of_the_pages_compose(page, command):
    words = shlex.split(command, comments=True)
    composed = configuration.compose(words[2:], words[1])
    if words[1] == "sample":
        quota_of(composed)
        edits_of(plain(composed.edits))
    elif "my_selector" not in command:
        selector_of(plain(composed.select.selector), plain(composed.selector))
