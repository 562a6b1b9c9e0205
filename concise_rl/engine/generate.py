"""What a sampler asks for tokens: requests dealt evenly over ranks, answers on every rank, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from concise_rl.ranks import on_every_rank, rank
from concise_rl.rollouts import Sampled, TokenRequest, TokenVocabulary

Complete = Callable[[Sequence[TokenRequest], int], list[Sampled]]
"""This rank's requests, all of one limit, to what was sampled for each; called on every rank with as many requests."""


class DealtGenerate:
    """`concise_rl.rollouts.Generate` over the ranks of a run; the only place where requests meet rank arithmetic.

    Args:
        complete: the back end of this rank.
        tokenizer: for texts that are put into the model's mouth.
        vocabulary: whose think-end tag is one token, its special one.
    """

    def __init__(self, complete: Complete, tokenizer: Any, vocabulary: TokenVocabulary) -> None:
        self.complete, self.tokenizer, self.vocabulary = complete, tokenizer, vocabulary

    def __call__(self, requests: Sequence[TokenRequest]) -> list[Sampled]:
        """The answers to all requests. Those of one limit go out together, since back ends take one limit a call."""
        answers: dict[int, Sampled] = {}
        for limit in sorted({request.limit for request in requests}):
            places = [n for n, request in enumerate(requests) if request.limit == limit]
            found = self._deal([requests[n] for n in places], limit)
            answers |= dict(zip(places, found, strict=True))
        return [answers[n] for n in range(len(requests))]

    def encode(self, text: str) -> tuple[int, ...]:
        """The tokens of a text. Its tags are special tokens, never their text pieces."""
        tag, end = self.vocabulary.think_end, self.vocabulary.think_end_id
        pieces = text.split(tag) if end is not None else [text]
        ids: list[int] = []
        for place, piece in enumerate(pieces):
            ids += [end] if place and end is not None else []
            ids += self.tokenizer(piece, add_special_tokens=False)["input_ids"] if piece else []
        return tuple(ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of tokens, tags included."""
        return self.tokenizer.decode(list(token_ids))

    def _deal(self, requests: Sequence[TokenRequest], limit: int) -> list[Sampled]:
        place, ranks = rank()
        share = -(-len(requests) // ranks)
        padded = [*requests, *[requests[-1]] * (share * ranks - len(requests))]
        if limit < 1:
            return [Sampled(()) for _ in requests]
        own = self.complete(padded[place * share :][:share], limit)
        return [answer for answers in on_every_rank(own) for answer in answers][: len(requests)]
