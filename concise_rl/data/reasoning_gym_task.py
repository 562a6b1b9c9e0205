"""Any task of the reasoning-gym collection (arXiv 2505.24760) by its name, problems made on the fly."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from concise_rl.data.base import Prompt, content_key
from concise_rl.errors import DataError, UserError

_TEST_SHARE = 0.25  # a constant, not a field: two configurations must agree on which side of the split a problem lies
_DRAWS_PER_PROBLEM = 8  # of the right side: a task that repeats itself more often is too small for the size asked for


@dataclass
class ReasoningGym:
    """Problems of one reasoning-gym task.

    A hash of the question decides its side of the split, so train and test are disjoint whatever the sizes and the
    seeds; every problem of a split is distinct. The numbers and texts of the task's metadata become columns.

    Verifying: the task's own `score_answer` wants its whole entry and gives partial credit, which a reference text
    cannot carry. The default verifier, `exact`, asks for the stored answer letter by letter: right for tasks with one
    answer (`chain_sum`, `letter_counting`), too strict for those with many, of which one is stored (`countdown`).

    Attributes:
        task: name in `reasoning_gym.create_dataset`.
        size: problems of the train split.
        test_size: problems of the test split.
        seed: of the problems.
        config: the task's own settings, such as `{"max_terms": 4}`.
        verifier: name of the verifier for the answers.

    Raises:
        UserError: a field is out of its range, the task is unknown or refuses its settings, the package is missing, or
            `load` is asked for an unknown split.
        DataError: the task yields fewer distinct problems than asked for, or a problem without an answer.
    """

    task: str = "chain_sum"
    size: int = 1000
    test_size: int = 200
    seed: int = 0
    config: dict[str, Any] = field(default_factory=dict)
    verifier: str = "exact"

    def __post_init__(self) -> None:
        for name in ("size", "test_size"):
            if getattr(self, name) < 1:
                raise UserError(f"ReasoningGym.{name}={getattr(self, name)} must be at least 1")

    def load(self, split: str) -> list[Prompt]:
        """The problems of `"train"` or `"test"`; the same for the same fields."""
        if split not in ("train", "test"):
            raise UserError(f"ReasoningGym has no split {split!r}; it has ['train', 'test']")
        wanted = self.size if split == "train" else self.test_size
        share = _TEST_SHARE if split == "test" else 1 - _TEST_SHARE
        draws = 100 + int(_DRAWS_PER_PROBLEM * wanted / share)
        prompts: dict[str, Prompt] = {}
        for entry in islice(self._create(draws), draws):
            on_test_side = int(content_key(entry["question"]), 16) < _TEST_SHARE * 2**64
            if on_test_side == (split == "test"):
                prompt = self._prompt(entry)
                prompts[prompt.id] = prompt
            if len(prompts) == wanted:
                return list(prompts.values())
        raise DataError(
            f"reasoning-gym task {self.task!r} has only {len(prompts)} distinct {split} problems in {draws} draws; "
            f"lower {'size' if split == 'train' else 'test_size'}={wanted} or widen config={self.config}"
        )

    def _prompt(self, entry: dict[str, Any]) -> Prompt:
        if entry["answer"] is None:
            raise DataError(
                f"reasoning-gym task {self.task!r} stores no answer for {entry['question'][:60]!r}; choose another task"
            )
        columns = {k: v for k, v in entry["metadata"].items() if isinstance(v, int | float | str)}
        return Prompt.of(entry["question"], str(entry["answer"]), **columns)

    def _create(self, size: int) -> Any:
        try:
            import reasoning_gym
            from reasoning_gym.factory import DATASETS
        except ImportError as error:
            raise UserError(
                f"data=reasoning_gym needs a package that is not here ({error}); pip install 'concise-rl[tasks]'"
            ) from error
        if self.task not in DATASETS:
            close = difflib.get_close_matches(self.task, DATASETS, n=3, cutoff=0.5)
            raise UserError(f"reasoning-gym has no task {self.task!r}; close names: {close or sorted(DATASETS)}")
        try:
            return reasoning_gym.create_dataset(self.task, size=size, seed=self.seed, **self.config)
        except (AssertionError, TypeError, ValueError) as error:  # how its tasks refuse a setting
            raise UserError(
                f"reasoning-gym task {self.task!r} refuses config={self.config} ({error}); mend the setting"
            ) from error
