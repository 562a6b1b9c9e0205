"""How much thinking an evaluation lets the model do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from concise_rl.data.base import content_key
from concise_rl.errors import UserError
from concise_rl.evaluation.backends.base import Backend, Completion, Finished, Request, Sampling

WAVE_ROWS = 1024
"""Forced completions are made in waves of so many: an interrupted one loses the thinking of one wave at most."""


@dataclass(frozen=True)
class Mode:
    """What happens to the thinking phase.

    - `as_trained`: nothing.
    - `no_thinking`: it is closed before it begins: the completion is made to start with the think tag (where the prompt
      has not opened one), `thought`, the think-end tag and `answer_start` (NoThinking, arXiv 2504.09858; its `thought`
      says that thinking is finished).
    - `forced`: thinking that has not ended after `budget` tokens is cut there, the think-end tag and `answer_start` are
      put behind it, and the rest of `max_new_tokens` is for the answer (budget forcing, arXiv 2501.19393 section 3.1).
    - `truncated`: the whole completion is cut at `budget` tokens, with no second chance.

    What is put into the model's mouth is part of the completion's text and of no length.
    """

    name: Literal["as_trained", "no_thinking", "forced", "truncated"] = "as_trained"
    budget: int | None = None
    thought: str = ""
    answer_start: str = ""

    def __post_init__(self) -> None:
        if self.name not in ("as_trained", "no_thinking", "forced", "truncated"):
            raise UserError(f"mode={self.name!r}: give as_trained, no_thinking, forced or truncated")
        budgeted = self.name in ("forced", "truncated")
        if budgeted and (self.budget is None or self.budget < 1):
            raise UserError(f"budget={self.budget}: mode={self.name} needs a number of tokens, one or more")
        if not budgeted and self.budget is not None:
            raise UserError(f"budget={self.budget}: mode={self.name} has no budget; choose forced or truncated")

    @classmethod
    def as_trained(cls) -> Mode:
        return cls()

    @classmethod
    def no_thinking(cls, thought: str = "", answer_start: str = "") -> Mode:
        return cls("no_thinking", thought=thought, answer_start=answer_start)

    @classmethod
    def forced(cls, budget: int, answer_start: str = "") -> Mode:
        return cls("forced", budget, answer_start=answer_start)

    @classmethod
    def truncated(cls, budget: int) -> Mode:
        return cls("truncated", budget)


AS_TRAINED = Mode()


@dataclass(frozen=True)
class Outcome:
    """One whole completion under a mode.

    Attributes:
        completion: start, closing and what followed; lengths count the sampled tokens.
        forced: its think-end tag was put there, not sampled.
    """

    completion: Completion
    forced: bool


Done = Callable[[int, Outcome], None]


def complete(backend: Backend, requests: Sequence[Request], sampling: Sampling, mode: Mode, done: Done) -> None:
    """Sample each request under the mode, and hand over each as soon as it is done.

    Raises:
        UserError: a budget that leaves no token for the answer; and what the back end raises.
    """
    check_budget(mode, sampling)
    if mode.name == "no_thinking":
        closed = [replace(request, closing=closed_thinking(request.prompt, sampling, mode)) for request in requests]
        backend.generate(closed, sampling, joining(closed, sampling, done))
    elif mode.name == "forced":
        for begin in range(0, len(requests), WAVE_ROWS):
            _force(backend, requests[begin : begin + WAVE_ROWS], begin, sampling, mode, done)
    else:
        limit = min(sampling.max_new_tokens, mode.budget or sampling.max_new_tokens)
        backend.generate(requests, replace(sampling, max_new_tokens=limit), joining(requests, sampling, done))


def check_budget(mode: Mode, sampling: Sampling) -> None:
    """Refuse a budget that changes nothing, or a forced one that leaves nothing for the answer."""
    if mode.name == "truncated" and mode.budget is not None and mode.budget > sampling.max_new_tokens:
        raise UserError(
            f"budget={mode.budget}: with max_new_tokens={sampling.max_new_tokens} no completion reaches it; "
            "lower the budget or raise max_new_tokens"
        )
    if mode.name == "forced" and mode.budget is not None and mode.budget >= sampling.max_new_tokens:
        raise UserError(
            f"budget={mode.budget}: with max_new_tokens={sampling.max_new_tokens} no token is left for the answer; "
            "raise max_new_tokens"
        )


def closed_thinking(prompt: str, sampling: Sampling, mode: Mode) -> str:
    """A thinking phase that is over; the tag that opens it is left out where the prompt ends with it."""
    opening = sampling.think_end.replace("/", "", 1)
    opened = prompt.rstrip().endswith(opening)
    return ("" if opened else opening) + mode.thought + sampling.think_end + mode.answer_start


def force(request: Request, start: Completion, sampling: Sampling, mode: Mode) -> Request:
    """The request for the answer that follows `start`, whose thinking is closed where it is still open."""
    still_open = start.think_length == start.length and sampling.think_end not in start.text
    closing = sampling.think_end + mode.answer_start if still_open else ""
    # A stream of its own: the answer must not be drawn with the numbers that its thinking was drawn with.
    seed = int(content_key(str(request.seed), "answer"), 16) >> 1
    return replace(request, start=start, closing=closing, seed=seed)


def joining(requests: Sequence[Request], sampling: Sampling, done: Done) -> Finished:
    """Hand over whole completions: what was given before, and what was sampled now."""
    return lambda place, completion: done(place, joined(requests[place], completion, sampling))


def joined(request: Request, sampled: Completion, sampling: Sampling) -> Outcome:
    """Start, closing and the sampled rest as one completion."""
    forced = sampling.think_end in request.closing
    start = request.start or Completion("", 0, False, 0, ())
    length = start.length + sampled.length
    if forced:
        think_length: int | None = start.length
    elif request.start is None:
        think_length = sampled.think_length
    else:
        # A start that is all thinking and yet was not closed holds a tag that is no single token.
        think_length = length if start.think_length == start.length else start.think_length
    known = start.tokens is not None and sampled.tokens is not None
    whole = Completion(
        text=start.text + request.closing + sampled.text,
        length=length,
        truncated=sampled.truncated,
        think_length=think_length,
        tokens=(*start.tokens, *sampled.tokens) if known else None,  # type: ignore[misc]
    )
    return Outcome(whole, forced)


def _force(
    backend: Backend, requests: Sequence[Request], begin: int, sampling: Sampling, mode: Mode, done: Done
) -> None:
    assert mode.budget is not None
    cut: dict[int, Completion] = {}

    def thought(place: int, completion: Completion) -> None:
        if completion.truncated:
            cut[place] = completion
        else:
            done(begin + place, Outcome(completion, forced=False))

    backend.generate(requests, replace(sampling, max_new_tokens=mode.budget), thought)
    places = sorted(cut)
    answers = [force(requests[place], cut[place], sampling, mode) for place in places]
    rest = replace(sampling, max_new_tokens=sampling.max_new_tokens - mode.budget)
    backend.generate(answers, rest, joining(answers, sampling, lambda i, outcome: done(begin + places[i], outcome)))
