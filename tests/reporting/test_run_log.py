"""The run folder: exact round trips, cuts on resume, damage named."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import math
import signal
import zlib
from collections.abc import Iterator
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from concise_rl.batch import RolloutBatch
from concise_rl.errors import DataError, UserError
from concise_rl.reporting import run_log
from concise_rl.reporting.run_log import RunLog, batch_from_json, batch_to_json, read_metrics, read_rollouts

from .fake import fake_batch, fake_run, feed

TENSORS = (
    *("lengths", "truncated", "correct", "scorable", "task_reward", "think_lengths"),
    *("think_entropy", "answer_entropy", "mean_entropy", "entropies", "logprobs"),
)
float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
float64 = st.floats(allow_nan=False, allow_infinity=False)


def assert_same(a: RolloutBatch, b: RolloutBatch) -> None:
    for name in TENSORS:
        left, right = getattr(a, name), getattr(b, name)
        if left is None or right is None:
            assert left is right, name
        else:
            assert left.dtype == right.dtype, name
            assert torch.equal(left, right), name
    assert (a.prompt_keys, a.group_size, a.step, dict(a.columns)) == (
        b.prompt_keys,
        b.group_size,
        b.step,
        dict(b.columns),
    )
    assert a.parts.keys() == b.parts.keys()
    assert all(torch.equal(a.parts[name], b.parts[name]) for name in a.parts)
    assert a.costs.keys() == b.costs.keys()
    assert all(torch.equal(a.costs[name], b.costs[name]) for name in a.costs)


def through_text(batch: RolloutBatch) -> RolloutBatch:
    return batch_from_json(json.loads(json.dumps(batch_to_json(batch), allow_nan=False)))


@pytest.mark.parametrize("seed", range(5))
def test_a_batch_comes_back_bit_for_bit(seed: int) -> None:
    batch = fake_batch(seed, step=seed, tokens=bool(seed % 2))
    assert_same(batch, through_text(batch))


@settings(max_examples=150, deadline=None)
@given(rewards=st.lists(float64, min_size=2, max_size=2), tokens=st.lists(float32, min_size=6, max_size=6))
def test_every_float_survives(rewards: list[float], tokens: list[float]) -> None:
    # The second row is shorter than T: whatever stands in its padding must come back too.
    rewards_N = torch.tensor(rewards, dtype=torch.float64)
    batch = RolloutBatch.of(
        prompt_keys=("p",),
        group_size=2,
        lengths=[3, 1],
        correct=[True, False],
        task_reward=rewards_N,
        mean_entropy=rewards_N,
        parts={"x": rewards_N},
        entropies=torch.tensor(tokens, dtype=torch.float32).reshape(2, 3),
    )
    assert_same(batch, through_text(batch))


def test_padding_is_not_stored() -> None:
    batch = fake_batch(3)
    stored = batch_to_json(batch)["entropies"]["rows"]
    assert [len(zlib.decompress(base64.b64decode(row))) // 4 for row in stored] == batch.lengths.tolist()


def test_token_fields_that_were_not_packed_are_read() -> None:
    batch = fake_batch(3)
    content = batch_to_json(batch)
    for name in ("entropies", "logprobs"):
        field = content[name]
        del field["packed"]
        field["rows"] = [base64.b64encode(zlib.decompress(base64.b64decode(r))).decode() for r in field["rows"]]
    assert_same(batch, batch_from_json(content))


@pytest.mark.parametrize("packed", [zlib.compress(b"\0" * 10**7), zlib.compress(b"\0" * 8)[:-1], b"no zlib"])
def test_a_row_that_is_too_long_or_torn_is_refused(packed: bytes) -> None:
    content = batch_to_json(fake_batch(3))
    content["entropies"]["rows"][0] = base64.b64encode(packed).decode()
    with pytest.raises(ValueError, match=r"row of more than|not zlib"):
        batch_from_json(content)


@pytest.mark.parametrize("token_credit", [False, True])
def test_steps_come_back(tmp_path, token_credit: bool) -> None:
    log = RunLog(tmp_path)
    records = list(fake_run(3, token_credit=token_credit))
    feed(log, records)
    stored = list(read_rollouts(tmp_path))
    assert [step.step for step in stored] == [1, 2, 3]
    for record, step in zip(records, stored, strict=True):
        assert_same(record.batch, step.batch)
        assert torch.equal(record.reward, step.reward)
        assert torch.equal(record.credit, step.credit)
        assert (record.prompts, record.completions) == (step.prompts, step.completions)
    for record, line in zip(records, read_metrics(tmp_path), strict=True):
        assert line.pop("time") > 0
        assert line == record.metrics | {"step": record.batch.step + 1}


def test_a_resumed_run_writes_what_an_uninterrupted_one_writes(tmp_path) -> None:
    whole, resumed = RunLog(tmp_path / "whole"), RunLog(tmp_path / "resumed")
    feed(whole, fake_run(6))
    feed(resumed, islice(fake_run(6), 5))
    for name in (run_log.METRICS_FILE, run_log.ROLLOUTS_FILE):
        with (resumed.folder / name).open("ab") as file:
            file.write(b'{"step": 6, "torn')
    resumed = RunLog(tmp_path / "resumed")
    resumed.truncate_after(3)
    assert [step.step for step in read_rollouts(resumed.folder)] == [1, 2, 3]
    feed(resumed, fake_run(6, start=3))
    assert (whole.folder / "rollouts.jsonl").read_bytes() == (resumed.folder / "rollouts.jsonl").read_bytes()
    lines = [[line | {"time": 0} for line in read_metrics(log.folder)] for log in (whole, resumed)]
    assert lines[0] == lines[1]
    resumed.truncate_after(0)
    assert read_metrics(resumed.folder) == []


def test_a_cut_beyond_the_end_drops_a_torn_line_alone(tmp_path) -> None:
    log = RunLog(tmp_path)
    feed(log, fake_run(2))
    path = tmp_path / run_log.METRICS_FILE
    path.write_bytes(path.read_bytes()[:-1])  # the last line lost nothing but its end
    log.truncate_after(99)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1]
    assert [step.step for step in read_rollouts(tmp_path)] == [1, 2]


def test_only_every_kth_rollout_is_kept(tmp_path) -> None:
    for every, steps in ((2, [1, 3, 5]), (0, [])):
        log = RunLog(tmp_path / str(every), every=every)
        feed(log, fake_run(5))
        assert [step.step for step in read_rollouts(log.folder)] == steps
        assert len(read_metrics(log.folder)) == 5


def test_a_damaged_line_is_named(tmp_path) -> None:
    log = RunLog(tmp_path)
    feed(log, fake_run(3))
    path = tmp_path / run_log.ROLLOUTS_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:500] + b"\n" + lines[2])
    with pytest.raises(DataError, match=r"rollouts\.jsonl, line 2 is damaged"):
        list(read_rollouts(tmp_path))
    with pytest.raises(DataError, match=r"rollouts\.jsonl, line 2"):
        log.truncate_after(2)
    path.write_bytes(lines[0].replace(b'"group_size": 4', b'"group_size": 5'))
    with pytest.raises(DataError, match=r"line 1 is damaged .*group_size"):
        list(read_rollouts(tmp_path))


def test_numbers_that_are_not_finite_are_null(tmp_path) -> None:
    credit = next(fake_run(1)).credit.clone()
    credit[0] = math.nan
    metrics = {"loss": math.nan, "grad_norm": math.inf, "accuracy": torch.tensor(0.5)}
    record = dataclasses.replace(next(fake_run(1)), metrics=metrics, credit=credit)
    log = RunLog(tmp_path)
    feed(log, [record])
    text = (tmp_path / "metrics.jsonl").read_text() + (tmp_path / "rollouts.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    (line,) = read_metrics(tmp_path)
    assert math.isnan(line["loss"])
    assert line["accuracy"] == 0.5
    (step,) = read_rollouts(tmp_path)
    assert torch.equal(step.credit.isnan(), record.credit.isnan())


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """A real failed write: the kernel takes bytes up to the limit and then refuses."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_earlier_lines_and_files_intact(tmp_path) -> None:
    log = RunLog(tmp_path)
    log.write_summary({"before": {"accuracy": 0.9, "bad": math.nan}})
    first, second = fake_run(2)
    feed(log, [first])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with (
        no_file_larger_than(len(before["rollouts.jsonl"]) + 10),
        pytest.raises(UserError, match=r"append to .*rollouts\.jsonl .*free some space"),
    ):
        feed(log, [second])
    with no_file_larger_than(10), pytest.raises(UserError, match=r"cannot write .*summary\.json .*free some space"):
        log.write_summary({"before": "something that is longer than ten bytes"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert run_log.read_summary(tmp_path) == {"before": {"accuracy": 0.9, "bad": None}}


def test_a_folder_that_cannot_be_written(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written .*choose another"):
        RunLog(tmp_path / "file" / "run")
    with pytest.raises(UserError, match="every=-1"):
        RunLog(tmp_path, every=-1)
    with pytest.raises(DataError, match="nowhere"):
        read_metrics(tmp_path / "nowhere")


def test_config_takes_what_a_config_holds(tmp_path) -> None:
    log = RunLog(tmp_path)
    log.write_config({"path": tmp_path, "betas": (0.9, 0.95), "seeds": {1}, "n": SimpleNamespace(tolist=lambda: 3)})
    assert run_log.read_config(tmp_path) == {"path": str(tmp_path), "betas": [0.9, 0.95], "seeds": [1], "n": 3}


def test_rollouts_of_an_earlier_version_are_refused_in_one_line(tmp_path) -> None:
    (tmp_path / "rollouts.jsonl").write_text('{"step": 1, "batch": {"prompt_ids": ["a"], "group_size": 1}}\n')
    with pytest.raises(DataError, match=r"rollouts\.jsonl was written by an earlier concise_rl: train the run again"):
        next(read_rollouts(tmp_path))
