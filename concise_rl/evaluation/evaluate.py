"""How well a model answers, and at how many tokens: prompts in, judged completions out."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from concise_rl.data import Prompt, render
from concise_rl.errors import DataError, UserError
from concise_rl.evaluation.generate import Progress, generate_completions
from concise_rl.evaluation.metrics import paired_difference, summarize
from concise_rl.evaluation.row import EvaluationRow
from concise_rl.rollout import single_token, think_length
from concise_rl.verifiers import Verifier, verify_many


@dataclass(frozen=True)
class Evaluation:
    """The judged completions of one model on one set of problems."""

    rows: Sequence[EvaluationRow]

    def summary(self) -> dict[str, Any]:
        """See `concise_rl.evaluation.metrics.summarize`."""
        return summarize(self.rows)

    def save(self, path: str | Path) -> None:
        """Write one JSON line a row; the file is complete or, where writing fails, as it was.

        Raises:
            UserError: the file cannot be written, or a column holds what JSON cannot.
        """
        path = Path(path)
        try:
            text = "".join(json.dumps(row.to_json()) + "\n" for row in self.rows)
        except TypeError as error:
            raise UserError(
                f"{path}: a column of the data set is no JSON value ({error}); convert it when loading"
            ) from error
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with aside.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise UserError(
                f"{path} cannot be written ({error.strerror}): free some space, or choose another folder"
            ) from error

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """The inverse of `save`, exact.

        Raises:
            DataError: no such file, or a damaged line, named.
        """
        try:
            lines = Path(path).read_bytes().splitlines(keepends=True)
        except OSError as error:
            raise DataError(
                f"{path} cannot be read ({error.strerror}): name a file that an evaluation has saved"
            ) from error
        rows = []
        for number, line in enumerate(lines, start=1):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("cut short")
                rows.append(EvaluationRow.from_json(json.loads(line)))
            except (TypeError, ValueError) as error:
                raise DataError(
                    f"{path}, line {number} is damaged ({error}): evaluate again, or delete the line"
                ) from error
        return cls(rows)


def difference(before: Evaluation, after: Evaluation) -> dict[str, Any]:
    """See `concise_rl.evaluation.metrics.paired_difference`."""
    return paired_difference(before.rows, after.rows)


def evaluate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    verifier: Verifier,
    *,
    system: str | None = None,
    samples: int = 1,
    max_new_tokens: int,
    temperature: float,
    top_p: float = 1.0,
    seed: int,
    think_end: str = "</think>",
    batch_rows: int = 128,
    verify_deadline_seconds: float = 5.0,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Sample each prompt `samples` times and judge each completion once.

    Args:
        model, tokenizer: a transformers causal LM and its tokenizer.
        prompts: the problems; an empty list gives an evaluation without rows.
        verifier: judges a completion's text against the prompt's reference.
        system: the system prompt.
        samples, max_new_tokens, temperature, top_p, seed, batch_rows, on_progress: see `generate_completions`.
        think_end: the tag that ends thinking; where it is no single token, think lengths are whole lengths.
        verify_deadline_seconds: wall-clock time that one verdict may take; then the row is unscorable.

    Raises:
        UserError: a setting outside its range, or a tokenizer without EOS.
    """
    texts = [render_text(prompt, tokenizer, system) for prompt in prompts]
    completions = generate_completions(
        model,
        tokenizer,
        texts,
        samples=samples,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        batch_rows=batch_rows,
        on_progress=on_progress,
    )
    flat = [
        (prompt, text, completion)
        for prompt, text, said in zip(prompts, texts, completions, strict=True)
        for completion in said
    ]
    pairs = [(completion.text, prompt.reference) for prompt, _, completion in flat]
    verdicts = verify_many(verifier, pairs, deadline_seconds=verify_deadline_seconds)
    tag = single_token(tokenizer, think_end)
    seen: Counter[str] = Counter()
    rows = []
    for (prompt, text, completion), verdict in zip(flat, verdicts, strict=True):
        rows.append(
            EvaluationRow(
                prompt_id=prompt.id,
                sample=seen[prompt.id],
                prompt=text,
                reference=prompt.reference,
                completion=completion.text,
                length=len(completion.token_ids),
                think_length=think_length(completion.token_ids, tag),
                truncated=completion.truncated,
                verdict=verdict,
                columns=dict(prompt.columns),
            )
        )
        seen[prompt.id] += 1
    return Evaluation(rows)


def render_text(prompt: Prompt, tokenizer: Any, system: str | None = None) -> str:
    """The prompt as text, up to where the model is to go on: through the chat template where there is one."""
    rendered = render(prompt, tokenizer, system)
    if isinstance(rendered, str):
        return rendered
    return tokenizer.apply_chat_template(rendered, tokenize=False, add_generation_prompt=True)
