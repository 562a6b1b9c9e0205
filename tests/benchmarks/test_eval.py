"""`concise-rl eval`: recipes, several benchmarks in a call, what it leaves behind, and what bad input gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from concise_rl.assets import TINY
from concise_rl.commands import config
from concise_rl.commands.evaluate import default_folder, load_backend, planned
from concise_rl.errors import DataError, UserError
from concise_rl.evaluation import Evaluation
from concise_rl.methods.registry import RECIPES
from concise_rl.model.loading import load_test
from concise_rl.testbeds import ChainSum

ROOT = Path(__file__).parents[2]
NEEDS_PATH = {"file", "yap"}


def tasks(*overrides: str):
    return planned(config.compose(list(overrides), "eval"), "chosen", overrides)


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def evaluate(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "concise_rl.cli", "eval", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "120", "HF_HUB_OFFLINE": "1"},
        check=False,
    )


def test_every_recipe_is_a_benchmark_and_has_a_line_in_the_docs():
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    for recipe in (RECIPES / "benchmark").glob("*.yaml"):
        path = ["benchmark.path=x"] if recipe.stem in NEEDS_PATH else []
        (task,) = tasks(f"benchmark={recipe.stem}", *path)
        assert task.config.benchmark.hub or path
        assert callable(task.verifier)
        assert f"| `{recipe.stem}` |" in page


def test_the_default_is_the_embedded_task():
    (task,) = tasks()
    assert isinstance(task.source, ChainSum)
    assert task.config.evaluation.problems is None
    assert len(load_test(task.config, task.source, task.verifier)) == 512


def test_several_benchmarks_keep_their_own_settings(tmp_path):
    first, second, third = tasks(
        "benchmarks=[minerva_math,{benchmark: mawps, path: a.jsonl, name: addsub},mawps]", "evaluation.samples=3"
    )
    assert [task.name for task in (first, second, third)] == ["minerva_math", "addsub", "mawps"]
    assert first.verifier.relative_tolerance == 0.01
    assert (second.source.path, third.source.path) == ("a.jsonl", None)
    assert {task.config.evaluation.samples for task in (first, second, third)} == {3}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["benchmarks=[gsm8k]", "benchmark=svamp"], "benchmark=svamp and benchmarks= are both given"),
        (["benchmarks=[gsm8k]", "benchmark.seed=1"], "benchmark.seed=1 and benchmarks= are both given"),
        (["benchmarks=[gsm8k,gsm8k]"], "names gsm8k twice"),
        (["benchmarks=[gsm9k]"], "benchmark=gsm9k is not known; did you mean gsm8k"),
        (["benchmarks=[{path: x}]"], "write a name"),
        (["benchmarks=[{benchmark: gsm8k, pth: x}]"], "has no field 'pth'; did you mean path?"),
        (["benchmark=file"], "benchmark.path is empty"),
        (["benchmark=gsm8k", "benchmark.verifier=final"], "verifier='final' is not known"),
    ],
)
def test_a_wrong_choice_is_named(overrides, message):
    with pytest.raises(UserError, match=message):
        tasks(*overrides)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "own.jsonl is empty"),
        ([{"question": "1+1?", "answer": 2}, {"question": "2+2?"}], "own.jsonl line 2 has no column 'answer'"),
        ([{"question": "1+1?", "answer": " "}], "line 1: column 'answer' is empty"),
        (
            [{"question": "1+1?", "answer": 2}, {"question": "Who?", "answer": "nobody"}],
            r"'Who\?' .*no number in the ref",
        ),
    ],
)
def test_a_bad_file_is_named_with_its_line_or_question(tmp_path, rows, message):
    path = write(tmp_path / "own.jsonl", *rows)
    (task,) = tasks("benchmark=file", f"benchmark.path={path}", "benchmark.verifier=final_number")
    with pytest.raises(DataError, match=message):
        load_test(task.config, task.source, task.verifier)


def test_folders_tell_checkpoints_apart():
    names = [
        str(default_folder(config.compose(overrides, "eval")))
        for overrides in (
            [],
            ["model.path=runs/demo/model"],
            ["mode=forced", "mode.budget=64"],
            ["backend=http", "backend.base_url=http://x", "backend.model=org/served"],
        )
    ]
    assert names == [
        "runs/eval-embedded-tiny",
        "runs/eval-runs-demo-model",
        "runs/eval-embedded-tiny-forced-64",
        "runs/eval-org-served",
    ]


def test_a_server_that_applies_its_own_template_needs_no_tokenizer():
    chosen = ["backend=http", "backend.base_url=http://localhost:8000/v1", "backend.model=served"]
    backend, tokenizer = load_backend(config.compose([*chosen, "backend.endpoint=chat"], "eval"))
    assert (backend.url, backend.model, tokenizer) == ("http://localhost:8000/v1/chat/completions", "served", None)
    with pytest.raises(UserError, match=r"tokenizer of model.path=embedded:tiny: name the served model's"):
        load_backend(config.compose(chosen, "eval"))
    _, tokenizer = load_backend(config.compose([*chosen, f"model.path={TINY}"], "eval"))
    assert tokenizer.eos_token_id is not None
    with pytest.raises(UserError, match=r"backend.model must be set"):
        load_backend(config.compose(chosen[:2], "eval"))


def test_several_benchmarks_in_one_call_are_stored_shown_and_taken_up_again(tmp_path):
    own = write(
        tmp_path / "own.jsonl",
        {"prompt": "7a+4=", "baseline": "11", "category": "sum"},
        {"prompt": "9a-4=", "baseline": "5", "category": "difference"},
    )
    arguments = [
        f"out={tmp_path / 'out'}",
        f"benchmarks=[chain_sum,{{benchmark: yap, path: {own}}}]",
        "evaluation.problems=5",
        "evaluation.samples=2",
        "sweep.budgets=[8,160]",
    ]
    done = evaluate(*arguments)
    assert done.returncode == 0, done.stderr
    assert "10/10 completions" in done.stdout
    for title in ("chain_sum by difficulty", "truncated at a budget", "YapIndex"):
        assert title in done.stdout
    stored = tmp_path / "out" / "chain_sum" / "evaluation.jsonl"
    evaluation = Evaluation.load(stored)
    summary = json.loads((tmp_path / "out" / "chain_sum" / "summary.json").read_text())
    assert len(evaluation.rows) == 10
    assert summary["accuracy"] == evaluation.summary()["accuracy"]
    assert summary["budget_curve"]["points"][1]["accuracy"] == summary["accuracy"]
    yap = json.loads((tmp_path / "out" / "yap" / "summary.json").read_text())["yap"]
    assert list(yap["categories"]) == ["difference", "sum"]

    before = stored.read_bytes()
    stored.write_bytes(before[: len(before) // 2])
    again = evaluate(*arguments)
    assert again.returncode == 0, again.stderr
    assert stored.read_bytes() == before


def test_a_mistake_is_one_line(tmp_path):
    done = evaluate("benchmark=svamp", f"benchmark.path={tmp_path / 'absent.jsonl'}", f"out={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "absent.jsonl: no such file" in done.stderr
