"""Can shaping push a right answer down? Every method over random groups, as it is and with `sign_safe`.

    python benchmarks/signs.py --groups 100000 --write

A right row is *flipped* where the method without its shapers credits it at 0 or more and the method credits it below 0.
Groups have 8 rows; pass rates, lengths, phases and row values are drawn anew for each chunk of 500 groups. Stateful
methods carry their state from chunk to chunk.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from concise_rl.batch import COLUMN_PREFIX, PART_PREFIX, RolloutBatch
from concise_rl.evaluation.replay import unshaped_credit
from concise_rl.methods import SignSafe, load_method, method_names
from concise_rl.methods.method import Method

ROOT = Path(__file__).parents[1]
GROUP_SIZE, CHUNK, LIMIT = 8, 500, 16384


def random_batch(seed: int, needs: frozenset[str], prompts: int = CHUNK) -> RolloutBatch:
    """Groups with pass rates from 0 to 1, lengths of a log-normal law cut at the limit, and what `needs` names."""
    draw = torch.Generator().manual_seed(seed)
    rows = prompts * GROUP_SIZE

    def uniform(n: int = rows) -> Tensor:
        return torch.rand(n, generator=draw, dtype=torch.float64)

    spread = torch.randn(rows, generator=draw, dtype=torch.float64) * 0.8 + 8.0
    lengths = spread.exp().round().long().clamp(1, LIMIT)
    names = {kind: [n.removeprefix(kind) for n in needs if n.startswith(kind)] for kind in (PART_PREFIX, COLUMN_PREFIX)}
    return RolloutBatch.of(
        prompt_keys=[f"{n}" for n in torch.randint(2000, (prompts,), generator=draw).tolist()],
        group_size=GROUP_SIZE,
        step=seed,
        lengths=lengths,
        limits=torch.full_like(lengths, LIMIT),
        truncated=lengths == LIMIT,
        correct=uniform() < uniform(prompts).repeat_interleave(GROUP_SIZE),
        think_lengths=(lengths * uniform()).long(),
        think_entropy=uniform(),
        answer_entropy=uniform(),
        mean_entropy=uniform(),
        parts={name: (uniform() < 0.5).double() for name in names[PART_PREFIX]},
        columns={name: (2 + (uniform(prompts) * 4).floor()).tolist() for name in names[COLUMN_PREFIX]},
    )


def flipped(method: Method, groups: int) -> tuple[float, float]:
    """Shares of right rows that are flipped, and that have negative credit for whatever reason."""
    states, right_rows, flips, negative = method.init(), 0, 0, 0
    for seed in range(-(-groups // CHUNK)):
        batch = random_batch(seed, method.needs)
        bare_N = per_row(unshaped_credit(method, batch, states))
        result, states = method.apply(batch, states)
        credit_N, right_N = per_row(result.credit), batch.correct & result.counts
        right_rows += int(right_N.sum())
        flips += int((right_N & (bare_N >= 0) & (credit_N < 0)).sum())
        negative += int((right_N & (credit_N < 0)).sum())
    return flips / max(1, right_rows), negative / max(1, right_rows)


def per_row(credit: Tensor) -> Tensor:
    return credit if credit.ndim == 1 else credit.sum(dim=1)


def measured(name: str, groups: int) -> dict[str, Any]:
    method = load_method(name)
    safe = Method(name, {**method.components, "advantage.sign_safe": SignSafe()}, method.schedules, method.loss)
    flips, negative = flipped(method, groups)
    return {"method": name, "flipped": flips, "negative": negative, "with_sign_safe": flipped(safe, groups)[1]}


def table(rows: list[dict[str, Any]], groups: int, command: str) -> str:
    head = ["method", "flipped by shaping", "negative for any reason", "negative with sign_safe"]
    lines = ["| " + " | ".join(head) + " |", "| --- | ---: | ---: | ---: |"]
    for row in sorted(rows, key=lambda r: -r["flipped"]):
        cells = [f"{row[key]:.2%}" for key in ("flipped", "negative", "with_sign_safe")]
        lines.append(f"| [{row['method']}]({row['method']}.md) | " + " | ".join(cells) + " |")
    return "\n".join(
        [
            "# Can shaping push a right answer down?",
            "",
            f"Share of right rows whose credit is negative, over {groups:,} random groups of {GROUP_SIZE} rows",
            f"(`{command}`). *Flipped*: without the method's shapers the row's credit is 0 or more.",
            "Adding `sign_safe` behind the advantage sets such credit to 0.",
            "",
            *lines,
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--groups", type=int, default=100_000)
    # A method with a sampler or a cut makes its own rows; random ones would not be of its kind.
    methods = {name: load_method(name) for name in method_names()}
    names = [name for name, method in methods.items() if not (method.sampler or method.cut)]
    parser.add_argument("--methods", nargs="+", choices=names, default=names)
    parser.add_argument("--write", action="store_true", help="docs/methods/signs.md and signs.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in options.methods:
        started = time.perf_counter()
        rows.append(measured(name, options.groups))
        sys.stderr.write(f"{name}: {rows[-1]['flipped']:.2%} flipped, {time.perf_counter() - started:.0f} s\n")
    text = table(rows, options.groups, f"python benchmarks/signs.py --groups {options.groups} --write")
    if options.write:
        (ROOT / "docs" / "results" / "signs.json").write_text(json.dumps(rows, indent=1) + "\n")
        (ROOT / "docs" / "results" / "signs.md").write_text(text.replace("](", "](../methods/"))
    print(text)


if __name__ == "__main__":
    main()
