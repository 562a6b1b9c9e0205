"""A run that nothing can mix up: one process a folder, signals, going back, guards, settings changed at a resume.

Each run is a child that is forked from here, since imports take longer than such a run; `benchmarks/attempts.py`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers.trainer  # noqa: F401  imported once, for all children

import concise_rl.engine.trainer  # noqa: F401
from benchmarks.attempts import Attempt
from concise_rl.commands.config import compose, resolved
from concise_rl.commands.train import save_model
from concise_rl.engine import checkpoint
from concise_rl.engine.settings import REFUSED, REFUSED_IN_SHARDS, check_settings, experiment
from concise_rl.errors import UserError

Start = Callable[..., Attempt]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """`start("override", ...)` begins a run in `tmp_path/run`, `save_steps=2` of 8, and returns it."""
    torch.set_num_threads(1)
    Attempt.logs = tmp_path

    def make(*overrides: str, run: str = "run") -> Attempt:
        return Attempt(tmp_path / run, "evaluation.problems=0", *overrides)

    return make


def ended(attempt: Attempt, code: int = 0) -> str:
    """What a run said, once it has ended with this code."""
    assert attempt.wait() == code, attempt.log.read_text()[-3000:]
    return " ".join(attempt.log.read_text(errors="replace").split())


def lines(folder: Path) -> list[dict]:
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def await_that(attempt: Attempt, condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert not attempt.ended(), attempt.log.read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)


LONG = ("trainer.max_steps=5000", "trainer.save_steps=5000")


def test_a_folder_belongs_to_one_process(tmp_path, start):
    run = tmp_path / "run"
    first = start(*LONG)
    await_that(first, lambda: len(lines(run)) >= 1)
    for overrides in (["resume=auto"], ["resume=never", "overwrite=true"]):
        said = ended(Attempt(run, *LONG, *overrides), 2)
        assert f"error: run.dir={run} is in use by process {first.pid} on host {os.uname().nodename}: wait" in said
    assert [line["step"] for line in lines(run)] == list(range(1, len(lines(run)) + 1))
    first.kill()
    ended(Attempt(run, "trainer.max_steps=2", "evaluation.problems=0", "resume=never", "overwrite=true"))
    assert len(lines(run)) == 2, "the lock went with the process that was killed"


def test_of_several_starts_on_one_folder_one_runs(tmp_path, start):
    """benchmarks/soak.py does it with thirty."""
    attempts = [start(*LONG) for _ in range(5)]
    deadline = time.monotonic() + 120
    while sum(not attempt.ended() for attempt in attempts) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (running,) = [attempt for attempt in attempts if attempt.code is None]
    await_that(running, lambda: len(lines(tmp_path / "run")) >= 2)
    running.kill()
    assert [attempt.code for attempt in attempts if attempt is not running] == [2] * 4


def test_a_run_says_where_it_starts(tmp_path, start):
    said = ended(start("resume=auto", "trainer.max_steps=4"))
    assert f"resume=auto: {tmp_path / 'run'} holds no checkpoint, so this run starts from step 0" in said
    said = ended(start("resume=auto", "trainer.max_steps=4"))
    assert f"going on from step 4 ({tmp_path / 'run' / 'checkpoint-4'})" in said


def test_ctrl_c_saves_as_sigterm_does(tmp_path, start):
    attempt = start(*LONG)
    await_that(attempt, lambda: len(lines(tmp_path / "run")) >= 2)
    os.kill(attempt.pid, signal.SIGINT)
    said = ended(attempt, 75)
    (step,) = checkpoint.steps(tmp_path / "run")
    assert f"SIGINT: ended after step {step}; resume=auto goes on from step {step}" in said
    assert len(lines(tmp_path / "run")) == step


SLOW_STEP = """
import sys, time
from concise_rl.engine.stopping import StopSignals
with StopSignals() as signals:
    signals.finishing = True
    print("ready", flush=True)
    while not signals.received:
        time.sleep(0.01)
    print(signals.received, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(("number", "ends"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_second_ctrl_c_ends_at_once_and_a_second_sigterm_changes_nothing(number, ends):
    with subprocess.Popen([sys.executable, "-c", SLOW_STEP], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == f"{number.name}\n"
        process.send_signal(number)
        if ends:
            assert process.wait(timeout=20) == -signal.SIGINT
        else:
            time.sleep(0.5)
            assert process.poll() is None
            process.kill()


@pytest.mark.parametrize("name", ["before", "after"])
def test_sigterm_in_an_evaluation_exits_like_one_in_training(tmp_path, start, name):
    run = tmp_path / "run"
    attempt = start("evaluation.problems=1024", "trainer.max_steps=2", "verify_deadline_seconds=60")
    sign = run / (".lock" if name == "before" else "model/model.safetensors")
    await_that(attempt, sign.exists)
    if name == "before":
        await_that(attempt, (run / "rollouts.jsonl").exists)
        time.sleep(0.5)
    os.kill(attempt.pid, signal.SIGTERM)
    said = ended(attempt, 75)
    assert not (run / f"evaluation-{name}.jsonl").exists()
    goes_on = "step 0, as nothing is saved yet" if name == "before" else "step 2"
    assert f"SIGTERM: ended at once; resume=auto goes on from {goes_on}" in said


def test_going_back_keeps_what_was_later_aside_and_a_resume_stays_on_the_new_branch(tmp_path, start):
    run = tmp_path / "run"
    ended(start())
    weight = "shaper.hapo.weight=0.3"
    attempt = start(f"resume={run / 'checkpoint-6'}", weight, "trainer.max_steps=5000")
    await_that(attempt, lambda: len(lines(run)) >= 7 and lines(run)[-1]["step"] >= 11)
    attempt.kill()
    said = " ".join(attempt.log.read_text().split())
    assert "shaper.hapo.weight=0.3 takes effect, it was" in said
    aside = run / "before-going-back-1"
    assert f"everything after step 6 was moved to {aside}" in said
    assert sorted(path.name for path in aside.iterdir()) == [
        "checkpoint-8", "metrics.jsonl", "model", "report.html", "rollouts.jsonl", "summary.json", "training.png",
    ]  # fmt: skip
    assert [line["step"] for line in lines(aside)] == [7, 8]
    newest = checkpoint.newest_complete(run, pytest.fail)
    assert checkpoint.step_of(newest) >= 10
    assert checkpoint.steps(run)[-2:] == [checkpoint.step_of(newest) - 2, checkpoint.step_of(newest)]
    said = ended(start("resume=auto", weight, "trainer.max_steps=12"))
    assert f"going on from step {checkpoint.step_of(newest)}" in said
    assert [line["step"] for line in lines(run)] == list(range(1, 13))
    said = ended(start(f"resume={run / 'checkpoint-12'}", run="other"))
    assert "going on from step 12" in said, "a start from elsewhere, in a folder of its own, is a run of its own"
    said = ended(start(f"resume={run / 'checkpoint-12'}", "trainer.max_steps=14", run="other"), 2)
    assert f"holds a run, and resume={run / 'checkpoint-12'} is another one's: go on with resume=auto" in said


def test_a_going_back_that_was_killed_is_finished_by_the_next_start(tmp_path, start):
    run = tmp_path / "run"
    ended(start())
    (run / ".going-back").write_text(json.dumps({"step": 6, "aside": "before-going-back-1"}))
    said = ended(start("resume=auto"))
    assert "going on from step 6" in said
    assert [line["step"] for line in lines(run / "before-going-back-1")] == [7, 8]
    assert [line["step"] for line in lines(run)] == list(range(1, 9))


def test_a_guards_stop_is_remembered(tmp_path, start):
    run, stop = tmp_path / "run", ["guard.window=2", "guard.truncated=0", "guard.action=stop"]
    assert "of completions are cut off" in ended(start(*stop))
    assert len(lines(run)) == 4
    (run / "summary.json").unlink()  # as if killed in the last evaluation
    said = ended(start("resume=auto", *stop))
    assert "a guard ended this run at step 4: " in said
    assert "no further step is taken (guard.action=warn goes on)" in said
    assert len(lines(run)) == 4
    assert (run / "summary.json").exists()
    said = ended(start("resume=auto", *stop[:2]))
    assert "guard.action=warn, so it goes on" in said
    assert len(lines(run)) == 8


def test_an_evaluation_that_could_not_be_compared_is_refused_before_training(tmp_path, start):
    run = tmp_path / "run"
    ended(start("evaluation.problems=4", "trainer.max_steps=2"))
    for override, said in (
        (
            "evaluation.max_new_tokens=12",
            "evaluation.max_new_tokens=12, {run}/evaluation-before.jsonl was made with 48",
        ),
        ("evaluation.problems=3", "evaluation.problems=3, {run}/evaluation-before.jsonl was made with 4"),
    ):
        refusal = ended(start("evaluation.problems=4", "resume=auto", override), 2)
        assert said.format(run=run) in refusal
        assert len(lines(run)) == 2
    (run / "evaluation-before.jsonl").unlink()
    ended(start("evaluation.problems=3", "resume=auto", "trainer.max_steps=3"))
    assert json.loads((run / "summary.json").read_text())["before"]["problems"] == 3


def test_a_setting_that_would_make_another_experiment_is_refused(tmp_path, start):
    ended(start("trainer.max_steps=2"))
    for override, said in (
        ("seed=1", "seed=1, {run}/checkpoint-2 was trained with 0: the prompts of this epoch would be drawn again"),
        ("data.seed=3", "{run}/checkpoint-2 was trained on 8 prompts ("),
    ):
        refusal = ended(start("resume=auto", override), 2)
        assert said.format(run=tmp_path / "run") in refusal
        assert len(lines(tmp_path / "run")) == 2


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.optim=sgd", r'trainer.optim="sgd", runs/x was trained with null: the optimizer'),
        ("method=kimi", "the state is another method's"),
        ("peft=lora", "the adapter has another shape"),
        ("model.dtype=float16", "the weights would be another type's"),
        ("trainer.steps_per_generation=2", "rollouts would be used twice or never"),
    ],
)
def test_settings_are_refused_by_name(override, said):
    saved, now = (experiment(resolved(compose(["run.dir=x", *overrides]))) for overrides in ([], [override]))
    with pytest.raises(UserError, match=said):
        check_settings("runs/x", saved, now)
    assert check_settings("runs/x", saved, saved) == []


def test_what_does_not_matter_is_not_told_and_shards_keep_their_optimizer():
    saved, now = (
        experiment(resolved(compose(["run.dir=x", *own]))) for own in ([], ["run.progress=false", "resume=auto"])
    )
    assert check_settings("runs/x", saved, now) == []
    now = experiment(resolved(compose(["run.dir=x", "trainer.weight_decay=0.5"])))
    assert check_settings("runs/x", saved, now) == ["trainer.weight_decay=0.5 takes effect, it was 0.0"]
    with pytest.raises(UserError, match="DeepSpeed's shards of the optimizer hold the old value"):
        check_settings("runs/x", saved, now, in_shards=True)


def test_settings_that_may_change_take_effect_from_the_next_step(tmp_path, start):
    run = tmp_path / "run"
    ended(start("trainer.max_steps=4", "trainer.learning_rate=1e-4"))
    changed = ["trainer.max_steps=10", "trainer.learning_rate=1e-5", "trainer.save_steps=3", "trainer.weight_decay=0.5"]
    said = ended(start("resume=auto", *changed))
    for text in (
        "trainer.learning_rate=1e-05 takes effect, it was 0.0001",
        "trainer.max_steps=10 takes effect, it was 4",
        "trainer.save_steps=3 takes effect, it was 2",
        "trainer.weight_decay=0.5 takes effect, it was 0.0",
    ):
        assert text in said
    rates = [line["learning_rate"] for line in lines(run)]
    assert rates[:4] == pytest.approx([1e-4 * (4 - step) / 4 for step in range(4)])
    assert rates[4:] == pytest.approx([1e-5 * (10 - step) / 10 for step in range(4, 10)])
    assert checkpoint.steps(run) == [9, 10]
    optimizer = torch.load(run / "checkpoint-10" / "optimizer.pt", weights_only=True)
    assert {group["weight_decay"] for group in optimizer["param_groups"]} <= {0.5, 0.0}
    assert 0.5 in [group["weight_decay"] for group in optimizer["param_groups"]]


def test_the_last_save_is_made_good_by_the_next_resume(tmp_path, start):
    run = tmp_path / "run"
    ended(start("trainer.max_steps=2"))
    for name in ("model", "summary.json"):
        path = run / name
        path.rename(tmp_path / name)
    (run / ".staging" / "model").mkdir(parents=True)
    (run / ".staging" / "model" / "model.safetensors").write_bytes(b"half")
    ended(start("trainer.max_steps=2", "resume=auto"))
    assert (run / "model" / "model.safetensors").read_bytes() == (tmp_path / "model" / "model.safetensors").read_bytes()
    assert not (run / ".staging").exists()
    assert (run / "summary.json").exists()


def test_the_table_in_the_docs_names_every_setting_that_is_refused():
    text = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text()
    table = text[text.index("<!-- settings -->") : text.index("<!-- /settings -->")]
    rows = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in table.splitlines() if line[:2] == "| "}
    for pattern, reason in REFUSED.items():
        (said,) = [text for names, text in rows.items() if f"`{pattern}`" in names]
        assert said.startswith(f"refused: {reason}"), pattern
    for pattern in REFUSED_IN_SHARDS:
        (said,) = [text for names, text in rows.items() if f"`{pattern}`" in names]
        assert "refused under DeepSpeed" in said


class FullDisk:
    """A trainer whose model does not fit on the disk."""

    def save_model(self, folder: str) -> None:
        Path(folder).mkdir(parents=True)
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_a_last_save_that_fails_is_one_line_and_leaves_no_half_model(tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "model.safetensors").write_bytes(b"of an earlier end")
    with pytest.raises(UserError, match=r"run/model cannot be saved \(No space left on device\): free some space"):
        save_model(FullDisk(), tmp_path / "run")
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == b"of an earlier end"
    with pytest.raises(UserError, match="gone/model cannot be saved: its folder was removed; bring it back and go on"):
        save_model(FullDisk(), tmp_path / "gone")
    assert not (tmp_path / "gone").exists()
