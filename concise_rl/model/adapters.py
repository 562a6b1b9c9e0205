"""LoRA: adapters that a run makes, and adapters that a run begins with."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from concise_rl.errors import UserError

ADAPTER_CONFIG = "adapter_config.json"

HEADS = frozenset({"lm_head", "embed_out", "output", "score"})
"""Names that a model's head goes by; log-probs are made from its weight itself."""

_RESOLVED = ("target_modules", "task_type", "revision")
"""Fields of LoraConfig that PEFT or a load fills in, so that a recipe's value is not what an adapter's file holds."""


def is_adapter(path: str) -> bool:
    """Whether a local folder holds an adapter and no model of its own."""
    folder = Path(path).expanduser()
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def adapter_config(path: str) -> dict[str, Any]:
    """`adapter_config.json` of an adapter folder.

    Raises:
        UserError: it is not JSON, is of another kind than LoRA, or names no base model.
    """
    file = Path(path).expanduser() / ADAPTER_CONFIG
    try:
        content = json.loads(file.read_bytes())
        kind, base = content["peft_type"], content["base_model_name_or_path"]
    except (KeyError, OSError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"model.path={path}: {ADAPTER_CONFIG} cannot be used ({error}): save the adapter anew"
        ) from error
    if kind != "LORA" or not base:
        raise UserError(
            f"model.path={path} holds an adapter of kind {kind} on {base!r}: only LoRA adapters that name their base "
            "can be loaded; merge it into its model first"
        )
    return content


def base_spec(spec: Any) -> Any:
    """What to load below the adapter of `spec.path`: its base, of the revision that was asked for or it was made on."""
    content = adapter_config(spec.path)
    fields = {name: getattr(spec, name) for name in ("dtype", "attn_implementation", "trust_remote_code")}
    revision = spec.revision or content.get("revision")
    return SimpleNamespace(path=content["base_model_name_or_path"], revision=revision, **fields)


def with_adapter(base: Any, path: str, *, trainable: bool) -> Any:
    """A `peft.PeftModel` of a base and the adapter in a folder.

    Raises:
        UserError: PEFT is not installed, or the adapter does not fit the base, its tensors named.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise UserError(f"model.path={path} is a LoRA adapter: pip install 'concise-rl[peft]'") from error
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = PeftModel.from_pretrained(base, str(Path(path).expanduser()), is_trainable=trainable)
        except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(f"model.path={path}: the adapter cannot be loaded ({reason}): save it anew") from error
    lacking = [str(warning.message) for warning in caught if "missing adapter keys" in str(warning.message)]
    if lacking:
        raise UserError(f"model.path={path}: the adapter lacks weights ({lacking[0][:300]}): copy the whole folder")
    return model


def check_same_adapter(path: str, fields: Mapping[str, Any]) -> None:
    """Refuse `peft.*` where it says another thing than the adapter that goes on training, whose own settings hold.

    Raises:
        UserError: the first field that differs.
    """
    content = adapter_config(path)
    for name, value in fields.items():
        if name not in _RESOLVED and name in content and content[name] != value:
            raise UserError(
                f"peft.{name}={value}, the adapter in model.path={path} goes on training with its own "
                f"{name}={content[name]}: set peft.{name}={content[name]}, or model.merge_adapter=true to put a new "
                "adapter on the merged model"
            )


def lora(fields: Any, revision: str | None = None) -> Any:
    """`peft=lora` as a `peft.LoraConfig`; None where all weights train.

    Args:
        revision: of the base model, so that whoever loads the adapter takes the same.

    Raises:
        UserError: PEFT is not installed, a field that LoraConfig lacks, or a head that is to be copied.
    """
    if fields is None:
        return None
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise UserError("peft=lora needs PEFT: pip install 'concise-rl[peft]'") from error
    try:
        made = LoraConfig(**{"revision": revision, **dict(fields)})
    except TypeError as error:
        raise UserError(f"peft: {error}") from error
    copied = HEADS & set(made.modules_to_save or ())
    if copied:
        raise UserError(
            f"peft.modules_to_save={sorted(copied)}: log-probs are made from the head's own weight, a copy would not "
            "be trained; leave it out, or train all weights with peft=none"
        )
    return made
