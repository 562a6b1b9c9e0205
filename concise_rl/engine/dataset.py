"""The rows that the trainer iterates over: from `Prompt`s, or from any data set with prompts and answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from concise_rl.data import Prompt, check_references, content_key, render
from concise_rl.data.base import Message
from concise_rl.errors import DataError, UserError
from concise_rl.methods.registry import closest
from concise_rl.verifiers import Verifier, verify_many

COLUMNS = ("prompt", "prompt_key", "reference", "columns")
"""Of a row, the columns as JSON."""


def training_dataset(prompts: Sequence[Prompt], tokenizer: Any, system: str | None) -> Dataset:
    """The rows TRL iterates over: rendered prompt, content key, reference, and the columns as JSON."""
    return Dataset.from_list([_row(render(p, tokenizer, system), p.id, p.reference, p.columns) for p in prompts])


def plain_dataset(dataset: Any, verifier: Verifier, *, prompt_column: str, answer_column: str) -> Dataset:
    """The same from a `datasets.Dataset` as TRL's users have it; what `training_dataset` made passes as it is.

    Args:
        dataset: a prompt is a text, or chat messages that the model's template is applied to; an answer is what the
            verifier compares with. Every other column can be named by a component (`columns.difficulty`).
        verifier: each answer must verify against itself.

    Raises:
        UserError: no data set of rows, or one without these columns.
        DataError: a row without an answer, an answer that does not verify, or a column that JSON cannot hold.
    """
    if not isinstance(dataset, Dataset):
        raise UserError(f"train_dataset is {type(dataset).__name__}: give a datasets.Dataset")
    if set(COLUMNS) <= set(dataset.column_names):
        return dataset
    for name, column in (("prompt_column", prompt_column), ("answer_column", answer_column)):
        if column not in dataset.column_names:
            raise UserError(
                f"{name}={column!r}: the data set has no such column{closest(column, dataset.column_names)}"
            )
    prompts = [_prompt(n, dict(row), prompt_column, answer_column) for n, row in enumerate(dataset)]
    check_references(
        prompts,
        lambda pairs: verify_many(verifier, pairs, deadline_seconds=60.0),
        getattr(verifier, "wrap_reference", str),
    )
    texts = dataset[prompt_column]
    return Dataset.from_list([_row(text, p.id, p.reference, p.columns) for text, p in zip(texts, prompts, strict=True)])


def _prompt(n: int, row: dict[str, Any], prompt_column: str, answer_column: str) -> Prompt:
    content, answer = row.pop(prompt_column), row.pop(answer_column)
    if not content or answer is None or not str(answer).strip():
        raise DataError(f"row {n} of the data set lacks {prompt_column} or {answer_column}: fill it, or drop the row")
    try:
        json.dumps(row)
    except TypeError as error:
        raise DataError(
            f"row {n} of the data set has a column that is neither text nor number ({error}): "
            "drop it with Dataset.remove_columns"
        ) from error
    return Prompt(key_of(content, str(answer)), _messages(content), str(answer), row)


def key_of(prompt: str | Sequence[Message], answer: str) -> str:
    """The content key of a prompt as TRL has it, a text or chat messages."""
    return content_key(*(message["content"] for message in _messages(prompt)), answer)


def _messages(prompt: str | Sequence[Message]) -> tuple[Message, ...]:
    return ({"role": "user", "content": prompt},) if isinstance(prompt, str) else tuple(prompt)


def _row(text: Any, key: str, reference: str, columns: Any) -> dict[str, Any]:
    return {"prompt": text, "prompt_key": key, "reference": reference, "columns": json.dumps(dict(columns))}
