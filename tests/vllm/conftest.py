"""vLLM on this CPU, in an environment of its own: `make test-vllm`. The other tests have none, and skip these."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from concise_rl.commands.config import compose, trainer_fields
from concise_rl.commands.train import build_trainer
from concise_rl.engine.trainer import ConciseConfig, ConciseTrainer
from concise_rl.model.loading import load_model, load_tokenizer
from concise_rl.testbeds import ChainSum
from tests.engine.conftest import SMALL, Recorder

COLOCATED = ("trainer.use_vllm=true", "trainer.vllm_mode=colocate", "trainer.learning_rate=1e-3")
SMALL_ENGINE = {"enforce_eager": True, "max_model_len": 256, "kv_cache_memory_bytes": 2**26}
DISTRIBUTED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True, scope="session")
def _vllm() -> None:
    pytest.importorskip("vllm", reason="vLLM for CPUs is not installed here: make test-vllm")


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    for name in DISTRIBUTED:  # TRL sets them where vLLM samples in the trainer's process
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "ERROR")


class Watched(ConciseTrainer):
    """Keeps what each generation wrote for the loss."""

    written: list[dict[str, Any]]

    def _write(self, output, *rest):
        super()._write(output, *rest)
        self.written.append(dict(output))

    def gaps(self) -> list[float]:
        """Of each generation, the largest difference of the sampler's log-probs and the trainer's, in nats."""
        return [gap(output) for output in self.written]


def gap(output: dict[str, Any]) -> float:
    mask = output["completion_mask"] * output.get("tool_mask", 1)
    return float(((output["old_per_token_logps"] - output["sampling_per_token_logps"]) * mask).abs().max())


def colocated(dtype: str = "float32") -> Any:
    """vLLM as TRL starts it in the trainer's process, as small as it goes."""
    from vllm import LLM

    return functools.partial(LLM, dtype=dtype, **SMALL_ENGINE)


@pytest.fixture
def make_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`make_trainer("method=hapo", ...)` gives (trainer, recorder), with vLLM in its process."""
    from trl.generation import vllm_generation

    def make(*overrides: str, dtype: str = "float32") -> tuple[Watched, Recorder]:
        monkeypatch.setattr(vllm_generation, "LLM", colocated(dtype))
        composed = compose([*SMALL, *COLOCATED, *overrides])
        model, tokenizer, recorder = load_model(composed.model), load_tokenizer(composed.model), Recorder()
        args = ConciseConfig(output_dir=str(tmp_path / "run"), **trainer_fields(composed))
        Watched.written = []
        prompts = ChainSum().load("train")
        return build_trainer(composed, args, model, tokenizer, prompts, kind=Watched, sinks=[recorder]), recorder

    return make
