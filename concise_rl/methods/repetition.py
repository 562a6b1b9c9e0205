"""How much of a completion repeats itself."""

from __future__ import annotations

from collections.abc import Sequence

from concise_rl.errors import UserError

REPETITION = "repetition"
"""The part of `RolloutBatch.parts` that holds `repetition_fraction` of each row; no verifier gives it."""

_MODULUS = 2**61 - 1
_BASE = 1_482_398_640_337_293_569


def repetition_fraction(token_ids: Sequence[int], n: int) -> float:
    """Fraction of the tokens that lie in a second or later occurrence of an n-gram, in [0, 1].

    A token that several repeats cover counts once, and the first occurrence is free: [1, 2, 3, 1, 2, 3] with n = 3 is
    1/2, [7, 7, 7, 7] with n = 2 is 3/4. Fewer than n tokens repeat nothing. This is the dense penalty of arXiv
    2502.03373 section 4.5 and the repetition term of arXiv 2505.11225, as a share of the length.

    One pass, whatever n is: n-grams are compared by a rolling polynomial hash modulo 2**61 - 1, so of 14,000 tokens one
    is wrongly taken for a repeat with a chance of about 1e-9.

    Raises:
        UserError: n is below 1.
    """
    if n < 1:
        raise UserError(f"repetition_ngram={n}: an n-gram has at least one token")
    leaving_weight = pow(_BASE, n, _MODULUS)
    seen: set[int] = set()
    repeated = covered_until = window_hash = 0
    for end, token in enumerate(token_ids, start=1):
        window_hash = (window_hash * _BASE + token + 1) % _MODULUS
        start = end - n
        if start > 0:
            window_hash = (window_hash - leaving_weight * (token_ids[start - 1] + 1)) % _MODULUS
        if start < 0:
            continue
        if window_hash in seen:
            repeated += end - max(start, covered_until)
            covered_until = end
        seen.add(window_hash)
    return repeated / len(token_ids) if len(token_ids) else 0.0
