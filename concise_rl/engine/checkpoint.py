"""What is saved beside the weights, and checkpoints that are complete or absent, whenever the process dies.

A checkpoint is written into a staging folder, sealed with a manifest (size and sha256 of every file), brought to the
disk and then renamed to `checkpoint-<step>`: the rename is the moment it comes to be. Nothing here is pickled.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from concise_rl.errors import UserError
from concise_rl.methods.history import History

FORMAT = 2
STATE_FILE = "concise_state.json"
ARRAYS_FILE = "concise_state.safetensors"
MANIFEST_FILE = "concise_manifest.json"

_NAME = re.compile(r"checkpoint-([0-9]+)")
_STAGING, _REPLACED, _DELETED = ".staging", ".replaced-", ".deleted-"
_INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_DTYPES = _INTEGERS | {"bool", "float16", "float32", "float64", "complex64"}  # what safetensors holds
_ANOTHER = "resume from another checkpoint (resume=auto takes the newest complete one)"


class CheckpointError(UserError):
    """A checkpoint that cannot be written or read: names the file and the remedy."""


# -- the state of the components ---------------------------------------------------------------------------------------


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
        _write(folder / ARRAYS_FILE, tensors)
        _write(folder / STATE_FILE, _seal({**structure, "arrays_sha256": hashlib.sha256(tensors).hexdigest()}))


def load_state(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The `(states, meta)` that `save_state` was given: equal, of the same types, floats and arrays bit for bit.

    Raises:
        CheckpointError: a file is missing, damaged, or of a version that this one cannot read.
    """
    path = folder / STATE_FILE
    try:
        structure = _unseal(path.read_bytes())
        path = folder / ARRAYS_FILE
        tensors = path.read_bytes()
        if hashlib.sha256(tensors).hexdigest() != structure["arrays_sha256"]:
            raise ValueError("it does not match its checksum")
        arrays = load_tensors(tensors)
        return _decode(structure["states"], arrays), _decode(structure["meta"], arrays)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): {_ANOTHER}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be used, {error}: {_ANOTHER}") from error


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


def _seal(body: Mapping[str, Any]) -> bytes:
    """A JSON document that carries its version and the checksum of its own content."""
    return json.dumps({"format": FORMAT, "sha256": _json_checksum(body), "content": body}, indent=1).encode()


def _unseal(document: bytes) -> dict[str, Any]:
    try:
        sealed = json.loads(document)
        version, body = sealed["format"], sealed["content"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError("it is not the JSON that was written") from error
    if version != FORMAT:
        raise ValueError(f"its format is {version}, this concise_rl reads format {FORMAT}")
    if _json_checksum(body) != sealed.get("sha256"):
        raise ValueError("it does not match its checksum")
    return body


def _json_checksum(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, separators=(",", ":")).encode()).hexdigest()


# -- folders -----------------------------------------------------------------------------------------------------------


def staging_dir(run_dir: Path) -> Path:
    """Where checkpoints of this run are written before `publish`; the same path on every rank, not made here."""
    return Path(run_dir) / _STAGING


def publish(staging: Path, final: Path) -> None:
    """Seal the folder `staging` with a manifest and rename it to `final`, `.../checkpoint-<step>`.

    At any moment, killed or without power, `final` is complete or absent. One that is there already is moved aside
    first; killed just then, `clean_staging` puts it back.

    Raises:
        CheckpointError: the disk is full or not writable, `staging` holds a symbolic link, or `final` has another name.
    """
    match = _NAME.fullmatch(final.name)
    if match is None:
        raise CheckpointError(f"{final}: a checkpoint is named checkpoint-<step>")
    with saving(final):
        paths = sorted(staging.rglob("*"))
        for path in paths:
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise CheckpointError(f"{path} is no regular file: write the file itself into the checkpoint")
        entries = {path.relative_to(staging).as_posix(): _entry(path) for path in paths if path.is_file()}
        entries.pop(MANIFEST_FILE, None)
        _write(staging / MANIFEST_FILE, _seal({"step": int(match[1]), "files": entries}))
        for path in [*paths, staging]:
            _to_disk(path)
        aside = final.with_name(_REPLACED + final.name)
        if final.exists():
            _remove(aside)
            os.rename(final, aside)
        os.rename(staging, final)
        _to_disk(final.parent)
        _remove(aside)
        if staging.parent.name == _STAGING and not any(staging.parent.iterdir()):
            staging.parent.rmdir()


def verify(folder: Path, *, contents: bool = True) -> str | None:
    """None if the checkpoint is complete and undamaged, else the reason in one line.

    Files that the manifest does not list are ignored. `contents=False` compares sizes and reads no weights.
    """
    if folder.is_symlink() or not folder.is_dir():
        return f"{folder.name} is no folder"
    try:
        files = _manifest(folder)["files"]
        for name, entry in files.items():
            reason = _damage(folder, name, entry, contents)
            if reason:
                return reason
    except FileNotFoundError:
        return f"no {MANIFEST_FILE}, the save was not finished"
    except OSError as error:
        return f"{error.filename} cannot be read ({error.strerror})"
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return f"{MANIFEST_FILE} cannot be used, {error}"
    return None


def step_of(folder: Path) -> int:
    """The optimizer steps taken when the checkpoint was saved, from its manifest.

    Raises:
        CheckpointError: there is no manifest, or it cannot be used.
    """
    try:
        return int(_manifest(folder)["step"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / MANIFEST_FILE} cannot be used, {error}: {_ANOTHER}") from error


def newest_complete(run_dir: Path, warn: Callable[[str], None], *, until: float = math.inf) -> Path | None:
    """The checkpoint of the highest step that verifies, None where there are none; `warn` hears of each one skipped.

    Args:
        until: checkpoints of later steps are not looked at.

    Raises:
        CheckpointError: there are some, and not one verifies: a new start would throw the run away.
    """
    folders = [folder for folder in _checkpoints(run_dir) if _named_step(folder) <= until]
    for folder in reversed(folders):
        reason = verify(folder)
        if reason is None:
            return folder
        warn(f"checkpoint {folder} is skipped: {reason}")
    if folders:
        raise CheckpointError(
            f"{run_dir}: not one of its {len(folders)} checkpoints can be used: mend one, choose another run.dir, or "
            "throw the run away with resume=never overwrite=true"
        )
    return None


def rotate(run_dir: Path, keep: int) -> None:
    """Delete the oldest complete checkpoints, so that `keep` are left; incomplete ones are neither counted nor touched.

    Raises:
        CheckpointError: `keep` is below 1, or a folder cannot be deleted.
    """
    if keep < 1:
        raise CheckpointError(f"save_total_limit={keep}: keep at least 1 checkpoint, or None for all")
    complete = [folder for folder in _checkpoints(run_dir) if verify(folder, contents=False) is None]
    for folder in complete[:-keep]:
        _delete(folder)


def discard_after(run_dir: Path, step: int) -> None:
    """Delete the checkpoints of later steps, so that no run goes on from them.

    Raises:
        CheckpointError: a folder cannot be deleted.
    """
    for folder in _checkpoints(run_dir):
        if _named_step(folder) > step:
            _delete(folder)


def _delete(folder: Path) -> None:
    with saving(folder):
        doomed = folder.with_name(_DELETED + folder.name)
        _remove(doomed)
        os.rename(folder, doomed)  # first, so that a half-deleted folder is never taken for a checkpoint
        _remove(doomed)


def clean_staging(run_dir: Path) -> None:
    """Remove what killed saves and deletions left behind; call it on one rank, while nothing is being saved.

    Raises:
        CheckpointError: a leftover cannot be removed.
    """
    run_dir = Path(run_dir)
    with saving(run_dir):
        for aside in run_dir.glob(f"{_REPLACED}*"):
            final = run_dir / aside.name.removeprefix(_REPLACED)
            if not final.exists() and verify(aside) is None:
                os.rename(aside, final)
        for leftover in [staging_dir(run_dir), *run_dir.glob(f"{_REPLACED}*"), *run_dir.glob(f"{_DELETED}*")]:
            _remove(leftover)


@contextmanager
def saving(folder: Path) -> Iterator[None]:
    """Around code that writes a checkpoint: a full or unwritable disk becomes one line that names the remedy.

    Raises:
        CheckpointError: in place of an OSError, and of what torch and safetensors raise when the disk is full.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise CheckpointError(_write_failed(folder, error)) from error
    except Exception as error:
        if "No space left" not in str(error) and _free_bytes(folder) > 1 << 20:
            raise
        raise CheckpointError(_write_failed(folder, OSError(errno.ENOSPC, "No space left on device"))) from error


def _write_failed(folder: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free some space, or choose another run.dir"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = "make it writable, or choose another run.dir"
    else:
        remedy = "mend that, or choose another run.dir"
    return f"{folder} cannot be saved ({error.strerror or error}): {remedy}; checkpoints saved before are intact"


def _free_bytes(folder: Path) -> int:
    there = next(path for path in [folder.absolute(), *folder.absolute().parents] if path.exists())
    return shutil.disk_usage(there).free


def _checkpoints(run_dir: Path) -> list[Path]:
    """The folders named checkpoint-<step>, by step."""
    names = os.listdir(run_dir) if Path(run_dir).is_dir() else []
    return sorted((Path(run_dir) / name for name in names if _NAME.fullmatch(name)), key=_named_step)


def _named_step(folder: Path) -> int:
    return int(folder.name.removeprefix("checkpoint-"))


def _manifest(folder: Path) -> dict[str, Any]:
    return _unseal((folder / MANIFEST_FILE).read_bytes())


def _entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": _file_checksum(path)}


def _damage(folder: Path, name: str, entry: Mapping[str, Any], contents: bool) -> str | None:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        return f"{MANIFEST_FILE} lists {name}, which lies outside the folder"
    path = folder / relative
    if any((folder / part).is_symlink() for part in [relative, *relative.parents]):
        return f"{name} is a symbolic link"
    if not path.is_file():
        return f"{name} is missing"
    if path.stat().st_size != entry["bytes"]:
        return f"{name} has {path.stat().st_size} bytes instead of {entry['bytes']}"
    if contents and _file_checksum(path) != entry["sha256"]:
        return f"{name} does not match its checksum"
    return None


def _file_checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
