"""A tiny set-up that trains in seconds: the embedded model, a few problems, a handful of tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from concise_rl.commands.config import compose, trainer_fields
from concise_rl.commands.train import build_trainer
from concise_rl.engine.trainer import ConciseConfig, ConciseTrainer
from concise_rl.model.loading import load_model, load_tokenizer
from concise_rl.testbeds import ChainSum

from .ranks import launch

SMALL = (
    "trainer.per_device_train_batch_size=16",
    "trainer.num_generations=4",
    "trainer.max_completion_length=48",
    "trainer.max_steps=2",
    "trainer.save_strategy=no",
    "trainer.lr_scheduler_type=constant",
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Recorder:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.metrics: list[dict[str, float]] = []

    def on_rollouts(self, record: Any) -> None:
        self.records.append(record)

    def on_metrics(self, step: int, metrics: dict[str, float]) -> None:
        self.metrics.append({"step": step} | metrics)


@pytest.fixture
def make_trainer(tmp_path: Path) -> Any:
    """`make_trainer("method=hapo", ...)` gives (trainer, recorder) on the embedded model."""

    def make(*overrides: str, **kwargs: Any) -> tuple[ConciseTrainer, Recorder]:
        composed = compose([*SMALL, *overrides])
        model, tokenizer, recorder = load_model(composed.model), load_tokenizer(composed.model), Recorder()
        args = ConciseConfig(output_dir=str(tmp_path / "run"), **trainer_fields(composed))
        prompts = ChainSum().load("train")
        trainer = build_trainer(composed, args, model, tokenizer, prompts, sinks=[recorder], **kwargs)
        return trainer, recorder

    return make


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run of a method on one rank, made once."""
    made: dict[str, Path] = {}

    def run(method: str) -> Path:
        if method not in made:
            made[method] = tmp_path_factory.mktemp("ranks") / method
            launch(made[method], "one", method)
        return made[method]

    return run
