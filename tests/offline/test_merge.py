"""Merging by hand: the average, files of bounded size, a model that loads, and pairs that cannot merge."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from concise_rl.assets import REASONERS
from concise_rl.errors import UserError
from concise_rl.offline import merge as merging
from concise_rl.offline.merge import merge

TINY = REASONERS["tiny"]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The embedded model with every weight moved by one."""
    folder = tmp_path / "other"
    shutil.copytree(TINY, folder)
    weights = load_file(TINY / "model.safetensors")
    save_file({name: weight + 1 for name, weight in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_the_average_is_made_in_float32_and_loads(other, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(merging, "SHARD_BYTES", 400_000)
    monkeypatch.setattr(merging, "BLOCK_VALUES", 1000)
    out = tmp_path / "merged"
    count = merge("embedded:tiny", str(other), out, weight=0.25)
    start = load_file(TINY / "model.safetensors")
    assert count == len(start)
    files = sorted(out.glob("*.safetensors"))
    assert len(files) > 2
    merged = {name: weight for file in files for name, weight in load_file(file).items()}
    for name, weight in start.items():
        assert merged[name].dtype == weight.dtype
        torch.testing.assert_close(merged[name], 0.25 * weight + 0.75 * (weight + 1), msg=name)
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert torch.equal(loaded.state_dict()["model.norm.weight"].float(), merged["model.norm.weight"].float())
    with pytest.raises(UserError, match="is there already"):
        merge("embedded:tiny", str(other), out)


def test_the_ends_are_the_models(other, tmp_path):
    merge("embedded:tiny", str(other), tmp_path / "a", weight=1)
    start, end = load_file(TINY / "model.safetensors"), load_file(tmp_path / "a" / "model-00001.safetensors")
    assert all(torch.equal(weight, end[name]) for name, weight in start.items())


def test_refusals(other, tmp_path):
    weights = load_file(other / "model.safetensors")
    save_file(weights | {"extra": torch.zeros(2)}, other / "model.safetensors")
    with pytest.raises(UserError, match=r"1 tensors are in one model alone, such as extra in "):
        merge("embedded:tiny", str(other), tmp_path / "m")
    save_file(weights | {"model.norm.weight": torch.zeros(3)}, other / "model.safetensors")
    with pytest.raises(UserError, match=r"model.norm.weight is \(\d+,\) in embedded:tiny and \(3,\)"):
        merge("embedded:tiny", str(other), tmp_path / "m")
    save_file(weights, other / "model.safetensors")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    (a, b), *_ = zip(list(words)[5:6], list(words)[6:7], strict=True)
    words[a], words[b] = words[b], words[a]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match=r"number their tokens differently \(tokenizer.json: 2 tokens"):
        merge("embedded:tiny", str(other), tmp_path / "m")
    with pytest.raises(UserError, match=r"is no folder with \.safetensors"):
        merge("embedded:tiny", str(tmp_path / "nowhere"), tmp_path / "m")
    with pytest.raises(UserError, match=r"--weight 1\.5"):
        merge("embedded:tiny", str(other), tmp_path / "m", weight=1.5)
    assert not (tmp_path / "m").exists()
    assert not list(tmp_path.glob(".m*"))
