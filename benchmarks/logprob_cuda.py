"""Log-prob, entropy and their gradients on a GPU: ours against TRL's and against bare products, and what tiles to take.

    python benchmarks/logprob_cuda.py                    # the tables of docs/kernels.md, "On a GPU": two minutes
    python benchmarks/logprob_cuda.py --sweep            # sizes of tiles and blocks too
    python benchmarks/logprob_cuda.py --device cpu --shapes small        # whether the script itself is right

One process; times are medians between events (`triton.testing.do_bench`), operands are random. The floor is what the
bare products of the form take by cuBLAS, whole, in bfloat16. `extra` is the peak of memory beyond inputs and gradients.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import logprob
from benchmarks.logprob import METHODS, Inputs, accuracy
from concise_rl.kernels import backends, linear_logprob
from concise_rl.kernels.tiles import TileShape, sweep_statistics

SHAPES = {
    "H=896": (16384, 896, 151936),
    "H=1536": (16384, 1536, 151936),
    "H=4096": (8192, 4096, 151936),
    "small": (300, 64, 1000),
}
"""Rows, hidden size, vocabulary: Qwen2.5 of 0.5B, 1.5B and, but for its vocabulary, 7B; bfloat16."""


def inputs(shape: tuple[int, int, int], device: str, *, frozen: bool) -> Inputs:
    return logprob.inputs((*shape, "bfloat16"), frozen=frozen, device=device, logit_deviation=3.0)


def bare(i: Inputs, *, backward: bool, products: int) -> None:
    """Whole products, by 32,768 columns so that the logits fit; `products` of them, the last two for the gradients."""
    hidden, weight = i["hidden"].detach(), i["weight"].detach()
    columns = min(len(weight), 32768)
    tile = torch.empty(len(hidden), columns, dtype=hidden.dtype, device=hidden.device)
    hidden_grad = torch.empty_like(hidden)
    weight_grad = torch.empty_like(weight) if i["weight"].requires_grad else None
    forwards = products - backward * (1 if weight_grad is None else 2)
    for start in range(0, len(weight), columns):
        block = weight[start : start + columns]
        part = tile.view(-1)[: len(hidden) * len(block)].view(len(hidden), -1)
        for _ in range(forwards):
            torch.mm(hidden, block.t(), out=part)
        if backward:
            hidden_grad.addmm_(part, block)
            if weight_grad is not None:
                torch.mm(part.t(), hidden, out=weight_grad[start : start + columns])


def trl_forward(i: Inputs) -> None:
    with torch.no_grad():
        logprob.trl_forward(i)


def our_forward(i: Inputs) -> None:
    with torch.no_grad():
        linear_logprob(i["hidden"], i["weight"], i["targets"], entropy="nograd")


def sweep_forward(i: Inputs) -> None:
    """Our products by cuBLAS and folds by Triton, where the fused kernel would do."""
    with torch.no_grad(), without_fused():
        our_forward(i)


@contextmanager
def without_fused() -> Iterator[None]:
    fused = backends.Backend.statistics

    def swept(self: backends.Backend, projection: Any, *, entropy: bool, gradient_follows: bool) -> Any:
        return sweep_statistics(projection, self.fold(), self.shape, entropy=entropy)

    backends.Backend.statistics = swept  # type: ignore[method-assign]
    try:
        yield
    finally:
        backends.Backend.statistics = fused  # type: ignore[method-assign]


def logits_forward(i: Inputs) -> None:
    """Logits in memory, in bfloat16, and their log-softmax in float32: by blocks of rows, so that they fit."""
    with torch.no_grad():
        for start in range(0, len(i["hidden"]), 2048):
            z = (i["hidden"][start : start + 2048] @ i["weight"].t()).float()
            logprob = z.log_softmax(1)
            logprob.gather(1, i["targets"][start : start + 2048, None])
            -(logprob.exp() * logprob).sum(1)


FORWARD: dict[str, Callable[[Inputs], None]] = {
    "floor: 1 product": lambda i: bare(i, backward=False, products=1),
    "TRL": trl_forward,
    "logits in memory": logits_forward,
    "ours, sweep": sweep_forward,
    "ours, fused": our_forward,
}


def both_ways(frozen: bool) -> dict[str, Callable[[Inputs], None]]:
    fewest = 2 if frozen else 3
    return {
        f"floor: {fewest} products": lambda i: bare(i, backward=True, products=fewest),
        "TRL": METHODS["trl"],
        "ours, two sweeps": METHODS["linear_logprob"],
        "ours, one sweep": METHODS["linear_policy_loss"],
    }


def milliseconds(run: Callable[[], object], device: str, measure_ms: int) -> float:
    """Median time of one call, warm."""
    if device == "cuda":
        from triton.testing import do_bench

        return float(do_bench(run, warmup=50, rep=measure_ms, return_mode="median"))
    times = []
    for _ in range(3):
        started = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)


def measured(method: Callable[[Inputs], None], made: Inputs, device: str, measure_ms: int) -> dict[str, float]:
    def run() -> None:
        made["hidden"].grad = made["weight"].grad = None
        method(made)

    run()
    found = {"ms": milliseconds(run, device, measure_ms)}
    if device == "cuda":
        made["hidden"].grad = made["weight"].grad = None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        method(made)
        gradients = [t.grad for t in (made["hidden"], made["weight"]) if t.grad is not None]
        held = sum(gradient.numel() * gradient.element_size() for gradient in gradients)
        found["extra_mb"] = (torch.cuda.max_memory_allocated() - before - held) / 2**20
    return found


def table(name: str, device: str, measure_ms: int) -> dict[str, Any]:
    """Forward alone, forward and backward, and the latter with a frozen head."""
    rows, hidden, vocabulary = shape = SHAPES[name]
    found: dict[str, Any] = {}
    for title, frozen, methods in (
        ("forward", True, FORWARD),
        ("forward and backward", False, both_ways(False)),
        ("forward and backward, frozen head", True, both_ways(True)),
    ):
        made = inputs(shape, device, frozen=frozen)
        own = {method: measured(run, made, device, measure_ms) for method, run in methods.items()}
        found[title] = own
        floor = next(iter(own.values()))["ms"]
        print(f"\n**{title}**: N={rows}, H={hidden}, V={vocabulary}, bfloat16\n")
        print("| | ms | x floor | x TRL | TFLOP/s of the floor's products | extra MB |\n|---|---:|---:|---:|---:|---:|")
        products = int(next(iter(own)).split()[1])
        for method, row in own.items():
            rate = products * 2 * rows * hidden * vocabulary / row["ms"] / 1e9
            print(
                f"| {method} | {row['ms']:.2f} | {row['ms'] / floor:.2f} | {row['ms'] / own['TRL']['ms']:.2f} | "
                f"{rate:.0f} | {row.get('extra_mb', float('nan')):.0f} |"
            )
        sys.stdout.flush()
    return found


def errors(device: str) -> dict[str, dict[str, float]]:
    """Largest distance to float64 of log-probs, and of gradients relative to the largest entry, ours and TRL's."""
    made = inputs((2048, 896, 30011), device, frozen=False)
    exact = {name: made[name].detach().double().requires_grad_() for name in ("hidden", "weight")}
    logprob_NV = (exact["hidden"] @ exact["weight"].t()).log_softmax(1)
    entropy = -(logprob_NV.exp() * logprob_NV).sum(1)
    chosen = logprob_NV.gather(1, made["targets"][:, None]).squeeze(1)
    torch.autograd.backward([chosen, entropy], [made["logprob_grad"].double(), made["entropy_grad"].double()])
    found: dict[str, dict[str, float]] = {}
    for method, run in both_ways(False).items():
        if method.startswith("floor"):
            continue
        made["hidden"].grad = made["weight"].grad = None
        run(made)
        found[method] = {
            name: float((made[name].grad.double() - exact[name].grad).abs().max() / exact[name].grad.abs().max())
            for name in ("hidden", "weight")
        }
    with torch.no_grad():
        forward = linear_logprob(made["hidden"], made["weight"], made["targets"], entropy="nograd")
    found["ours, fused"] = {
        "logprob": float((forward.logprob.double() - chosen.detach()).abs().max()),
        "entropy": float((forward.entropy.double() - entropy.detach()).abs().max()),  # type: ignore[union-attr]
    }
    return found


def sweep_sizes(device: str, measure_ms: int) -> None:
    """Tiles of the sweep, strips of the one-sweep form, blocks of the fused kernel: milliseconds of each."""
    from concise_rl.kernels import triton_forward

    for name in ("H=896", "H=4096"):
        made = inputs(SHAPES[name], device, frozen=False)
        print(f"\n**Sizes, {name}**\n\n| | ms |\n|---|---:|")

        def show(title: str, run: Callable[[Inputs], None], made: Inputs = made) -> None:
            try:
                print(f"| {title} | {measured(run, made, device, measure_ms)['ms']:.2f} |", flush=True)
            except Exception as error:  # a block that the card has no room for
                print(f"| {title} | {type(error).__name__}: {str(error)[:60]} |", flush=True)

        tile, strip = backends.CUDA_TILE, backends.STRIP_BYTES["cuda"]
        for rows, columns in ((2048, 4096), (2048, 8192), (4096, 4096), (4096, 8192), (4096, 16384), (8192, 8192)):
            backends.CUDA_TILE = TileShape(rows, columns)
            show(f"two sweeps, tile {rows} x {columns}", METHODS["linear_logprob"])
            show(f"forward by sweep, tile {rows} x {columns}", sweep_forward)
        backends.CUDA_TILE = tile
        for gibibytes in (1, 2, 4, 8):
            backends.STRIP_BYTES["cuda"] = gibibytes << 30
            show(f"one sweep, strips of {gibibytes} GiB", METHODS["linear_policy_loss"])
        backends.STRIP_BYTES["cuda"] = strip
        own, group = triton_forward.DESCRIPTORS[9], triton_forward.ROW_GROUP
        for rows, columns, warps, stages, row_group in (
            *((256, 128, 8, 4, g) for g in (4, 8, 16)),
            *((128, 256, 8, stages, 8) for stages in (3, 4)),
            *((128, 128, warps, stages, 16) for warps, stages in itertools.product((4, 8), (3, 4, 5))),
            (256, 128, 8, 3, 8),
        ):
            triton_forward.DESCRIPTORS[9] = dataclasses.replace(
                own, ROWS=rows, COLUMNS=columns, num_warps=warps, num_stages=stages
            )
            triton_forward.ROW_GROUP = row_group
            show(f"fused, {rows} x {columns}, {warps} warps, {stages} stages, group {row_group}", our_forward)
        triton_forward.DESCRIPTORS[9], triton_forward.ROW_GROUP = own, group


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--shapes", nargs="+", default=[name for name in SHAPES if name != "small"], choices=SHAPES)
    parser.add_argument("--measure-ms", type=int, default=400, help="time spent on each median")
    parser.add_argument("--sweep", action="store_true", help="sizes of tiles, strips and blocks")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}")
    found: dict[str, Any] = {"device": name, "torch": torch.__version__}
    found["errors"] = errors(options.device)
    print(json.dumps(found["errors"]))
    found["peaked"] = accuracy(options.device)
    print("largest error of bfloat16 log-probs, peaked logits:", json.dumps(found["peaked"]))
    for shape in options.shapes:
        found[shape] = table(shape, options.device, options.measure_ms)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    if options.sweep:
        sweep_sizes(options.device, options.measure_ms // 2)


if __name__ == "__main__":
    main()
