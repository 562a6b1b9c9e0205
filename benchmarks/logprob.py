"""Log-prob, entropy and their gradients straight from hidden states: ours against TRL's and against bare products.

    python benchmarks/logprob.py                              # the table of docs/kernels.md: about half an hour
    python benchmarks/logprob.py --shapes smollm2 --repeats 1 # a first look

On a GPU: `logprob_cuda.py`. Every measurement is a process of its own: inputs are made, the peak of resident memory is
reset, then one forward and backward is timed. The methods take turns, so that a busy machine slows all of them. Ratios
are of processor seconds, medians over the repeats. `extra` is peak memory less that of the inputs and of the gradients
that any method returns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SHAPES: dict[str, tuple[int, int, int, str]] = {
    "smollm2": (4096, 576, 49152, "float32"),
    "qwen2.5-1.5b": (2048, 1536, 151936, "float32"),
    "half": (1024, 576, 16384, "bfloat16"),
}
"""Rows, hidden size, vocabulary, type of the inputs."""

Inputs = dict[str, Any]


def trl_forward(i: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """As `GRPOTrainer` calls it: log-probs and entropy."""
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE as columns

    logprob, entropy, *_ = ChunkedLogProbFunction.apply(
        i["hidden"], i["weight"], None, i["targets"], 1.0, columns, None, 1.0, ("log_probs", "entropy")
    )
    return logprob, entropy


def trl(i: Inputs) -> None:
    logprob, entropy = trl_forward(i)
    torch.autograd.backward([logprob, entropy], [i["logprob_grad"], i["entropy_grad"]])


def two_sweeps(i: Inputs, backend: str = "auto") -> None:
    from concise_rl.kernels import linear_logprob

    found = linear_logprob(i["hidden"], i["weight"], i["targets"], entropy="grad", backend=backend)
    torch.autograd.backward([found.logprob, found.entropy], [i["logprob_grad"], i["entropy_grad"]])


def one_sweep(i: Inputs) -> None:
    from concise_rl.kernels import linear_policy_loss

    def token_loss(logprob: torch.Tensor, entropy: torch.Tensor | None, rows: torch.Tensor) -> torch.Tensor:
        assert entropy is not None
        return logprob * i["logprob_grad"][rows] + entropy * i["entropy_grad"][rows]

    loss, _ = linear_policy_loss(i["hidden"], i["weight"], i["targets"], token_loss, entropy="grad")
    loss.backward()


def bare(i: Inputs, products: int = 4) -> None:
    """The matrix products alone, by 4096 columns, one more forward than backward makes."""
    hidden, weight = i["hidden"].detach(), i["weight"].detach()
    hidden_grad, weight_grad = torch.zeros_like(hidden), torch.zeros_like(weight)
    tile = torch.empty(len(hidden), 4096, dtype=hidden.dtype, device=hidden.device)
    for start in range(0, len(weight), 4096):
        block = weight[start : start + 4096]
        for _ in range(products - 2):
            torch.mm(hidden, block.t(), out=tile[:, : len(block)])
        hidden_grad.addmm_(tile[:, : len(block)], block)
        torch.mm(tile[:, : len(block)].t(), hidden, out=weight_grad[start : start + 4096])


METHODS: dict[str, Callable[[Inputs], None]] = {
    "bare": bare,
    "trl": trl,
    "linear_logprob": two_sweeps,
    "linear_policy_loss": one_sweep,
}


def inputs(
    shape: tuple[int, int, int, str], *, frozen: bool, device: str = "cpu", logit_deviation: float = 1.0
) -> Inputs:
    rows, hidden, vocabulary, dtype = shape
    generator = torch.Generator(device).manual_seed(0)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, device=device)

    made: Inputs = {"hidden": normal(rows, hidden)}
    made["weight"] = normal(vocabulary, hidden) * logit_deviation * hidden**-0.5
    for name in ("hidden", "weight"):
        made[name] = made[name].to(getattr(torch, dtype)).requires_grad_(name == "hidden" or not frozen)
    made["targets"] = torch.randint(vocabulary, (rows,), generator=generator, device=device)
    return made | {"logprob_grad": normal(rows) / rows, "entropy_grad": normal(rows) / rows}


def measure(method: str, shape: tuple[int, int, int, str], *, frozen: bool) -> dict[str, float]:
    """One forward and backward in this process."""
    made = inputs(shape, frozen=frozen)
    small = inputs((8, 16, 32, shape[3]), frozen=frozen)
    METHODS[method](small)  # imports and thread pools
    Path("/proc/self/clear_refs").write_text("5")
    start_mb = memory_mb("VmRSS")
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    METHODS[method](made)
    after, seconds = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - started
    gradients = sum(made[n].numel() * made[n].element_size() for n in ("hidden", "weight") if made[n].requires_grad)
    peak = memory_mb("VmHWM") - start_mb
    return {
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "seconds": seconds,
        "peak_mb": peak,
        "extra_mb": peak - gradients / 2**20,
    }


def memory_mb(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def accuracy(device: str) -> dict[str, float]:
    """Largest error of bfloat16 log-probs against float64 on peaked logits, which a trained model has."""
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction

    from concise_rl.kernels import linear_logprob

    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(128, 256, generator=generator).bfloat16().to(device)
    weight = (torch.randn(16384, 256, generator=generator) * 0.15).bfloat16().to(device)
    weight[:128] = hidden.float().mul(0.12).bfloat16()  # two tokens share the probability of each row
    weight[128:256] = hidden.float().mul(0.1195).bfloat16()
    targets = torch.arange(128, device=device)
    exact = (hidden.double() @ weight.double().t()).log_softmax(1).gather(1, targets[:, None]).squeeze(1)
    theirs = ChunkedLogProbFunction.apply(hidden, weight, None, targets, 1.0, 32768, None, 1.0, ("log_probs",))[0]
    ours = linear_logprob(hidden, weight, targets).logprob
    return {"trl": float((theirs - exact).abs().max()), "linear_logprob": float((ours - exact).abs().max())}


def child(arguments: argparse.Namespace, method: str, shape: str, *, frozen: bool) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", method, shape]
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command + ["--frozen"] * frozen, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{method} at {shape}: {done.stderr[-1000:]}")
    return json.loads(done.stdout)


def table(arguments: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in arguments.shapes or SHAPES:
        for frozen in (False, True) if name == "smollm2" else (False,):
            # Plain products of half precision on a CPU are slower than all else, and no bound of anything.
            methods = [m for m in METHODS if m != "bare" or not (frozen or name == "half")]
            runs: dict[str, list[dict[str, float]]] = {method: [] for method in methods}
            for repeat in range(arguments.repeats):
                for method in methods if repeat % 2 == 0 else reversed(methods):
                    runs[method].append(child(arguments, method, name, frozen=frozen))
            title = f"{name}, frozen head" if frozen else name
            found[title] = {
                method: {key: statistics.median(run[key] for run in some) for key in some[0]}
                for method, some in runs.items()
            }
            show(title, SHAPES[name], found[title])
    return found


def show(title: str, shape: tuple[int, int, int, str], rows: dict[str, dict[str, float]]) -> None:
    print(f"\n**{title}**: N={shape[0]}, H={shape[1]}, V={shape[2]}, {shape[3]}\n")
    print("| method | processor s | wall s | / TRL | / bare products | peak MB | beyond gradients MB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for method, row in rows.items():
        ratios = [f"{row['cpu_seconds'] / rows[m]['cpu_seconds']:.2f}" if m in rows else "-" for m in ("trl", "bare")]
        print(
            f"| {method} | {row['cpu_seconds']:.2f} | {row['seconds']:.2f} | {ratios[0]} | {ratios[1]} "
            f"| {row['peak_mb']:.0f} | {row['extra_mb']:.0f} |"
        )
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", help=f"of {', '.join(SHAPES)}; all where not given")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of a measurement's process; more make it less certain")
    parser.add_argument("--json", type=Path, help="write the medians here too")
    parser.add_argument("--child", nargs=2, metavar=("METHOD", "SHAPE"), help=argparse.SUPPRESS)
    parser.add_argument("--frozen", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        method, shape = arguments.child
        print(json.dumps(measure(method, SHAPES[shape], frozen=arguments.frozen)))
        return
    where = platform.processor() or platform.machine()
    print(f"{where}, torch {torch.__version__}, {arguments.threads} threads, {arguments.repeats} repeats")
    found = table(arguments)
    errors = accuracy("cpu")
    print(
        "\nlargest error of bfloat16 log-probs: " + ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
    )
    if arguments.json:
        arguments.json.write_text(json.dumps({"shapes": found, "bfloat16_error": errors}, indent=1))


if __name__ == "__main__":
    main()
