"""A model is on its device before it is evaluated, not only once a trainer has placed it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from accelerate import PartialState

from concise_rl.commands import config
from concise_rl.commands.evaluate import load_backend

DRIVER = """
import sys
import torch
from transformers import TrainingArguments
from concise_rl.commands.run_evaluations import RunEvaluations

def begin(self, model, **_):
    print("evaluated on", next(model.parameters()).device)
    sys.exit(0)

own = TrainingArguments.device.fget  # reading it sets the process up
TrainingArguments.device = property(lambda self: own(self) and torch.device("meta"))
RunEvaluations.begin = begin
from concise_rl.commands.train import main
main()
"""


def test_a_run_evaluates_its_start_on_its_device(tmp_path):
    command = [sys.executable, "-c", DRIVER, f"run.dir={tmp_path / 'run'}", "run.progress=false"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "evaluated on meta" in done.stdout, done.stdout + done.stderr[-2000:]


def test_an_evaluation_runs_on_the_device_of_its_process(monkeypatch: pytest.MonkeyPatch):
    PartialState()
    monkeypatch.setitem(PartialState._shared_state, "device", torch.device("meta"))
    backend, _ = load_backend(config.compose([], "eval"))
    assert backend.model.device.type == "meta"
