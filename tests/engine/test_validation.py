"""Evaluations in training: they move nothing, none is lost or made twice, the best checkpoint stays, a run may stop."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers.trainer  # noqa: F401  imported once, for all children

import concise_rl.engine.trainer  # noqa: F401
from benchmarks.attempts import Attempt, outcome
from concise_rl.commands.config import compose, validation_of
from concise_rl.commands.run_evaluations import check_window_of
from concise_rl.commands.run_folder import GOING_BACK, prepare
from concise_rl.commands.validation import Validate
from concise_rl.data import Prompt
from concise_rl.engine import checkpoint
from concise_rl.errors import UserError
from concise_rl.evaluation.validation import Validation, best_of, choose_problems
from concise_rl.reporting.run_log import read_validation

WATCHED = ("evaluation.every=2", "evaluation.every_problems=6", "evaluation.best=tokens")


@pytest.fixture(autouse=True)
def _logs(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    Attempt.logs = tmp_path


def entry(step: int, accuracy: float, tokens: float, aes: float = 0.0, points: tuple[float, float] = (-1, 1)) -> dict:
    change = {"aes": aes, "accuracy_points_interval": list(points)} if step else None
    return {"step": step, "accuracy": accuracy, "mean_tokens": tokens, "change": change}


def test_each_rule_knows_accuracy_and_tokens():
    start, short = entry(0, 0.90, 50), entry(2, 0.90, 40, aes=0.2)
    lossy, right = entry(4, 0.60, 10, -0.9, (-40, -20)), entry(6, 0.95, 45, aes=0.27)
    entries = [start, short, lossy, right]
    assert best_of(entries, "accuracy") is right
    assert best_of(entries[:3], "accuracy") is short, "of equal accuracies the fewer tokens"
    assert best_of(entries, "tokens") is short, "fewer tokens at a shown loss of accuracy are not better"
    assert best_of(entries, "aes") is right
    assert best_of([start, lossy], "aes") is start
    assert best_of([start, entry(2, 0.9, 50, aes=0.0)], "aes") is start, "no better is not better"
    assert best_of([start, entry(2, 0.9, 50, aes=float("nan"))], "aes") is start
    assert best_of([], "aes") is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evaluation.every=-1"], "evaluation.every=-1: give steps"),
        (["evaluation.every=2", "evaluation.best=loss"], "evaluation.best='loss': choose one of accuracy, tokens, aes"),
        (["evaluation.every=2", "evaluation.patience=0"], "evaluation.patience=0: give 1 or more"),
        (["evaluation.every=2", "evaluation.every_problems=0"], "evaluation.every_problems=0: give one"),
        (["evaluation.patience=2"], "evaluation.patience=2 has no effect without evaluations in training: set"),
        (["evaluation.best=aes"], "evaluation.best=aes has no effect without"),
    ],
)
def test_what_would_have_no_effect_is_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        validation_of(compose(overrides))
    with pytest.raises(UserError, match=r"evaluation\.every is not known"):
        compose(["evaluation.every=2"], "eval")


def test_a_best_checkpoint_is_never_inside_a_generation_window():
    class Args:
        steps_per_generation, num_iterations, gradient_accumulation_steps = 4, 1, 1

    check_window_of(Validation(every=8), Args)
    with pytest.raises(UserError, match=r"evaluation\.every=6 is no multiple of the 4 optimizer steps"):
        check_window_of(Validation(every=6), Args)


class Fakes:
    """A trainer and a session that remember what a callback asks of them."""

    def __init__(self, entries: list[dict]) -> None:
        self.entries, self.kept_steps, self.best, self.warnings = entries, set[int](), 0, list[str]()

    @contextlib.contextmanager
    def generation_model(self):
        yield "the model"

    def begin_validation(self, start):
        return list(self.entries), {0, 2}

    def validated(self, step, found, start):
        self.entries.append(entry(step, *found))
        return self.entries[-1]

    def keep_best(self, best, rule):
        self.best = best["step"]

    def warn(self, text):
        self.warnings.append(text)


def test_an_evaluation_that_a_signal_breaks_off_is_made_when_the_run_goes_on():
    fakes = Fakes([entry(0, 0.9, 50), entry(2, 0.9, 40, 0.2)])
    answers = iter([None, (0.9, 30, 0.4), (0.9, 45, 0.1), (0.9, 44, 0.1)])
    options = Validation(every=2, patience=2)

    def callback() -> tuple[Validate, SimpleNamespace]:
        made = Validate(options, fakes, lambda model: next(answers), None, fakes)
        control = SimpleNamespace(should_save=False, should_training_stop=False)
        return made, control

    first, control = callback()
    first.on_train_begin(None, SimpleNamespace(global_step=2), control)
    assert (fakes.best, fakes.kept_steps) == (2, {2})
    first.on_step_end(None, SimpleNamespace(global_step=3), control)
    first.on_step_end(None, SimpleNamespace(global_step=4), control)
    assert len(fakes.entries) == 2, "it was broken off"
    assert not control.should_save
    again, control = callback()
    again.on_train_begin(None, SimpleNamespace(global_step=4), control)
    assert [line["step"] for line in fakes.entries] == [0, 2, 4]
    assert (fakes.best, fakes.kept_steps, control.should_save) == (4, {4}, True)
    again.on_step_end(None, SimpleNamespace(global_step=6), control)
    assert not control.should_training_stop
    again.on_step_end(None, SimpleNamespace(global_step=8), control)
    assert control.should_training_stop
    assert fakes.warnings == ["early stop: 2 evaluations since step 4 were no better by aes (evaluation.patience)"]


def test_problems_that_are_reported_are_taken_last():
    split = [Prompt.of(f"{k}+1=", str(k + 1)) for k in range(20)]
    chosen, apart = choose_problems(split, split[::2], 5)
    assert apart
    assert len(chosen) == 5
    assert not {prompt.id for prompt in chosen} & {prompt.id for prompt in split[::2]}
    chosen, apart = choose_problems(split, split, 5)
    assert (len(chosen), apart) == (5, False)
    assert choose_problems(split, [], 50) == (split, True)


def test_an_evaluation_moves_nothing_and_a_killed_run_has_each_once(tmp_path):
    """The same bits with and without evaluations, and with a run that is killed on the way, twice."""
    plain, watched, killed = (tmp_path / name for name in ("plain", "watched", "killed"))
    assert Attempt(plain, "trainer.save_total_limit=1").wait() == 0
    assert Attempt(watched, *WATCHED, "trainer.save_total_limit=1").wait() == 0
    expected, found = outcome(plain), outcome(watched)
    for name in expected.keys() - {"names"}:
        assert found[name] == expected[name], name

    entries = read_validation(watched)
    assert [line["step"] for line in entries] == [0, 2, 4, 6, 8]
    best = json.loads((watched / "best.json").read_text())
    assert best["step"] == best_of(entries, "tokens")["step"]
    kept = {best["step"], 8} - {0}
    assert set(checkpoint.steps(watched)) == kept, "the best checkpoint outlives save_total_limit=1"
    assert all(checkpoint.verify(watched / f"checkpoint-{step}") is None for step in kept)
    assert json.loads((watched / "summary.json").read_text())["best"] == best

    for number, lines in ((signal.SIGKILL, 3), (signal.SIGTERM, 5)):
        attempt, log = Attempt(killed, *WATCHED, "trainer.save_total_limit=1"), killed / "metrics.jsonl"
        while not (log.exists() and log.read_bytes().count(b"\n") >= lines) and not attempt.ended():
            time.sleep(0.002)
        if not attempt.ended():
            os.kill(attempt.pid, number)
            attempt.wait()
    assert Attempt(killed, *WATCHED, "trainer.save_total_limit=1").wait() == 0
    assert read_validation(killed) == entries
    assert json.loads((killed / "best.json").read_text()) == best
    for name in expected.keys() - {"names"}:
        assert outcome(killed)[name] == expected[name], name
    starts = json.loads((killed / "run.json").read_text())["starts"]
    assert len(starts) == 3
    assert starts[0]["step"] == 0


def test_patience_ends_a_run_that_stalls_and_it_stays_ended(tmp_path):
    still = ("evaluation.every=2", "evaluation.every_problems=4", "evaluation.best=accuracy", "evaluation.patience=2")
    attempt = Attempt(tmp_path / "run", *still, "trainer.learning_rate=1e-15")
    assert attempt.wait() == 0, attempt.log.read_text()
    said = " ".join(attempt.log.read_text().split())
    assert "early stop: 2 evaluations since step 0 were no better by accuracy (evaluation.patience)" in said
    assert "best by accuracy: step 0, " in said
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes().count(b"\n") == 4
    assert checkpoint.steps(tmp_path / "run")[-1] == 4, "where it ended is saved"
    again = Attempt(tmp_path / "run", *still, "trainer.learning_rate=1e-15")
    assert again.wait() == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes().count(b"\n") == 4, "no further step is taken"
    longer = Attempt(tmp_path / "run", *still[:3], "evaluation.patience=9", "trainer.learning_rate=1e-15")
    assert longer.wait() == 0
    assert [line["step"] for line in read_validation(tmp_path / "run")] == [0, 2, 4, 6, 8], "with more, it goes on"


def test_two_ranks_evaluate_as_one_does(tmp_path):
    still = (*WATCHED, "trainer.learning_rate=1e-15", "trainer.max_steps=2", "evaluation.problems=0")
    one, two = Attempt(tmp_path / "one", *still), Attempt(tmp_path / "two", *still, ranks=2)
    assert one.wait() == 0
    assert two.wait() == 0, two.log.read_text()[-3000:]
    assert read_validation(tmp_path / "one") == read_validation(tmp_path / "two")
    assert [line["step"] for line in read_validation(tmp_path / "two")] == [0, 2]


def test_going_back_takes_later_evaluations_along(tmp_path):
    lines = "".join(json.dumps({"step": step, "accuracy": 0.5}) + "\n" for step in (0, 2, 4, 6))
    (tmp_path / "validation.jsonl").write_text(lines)
    (tmp_path / "best.json").write_text("{}")
    (tmp_path / GOING_BACK).write_text(json.dumps({"step": 4, "aside": "before-going-back-1"}))
    prepare(tmp_path, resume="auto", overwrite=False)
    aside = tmp_path / "before-going-back-1"
    assert [line["step"] for line in read_validation(tmp_path)] == [0, 2, 4]
    assert [line["step"] for line in read_validation(aside)] == [6]
    assert (aside / "best.json").exists(), "the best one is found anew"
