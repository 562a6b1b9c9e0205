"""The state of a method's components in two files: sealed JSON for structure, safetensors for arrays; no pickle."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from concise_rl.engine.disk import CheckpointError, saving, write
from concise_rl.files import replace_text
from concise_rl.methods.history import History

FORMAT = 2
STATE_FILE = "concise_state.json"
ARRAYS_FILE = "concise_state.safetensors"
AMENDED_FILE = "concise_amended.json"
ANOTHER = "resume from another checkpoint (resume=auto takes the newest complete one)"

_INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_DTYPES = _INTEGERS | {"bool", "float16", "float32", "float64", "complex64"}  # what safetensors holds


def save_state(folder: Path, states: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Write component states and facts about the run into `folder`, for `load_state`.

    A state is None, a bool, int, float or str, a numpy array, a `History`, or a list, tuple or dict (str keys) of
    such. The structure goes to `concise_state.json`, the arrays to `concise_state.safetensors`.

    Raises:
        CheckpointError: a value of another type (named by its place), or the folder cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    structure = {"states": _encode(dict(states), "states", arrays), "meta": _encode(dict(meta), "meta", arrays)}
    tensors = save_tensors(arrays)
    with saving(folder):
        write(folder / ARRAYS_FILE, tensors)
        write(folder / STATE_FILE, seal({**structure, "arrays_sha256": hashlib.sha256(tensors).hexdigest()}))


def amend(folder: Path, facts: Mapping[str, Any]) -> None:
    """Facts that `load_state` gives beside the saved ones, in a file that stands beside what is sealed.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    with saving(folder):
        replace_text(folder / AMENDED_FILE, seal({"meta": _encode(dict(facts), "meta", {})}).decode())


def load_state(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The `(states, meta)` that `save_state` was given: equal, of the same types, floats and arrays bit for bit.

    What `amend` was given is among the facts.

    Raises:
        CheckpointError: a file is missing, damaged, or of a version that this one cannot read.
    """
    path = folder / STATE_FILE
    try:
        structure = unseal(path.read_bytes())
        path = folder / ARRAYS_FILE
        tensors = path.read_bytes()
        if hashlib.sha256(tensors).hexdigest() != structure["arrays_sha256"]:
            raise ValueError("it does not match its checksum")
        arrays = load_tensors(tensors)
        states, meta = _decode(structure["states"], arrays), _decode(structure["meta"], arrays)
        path = folder / AMENDED_FILE
        return states, meta | (_decode(unseal(path.read_bytes())["meta"], {}) if path.exists() else {})
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): {ANOTHER}") from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be used, {_why(error)}: {ANOTHER}") from error


def state_to_json(states: Mapping[str, Any]) -> dict[str, str]:
    """States as texts that fit into somebody else's JSON, for `state_from_json`: sealed structure, arrays in base64.

    Raises:
        CheckpointError: a value of a type that a checkpoint cannot hold.
    """
    arrays: dict[str, np.ndarray] = {}
    structure = seal({"states": _encode(dict(states), "states", arrays)})
    return {"structure": structure.decode(), "arrays": base64.b64encode(save_tensors(arrays)).decode()}


def state_from_json(texts: Mapping[str, str]) -> dict[str, Any]:
    """The states that `state_to_json` was given.

    Raises:
        CheckpointError: the texts are damaged.
    """
    try:
        structure = unseal(texts["structure"].encode())
        return _decode(structure["states"], load_tensors(base64.b64decode(texts["arrays"])))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"the saved state of a reward cannot be used, {_why(error)}: {ANOTHER}") from error


def _why(error: Exception) -> str:
    return "it is nested too deep" if isinstance(error, RecursionError) else str(error)


def _encode(value: Any, place: str, arrays: dict[str, np.ndarray]) -> Any:
    """JSON in which scalars and lists stand for themselves and all else is {kind: content}; arrays are put aside."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, (list, tuple)):
        items = [_encode(item, f"{place}[{i}]", arrays) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _encode(item, f"{place}[{key!r}]", arrays) for key, item in value.items()}}
    if isinstance(value, History):
        return {"history": _encode(value.arrays(), place, arrays)}
    if type(value) is np.ndarray and value.dtype.name in _DTYPES:
        name = str(len(arrays))
        arrays[name] = np.asarray(value, value.dtype.newbyteorder("="), order="C")
        return {"array": name}
    found = f"{type(value).__name__} {getattr(value, 'dtype', '')}".strip()
    raise CheckpointError(
        f"{place} is a {found}, which a checkpoint cannot hold: keep numbers, strings, None, numpy arrays of numbers, "
        "a History, or lists, tuples and dicts with str keys of such"
    )


def _decode(code: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(code, list):
        return [_decode(item, arrays) for item in code]
    if not isinstance(code, dict):
        return code
    ((kind, content),) = code.items()
    if kind == "dict":
        return {key: _decode(item, arrays) for key, item in content.items()}
    if kind == "array":
        return arrays[content]
    makers: dict[str, Callable[[Any], Any]] = {"float": float, "tuple": tuple, "history": History.from_arrays}
    return makers[kind](_decode(content, arrays))


def seal(body: Mapping[str, Any]) -> bytes:
    """A JSON document that carries its version and the checksum of its own content."""
    return json.dumps({"format": FORMAT, "sha256": _json_checksum(body), "content": body}, indent=1).encode()


def unseal(document: bytes) -> dict[str, Any]:
    """The body that `seal` was given.

    Raises:
        ValueError: it is damaged, nested too deep, or of another version; says which.
    """
    try:
        sealed = json.loads(document)
        version, body = sealed["format"], sealed["content"]
        checksum = _json_checksum(body)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError("it is not the JSON that was written") from error
    if version != FORMAT:
        raise ValueError(f"its format is {version}, this concise_rl reads format {FORMAT}")
    if checksum != sealed.get("sha256"):
        raise ValueError("it does not match its checksum")
    return body


def _json_checksum(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, separators=(",", ":")).encode()).hexdigest()
