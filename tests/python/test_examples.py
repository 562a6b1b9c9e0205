"""Every example runs: the scripts as they stand, the notebooks cell by cell, on few steps."""

from __future__ import annotations

import json
import os
import runpy
import sys

import pytest
import torch

from ..engine.jobs import ROOT

EXAMPLES = ROOT / "examples"
SCRIPTS = {
    "train": "step 2: ",
    "stock_trl": "step 2: shaped reward",
    "own_shaper": "rewards: [1.0, 0.5, 0.0, 0.0]",
    "lora": "step 2: KL to the start",
}
ELSEWHERE = {"problems", "verl_rewards", "prime_rl_algorithm"}
NOTEBOOKS = {"first_run": "<think>", "own_method": "step  2: ", "compare_two": "kimi against grpo: tokens"}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("STEPS", "2")


def test_every_file_is_run_here_or_tested_elsewhere():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == SCRIPTS.keys() | ELSEWHERE
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} == NOTEBOOKS.keys()


@pytest.mark.parametrize("name", SCRIPTS)
def test_script(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "2"])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert SCRIPTS[name] in capsys.readouterr().out


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook(name, capsys):
    notebook = json.loads((EXAMPLES / f"{name}.ipynb").read_text())
    found = {"__name__": "__main__"}
    module = type(sys)("__main__")
    vars(module).update(found)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "no stored outputs"
            exec(compile("".join(cell["source"]), f"{name}/{cell['id']}", "exec"), found)
    assert NOTEBOOKS[name] in capsys.readouterr().out
    assert os.path.isdir("runs") or name != "first_run"
