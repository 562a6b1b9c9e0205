"""A model's configuration may name a repository whose compiled code transformers would fetch and run: refused here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from concise_rl.errors import UserError

FIELD = "attn_implementation"
"""And `_attn_implementation`, at any depth: models of several parts have a configuration for each."""


def refuse_kernels(path: str, spec: Any) -> None:
    """Refuse a model whose own files ask for attention from `owner/repo`, where no remote code is allowed.

    What the command line says, `model.attn_implementation`, is the user's own choice, and takes the place of it.

    Args:
        path: a folder or hub id; of an adapter, the base is looked at.
        spec: `trust_remote_code`, `attn_implementation` and `revision` of the configuration.

    Raises:
        UserError: names the repository.
    """
    if spec.trust_remote_code or spec.attn_implementation:
        return
    for named in _implementations(_config(path, spec.revision)):
        if "/" in named:
            raise UserError(
                f"model.path={spec.path}: its config.json asks for {FIELD}={named[:80]!r}, code that would be fetched "
                "from there and run: choose another, model.attn_implementation=sdpa, or allow it with "
                "model.trust_remote_code=true"
            )


def _config(path: str, revision: str | None) -> Mapping[str, Any]:
    """The model's config.json as it stands; empty where there is none, which is said when the model is loaded."""
    from transformers import PreTrainedConfig

    adapter = Path(path).expanduser() / "adapter_config.json"
    try:
        if adapter.is_file():
            found = json.loads(adapter.read_bytes())
            path, revision = str(found["base_model_name_or_path"]), found.get("revision")
        config, _ = PreTrainedConfig.get_config_dict(path, revision=revision)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return config


def _implementations(value: Any) -> Iterator[str]:
    """Every text under a field of that name."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if str(name).strip("_").startswith(FIELD):
                yield from _texts(inner)
            yield from _implementations(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _implementations(inner)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
