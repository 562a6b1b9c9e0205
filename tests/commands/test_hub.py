"""A trained model on the hub: its card, and a push at the end of a run against a hub that is not there."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from huggingface_hub import HfApi, ModelCard

from concise_rl.commands import config
from concise_rl.commands.hub import check_push, push
from concise_rl.errors import UserError
from concise_rl.reporting.model_card import model_card, write_model_card
from tests.reporting.fake import AFTER, BEFORE, DIFFERENCE

RECORD = {
    "id": "abc", "name": "hapo-gsm8k-weight_0.5-seed0", "title": "hapo on gsm8k, seed 0",
    "starts": [{
        "time": "2026-11-26T00:00:00+00:00", "step": 0, "command": "concise-rl train method=hapo data=gsm8k",
        "versions": {"python": "3.11", "torch": "2.13", "trl": "1.16"}, "commit": "abc1234",
        "hardware": {"processor": "EPYC", "cores": 2, "ranks": 1},
    }],
}  # fmt: skip
COLUMNS = {"before": BEFORE, "after": AFTER}


def resolved(*overrides: str) -> dict:
    return config.resolved(config.compose(["run.dir=x", *overrides]))


def test_a_card_says_what_was_trained_on_what_and_what_came_of_it():
    settings = resolved("model=qwen3_0.6b", "data=gsm8k", "shaper.hapo.weight=0.5", "peft=lora")
    card = ModelCard(model_card(COLUMNS, DIFFERENCE, settings, RECORD, steps=32))
    assert card.data.base_model == "Qwen/Qwen3-0.6B"
    assert card.data.datasets == ["openai/gsm8k"]
    assert card.data.library_name == "peft"
    assert {"concise-rl", "hapo"} <= set(card.data.tags)
    assert "| accuracy | 95.5 % [93.5, 97.0] | 95.1 % [93.0, 96.7] | -0.4 points [-1.6, +0.8] |" in card.text
    assert "**tokens -53 % [-55, -51], accuracy -0.4 points" in card.text
    assert "weight: 0.5" in card.text
    assert "concise-rl train method=hapo data=gsm8k" in card.text
    assert "| torch | `2.13` |" in card.text
    assert "abc1234" in card.text
    assert "| trainer.learning_rate |" in card.text


def test_a_card_names_no_folder_of_this_machine_and_hides_what_steers(tmp_path):
    settings = resolved(
        "model=hf", "model.name=hf", f"model.path={tmp_path}", "data=local", f"data.path={tmp_path}/my.jsonl"
    )
    record = RECORD | {"name": "x\x1b[2J"}
    text = model_card({}, None, settings, record, steps=0)
    assert str(tmp_path) not in text
    assert "\x1b" not in text
    assert "base_model" not in text, "the hub would refuse a path"
    assert "Not evaluated" in text


def finished(folder: Path) -> Path:
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.safetensors").write_bytes(b"w")
    write_model_card(folder, COLUMNS, DIFFERENCE, resolved("method=kimi"), RECORD, steps=8)
    return folder


class Hub:
    """What an HfApi was asked for."""

    def __init__(self, monkeypatch, refuse: Exception | None = None) -> None:
        self.calls: list[tuple[str, dict]] = []

        def record(name: str, answer: object):
            def call(_: HfApi, *args: object, **kwargs: object) -> object:
                if refuse:
                    raise refuse
                self.calls.append((name, {"args": args, **kwargs}))
                return answer

            monkeypatch.setattr(HfApi, name, call)

        record("create_repo", SimpleNamespace(repo_id="me/my-model"))
        record("create_branch", None)
        record("upload_folder", None)


def test_the_trained_model_is_pushed_with_its_card(tmp_path, monkeypatch):
    hub, told = Hub(monkeypatch), []
    folder = finished(tmp_path / "run")
    push(folder, {"hub_model_id": "my-model", "hub_private_repo": True, "hub_revision": "short"}, told.append)
    names = [name for name, _ in hub.calls]
    assert names == ["create_repo", "create_branch", "upload_folder"]
    assert hub.calls[0][1] == {"args": ("my-model",), "private": True, "exist_ok": True}
    sent = hub.calls[2][1]
    assert (sent["repo_id"], sent["revision"], Path(sent["folder_path"])) == ("me/my-model", "short", folder / "model")
    assert sorted(path.name for path in Path(sent["folder_path"]).iterdir()) == ["README.md", "model.safetensors"]
    assert told == ["pushed to the hub: me/my-model"]


@pytest.mark.parametrize("refusal", [httpx.ConnectError("no route"), OSError("disk"), httpx.ReadTimeout("slow")])
def test_a_hub_that_fails_costs_nothing_but_the_push(tmp_path, monkeypatch, refusal):
    Hub(monkeypatch, refusal)
    folder = finished(tmp_path / "run")
    with pytest.raises(UserError, match=r"not be pushed to run \(.*\): all of it is here; push it later with `hf"):
        push(folder, {}, lambda _: None)
    assert (folder / "model" / "README.md").exists()


def test_fields_that_a_push_would_ignore_are_refused():
    with pytest.raises(UserError, match=r"trainer\.hub_strategy=every_save: a run pushes its trained model once"):
        check_push({"push_to_hub": True, "hub_strategy": "every_save"})
    with pytest.raises(UserError, match=r"trainer\.hub_model_id has no effect without trainer\.push_to_hub=true"):
        check_push({"hub_model_id": "me/x"})
    check_push({"push_to_hub": True, "hub_strategy": "end", "hub_model_id": "me/x"})
    check_push(json.loads("{}"))
