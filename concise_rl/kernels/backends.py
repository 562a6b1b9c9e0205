"""Which code folds the tiles, and how large they are.

- `reference`: plain torch with logits in memory; the specification.
- `blocked`: plain torch on cache-sized tiles; any device.
- `triton`: CUDA; tiles folded by Triton, and a fused forward where no gradient follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from concise_rl.errors import UserError
from concise_rl.kernels.tiles import Fold, Projection, Statistics, TileShape, sweep_statistics
from concise_rl.kernels.torch_fold import TorchFold

BACKENDS = ("auto", "reference", "blocked", "triton")

CPU_TILE = TileShape(rows=1024, columns=1024)
"""4 MB of float32: in a shared last-level cache with its two spare copies. Half the rows cost the products a fifth more
time, twice the columns cost the folds as much (measured: `benchmarks/logprob.py`)."""

CUDA_TILE = TileShape(rows=4096, columns=16384)
"""256 MB of float32. Tiles of 32 MB stay in the L2 of an H100 and cost up to 1.7 times as much: at a small hidden size
the host cannot launch kernels as fast as they end (measured: `benchmarks/logprob_cuda.py --sweep`)."""

STRIP_BYTES = {"cpu": 512 << 20, "cuda": 1 << 30}
"""`linear_policy_loss` keeps the logits of a strip of rows over the whole vocabulary: as many rows as a tile, or fewer.
Every strip reads and writes the gradient of the whole head, so few rows cost more than they save."""


@dataclass(frozen=True)
class Backend:
    """A fold and the memory it may use.

    Attributes:
        name: of `BACKENDS`, `auto` resolved.
        fold: makes one.
        shape: of a tile.
        strip_bytes: of one strip of `linear_policy_loss`.
        scale_hidden: whether scales are better multiplied into the hidden states than into the tiles. Half-precision
            hidden states must stay as they are where tensor cores read them.
    """

    name: str
    fold: Callable[[], Fold]
    shape: TileShape
    strip_bytes: int
    scale_hidden: bool

    def statistics(self, projection: Projection, *, entropy: bool, gradient_follows: bool) -> Statistics:
        """One pass over the vocabulary."""
        if self.name == "triton" and not gradient_follows:
            from concise_rl.kernels import triton_forward

            if triton_forward.supports(projection):
                return triton_forward.statistics(projection, entropy=entropy)
        return sweep_statistics(projection, self.fold(), self.shape, entropy=entropy)


def choose(name: str, device: torch.device, workspace_mb: float | None) -> Backend:
    """The backend by name; `auto` is `triton` on CUDA and `blocked` elsewhere.

    Raises:
        UserError: no such backend, Triton missing, or `triton` on another device than CUDA.
    """
    if name not in BACKENDS:
        raise UserError(f"backend={name!r} is not known: choose from {', '.join(BACKENDS)}")
    if name == "auto":
        name = "triton" if device.type == "cuda" and _has_triton() else "blocked"
    on_cuda = device.type == "cuda"
    shape = CUDA_TILE if on_cuda else CPU_TILE
    strip_bytes = STRIP_BYTES["cuda" if on_cuda else "cpu"]
    if workspace_mb is not None:
        row_mb = 3 * 4 * shape.columns / 2**20  # a fold keeps up to two spare copies of the tile
        rows = int(workspace_mb / row_mb)
        if rows < 1:
            raise UserError(f"workspace_mb={workspace_mb:g}: one row of a tile needs {row_mb:g} MB")
        shape, strip_bytes = TileShape(min(rows, shape.rows), shape.columns), int(workspace_mb * 2**20)
    if name == "triton":
        if not _has_triton():
            raise UserError("backend='triton' needs the package triton: pip install triton, or use backend='blocked'")
        from concise_rl.kernels.triton_fold import TritonFold, runs_on

        if not runs_on(device):
            raise UserError(f"backend='triton' runs on CUDA, not on {device.type}: use backend='blocked'")
        return Backend(name, TritonFold, shape, strip_bytes, scale_hidden=False)
    return Backend(name, TorchFold, shape, strip_bytes, scale_hidden=not on_cuda)


def _has_triton() -> bool:
    import importlib.util

    return importlib.util.find_spec("triton") is not None
