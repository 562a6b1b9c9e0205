"""A run that is resumed after its first epoch draws what the undisturbed run drew: prompts, completions, weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from concise_rl.engine.order import EpochSampler
from concise_rl.engine.trainer import training_dataset
from concise_rl.methods.history import History
from concise_rl.model.loading import load_tokenizer
from concise_rl.testbeds import ChainSum

RULES = (
    "trainer.save_strategy=steps",
    "trainer.save_steps=1",
    "trainer.save_total_limit=null",
    "trainer.max_steps=8",
    "trainer.temperature=1.3",
)


def few_prompts(path: str = "embedded:tiny"):
    """Twelve problems: three steps of four prompts an epoch."""
    from types import SimpleNamespace

    spec = SimpleNamespace(path=path, revision=None, trust_remote_code=False)
    return training_dataset(ChainSum(train_size=12).load("train"), load_tokenizer(spec), None)


def test_the_order_of_an_epoch_is_that_of_trls_generator():
    sampler = EpochSampler(range(7), mini_repeat_count=1, batch_size=1, shuffle=True, seed=5)
    generator = torch.Generator().manual_seed(5)
    for epoch in range(4):
        sampler.set_epoch(epoch)
        assert list(sampler) == torch.randperm(7, generator=generator).tolist()
    sampler.set_epoch(1)
    assert list(sampler) == list(DataLoader(range(7), sampler=sampler, batch_size=None))


@pytest.mark.parametrize("method", ["hapo", "grpo"])
def test_resumed_inside_an_epoch_and_at_its_border(make_trainer, method):
    dataset = few_prompts()
    whole, seen = make_trainer(f"method={method}", *RULES, train_dataset=dataset)
    whole.train()
    folder = Path(whole.args.output_dir)
    orders = [tuple(record.batch.prompt_keys) for record in seen.records]
    assert set(orders[0] + orders[1] + orders[2]) == set(orders[3] + orders[4] + orders[5]), "an epoch has every prompt"
    assert orders[:3] != orders[3:6], "each epoch has an order of its own"
    for step in (3, 4, 7):
        resumed, again = make_trainer(f"method={method}", *RULES, train_dataset=dataset)
        resumed.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}"))
        for record, other in zip(seen.records[step:], again.records, strict=True):
            assert record.batch.prompt_keys == other.batch.prompt_keys
            assert record.completions == other.completions
            assert torch.equal(record.credit, other.credit)
        assert all(torch.equal(w, resumed.model.state_dict()[n]) for n, w in whole.model.state_dict().items())
        assert whole.states == resumed.states
    assert all(isinstance(state, History) and len(state) for state in whole.states.values())
