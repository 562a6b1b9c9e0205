"""W&B is a guest: offline by itself, and whatever goes wrong in it stops nothing."""

from __future__ import annotations

import socket
import sys

import pytest

from concise_rl.reporting import tracking
from concise_rl.reporting.tracking import WandbSink, reachable

from .fake import fake_run, feed


@pytest.fixture
def offline_home(tmp_path, monkeypatch):
    """No key, no settings of the person who runs the tests, and a net that nobody may touch."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path


def test_without_a_key_the_run_is_written_offline(offline_home) -> None:
    pytest.importorskip("wandb")
    warnings: list[str] = []
    sink = WandbSink(offline_home, config={"seed": 0}, name="t", completions_every=2, warn=warnings.append)
    assert sink.active
    feed(sink, fake_run(3))
    sink.finish({"after": {"accuracy": 0.9}})
    assert not sink.active
    assert len(warnings) == 1
    assert "wandb sync" in warnings[0]
    (run,) = (offline_home / "wandb").glob("offline-run-*")
    assert next(run.glob("*.wandb")).stat().st_size > 0
    assert len(list(run.rglob("completions*.table.json"))) == 2


def test_the_first_failure_is_one_warning_and_the_end_of_it(offline_home, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    warnings: list[str] = []
    sink = WandbSink(offline_home, warn=warnings.append)
    assert len(warnings) == 1
    assert "off for the rest of this run" in warnings[0]
    feed(sink, fake_run(3))
    sink.finish({})
    assert len(warnings) == 1


def test_a_failure_in_the_middle_stops_nothing(offline_home, monkeypatch) -> None:
    class Broken:
        calls = 0

        def log(self, *_, **__) -> None:
            Broken.calls += 1
            if Broken.calls == 2:
                raise ConnectionError("lost\nnetwork")

    def start(self: WandbSink, *_) -> None:
        self._run = Broken()

    monkeypatch.setattr(WandbSink, "_start", start)
    warnings: list[str] = []
    sink = WandbSink(offline_home, completions_every=0, warn=warnings.append)
    feed(sink, fake_run(5))
    sink.finish()
    assert Broken.calls == 2
    assert warnings == ["wandb is off for the rest of this run (ConnectionError: lost network)"]


def test_online_needs_a_key_and_a_server_that_answers(monkeypatch) -> None:
    monkeypatch.setattr(tracking, "_CONNECT_SECONDS", 0.5)
    assert not reachable(None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        assert reachable("key")
    assert not reachable("key")
