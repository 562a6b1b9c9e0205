"""The examples of docs/adding_a_method.md, run as they stand, and a method added to a copy of the package."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from concise_rl.batch import RolloutBatch
from concise_rl.commands.config import compose, method_of
from concise_rl.methods import Method
from concise_rl.methods.picking import check_selection
from concise_rl.methods.recipes import selector_of
from concise_rl.samples import Samples

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "adding_a_method.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
COMMANDS = [line.strip() for line in PAGE.read_text().splitlines() if line.startswith("    concise-rl train")]
STEMS = ["dr_grpo", "rloo", "canon_length", "canon_entropy", "gui_g1"]


@pytest.fixture(autouse=True)
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every python block of the page under the file name in its first line, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for block in BLOCKS:
        Path(block.split("\n", 1)[0].removeprefix("# ")).write_text(block)


def batch_of(lengths: list[int], correct: list[int], **others) -> RolloutBatch:
    return RolloutBatch.of(prompt_keys=["a"], group_size=len(lengths), lengths=lengths, correct=correct, **others)


def method(*overrides: str) -> Method:
    return method_of(compose(["method=dr_grpo", *overrides]))


def test_budget_by_name_and_with_fields() -> None:
    batch = batch_of([15, 30, 90, 15], [1, 1, 1, 0])
    for override, expected in (
        ("method.shapers=[my_shapers.py:Budget]", [1.375, 1.25, 1, 0]),
        ("method.shapers=[{path: my_shapers.py:Budget, target: 30}]", [1.25, 1, 1, 0]),
    ):
        result, _ = method(override).apply(batch, {})
        assert result.reward.tolist() == pytest.approx(expected)


def test_beat_your_mean_scores_before_it_records() -> None:
    own = method("method.shapers=[my_memory.py:BeatYourMean]")
    result, states = own.apply(batch_of([20, 40, 10], [1, 1, 0]), own.init())
    assert result.reward.tolist() == [1, 1, 0]
    result, _ = own.apply(batch_of([15, 60, 15], [1, 1, 0]), states)
    assert result.reward.tolist() == pytest.approx([1.1, 0.8, 0])  # the mean was 30


def test_median_advantage() -> None:
    reward = torch.tensor([1.0, 3.0, 7.0, 100.0], dtype=torch.float64)
    batch = batch_of([1, 1, 1, 1], [0, 0, 0, 0], scorable=[1, 1, 1, 0], task_reward=reward)
    result, _ = method("method.advantage=my_credit.py:Median").apply(batch, {})
    assert result.credit.tolist() == [-2, 0, 4, 0]


def test_a_filtered_row_teaches_nothing() -> None:
    result, _ = method("method.filters=[my_filter.py:ShorterHalf]").apply(batch_of([10, 20, 30, 40], [1, 0, 1, 1]), {})
    assert result.counts.tolist() == [True, True, False, False]
    assert result.credit.tolist() == [0.5, -0.5, 0, 0]


def test_a_cut_keeps_twice_the_shortest() -> None:
    batch = batch_of([10, 50, 30, 15], [1, 1, 1, 1])
    assert method("method.cut=my_cut.py:ToTheShortest").kept_tokens(batch).tolist() == [10, 20, 20, 15]
    assert method("method.cut=my_cut.py:ToTheShortest").kept_tokens(batch.replace(correct=~batch.correct)).tolist() == [
        10, 50, 30, 15
    ]  # fmt: skip


def test_curriculum_edit_and_sampler_train(tmp_path: Path) -> None:
    """The three that touch prompts and tokens, together, for two steps on the embedded model."""
    run = [
        sys.executable, "-m", "concise_rl.cli", "train", "method=dr_grpo",
        "method.curriculum=my_curriculum.py:Unsolved", "method.edit={path: my_edit.py:Brief, words: ''}",
        "method.sampler=my_sampler.py:FirstDraft", "trainer.per_device_train_batch_size=8",
        "trainer.num_generations=4", "trainer.max_steps=2", "trainer.save_steps=2", "evaluation.problems=0",
        "run.progress=false", "run.dir=run",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    from concise_rl.engine.checkpoint import load_state
    from concise_rl.reporting.run_log import read_rollouts

    steps = list(read_rollouts(tmp_path / "run"))
    assert [limit for step in steps for limit in step.batch.limits.tolist()] == [160, 80] * 8
    solved = load_state(tmp_path / "run" / "checkpoint-2")[0]["curriculum.Unsolved"]["solved"]
    right = {
        key
        for step in steps
        for key, any_right in zip(
            step.batch.prompt_keys, step.batch.by_group(step.batch.correct).any(dim=1).tolist(), strict=True
        )
        if any_right
    }
    assert set(solved) == right
    assert len({key for step in steps for key in step.batch.prompt_keys}) == 4


def test_a_selector_takes_the_median() -> None:
    samples = Samples.of(list("aaaabb"), [9, 5, 7, 1, 3, 3], [1, 1, 1, 0, 1, 1])
    composed = compose(["select.selector=my_selector.py:MedianRight"], "select")
    selector = selector_of(composed.select.selector, {})
    selection = check_selection(selector, samples, selector(samples, 0))
    assert samples.lengths[selection.rows].tolist() == [7]
    assert selection.dropped == {"b": "fewer than 3 right answers"}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_page_compose(command: str) -> None:
    method_of(compose(shlex.split(command)[2:]))


@pytest.mark.parametrize(
    ("recipe", "fields"),
    [
        ("dr_grpo", {"scale": "none"}),
        ("rloo", {}),
        ("canon_length", {"metric": "length", "mu": 1.0, "schedule": None}),
        ("canon_entropy", {"metric": "entropy", "mu": 1.0, "schedule": None}),
        ("gui_g1", {"kind": "linear", "column": "difficulty", "minimum": 2.0, "maximum": 6.0}),
    ],
)
def test_recipes_compose_into_their_advantage(recipe: str, fields: dict) -> None:
    advantage = method_of(compose([f"method={recipe}"])).advantages[-1]
    assert {name: getattr(advantage, name) for name in fields} == fields


@pytest.mark.parametrize("stem", STEMS)
def test_the_commands_of_the_pages_compose(stem: str) -> None:
    text = (ROOT / "docs" / "methods" / f"{stem}.md").read_text()
    text = text.replace("\\\n", " ")
    commands = [line.strip() for line in text.splitlines() if line.strip().startswith("concise-rl train")]
    assert commands, stem
    for command in commands:
        words = [word for word in shlex.split(command, comments=True)[2:] if word not in ("-m",) and "," not in word]
        method_of(compose(words))


def test_a_method_is_four_files_and_one_line(tmp_path: Path) -> None:
    """In a copy of the package: after them Hydra, the laws, the commands, the docs' stems and Python know it."""
    for part in ("concise_rl", "recipes", "tests/methods", "docs/methods"):
        shutil.copytree(ROOT / part, tmp_path / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests" / "__init__.py").touch()
    page = PAGE.read_text()
    recipe = re.search(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    assert recipe is not None
    text = "".join(line.removeprefix("   ") for line in recipe[1].splitlines(keepends=True))
    (tmp_path / "concise_rl/methods/shapers/budget.py").write_text(BLOCKS[0])
    (tmp_path / "recipes/method/budget.yaml").write_text(text)
    (tmp_path / "tests/methods/shapers/test_budget.py").write_text(
        "from concise_rl.methods import Budget\n\n\ndef test_target():\n    assert Budget().target == 60\n"
    )
    (tmp_path / "docs/methods/budget.md").write_text("# Budget\n")
    registry = tmp_path / "concise_rl/methods/registry.py"
    registry.write_text(registry.read_text().replace('"shaper": {\n', '"shaper": {\n        "budget": "Budget",\n'))

    def run(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/methods/test_laws.py", "-k", "budget")
    assert int(re.search(r"(\d+) passed", said)[1]) > 20, said
    run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/methods/shapers/test_budget.py")
    assert "budget" in run("-m", "concise_rl.cli", "methods")
    composed = run("-m", "concise_rl.train", "method=budget", "shaper.budget.weight=0.25", "--cfg", "job")
    assert "weight: 0.25" in composed
    assert "target: 40" in composed
