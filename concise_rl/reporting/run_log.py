"""A run folder: metrics.jsonl and rollouts.jsonl, a line a step; validation.jsonl; config.json and summary.json."""

from __future__ import annotations

import base64
import json
import math
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from concise_rl.batch import FIELDS, RolloutBatch
from concise_rl.errors import DataError, UserError
from concise_rl.files import append_lines, replace_text

if TYPE_CHECKING:
    from concise_rl.rollouts import StepRecord

METRICS_FILE = "metrics.jsonl"
ROLLOUTS_FILE = "rollouts.jsonl"
VALIDATION_FILE = "validation.jsonl"
CONFIG_FILE = "config.json"
SUMMARY_FILE = "summary.json"

_TOKEN_FIELDS = tuple(name for name, known in FIELDS.items() if known.axes == "NT")
_ROW_FIELDS = tuple(name for name in FIELDS if name not in _TOKEN_FIELDS)


@dataclass(frozen=True)
class StoredStep:
    """One line of rollouts.jsonl: a step as `StepRecord` had it, without its metrics.

    Attributes:
        step: optimizer steps taken once this batch is trained on, `batch.step + 1`.
        batch: what was scored.
        reward: (N,) float64, shaped.
        credit: (N,) float64, or (N, T) in its own type.
        prompts: (P,) texts.
        completions: (N,) texts.
        finishes: (N,) how each completion ended.
    """

    step: int
    batch: RolloutBatch
    reward: Tensor
    credit: Tensor
    prompts: list[str]
    completions: list[str]
    finishes: list[str] = field(default_factory=list)


class RunLog:
    """Writes a run folder; made on the main process alone.

    A line is numbered by the optimizer steps taken once it is trained on, `batch.step + 1` for rollouts, so a
    checkpoint saved after step s goes with the lines up to s. Lines are appended whole: one that does not fit on the
    disk is taken back.

    Args:
        folder: made if absent.
        every: store the rollouts of the steps 1, 1 + every, 1 + 2 every, ...; 0 stores none. Metrics go out each step.

    Raises:
        UserError: the folder cannot be written, or a later write fails (full disk); what was written stays intact.
    """

    def __init__(self, folder: str | Path, *, every: int = 1) -> None:
        if every < 0:
            raise UserError(f"rollouts every={every}: give 1 for each step, k for each k-th, 0 for none")
        self.folder = Path(folder)
        self.every = every
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name in (METRICS_FILE, ROLLOUTS_FILE):
                append_lines(self.folder / name, "", go_on_with="start again")
        except OSError as error:
            raise UserError(
                f"output folder {str(self.folder)!r} cannot be written ({error.strerror}): choose another one"
            ) from error

    def on_rollouts(self, record: StepRecord) -> None:
        """Append a generation to rollouts.jsonl."""
        if self.every and record.batch.step % self.every == 0:
            _append(self.folder / ROLLOUTS_FILE, step_to_json(record))

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append an optimizer step, counted from 1, to metrics.jsonl."""
        values = {name: plain(float(value)) for name, value in metrics.items()}
        _append(self.folder / METRICS_FILE, {"step": step, "time": time.time()} | values)

    def on_validation(self, entry: Mapping[str, Any]) -> None:
        """Append an evaluation in training, `concise_rl.evaluation.validation.entry_of`, to validation.jsonl."""
        _append(self.folder / VALIDATION_FILE, plain(entry))

    def truncate_after(self, step: int) -> None:
        """Forget all lines of steps after `step`, and a torn last line; 0 leaves no training step.

        The cut shortens the file in place: it is atomic, copies nothing and works on a full disk.

        Raises:
            DataError: a damaged line that is not the last one.
        """
        for name in (METRICS_FILE, ROLLOUTS_FILE, VALIDATION_FILE):
            path = self.folder / name
            if not path.exists():
                continue
            keep = 0
            with path.open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    try:
                        content = _parse(line, path, number)
                    except DataError:
                        if lines.read(1):
                            raise
                        break
                    if content["step"] > step:
                        break
                    keep += len(line)
            os.truncate(path, keep)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Replace config.json."""
        replace_text(self.folder / CONFIG_FILE, to_json(config))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Replace summary.json."""
        replace_text(self.folder / SUMMARY_FILE, to_json(summary))


def read_metrics(folder: str | Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl, each `{"step", "time", metric: value}`; a value that was not finite is nan.

    Raises:
        DataError: no such file, or a damaged line, named.
    """
    path = Path(folder) / METRICS_FILE
    return [{name: math.nan if v is None else v for name, v in line.items()} for _, line in _lines(path)]


def read_validation(folder: str | Path) -> list[dict[str, Any]]:
    """The evaluations of a run while it trained, each an entry of `concise_rl.evaluation.validation`; mostly none.

    Raises:
        DataError: a damaged line, named.
    """
    path = Path(folder) / VALIDATION_FILE
    return [line for _, line in _lines(path)] if path.exists() else []


def read_rollouts(folder: str | Path) -> Iterator[StoredStep]:
    """The steps of rollouts.jsonl, one at a time.

    Raises:
        DataError: no such file, or a damaged line, named.
    """
    path = Path(folder) / ROLLOUTS_FILE
    for number, line in _lines(path):
        if "prompt_ids" in line.get("batch", {}):
            raise DataError(f"{path} was written by an earlier concise_rl: train the run again to replay it")
        try:
            step = step_from_json(line)
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path, number, f"{type(error).__name__}: {error}") from error
        yield step


def read_summary(folder: str | Path) -> dict[str, Any]:
    """summary.json.

    Raises:
        DataError: no such file, or not JSON.
    """
    return _read_json(Path(folder) / SUMMARY_FILE)


def read_config(folder: str | Path) -> dict[str, Any]:
    """config.json.

    Raises:
        DataError: no such file, or not JSON.
    """
    return _read_json(Path(folder) / CONFIG_FILE)


def step_to_json(record: StepRecord | StoredStep) -> dict[str, Any]:
    """A step as JSON values, replayable."""
    return {
        "step": record.batch.step + 1,
        "batch": batch_to_json(record.batch),
        "reward": plain(record.reward.double()),
        "credit": plain(record.credit.double()) if record.credit.ndim == 1 else _ragged(record.credit, record.batch),
        "prompts": list(record.prompts),
        "completions": list(record.completions),
        "finishes": list(record.finishes),
    }


def step_from_json(line: Mapping[str, Any]) -> StoredStep:
    """The inverse of `step_to_json`; a number that was not finite is nan."""
    batch = batch_from_json(line["batch"])
    credit = line["credit"]
    return StoredStep(
        step=line["step"],
        batch=batch,
        reward=_floats(line["reward"]),
        credit=_padded(credit) if isinstance(credit, Mapping) else _floats(credit),
        prompts=line["prompts"],
        completions=line["completions"],
        finishes=line["finishes"],
    )


def batch_to_json(batch: RolloutBatch) -> dict[str, Any]:
    """A batch as JSON values: (N,) fields are lists, (N, T) fields packed a row without padding, absent ones left out.

    The inverse is exact, bit for bit: a float64 is written as its shortest decimal that reads back as itself.
    """
    content: dict[str, Any] = {"prompt_keys": list(batch.prompt_keys), "group_size": batch.group_size}
    content["step"] = batch.step
    content |= {name: getattr(batch, name).tolist() for name in _ROW_FIELDS if getattr(batch, name) is not None}
    content |= {
        name: _ragged(getattr(batch, name), batch) for name in _TOKEN_FIELDS if getattr(batch, name) is not None
    }
    content["parts"] = {name: part.tolist() for name, part in batch.parts.items()}
    content["costs"] = {name: cost.tolist() for name, cost in batch.costs.items()}
    content["columns"] = {name: [plain(value) for value in values] for name, values in batch.columns.items()}
    return content


def batch_from_json(content: Mapping[str, Any]) -> RolloutBatch:
    """The inverse of `batch_to_json`.

    Raises:
        KeyError, TypeError, ValueError: the content is not a batch.
    """
    # As tensors from the start: `RolloutBatch.of` would read a list of floats in torch's default float32.
    decoded = {name: _padded(content[name]) for name in _TOKEN_FIELDS if name in content}
    floats = [name for name in _ROW_FIELDS if FIELDS[name].dtype is torch.float64 and name in content]
    decoded |= {name: _floats(content[name]) for name in floats}
    for kind in ("parts", "costs"):
        decoded[kind] = {name: _floats(values) for name, values in content[kind].items()}
    return RolloutBatch.of(**{**content, **decoded})


def _floats(values: list[float | None]) -> Tensor:
    return torch.tensor([math.nan if v is None else v for v in values], dtype=torch.float64)


def _ragged(values: Tensor, batch: RolloutBatch) -> dict[str, Any]:
    """(N, T) as a text a row: little-endian floats, cut at the row's length unless its padding is not 0, zlib, base64.

    Decimals would be over twice as large and over twenty times as slow to write. Credit, which is mostly one number
    over a phase, packs to a hundredth; float32 signals lose the few per cent that their exponents repeat.
    """
    dtype = "<f4" if values.dtype == torch.float32 else "<f8"
    array = values.detach().cpu().to(torch.promote_types(values.dtype, torch.float32)).numpy().astype(dtype)
    used = [n if not row[n:].any() else len(row) for row, n in zip(array, batch.lengths.tolist(), strict=True)]
    packed = [zlib.compress(row[:n].tobytes(), level=1) for row, n in zip(array, used, strict=True)]
    rows = [base64.b64encode(row).decode("ascii") for row in packed]
    return {"dtype": array.dtype.str, "width": array.shape[1], "packed": "zlib", "rows": rows}


def _padded(content: Mapping[str, Any]) -> Tensor:
    if content["dtype"] not in ("<f4", "<f8"):
        raise ValueError(f"dtype {content['dtype']!r} is neither <f4 nor <f8")
    values = np.zeros((len(content["rows"]), content["width"]), dtype=content["dtype"])
    for n, row in enumerate(content["rows"]):
        written = base64.b64decode(row, validate=True)
        if content.get("packed") == "zlib":  # earlier versions wrote the floats as they are
            written = _unpacked(written, values[n].nbytes)
        numbers = np.frombuffer(written, dtype=values.dtype)
        values[n, : len(numbers)] = numbers
    return torch.from_numpy(values)


def _unpacked(packed: bytes, most: int) -> bytes:
    """The content of a whole zlib stream, never more than it may have."""
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(packed, most + 1)
    except zlib.error as error:
        raise ValueError(f"not zlib: {error}") from error
    if not stream.eof or len(found) > most:
        raise ValueError(f"a row of more than {most} bytes, or a torn one")
    return found


def plain(value: Any) -> Any:
    """JSON values only: arrays as lists, paths and other objects as text, a float that is not finite as None."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return plain(value.tolist()) if hasattr(value, "tolist") else str(value)


def _append(path: Path, content: Mapping[str, Any]) -> None:
    """One line of plain values, whole or not at all."""
    append_lines(path, json.dumps(content, allow_nan=False) + "\n", go_on_with="go on with resume=auto")


def to_json(content: Mapping[str, Any]) -> str:
    """Readable JSON of anything that `plain` takes."""
    return json.dumps(plain(content), indent=2, allow_nan=False) + "\n"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}): name the folder of a finished run") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}): it was changed by hand or by another program") from error


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield number, _parse(line, path, number)
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}): name the folder of a run") from error


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, number, str(error)) from error
    if not line.endswith(b"\n") or not isinstance(content, dict) or not isinstance(content.get("step"), int):
        raise _damaged(path, number, "not a whole line with a step")
    return content


def _damaged(path: Path, number: int, reason: str) -> DataError:
    return DataError(f"{path}, line {number} is damaged ({reason}): delete that line")
