"""What vLLM on a CPU needs to follow a trainer; vLLM loads `register` in each of its processes, as a plug-in.

Its linear layers pack their weights where `load_weights` cannot reach them, so plain ones take their place. Server mode
knows no way for weights but NCCL and CUDA's, so they travel in a file here; every HTTP end point is the real one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)

BACKEND = "file"
SECONDS = 60


def register() -> None:
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
    from vllm.model_executor.layers import utils

    utils.dispatch_cpu_unquantized_gemm = plain_linear
    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(BACKEND, FileEngine)


def plain_linear(layer: Any, remove_weight: bool) -> None:
    layer.cpu_linear = torch.nn.functional.linear


class Sender:
    """The trainer's side: a file for each update, numbered from 0, which is there at once or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.updates = folder, 0

    def send(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        partial = self.folder / "part"
        save_file({name: weight.detach().contiguous().clone() for name, weight in weights}, partial)
        partial.rename(self.folder / str(self.updates))
        self.updates += 1


@dataclass
class InitInfo(WeightTransferInitInfo):
    folder: str


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):
    names: list[str]
    dtype_names: list[str]
    shapes: list[list[int]]


class FileEngine(WeightTransferEngine[InitInfo, UpdateInfo]):
    init_info_cls, update_info_cls = InitInfo, UpdateInfo

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        self.folder, self.updates = Path(init_info.folder), 0

    def start_weight_update(self) -> None:
        pass

    def finish_weight_update(self) -> None:
        pass

    def update_weights(self, update_info: dict[str, Any]) -> None:
        told = self.parse_update_info(update_info)
        path, deadline = self.folder / str(self.updates), time.monotonic() + SECONDS
        while not path.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path}: no weights within {SECONDS} s")
            time.sleep(0.01)
        weights, self.updates = load_file(path), self.updates + 1
        shapes = dict(zip(told.names, map(tuple, told.shapes), strict=True))
        assert {name: tuple(weight.shape) for name, weight in weights.items()} == shapes
        self.model.load_weights(list(weights.items()))

    def receive_weights(self, update_info: UpdateInfo) -> None:
        raise NotImplementedError

    def shutdown(self) -> None:
        pass
