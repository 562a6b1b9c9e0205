"""The files for verl and prime-rl, against the interfaces that they name, without either framework."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from concise_rl import RolloutBatch, UserError, load_method
from concise_rl.model.loading import EMBEDDED

from ..engine.jobs import ROOT


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- verl --------------------------------------------------------------------------------------------------------------

ANSWERS = {"2+3=": "5", "4+4=": "8"}


@pytest.fixture
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(EMBEDDED["embedded:tiny"])


def data_proto(tokenizer, rows, *, validate=False, width=12, room=6):
    """What verl hands a reward manager: padded tensors, and lists beside them; `rows` are (prompt, response)."""
    prompts = torch.full((len(rows), room), tokenizer.pad_token_id)
    responses = torch.full((len(rows), width), tokenizer.pad_token_id)
    mask = torch.zeros(len(rows), room + width, dtype=torch.long)
    for n, (prompt, response) in enumerate(rows):
        asked, said = tokenizer.encode(prompt), tokenizer.encode(response)
        prompts[n, room - len(asked) :] = torch.tensor(asked)
        responses[n, : len(said)] = torch.tensor(said)
        mask[n, room - len(asked) : room] = 1
        mask[n, room : room + len(said)] = 1
    return SimpleNamespace(
        batch={"prompts": prompts, "responses": responses, "attention_mask": mask},
        non_tensor_batch={
            "uid": np.array([prompt for prompt, _ in rows], dtype=object),
            "reward_model": [{"ground_truth": ANSWERS[prompt]} for prompt, _ in rows],
        },
        meta_info={"global_steps": 3} | ({"validate": True} if validate else {}),
    )


ROWS = [("2+3=", "5"), ("4+4=", "2+2=8"), ("2+3=", "2+3=5"), ("4+4=", "9")]
"""Two groups of two, not in a row: verl may reorder a batch."""


def test_verl_rewards_are_those_of_the_method(tokenizer):
    manager = load("verl_rewards").ConciseRewardManager(tokenizer, num_examine=1, method="kimi", weight=0.5)
    data = data_proto(tokenizer, ROWS)
    found = manager(data, return_dict=True)
    lengths = data.batch["attention_mask"][:, 6:].sum(dim=1)
    order = [0, 2, 1, 3]
    batch = RolloutBatch.of(
        prompt_keys=["a", "b"], group_size=2, lengths=lengths[order], correct=torch.tensor([1, 1, 1, 0]), step=3
    )
    method = load_method("kimi", weight=0.5)
    expected = torch.empty(4)
    expected[order] = method.apply(batch, method.init())[0].reward.float()
    rows = torch.arange(4)
    torch.testing.assert_close(found["reward_tensor"][rows, lengths - 1], expected)
    assert int((found["reward_tensor"] != 0).sum()) == int((expected != 0).sum()), "on the last token alone"
    assert found["reward_extra_info"]["acc"] == [1, 1, 1, 0]


def test_verl_validation_is_not_shaped_and_moves_nothing(tokenizer):
    module = load("verl_rewards")
    with pytest.warns(UserWarning, match="hapo remembers earlier steps"):
        manager = module.ConciseRewardManager(tokenizer, method="hapo")
    assert manager(data_proto(tokenizer, ROWS, validate=True)).sum() == 3
    assert len(manager.states["shaper.hapo"]) == 0
    manager(data_proto(tokenizer, ROWS))
    assert len(manager.states["shaper.hapo"]) == 2
    longer = [(prompt, "2+2+2" + said) for prompt, said in ROWS]
    again = data_proto(tokenizer, longer, room=9)
    assert manager(again).sum() < 3, "the second visit compares with the first, whatever the padding"
    assert len(manager.states["shaper.hapo"]) == 2


def test_what_verl_cannot_do_is_refused(tokenizer):
    module = load("verl_rewards")
    with pytest.raises(UserError, match=r"filter\.gfpo is no shaper"):
        module.ConciseRewardManager(tokenizer, method="gfpo")
    manager = module.ConciseRewardManager(tokenizer, method="kimi")
    with pytest.raises(UserError, match="different sizes"):
        manager(data_proto(tokenizer, ROWS[:3]))
    scored = data_proto(tokenizer, ROWS)
    scored.batch["rm_scores"] = torch.zeros(4, 12)
    with pytest.raises(UserError, match="use_reward_loop=True judges rows one by one"):
        manager(scored)


def test_verl_compute_score():
    compute_score = load("verl_rewards").compute_score
    assert compute_score("sums", "so <think>4</think>5", "5", {}) == {"score": 1.0, "acc": 1.0}
    assert compute_score(data_source="sums", solution_str="6", ground_truth="5", extra_info=None)["score"] == 0


# -- prime-rl ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def prime_rl(monkeypatch):
    """The three names that prime-rl 0.8.0 gives an algorithm."""

    class Algorithm:
        def __init__(self, config, policy_pool):
            self.policy_pool = policy_pool

    def iter_trainable_traces(episodes):
        return ((episode, trace) for episode in episodes for trace in episode.traces if not trace.has_error)

    def assign_advantages(trace, values):
        trace.assigned = values

    names = {
        "prime_rl.orchestrator.algo.base": {"Algorithm": Algorithm, "iter_trainable_traces": iter_trainable_traces}
    }
    names["prime_rl.orchestrator.algo.routing"] = {"assign_advantages": assign_advantages}
    for name, content in {
        "prime_rl": {},
        "prime_rl.orchestrator": {},
        "prime_rl.orchestrator.algo": {},
        **names,
    }.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return load("prime_rl_algorithm")


def episode(reward, tokens, *, key="sum-1", error=False):
    trace = SimpleNamespace(
        reward=reward, num_output_tokens=tokens, num_total_tokens=tokens + 9, num_turns=1, is_truncated=False,
        has_error=error,
    )  # fmt: skip
    return SimpleNamespace(task=SimpleNamespace(key=key), traces=[trace])


def test_prime_rl_gets_the_credit_of_the_method(prime_rl):
    algorithm = prime_rl.concise_algorithm("hapo", weight=0.5)(None, None)
    method = load_method("hapo", weight=0.5)
    states = method.init()
    for lengths in ([30, 50, 40, 90], [25, 60, 30, 31]):
        group = [episode(float(n != 2), tokens) for n, tokens in enumerate(lengths)]
        asyncio.run(algorithm.score_group([*group, episode(1.0, 5, error=True)]))
        batch = RolloutBatch.of(prompt_keys=["sum-1"], group_size=4, lengths=lengths, correct=[1, 1, 0, 1])
        result, states = method.apply(batch, states)
        assert [each.traces[0].assigned for each in group] == result.credit.tolist()
    asyncio.run(algorithm.score_group([episode(1.0, 5, error=True)]))


@pytest.mark.parametrize(
    ("method", "fields", "message"),
    [
        ("gfpo", {}, "filter.gfpo: prime-rl has its own place"),
        ("pear", {}, "shaper.pear needs answer_entropy, think_entropy"),
        ("l1_exact", {}, "edit.l1_prompt: prime-rl has its own place"),
        ("grpo", {"scale": "batch"}, "compares groups with one another"),
        ("kimi", {"weight": {"linear": {"start": 0, "end": 1, "steps": 5}}}, "tells an algorithm no step"),
    ],
)
def test_what_prime_rl_cannot_do_is_refused(prime_rl, method, fields, message):
    with pytest.raises(UserError, match=message):
        prime_rl.concise_algorithm(method, **fields)
