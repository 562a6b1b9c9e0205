"""Rows that samplers put together from pieces: sampled ones, and forced ones that are no length and not trained."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from concise_rl.errors import UserError
from concise_rl.rollouts import Finish, Generate, LocalRollout, PolicyPrompt, Sampled, TokenRequest, TokenVocabulary

SENTENCE_ENDS = (".", "!", "?")
FULL_WIDTH_ENDS = ("\N{IDEOGRAPHIC FULL STOP}", "\N{FULLWIDTH EXCLAMATION MARK}", "\N{FULLWIDTH QUESTION MARK}")


@dataclass(frozen=True)
class Draft:
    """A completion under way.

    Attributes:
        prompt: whose completion it is.
        limit: the most tokens that it may sample.
        token_ids: its tokens so far.
        sampled: which of them the policy chose.
        logprobs: of its tokens under the engine that sampled them, 0 where forced; None once a piece came without.
        closed: a sampler closed its thought.
        parts: row values that the sampler knows.
    """

    prompt: PolicyPrompt
    limit: int
    token_ids: tuple[int, ...] = ()
    sampled: tuple[bool, ...] = ()
    logprobs: tuple[float, ...] | None = ()
    closed: bool = False
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """How many tokens it may still sample."""
        return self.limit - sum(self.sampled)

    def ended(self, vocabulary: TokenVocabulary) -> bool:
        """Whether its last token ends a completion."""
        return not vocabulary.cut_off(self.token_ids)

    def thinks(self, vocabulary: TokenVocabulary) -> bool:
        """Whether its thought is still open: no think-end tag, and no end."""
        return vocabulary.think_end_id not in self.token_ids and not self.ended(vocabulary)

    def thought(self, vocabulary: TokenVocabulary) -> int:
        """Tokens before its first think-end tag; without one all but the end-of-text token."""
        if vocabulary.think_end_id in self.token_ids:
            return self.token_ids.index(vocabulary.think_end_id)
        return len(self.token_ids) - self.ended(vocabulary)

    def grown(self, found: Sampled, most: int) -> Draft:
        """With up to `most` tokens of what was sampled behind it."""
        ids = found.token_ids[:most]
        known = self.logprobs is not None and found.logprobs is not None
        logprobs = (*self.logprobs, *found.logprobs[:most]) if known else None  # type: ignore[misc, index]
        return replace(
            self, token_ids=self.token_ids + ids, sampled=self.sampled + (True,) * len(ids), logprobs=logprobs
        )

    def forced(self, ids: Sequence[int]) -> Draft:
        """With tokens behind it that nobody sampled."""
        return replace(
            self,
            token_ids=(*self.token_ids, *ids),
            sampled=self.sampled + (False,) * len(ids),
            logprobs=None if self.logprobs is None else self.logprobs + (0.0,) * len(ids),
        )

    def cut(self, length: int) -> Draft:
        """Its first `length` tokens."""
        return replace(
            self,
            token_ids=self.token_ids[:length],
            sampled=self.sampled[:length],
            logprobs=None if self.logprobs is None else self.logprobs[:length],
        )

    def row(self, finish: Finish | None = None, trained: Sequence[bool] | None = None) -> LocalRollout:
        """As the trainer takes it."""
        return LocalRollout(
            self.prompt.key,
            self.prompt.text,
            self.token_ids,
            "",
            None,
            self.prompt.columns,
            limit=self.limit,
            sampled=None if all(self.sampled) else self.sampled,
            trained=trained,
            finish=finish,
            sampler_logprobs=self.logprobs,
            parts=self.parts,
        )


def drafts_of(prompts: Sequence[PolicyPrompt], group_size: int) -> list[Draft]:
    """An empty draft for each row, in prompt-major order."""
    return [Draft(prompt, prompt.limit) for prompt in prompts for _ in range(group_size)]


def go_on(drafts: Sequence[Draft], most: Sequence[int], generate: Generate, rng: random.Random) -> list[Draft]:
    """Each draft with up to `most[n]` more sampled tokens, within its limit; one that has ended stays as it is.

    All are asked for as many tokens, the most that any of them may have, and cut: back ends take one limit a call, and
    the first tokens of a longer answer are distributed as a shorter one.
    """
    rooms = [0 if d.ended(generate.vocabulary) else min(m, d.left) for d, m in zip(drafts, most, strict=True)]
    asked = [n for n, room in enumerate(rooms) if room > 0]
    limit = max(rooms, default=0)
    found = generate(
        [TokenRequest(drafts[n].prompt.prompt_ids, limit, drafts[n].token_ids, rng.getrandbits(62)) for n in asked]
    )
    grown = {n: drafts[n].grown(answer, rooms[n]) for n, answer in zip(asked, found, strict=True)}
    return [grown.get(n, draft) for n, draft in enumerate(drafts)]


def within_budgets(
    drafts: Sequence[Draft],
    budgets: Sequence[int],
    closing: Sequence[int],
    generate: Generate,
    rng: random.Random,
    grace: int = 0,
) -> list[Draft]:
    """Whole rows whose thoughts have at most `budgets[n]` (and up to `grace` more) sampled tokens.

    A thought that is still open at its budget goes on to the first end of a sentence or a line, at most `grace` tokens;
    then `closing` is put behind it. The rest of a row's limit is for the answer. A thought that ends by itself, or
    meets the limit first, is left alone.
    """
    vocabulary = generate.vocabulary
    drafts = go_on(drafts, budgets, generate, rng)
    late = [n for n, draft in enumerate(drafts) if draft.thinks(vocabulary)]
    if grace:
        waited = go_on([drafts[n] for n in late], [grace] * len(late), generate, rng)
        for n, draft in zip(late, waited, strict=True):
            drafts[n] = draft.cut(len(drafts[n].token_ids) + boundary(draft, len(drafts[n].token_ids), generate))
    for n in late:
        if drafts[n].thinks(vocabulary) and drafts[n].left > 0:
            drafts[n] = replace(drafts[n].forced(closing), closed=True)
    return go_on(drafts, [draft.left for draft in drafts], generate, rng)


def boundary(draft: Draft, start: int, generate: Generate) -> int:
    """How many of the tokens from `start` on come up to the first end of a sentence or line, that token included.

    All of them where there is no such end, and where the thought or the completion ends before it. A mark ends a
    sentence where a blank follows: 3.14 has no end in it.
    """
    ids, vocabulary = draft.token_ids[start:], generate.vocabulary
    whole = generate.decode(ids)
    for n, token in enumerate(ids, start=1):
        if token == vocabulary.think_end_id or token in vocabulary.eos_ids:
            return len(ids)
        text = generate.decode(ids[:n])
        follows = whole[len(text) : len(text) + 1]
        bare = text.rstrip(" ")
        blank = follows.isspace() or bare != text
        if bare.endswith(("\n", *FULL_WIDTH_ENDS)) or (bare.endswith(SENTENCE_ENDS) and blank):
            return n
    return len(ids)


def once(draft: Draft, start: int) -> tuple[bool, ...]:
    """What a row trains of tokens that several rows begin with: those from `start` on that were sampled."""
    return tuple(own and n >= start for n, own in enumerate(draft.sampled))


def with_exits(
    chains: Sequence[Draft],
    cuts: Sequence[Sequence[int]],
    closing: Sequence[int],
    generate: Generate,
    rng: random.Random,
    answer_tokens: int | None = None,
) -> list[list[LocalRollout]]:
    """Of each whole completion its early exits, where its cuts say (they rise), and then itself.

    An exit is the completion up to there, `closing`, and a new answer of at most `answer_tokens`. A token that several
    rows begin with is trained once: in the row of the first exit behind it, else in the whole completion.
    """
    begun = []
    for chain, own in zip(chains, cuts, strict=True):
        for cut in own:
            limit = chain.limit if answer_tokens is None else min(chain.limit, cut + answer_tokens)
            begun.append(replace(chain.cut(cut).forced(closing), limit=limit))
    answered = iter(go_on(begun, [draft.left for draft in begun], generate, rng))
    groups = []
    for chain, own in zip(chains, cuts, strict=True):
        *starts, last = [0, *own]
        rows = [(draft, start) for start, draft in zip(starts, answered, strict=False)]
        exits = [draft.row(Finish.forced, trained=once(draft, start)) for draft, start in rows]
        groups.append([*exits, chain.row(trained=once(chain, last))])
    return groups


def closing_tokens(generate: Generate, words: str, answer_start: str) -> tuple[int, ...]:
    """`words`, the model's own think-end token, and the beginning of the answer."""
    end = generate.vocabulary.think_end_id
    assert end is not None, "the samplers that close thoughts refuse a tokenizer without the tag"
    return (*generate.encode(words), end, *generate.encode(answer_start))


def check_tag(name: str, vocabulary: TokenVocabulary) -> None:
    """Refuse a tokenizer that has no think-end token.

    Raises:
        UserError: names the tag and the remedy.
    """
    if vocabulary.think_end_id is None:
        raise UserError(
            f"{name} closes thoughts, but the tokenizer has no single token {vocabulary.think_end!r}: name the model's "
            "own tag with model.think_end=..., or use a model that has one"
        )
