"""The vLLM back end against a stand-in of the calls that it makes; tests/vllm runs vLLM itself."""

from __future__ import annotations

import json
import sys
from collections import namedtuple
from types import ModuleType, SimpleNamespace

import pytest

from concise_rl.assets import TINY
from concise_rl.commands.config import compose
from concise_rl.commands.evaluate import load_backend
from concise_rl.errors import UserError
from concise_rl.evaluation import Mode, evaluate
from concise_rl.evaluation.backends import VLLMBackend

from .conftest import EOS, PROMPTS, SETTINGS, EvenLength


def test_without_vllm_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"pip install 'concise-rl\[vllm\]'"):
        VLLMBackend("some/model")


class Calls(list):
    """Prompts and parameters of each `generate`; `engines` and `loras` beside them."""


@pytest.fixture
def calls(monkeypatch, tokenizer):
    """A module `vllm` whose model answers each prompt with `<think> 1 </think> 2` and EOS, cut at the limit."""
    calls, engines, loras = Calls(), [], []
    calls.engines, calls.loras = engines, loras
    said = tokenizer("<think>1</think>2", add_special_tokens=False)["input_ids"] + [EOS]

    class LLM:
        def __init__(self, model, **engine):
            if model == "absent":
                raise OSError("no such folder\nand a long story")
            engines.append((model, engine))

        def get_tokenizer(self):
            return tokenizer

        def generate(self, prompts, sampling_params, use_tqdm, lora_request=None):
            calls.append((prompts, sampling_params))
            loras.append(lora_request)
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
    request = ModuleType("vllm.lora.request")
    request.LoRARequest = namedtuple("LoRARequest", "lora_name lora_int_id lora_path")
    for name, content in (("vllm", module), ("vllm.lora", ModuleType("vllm.lora")), ("vllm.lora.request", request)):
        monkeypatch.setitem(sys.modules, name, content)
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


def test_settings_of_model_and_sampling_arrive(calls, tokenizer):
    backend, _ = load_backend(
        compose(
            ["backend=vllm", "model.path=embedded:tiny", "model.dtype=float16", "model.revision=abc",
             "model.trust_remote_code=true", "backend.engine={max_model_len: 99}"], "eval",
        )
    )  # fmt: skip
    model, engine = calls.engines[0]
    assert model == str(TINY)
    assert engine == {
        "dtype": "float16", "revision": "abc", "tokenizer_revision": "abc", "trust_remote_code": True,
        "max_model_len": 99,
    }  # fmt: skip
    assert backend.identity() == {"backend": "vllm", "model": str(TINY), "revision": "abc"}
    evaluate(backend, tokenizer, PROMPTS[:1], EvenLength(), top_k=20, min_p=0.1, **SETTINGS)
    (params,) = calls[0][1]
    assert (params.top_k, params.min_p, params.repetition_penalty) == (20, 0.1, 1.0)
    assert calls.loras == [None]
    evaluate(backend, tokenizer, PROMPTS[:1], EvenLength(), **SETTINGS)
    assert calls[1][1][0].top_k == -1


def adapter(folder, **changes):
    fields = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 12, "bias": "none", "revision": "v1"}
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(fields | changes))
    return str(folder)


def test_a_lora_folder_is_served_on_its_base(calls, tokenizer, tmp_path):
    path = adapter(tmp_path / "a")
    backend = VLLMBackend(path, dtype="bfloat16")
    model, engine = calls.engines[0]
    assert model == "org/base"
    assert engine == {
        "dtype": "bfloat16", "revision": "v1", "tokenizer_revision": "v1", "trust_remote_code": False,
        "enable_lora": True, "max_lora_rank": 16,
    }  # fmt: skip
    made = evaluate(backend, tokenizer, PROMPTS[:1], EvenLength(), **SETTINGS)
    assert calls.loras == [("adapter", 1, path)]
    assert made.settings["model"] == path
    (tmp_path / "a" / "tokenizer.json").touch()
    VLLMBackend(adapter(tmp_path / "a", r=8, rank_pattern={"q_proj": 64}))
    assert calls.engines[1][1]["tokenizer"] == path
    assert calls.engines[1][1]["max_lora_rank"] == 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "no adapter with PREFIX_TUNING: merge it"),
        ({"modules_to_save": ["lm_head"]}, "no adapter with modules_to_save"),
        ({"use_dora": True}, "no adapter with use_dora"),
        ({"bias": "all"}, "no adapter with bias"),
        ({"r": 1024}, "no adapter with r=1024"),
        ({"r": None}, "adapter_config.json is no adapter's configuration"),
    ],
)
def test_an_adapter_that_vllm_does_not_serve_is_refused(calls, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        VLLMBackend(adapter(tmp_path, **changes))
    assert calls.engines == []
