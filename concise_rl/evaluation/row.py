"""One judged completion of an evaluation, and its line on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from concise_rl.verifiers.base import Verdict


@dataclass(frozen=True)
class EvaluationRow:
    """One completion, judged.

    Attributes:
        prompt_id: content key of the problem.
        sample: which completion of the problem, from 0.
        prompt: the prompt as the model saw it.
        reference: what the verifier compared with.
        completion: the text that the verifier read.
        length: sampled tokens including EOS.
        think_length: tokens before the first `</think>`; all of them where there is none.
        truncated: the limit came before EOS.
        verdict: the verifier's.
        columns: what the data set says of the problem, JSON values.
    """

    prompt_id: str
    sample: int
    prompt: str
    reference: str
    completion: str
    length: int
    think_length: int
    truncated: bool
    verdict: Verdict
    columns: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not 0 <= self.think_length <= self.length:
            raise ValueError(
                f"think_length={self.think_length}, length={self.length}: need 0 <= think_length <= length"
            )

    @property
    def correct(self) -> bool:
        """Right, and known to be: a row without a verdict is not right."""
        return self.verdict.correct and self.verdict.scorable

    @property
    def answer_length(self) -> int:
        """Tokens after the first `</think>`, EOS included; 0 where there is none."""
        return max(0, self.length - self.think_length - 1)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> EvaluationRow:
        """The inverse of `to_json`.

        Raises:
            TypeError, ValueError: a field is missing, unknown, or of another type.
        """
        for name, kind in _JSON_TYPES.items():
            if name in line and type(line[name]) is not kind:
                raise TypeError(f"{name} is {line[name]!r}, not of type {kind.__name__}")
        return cls(**{**line, "verdict": Verdict(**line["verdict"])} if "verdict" in line else dict(line))


_JSON_TYPES = {
    "prompt_id": str,
    "sample": int,
    "prompt": str,
    "reference": str,
    "completion": str,
    "length": int,
    "think_length": int,
    "truncated": bool,
    "verdict": dict,
    "columns": dict,
}
