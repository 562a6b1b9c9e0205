"""Two models averaged weight by weight: long2short without any training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from concise_rl.engine import checkpoint
from concise_rl.errors import UserError
from concise_rl.model.adapters import is_adapter
from concise_rl.model.loading import EMBEDDED

SHARD_BYTES = 1 << 30
"""What a file of the merged model holds, but for a tensor that is larger by itself."""

BLOCK_VALUES = 1 << 24
"""Values that are averaged at once: what memory holds besides one file is a few of these."""

INDEX = "model.safetensors.index.json"
VOCABULARY = ("tokenizer.json", "vocab.json", "tokenizer.model")


def merge(a: str, b: str, out: Path, weight: float = 0.5) -> int:
    """Write `weight * a + (1 - weight) * b` to the folder `out`: float32 arithmetic, a's types, config and tokenizer.

    Kimi k1.5's merging (arXiv 2501.12599 section 2.4) of a long and a short reasoner. One file of about a gigabyte is
    in memory at a time, whatever the models' size.

    Args:
        a, b: folders of safetensors, or embedded reasoners.
        weight: of a, 0 to 1.

    Returns:
        The number of tensors.

    Raises:
        UserError: the models differ in names, shapes or vocabulary, are adapters, or `out` is there already.
    """
    if not 0 <= weight <= 1:
        raise UserError(f"--weight {weight}: a's share, from 0 to 1")
    if out.exists():
        raise UserError(f"--out {out} is there already: choose another folder")
    first, second = _Model(a), _Model(b)
    _check_alike(first, second)
    staging = out.with_name(f".{out.name}.part")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        index = _write(first, second, weight, staging)
        for path in first.folder.iterdir():
            if path.is_file() and path.suffix not in (".safetensors", ".bin") and path.name != INDEX:
                shutil.copy(path, staging)
        (staging / INDEX).write_text(json.dumps(index, indent=1))
        checkpoint.replace_folder(staging, out)
    except OSError as error:
        raise UserError(f"--out {out} cannot be written ({error.strerror}): choose another folder") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return len(index["weight_map"])


class _Model:
    """The safetensors of a folder: which file holds which tensor, and its shape."""

    def __init__(self, path: str) -> None:
        self.folder = Path(EMBEDDED.get(path, path)).expanduser()
        files = sorted(self.folder.glob("*.safetensors")) if self.folder.is_dir() else []
        if is_adapter(str(self.folder)):
            raise UserError(
                f"{path} is a LoRA adapter: load it with model.merge_adapter=true and save the whole model first"
            )
        if not files:
            raise UserError(f"{path} is no folder with .safetensors: name a saved model, such as runs/demo/model")
        self.path, self.file_of, self.shapes = path, {}, {}
        self._open: dict[Path, Any] = {}
        for file in files:
            try:
                opened = self._open[file] = safe_open(file, framework="pt")
            except (OSError, SafetensorError) as error:
                raise UserError(f"{file} cannot be read ({' '.join(str(error).split())}): copy it again") from error
            for name in opened.keys():  # noqa: SIM118 - no mapping
                self.file_of[name] = file
                self.shapes[name] = tuple(opened.get_slice(name).get_shape())

    def slice(self, name: str) -> Any:
        """The tensor, of which parts can be read."""
        return self._open[self.file_of[name]].get_slice(name)


def _check_alike(first: _Model, second: _Model) -> None:
    alone = sorted(first.shapes.keys() ^ second.shapes.keys())
    if alone:
        holder = first.path if alone[0] in first.shapes else second.path
        raise UserError(
            f"{len(alone)} tensors are in one model alone, such as {alone[0]} in {holder}: they cannot merge"
        )
    for name, shape in first.shapes.items():
        if shape != second.shapes[name]:
            raise UserError(f"{name} is {shape} in {first.path} and {second.shapes[name]} in {second.path}")
    for name in VOCABULARY:
        ours, theirs = first.folder / name, second.folder / name
        if ours.is_file() and theirs.is_file() and ours.read_bytes() != theirs.read_bytes():
            different = _different_tokens(ours, theirs)
            if different:
                raise UserError(
                    f"{first.path} and {second.path} number their tokens differently ({name}: {different}): an average "
                    "of such weights means nothing"
                )


def _different_tokens(ours: Path, theirs: Path) -> str:
    """What differs between two vocabularies; empty where their tokens have the same numbers."""
    if ours.suffix != ".json":
        return "the files differ"
    a, b = (_vocabulary(json.loads(path.read_bytes())) for path in (ours, theirs))
    differ = [token for token in {**a, **b} if a.get(token) != b.get(token)]
    return f"{len(differ)} tokens, such as {differ[0]!r}" if differ else ""


def _vocabulary(parsed: Any) -> dict[str, int]:
    model = parsed.get("model", parsed) if isinstance(parsed, Mapping) else {}
    words: Any = model.get("vocab", model)
    found = dict(words) if isinstance(words, Mapping) else {token: n for n, (token, *_) in enumerate(words)}
    added = parsed.get("added_tokens", []) if isinstance(parsed, Mapping) else []
    return found | {token["content"]: token["id"] for token in added}


def _write(first: _Model, second: _Model, weight: float, folder: Path) -> dict[str, Any]:
    """The merged tensors in files of about `SHARD_BYTES`; returns their index."""
    shard: dict[str, Tensor] = {}
    placed: dict[str, str] = {}
    written = total = 0

    def flush() -> None:
        nonlocal written
        name = f"model-{len(set(placed.values())) + 1:05d}.safetensors"
        save_file(shard, str(folder / name), metadata={"format": "pt"})
        placed.update(dict.fromkeys(shard, name))
        shard.clear()
        written = 0

    for name in first.shapes:
        tensor = _averaged(first.slice(name), second.slice(name), first.shapes[name], weight)
        size = tensor.numel() * tensor.element_size()
        if shard and written + size > SHARD_BYTES:
            flush()
        shard[name] = tensor
        written += size
        total += size
    flush()
    return {"metadata": {"total_size": total}, "weight_map": placed}


def _averaged(a: Any, b: Any, shape: tuple[int, ...], weight: float) -> Tensor:
    """The average of two stored tensors, in a's type; whole numbers and flags are a's."""
    if not shape:
        whole = a[...]
        return (weight * whole.float() + (1 - weight) * b[...].float()).to(whole.dtype)
    parts = []
    for rows in _blocks(shape):
        ours = a[rows]
        if not ours.is_floating_point():
            parts.append(ours)
            continue
        parts.append(ours.float().mul_(weight).add_(b[rows].float(), alpha=1 - weight).to(ours.dtype))
    return torch.cat(parts) if len(parts) > 1 else parts[0].contiguous()


def _blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    values = 1
    for size in shape[1:]:
        values *= size
    step = max(1, BLOCK_VALUES // max(values, 1))
    yield from (slice(first, min(first + step, shape[0])) for first in range(0, shape[0], step))
