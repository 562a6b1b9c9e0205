"""Seconds of one step, by part, from FLOPs and bytes.

A token costs 2 FLOPs a weight forwards and twice that backwards, and 4 L Hq a token that it attends to (scores and
weighted sum; masks of padded rows keep kernels from skipping the upper half). A decoding step reads the weights
once and each row's own cache, and has a cost of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from concise_rl.planning.memory import trained
from concise_rl.planning.models import Dimensions
from concise_rl.planning.workload import Hardware, Workload


@dataclass(frozen=True)
class Duration:
    """What takes time, how many seconds of a step, and the arithmetic."""

    name: str
    seconds: float
    how: str


def forward_flops(dims: Dimensions, tokens: float, row_tokens: float, scored: float) -> float:
    """FLOPs of one forward pass over `tokens`, in rows of `row_tokens`, of which the head sees `scored`."""
    blocks = dims.layers * (2 * dims.block_matrices + 4 * dims.queries * row_tokens)
    return tokens * blocks + scored * 2 * dims.head_parameters


def durations(dims: Dimensions, work: Workload, hardware: Hardware) -> list[Duration]:
    """Sampling, scoring, update, optimizer and traffic of one optimizer step of a rank."""
    return [part for part in (
        sampling(dims, work, hardware), scoring(dims, work, hardware), update(dims, work, hardware),
        optimizer(dims, work, hardware), traffic(dims, work, hardware),
    ) if part.seconds > 0]  # fmt: skip


def sampling(dims: Dimensions, work: Workload, hardware: Hardware) -> Duration:
    """One decoding step a token of the longest row, and as many waves of them as the cache has room for."""
    rows, prompt, mean, limit = work.optimizer_rows, work.prompt_tokens, work.mean_tokens, work.limit_tokens
    b = 2 if hardware.device == "cuda" else work.weight_bytes
    cache = b * dims.cache_values
    together = rows if not work.vllm else min(rows, _engine_rows(dims, work, hardware))
    # A row that waits takes the place of a finished one, so later waves last as long as a row does on average.
    decoding_steps = limit + (rows / together - 1) * mean
    weights = decoding_steps * b * dims.parameters
    # Our own loop's attention reads a copy of a layer's cache: read, written, read.
    read = (1 if work.vllm else 3) * rows * mean * (prompt + mean / 2) * cache
    flops = forward_flops(dims, rows * (prompt + mean), prompt + mean, rows * mean)
    each = dims.layers * (hardware.engine_seconds if work.vllm else hardware.eager_seconds)
    seconds = decoding_steps * each + (weights + read) / hardware.bandwidth + flops / _reached(hardware, b)
    return Duration(
        "sampling", seconds,
        f"{decoding_steps:,.0f} decoding steps x {each * 1e3:.1f} ms + weights {weights / 1e9:,.3g} GB + cache "
        f"{read / 1e9:,.3g} GB + {flops / 1e12:,.3g} TFLOP; {together:,.0f} of {rows:,} rows at once",
    )  # fmt: skip


def _engine_rows(dims: Dimensions, work: Workload, hardware: Hardware) -> float:
    """Rows of average length that vLLM's cache holds; a server is taken to have a GPU for each rank."""
    share = 0.9 if work.vllm == "server" else work.vllm_share
    room = share * hardware.memory - 2 * dims.parameters - 2e9  # its own activations and CUDA graphs
    return max(1.0, room / (2 * dims.cache_values * (work.prompt_tokens + work.mean_tokens)))


def _reached(hardware: Hardware, weight_bytes: int) -> float:
    """FLOPs a second; float32 runs as TF32 on GPUs, at half the rate."""
    slower = 2 if hardware.device == "cuda" and weight_bytes == 4 else 1
    return hardware.flops * hardware.efficiency / slower


def scoring(dims: Dimensions, work: Workload, hardware: Hardware) -> Duration:
    return _passes("scoring", work.extra_passes, dims, work, hardware)


def update(dims: Dimensions, work: Workload, hardware: Hardware) -> Duration:
    """Forward and backward, and the forward once more under gradient checkpointing; rows without credit counted too."""
    backward = 1 if work.lora_rank else 2  # frozen weights take no gradient of their own
    return _passes("update", 1 + backward + work.checkpointing, dims, work, hardware)


def _passes(name: str, passes: float, dims: Dimensions, work: Workload, hardware: Hardware) -> Duration:
    row = work.prompt_tokens + work.mean_tokens
    tokens = work.optimizer_rows * row
    flops = passes * forward_flops(dims, tokens, row, work.optimizer_rows * work.mean_tokens)
    reached = _reached(hardware, 4 if work.trains == "float32" else 2)
    how = f"{tokens:,} tokens x {passes:.0f} passes = {flops / 1e12:,.3g} TFLOP at {reached / 1e12:,.3g} TFLOP/s"
    return Duration(name, flops / reached, how)


def optimizer(dims: Dimensions, work: Workload, hardware: Hardware) -> Duration:
    """AdamW reads weights, gradients and two moments and writes all but the gradients: 7 passes over float32."""
    n = trained(dims, work) / (1 if work.layout == "ddp" else hardware.ranks)
    bandwidth = 2e10 if work.layout == "zero3_offload" else hardware.bandwidth  # PCIe and the host's own Adam
    return Duration("optimizer", 28 * n / bandwidth, f"{n:,.0f} parameters x 28 bytes")


def traffic(dims: Dimensions, work: Workload, hardware: Hardware) -> Duration:
    """Gradients summed over ranks once a step; ZeRO-3 and FSDP2 also gather weights for every pass of a micro-batch."""
    W = hardware.ranks
    if W == 1:
        return Duration("traffic", 0.0, "")
    moved = 2 * (4 if work.layout == "ddp" else 2) * trained(dims, work) * (W - 1) / W
    how = f"gradients {moved / 1e9:.2f} GB"
    if work.layout in ("zero3", "zero3_offload", "fsdp2"):
        microbatches = -(-work.optimizer_rows // work.microbatch_rows)
        gathers = microbatches * (work.extra_passes + 2 + work.checkpointing)
        moved += gathers * 2 * dims.parameters * (W - 1) / W
        how += f" + weights gathered {gathers} times"
    return Duration("traffic", moved / hardware.link, how)
