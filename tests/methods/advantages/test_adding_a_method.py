"""The examples of docs/adding_a_method.md and the commands of these methods' pages, run as they stand in the text."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from concise_rl.batch import RolloutBatch
from concise_rl.commands.config import build, compose
from concise_rl.methods.advantages import Advantage
from concise_rl.methods.shapers import Shaper

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "adding_a_method.md"
STEMS = ["dr_grpo", "rloo", "canon_length", "canon_entropy", "gui_g1"]


@pytest.fixture(autouse=True)
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every python block of the page under the file name in its first line, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL):
        Path(block.split("\n", 1)[0].removeprefix("# ")).write_text(block)


def batch_of(lengths: list[int], correct: list[int], **others) -> RolloutBatch:
    return RolloutBatch.of(prompt_ids=["a"], group_size=len(lengths), lengths=lengths, correct=correct, **others)


def configured(*overrides: str):
    config = compose([*overrides])
    return config, [build(entry, "shaper", config) for entry in config.method.shapers]


def test_budget_by_name_and_with_fields() -> None:
    batch = batch_of([15, 30, 90, 15], [1, 1, 1, 0])
    for override, expected in (
        ("method.shapers=[my_shapers.py:Budget]", [1.375, 1.25, 1, 0]),
        ("method.shapers=[{path: my_shapers.py:Budget, target: 30}]", [1.25, 1, 1, 0]),
    ):
        _, (shaper,) = configured("method=dr_grpo", override)
        assert isinstance(shaper, Shaper)
        shaped, _ = shaper(batch, batch.task_reward, shaper.init())
        assert shaped.reward.tolist() == pytest.approx(expected)


def test_beat_your_mean_scores_before_it_records() -> None:
    _, (shaper,) = configured("method=dr_grpo", "method.shapers=[my_memory.py:BeatYourMean]")
    first = batch_of([20, 40, 10], [1, 1, 0])
    shaped, state = shaper(first, first.task_reward, shaper.init())
    assert shaped.reward.tolist() == [1, 1, 0]
    second = batch_of([15, 60, 15], [1, 1, 0])
    shaped, _ = shaper(second, second.task_reward, state)
    assert shaped.reward.tolist() == pytest.approx([1.1, 0.8, 0])  # the mean was 30


def test_median_advantage() -> None:
    config, _ = configured("method=dr_grpo", "method.advantage=my_credit.py:Median")
    advantage = build(config.method.advantage, "advantage", config)
    assert isinstance(advantage, Advantage)
    batch = batch_of([1, 1, 1, 1], [0, 0, 0, 0], scorable=[1, 1, 1, 0])
    reward = torch.tensor([1.0, 3.0, 7.0, 100.0], dtype=torch.float64)
    assert advantage(batch, reward).tolist() == [-2, 0, 4, 0]


@pytest.mark.parametrize(
    ("recipe", "fields"),
    [
        ("dr_grpo", {"scale": "none"}),
        ("rloo", {}),
        ("canon_length", {"metric": "length", "mu": 1.0, "schedule": None}),
        ("canon_entropy", {"metric": "entropy", "mu": 1.0, "schedule": None}),
        ("gui_g1", {"kind": "linear", "column": "difficulty", "minimum": 2.0, "maximum": 6.0}),
    ],
)
def test_recipes_compose_into_their_advantage(recipe: str, fields: dict) -> None:
    config, _ = configured(f"method={recipe}")
    assert config.method.name == recipe
    assert config.trainer.loss_type == "dr_grpo"
    advantage = build(config.method.advantage, "advantage", config)
    assert {name: getattr(advantage, name) for name in fields} == fields


def test_commands_in_pages_and_recipes_compose() -> None:
    pages = [PAGE, *(ROOT / "docs" / "methods" / f"{stem}.md" for stem in STEMS)]
    pages += [ROOT / "recipes" / "method" / f"{stem}.yaml" for stem in STEMS]
    text = "\n".join(page.read_text() for page in pages).replace("\\\n", " ")
    commands = re.findall(r"^(?:    |#   )concise-rl train (.*)$", text, flags=re.MULTILINE)
    assert len(commands) >= 15
    for command in commands:
        config, shapers = configured(*shlex.split(command))
        assert shapers, command
        assert isinstance(build(config.method.advantage, "advantage", config), Advantage), command
