"""The completions inside the page: packed one evaluation a block, unpacked by the browser when somebody looks at it."""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from concise_rl.errors import printable
from concise_rl.evaluation import EvaluationRow
from concise_rl.reporting.compare.results import Result
from concise_rl.reporting.summary import shorten

BLOCKS_BYTES = 12_000_000
"""All blocks together; with plotly and the figures the page stays below 15 MB."""

CHARACTERS = (16_000, 8_000, 4_000, 2_000, 1_000, 500, 250)
SHARES = (1.0, 0.5, 0.25, 0.1, 0.03, 0.01)

RIGHT, UNSCORABLE, TRUNCATED = 1, 2, 4
"""Bits of a row's state."""


@dataclass(frozen=True)
class Packed:
    """Completions ready for the page.

    Attributes:
        blocks: element id to gzipped JSON in base64: the problems of benchmark b in `p<b>`, and of run r on it in
            `c<b>-<r>` the rows `{"problem": places, "tokens", "state", "text"}`, state adding up 1 for right, 2 for no
            verdict, 4 for cut at the limit.
        note: what was left out to keep the page small, in plain words; empty where nothing was.
    """

    blocks: Mapping[str, str]
    note: str


def pack(found: Mapping[str, Sequence[Result]], limit_bytes: int = BLOCKS_BYTES) -> Packed:
    """All completions, cut in the middle or, where that is not enough, of fewer problems, until the blocks fit."""
    blocks: dict[str, str] | None = None
    for share, characters in product(SHARES, CHARACTERS):
        # Cutting text costs a reader less than missing problems, so a smaller share begins with the shortest cut.
        if share < 1 and characters > CHARACTERS[-1]:
            continue
        blocks = _blocks(found, share, characters, limit_bytes)
        if blocks is not None:
            return Packed(blocks, _note(found, share, characters))
    return Packed({}, "The completions are too large for the page: compare fewer runs at once to read them here.")


def _blocks(
    found: Mapping[str, Sequence[Result]], share: float, characters: int, limit_bytes: int
) -> dict[str, str] | None:
    """The blocks, or None as soon as they are larger than the limit."""
    blocks: dict[str, str] = {}
    size = 0
    for b, results in enumerate(found.values()):
        problems = _problems(results[0].evaluation.rows, share)
        place = {prompt_id: p for p, prompt_id in enumerate(problems)}
        contents = {f"p{b}": _problem_columns(list(problems.values()), characters)}
        contents |= {f"c{b}-{r.run}": _row_columns(r.evaluation.rows, place, characters) for r in results}
        for key, content in contents.items():
            blocks[key] = b64encode(
                gzip.compress(json.dumps(content, ensure_ascii=False).encode(errors="replace"), mtime=0)
            ).decode("ascii")
            size += len(blocks[key])
            if size > limit_bytes:
                return None
    return blocks


def _problems(rows: Sequence[EvaluationRow], share: float) -> dict[str, EvaluationRow]:
    """The first share of the problems, by id, each with one of its rows."""
    first: dict[str, EvaluationRow] = {}
    for row in rows:
        first.setdefault(row.prompt_id, row)
    kept = list(first.items())[: max(1, round(share * len(first)))]
    return dict(kept)


def _problem_columns(rows: Sequence[EvaluationRow], characters: int) -> dict[str, list[Any]]:
    return {
        "prompt": [printable(shorten(row.problem, characters)) for row in rows],
        "reference": [printable(shorten(row.reference, characters)) for row in rows],
        "difficulty": [printable(shorten(str(row.columns.get("difficulty", "")), 40)) for row in rows],
    }


def _row_columns(rows: Sequence[EvaluationRow], place: Mapping[str, int], characters: int) -> dict[str, list[Any]]:
    # By problem: what two blocks pair is then side by side, and like texts are near each other for the packer.
    kept = sorted((row for row in rows if row.prompt_id in place), key=lambda row: (place[row.prompt_id], row.sample))
    return {
        "problem": [place[row.prompt_id] for row in kept],
        "tokens": [row.length for row in kept],
        "state": [
            RIGHT * row.correct + UNSCORABLE * (not row.verdict.scorable) + TRUNCATED * row.truncated for row in kept
        ],
        "text": [printable(shorten(row.completion, characters)) for row in kept],
    }


def _note(found: Mapping[str, Sequence[Result]], share: float, characters: int) -> str:
    parts = []
    longest = max(len(row.completion) for rows in found.values() for result in rows for row in result.evaluation.rows)
    if longest > characters:
        parts.append(f"completions of more than {characters} characters are cut in the middle, and searched as shown")
    if share < 1:
        parts.append(f"the first {share:.0%} of the problems are here")
    return f"To keep the page small, {'; '.join(parts)}. The evaluation files hold all of it." if parts else ""
