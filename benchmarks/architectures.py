"""Every causal architecture of the installed transformers, tiny and random: is a training step right, or refused?

    python benchmarks/architectures.py                         all of them, about ten minutes on one core
    python benchmarks/architectures.py --only gpt2,mixtral
    python benchmarks/architectures.py --write                 and put the table into docs/architectures.md

Each is trained on the same six stored completions of two prompts, cut into micro-batches of unequal length. Log-probs,
entropies, and the gradient of the step are compared with float64 through the model's own logits, each row alone and
unpadded, where nothing of this package takes part; stock TRL is compared with it too. Greedy samples must be what the
model's own logits say. A row is `right`, `refused` by name when the trainer is built, or `not built` where transformers
makes no tiny model of it in time; anything else fails the command.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import gc
import os
import signal
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from trl import GRPOConfig, GRPOTrainer

from concise_rl.assets import TINY
from concise_rl.engine.lean import LeanConfig, LeanTrainer
from concise_rl.errors import UserError
from concise_rl.model.sampling import sample_tokens

PAGE = Path(__file__).parents[1] / "docs" / "architectures.md"
VOCABULARY, PROMPTS, LENGTHS = 128, ([11, 12, 13, 14, 15, 16], [21, 22]), (3, 9, 1, 12, 7, 5)
CREDIT = (0.4, 1.3, -0.4, -1.0, 0.7, 0.0)
SECONDS = 150
LIMITS = {"logprob": 1e-3, "entropy": 1e-3, "gradient": 1e-3}
"""Nats, nats, and the norm of the difference over the gradient's: float32 against float64, with room."""

SIZES: dict[str, Any] = {
    **dict.fromkeys(("vocab_size",), VOCABULARY),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "embed_dim", "embedding_size", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "dff", "n_inner", "d_ff", "decoder_ffn_dim", "ffn_hidden_size",
                     "moe_intermediate_size", "shared_expert_intermediate_size", "dense_intermediate_size",
                     "intermediate_size_mlp", "ffn_intermediate_size", "encoder_ffn_dim", "feed_forward_size"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "n_heads", "decoder_attention_heads",
                     "attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "attention_num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "attention_head_size", "kv_channels"), 8),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k", "num_experts_per_token"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "v_head_dim", "qk_nope_head_dim"), 8),
    **dict.fromkeys(("qk_rope_head_dim",), 4),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_sequence_length"), 128),
    **dict.fromkeys(("pad_token_id",), 0),
    **dict.fromkeys(("bos_token_id", "eos_token_id"), 1),
    **dict.fromkeys(("router_aux_loss_coef",), 0.0),
    **dict.fromkeys(("attention_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "hidden_dropout", "dropout"), 0.0),
    **dict.fromkeys(("is_decoder",), True),
    **dict.fromkeys(("residual_dropout", "classifier_dropout", "summary_first_dropout"), 0.0),
    **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "activation_dropout", "layerdrop"), 0.0),
}  # fmt: skip

HYBRID = {"num_hidden_layers": 4, "full_attention_interval": 2}
OWN: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "codegen": {"rotary_dim": 8},
    "gptj": {"rotary_dim": 8},
    "bamba": {"mamba_n_heads": 8, "mamba_d_head": 8, "attn_layer_indices": [1]},
    "granitemoehybrid": {"mamba_n_heads": 8, "mamba_d_head": 8, "layer_types": ["mamba", "attention"]},
    "falcon_h1": {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_ssm": 64, "mamba_chunk_size": 8},
    "mamba2": {"num_heads": 8, "head_dim": 8, "chunk_size": 8},
    "jamba": {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "gemma3n_text": {"num_kv_shared_layers": 0, "vocab_size_per_layer_input": VOCABULARY},
    "gemma4_text": {"num_kv_shared_layers": 0, "vocab_size_per_layer_input": VOCABULARY},
    "longcat_flash": {"expert_ffn_hidden_size": 48, "num_hidden_layers": 2},
    "xlm": {"emb_dim": 32, "n_words": VOCABULARY},
    "dots3_note": {"num_key_value_heads": 4},
    "dots3_note_text": {"num_key_value_heads": 4},
    "xmod": {"default_language": "en_XX", "languages": ["en_XX"]},
    "zaya": {"num_experts_per_tok": 1},
    "bailing_hybrid": {"num_hidden_layers": 4, "layer_group_size": 2},
    "cohere_compass_text": {
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 1e4} for kind in ("full_attention", "sliding_attention")
        }
    },
    "qwen3_next": HYBRID,
    "qwen3_5_text": HYBRID,
    "qwen3_5_moe_text": HYBRID,
    "qwen4_exp_text": {"num_hidden_layers": 4},
    "kimi_linear": {"layer_types": ["linear_attention", "full_attention"]},
    "zamba": {"layers_block_type": ["mamba", "hybrid"], "n_mamba_heads": 2, "mamba_dt_rank": 4},
    "zamba2": {"layers_block_type": ["mamba", "hybrid"], "n_mamba_heads": 8, "mamba_headdim": 8, "chunk_size": 8},
    "reformer": {"axial_pos_embds": False},
}
"""What an architecture needs besides to be small, by model type."""


@dataclasses.dataclass
class Row:
    """What became of one architecture: errors of ours and of stock TRL, by `LIMITS`' names, or why there are none."""

    model_type: str
    outcome: str
    reason: str = ""
    ours: dict[str, float] = dataclasses.field(default_factory=dict)
    stock: dict[str, float] | str = ""

    def cells(self) -> list[str]:
        stock = self.stock if isinstance(self.stock, str) else f"{max(self.stock.values()):.0e}"
        return [
            self.model_type,
            self.outcome,
            *(f"{self.ours[n]:.0e}" if self.ours else "" for n in LIMITS),
            stock,
            self.reason,
        ]


def tiny_config(model_type: str) -> Any:
    """A configuration of two layers, and of the architecture's defaults where no size is known."""
    kind = CONFIG_MAPPING[model_type]
    known = {f.name for f in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set(kind().to_dict())
    sizes = {name: value for name, value in SIZES.items() if name in known} | OWN.get(model_type, {})
    if "qk_rope_head_dim" in known:  # the part of a head that turns is what is called its size
        sizes |= {"head_dim": sizes["qk_rope_head_dim"], "num_key_value_heads": sizes["num_attention_heads"]}
    parts = {name: part for name, part in (getattr(kind, "sub_configs", None) or {}).items() if name in known}
    for name in parts:
        sub_type = getattr(getattr(kind(), name), "model_type", None)
        if sub_type in CONFIG_MAPPING:
            sizes[name] = tiny_config(sub_type)
    return kind(**sizes)


def tiny_model(model_type: str) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(model_type), attn_implementation="eager")
    if sum(p.numel() for p in model.parameters()) > 2e7:
        raise ValueError(f"{sum(p.numel() for p in model.parameters()):,} parameters: not made small")
    for parameter in model.parameters():
        if parameter.ndim > 1:  # initial weights are too small to tell much apart
            torch.nn.init.normal_(parameter, std=0.15)
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, 1
    return model.float().eval()


def rollouts() -> dict[str, torch.Tensor]:
    """Six completions of two prompts as TRL hands them to its loss; on-policy."""
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    of_row = [0, 1, 1, 0, 1, 0]
    longest = max(map(len, PROMPTS))
    prompts = [[0] * (longest - len(p)) + p for p in PROMPTS]
    return {
        "prompt_ids": torch.tensor([prompts[q] for q in of_row]),
        "prompt_mask": torch.tensor([[0] * (longest - len(PROMPTS[q])) + [1] * len(PROMPTS[q]) for q in of_row]),
        "completion_ids": torch.randint(10, VOCABULARY, mask.shape, generator=generator) * mask,
        "completion_mask": mask,
        "advantages": torch.tensor(CREDIT),
        "num_items_in_batch": mask.sum(),
    }


def vector(model: Any) -> torch.Tensor:
    """The gradient of all parameters as one vector, which is taken away."""
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    whole = torch.cat([g.double().flatten() for g in found])
    model.zero_grad()
    return whole


def truth(model: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Log-probs, entropies, and the gradient of bnpo's on-policy loss, row by row."""
    model = copy.deepcopy(model).to(dtype)
    model.set_experts_implementation("eager")  # the grouped products know no float64
    inputs, found = rollouts(), {"logprob": [], "entropy": []}
    tokens = sum(LENGTHS)
    for n, length in enumerate(LENGTHS):
        prompt = inputs["prompt_ids"][n][inputs["prompt_mask"][n].bool()]
        ids = torch.cat([prompt, inputs["completion_ids"][n, :length]])[None]
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].double()
        log_softmax = logits.log_softmax(dim=-1)
        logprob = log_softmax.gather(1, ids[0, len(prompt) :, None])[:, 0]
        (-CREDIT[n] * logprob.sum() / tokens).backward()
        found["logprob"].append(logprob.detach())
        found["entropy"].append(-(log_softmax.exp() * log_softmax).sum(dim=-1).detach())
    return {name: torch.cat(rows) for name, rows in found.items()} | {"gradient": vector(model)}


def options(folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder, "per_device_train_batch_size": 6, "num_generations": 3, "max_completion_length": 16,
        "report_to": "none", "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "loss_type": "bnpo",
        "disable_tqdm": True, "router_aux_loss_coef": 0.0, "beta": 0.0,
    }  # fmt: skip


def build(kind: type, config: type, model: Any, folder: str, **more: Any) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(TINY, padding_side="left")
    trainer = kind(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config(**options(folder), **more),
        train_dataset=Dataset.from_dict({"prompt": ["1", "2"]}),
        processing_class=tokenizer,
    )
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def measured(trainer: Any, expected: dict[str, torch.Tensor], *, lean: bool) -> dict[str, float]:
    inputs = rollouts()
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    trainer.model.eval()
    with torch.no_grad():
        logprob, entropy, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, inputs["completion_ids"].shape[1], compute_entropy=True
        )
    kept = inputs["completion_mask"].bool()
    found = {"logprob": logprob[kept].double(), "entropy": entropy[kept].double()}
    trainer.model.train()
    if lean:
        trainer._weigh([inputs], 1)
        trainer._forward_backward(trainer.model, trainer._loss_rows(inputs))
    else:
        GRPOTrainer._compute_loss(trainer, trainer.model, inputs).backward()
    errors = {name: float((values - expected[name]).abs().max()) for name, values in found.items()}
    difference = vector(trainer.model) - expected["gradient"]
    return errors | {"gradient": float(difference.norm() / expected["gradient"].norm())}


@torch.no_grad()
def greedy_is_the_models(model: Any) -> bool:
    """Whether each greedy token has the highest of the model's own logits, to rounding."""
    prompts = [*PROMPTS, [31, 32, 33]]
    sampled = sample_tokens(
        model, prompts, max_new_tokens=8, temperature=0.0, eos_token_ids={1}, pad_token_id=0, batch_rows=2
    )
    for prompt, completion in zip(prompts, sampled, strict=True):
        logits = model(input_ids=torch.tensor([[*prompt, *completion]]), use_cache=False).logits[0]
        logits = logits[len(prompt) - 1 : -1].float()
        chosen = logits.gather(1, torch.tensor(completion)[:, None])[:, 0]
        if bool((logits.amax(dim=1) - chosen > 1e-3).any()):
            return False
    return True


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UserError):
        return text.partition(", so that")[0].partition(": its forward")[0].partition(": this model")[0]
    return f"{type(error).__name__}: {text}"[:120].replace("|", "/")


def examine(model_type: str, folder: str) -> Row:
    try:
        model = tiny_model(model_type)
        try:
            expected, note = truth(model, torch.float64), ""
        except RuntimeError:  # some forwards make float32 of their own
            expected, note = truth(model, torch.float32), "against float32"
    except Exception as error:
        return Row(model_type, "not built", one_line(error))
    plain = copy.deepcopy(model)
    try:
        stock: dict[str, float] | str = measured(
            build(GRPOTrainer, GRPOConfig, copy.deepcopy(model), folder), expected, lean=False
        )
    except Exception as error:
        stock = f"fails: {type(error).__name__}"
    try:
        trainer = build(LeanTrainer, LeanConfig, model, folder, max_tokens_per_microbatch=40)
    except UserError as error:
        return Row(model_type, "refused", one_line(error), stock=stock)
    except Exception as error:
        return Row(model_type, "WRONG", one_line(error), stock=stock)
    try:
        ours = measured(trainer, expected, lean=True)
        if not all(ours[name] <= limit for name, limit in LIMITS.items()):
            return Row(model_type, "WRONG", "too far from float64", ours, stock)
        if not greedy_is_the_models(plain):
            return Row(model_type, "WRONG", "greedy samples are not the model's", ours, stock)
    except Exception as error:
        return Row(model_type, "WRONG", one_line(error), stock=stock)
    notes = [note, "" if trainer._share_prompts else "prompts not shared"]
    return Row(model_type, "right", ", ".join(filter(None, notes)), ours, stock)


class Late(BaseException):
    """Not an `Exception`: nothing on the way may take it for an error of the model."""


def timed(model_type: str) -> Row:
    def late(*_: Any) -> None:
        raise Late(f"took more than {SECONDS} seconds")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return examine(model_type, folder)
    except Late as error:
        return Row(model_type, "not built", str(error))
    finally:
        signal.alarm(0)


def table(rows: list[Row]) -> str:
    heads = ["architecture", "outcome", "log-prob", "entropy", "gradient", "stock TRL, worst of the three", ""]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|---:|---:|---:|---:|---|"]
    return "\n".join([*lines, *("| " + " | ".join(row.cells()) + " |" for row in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="model types, with commas")
    parser.add_argument("--write", action="store_true", help="put the table into docs/architectures.md")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    rows = []
    for model_type in chosen.only.split(",") if chosen.only else sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        rows.append(timed(model_type))
        gc.collect()  # trainers are cycles, and large
        print("  ".join(rows[-1].cells()), flush=True)
    counts = {
        outcome: sum(row.outcome == outcome for row in rows) for outcome in ("right", "refused", "not built", "WRONG")
    }
    print(", ".join(f"{n} {outcome}" for outcome, n in counts.items()))
    if chosen.write:
        before, _, rest = PAGE.read_text().partition("<!-- table -->")
        _, _, after = rest.partition("<!-- /table -->")
        PAGE.write_text(f"{before}<!-- table -->\n\n{table(rows)}\n\n<!-- /table -->{after}")
    sys.exit(counts["WRONG"] > 0)


if __name__ == "__main__":
    main()
