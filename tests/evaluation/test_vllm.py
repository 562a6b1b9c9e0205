"""The vLLM back end against a stand-in of the calls that it makes; vLLM itself needs a GPU."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from concise_rl.errors import UserError
from concise_rl.evaluation import Mode, evaluate
from concise_rl.evaluation.backends import VLLMBackend

from .conftest import EOS, PROMPTS, SETTINGS, EvenLength


def test_without_vllm_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"pip install 'concise-rl\[vllm\]'"):
        VLLMBackend("some/model")


@pytest.fixture
def calls(monkeypatch, tokenizer):
    """A module `vllm` whose model answers each prompt with `<think> 1 </think> 2` and EOS, cut at the limit."""
    calls = []
    said = tokenizer("<think>1</think>2", add_special_tokens=False)["input_ids"] + [EOS]

    class LLM:
        def __init__(self, model, **engine):
            if model == "absent":
                raise OSError("no such folder\nand a long story")
            self.engine = engine

        def get_tokenizer(self):
            return tokenizer

        def generate(self, prompts, sampling_params, use_tqdm):
            calls.append((prompts, sampling_params))
            return [
                SimpleNamespace(
                    outputs=[
                        SimpleNamespace(
                            token_ids=said[: params.max_tokens],
                            finish_reason="stop" if params.max_tokens >= len(said) else "length",
                        )
                    ]
                )
                for params in sampling_params
            ]

    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SimpleNamespace
    monkeypatch.setitem(sys.modules, "vllm", module)
    return calls


def test_waves_of_token_ids(calls, tokenizer):
    backend = VLLMBackend("some/model", wave_rows=8)
    made = evaluate(backend, tokenizer, PROMPTS, EvenLength(), samples=2, **SETTINGS)
    assert {(row.completion, row.length, row.think_length, row.truncated) for row in made.rows} == {
        ("<think>1</think>2", 5, 2, False)
    }
    assert [len(prompts) for prompts, _ in calls] == [8, 8, 4]
    prompts, params = calls[0]
    assert prompts[0]["prompt_token_ids"] == tokenizer(made.rows[0].prompt)["input_ids"]
    assert len({own.seed for _, params in calls for own in params}) == 20
    assert (params[0].max_tokens, params[0].temperature, params[0].top_p) == (24, 1.0, 1.0)
    assert made.settings["model"] == "some/model"


def test_forced_budget_continues_the_sampled_ids(calls, tokenizer):
    backend = VLLMBackend("some/model")
    (row,) = evaluate(backend, tokenizer, PROMPTS[:1], EvenLength(), mode=Mode.forced(2), **SETTINGS).rows
    assert row.completion == "<think>1</think><think>1</think>2"
    assert (row.length, row.think_length, row.forced) == (7, 2, True)
    given = calls[1][0][0]["prompt_token_ids"]
    assert tokenizer.decode(given) == f"{PROMPTS[0].messages[0]['content']}<think>1</think>"


def test_a_model_that_cannot_be_loaded(calls):
    with pytest.raises(UserError, match=r"vLLM cannot load absent \(no such folder\)"):
        VLLMBackend("absent")
    with pytest.raises(UserError, match="wave_rows=0"):
        VLLMBackend("m", wave_rows=0)
