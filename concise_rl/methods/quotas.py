"""DART's quotas: how many right answers a problem is to have, by how often it is failed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from fractions import Fraction


class Quota(str, Enum):
    """The harder a problem the more, or all alike."""

    prop2diff = "prop2diff"
    uniform = "uniform"


def quotas(kind: Quota, k: int, right: Mapping[str, int], sampled: Mapping[str, int]) -> dict[str, int]:
    """Right answers that each problem is to have; with f = 1 - right / sampled:

        prop2diff  max(1, ceil(k f / max f)); 1 each where every f is 0
        uniform    k

    In fractions: floating point turns some whole results into one more. Source: arXiv 2407.13690, hkust-nlp/dart-math
    at 219b324.
    """
    if kind is Quota.uniform:
        return dict.fromkeys(sampled, k)
    fails = {key: Fraction(n - right[key], n) for key, n in sampled.items()}
    hardest = max(fails.values(), default=Fraction(0)) or Fraction(1)
    return {key: max(1, math.ceil(k * fail / hardest)) for key, fail in fails.items()}
