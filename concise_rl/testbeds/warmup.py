"""Makes a tiny reasoner: a small Llama taught, by seeded supervision, to answer well and in a teacher's habits.

    teacher        ->  question, completion                        a dataclass beside each task
    training loop  ->  knows questions and completions, no task    `train_on_traces`
    measurement    ->  the test split, sampled at temperature 1    `measure`

Which teachers, in which stages, made the shipped checkpoints stands in `warmups.py`.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from concise_rl.data.base import DataSource, Prompt
from concise_rl.errors import UserError
from concise_rl.testbeds.chain_sum import ChainSum, Overthinking
from concise_rl.testbeds.teacher import RECHECK, THINK_CLOSE, THINK_OPEN, Teacher, Trace
from concise_rl.verifiers.exact import Exact

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
_POOL_BATCHES = 16  # batches drawn together and cut by length: enough for little padding, few enough to stay mixed
_IGNORED = -100

logger = logging.getLogger(__name__)


@dataclass
class WarmupConfig:
    """One stage of a warm-up: what is learnt, from whom, by which model, for how long.

    Attributes:
        data: the task; measurement takes its test split.
        teacher: writes the traces, freely from the train side.
        hidden_size: H.
        layers: transformer blocks.
        heads: attention heads of H / heads each.
        intermediate_size: width of the gated feed-forward layer.
        max_positions: longest sequence in tokens.
        steps: optimizer steps.
        batch_size: traces a step.
        like_length: traces of a step have nearly the same length, which spares padding. A step weighs its tokens alike,
            so short completions then weigh more than their share: where habits of length must come out as they are
            written, False.
        learning_rate: its peak, after `warmup_steps` of linear rise; then a cosine down to zero.
        warmup_steps: optimizer steps of the rise.
        weight_decay: of AdamW, on the matrices.
        max_new_tokens: limit of a completion when measuring.
        seed: of the weights, the traces and the sampling.
        start: folder of an earlier warm-up to go on from; its sizes are kept. Empty starts from fresh weights.

    Raises:
        UserError: a field is out of its range.
    """

    data: DataSource = field(default_factory=ChainSum)
    teacher: Teacher = field(default_factory=Overthinking)
    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    intermediate_size: int = 384
    max_positions: int = 512
    steps: int = 3000
    batch_size: int = 8
    like_length: bool = True
    learning_rate: float = 5e-4
    warmup_steps: int = 100
    weight_decay: float = 0.0
    max_new_tokens: int = 320
    seed: int = 0
    start: str = ""

    def __post_init__(self) -> None:
        for name in ("layers", "intermediate_size", "max_positions", "steps", "batch_size", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"WarmupConfig.{name}={getattr(self, name)} must be at least 1")
        if self.heads < 1 or self.hidden_size % (2 * self.heads):
            raise UserError(
                f"WarmupConfig.hidden_size={self.hidden_size} must be a multiple of 2 * heads={2 * self.heads}: "
                "rotary positions need heads of even width"
            )
        if self.learning_rate <= 0:
            raise UserError(f"WarmupConfig.learning_rate={self.learning_rate} must be positive")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character of printable ASCII (and newline), one for each think tag; decoding is the exact inverse.

    Only pad, EOS and unknown are special tokens: `skip_special_tokens=True` keeps the think tags. No chat template.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = ["\n", *map(chr, range(32, 127))]
    vocabulary = {token: i for i, token in enumerate([PAD, EOS, UNKNOWN, THINK_OPEN, THINK_CLOSE, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([PAD, EOS, UNKNOWN])
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in (THINK_OPEN, THINK_CLOSE)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def build_model(config: WarmupConfig, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A Llama with tied embeddings and fresh weights, float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=config.max_positions,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def train_on_traces(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    traces: Iterator[Trace],
    config: WarmupConfig,
    rng: random.Random,
    on_step: Callable[[int, float], None],
) -> None:
    """Teacher forcing on the tokens of the completions and their EOS (never the questions), mean over a step's tokens.

    `on_step(step, loss)` is called after every optimizer step, the loss in nats a token.
    """
    matrices = [p for p in model.parameters() if p.ndim > 1]
    gains = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": gains, "weight_decay": 0.0}],
        lr=config.learning_rate,
        betas=(0.9, 0.98),
    )
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (config.warmup_steps + 1), total_iters=config.warmup_steps)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, config.steps - config.warmup_steps))
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], [config.warmup_steps])
    batches = _batches(tokenizer, traces, config, rng)
    model.train()
    for step in range(1, config.steps + 1):
        ids, labels = next(batches)
        logits = model(input_ids=ids, use_cache=False).logits  # padded on the right: causal, so no mask is needed
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=_IGNORED)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        on_step(step, float(loss.detach()))


def _batches(
    tokenizer: PreTrainedTokenizerFast, traces: Iterator[Trace], config: WarmupConfig, rng: random.Random
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless `(ids, labels)`, each (B, T); with `like_length`, B rows of nearly the same length."""
    batch_size = config.batch_size
    while True:
        pool = []
        for _ in range(_POOL_BATCHES * batch_size):
            question, completion = next(traces)
            prompt_ids = tokenizer.encode(question)
            completion_ids = [*tokenizer.encode(completion), tokenizer.eos_token_id]
            pool.append((prompt_ids + completion_ids, [_IGNORED] * len(prompt_ids) + completion_ids))
        if config.like_length:
            pool.sort(key=lambda row: len(row[0]))
        batches = [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
        rng.shuffle(batches)
        for batch in batches:
            width = max(len(ids) for ids, _ in batch)
            ids_BT = torch.tensor([ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids, _ in batch])
            labels_BT = torch.tensor([labels + [_IGNORED] * (width - len(labels)) for _, labels in batch])
            yield ids_BT, labels_BT


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    questions: Sequence[str],
    max_new_tokens: int,
    batch_size: int = 128,
) -> list[tuple[str, int]]:
    """One completion a question from the model's own distribution (temperature 1, nothing cut off).

    Returns:
        Per question the text and its length in sampled tokens including EOS.
    """
    model.eval()
    completions: list[tuple[str, int]] = []
    for start in range(0, len(questions), batch_size):
        prompts = tokenizer(
            list(questions[start : start + batch_size]), return_tensors="pt", padding=True, padding_side="left"
        )
        ids = model.generate(
            **prompts, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=max_new_tokens
        )
        for row in ids[:, prompts["input_ids"].shape[1] :].tolist():
            length = row.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in row else len(row)
            completions.append((tokenizer.decode(row[:length], skip_special_tokens=True), length))
    return completions


def measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[Prompt], max_new_tokens: int
) -> dict[str, Any]:
    """Accuracy and length of one sample a prompt; also by level, and by the re-checks that the sample holds, if any.

    A completion is right when what follows its last `</think>` is exactly the reference. Lengths, in tokens, count EOS.
    The distance to the oracle is None on a task that does not know it (column `oracle_tokens`).
    """
    completions = sample(model, tokenizer, [p.messages[-1]["content"] for p in prompts], max_new_tokens)
    verifier = Exact()
    right = [verifier(text, p.reference).correct for (text, _), p in zip(completions, prompts, strict=True)]
    lengths = sorted(length for _, length in completions)
    mean_tokens = sum(lengths) / len(lengths)
    oracle = [p.columns["oracle_tokens"] for p in prompts if "oracle_tokens" in p.columns]
    mean_oracle_tokens = sum(oracle) / len(oracle) if len(oracle) == len(prompts) else None
    rechecks = [text.count(RECHECK) for text, _ in completions]
    levels = [p.columns.get("difficulty") for p in prompts]
    by = {"by_rechecks": rechecks if any(rechecks) else [], "by_difficulty": levels if None not in levels else []}
    tokens = [length for _, length in completions]
    return {
        "problems": len(prompts),
        "accuracy": sum(right) / len(right),
        "mean_tokens": mean_tokens,
        "max_tokens": lengths[-1],
        "mean_oracle_tokens": mean_oracle_tokens,
        "tokens_over_oracle": mean_oracle_tokens and mean_tokens / mean_oracle_tokens,
        **{name: _grouped(keys, right, tokens) for name, keys in by.items() if keys},
    }


def _grouped(keys: Sequence[Any], right: Sequence[bool], tokens: Sequence[int]) -> dict[str, dict[str, float]]:
    groups: dict[Any, list[int]] = {key: [] for key in sorted(set(keys))}
    for row, key in enumerate(keys):
        groups[key].append(row)
    return {
        str(key): {
            "samples": len(rows),
            "accuracy": sum(right[row] for row in rows) / len(rows),
            "mean_tokens": sum(tokens[row] for row in rows) / len(rows),
        }
        for key, rows in groups.items()
    }


def run_warmup(
    config: WarmupConfig,
    out_dir: str | Path,
    on_step: Callable[[int, float], None] | None = None,
) -> dict[str, Any]:
    """Train a model and save it with its tokenizer and `warmup.json` (configuration, metrics, seconds).

    Uses one CPU thread, on which this small model is fastest and its weights depend on the configuration alone.

    Args:
        out_dir: folder of the checkpoint, made if missing.
        on_step: called with the step and its loss (nats a token); by default every hundredth is logged.

    Returns:
        The metrics of `measure` on the test split.

    Raises:
        UserError: `out_dir` cannot be made.
    """
    out_dir = Path(out_dir)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out_dir={out_dir} cannot be made ({error}); give a folder that can be written") from error
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            rng = random.Random(config.seed)
            tokenizer = build_tokenizer()
            model = load_start(config.start) if config.start else build_model(config, tokenizer)
            started = time.monotonic()
            traces = config.teacher.traces(config.steps * config.batch_size, rng)
            train_on_traces(model, tokenizer, traces, config, rng, on_step or _log_step)
            train_seconds = time.monotonic() - started
            metrics = measure(model, tokenizer, config.data.load("test"), config.max_new_tokens)
    finally:
        torch.set_num_threads(threads)
    model.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)
    record = {
        "config": asdict(config) | {"start": earlier_record(config.start) if config.start else ""},
        "metrics": metrics,
        "parameters": model.num_parameters(),
        "train_seconds": round(train_seconds, 1),
    }
    (out_dir / "warmup.json").write_text(json.dumps(record, indent=2) + "\n")
    return metrics


def load_start(folder: str) -> PreTrainedModel:
    """The model of an earlier warm-up.

    Raises:
        UserError: there is none.
    """
    from transformers import LlamaForCausalLM

    if not (Path(folder) / "warmup.json").is_file():
        raise UserError(f"WarmupConfig.start={folder} holds no warm-up (warmup.json); name the folder of one")
    return LlamaForCausalLM.from_pretrained(folder)


def earlier_record(folder: str) -> dict[str, Any]:
    """The configuration that made the model one started from, so that the record tells the whole making."""
    return json.loads((Path(folder) / "warmup.json").read_text())["config"]


def _log_step(step: int, loss: float) -> None:
    if step % 100 == 0:
        logger.info("warm-up step %d: loss %.4f nats a token", step, loss)
