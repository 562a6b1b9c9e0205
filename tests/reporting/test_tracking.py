"""A tracker is a guest: it works offline, has one set of names, and whatever goes wrong in it stops nothing."""

from __future__ import annotations

import importlib.util
import json
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from concise_rl.errors import UserError
from concise_rl.evaluation.validation import entry_of
from concise_rl.reporting.session import Session
from concise_rl.reporting.tracking import BACKENDS, TrackedRun, Tracker, backends, check_tracker, tracked_name

from .compare.fake import evaluation
from .fake import fake_run, feed

NAMES = ("train/accuracy", "method/shaper/mean_gain", "eval/accuracy")


@pytest.fixture
def offline_home(tmp_path, monkeypatch):
    """No key, no settings of the person who runs the tests, and no server."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "MLFLOW_TRACKING_URI", "TRACKIO_SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "TRACKIO_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def followed(name: str, folder: Path) -> list[str]:
    """A run of three steps and two evaluations under a tracker; what it warned of."""
    warnings: list[str] = []
    run = TrackedRun(
        folder, "abc123", "a-run", group="sweep", tags=["short"], config={"seed": 0, "method": {"name": "x"}}
    )
    tracker = Tracker(name, BACKENDS[name](), run, completions_every=2, warn=warnings.append)
    start = evaluation()
    tracker.on_validation(entry_of(0, start, start))
    for record in fake_run(3):
        tracker.on_rollouts(record)
        if record.batch.step == 1:
            tracker.on_validation(entry_of(2, evaluation(saving=0.5), start))
        tracker.on_metrics(record.batch.step + 1, record.metrics)
    assert tracker.active, warnings
    tracker.finish({"after": {"accuracy": 0.9, "by_difficulty": {}}, "headline": "shorter"})
    assert not tracker.active
    return warnings


def test_wandb_without_a_key_is_written_offline(offline_home) -> None:
    pytest.importorskip("wandb")
    (warning,) = followed("wandb", offline_home)
    assert "wandb sync" in warning
    (run,) = (offline_home / "wandb").glob("offline-run-*-abc123")
    deadline = time.monotonic() + 30  # its own process writes the file
    while not all(name.encode() in next(run.glob("*.wandb")).read_bytes() for name in NAMES):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert len(list(run.rglob("completions*.table.json"))) == 2


def test_trackio_is_written_to_this_machine(offline_home) -> None:
    pytest.importorskip("trackio")
    assert followed("trackio", offline_home) == []
    content = b"".join(path.read_bytes() for path in (offline_home / "home").rglob("*.db*"))
    for name in NAMES:
        assert name.encode() in content


def test_tensorboard_is_written_into_the_run_folder(offline_home) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert followed("tensorboard", offline_home) == []
    found = EventAccumulator(str(offline_home / "tensorboard")).Reload()
    assert set(NAMES) <= set(found.Tags()["scalars"])
    assert [event.step for event in found.Scalars("train/accuracy")] == [1, 2, 3]
    assert [event.step for event in found.Scalars("eval/accuracy")] == [0, 2]
    (table, _) = found.Tensors("completions/text_summary")
    assert "| `1` | `0 + 4 = ?` |" in table.tensor_proto.string_val[0].decode()


@pytest.mark.parametrize("server", ["", "http://127.0.0.1:9"])
def test_mlflow_is_written_to_this_machine_where_no_server_answers(offline_home, monkeypatch, server) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(server or None)
    assert [("mlruns" in warning) for warning in followed("mlflow", offline_home)] == [True] * bool(server)
    own = mlflow.get_tracking_uri()
    in_folder = server or (own.startswith("sqlite:") and importlib.util.find_spec("sqlalchemy") is None)
    client = mlflow.MlflowClient(f"file:{offline_home / 'mlruns'}" if in_folder else own)
    (run,) = client.search_runs([client.get_experiment_by_name("concise-rl").experiment_id])
    assert run.info.run_name == "a-run"
    assert run.data.params["method.name"] == "x"
    assert set(NAMES) <= run.data.metrics.keys()
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "eval/mean_tokens")] == [0, 2]
    assert run.data.metrics["after/accuracy"] == 0.9


def test_names_tell_training_from_the_method() -> None:
    assert tracked_name("accuracy") == "train/accuracy"
    assert tracked_name("hapo/known_frac") == "method/hapo/known_frac"
    assert tracked_name("completions/mean_length") == "train/completions/mean_length"


class Raises:
    """A tracking library that fails at one of its calls."""

    def __init__(self, at: str) -> None:
        self.at, self.calls = at, list[str]()

    def __getattr__(self, name: str) -> Callable[..., None]:
        def call(*_: object) -> None:
            self.calls.append(name)
            if name == self.at:
                raise ConnectionError("lost\nnetwork")

        return call


@pytest.mark.parametrize("at", ["start", "log", "log_table", "finish"])
def test_a_tracker_that_raises_is_one_warning_and_ends_no_run(tmp_path, monkeypatch, at) -> None:
    library = Raises(at)
    monkeypatch.setitem(BACKENDS, "wandb", lambda: library)
    session = Session(
        "t", tmp_path, total_steps=4, active=True, show_progress=False,
        tracking={"tracker": "wandb", "project": "p", "name": "n", "group": None, "tags": [], "completions_every": 1},
    )  # fmt: skip
    warnings: list[str] = []
    session.progress.message = warnings.append  # type: ignore[method-assign]
    with session.training({"method": {"name": "m"}}, step=0):
        for record in fake_run(4):
            for sink in session.sinks:
                feed(sink, [record])
    session.finish(None, None)
    assert [text for text in warnings if "wandb" in text] == [
        "warning: wandb is off for the rest of this run (ConnectionError: lost network)"
    ]
    assert library.calls[-1] == at, "nothing is asked of it afterwards"
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 4
    assert (tmp_path / "report.html").exists()


def test_a_resumed_run_is_the_same_run_for_a_tracker(tmp_path, monkeypatch) -> None:
    seen: list[TrackedRun] = []

    class Library(Raises):
        def start(self, run: TrackedRun, warn: object) -> None:
            seen.append(run)

    monkeypatch.setitem(BACKENDS, "wandb", lambda: Library(""))
    tracking = {"tracker": "wandb", "project": "p", "name": "n", "group": None, "tags": [], "completions_every": 0}
    for step, name in ((0, "n"), (3, "n-longer"), (0, "n")):
        session = Session(
            "t",
            tmp_path,
            total_steps=4,
            active=True,
            show_progress=False,
            name=name,
            tracking=tracking | {"name": name},
        )
        with session.training({"trainer": {}}, step=step):
            pass
        session.close()
    assert seen[0].id == seen[1].id != seen[2].id, "a new start is another run"
    assert [run.step for run in seen] == [0, 3, 0]
    assert [run.name for run in seen] == ["n", "n", "n"], "it keeps its name under other settings"
    assert len(json.loads((tmp_path / "run.json").read_text())["starts"]) == 1


def test_a_tracker_that_is_not_there_is_refused_with_the_remedy(monkeypatch) -> None:
    with pytest.raises(UserError, match=r"tracking\.tracker='tb': choose tracking=none or one of wandb, trackio,"):
        check_tracker("tb")
    monkeypatch.setitem(sys.modules, "trackio", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"tracking=trackio needs the package trackio: pip install 'concise-rl\[track"):
        check_tracker("trackio")


def test_online_needs_a_server_that_answers(monkeypatch) -> None:
    monkeypatch.setattr(backends, "_CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert backends.reachable(f"http://127.0.0.1:{port}")
    assert not backends.reachable(f"http://127.0.0.1:{port}")
