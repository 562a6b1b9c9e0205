"""One plan: memory by phase, time by part, cost, the first thing that does not fit, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from concise_rl.errors import UserError
from concise_rl.planning.memory import Part, phases
from concise_rl.planning.models import Dimensions
from concise_rl.planning.speed import Duration, durations
from concise_rl.planning.workload import Hardware, Workload

REMEDIES = {
    "weights": "take peft=lora with model.dtype=bfloat16, layout=zero3, or a smaller model",
    "bfloat16 weights": "take peft=lora with model.dtype=bfloat16, layout=zero3, or a smaller model",
    "gradients": "take peft=lora, layout=zero2 on more GPUs, or layout=zero3_offload",
    "optimizer": "take peft=lora, layout=zero2 on more GPUs, or layout=zero3_offload",
    "reference model": "set trainer.beta=0, or take peft=lora, whose reference is the model without its adapter",
    "activations": "set trainer.gradient_checkpointing=true, or lower trainer.max_tokens_per_microbatch",
    "backward": "lower trainer.max_tokens_per_microbatch or trainer.max_completion_length",
    "head": "lower trainer.max_tokens_per_microbatch; only layouts ddp and zero2 do without logits",
    "vLLM": "lower trainer.vllm_gpu_memory_utilization, or set trainer.vllm_enable_sleep_mode=true",
    "shared weights": "lower trainer.max_staleness, or set engine=sync",
    "KV cache": "set trainer.use_vllm=true, or sample fewer rows: trainer.per_device_train_batch_size",
}
_OTHERWISE = "sample fewer rows: trainer.per_device_train_batch_size or trainer.gradient_accumulation_steps"


@dataclass(frozen=True)
class Misfit:
    """The first part, in the order in which a phase needs them, that passes what a rank has."""

    phase: str
    part: str
    needed: float
    memory: float

    @property
    def sentence(self) -> str:
        return (
            f"no room for {self.part} in {self.phase}: {gb(self.needed)} with what is held before, of "
            f"{gb(self.memory)}; {REMEDIES.get(self.part, _OTHERWISE)}"
        )


@dataclass(frozen=True)
class Plan:
    """What one run will take. Everything is an estimate.

    Raises:
        UserError: prompt and completion are longer than the model's context.
    """

    dimensions: Dimensions
    work: Workload
    hardware: Hardware

    def __post_init__(self) -> None:
        if self.work.row_tokens > self.dimensions.context:
            raise UserError(
                f"trainer.max_completion_length={self.work.limit_tokens} with prompts of {self.work.prompt_tokens} "
                f"tokens is beyond the model's context of {self.dimensions.context}: lower one of them"
            )

    @cached_property
    def phases(self) -> dict[str, list[Part]]:
        return phases(self.dimensions, self.work, self.hardware)

    @cached_property
    def durations(self) -> list[Duration]:
        return durations(self.dimensions, self.work, self.hardware)

    @property
    def fullest(self) -> str:
        return max(self.phases, key=lambda name: sum(part.bytes for part in self.phases[name]))

    @property
    def peak(self) -> float:
        """Bytes of a rank in the fullest phase."""
        return sum(part.bytes for part in self.phases[self.fullest])

    @property
    def host(self) -> float:
        """Bytes that offloading puts into the machine's own memory: weights, gradients, master weights, moments."""
        return 18.0 * self.dimensions.parameters if self.work.layout == "zero3_offload" else 0.0

    @property
    def misfit(self) -> Misfit | None:
        memory = self.hardware.memory
        if self.work.vllm == "colocate":
            # vLLM needs its weights and one longest row in what it reserves.
            least = 2 * self.dimensions.parameters + 2e9 + 2 * self.dimensions.cache_values * self.work.row_tokens
            if least > self.work.vllm_share * memory:
                return Misfit("its own reservation", "vLLM's model and cache", least, self.work.vllm_share * memory)
        memory *= self.hardware.usable
        for phase, parts in self.phases.items():
            total = 0.0
            for part in parts:
                total += part.bytes
                if total > memory:
                    return Misfit(phase, part.name, total, memory)
        return None

    @property
    def step_seconds(self) -> float:
        """Of a step after the first; a process that samples ahead does so beside all else."""
        sampling = sum(part.seconds for part in self.durations if part.name == "sampling")
        rest = sum(part.seconds for part in self.durations) - sampling
        return max(sampling, rest) if self.work.staleness else sampling + rest

    @property
    def tokens_per_second(self) -> float:
        """Sampled tokens of all ranks, over the whole step."""
        return self.work.optimizer_rows * self.work.mean_tokens * self.hardware.ranks / self.step_seconds

    @property
    def hours(self) -> float:
        return self.step_seconds * self.work.steps / 3600

    def dollars(self, price: float | None = None) -> float:
        """Cost of all steps at `price` an hour of the whole machine."""
        return self.hours * (self.hardware.dollars if price is None else price)


def gb(value: float) -> str:
    """Bytes as GB, small ones as MB."""
    return f"{value / 1e9:.2f} GB" if value >= 1e8 else f"{value / 1e6:.2f} MB"


def describe(plan: Plan, title: str, price: float | None = None) -> str:
    """The plan as text, every figure with its arithmetic."""
    work, hardware = plan.work, plan.hardware
    rows = work.optimizer_rows * hardware.ranks
    lines = [
        f"{title}: estimate",
        f"{rows // work.group_size:,} prompts x {work.group_size} completions a step on {hardware.ranks} "
        f"{'rank' if hardware.ranks == 1 else 'ranks'}, prompts of {work.prompt_tokens:,} tokens, completions of "
        f"{work.mean_tokens:,} on average, at most {work.limit_tokens:,}; layout {work.layout}, "
        f"micro-batches of {work.microbatch_rows} x {work.row_tokens:,} tokens",
    ]
    for phase, parts in plan.phases.items():
        lines += ["", f"memory of a rank, {phase}"]
        lines += [_line(part.name, gb(part.bytes), part.how) for part in parts]
        lines.append(
            _line(
                "together",
                gb(sum(part.bytes for part in parts)),
                f"of {gb(hardware.memory)}, {hardware.usable:.0%} usable",
            )
        )
    if plan.host:
        lines += ["", _line("host memory", gb(plan.host), f"N {plan.dimensions.parameters:,} x 18, all ranks together")]
    lines += ["", "time of a step"]
    lines += [_line(part.name, f"{part.seconds:.2f} s", part.how) for part in plan.durations]
    lines.append(_line("together", f"{plan.step_seconds:.2f} s", f"{plan.tokens_per_second:,.0f} sampled tokens/s"))
    hour = hardware.dollars if price is None else price
    lines += [
        "",
        f"{work.steps:,} steps: {plan.hours:,.2f} hours, {plan.dollars(price):,.2f} dollars at {hour:g} an hour",
        f"peak {gb(plan.peak)} of {gb(hardware.memory)} in {plan.fullest}: "
        + (plan.misfit.sentence if plan.misfit else "everything fits"),
    ]
    if plan.work.history:
        drawn = work.steps * rows // work.group_size
        lines.append(
            f"the method compares with a prompt's earlier answers, and these steps draw {drawn:,} prompts: it acts "
            f"only where the training data are fewer, and on each at {drawn // 2:,} or fewer; else raise steps="
        )
    return "\n".join(lines) + "\n"


def _line(name: str, value: str, how: str) -> str:
    return f"  {name:<17}{value:>11}   {how}"
