"""Bytes of one rank, by part and by phase of a step.

Axes: M tokens of one micro-batch, C completion tokens among them, R rows sampled at once, T their longest, L layers, H
hidden size, I intermediate size, V vocabulary, Hq and Hkv the summed widths of query and key heads, N parameters, n
those that train, W ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from concise_rl.planning.models import Dimensions
from concise_rl.planning.workload import Hardware, Workload

ADAM = 2
"""Moments of AdamW, each in the weights' type."""

BUCKET = 500_000_000
"""Elements of DeepSpeed's reduce and gather buckets, each (its default)."""

LIVE = 1_000_000_000
"""Parameters that ZeRO-3 keeps gathered at most (its default)."""


@dataclass(frozen=True)
class Part:
    """What takes memory, how much of it in bytes, and the arithmetic."""

    name: str
    bytes: float
    how: str


def trained(dims: Dimensions, work: Workload) -> int:
    """n: all parameters, or those of the adapters."""
    return dims.lora_parameters(work.lora_rank) if work.lora_rank else dims.parameters


def static_parts(dims: Dimensions, work: Workload, hardware: Hardware) -> dict[str, Part]:
    """Weights, gradients and optimizer of a rank, and copies of the weights that a layout makes."""
    N, n, W, b = dims.parameters, trained(dims, work), hardware.ranks, work.weight_bytes
    if work.layout == "ddp":
        own = 4 if work.lora_rank else b  # PEFT keeps adapters in float32
        buckets = 2 if W > 1 else 1
        adapters = f" + n {n:,} x {own}" if work.lora_rank else ""
        found = [
            Part("weights", N * b + (n * own if work.lora_rank else 0), f"N {N:,} x {b}{adapters}"),
            Part("gradients", n * own * buckets, f"n {n:,} x {own}" + " x 2 (DDP's buckets)" * (W > 1)),
            Part("optimizer", n * own * ADAM, f"n {n:,} x {own} x {ADAM} (AdamW)"),
        ]
        if work.trains == "autocast":
            matrices = dims.layers * dims.block_matrices
            found.append(Part("bfloat16 weights", 2 * matrices, f"{matrices:,} x 2, kept by autocast"))
    elif work.layout == "zero2":
        bucket = min(BUCKET, n)
        found = [
            Part("weights", 2 * N, f"N {N:,} x 2"),
            Part("gradients", 2 * n / W + 4 * bucket, f"n {n:,} x 2 / {W} + 2 buckets of {bucket:,} x 2"),
            Part("optimizer", 16 * n / W, f"n {n:,} x (4 master + 8 AdamW + 4 gradient) / {W}"),
        ]
    elif work.layout == "fsdp2":
        gathered = 2 * dims.block_parameters + (1 if dims.tied else 2) * dims.head_parameters
        found = [
            Part("weights", 4 * N / W + 2 * gathered, f"N {N:,} x 4 / {W} + {gathered:,} gathered x 2"),
            Part("gradients", 4 * n / W + 2 * dims.block_parameters, f"n {n:,} x 4 / {W} + one block x 2"),
            Part("optimizer", 8 * n / W, f"n {n:,} x 4 x {ADAM} / {W}"),
        ]
    else:
        # Sampling without vLLM gathers the whole model.
        live, bucket = (min(LIVE, N) if work.vllm else N), min(BUCKET, n)
        if work.layout == "zero3":
            found = [
                Part("weights", 2 * N / W + 2 * live, f"N {N:,} x 2 / {W} + {live:,} gathered x 2"),
                Part("gradients", 2 * n / W + 4 * bucket, f"n {n:,} x 2 / {W} + 2 buckets of {bucket:,} x 2"),
                Part("optimizer", 16 * n / W, f"n {n:,} x (4 master + 8 AdamW + 4 gradient) / {W}"),
            ]
        else:
            found = [
                Part("weights", 2 * live, f"{live:,} gathered x 2; the shards lie in host memory"),
                Part("gradients", 4 * bucket, f"2 buckets of {bucket:,} x 2"),
            ]
    if work.reference:
        share = W if work.layout in ("zero3", "zero3_offload", "fsdp2") else 1
        found.append(Part("reference model", 2 * N / share if share > 1 else b * N / share, f"N {N:,}, frozen"))
    return {part.name: part for part in found}


def layer_bytes(dims: Dimensions, work: Workload) -> tuple[float, str]:
    """What autograd keeps of one token in one block of `transformers`' Llama and Qwen, the attention mask included.

    Of two RMS norms input and normalised input, the inputs of linear layers, queries, keys and values (keys repeated to
    all heads) with the attention's output, and gate, its SiLU, up and their product. Counted from what autograd stores;
    a test holds it to that.
    """
    H, I, q, kv, b = dims.hidden, dims.intermediate, dims.queries, dims.keys, 4 if work.trains == "float32" else 2  # noqa: E741
    norms = {"float32": 4 * 4 + 2 * 4, "bfloat16": 2 * (4 + 2) + 2 * 2, "autocast": 4 * 4 + 5 * 2}[work.trains]
    head_norms = (8 if b == 4 else 6) * (q + kv) + 4 * (dims.heads + dims.kv_heads) if dims.qk_norm else 0
    statistics = 4 * dims.heads + 2 * 4
    mask = b * work.row_tokens
    total = norms * H + b * (4 * q + 4 * I) + head_norms + statistics + mask
    how = f"{norms} H + {b} (4 Hq + 4 I)" + f" + {head_norms} head norms" * dims.qk_norm + f" + mask {mask}"
    return total, how


def activation_part(dims: Dimensions, work: Workload, rows: int) -> Part:
    """Of one micro-batch, at the end of its forward pass; under gradient checkpointing, at its last block."""
    M, L, H = rows * work.computed_tokens, dims.layers, dims.hidden
    shared = work.shared_prompts * work.prompt_tokens
    stream = 2 if work.trains == "bfloat16" else 4
    block, how = layer_bytes(dims, work)
    final = 3 * stream * H
    per_token = L * stream * H + block + final if work.checkpointing else L * block + final
    rule = f"L x {stream} H + one block ({how})" if work.checkpointing else f"L x ({how})"
    if not shared:
        return Part("activations", M * per_token, f"M {M:,} tokens x [{rule} + {3 * stream} H]")
    copies = rows * work.prompt_tokens * L * 2 * dims.queries * (4 if work.trains == "float32" else 2)
    return Part(
        "activations", (M + shared) * per_token + copies,
        f"(M {M:,} + prompts {shared:,}) tokens x [{rule} + {3 * stream} H] + the prompts' keys and values in each row",
    )  # fmt: skip


def backward_part(dims: Dimensions, work: Workload, rows: int) -> Part:
    """Gradients of activations on their way through one block: of the product, its two factors, and the stream."""
    M, b = rows * work.computed_tokens, 4 if work.trains == "float32" else 2
    return Part("backward", M * b * (3 * dims.intermediate + 2 * dims.hidden), f"M {M:,} x {b} x (3 I + 2 H)")


def head_part(dims: Dimensions, work: Workload, hardware: Hardware, rows: int) -> Part:
    """The language-model head: no logits but a strip. Its weight, gathered or not, is among the weights."""
    C, V, H = rows * work.limit_tokens, dims.vocabulary, dims.hidden
    strip = min(hardware.strip, 4.0 * min(C, hardware.strip_rows) * V)
    gradient = 0 if work.lora_rank else 4 * V * H
    return Part(
        "head", strip + 4 * C * H + gradient,
        f"strip {strip:,.0f} + C {C:,} x H x 4" + f" + gradient V {V:,} x H x 4" * (not work.lora_rank),
    )  # fmt: skip


def rollout_part(work: Workload) -> Part:
    """Ids, masks, weights and log-probs of what was sampled."""
    tokens = work.rows * work.row_tokens
    return Part("rollouts", 40 * tokens, f"R {work.rows} x {work.row_tokens:,} tokens x 40 (ids, masks, weights)")


def sampling_parts(dims: Dimensions, work: Workload, hardware: Hardware) -> list[Part]:
    """What generation keeps: vLLM's reservation, or the cache and the logits of our own sampling loop."""
    if work.vllm == "server":
        return []
    if work.vllm == "colocate":
        reserved = work.vllm_share * hardware.memory
        return [
            Part(
                "vLLM", reserved, f"{work.vllm_share} of the GPU: its weights {2 * dims.parameters / 1e9:.1f} GB, cache"
            )
        ]
    b = 2 if work.layout != "ddp" else work.weight_bytes
    R, columns = work.rows, cache_columns(work.prompt_tokens, work.limit_tokens)
    return [
        Part(
            "KV cache", R * columns * dims.cache_values * b,
            f"R {R} x {columns:,} columns x 2 L Hkv {dims.cache_values:,} x {b}",
        ),
        Part(
            "attention", 2 * R * work.row_tokens * dims.queries * b,
            f"R {R} x {work.row_tokens:,} tokens x 2 Hq {2 * dims.queries:,} x {b}: one layer's cache as it is read",
        ),
        Part(
            "drawing", R * (dims.vocabulary * 24 + work.limit_tokens * 8),
            f"R {R} x (V {dims.vocabulary:,} x 24 + {work.limit_tokens:,} x 8): logits, probabilities, their sums",
        ),
    ]  # fmt: skip


def ahead_part(dims: Dimensions, work: Workload) -> Part:
    """The versions of the weights that trainer and sampler process share."""
    assert work.staleness is not None
    versions, b = work.staleness + 1, work.weight_bytes
    how = f"max_staleness + 1 = {versions} x N {dims.parameters:,} x {b}"
    return Part("shared weights", versions * b * dims.parameters, how)


def cache_columns(prompt_tokens: int, limit_tokens: int) -> int:
    """Columns of the sampling loop's cache when a row is as long as it may be: it grows by a quarter, 32 or more."""
    columns = prompt_tokens + max(32, prompt_tokens // 4)
    while columns < prompt_tokens + limit_tokens:
        columns += max(32, columns // 4)
    return columns


def history_part(work: Workload, hardware: Hardware) -> Part | None:
    """The per-prompt store of a method with state: 16 bytes a prompt in a table that is half empty; in host memory."""
    if not work.history:
        return None
    prompts = work.steps * work.rows * hardware.ranks // work.group_size
    return Part("history", 32 * prompts, f"at most {prompts:,} prompts x 32, in host memory")


def phases(dims: Dimensions, work: Workload, hardware: Hardware) -> dict[str, list[Part]]:
    """What is held at once in each phase of a step; the fullest decides."""
    static = static_parts(dims, work, hardware)
    runtime = Part("runtime", hardware.runtime, "context and libraries")
    history = history_part(work, hardware) if hardware.device == "cpu" else None
    always = [runtime] + [part for name, part in static.items() if name not in ("gradients", "bfloat16 weights")]
    always += [history] if history else []
    sampling = sampling_parts(dims, work, hardware)
    if work.staleness is not None:
        sampling = [ahead_part(dims, work), replace(runtime, name="second runtime"), *sampling]
    awake = sampling if work.staleness or (work.vllm == "colocate" and not work.vllm_sleeps) else []
    copies = [static["bfloat16 weights"]] if "bfloat16 weights" in static else []

    def update(rows: int, gradients: bool) -> list[Part]:
        held = [static["gradients"]] if gradients else []
        micro = [activation_part(dims, work, rows), head_part(dims, work, hardware, rows)]
        return [*always, *held, *copies, *awake, rollout_part(work), *micro, backward_part(dims, work, rows)]

    # Gradients come with the first backward pass, after the fullest micro-batch, unless a wrapper set memory aside.
    set_aside = work.layout != "ddp" or hardware.ranks > 1
    updates = [update(work.microbatch_rows, set_aside), update(work.later_rows, True)]
    return {"sampling": [*always, *sampling], "update": max(updates, key=lambda parts: sum(p.bytes for p in parts))}
