"""Checkpoints that are complete or absent, whenever the process dies.

A checkpoint is written into a staging folder, sealed with a manifest (size and sha256 of every file, and which
checkpoint it grew from), brought to the disk and then renamed to `checkpoint-<step>`: the rename is the moment it comes
to be.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from concise_rl.engine.disk import REPLACED, CheckpointError, regular_paths, remove, replace_folder, saving, write
from concise_rl.engine.readable import unreadable
from concise_rl.engine.state import ANOTHER, ARRAYS_FILE, STATE_FILE, amend, load_state, save_state, seal, unseal
from concise_rl.files import file_checksum

__all__ = [
    "ARRAYS_FILE", "MANIFEST_FILE", "STATE_FILE", "CheckpointError", "amend", "clean_staging", "discard_after",
    "identity", "load_state", "newest_complete", "publish", "replace_folder", "rotate", "save_state", "saving",
    "staging_dir", "step_of", "steps", "verify",
]  # fmt: skip

MANIFEST_FILE = "concise_manifest.json"

_NAME = re.compile(r"checkpoint-([0-9]+)")
_STAGING, _DELETED = ".staging", ".deleted-"


def staging_dir(run_dir: Path) -> Path:
    """Where checkpoints of this run are written before `publish`; the same path on every rank, not made here."""
    return Path(run_dir) / _STAGING


def publish(staging: Path, final: Path, ancestor: Mapping[str, Any] | None = None) -> None:
    """Seal the folder `staging` with a manifest and rename it to `final`, `.../checkpoint-<step>`.

    At any moment, killed or without power, `final` is complete or absent. One that is there already is moved aside
    first; killed just then, `clean_staging` puts it back.

    Args:
        ancestor: the `identity` of the checkpoint that training went on from or saved last; None at a run's first.

    Raises:
        CheckpointError: the disk is full or not writable, `staging` holds a symbolic link, or `final` has another name.
    """
    match = _NAME.fullmatch(final.name)
    if match is None:
        raise CheckpointError(f"{final}: a checkpoint is named checkpoint-<step>")
    with saving(final):
        paths = regular_paths(staging)
        entries = {path.relative_to(staging).as_posix(): _entry(path) for path in paths if path.is_file()}
        entries.pop(MANIFEST_FILE, None)
        body = {"step": int(match[1]), "files": entries, "ancestor": dict(ancestor) if ancestor else None}
        write(staging / MANIFEST_FILE, seal(body))
        replace_folder(staging, final)
        if staging.parent.name == _STAGING and not any(staging.parent.iterdir()):
            staging.parent.rmdir()


def verify(folder: Path, *, contents: bool = True) -> str | None:
    """None if the checkpoint is complete and undamaged, else the reason in one line.

    Complete is what a run can go on from: every listed file is as it was sealed, and of a kind that its reader takes.
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
        for name in (STATE_FILE, ARRAYS_FILE):
            if name not in files:
                return f"{MANIFEST_FILE} lists {len(files)} files and no {name}: it was not written by a run"
        if contents:
            load_state(folder)
    except CheckpointError as error:
        return str(error).removesuffix(f": {ANOTHER}").removeprefix(f"{folder}{os.sep}")
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
        raise CheckpointError(f"{folder / MANIFEST_FILE} cannot be used, {error}: {ANOTHER}") from error


def identity(folder: Path) -> dict[str, Any]:
    """Step and checksum of a checkpoint: what the ones that grow from it name as their ancestor.

    Raises:
        CheckpointError: there is no manifest, or it cannot be used.
    """
    return {"step": step_of(folder), "sha256": file_checksum(folder / MANIFEST_FILE)}


def _left_branch(folder: Path) -> str | None:
    """Why a checkpoint is none of this run as it stands: the one that it grew from was replaced by another."""
    ancestor = _manifest(folder).get("ancestor")
    parent = folder.with_name(f"checkpoint-{ancestor['step']}") if ancestor else folder
    if not ancestor or verify(parent, contents=False) is not None or identity(parent) == ancestor:
        return None
    return f"it grew from another {parent.name} than the one that is here, on a branch that was left"


def newest_complete(run_dir: Path, warn: Callable[[str], None], *, until: float = math.inf) -> Path | None:
    """The checkpoint of the highest step that verifies, None where there are none; `warn` hears of each one skipped.

    One whose ancestor in the same folder was replaced by another checkpoint is skipped too.

    Args:
        until: checkpoints of later steps are not looked at.

    Raises:
        CheckpointError: there are some, and not one verifies: a new start would throw the run away.
    """
    folders = [folder for folder in _checkpoints(run_dir) if _named_step(folder) <= until]
    for folder in reversed(folders):
        reason = verify(folder) or _left_branch(folder)
        if reason is None:
            return folder
        warn(f"checkpoint {folder} is skipped: {reason}")
    if folders:
        raise CheckpointError(
            f"{run_dir}: not one of its {len(folders)} checkpoints can be used: mend one, choose another run.dir, or "
            "throw the run away with resume=never overwrite=true"
        )
    return None


def rotate(run_dir: Path, keep: int, newest: float = math.inf, spare: Collection[int] = ()) -> None:
    """Delete the oldest complete checkpoints, so that `keep` are left; incomplete ones are neither counted nor touched.

    Args:
        newest: the step saved last; checkpoints of later steps are not counted either.
        spare: steps whose checkpoints are not deleted, be they beyond the last `keep`.

    Raises:
        CheckpointError: `keep` is below 1, or a folder cannot be deleted.
    """
    if keep < 1:
        raise CheckpointError(f"save_total_limit={keep}: keep at least 1 checkpoint, or None for all")
    complete = [
        folder
        for folder in _checkpoints(run_dir)
        if _named_step(folder) <= newest and verify(folder, contents=False) is None
    ]
    for folder in complete[:-keep]:
        if _named_step(folder) not in spare:
            _delete(folder)


def steps(run_dir: Path) -> list[int]:
    """The steps that folders of a run are named by, complete or not."""
    return [_named_step(folder) for folder in _checkpoints(run_dir)]


def discard_after(run_dir: Path, step: int, aside: Path | None = None) -> None:
    """Delete the checkpoints of later steps, or move them into the folder `aside`, so that no run goes on from them.

    The last one goes first: whenever the process dies, what is left grew from what is left.

    Raises:
        CheckpointError: a folder cannot be deleted or moved.
    """
    for folder in reversed(_checkpoints(run_dir)):
        if _named_step(folder) > step:
            if aside is None:
                _delete(folder)
            else:
                with saving(aside):
                    os.rename(folder, aside / folder.name)


def _delete(folder: Path) -> None:
    with saving(folder):
        doomed = folder.with_name(_DELETED + folder.name)
        remove(doomed)
        os.rename(folder, doomed)  # first, so that a half-deleted folder is never taken for a checkpoint
        remove(doomed)


def clean_staging(run_dir: Path) -> None:
    """Remove what killed saves and deletions left behind; call it on one rank, while nothing is being saved.

    Raises:
        CheckpointError: a leftover cannot be removed.
    """
    run_dir = Path(run_dir)
    with saving(run_dir):
        for aside in run_dir.glob(f"{REPLACED}*"):
            final = run_dir / aside.name.removeprefix(REPLACED)
            if not final.exists() and (verify(aside) is None or not _NAME.fullmatch(final.name)):
                os.rename(aside, final)
        for leftover in [staging_dir(run_dir), *run_dir.glob(f"{REPLACED}*"), *run_dir.glob(f"{_DELETED}*")]:
            remove(leftover)


def _checkpoints(run_dir: Path) -> list[Path]:
    """The folders named checkpoint-<step>, by step."""
    names = os.listdir(run_dir) if Path(run_dir).is_dir() else []
    return sorted((Path(run_dir) / name for name in names if _NAME.fullmatch(name)), key=_named_step)


def _named_step(folder: Path) -> int:
    return int(folder.name.removeprefix("checkpoint-"))


def _manifest(folder: Path) -> dict[str, Any]:
    return unseal((folder / MANIFEST_FILE).read_bytes())


def _entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_checksum(path)}


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
    if contents and file_checksum(path) != entry["sha256"]:
        return f"{name} does not match its checksum"
    unread = unreadable(path) if contents else None
    return f"{name} cannot be read, {unread}" if unread else None
