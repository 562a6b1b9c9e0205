"""Completions from any server that speaks OpenAI's API: vLLM, SGLang, llama.cpp, TGI, or a hosted one."""

from __future__ import annotations

import json
import os
import queue
import random
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any, Literal, TypeVar

from concise_rl.errors import UserError
from concise_rl.evaluation.backends.base import Completion, Finished, Request, Sampling

PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Statuses that a later attempt may not meet again."""

SEEDS = 2**31
MAX_DELAY_SECONDS = 60.0

T = TypeVar("T")


class _Passing(Exception):
    """An attempt failed in a way that the next one may not; the text is what a person reads if none succeeds."""

    def __init__(self, reason: str, remedy: str, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.remedy, self.wait_seconds = remedy, wait_seconds


class _Stay(urllib.request.HTTPRedirectHandler):
    """urllib would carry key and prompt wherever a redirect points; here it is an answer like any other refusal."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True)
class HTTPBackend:
    """One request a completion, several at a time; what fails in passing is tried again.

    Attempt k waits `backoff_seconds * 2**(k - 1)`, at most a minute, times a random factor in [0.5, 1]: many clients
    that failed together do not return together. A `Retry-After` header is obeyed where it asks for longer. When one
    completion fails for good the evaluation stops; what it had stored stays, and a later call goes on from there.

    Lengths are the server's `usage.completion_tokens`. Where thinking ends is read from the tokens' texts, which the
    completions endpoint gives with `logprobs`, or from `reasoning_tokens`; a server that tells neither leaves think
    lengths unknown.

    Args:
        base_url: such as `http://localhost:8000/v1`.
        model: the name under which the server serves it.
        endpoint: `completions` sends the rendered prompt; `chat` sends messages, and the server applies its template.
            A chat cannot be started in the model's place, so thinking can be neither closed nor cut there.
        concurrency: requests under way at once.
        timeout_seconds: longest silence of the server within one attempt.
        attempts: tries a completion.
        backoff_seconds: the wait after the first failure.
        api_key_variable: environment variable that holds the key; none is sent where it is not set. It goes to
            `base_url` alone: redirects are refused.
        token_texts: ask for the tokens' texts; False for a server that refuses `logprobs`.
        extra_body: further JSON fields of each request, such as `{"top_k": 20}`.
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

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise UserError(f"base_url={self.base_url!r}: give an address such as http://localhost:8000/v1")
        if self.endpoint not in ("completions", "chat"):
            raise UserError(f"endpoint={self.endpoint!r}: give completions or chat")
        for name in ("concurrency", "timeout_seconds", "attempts"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name}={getattr(self, name)}: give a positive number")
        if self.backoff_seconds < 0:
            raise UserError(f"backoff_seconds={self.backoff_seconds}: give 0 or more")

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
        work = [lambda request=request: self._ask(request, sampling, stop) for request in requests]
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

    def _ask(self, request: Request, sampling: Sampling, stop: threading.Event) -> Completion:
        body = json.dumps(self._body(request, sampling)).encode()
        for attempt in range(1, self.attempts + 1):
            try:
                return self._completion(self._post(body), sampling)
            except _Passing as failure:
                delay = min(MAX_DELAY_SECONDS, self.backoff_seconds * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
                if attempt == self.attempts or stop.wait(max(delay, failure.wait_seconds)):
                    raise UserError(f"{self.url} {failure} in {attempt} attempts: {failure.remedy}") from failure
        raise AssertionError("attempts is positive")

    def _body(self, request: Request, sampling: Sampling) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": request.seed % SEEDS,
        }
        if self.endpoint == "chat":
            return body | {"messages": list(request.messages)} | dict(self.extra_body)
        body["prompt"] = request.prompt + request.given
        if self.token_texts:
            body["logprobs"] = 0
        return body | dict(self.extra_body)

    def _post(self, body: bytes) -> Any:
        """The parsed answer of one attempt."""
        headers = {"Content-Type": "application/json"}
        key = os.environ.get(self.api_key_variable)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        try:
            with urllib.request.build_opener(_Stay).open(
                urllib.request.Request(self.url, body, headers), timeout=self.timeout_seconds
            ) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from error
        except TimeoutError as error:
            raise self._slow() from error
        except (OSError, HTTPException) as error:
            if isinstance(getattr(error, "reason", None), TimeoutError):
                raise self._slow() from error
            reason = getattr(error, "reason", None) or error
            text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
            raise _Passing(f"cannot be reached ({text})", "start the server, or check base_url") from error
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise _nonsense("no JSON", content.decode(errors="replace")) from error

    def _slow(self) -> _Passing:
        return _Passing(
            f"was silent for {self.timeout_seconds:g} s", "raise timeout_seconds, or ask for less at once (concurrency)"
        )

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        try:
            detail = _one_line(error.read().decode(errors="replace"))
        except (OSError, HTTPException):
            detail = error.reason
        if error.code not in PASSING:
            return UserError(f"{self.url} refused ({error.code}: {detail}): check base_url, model, key and settings")
        try:
            wait_seconds = min(MAX_DELAY_SECONDS, float(error.headers.get("Retry-After", 0)))
        except ValueError:
            wait_seconds = 0.0
        return _Passing(
            f"answered {error.code} ({detail})", "wait until it is free, or lower concurrency", wait_seconds
        )

    def _completion(self, answer: Any, sampling: Sampling) -> Completion:
        try:
            choice = answer["choices"][0]
            reason, usage = choice["finish_reason"], answer.get("usage") or {}
            if self.endpoint == "chat":
                text, tokens = _chat_text(choice["message"], sampling.think_end), None
            else:
                text, tokens = choice["text"], (choice.get("logprobs") or {}).get("tokens")
            if not isinstance(text, str) or not isinstance(reason, str):
                raise TypeError("text and finish_reason must be texts")
            tokens = tuple(map(str, tokens)) if tokens is not None else None
            length = int(usage["completion_tokens"] if "completion_tokens" in usage else len(tokens or ()))
            if length < 0 or (length == 0 and text):
                raise ValueError("no count of tokens")
            thinking = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
        except (TypeError, KeyError, IndexError, ValueError, AttributeError, OverflowError) as error:
            raise _nonsense(f"{type(error).__name__}: {error}", json.dumps(answer)) from error
        # Servers differ in whether EOS is among the texts; any other gap means that they count something else.
        if tokens is not None and not 0 <= length - len(tokens) <= 1:
            tokens = None
        return Completion(
            text=text,
            length=length,
            truncated=reason == "length",
            think_length=_think_length(text, tokens, length, thinking, sampling.think_end),
            tokens=tokens,
        )


def _chat_text(message: Mapping[str, Any], think_end: str) -> str:
    """The message as the model wrote it: a server with a reasoning parser gives thinking apart."""
    thinking = message.get("reasoning_content") or message.get("reasoning")
    content = message.get("content") or ""
    return f"{think_end.replace('/', '', 1)}{thinking}{think_end}{content}" if thinking else content


def _think_length(
    text: str, tokens: tuple[str, ...] | None, length: int, told: int | None, think_end: str
) -> int | None:
    """Tokens before the one with which the tag is complete; the tag counts as one token, however many it takes."""
    if think_end not in text:
        return length
    if tokens is not None and think_end in "".join(tokens):
        before = "".join(tokens).index(think_end)
        spent = 0
        for count, token in enumerate(tokens):
            if spent + len(token) > before:
                return count
            spent += len(token)
    return min(told, length) if isinstance(told, int) and told > 0 else None


def _nonsense(reason: str, content: str) -> _Passing:
    return _Passing(
        f"answered what is no completion ({reason}; it begins {_one_line(content)!r})",
        "check that base_url is an OpenAI-compatible API, such as http://localhost:8000/v1",
    )


def _one_line(text: str, limit: int = 120) -> str:
    return " ".join(text.split())[:limit]


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
