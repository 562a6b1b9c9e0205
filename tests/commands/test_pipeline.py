"""A pipeline runs each stage once, goes on where it stopped, and refuses what changed behind its back."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from concise_rl.commands import pipeline
from concise_rl.commands.config import compose
from concise_rl.errors import UserError
from concise_rl.methods.registry import recipe_names

RECIPE = """
settings: {letter: x}
stages:
  - {name: one, command: sample, arguments: ["letter={letter}", "out={dir}/one.txt"], writes: ["{dir}/one.txt"]}
  - {name: two, command: select, arguments: ["out={dir}/two.txt"], reads: ["{dir}/one.txt"], writes: ["{dir}/two.txt"]}
"""


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """The commands that a pipeline called; each writes its `out`, `fail` ends the stage of that name."""
    calls: list[list[str]] = []

    def stand_in(words, check):
        command = words[3:]
        calls.append(command)
        (out,) = [word[4:] for word in command if word.startswith("out=")]
        failing = (tmp_path / "fail").exists() and command[0] == (tmp_path / "fail").read_text()
        if not failing:
            Path(out).write_text(" ".join(command))
        return SimpleNamespace(returncode=3 if failing else 0)

    monkeypatch.setattr(pipeline.subprocess, "run", stand_in)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return calls


def call(tmp_path, *more):
    pipeline.main([f"recipe={tmp_path}/recipe.yaml", f"dir={tmp_path}/run", *more])


def test_each_stage_runs_once_and_a_failed_one_again(ran, tmp_path):
    (tmp_path / "fail").write_text("select")
    with pytest.raises(SystemExit) as ended:
        call(tmp_path)
    assert ended.value.code == 3
    (tmp_path / "fail").unlink()
    call(tmp_path)
    call(tmp_path)
    assert [command[0] for command in ran] == ["sample", "select", "select"]


def test_a_file_that_changed_since_a_stage_ran_is_refused_until_that_stage_runs_anew(ran, tmp_path):
    call(tmp_path)
    (tmp_path / "run" / "one.txt").write_text("by hand")
    with pytest.raises(UserError, match=r"one.txt changed since stage one wrote it"):
        call(tmp_path)
    call(tmp_path, "from=one")
    assert [command[0] for command in ran] == ["sample", "select"] * 2


def test_other_arguments_are_refused_with_what_was_and_what_is(ran, tmp_path):
    call(tmp_path)
    with pytest.raises(UserError, match=r"stage one was run with letter=x, now it has letter=y"):
        call(tmp_path, "letter=y")
    call(tmp_path, "letter=y", "from=one")
    assert ran[-2][1] == "letter=y"


def test_a_setting_or_stage_that_is_not_there_is_one_line(ran, tmp_path):
    for wrong in ("leter=y", "three.out=z"):
        with pytest.raises(UserError, match=r"has the settings letter and the stages one, two"):
            call(tmp_path, wrong)
    with pytest.raises(UserError, match="from=on is not known"):
        call(tmp_path, "from=on")
    assert not ran


@pytest.mark.parametrize("name", recipe_names("pipeline"))
def test_every_stage_of_the_recipes_is_a_command_that_composes(name, tmp_path):
    """And reads only what an earlier stage writes."""
    written: set[Path] = set()
    for stage in pipeline.stages_of(pipeline.read_recipe(name), tmp_path, {}):
        assert set(stage.reads) <= written
        written |= set(stage.writes)
        if stage.command != "merge":
            compose(list(stage.arguments), stage.command)
