"""One judged completion of an evaluation, and its line on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from concise_rl.verifiers.base import Verdict

MAX_TOKENS = 2**40
"""No completion is longer; a file or a server that says so is damaged, and its sums would overflow."""


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
        think_length: sampled tokens before the first `</think>`; all of them where there is none; None where a server
            does not tell.
        truncated: the limit came before EOS.
        verdict: the verifier's.
        columns: what the data set says of the problem, JSON values.
        seed: with which it was sampled; None in files of older versions, as all that follows.
        forced: `</think>` was put there by the mode, not sampled.
        repetition: the share of its tokens that lie in a repeated n-gram (`repetition_fraction`,
            n = `REPETITION_NGRAM`); None where the tokens are not known.
        token_ids: the sampled ids, where the evaluation was asked to keep them.
        question: the problem in its own words, where the prompt has those of a chat template around it; else empty.
        edit, stage: how its prompt was edited, and the stage of a pipeline; with `prompt_id` and `seed` the key of a
            stored sample, see `concise_rl.evaluation.sample`.
        messages: the prompt as chat messages, where it was sampled to be selected.
        plain: prompt and messages as they are without the edit, where there is one.
    """

    prompt_id: str
    sample: int
    prompt: str
    reference: str
    completion: str
    length: int
    think_length: int | None
    truncated: bool
    verdict: Verdict
    columns: Mapping[str, Any]
    seed: int | None = None
    forced: bool = False
    repetition: float | None = None
    token_ids: tuple[int, ...] | None = None
    question: str = ""
    edit: str = ""
    stage: str = ""
    messages: tuple[Mapping[str, str], ...] = ()
    plain: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.length > MAX_TOKENS:
            raise ValueError(f"length is a number of {len(str(self.length))} digits: give at most {MAX_TOKENS}")
        if self.length < 0 or (self.think_length is not None and not 0 <= self.think_length <= self.length):
            raise ValueError(
                f"think_length={self.think_length}, length={self.length}: need 0 <= think_length <= length"
            )
        if self.token_ids is not None and len(self.token_ids) != self.length:
            raise ValueError(f"token_ids holds {len(self.token_ids)} tokens, length={self.length}: need as many")

    @property
    def key(self) -> tuple[str, int]:
        """Which completion of which problem."""
        return self.prompt_id, self.sample

    @property
    def problem(self) -> str:
        """The problem for people, without what a chat template puts around it."""
        return self.question or self.prompt

    @property
    def stored_key(self) -> tuple[str, str, str, int | None]:
        """The same among the samples of several edits, stages and seeds."""
        return self.prompt_id, self.edit, self.stage, self.seed

    @property
    def correct(self) -> bool:
        """Right, and known to be: a row without a verdict is not right."""
        return self.verdict.correct and self.verdict.scorable

    @property
    def answer_length(self) -> int | None:
        """Sampled tokens after the first `</think>`, EOS included; 0 where there is none, None where not known."""
        if self.think_length is None:
            return None
        return max(0, self.length - self.think_length - (not self.forced))

    def to_json(self) -> dict[str, Any]:
        """All fields but the optional ones that hold their default."""
        verdict = {**vars(self.verdict), "parts": dict(self.verdict.parts)}
        line = {**vars(self), "verdict": verdict, "columns": dict(self.columns)}
        return {name: value for name, value in line.items() if name not in _OPTIONAL or value != _OPTIONAL[name]}

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> EvaluationRow:
        """The inverse of `to_json`.

        Raises:
            TypeError, ValueError: a field is missing, unknown, or of another type.
        """
        for name, kinds in _JSON_TYPES.items():
            if name in line and type(line[name]) not in kinds:
                raise TypeError(f"{name} is {str(line[name])[:40]!r}, not of type {kinds[0].__name__}")
        fields = dict(line)
        if "verdict" in fields:
            fields["verdict"] = _verdict(fields["verdict"])
        for name in ("token_ids", "messages"):
            if name in fields:
                fields[name] = tuple(fields[name])
        return cls(**fields)


def _verdict(fields: Mapping[str, Any]) -> Verdict:
    kinds: dict[str, tuple[type, ...]] = {
        "correct": (bool,), "scorable": (bool,), "reward": (float, int), "parts": (dict,), "reason": (str,)
    }  # fmt: skip
    for name, value in fields.items():
        if name in kinds and type(value) not in kinds[name]:
            raise TypeError(f"verdict.{name} is not of type {kinds[name][0].__name__}")
    return Verdict(**fields)


_OPTIONAL = {field.name: field.default for field in dataclasses.fields(EvaluationRow) if field.name in (
    "seed", "forced", "repetition", "token_ids", "question", "edit", "stage", "messages", "plain"
)}  # fmt: skip

_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "prompt_id": (str,),
    "sample": (int,),
    "prompt": (str,),
    "reference": (str,),
    "completion": (str,),
    "length": (int,),
    "think_length": (int, type(None)),
    "truncated": (bool,),
    "verdict": (dict,),
    "columns": (dict,),
    "seed": (int,),
    "forced": (bool,),
    "repetition": (float,),
    "token_ids": (list,),
    "question": (str,),
    "edit": (str,),
    "stage": (str,),
    "messages": (list,),
    "plain": (dict,),
}
