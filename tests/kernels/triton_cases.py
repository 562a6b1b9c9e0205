"""The Triton kernels against float64; run by `test_triton.py` under the interpreter, or by hand on a GPU:

    python -m pytest tests/kernels/triton_cases.py

An error counts against plain torch's own: the same inputs, logits in float32 and in memory (`backend="reference"`).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from concise_rl.kernels import linear_logprob, linear_policy_loss, triton_fold, triton_forward
from concise_rl.kernels.tiles import (
    Projection,
    Statistics,
    TileShape,
    Upstream,
    sweep_gradients,
    sweep_statistics,
)
from concise_rl.kernels.torch_fold import TorchFold
from concise_rl.kernels.triton_common import INTERPRETED
from concise_rl.kernels.triton_fold import TritonFold

DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
pytestmark = [
    pytest.mark.skipif(
        not INTERPRETED and not torch.cuda.is_available(), reason="no GPU: TRITON_INTERPRET=1 runs these on the CPU"
    ),
    pytest.mark.filterwarnings("ignore:overflow encountered in exp"),  # in columns that are not stored
]

ROWS, HIDDEN, VOCABULARY = 130, 576, 1000 + 151_936 % 1024  # none a multiple of a block; Qwen's remainder
AS_WRONG_AS_TORCH = 2.0
"""Most of the kernels' largest error as a multiple of plain torch's largest."""


@pytest.fixture(autouse=True)
def _few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter pays for each program, hardly for its size."""
    if INTERPRETED:
        monkeypatch.setitem(triton_fold.BLOCK, "ROWS", 32)


def _inputs(dtype: torch.dtype, hidden_size: int = HIDDEN) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(ROWS, hidden_size, generator=generator)
    weight = torch.randn(VOCABULARY, hidden_size, generator=generator) * 3 / hidden_size**0.5
    targets = torch.randint(VOCABULARY, (ROWS,), generator=generator)
    targets[[0, 1, 2]] = torch.tensor([-100, 0, VOCABULARY - 1])
    return hidden.to(DEVICE, dtype), weight.to(DEVICE, dtype), targets.to(DEVICE)


def _everything(dtype: torch.dtype) -> dict[str, Any]:
    """Options that between them use every branch of a kernel."""
    generator = torch.Generator().manual_seed(1)
    return {
        "bias": torch.randn(2 * VOCABULARY, generator=generator).to(DEVICE, dtype)[::2],  # no kernel sees the gaps
        "temperature": (0.5 + torch.rand(ROWS, generator=generator)).to(DEVICE),
        "mask": (torch.rand(ROWS, generator=generator) > 0.2).to(DEVICE),
        "softcap": 5.0,
        "logit_scale": 0.7,
    }


def _forward(
    inputs: tuple[Tensor, Tensor, Tensor], options: dict[str, Any], backend: str, dtype: torch.dtype | None = None
) -> list[Tensor]:
    hidden, weight, targets = inputs
    options = dict(options)
    if dtype is not None:
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        if "bias" in options:
            options["bias"] = options["bias"].to(dtype)
    with torch.no_grad():
        return list(linear_logprob(hidden, weight, targets, entropy="grad", backend=backend, **options))


def _differentiated(
    inputs: tuple[Tensor, Tensor, Tensor], options: dict[str, Any], backend: str, dtype: torch.dtype
) -> list[Tensor]:
    """Outputs, and gradients of a loss of all of them."""
    hidden, weight = (tensor.detach().to(dtype, copy=True).requires_grad_() for tensor in inputs[:2])
    leaves, options = [hidden, weight], dict(options)
    if "bias" in options:
        options["bias"] = options["bias"].detach().to(dtype, copy=True).requires_grad_()
        leaves.append(options["bias"])
    outputs = linear_logprob(hidden, weight, inputs[2], entropy="grad", backend=backend, **options)
    ramp = torch.linspace(-1, 1, ROWS, device=DEVICE, dtype=dtype)
    (outputs.logprob * ramp + outputs.entropy * ramp.flip(0) + 0.1 * outputs.lse).sum().backward()
    return [*(output.detach() for output in outputs), *(leaf.grad for leaf in leaves)]


def _assert_as_exact_as_torch(found: list[Tensor], plain: list[Tensor], truth: list[Tensor]) -> None:
    for place, (mine, theirs, exact) in enumerate(zip(found, plain, truth, strict=True)):
        assert exact.abs().max() > 1e-3
        allowed = AS_WRONG_AS_TORCH * (theirs.double() - exact).abs().max()
        worst = (mine.double() - exact).abs().max()
        assert worst <= allowed, f"value {place}: off by {worst:.2e}, plain torch by {allowed / AS_WRONG_AS_TORCH:.2e}"


@pytest.mark.parametrize("everything", [False, True])
def test_the_fold_is_the_formula(everything: bool) -> None:
    """Float64 leaves no rounding to hide behind: forward and backward, several tiles either way."""
    inputs, options = _inputs(torch.float64), _everything(torch.float64) if everything else {}
    truth = _differentiated(inputs, options, "reference", torch.float64)
    found = _differentiated(inputs, {**options, "workspace_mb": 0.6}, "triton", torch.float64)
    for mine, exact in zip(found, truth, strict=True):
        assert torch.allclose(mine, exact, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("everything", [False, True])
def test_the_fold_in_float32(everything: bool) -> None:
    inputs, options = _inputs(torch.float32), _everything(torch.float32) if everything else {}
    _assert_as_exact_as_torch(
        _differentiated(inputs, options, "triton", torch.float32),
        _differentiated(inputs, options, "reference", torch.float32),
        _differentiated(inputs, options, "reference", torch.float64),
    )


@pytest.mark.parametrize(
    ("dtype", "hidden_size", "everything", "described"),
    [
        (torch.bfloat16, HIDDEN, False, True),
        (torch.bfloat16, HIDDEN + 16, True, True),
        (torch.float16, HIDDEN + 16, True, False),
    ],
)
def test_the_fused_forward(
    dtype: torch.dtype, hidden_size: int, everything: bool, described: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operands through descriptors, as from sm_90 on, and through pointers, as before."""
    inputs, options = _inputs(dtype, hidden_size), _everything(dtype) if everything else {}
    plain = _forward(inputs, options, "reference", torch.float32)
    if not INTERPRETED:  # tensor cores add less exactly than float32 does: cuBLAS, on the same ones, is the measure
        with monkeypatch.context() as swept:
            swept.setattr(triton_forward, "supports", lambda _: False)
            plain = _forward(inputs, options, "triton")
    monkeypatch.setattr(TritonFold, "statistics", None)  # the sweep must not be what answers
    if not described:
        monkeypatch.setattr(triton_forward, "_hardware", lambda _: (triton_forward.POINTERS, False, 1))
    for trained in inputs[:2]:
        trained.requires_grad_()  # old log-probs are those of weights that are trained
    _assert_as_exact_as_torch(
        _forward(inputs, options, "triton"), plain, _forward(inputs, options, "reference", torch.float64)
    )


def test_the_sweep_answers_where_the_fused_forward_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of 577 bfloat16 are not aligned; float32 has no exact tensor cores."""
    monkeypatch.setattr(triton_forward, "statistics", None)
    for inputs in (_inputs(torch.bfloat16, HIDDEN + 1), _inputs(torch.float32)):
        found = _forward(inputs, {}, "triton")
        truth = _forward(inputs, {}, "reference", torch.float64)
        assert all(torch.allclose(*pair, atol=1e-5) for pair in zip((x.double() for x in found), truth, strict=True))


def test_every_block_of_the_fused_forward_is_visited_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits all alike: sums of exp count columns, in a grid with a last group, stretch and block that are not full."""
    monkeypatch.setattr(triton_forward, "ROW_GROUP", 2)
    monkeypatch.setattr(triton_forward, "MOST_BLOCKS", 4)
    rows, columns = 2 * 256 + 1, 700
    found = triton_forward.statistics(
        Projection(
            torch.zeros(rows, 16, dtype=torch.bfloat16, device=DEVICE),
            torch.ones(columns, 16, dtype=torch.bfloat16, device=DEVICE),
            torch.arange(columns, device=DEVICE, dtype=torch.float32) * 2.0**-8,
            torch.arange(rows, device=DEVICE),
            None,
            None,
        ),
        entropy=True,
    )
    bias_V = torch.arange(columns, dtype=torch.float64) * 2.0**-8
    assert torch.equal(found.max_N.cpu().double(), bias_V[-1].expand(rows))
    assert torch.equal(found.target_logit_N.cpu().double(), bias_V[:rows])
    assert torch.allclose(found.lse_N.cpu().double(), bias_V.logsumexp(0).expand(rows), rtol=1e-6)
    assert torch.allclose(
        found.entropy_N.cpu().double(), torch.distributions.Categorical(logits=bias_V).entropy().expand(rows), rtol=1e-6
    )


@pytest.mark.parametrize("offset", [-10_000.0, 10_000.0, 0.0])
@pytest.mark.parametrize("fused", [False, True])
def test_large_logits_cost_no_digits(offset: float, fused: bool) -> None:
    """Logits of 1e4 that float32 holds exactly: all that is left is the fold's own error, gradient included."""
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randint(-2, 3, (ROWS, 16), generator=generator).to(DEVICE, torch.bfloat16)
    weight = (torch.randint(-8, 9, (VOCABULARY, 16), generator=generator) / 8).to(DEVICE, torch.bfloat16)
    hidden[:, 0], weight[:, 0] = 100.0, offset / 100.0
    targets = torch.randint(VOCABULARY, (ROWS,), generator=generator).to(DEVICE)
    inputs = (hidden, weight, targets)
    if fused:
        found, truth = _forward(inputs, {}, "triton"), _forward(inputs, {}, "reference", torch.float64)
    else:
        found = _differentiated(inputs, {}, "triton", torch.float32)
        truth = _differentiated(inputs, {}, "reference", torch.float64)
        for gradient in (*found[3:], *truth[3:]):
            gradient[:, 0] /= 100.0
    for mine, exact in zip(found, truth, strict=True):
        assert torch.allclose(mine.double(), exact, rtol=1e-6, atol=5e-6)


class _Guarded:
    """A copy of a tensor amid NaN, and whether anything wrote outside it."""

    def __init__(self, tensor: Tensor, margin: int = 4096) -> None:
        size = tensor.numel()
        self.memory = torch.full((size + 2 * margin,), torch.nan, dtype=tensor.dtype, device=tensor.device)
        self.view = self.memory[margin : margin + size].view(tensor.shape).copy_(tensor)
        self.margins = (self.memory[:margin], self.memory[margin + size :])

    def is_intact(self) -> bool:
        return all(bool(margin.isnan().all()) for margin in self.margins)


def test_the_fold_keeps_to_its_memory() -> None:
    rows, columns, first_column = 37, 1500, 300
    generator = torch.Generator().manual_seed(3)

    def guarded(*shape: int) -> _Guarded:
        return _Guarded(torch.rand(*shape, generator=generator).to(DEVICE) + 0.5)

    tile, bias, pre, post = guarded(rows, columns), guarded(first_column + columns), guarded(rows), guarded(rows)
    target_n = torch.randint(first_column + columns, (rows,), generator=generator).to(DEVICE)
    hidden_nH = torch.zeros(rows, 1, device=DEVICE)
    weight_VH = torch.zeros(first_column + columns, 1, device=DEVICE)
    projection = Projection(hidden_nH, weight_VH, bias.view, target_n, pre.view, post.view)

    running = [*(guarded(rows) for _ in range(3)), _Guarded(torch.zeros(rows, device=DEVICE))]
    expected = Statistics(*(one.view.clone() for one in running))
    tile_nv = tile.view.clone()
    TritonFold().statistics(tile.view, projection, Statistics(*(one.view for one in running)), 300, entropy=True)
    TorchFold().statistics(tile_nv.clone(), projection, expected, first_column, entropy=True)
    assert torch.equal(tile.view, tile_nv)  # the tile stays as it is
    for mine, theirs in zip(running, vars(expected).values(), strict=True):
        assert torch.allclose(mine.view, theirs, rtol=1e-5)

    upstream = [guarded(rows) for _ in range(4)]
    half = _Guarded(torch.zeros(rows, columns, dtype=torch.bfloat16, device=DEVICE))
    triton_fold.write_gradient(half.view, tile.view, projection, Upstream(*(one.view for one in upstream)), 300)
    found = TritonFold().gradient(tile.view, projection, Upstream(*(one.view for one in upstream)), first_column)
    expected_nv = TorchFold().gradient(tile_nv, projection, Upstream(*(one.view for one in upstream)), first_column)
    assert found.data_ptr() == tile.view.data_ptr()  # float32 products read it where it lay
    assert torch.allclose(found, expected_nv, rtol=1e-4, atol=1e-5)
    assert torch.allclose(half.view.float(), found, rtol=2.0**-7)  # the interpreter cuts where a GPU rounds
    assert all(one.is_intact() for one in (tile, bias, pre, post, half, *running, *upstream))


def test_the_fused_forward_reads_its_operands_alone() -> None:
    """Rows of hidden states and head lie amid NaN, before, behind and beside."""
    hidden, weight, targets = _inputs(torch.bfloat16)
    wide = [
        torch.full((len(one) + 300, HIDDEN + 64), torch.nan, dtype=one.dtype, device=DEVICE) for one in (hidden, weight)
    ]
    views = [memory[150:-150, 32:-32].copy_(one) for memory, one in zip(wide, (hidden, weight), strict=True)]
    bias = _Guarded(_everything(torch.float32)["bias"])
    found = _forward((*views, targets), {"bias": bias.view}, "triton")
    assert all(
        torch.equal(*pair)
        for pair in zip(found, _forward((hidden, weight, targets), {"bias": bias.view.clone()}, "triton"), strict=True)
    )
    assert not any(one.isnan().any() for one in found)


@pytest.mark.parametrize("fused", [False, True])
def test_shards_of_the_vocabulary_make_the_whole(fused: bool) -> None:
    """Three shards of unlike size; a target is in one of them, -1 in the others."""
    dtype = torch.bfloat16 if fused else torch.float32
    hidden, weight, targets = _inputs(dtype)
    targets = targets.clamp(min=0)
    bounds = [0, 5, 700, VOCABULARY]
    shards = []
    for start, stop in pairwise(bounds):
        inside = (targets >= start) & (targets < stop)
        local_N = torch.where(inside, targets - start, -1)
        shards.append(Projection(hidden, weight[start:stop], None, local_N, None, None))
    shape = TileShape(64, 512)
    if fused:
        assert all(triton_forward.supports(shard) for shard in shards)
        parts = [triton_forward.statistics(shard, entropy=True) for shard in shards]
    else:
        parts = [sweep_statistics(shard, TritonFold(), shape, entropy=True) for shard in shards]
    whole = triton_forward.merge(Statistics(*map(torch.stack, zip(*(vars(p).values() for p in parts), strict=True))))
    truth = _differentiated((hidden, weight, targets), {}, "reference", torch.float64)
    for mine, exact in zip((whole.logprob_N, whole.entropy_N, whole.lse_N), truth, strict=False):
        assert torch.allclose(mine.double(), exact, atol=1e-5)
    if fused:
        return
    ramp = torch.linspace(-1, 1, ROWS, device=DEVICE)
    upstream = Upstream.of(whole, ramp, ramp.flip(0), torch.full_like(ramp, 0.1))
    found = [sweep_gradients(s, TritonFold(), shape, upstream, hidden=True, weight=True, bias=False) for s in shards]
    assert torch.allclose(sum(one.hidden_NH for one in found).double(), truth[3], atol=1e-5)
    assert torch.allclose(torch.cat([one.weight_VH for one in found]).double(), truth[4], atol=1e-5)


def test_no_rows() -> None:
    hidden, weight, targets = _inputs(torch.bfloat16)
    weight.requires_grad_()
    outputs = linear_logprob(hidden, weight, torch.full_like(targets, -100), entropy="grad", backend="triton")
    sum(output.sum() for output in outputs).backward()
    assert not any(bool(output.any()) for output in outputs)
    assert not bool(weight.grad.any())


def test_a_policy_loss_in_one_sweep() -> None:
    """Clipped ratio, and an entropy bonus, of rows that are masked in part."""
    inputs, options = _inputs(torch.float32), _everything(torch.float32)
    old_N = torch.linspace(-9, -5, ROWS, device=DEVICE)
    advantage_N = torch.linspace(-1, 1, ROWS, device=DEVICE)

    def run(backend: str, dtype: torch.dtype) -> list[Tensor]:
        def loss(logprob_n: Tensor, entropy_n: Tensor | None, rows_n: Tensor) -> Tensor:
            ratio_n = (logprob_n - old_N[rows_n]).exp()
            gain_n = torch.minimum(ratio_n * advantage_N[rows_n], ratio_n.clamp(0.8, 1.2) * advantage_N[rows_n])
            return -gain_n - 0.01 * entropy_n

        hidden, weight = (one.detach().to(dtype, copy=True).requires_grad_() for one in inputs[:2])
        bias = options["bias"].to(dtype, copy=True).requires_grad_()
        total, _ = linear_policy_loss(
            hidden, weight, inputs[2], loss, entropy="grad", backend=backend, **{**options, "bias": bias}
        )
        total.backward()
        return [total.detach(), hidden.grad, weight.grad, bias.grad]

    found, plain, truth = (
        run(*how) for how in (("triton", torch.float32), ("reference", torch.float32), ("reference", torch.float64))
    )
    assert found[0].item() == pytest.approx(truth[0].item(), rel=1e-5)
    _assert_as_exact_as_torch(found[1:], plain[1:], truth[1:])


def test_stretches_cover_the_vocabulary_and_keep_processors_busy() -> None:
    assert triton_forward.stretch_length(row_blocks=64, column_blocks=1187, processors=132) == 32
    assert triton_forward.stretch_length(row_blocks=1, column_blocks=1187, processors=132) == 3
    assert triton_forward.stretch_length(row_blocks=1, column_blocks=7, processors=132) == 1
