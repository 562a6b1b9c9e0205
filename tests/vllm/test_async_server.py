"""`ServerTrainer` on a real `vllm serve`, over all of TRL's HTTP end points; weights go through a file, not by NCCL."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch

from concise_rl.engine.async_worker import RolloutWorker
from concise_rl.engine.server_trainer import ServerTrainer
from concise_rl.verifiers import Exact
from tests.engine.conftest import Recorder
from tests.engine.test_async import AtStep, off_by
from tests.engine.test_async_worker import config
from tests.engine.test_epochs import few_prompts

from .test_colocate import SAME
from .test_server import server

__all__ = ["server"]  # a fixture

TEMPERATURE, STEPS = 1.3, 5


@pytest.fixture
def through_files(monkeypatch, tmp_path):
    from trl.experimental.async_grpo import weight_transfer
    from vllm_on_cpu import Sender

    folder = tmp_path / "weights"
    folder.mkdir()
    sender = Sender(folder)

    def init(self):
        self.vllm.wait_for_server_ready()
        self.vllm.init_weight_transfer_engine({"folder": str(folder)})
        self.model_update_group = SimpleNamespace(group=SimpleNamespace())

    monkeypatch.setattr(weight_transfer.WeightTransferClient, "init_weight_transfer", init)
    monkeypatch.setattr(weight_transfer, "packed_nccl_broadcast_producer", lambda iterator, **_: sender.send(iterator))


def distances(model, weights, made) -> list[torch.Tensor]:
    """Of each row (T,), how far its tokens' log-probs are from those of these weights, in nats."""
    model.load_state_dict(weights)
    return [off_by(model, prompt, row, TEMPERATURE) for prompt, row in zip(made.prompt_ids, made.rows, strict=True)]


def test_rows_are_of_the_weights_that_they_name_or_newer_ones(server, through_files, tmp_path, monkeypatch):
    made, weights, seen = {}, {}, Recorder()
    at = RolloutWorker.at
    monkeypatch.setattr(RolloutWorker, "at", lambda self, step: made.setdefault(step, at(self, step)))
    args = config(
        tmp_path / "run", vllm_server_base_url=server, temperature=TEMPERATURE, max_staleness=2, max_steps=STEPS
    )
    trainer = ServerTrainer(
        "embedded:tiny", method="hapo", train_dataset=few_prompts(), args=args, verifier=Exact(), sinks=[seen]
    )
    trainer.add_callback(AtStep(lambda step: weights.update({step: copy.deepcopy(trainer.model.state_dict())})))
    trainer.train()
    assert seen.metrics[0]["ratio"] == pytest.approx(1, abs=1e-3)
    assert max(line["staleness"] for line in seen.metrics) <= 2
    with trainer.generation_model() as model:
        # Weights may change within a row, whose later tokens then attend to states of the old ones: of one version for
        # certain are the first token of every row, and all of step 0, without which no weights change.
        for step, own in made.items():
            possible = range(own.version - 1, step + 1)
            first = torch.tensor([[row[0] for row in distances(model, weights[v], own)] for v in possible])
            assert float(first.amin(dim=0).max()) < SAME, (step, own.version, first)
        assert float(torch.cat(distances(model, weights[0], made[0])).max()) < SAME
        newest = torch.cat(distances(model, weights[0], made[STEPS - 1]))
        assert float(newest.max()) > 10 * SAME, "the server has newer weights by then"
