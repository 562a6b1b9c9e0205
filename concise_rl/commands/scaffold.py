"""`concise-rl init my_method`: a plug-in of one's own, with its test and its recipe, that work at once."""

from __future__ import annotations

import re
from pathlib import Path

from concise_rl.errors import UserError

PLUG_IN = '''"""{title}: right answers lose for each token beyond a target."""

from dataclasses import dataclass

from concise_rl import Out, Shaper, UserError


@dataclass
class {cls}(Shaper):
    """A right answer of L tokens loses `weight` times the excess (L - target) / target; a wrong one loses nothing.

        reward -= weight * max(0, L - target) / target        where the answer is right

    Attributes:
        target: tokens that cost nothing.
        weight: price of a multiple of the target.
    """

    target: int = 40
    weight: float = 0.1

    def __post_init__(self):
        if self.target < 1:
            raise UserError(f"{cls}.target={{self.target}}: give 1 token or more")

    def apply(self, batch, value):
        # All (N,): N = P prompts x G completions, the rows of a group in a row.
        excess_N = (batch.lengths - self.target).clamp(min=0) / self.target
        priced_N = batch.correct & batch.counts
        return Out(value - self.weight * excess_N * priced_N, {{"{name}/excess": float(excess_N.mean())}})
'''

TEST = '''"""The worked number, the edge, the refusal, and the laws that a shaper keeps. Run it: pytest {folder}"""

import pytest
import torch
from {name} import {cls}

from concise_rl import GroupRelative, RolloutBatch, UserError
from concise_rl.methods.recipes import as_method

BATCH = RolloutBatch.of(prompt_keys=["a", "b"], group_size=2, lengths=[40, 80, 100, 20], correct=[1, 1, 0, 1])


def rewards(batch):
    method = as_method([{cls}(target=40, weight=0.5), GroupRelative()])
    return method.apply(batch, method.init())[0].reward


def test_by_hand():
    # 80 tokens are one target too many: 1 - 0.5. The wrong one at 100 tokens keeps its 0.
    assert rewards(BATCH).tolist() == [1.0, 0.5, 0.0, 1.0]


def test_groups_do_not_leak():
    assert torch.equal(rewards(BATCH.take_prompts([1, 0])), rewards(BATCH)[[2, 3, 0, 1]])


def test_a_row_that_does_not_count_keeps_its_reward():
    left_out = BATCH.replace(counts=torch.tensor([True, False, True, True]))
    assert rewards(left_out)[1] == 1.0


def test_a_bad_target_is_refused():
    with pytest.raises(UserError, match="give 1 token or more"):
        {cls}(target=0)
'''

RECIPE = """# @package _global_
# {title}: does a price on tokens beyond a target shorten right answers without costing any?
#   concise-rl train --config-dir {folder}/recipes method={name}
method:
  name: {name}
  shapers:
    - path: {folder}/{name}.py:{cls}
      target: 40
      weight: 0.1
  advantage: group_relative
trainer:
  loss_type: dr_grpo
"""


def write_plug_in(path: Path) -> list[Path]:
    """Make the folder with `NAME.py`, `test_NAME.py` and `recipes/method/NAME.yaml`; returns the files.

    Raises:
        UserError: the name is no Python name, is taken by a built-in method, or the folder has something in it.
    """
    from concise_rl.methods import method_names

    name = path.name
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(f"init {path}: a method's name has small letters, digits and _, such as my_method")
    if name in method_names():
        raise UserError(f"init {path}: {name} is a built-in method (concise-rl methods {name}): choose another name")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"init {path}: there is something in it already: choose another name")
    words = {
        "name": name,
        "cls": "".join(word.capitalize() for word in name.split("_")),
        "title": name.replace("_", " ").capitalize(),
        "folder": path.as_posix(),
    }
    files = {
        path / f"{name}.py": PLUG_IN,
        path / f"test_{name}.py": TEST,
        path / "recipes" / "method" / f"{name}.yaml": RECIPE,
    }
    try:
        for file, text in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.format(**words))
    except OSError as error:
        raise UserError(f"init {path}: cannot be written ({error.strerror}): choose another folder") from error
    return list(files)
