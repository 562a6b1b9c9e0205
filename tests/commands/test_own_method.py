"""From `concise-rl init` to a run; what is listed, completed and suggested; whose loss applies in a composition."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from concise_rl.cli import COMMANDS, HELP, main
from concise_rl.commands import completion, scaffold
from concise_rl.commands.checks import losses_of_guests
from concise_rl.commands.config import compose, method_of, plain
from concise_rl.commands.help import help_text
from concise_rl.errors import UserError
from concise_rl.methods.recipes import load_class
from concise_rl.methods.registry import components
from concise_rl.reporting.components_table import shelves

OWN = {"OMP_NUM_THREADS": "1", "COLUMNS": "80", "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}


def run(*command, cwd):
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ | OWN, check=False)


def test_a_method_of_ones_own_passes_its_test_and_trains(tmp_path):
    made = run(sys.executable, "-m", "concise_rl.cli", "init", "my_method", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    tested = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "my_method", cwd=tmp_path)
    assert "4 passed" in tested.stdout, tested.stdout
    (command,) = [line for line in made.stdout.splitlines() if line.startswith("train it: concise-rl ")]
    small = ["trainer.max_steps=1", "evaluation.problems=0", "trainer.per_device_train_batch_size=16", "run.dir=run"]
    overrides = [*command.removeprefix("train it: concise-rl ").split(), *small]
    trained = run(sys.executable, "-m", "concise_rl.cli", *overrides, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "my_method/excess" in (tmp_path / "run" / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    ("name", "message"), [("hapo", "is a built-in method"), ("My-Method", "small letters"), ("taken", "in it already")]
)
def test_init_refuses_what_it_would_spoil(tmp_path, name, message):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    with pytest.raises(UserError, match=message):
        scaffold.write_plug_in(tmp_path / name)


def test_a_typo_in_ones_own_component_is_suggested(tmp_path):
    (tmp_path / "my_shapers.py").write_text("class Budget:\n    pass\n")
    with pytest.raises(UserError, match=r"no file .*my_shaper.py; did you mean my_shapers.py"):
        load_class(f"{tmp_path}/my_shaper.py:Budget")
    with pytest.raises(UserError, match=r"has no class Budgte; did you mean Budget"):
        load_class(f"{tmp_path}/my_shapers.py:Budgte")


@pytest.mark.parametrize("command", ["train", "eval"])
def test_help_speaks_of_this_program_in_80_columns(command):
    for text in (HELP, help_text(command)):
        assert max(map(len, text.splitlines())) <= 80
        assert "hydra" not in text.lower()
    assert "smart_thinker" in help_text("train")
    assert "benchmark" in help_text("eval")


def test_every_command_is_in_the_help():
    assert {line.split()[0] for line in HELP.splitlines() if line.startswith("  ")} >= set(COMMANDS)


@pytest.mark.parametrize("arguments", [["components"], ["components", "edit"], ["components", "effort"], ["methods"]])
def test_lists_fit_80_columns(arguments, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    main(arguments)
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    if arguments == ["components"]:
        for kind, shelf in shelves().items():
            assert f"\n{kind}\n" in f"\n{said}"
            assert all(f"  {name}:" in said for name in shelf)
    if arguments == ["components", "effort"]:
        assert "shaper.effort.ub=15000.0" in said
        assert "edit.effort.share=0.5" in said


def test_composing_says_whose_loss_applies():
    def told(*overrides):
        composed = compose(["method=hapo", *overrides])
        return losses_of_guests("hapo", plain(composed.method), plain(composed.trainer))

    assert told() == []
    (sentence,) = told("method.shapers=[hapo,overlong]")
    assert sentence == (
        "overlong comes from dapo, but the loss is hapo's (loss_type=bnpo epsilon=0.2 beta=0.0); "
        "dapo has trainer.loss_type=dapo trainer.epsilon_high=0.28"
    )
    assert told("method.shapers=[hapo,overlong]", "trainer.loss_type=dapo", "trainer.epsilon_high=0.28") == []
    assert told("method.advantage=scalerl")[0].startswith("scalerl comes from scalerl, but the loss is hapo's")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("concise-rl dia", ["diagnose"]),
        ("concise-rl train method=hap", ["method=hapo"]),
        ("concise-rl train seed", ["seed="]),
        ("concise-rl pipeline recipe=to", ["recipe=tops"]),
        ("concise-rl sample unt", ["until="]),
        ("concise-rl select selector=dart_u", ["selector=dart_uniform"]),
        ("concise-rl select selector.kimi_pairs.", ["selector.kimi_pairs.ratio="]),
        ("concise-rl tune recipe=d", ["recipe=dpo"]),
        ("concise-rl tune tuning.num_train_ep", ["tuning.num_train_epochs="]),
        ("concise-rl merge a b evaluation.prob", ["evaluation.problems="]),
        ("concise-rl train shaper.hap", ["shaper.hapo."]),
        ("concise-rl train shaper.hapo.w", ["shaper.hapo.weight="]),
        ("concise-rl train selector.", []),
        ("concise-rl train seed=1 trainer.learning_", ["trainer.learning_rate="]),
        ("concise-rl train trainer.loss_t", ["trainer.loss_type="]),
        ("concise-rl eval benchmark=gsm", ["benchmark=gsm8k"]),
        ("concise-rl methods smart", ["smart_thinker"]),
        ("concise-rl replay runs/demo smart", ["smart_thinker"]),
        ("concise-rl compare runs/", []),
    ],
)
def test_completion(line, found):
    assert completion.words(line, COMMANDS) == found


def test_completed_fields_are_those_of_the_classes():
    import dataclasses

    for kind in ("shaper", "sampler", "edit"):
        for name, cls in components(kind).items():
            inherited = {f.name for f in dataclasses.fields(cls)}
            assert set(completion.component_fields(kind, name)) <= inherited, name
    assert method_of(compose(["method=hapo"])).shapers[0].weight == 1


def test_bash_completes_behind_the_equals_sign(tmp_path):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    (tmp_path / "concise-rl").write_text(f'#!/bin/sh\nexec {sys.executable} -m concise_rl.cli "$@"\n')
    (tmp_path / "concise-rl").chmod(0o755)
    script = completion.script("bash") + (
        'COMP_LINE="concise-rl train method=hap" COMP_POINT=27\n_concise_rl\necho "${COMPREPLY[@]}"\n'
        'COMP_LINE="concise-rl dia" COMP_POINT=14\n_concise_rl\necho "${COMPREPLY[@]}"\n'
    )
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [bash, "-c", script], capture_output=True, text=True, env=os.environ | OWN | {"PATH": path}, check=True
    )
    assert done.stdout.split() == ["hapo", "diagnose"], done.stderr
