"""What a person meets: help at once, one clear line for every mistake, a README whose commands hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import readme
from concise_rl.commands import config
from concise_rl.errors import UserError
from concise_rl.methods import method_names, selector_names
from concise_rl.methods.registry import RECIPES, SHELVES
from concise_rl.reporting.methods_table import method_entry, selector_entry

ROOT = Path(__file__).parents[2]


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "concise_rl.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "HF_HUB_OFFLINE": "1"},
        check=False,
    )


def test_help_imports_nothing_heavy():
    code = "import sys; from concise_rl.cli import main; main(['--help']); print({'torch', 'hydra'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("concise-rl: ")
    assert done.stdout.endswith("set()\n")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["trian"], 2, "there is no command 'trian'; did you mean train?"),
        (["train", "method=hapoo"], 2, "error: method=hapoo is not known; did you mean hapo?"),
        (["train", "shaper.hapo.wieght=1"], 2, "error: shaper.hapo.wieght is not known; did you mean weight?"),
        (["train", "shaper.hapo.weight=much"], 2, "error: shaper.hapo.weight='much' must be a number"),
        (["train", "run.dir=runs/lr=1e-6"], 2, "error: run.dir=runs/lr=1e-6 is not read as name=value: quote"),
        (["train", "seed=one"], 2, "error: seed: Value 'one'"),
        (
            ["train", "trainer.learning_rate=small", "run.dir={out}"],
            2,
            "trainer.learning_rate='small' must be a number",
        ),
        (["train", "trainer.learning_rat=1", "run.dir={out}"], 2, "did you mean learning_rate?"),
        (["train", "model.path=nowhere/at_all", "run.dir={out}"], 2, "model.path=nowhere/at_all cannot be loaded"),
        (["train", "trainer.num_generations=1", "run.dir={out}"], 2, "a group needs at least 2 completions"),
        (["train", "data=local", "data.path=missing.jsonl", "run.dir={out}"], 2, "missing.jsonl"),
        (["replay", "{out}"], 2, "rollouts.jsonl"),
        (["warmup", "task=nope", "--out", "{out}"], 2, "task=nope has no warm-up; choose from chain_sum"),
        (["predict", "data=gsm8k"], 2, "data=gsm8k has no known law: predict takes running_total, which_sum"),
    ],
)
def test_a_mistake_is_one_clear_message_and_no_traceback(tmp_path, arguments, code, message):
    done = run(*(argument.format(out=tmp_path / "run") for argument in arguments))
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert message in said
    assert "Traceback" not in said
    if code == 2:
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    done = run("train", f"run.dir={tmp_path / 'file' / 'run'}")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "choose another run.dir" in done.stderr


def test_every_recipe_composes_and_its_components_build():
    for recipe in method_names():
        composed = config.compose([f"method={recipe}"])
        assert config.method_of(composed).shapers
        config.trainer_fields(composed)
    for group in ("model", "data", "run", "peft", "tracking"):
        for recipe in (RECIPES / group).glob("*.yaml"):
            extra = ["model.path=x"] if recipe.stem == "hf" else []
            config.compose([f"{group}={recipe.stem}", *extra])


def test_stems_agree():
    """One recipe, one page; every shaper and advantage has a file and a test of its name."""
    recipes = {path.stem for path in (ROOT / "recipes" / "method").glob("*.yaml")}
    recipes |= {selector_entry(name).page for name in selector_names()}
    assert recipes == {path.stem for path in (ROOT / "docs" / "methods").glob("[a-z]*.md")}
    for kind in ("shapers", "advantages"):
        for name in SHELVES[kind.removesuffix("s")]:
            assert (ROOT / "concise_rl" / "methods" / kind / f"{name}.py").exists(), name


def test_the_field_guides_table_is_the_one_that_the_command_prints():
    table = (ROOT / "docs" / "methods" / "README.md").read_text().partition("<!-- methods -->")[2]
    entries = [*map(method_entry, method_names()), *map(selector_entry, selector_names())]
    for entry, line in zip(entries, table.strip().splitlines()[2:], strict=False):
        assert line.startswith(f"| [{entry.name}]("), entry.name
        assert f"| {entry.components} | {entry.question} |" in line


def test_readme_and_field_guide_place_every_method():
    assert readme.method_links() in (ROOT / "README.md").read_text(), "make readme writes the table anew"
    guide = (ROOT / "docs" / "methods" / "README.md").read_text().partition("## All of them")[0]
    groups = {"l1_exact": "l1_*", "l1_max": "l1_*", "canon_length": "canon_*", "canon_entropy": "canon_*"}
    for name in method_names():
        assert f"`{name}`" in guide or f"`{groups.get(name)}`" in guide, name
    for name in selector_names():
        assert f"`{name}`" in guide, name


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.shapers=[hapoo]"], "shaper='hapoo' is not known; did you mean hapo?"),
        (["method.shapers=[]"], r"method.shapers=\[\] shapes nothing"),
        (["method.shapers=[nowhere.py:Budget]"], "there is no file nowhere.py"),
        (["method.advantage=cannon"], "did you mean canon?"),
        (["shaper.hapo.weight=2"], "weight"),
        (["shaper.hapo.kind=round"], "kind"),
    ],
)
def test_components_are_refused_by_name(overrides, message):
    with pytest.raises(UserError, match=message):
        config.method_of(config.compose(overrides))


def shapers_of(composed):
    return config.method_of(composed).shapers


def test_the_readme_shaper_works_by_path(tmp_path, monkeypatch):
    (source,) = re.findall(r"```python\n(from dataclasses.*?)```", (ROOT / "README.md").read_text(), re.S)
    (tmp_path / "my_shapers.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    (budget,) = shapers_of(config.compose(["method.shapers=[my_shapers.py:Budget]"]))
    assert budget.target == 40
    composed = config.compose(["method.shapers=[hapo,{path: my_shapers.py:Budget, target: 30}]"])
    _, budget = shapers_of(composed)
    assert budget.target == 30
    with pytest.raises(UserError, match="tarket"):
        config.method_of(config.compose(["method.shapers=[{path: my_shapers.py:Budget, tarket: 30}]"]))


def test_the_table_of_methods_is_the_generated_one():
    done = run("methods", "--markdown", *(["--results", "docs/results/methods.json"]))
    assert done.returncode == 0, done.stderr
    assert done.stdout in (ROOT / "docs" / "methods" / "README.md").read_text(), "make readme writes it anew"
