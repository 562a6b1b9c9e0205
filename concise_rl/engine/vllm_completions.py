"""Completions of token prompts from a `vllm serve`, over HTTP, with the log-probs of what was sampled."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from concise_rl.errors import UserError
from concise_rl.rollouts import Sampled, TokenRequest

FIRST_WAIT = 0.5
"""Seconds before the second try; each further one waits twice as long."""


@dataclass
class VLLMCompletions:
    """Asks `/v1/completions` for each request, as TRL's own rollout worker does, many at a time.

    Attributes:
        url: of the server, such as `http://localhost:8000`.
        model: the name under which it serves the policy.
        temperature, top_p, top_k, min_p, repetition_penalty: as TRL's `AsyncGRPOConfig` has them.
        timeout: seconds that one answer may take.
        concurrent: most requests at a time of one call.
        tries: of a request that the server does not answer, or answers with its own error.

    Raises:
        UserError: from a call: the server cannot be reached, refuses a request, or gives no log-probs.
    """

    url: str
    model: str
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float | None = None
    repetition_penalty: float = 1.0
    timeout: float = 600.0
    concurrent: int = 256
    tries: int = 5

    @classmethod
    def of(cls, args: Any, model: str) -> VLLMCompletions:
        """The server and the sampling that an `AsyncGRPOConfig` describes."""
        return cls(
            url=args.vllm_server_base_url,
            model=model,
            temperature=args.temperature,
            top_p=args.top_p,
            top_k=args.top_k,
            min_p=args.min_p,
            repetition_penalty=args.repetition_penalty,
            timeout=args.request_timeout,
        )

    def __call__(self, requests: Sequence[TokenRequest]) -> list[Sampled]:
        """An answer to each request, in order."""
        with ThreadPoolExecutor(max(1, min(len(requests), self.concurrent))) as pool:
            return list(pool.map(self._complete, requests))

    def _complete(self, request: TokenRequest) -> Sampled:
        asked: dict[str, Any] = {
            "model": self.model,
            "prompt": [*request.prompt_ids, *request.start],
            "max_tokens": request.limit,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "repetition_penalty": self.repetition_penalty,
            "n": 1,
            "return_token_ids": True,
            "logprobs": 0,
            "seed": request.seed,
        }
        if self.min_p is not None:
            asked["min_p"] = self.min_p
        choice = self._post(asked)["choices"][0]
        ids, logprobs = choice.get("token_ids"), (choice.get("logprobs") or {}).get("token_logprobs")
        if ids is None or logprobs is None or len(ids) != len(logprobs):
            raise UserError(f"{self.url} answers without token_ids and log-probs: serve with vLLM 0.22 to 0.31")
        return Sampled(tuple(ids), tuple(logprobs))

    def _post(self, asked: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/v1/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
        )
        for attempt in range(self.tries):
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    said = " ".join(error.read().decode(errors="replace").split())[:300]
                    raise UserError(f"{self.url} refuses a request ({error.code}): {said}") from error
                reason: Exception = error
            except (OSError, ValueError) as error:
                reason = error
            if attempt + 1 < self.tries:
                time.sleep(FIRST_WAIT * 2**attempt)
        raise UserError(
            f"{self.url} did not answer {self.tries} times ({reason}): see whether vllm serve runs there, or set "
            "vllm_server_base_url"
        ) from reason
