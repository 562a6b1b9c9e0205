"""Which prompts a generation gets: by epoch, or as a curriculum draws them; and what an edit makes of their text."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Sequence
from typing import Any

import torch
from trl.trainer.utils import RepeatSampler

from concise_rl.data import Prompt
from concise_rl.engine.groups import DatasetRow, draw_rows
from concise_rl.errors import UserError
from concise_rl.methods.drawing import seeded
from concise_rl.methods.edits.wording import edited
from concise_rl.methods.method import Method, States
from concise_rl.ranks import rank


class EpochSampler(RepeatSampler):
    """TRL's sampler with an order that seed and epoch give: a run that is resumed in a later epoch draws that epoch's.

    The order of epoch e is the (e + 1)-th permutation of one generator, as in a run that TRL never stopped.
    """

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Give the order of this epoch, counted from 0, when iterated next."""
        self.epoch = epoch

    def __iter__(self) -> Any:
        if self.shuffle:
            self.generator.manual_seed(self.seed)
            for _ in range(self.epoch):
                torch.randperm(self.num_samples, generator=self.generator)
        return super().__iter__()

    def prompts_of(self, generation: int) -> list[int]:
        """The rows of the data set that a generation of the run, counted from 0, asks for: one a prompt, in order."""
        epoch, place = divmod(generation, self.num_samples // self.batch_size)
        once = EpochSampler(self.data_source, 1, self.batch_size, 1, self.shuffle, self.seed)
        once.set_epoch(epoch)
        return list(itertools.islice(once, place * self.batch_size, (place + 1) * self.batch_size))


class PromptSource:
    """Rows of the training set for a method's curriculum, its edit, and refilling.

    Args:
        dataset: rows with `prompt`, `prompt_key`, `reference` and `columns`.
        method: whose curriculum and edit apply.
        seed: of the run.
    """

    def __init__(self, dataset: Any, method: Method, seed: int) -> None:
        self.dataset, self.method, self.seed = dataset, method, seed
        self.prompts: list[Prompt] = [prompt_of(row) for row in dataset] if method.curriculum else []

    def rows(self, inputs: Sequence[DatasetRow], group_size: int, states: States, place: list[int]) -> list[DatasetRow]:
        """This rank's rows of a generation: those that came, or those that the curriculum draws; edited.

        Args:
            place: optimizer step, and generations within it, that came before.

        Raises:
            UserError: the curriculum has no prompt left.
        """
        if self.method.curriculum:
            own, ranks = rank()
            n_rows = len(inputs) * ranks
            drawn = self.draw(n_rows // group_size, (), states, [*place, 0])
            if not drawn:
                raise UserError(
                    f"step {place[0]}: {type(self.method.curriculum).__name__} has no prompt left of "
                    f"{len(self.prompts)}: end the run here (the checkpoints are complete), or loosen its threshold"
                )
            asked = [drawn[n // group_size % len(drawn)] for n in range(n_rows)]
            inputs = asked[own * len(inputs) :][: len(inputs)]
        return [self.edited(row, place[0]) for row in inputs]

    def draw(self, n: int, used: Collection[str], states: States, place: list[int]) -> list[DatasetRow]:
        """Up to `n` rows whose prompts are not `used`, the same on every rank."""
        if not self.method.curriculum:
            return draw_rows(self.dataset, n, used, [self.seed, *place])
        rng = seeded("draw", self.seed, *place)
        return [self.dataset[i] for i in self.method.draw(self.prompts, n, used, rng, states, place[0])]

    def edited(self, row: DatasetRow, step: int) -> DatasetRow:
        """The row with its prompt as the method's edit makes it; its key stays."""
        if not self.method.edit:
            return row
        prompt = edit_prompt(self.method, prompt_of(row), self.seed, step)
        text = list(prompt.messages) if isinstance(row["prompt"], list) else prompt.messages[0]["content"]
        return {**row, "prompt": text, "columns": json.dumps(dict(prompt.columns))}


def edit_prompt(method: Method, prompt: Prompt, seed: int, step: int = 0) -> Prompt:
    """A prompt as the method's edit makes it at this step; see `edited`."""
    edit = method.edit_at(step)
    return edited(edit, prompt, seed) if edit else prompt


def prompt_of(row: DatasetRow) -> Prompt:
    """A row of the training set as a prompt: its messages, or its text as the one message."""
    content = row["prompt"]
    messages = tuple(content) if isinstance(content, list) else ({"role": "user", "content": content},)
    return Prompt(row["prompt_key"], messages, row["reference"], json.loads(row["columns"]))
