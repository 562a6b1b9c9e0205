"""Completions to select from: sampled, judged, and stored each once, by (problem, edit, stage, seed)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from concise_rl.data import Prompt
from concise_rl.errors import UserError
from concise_rl.evaluation.backends import Backend, Request, Sampling
from concise_rl.evaluation.backends.http import own_bos
from concise_rl.evaluation.columns import Columns, columns_of, samples_of
from concise_rl.evaluation.evaluate import completion_seed, render_texts, settings_of, vocabulary_of
from concise_rl.evaluation.judge import Job, Judging, Progress
from concise_rl.evaluation.modes import Mode, complete
from concise_rl.evaluation.row import EvaluationRow
from concise_rl.evaluation.store import Store
from concise_rl.files import sole_writer
from concise_rl.methods.contracts import Edit, Selector
from concise_rl.methods.edits.wording import edited
from concise_rl.options import Truncated
from concise_rl.verifiers import Verifier, verdict_version

WAVE_ROWS = 8192
"""Completions are asked for in waves of so many, so that a million of them need no memory."""


@dataclass(frozen=True)
class Asked:
    """A problem under one edit, rendered.

    Attributes:
        prompt: the problem, edited.
        edit: the edit's description; empty for none.
        text: the prompt as the model reads it.
        plain: prompt and messages without the edit; None where there is none.
    """

    prompt: Prompt
    edit: str
    text: str
    messages: tuple[Mapping[str, str], ...]
    plain: Mapping[str, Any] | None

    def job(self, number: int, seed: int, stage: str, template: Mapping[str, Any]) -> Job:
        """Its completion of a number."""
        own_seed = completion_seed(seed, self.text, number)
        request = Request(self.text, self.messages, own_seed, template=template)  # type: ignore[arg-type]
        stored: dict[str, Any] = {"edit": self.edit, "stage": stage, "messages": self.messages, "plain": self.plain}
        return Job(self.prompt.id, number, self.prompt.reference, self.prompt.columns, request, stored)


def sample(
    backend: Backend,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    verifier: Verifier,
    sampling: Sampling,
    *,
    store: str | Path,
    samples: int,
    seed: int,
    stage: str = "",
    edits: Mapping[str, Edit] | None = None,
    until: Selector | None = None,
    max_samples: int | None = None,
    mode: Mode,
    system: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    verify_deadline_seconds: float = 5.0,
    on_progress: Progress | None = None,
) -> Columns:
    """Sample each problem `samples` times under each edit, and judge and store each completion once.

    The same call on the same store goes on where it stopped; more samples, problems, edits and seeds may be asked for
    later. Stores of several machines are named together where they are read.

    Args:
        edits: description to edit; none asks each problem as it is.
        until: a selector with a quota: for the problems that it finds unfilled sampling goes on, `samples` at a time,
        max_samples: up to so many a problem and edit.
        store, verify_deadline_seconds, system, chat_template_kwargs: see `concise_rl.evaluation.evaluate`.

    Raises:
        UserError: a setting out of range; a store of other settings, or that another process writes to.
        DataError: a damaged or repeated line in the store.
    """
    most = samples if max_samples is None else max_samples
    if samples < 1 or most < samples:
        raise UserError(f"samples={samples}, max_samples={most}: need 1 or more, and no ceiling below the samples")
    template = dict(chat_template_kwargs or {})
    settings = settings_of(backend, verifier, mode, sampling) | identity_of(tokenizer)
    settings |= {"system": system, "chat_template_kwargs": template, "verdicts": verdict_version()}
    problems = {prompt.id: prompt for prompt in prompts}
    asked = render(list(problems.values()), tokenizer, system, template, edits or {}, seed)
    own: dict[str, Any] = {"seed": seed, "stage": stage, "template": template}
    lock = Path(store).with_name(f".{Path(store).name}.lock")
    with sole_writer(lock, "store", store, wait="wait for it"):
        filling = _Filling(Store(store, settings), _known(columns_of(store), stage), on_progress)
        numbers, wanted = range(samples), asked
        while wanted:
            filling.begin(one.job(number, **own) for one in wanted for number in numbers)
            for wave in _waves(
                job for one in wanted for number in numbers if not filling.has(job := one.job(number, **own))
            ):
                judging = Judging(wave, verifier, settings, filling.keep, deadline_seconds=verify_deadline_seconds)
                with judging.missing() as missing:
                    complete(backend, [job.request for job in missing], sampling, mode, judging.take)
            numbers = range(numbers.stop, min(numbers.stop + samples, most))
            wanted = _unfilled(until, columns_of(store), asked, stage) if until and numbers else []
        return columns_of(store)


Key = tuple[str, str, int]
"""Problem, edit and seed of a completion: what tells those of one stage apart."""


@dataclass
class _Filling:
    """A store on its way: which completions it has, and how many of those asked for so far.

    Attributes:
        known: of this stage.
        total, done: completions asked for, and those of them that are stored.
    """

    stored: Store
    known: set[Key]
    on_progress: Progress | None
    total: int = 0
    done: int = 0

    def begin(self, jobs: Iterable[Job]) -> None:
        """Count what is asked for next, and what of it is there."""
        for job in jobs:
            self.total += 1
            self.done += self.has(job)
        self._tell()

    def has(self, job: Job) -> bool:
        return (job.prompt_id, job.stored["edit"], job.request.seed) in self.known

    def keep(self, rows: Sequence[EvaluationRow]) -> None:
        self.stored.append(rows)
        self.known.update((row.prompt_id, row.edit, row.seed) for row in rows)  # type: ignore[misc]
        self.done += len(rows)
        self._tell()

    def _tell(self) -> None:
        if self.on_progress:
            self.on_progress(self.done, self.total)


def render(
    prompts: Sequence[Prompt],
    tokenizer: Any,
    system: str | None,
    template: Mapping[str, Any],
    edits: Mapping[str, Edit],
    seed: int,
) -> list[Asked]:
    """Every problem under every edit, those of a problem together.

    Raises:
        ValueError: an edit changed the content key.
    """
    opening = ({"role": "system", "content": system},) if system else ()
    plain_texts = render_texts(prompts, tokenizer, system, template)
    if not edits:
        return [Asked(p, "", text, (*opening, *p.messages), None) for p, text in zip(prompts, plain_texts, strict=True)]
    found: dict[str, list[Asked]] = {prompt.id: [] for prompt in prompts}
    for name, edit in edits.items():
        changed = [edited(edit, prompt, seed) for prompt in prompts]
        texts = render_texts(changed, tokenizer, system, template)
        for before, after, plain_text, text in zip(prompts, changed, plain_texts, texts, strict=True):
            plain = {"prompt": plain_text, "messages": [*opening, *before.messages]}
            found[before.id].append(Asked(after, name, text, (*opening, *after.messages), plain))
    return [one for own in found.values() for one in own]


def identity_of(tokenizer: Any) -> dict[str, Any]:
    """What makes lengths comparable and texts exact: the vocabulary, as an evaluation's store names it; a fingerprint
    of all that makes prompts; and the BOS that the tokenizer adds itself. All are None where a server tokenizes.
    """
    if tokenizer is None:
        return {"tokenizer": None, "fingerprint": None, "own_bos": None}
    return {
        "tokenizer": vocabulary_of(tokenizer), "fingerprint": fingerprint(tokenizer), "own_bos": own_bos(tokenizer),
    }  # fmt: skip


def fingerprint(tokenizer: Any) -> str:
    """16 hex digits of its vocabulary, special tokens and chat template."""
    vocabulary = sorted(tokenizer.get_vocab().items())
    content = json.dumps([vocabulary, tokenizer.eos_token, tokenizer.chat_template])
    return hashlib.blake2b(content.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def _known(columns: Columns, stage: str) -> set[Key]:
    n = columns.numbers
    own = n["stage"] == stage
    return set(zip(*(n[name][own].tolist() for name in ("problem", "edit", "seed")), strict=True))


def _unfilled(until: Selector, columns: Columns, asked: Sequence[Asked], stage: str) -> list[Asked]:
    samples = samples_of(columns.numbers).counting(Truncated.wrong)
    unfilled = until.unfilled(samples.keep(samples.stages == stage)) or ()
    return [one for one in asked if one.prompt.id in unfilled]


def _waves(jobs: Iterator[Job]) -> Iterator[list[Job]]:
    while wave := list(islice(jobs, WAVE_ROWS)):
        yield wave
