"""The witness of the soak sees a rollout that was used twice, never, or out of place."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest

from benchmarks import witness
from concise_rl.engine import checkpoint
from concise_rl.reporting.run_log import RunLog
from tests.reporting.fake import fake_run

STEPS = 4
TWO_EPOCHS = [("a", "b"), ("c", "d"), ("d", "a"), ("b", "c")]


def finished_run(folder, *, drawn=TWO_EPOCHS, consumed=range(STEPS)):
    """A run whose prompts were these, and whose state consumed these of its steps; faults as the witness tells them."""
    log = RunLog(folder)
    shaper, state, batches = witness.Witness(), [], []
    for step, (record, prompts) in enumerate(zip(fake_run(STEPS), drawn, strict=True)):
        record = dataclasses.replace(
            record,
            batch=record.batch.take_prompts([0, 1]).replace(prompt_keys=prompts),
            reward=record.reward[:8],
            credit=record.credit[:8],
            prompts=record.prompts[:2],
            completions=record.completions[:8],
            finishes=record.finishes[:8],
        )
        log.on_rollouts(record)
        log.on_metrics(step + 1, {"loss": 0.0})
        batches.append(record.batch)
    for step in consumed:
        _, state = shaper(batches[step], batches[step].task_reward, state)
    last = checkpoint.staging_dir(folder) / f"checkpoint-{STEPS}"
    last.mkdir(parents=True)
    keys = [f"{random.Random(key).getrandbits(64):016x}" for key in "abc"]  # a curriculum's, which look like digests
    checkpoint.save_state(last, {"curriculum.readmit": {"out": keys}, "shaper.Witness": state}, {"step": STEPS})
    checkpoint.publish(last, folder / last.name)
    return witness.faults(folder, folder / last.name, STEPS, prompts=4)


def test_a_run_that_used_each_rollout_once_has_no_fault(tmp_path):
    assert finished_run(tmp_path) == []


@pytest.mark.parametrize("consumed", [[0, 1, 1, 2, 3], [0, 2, 3], [0, 2, 1, 3]])
def test_a_rollout_used_twice_never_or_out_of_place_is_seen(tmp_path, consumed):
    (fault,) = finished_run(tmp_path, consumed=consumed)
    assert fault.startswith("what the state consumed is not what is logged")


def test_a_prompt_drawn_twice_in_an_epoch_is_seen(tmp_path):
    drawn = [*TWO_EPOCHS[:2], ("d", "a"), ("a", "c")]
    assert finished_run(tmp_path, drawn=drawn) == ["epoch 2 draws 1 of 4 prompts twice, and as many never"]


def test_steps_that_are_logged_twice_and_checkpoints_that_cannot_be_used_are_seen(tmp_path):
    finished_run(tmp_path)
    for name in ("rollouts.jsonl", "metrics.jsonl"):
        path = tmp_path / name
        path.write_text(path.read_text() + path.read_text().splitlines()[-1] + "\n")
    torn = tmp_path / "checkpoint-9"
    torn.mkdir()
    found = witness.faults(tmp_path, tmp_path / f"checkpoint-{STEPS}", STEPS, prompts=None)
    assert found[0] == "the rollouts of steps [1, 2, 3, 4, 4] are logged"
    assert found[1] == "the metrics of steps [1, 2, 3, 4, 4] are logged"
    assert found[2].startswith(f"checkpoint {torn} is skipped: no concise_manifest.json")
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 4
