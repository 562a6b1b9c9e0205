"""From a dataset row to a `Prompt`, the only form in which the rest of the package sees data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Message = dict[str, str]


@dataclass(frozen=True)
class Prompt:
    """One problem.

    Attributes:
        id: stable content key of the question and its reference, 16 hex digits; never a row number.
        messages: chat messages, the user's question last, without a system prompt.
        reference: what the verifier compares with.
        columns: everything else that a component or a report may ask for (`difficulty`, `oracle_tokens`, ...).
    """

    id: str
    messages: tuple[Message, ...]
    reference: str
    columns: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, question: str, reference: str, **columns: Any) -> Prompt:
        return cls(content_key(question, reference), ({"role": "user", "content": question},), reference, columns)


def content_key(*texts: str) -> str:
    """A 64-bit key of the texts: the same problem has the same key in every run and on every machine."""
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()


class DataSource(Protocol):
    """A data set: a plain dataclass whose fields are its configuration."""

    verifier: str

    def load(self, split: str) -> Sequence[Prompt]: ...
