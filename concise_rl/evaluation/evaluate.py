"""How well a model answers, and at how many tokens: prompts in, judged completions out."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from concise_rl.data import Prompt, render
from concise_rl.data.base import content_key
from concise_rl.data.templates import apply_template
from concise_rl.errors import UserError
from concise_rl.evaluation import store as storage
from concise_rl.evaluation.backends import Backend, HTTPBackend, Request, Sampling, TransformersBackend
from concise_rl.evaluation.judge import Job, Judge, Progress
from concise_rl.evaluation.metrics import notices, paired_difference, summarize
from concise_rl.evaluation.modes import AS_TRAINED, Mode, complete
from concise_rl.evaluation.row import EvaluationRow
from concise_rl.methods.contracts import Edit
from concise_rl.methods.edits.wording import edited
from concise_rl.verifiers import Verifier


@dataclass(frozen=True)
class Evaluation:
    """The judged completions of one model on one set of problems.

    Attributes:
        rows: in the order of the problems, the samples of one together.
        settings: what they depend on besides the problems, JSON values; empty where it is not known.
    """

    rows: Sequence[EvaluationRow]
    settings: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """See `concise_rl.evaluation.metrics.summarize`."""
        return summarize(self.rows, self.settings.get("think_end", "</think>"))

    def notices(self) -> list[str]:
        """See `concise_rl.evaluation.metrics.notices`."""
        return notices(self.rows, self.settings.get("think_end", "</think>"))

    def save(self, path: str | Path) -> None:
        """Write the settings, where there are any, and one JSON line a row; the file is complete or as it was.

        Raises:
            UserError: the file cannot be written, or a column holds what JSON cannot.
        """
        storage.write(Path(path), self.settings, self.rows)

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """The inverse of `save`, exact.

        Raises:
            DataError: no such file, or a damaged line, named.
        """
        settings, rows = storage.read(Path(path))
        return cls(rows, settings)

    @classmethod
    def pooled(cls, evaluations: Sequence[Evaluation]) -> Evaluation:
        """Several evaluations of the same problems, such as those of a method's seeds, as one with all their samples.

        Intervals resample problems, each with the samples of all: they say what other problems would have given, not
        what another seed would have.
        """
        rows: list[EvaluationRow] = []
        for evaluation in evaluations:
            first = 1 + max((row.sample for row in rows), default=-1)
            rows += [dataclasses.replace(row, sample=first + row.sample) for row in evaluation.rows]
        return cls(rows, evaluations[0].settings)


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
    top_k: int = 0,
    min_p: float = 0.0,
    seed: int,
    mode: Mode = AS_TRAINED,
    edit: Edit | None = None,
    store: str | Path | None = None,
    keep_token_ids: bool = False,
    think_end: str = "</think>",
    chat_template_kwargs: Mapping[str, Any] | None = None,
    batch_rows: int = 128,
    verify_deadline_seconds: float = 5.0,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Sample each prompt `samples` times and judge each completion once.

    What a completion is depends on the seed, the prompt's text and which of its samples it is: not on the other prompts
    or on how they are shared out among processes (up to the rounding of the model's arithmetic).

    Args:
        model: a transformers causal LM, or a `Backend`.
        tokenizer: renders the prompts through its chat template; None joins the messages with blank lines, for servers.
        prompts: the problems; an empty list gives an evaluation without rows.
        verifier: judges a completion's text against the prompt's reference.
        system: the system prompt.
        samples: completions a problem, one or more.
        max_new_tokens, temperature, top_p, top_k, min_p, mode: see `Sampling` and `Mode`.
        edit: what becomes of each prompt's text and columns, as in training; drawn by `seed` and content key.
        store: JSONL file in which each completion is stored as soon as it is judged. An evaluation with the same
            settings goes on where the file ends; other settings are refused.
        keep_token_ids: keep the sampled ids in the rows, for `budget_sweep`.
        think_end: the tag that ends thinking; where it is no single token, think lengths are whole lengths.
        chat_template_kwargs: further arguments of the chat template, such as `{"enable_thinking": False}`.
        batch_rows: completions sampled at once, where `model` is a causal LM.
        verify_deadline_seconds: wall-clock time that one verdict may take; then the row is unscorable.
        on_progress: see `Progress`; those that the store held count as judged.

    Raises:
        UserError: a setting out of range, a tokenizer without EOS, a store of other settings, or a server that fails.
    """
    if samples < 1:
        raise UserError(f"samples={samples}: each prompt needs one completion or more")
    backend = as_backend(model, tokenizer, batch_rows)
    sampling = Sampling(max_new_tokens, temperature, top_p, think_end, top_k, min_p)
    template = dict(chat_template_kwargs or {})
    asked: dict[str, Any] = {"system": system, "samples": samples, "seed": seed, "keep_token_ids": keep_token_ids}
    asked |= {"chat_template_kwargs": template} if template else {}
    asked |= {} if tokenizer is None else {"tokenizer": vocabulary_of(tokenizer)}
    if edit:
        prompts = [edited(edit, prompt, seed) for prompt in prompts]
        asked["edit"] = described(edit)
    judge = Judge(
        plan(prompts, tokenizer, system, samples, seed, template),
        verifier,
        settings_of(backend, verifier, mode, sampling) | asked,
        store=store,
        deadline_seconds=verify_deadline_seconds,
        on_progress=on_progress,
    )
    with judge.missing() as missing:
        complete(backend, [job.request for job in missing], sampling, mode, judge.take)
    return Evaluation(judge.rows(), judge.settings)


def as_backend(model: Any, tokenizer: Any, batch_rows: int = 128) -> Backend:
    """The model itself where it is a back end, else one that runs it with transformers."""
    if isinstance(model, HTTPBackend) and model.tokenizer is None:
        return dataclasses.replace(model, tokenizer=tokenizer)
    return model if isinstance(model, Backend) else TransformersBackend(model, tokenizer, batch_rows)


def settings_of(backend: Backend, verifier: Verifier, mode: Mode, sampling: Sampling) -> dict[str, Any]:
    """What completions and verdicts depend on, as JSON values."""
    settings = backend.identity() | {
        "verifier": described(verifier),
        "mode": dataclasses.asdict(mode),
        **dataclasses.asdict(sampling),
    }
    return json.loads(json.dumps(settings, default=str))


def vocabulary_of(tokenizer: Any) -> str:
    """A fingerprint of a vocabulary: lengths in tokens compare where it is the same."""
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return f"{len(words)} tokens ({content_key(json.dumps(words))})"


def described(component: Any) -> dict[str, Any]:
    """A verifier or an edit by its class and fields, as JSON values."""
    fields = dataclasses.asdict(component) if dataclasses.is_dataclass(component) else {}  # type: ignore[arg-type]
    return json.loads(json.dumps({"class": type(component).__qualname__, **fields}, default=str))


def completion_seed(seed: int, text: str, number: int) -> int:
    """The seed of a prompt's completion of a number, from 0: what the completion is depends on these three alone."""
    return int(content_key(str(seed), text, str(number)), 16) >> 1


def plan(
    prompts: Sequence[Prompt],
    tokenizer: Any,
    system: str | None,
    samples: int,
    seed: int,
    template: Mapping[str, Any] | None = None,
) -> list[Job]:
    """`samples` jobs a prompt, each with a seed of its own; a prompt that stands twice has twice as many samples."""
    asked: Counter[str] = Counter()
    same_text: Counter[str] = Counter()
    jobs = []
    for prompt, text in zip(prompts, render_texts(prompts, tokenizer, system, template), strict=True):
        messages = ({"role": "system", "content": system}, *prompt.messages) if system else prompt.messages
        for _ in range(samples):
            own_seed = completion_seed(seed, text, same_text[text])
            request = Request(text, messages, own_seed, template=template or {})
            jobs.append(Job(prompt.id, asked[prompt.id], prompt.reference, prompt.columns, request))
            asked[prompt.id] += 1
            same_text[text] += 1
    return jobs


def render_texts(
    prompts: Sequence[Prompt], tokenizer: Any, system: str | None = None, template: Mapping[str, Any] | None = None
) -> list[str]:
    """The prompts as texts, up to where the model is to go on: through the chat template where there is one.

    Raises:
        UserError: see `concise_rl.data.templates.apply_template`.
    """
    if tokenizer is None:
        opening = [system] if system else []
        return ["\n\n".join([*opening, *(message["content"] for message in prompt.messages)]) for prompt in prompts]
    made = [render(prompt, tokenizer, system) for prompt in prompts]
    conversations = [one for one in made if not isinstance(one, str)]
    applied = iter(apply_template(tokenizer, conversations, template))
    return [one if isinstance(one, str) else next(applied) for one in made]
