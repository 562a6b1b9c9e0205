"""`vllm serve` on this CPU: what it samples for training over HTTP, and what evaluations ask of it.

The weights of a trainer reach the server in a file in place of NCCL (cpu/vllm_on_cpu.py); everything else is the way of
`vllm_mode=server`.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from concise_rl.assets import TINY
from concise_rl.commands.config import compose, trainer_fields
from concise_rl.commands.served import DEVELOPMENT, server_arguments
from concise_rl.commands.train import build_trainer
from concise_rl.engine.trainer import ConciseConfig
from concise_rl.evaluation import Mode, evaluate
from concise_rl.evaluation.backends import HTTPBackend, TransformersBackend, VLLMBackend
from concise_rl.model.loading import load_model, load_tokenizer
from concise_rl.testbeds import ChainSum
from concise_rl.verifiers import Exact
from tests.engine.conftest import SMALL, Recorder
from tests.engine.jobs import ENVIRONMENT, kill_group

from .conftest import SMALL_ENGINE, Watched
from .test_colocate import SAME

START_SECONDS = 240
GREEDY = {"max_new_tokens": 96, "temperature": 0.0, "seed": 0}
SMALL_SERVER = ("--enforce-eager", "--max-model-len", "256", "--kv-cache-memory-bytes", str(2**26))
SMALL_SERVER += ("--data-parallel-size", "2")  # each replica must get every weight


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The server that `launch/gpu8_server.sh` would start, with files for NCCL; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = server_arguments(compose(["run=gpu8_server", "model=tiny", "trainer.bf16=false"]))
    arguments[arguments.index("--weight-transfer-config") + 1] = json.dumps({"backend": "file"})
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", *arguments, *SMALL_SERVER]
    log = tmp_path_factory.mktemp("server") / "log"
    environment = ENVIRONMENT | DEVELOPMENT
    with log.open("w") as said:
        job = subprocess.Popen(
            [*command, "--port", str(port)], stdout=said, stderr=said, env=environment, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(address, job, log)
        yield address
    finally:
        kill_group(job.pid)
        job.wait()


def wait_for(address: str, job: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and job.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text()[-3000:])


@pytest.fixture
def through_files(monkeypatch, tmp_path):
    """TRL's client sends weights through a file: it refuses a CPU, for which NCCL has nothing."""
    from trl.generation import vllm_client
    from vllm_on_cpu import Sender

    folder = tmp_path / "weights"
    folder.mkdir()

    def init(self, device=0):
        self._post(f"{self.base_url}/init_weight_transfer_engine", json={"init_info": {"folder": str(folder)}})
        sender = Sender(folder)
        monkeypatch.setattr(vllm_client, "packed_nccl_broadcast_producer", lambda iterator, **_: sender.send(iterator))

    monkeypatch.setattr(vllm_client.VLLMClient, "init_communicator", init)


def train(server: str, folder: Path, *overrides: str) -> tuple[Watched, Recorder]:
    fields = ("trainer.use_vllm=true", "trainer.vllm_mode=server", f"trainer.vllm_server_base_url={server}")
    composed = compose([*SMALL, *fields, "trainer.learning_rate=1e-3", *overrides])
    model, tokenizer, seen = load_model(composed.model), load_tokenizer(composed.model), Recorder()
    args = ConciseConfig(output_dir=str(folder), **trainer_fields(composed))
    Watched.written = []
    prompts = ChainSum().load("train")
    trainer = build_trainer(composed, args, model, tokenizer, prompts, kind=Watched, sinks=[seen])
    trainer.train()
    return trainer, seen


@pytest.mark.parametrize(
    "overrides",
    [
        ("method=hapo",),
        ("method=thinking_budget", "sampler.thinking_budget.budget=10", "zero_variance=refill"),
    ],
)
def test_every_weight_reaches_the_server(server, through_files, tmp_path, overrides):
    trainer, seen = train(server, tmp_path / "run", *overrides)
    assert len(trainer.gaps()) == len(seen.records) == 2
    assert max(trainer.gaps()) < SAME
    # Four prompts: were a group sampled from one seed, each step would have four different rows. A budget of 10 tokens
    # leaves so few choices that one step may have no more by chance.
    different = [len(output["completion_ids"].unique(dim=0)) for output in trainer.written]
    assert max(different) > 4, "rows of a group differ"


def test_without_the_sync_the_server_would_lag(server, through_files, tmp_path, monkeypatch):
    from trl.generation.vllm_generation import VLLMGeneration

    train(server, tmp_path / "first", "method=grpo", "trainer.max_steps=1")  # other weights than before
    monkeypatch.setattr(VLLMGeneration, "sync_weights", lambda self: None)
    trainer, _ = train(server, tmp_path / "run", "method=grpo")
    assert trainer.gaps()[-1] > 10 * SAME


# --- evaluation -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(compose(["model=tiny"]).model)


@pytest.fixture(scope="module")
def expected(tokenizer):
    """What transformers says to each problem, greedily, in each mode."""
    model = load_model(compose(["model=tiny"]).model)
    return {name: answers(TransformersBackend(model, tokenizer), tokenizer, mode) for name, mode in MODES.items()}


MODES = {"full": Mode.as_trained(), "truncated": Mode.truncated(12), "forced": Mode.forced(12)}


def problems():
    return ChainSum().load("test")[:12]


def answers(backend, tokenizer, mode, **more):
    made = evaluate(backend, tokenizer, problems(), Exact(), mode=mode, **GREEDY, **more)
    return [(row.completion, row.length, row.think_length, row.truncated) for row in made.rows]


@pytest.fixture(scope="module")
def local():
    with pytest.MonkeyPatch.context() as here:
        here.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # two processes less to start
        yield VLLMBackend(str(TINY), dtype="float32", wave_rows=5, engine=SMALL_ENGINE)


@pytest.mark.parametrize("mode", MODES)
def test_vllm_is_transformers_token_by_token(local, tokenizer, expected, mode):
    assert answers(local, tokenizer, MODES[mode]) == expected[mode]


@pytest.mark.parametrize("mode", MODES)
def test_a_server_is_transformers_token_by_token(server, through_files, tokenizer, expected, tmp_path, mode):
    train(server, tmp_path / "run", "method=grpo", "trainer.learning_rate=0", "trainer.max_steps=1")
    backend = HTTPBackend(f"{server}/v1", str(TINY), concurrency=4)
    assert answers(backend, tokenizer, MODES[mode]) == expected[mode]


def test_an_evaluation_goes_on_where_it_stopped(local, tokenizer, tmp_path):
    whole, torn = tmp_path / "whole.jsonl", tmp_path / "torn.jsonl"
    answers(local, tokenizer, Mode.as_trained(), store=whole)
    lines = whole.read_bytes().splitlines(keepends=True)
    torn.write_bytes(b"".join(lines[:5]) + lines[5][:20])
    answers(local, tokenizer, Mode.as_trained(), store=torn)
    assert torn.read_bytes() == whole.read_bytes()
