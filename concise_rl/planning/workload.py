"""The machine a run is planned for, and one step of the run as its configuration describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from concise_rl.batch import OPTIONAL_FIELDS
from concise_rl.errors import UserError

LAYOUTS = ("ddp", "zero2", "zero3", "zero3_offload", "fsdp2")
"""How weights, gradients and optimizer lie on the ranks; the names of `launch/accelerate`."""

SCORES = frozenset(OPTIONAL_FIELDS)
"""Signals that cost a forward pass over what was sampled."""


@dataclass(frozen=True)
class Hardware:
    """One machine, and what of it a run gets in practice.

    Attributes:
        device: `cpu` or `cuda`.
        ranks: processes, one a GPU.
        memory: bytes of a rank.
        usable: share of them that can be filled; the rest is lost to fragmentation.
        runtime: bytes of a rank that hold no data: CUDA context and kernels, NCCL; on CPU interpreter and libraries.
        flops: a second, of a rank, in matrix products; dense bfloat16 on GPU, float32 on CPU.
        efficiency: share of `flops` that training reaches.
        bandwidth: bytes a second of a rank's memory that decoding and the optimizer reach.
        link: bytes a second between ranks, one way.
        eager_seconds: of one layer in one decoding step, whatever its size, where Python drives it.
        engine_seconds: the same under vLLM with CUDA graphs.
        strip, strip_rows: most bytes and most rows of logits that the head keeps (`kernels.backends`).
        dollars: of an hour of the whole machine; an assumption, `price=` gives your own.
    """

    device: str
    ranks: int
    memory: float
    usable: float
    runtime: float
    flops: float
    efficiency: float
    bandwidth: float
    link: float
    eager_seconds: float
    engine_seconds: float
    strip: float
    strip_rows: int
    dollars: float


_H100: dict[str, Any] = {
    "device": "cuda", "memory": 79.6 * 2**30, "usable": 0.95, "flops": 989e12, "efficiency": 0.40,
    "bandwidth": 0.7 * 3.35e12, "link": 0.7 * 450e9, "eager_seconds": 8e-4, "engine_seconds": 1e-4, "strip": 2**30,
    "strip_rows": 4096,
}  # fmt: skip

HARDWARE: dict[str, Hardware] = {
    "cpu2": Hardware(
        device="cpu", ranks=1, memory=16e9, usable=0.95, runtime=0.75e9, flops=6e10, efficiency=0.5, bandwidth=1e10,
        link=1e9, eager_seconds=4e-4, engine_seconds=4e-4, strip=512 * 2**20, strip_rows=1024, dollars=0.1,
    ),
    "h100x1": Hardware(ranks=1, runtime=1e9, dollars=3.0, **_H100),
    "h100x8": Hardware(ranks=8, runtime=2e9, dollars=24.0, **_H100),
}  # fmt: skip
"""H100: the SXM data sheet, 989 TFLOP/s dense and 3.35 TB/s; the shares that are reached are assumptions."""


@dataclass(frozen=True)
class Workload:
    """One step of a run, from its configuration.

    Attributes:
        rows: completions a rank samples for one generation.
        batch_rows: completions of one accumulation step, which micro-batches are cut from.
        optimizer_rows: completions of one optimizer step, of a rank.
        prompt_tokens, limit_tokens, mean_tokens: of a prompt, most of a completion, and on average.
        extra_passes: forward passes beside the update's own: old log-probs or entropies, reference.
        vllm: None, "colocate" or "server".
        staleness: steps that a process of its own samples ahead, or None.
        history: whether the method keeps state of each prompt.
    """

    group_size: int
    rows: int
    batch_rows: int
    optimizer_rows: int
    microbatch_tokens: int
    prompt_tokens: int
    limit_tokens: int
    mean_tokens: int
    steps: int
    weight_bytes: int
    half: bool
    checkpointing: bool
    lora_rank: int
    reference: bool
    extra_passes: int
    vllm: str | None
    staleness: int | None
    vllm_share: float
    vllm_sleeps: bool
    history: bool
    layout: str

    @property
    def row_tokens(self) -> int:
        return self.prompt_tokens + self.limit_tokens

    @property
    def shared_prompts(self) -> int:
        """Prompts of one accumulation step that pass the model once for all their rows; 0 where rows have their own."""
        prompts = -(-self.batch_rows // self.group_size)
        fits = prompts * self.prompt_tokens <= self.microbatch_tokens and 2 * prompts <= self.batch_rows
        return prompts if fits and self.layout == "ddp" and not self.checkpointing else 0

    @property
    def computed_tokens(self) -> int:
        """Of the longest row, in a micro-batch."""
        return self.limit_tokens if self.shared_prompts else self.row_tokens

    @property
    def microbatch_rows(self) -> int:
        return min(self.batch_rows, max(1, self.microbatch_tokens // self.computed_tokens))

    @property
    def later_rows(self) -> int:
        """Rows of the longest micro-batch but the first, of one optimizer step."""
        if self.optimizer_rows > self.batch_rows:
            return self.microbatch_rows
        return min(self.microbatch_rows, self.batch_rows - self.microbatch_rows)

    @property
    def trains(self) -> str:
        """In which type activations are kept: `float32`, `bfloat16`, or `autocast` (bfloat16 under float32 weights)."""
        if not self.half:
            return "float32" if self.weight_bytes == 4 else "bfloat16"
        return "autocast" if self.weight_bytes == 4 and self.layout == "ddp" else "bfloat16"


def workload_of(
    config: Any,
    hardware: Hardware,
    layout: str,
    options: Mapping[str, int],
    *,
    needs: frozenset[str] = frozenset(),
    history: bool = False,
) -> Workload:
    """The step that a composed training configuration describes.

    Args:
        options: `prompt_tokens`, `completion_tokens` (mean), `prompts_per_step`, where they were given.
        needs: what the method's components ask of a batch.
        history: whether one of its shapers keeps state.

    Raises:
        UserError: the rows of a step are no whole groups, or the mean length is above the limit.
    """
    trainer = config.trainer
    limit = int(trainer.max_completion_length)
    group, batch_rows = int(trainer.num_generations), int(trainer.get("per_device_train_batch_size", 8))
    rows = batch_rows * int(trainer.get("gradient_accumulation_steps", 1))
    if "prompts_per_step" in options:
        total = options["prompts_per_step"] * group
        if total % hardware.ranks:
            raise UserError(
                f"prompts_per_step={options['prompts_per_step']} x {group} rows do not divide among {hardware.ranks} "
                "ranks: choose a multiple"
            )
        rows = total // hardware.ranks
        batch_rows = min(batch_rows, rows)
    sampled = rows
    if trainer.get("steps_per_generation"):
        sampled = int(trainer.per_device_train_batch_size) * int(trainer.steps_per_generation)
    if sampled * hardware.ranks % group:
        raise UserError(
            f"{sampled} rows x {hardware.ranks} ranks are no whole groups of {group}: change "
            "trainer.per_device_train_batch_size, trainer.gradient_accumulation_steps or group_size"
        )
    mean = options.get("completion_tokens", (limit + 1) // 2)
    if mean > limit:
        raise UserError(f"completion_tokens={mean}: the mean is above trainer.max_completion_length={limit}")
    served = bool(trainer.get("async_server", False))
    vllm = "server" if served else trainer.get("vllm_mode", "colocate") if trainer.get("use_vllm", False) else None
    beta = float(trainer.get("beta", 0.0))
    # With vLLM, TRL scores what was sampled once more, to correct for the engine's rounding.
    scored_again = bool(vllm) or bool(SCORES & needs) or int(trainer.get("num_iterations", 1)) > 1
    lora = config.get("peft")
    return Workload(
        group_size=group, rows=sampled, batch_rows=batch_rows, optimizer_rows=rows,
        microbatch_tokens=int(trainer.get("max_tokens_per_microbatch", 16384)),
        prompt_tokens=options.get("prompt_tokens", 16 if config.model.path.startswith("embedded:") else 256),
        limit_tokens=limit, mean_tokens=mean, steps=int(trainer.max_steps),
        weight_bytes=2 if config.model.dtype in ("bfloat16", "float16") else 4,
        half=bool(trainer.get("bf16", True)), checkpointing=bool(trainer.get("gradient_checkpointing", True)),
        lora_rank=int(lora.r) if lora else 0, reference=beta > 0 and not lora,
        extra_passes=int(scored_again) + int(beta > 0),
        vllm=vllm, vllm_share=float(trainer.get("vllm_gpu_memory_utilization", 0.3)),
        staleness=None if served else trainer.get("max_staleness"),
        vllm_sleeps=bool(trainer.get("vllm_enable_sleep_mode", False)), history=history, layout=layout,
    )  # fmt: skip
