"""A checkpoint that cannot be loaded says in one line what it lacks."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from concise_rl.assets import TINY
from concise_rl.errors import UserError
from concise_rl.loading import load_model, load_tokenizer


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


def test_a_sound_folder_loads_and_a_file_does_not(folder):
    tokenizer, model = load(folder)
    assert tokenizer.pad_token_id is not None
    assert sum(p.numel() for p in model.parameters()) > 0
    with pytest.raises(UserError, match="is a file"):
        load(folder / "config.json")
