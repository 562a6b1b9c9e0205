"""Completions from any server that speaks OpenAI's API: vLLM, SGLang, llama.cpp, TGI, or a hosted one."""

from __future__ import annotations

import json
import math
import queue
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from concise_rl.errors import UserError
from concise_rl.evaluation.backends.base import Completion, Finished, Request, Sampling
from concise_rl.evaluation.backends.http_answer import Count, parse
from concise_rl.evaluation.backends.http_transport import (
    MAX_DELAY_SECONDS,
    Key,
    Passing,
    Refused,
    check_url,
    nonsense,
    post,
)

SEEDS = 2**31

ANSWER_BYTES, TOKEN_BYTES = 1 << 20, 1 << 10
"""An answer may have so many bytes, and so many more for each token that was asked for, its text and log-prob."""

NEUTRAL = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""Fields beyond OpenAI's API that change nothing. They are sent all the same: a server fills what is left out from the
model's generation_config, or from defaults of its own."""

T = TypeVar("T")


@dataclass(frozen=True)
class HTTPBackend:
    """One request a completion, several at a time; what fails in passing is tried again.

    Attempt k waits `backoff_seconds * 2**(k - 1)`, at most a minute, times a random factor in [0.5, 1]: many clients
    that failed together do not return together. A `Retry-After` header is obeyed where it asks for longer. When one
    completion fails for good the evaluation stops; what it had stored stays, and a later call goes on from there.

    Lengths are the server's `usage.completion_tokens`; for where thinking ends see `http_answer.parse`.

    What a server does not know of the fields that it is sent, it may refuse. Then `max_tokens` becomes
    `max_completion_tokens` where it asks for that, and a field that changes nothing is left out.

    Args:
        base_url: such as `http://localhost:8000/v1`, without user, password or query.
        model: the name under which the server serves it.
        endpoint: `completions` sends the rendered prompt; `chat` sends messages, and the server applies its template.
            A chat cannot be started in the model's place, so thinking can be neither closed nor cut there.
        concurrency: requests under way at once.
        timeout_seconds: for one attempt, from the connection to the last byte.
        attempts: tries a completion.
        backoff_seconds: the wait after the first failure.
        api_key_variable: environment variable that holds the key; none is sent where it is not set. It goes to
            `base_url` alone, redirects are refused, and it is in no message.
        token_texts: ask the completions endpoint for the tokens' texts; False for a server that refuses `logprobs`.
        extra_body: further JSON fields of each request; they win over all others.
        tokenizer: the model's, where there is one here: it counts thinking that the server does not count, and tells
            whether the server will put a BOS before the prompt, which then must not hold one.

    Raises:
        UserError: a field out of its range, or a key that no header carries.
    """

    base_url: str
    model: str
    endpoint: Literal["completions", "chat"] = "completions"
    concurrency: int = 16
    timeout_seconds: float = 600.0
    attempts: int = 6
    backoff_seconds: float = 1.0
    api_key_variable: str = "OPENAI_API_KEY"
    token_texts: bool = True
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Any = field(default=None, repr=False, compare=False)
    _refused: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
    """Names of fields that the server has refused and does not get again."""

    def __post_init__(self) -> None:
        check_url(self.base_url, self.api_key_variable)
        if self.endpoint not in ("completions", "chat"):
            raise UserError(f"endpoint={self.endpoint!r}: give completions or chat")
        for name in ("concurrency", "timeout_seconds", "attempts"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name}={getattr(self, name)}: give a positive number")
        if not 0 <= self.backoff_seconds < math.inf:
            raise UserError(f"backoff_seconds={self.backoff_seconds}: give 0 or more")
        Key.of(self.api_key_variable)

    def generate(self, requests: Sequence[Request], sampling: Sampling, finished: Finished) -> None:
        """See `Backend.generate`.

        Raises:
            UserError: the server is down, slow, or answers what is no completion, after all attempts; it refuses the
                request; or a chat is to be continued.
        """
        if self.endpoint == "chat" and any(request.given for request in requests):
            raise UserError(
                "endpoint=chat cannot go on from a started answer, as no_thinking and forced ask: "
                "use endpoint=completions, with a tokenizer that has the model's chat template"
            )
        stop = threading.Event()
        key, bos = Key.of(self.api_key_variable), own_bos(self.tokenizer)
        work = [lambda request=request: self._ask(self._body(request, sampling, bos), sampling, key, stop)
                for request in requests]  # fmt: skip
        in_threads(work, self.concurrency, finished, stop)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Always refused: the server has the tokenizer."""
        raise UserError("an HTTP server gives no token ids: evaluate each budget by itself, with mode=truncated")

    def identity(self) -> dict[str, Any]:
        """Model and endpoint; the address is left out, because a restarted server may have another."""
        return {"backend": "http", "model": self.model, "endpoint": self.endpoint, "extra_body": dict(self.extra_body)}

    @property
    def url(self) -> str:
        """Where requests go."""
        return self.base_url.rstrip("/") + ("/chat/completions" if self.endpoint == "chat" else "/completions")

    def _ask(self, body: dict[str, Any], sampling: Sampling, key: Key, stop: threading.Event) -> Completion:
        failures: list[str] = []
        for attempt in range(1, self.attempts + 1):
            try:
                return self._completion(self._answer(body, sampling, key), sampling, key)
            except Passing as failure:
                failures.append(str(failure))
                delay = min(MAX_DELAY_SECONDS, self.backoff_seconds * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
                if attempt == self.attempts or stop.wait(max(delay, failure.wait_seconds)):
                    earlier = [text for text in dict.fromkeys(failures) if text != failures[-1]]
                    before = f" (before that it {'; '.join(earlier)})" if earlier else ""
                    raise UserError(f"{self.url} {failure} in {attempt} attempts{before}: {failure.remedy}") from None
        raise AssertionError("attempts is positive")

    def _answer(self, body: Mapping[str, Any], sampling: Sampling, key: Key) -> Any:
        """The answer of one attempt, which takes several requests where the server does not know a field."""
        most_bytes = ANSWER_BYTES + TOKEN_BYTES * sampling.max_new_tokens
        while True:
            known = adapted(body, self._refused)
            try:
                return post(self.url, known, key, timeout_seconds=self.timeout_seconds, most_bytes=most_bytes)
            except Refused as refusal:
                unknown = unknown_fields(known, refusal)
                if not unknown:
                    raise UserError(
                        f"{self.url} refused ({refusal}): check base_url, model, key and settings"
                    ) from None
                self._refused.update(unknown)

    def _body(self, request: Request, sampling: Sampling, bos: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": request.seed % SEEDS,
        }
        body |= NEUTRAL | {"min_p": sampling.min_p} | ({"top_k": sampling.top_k} if sampling.top_k else {})
        if self.endpoint == "chat":
            body |= {"chat_template_kwargs": dict(request.template)} if request.template else {}
            return body | {"messages": list(request.messages)} | dict(self.extra_body)
        body["prompt"] = (request.prompt.removeprefix(bos)) + request.given
        if self.token_texts:
            body["logprobs"] = 0
        return body | dict(self.extra_body)

    def _completion(self, answer: Any, sampling: Sampling, key: Key) -> Completion:
        try:
            found = parse(answer, sampling, counter(self.tokenizer))
        except (TypeError, KeyError, IndexError, ValueError, AttributeError, OverflowError) as error:
            said = key.redact(f"{type(error).__name__}: {error}")
            raise nonsense(said, key.redact(json.dumps(answer))) from None
        text = key.redact_completion(found.text)
        return found if text == found.text else Completion(text, found.length, found.truncated, found.think_length)


def adapted(body: Mapping[str, Any], refused: set[str]) -> dict[str, Any]:
    """The request without what the server has refused, the limit under the name that it knows."""
    known = {name: value for name, value in body.items() if name not in refused}
    if "max_tokens" in refused and "max_tokens" in body:
        known["max_completion_tokens"] = body["max_tokens"]
    return known


def unknown_fields(body: Mapping[str, Any], refusal: Refused) -> set[str]:
    """The fields that a refusal names and that can be spared: a limit with another name, and what changes nothing."""
    if refusal.status not in (400, 422):
        return set()
    spared = {name for name, value in NEUTRAL.items() if name in refusal.detail and body.get(name) == value}
    if "max_completion_tokens" in refusal.detail and "max_tokens" in body:
        spared.add("max_tokens")
    return spared


def own_bos(tokenizer: Any) -> str:
    """The text of the BOS that a tokenizer puts before every text by itself; empty where it puts none."""
    if tokenizer is None or tokenizer.bos_token is None:
        return ""
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token if ids and ids[0] == tokenizer.bos_token_id else ""


def counter(tokenizer: Any) -> Count | None:
    """How many tokens a text has; None without a tokenizer."""
    if tokenizer is None:
        return None
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def in_threads(
    work: Sequence[Callable[[], T]], threads: int, finished: Callable[[int, T], None], stop: threading.Event
) -> None:
    """Run the work in daemon threads and hand over each result in this one; the first error ends it all.

    Daemon threads, because an interrupted evaluation must not wait for answers that nobody will read.
    """
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    results: queue.SimpleQueue[tuple[int, T | None, BaseException | None]] = queue.SimpleQueue()
    for place in range(len(work)):
        todo.put(place)

    def take() -> None:
        while not stop.is_set():
            try:
                place = todo.get_nowait()
            except queue.Empty:
                return
            try:
                results.put((place, work[place](), None))
            except BaseException as error:
                # In this order: what the others fail of once they are told to stop comes behind the cause.
                results.put((place, None, error))
                stop.set()

    for _ in range(min(threads, len(work))):
        threading.Thread(target=take, daemon=True).start()
    try:
        for _ in work:
            place, result, error = results.get()
            if error is not None:
                raise error
            finished(place, result)  # type: ignore[arg-type]
    finally:
        stop.set()
