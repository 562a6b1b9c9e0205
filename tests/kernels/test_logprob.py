"""Log-probs and policy losses against plain float64, forward and backward, on what has broken such kernels before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from concise_rl.errors import UserError
from concise_rl.kernels import linear_logprob, linear_policy_loss, shards
from concise_rl.kernels.arguments import flatten
from concise_rl.kernels.tiles import Statistics, TileShape, sweep_statistics
from concise_rl.kernels.torch_fold import TorchFold

SIZES = [(7, 5, 11), (130, 48, 1500), (600, 24, 2100)]
"""Rows, hidden size, vocabulary: inside one tile; ragged over two columns of tiles; over two rows of tiles too."""


def exact(
    h: Tensor, w: Tensor, t: Tensor, b: Tensor | None, temperature: Any, mask: Tensor, softcap: Any, scale: float
):
    """Written out in float64, independent of the package."""
    z = h @ w.t() if b is None else h @ w.t() + b
    z = z * scale
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    z = z / (temperature.double()[:, None] if isinstance(temperature, Tensor) else temperature)
    p = z.softmax(1)
    kept = mask & (t >= 0)
    logprob = z.log_softmax(1).gather(1, t.clamp(min=0)[:, None]).squeeze(1)
    return logprob * kept, -(p * z.log_softmax(1)).sum(1) * kept, z.logsumexp(1) * kept


class Case:
    """Random inputs, and upstream gradients for each output."""

    def __init__(self, size: tuple[int, int, int], dtype: torch.dtype, *, bias: bool, temperature: Any = 1.0) -> None:
        n, h, v = size
        torch.manual_seed(n)
        self.h, self.w = (torch.randn(n, h) * 1.5).to(dtype), torch.randn(v, h).to(dtype)
        self.b = torch.randn(v).to(dtype) if bias else None
        self.t = torch.randint(v, (n,))
        self.t[1] = -100
        self.mask = torch.rand(n) > 0.3
        self.temperature = torch.rand(n) + 0.5 if temperature == "per row" else temperature
        self.up = torch.randn(3, n).double()

    def leaves(self, dtype: torch.dtype | None = None) -> list[Tensor | None]:
        made = [None if x is None else x.detach().clone().to(dtype or x.dtype) for x in (self.h, self.w, self.b)]
        return [None if x is None else x.requires_grad_() for x in made]

    def gradients(self, run: Callable[..., Tensor], dtype: torch.dtype | None = None) -> list[Tensor]:
        leaves = self.leaves(dtype)
        run(*leaves).backward()
        return [x.grad.double() for x in leaves if x is not None]


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("softcap", "bias", "temperature"),
    [(None, False, 1.0), (None, False, 0.7), (None, True, "per row"), (8.0, True, 0.7)],
)
@pytest.mark.parametrize("backend", ["reference", "blocked"])
def test_values_and_gradients_are_those_of_float64(dtype, softcap, bias, temperature, backend):
    # bfloat16 inputs: products and sums are float32, and only the returned gradient is rounded.
    value_error, gradient_error = {
        torch.float32: (1e-5, 1e-5),
        torch.bfloat16: (1e-5, 4e-3),
        torch.float64: (1e-12, 1e-12),
    }[dtype]
    for size in SIZES:
        case = Case(size, dtype, bias=bias, temperature=temperature)
        options = {"temperature": case.temperature, "mask": case.mask, "softcap": softcap, "logit_scale": 1.3}

        def ours(h, w, b, case=case, options=options):
            return linear_logprob(h, w, case.t, bias=b, entropy="grad", backend=backend, **options)

        def theirs(h, w, b, case=case):
            return exact(h, w, case.t, b, case.temperature, case.mask, softcap, 1.3)

        def weighed(outputs, case=case):
            return sum((output * up).sum() for output, up in zip(outputs, case.up, strict=True))

        expected = theirs(*case.leaves(torch.float64))
        for found, value in zip(ours(*case.leaves()), expected, strict=True):
            assert relative(found.detach(), value.detach()) < value_error
        wanted = case.gradients(lambda *x: weighed(theirs(*x)), torch.float64)
        for found, value in zip(case.gradients(lambda *x: weighed(ours(*x))), wanted, strict=True):
            assert relative(found, value) < gradient_error

        def policy_loss(outputs, case=case):
            return (outputs[0] * case.up[0]).sum() + (outputs[1] * case.up[1]).sum()

        def one_sweep(h, w, b, case=case, options=options):
            up = case.up

            def token_loss(logprob, entropy, rows):
                return logprob * up[0, rows] + entropy * up[1, rows]

            chosen = options | {"entropy": "grad", "backend": backend, "workspace_mb": 0.5}
            return linear_policy_loss(h, w, case.t, token_loss, bias=b, **chosen)[0]

        wanted = case.gradients(lambda *x: policy_loss(theirs(*x)), torch.float64)
        for found, value in zip(case.gradients(one_sweep), wanted, strict=True):
            assert relative(found, value) < gradient_error


@pytest.mark.parametrize("shift", [-1e4, 0.0, 1e4], ids=["all negative", "plain", "large"])
def test_large_and_all_negative_logits_lose_no_digits(shift):
    """A running maximum that starts at 0 gives NaN here, and an entropy of unshifted sums loses its digits."""
    torch.manual_seed(0)
    h, w, t = torch.randn(40, 16), torch.randn(2100, 16), torch.randint(2100, (40,))
    bias = torch.full((2100,), shift)
    found = linear_logprob(h, w, t, bias=bias, entropy="nograd")
    logits = ((h @ w.t()) + bias).double()  # rounded as any float32 logit of this size is
    assert_close(found.logprob, logits.log_softmax(1).gather(1, t[:, None]).squeeze(1).float(), rtol=0, atol=3e-3)
    p = logits.softmax(1)
    assert_close(found.entropy, -(p * logits.log_softmax(1)).sum(1).float(), rtol=0, atol=3e-3)
    assert (found.logprob <= 0).all()


def test_rows_that_do_not_count_touch_nothing():
    """NaN in a masked row reaches neither outputs nor gradients, so the row was not computed with."""
    h, w, t = torch.randn(5, 4), torch.randn(9, 4).requires_grad_(), torch.tensor([1, -100, 3, 8, 0])
    h[1], h[3] = float("nan"), float("inf")
    h.requires_grad_()
    found = linear_logprob(h, w, t, mask=torch.tensor([1, 1, 1, 0, 1]), entropy="grad")
    (found.logprob.sum() + found.entropy.sum()).backward()
    assert found.logprob[[1, 3]].tolist() == found.entropy[[1, 3]].tolist() == found.lse[[1, 3]].tolist() == [0, 0]
    assert torch.isfinite(w.grad).all()
    assert not h.grad[[1, 3]].any()


@pytest.mark.parametrize("rows", [0, 3])
def test_no_row_that_counts_gives_a_differentiable_zero(rows):
    h, w = torch.randn(rows, 4).requires_grad_(), torch.randn(9, 4).requires_grad_()
    t = torch.full((rows,), -100)
    loss = linear_logprob(h, w, t).logprob.sum() + linear_policy_loss(h, w, t, lambda logprob, *_: logprob)[0]
    loss.backward()
    assert loss == 0
    assert not w.grad.any()
    assert w.grad.shape == w.shape


def test_a_frozen_head_pays_for_no_gradient(monkeypatch):
    h, w, t = torch.randn(6, 4).requires_grad_(), torch.randn(9, 4), torch.randint(9, (6,))
    made = []
    zeros, empty = torch.zeros_like, torch.empty_like
    monkeypatch.setattr(torch, "zeros_like", lambda x, **k: made.append(x.shape) or zeros(x, **k))
    monkeypatch.setattr(torch, "empty_like", lambda x, **k: made.append(x.shape) or empty(x, **k))
    linear_logprob(h, w, t).logprob.sum().backward()
    linear_policy_loss(h, w, t, lambda logprob, *_: logprob)[0].backward()
    assert w.shape not in made


def test_gradcheck():
    case = Case((5, 3, 7), torch.float64, bias=True, temperature="per row")

    def run(h, w, b):
        options = {"bias": b, "temperature": case.temperature, "mask": case.mask, "softcap": 5.0, "entropy": "grad"}
        return linear_logprob(h, w, case.t, backend="blocked", **options)

    assert torch.autograd.gradcheck(run, case.leaves())


def test_half_precision_log_probs_are_exact_where_rounded_logits_are_not():
    """Two tokens share each row's probability at logits near 30, where bfloat16 has a grid of 1/8."""
    torch.manual_seed(0)
    h = torch.randn(64, 256).bfloat16()
    w = (torch.randn(4096, 256) * 0.15).bfloat16()
    w[:64], w[64:128] = (h.float() * 0.12).bfloat16(), (h.float() * 0.1195).bfloat16()
    t = torch.arange(64)
    logits = h.double() @ w.double().t()
    expected = logits.log_softmax(1).gather(1, t[:, None]).squeeze(1)
    assert (linear_logprob(h, w, t).logprob - expected).abs().max() < 1e-5
    rounded = (h @ w.t()).float().log_softmax(1).gather(1, t[:, None]).squeeze(1)
    assert (rounded - expected).abs().max() > 1e-2  # what is avoided


def test_two_shards_of_the_vocabulary_are_one_head(monkeypatch):
    torch.manual_seed(0)
    h, w, t = torch.randn(30, 8), torch.randn(50, 8), torch.randint(50, (30,))
    parts = [(slice(0, 27), 0), (slice(27, 50), 27)]
    options = {"bias": None, "temperature": 1.0, "mask": None, "softcap": None, "logit_scale": 1.0}
    found = []
    for part, start in parts:
        rows = flatten(h, w[part], t, vocab_start=start, group="both", scale_hidden=True, **options)
        found.append(sweep_statistics(rows.projection, TorchFold(), TileShape(16, 10), entropy=True))
    whole = merge_by_hand(found, monkeypatch)
    expected = linear_logprob(h, w, t, entropy="nograd", backend="reference")
    for name in ("logprob", "entropy", "lse"):
        assert_close(getattr(whole, f"{name}_N"), getattr(expected, name))


def merge_by_hand(found: list[Statistics], monkeypatch: Any) -> Statistics:
    """`shards.merged` with both ranks' tensors at hand in place of a process group."""
    largest = torch.maximum(*(s.max_N for s in found))
    sums: list[Tensor] = []

    def reduce(tensor, op=None, group=None):
        if op is not None:
            tensor.copy_(largest)
        else:
            sums.append(tensor.clone())

    monkeypatch.setattr(shards, "all_reduce", reduce)
    for statistics in found:
        shards.merged(statistics, "both")
    return Statistics(largest, *(sums[0] + sums[1]).unbind())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": torch.zeros(2, dtype=torch.long)}, r"hidden \(3, 4\), weight \(9, 4\), targets \(2,\)"),
        ({"targets": torch.tensor([0, 9, 1])}, "targets up to 9 for a head of tokens 0 to 8"),
        ({"temperature": 0.0}, "temperature=0: must be positive"),
        ({"temperature": torch.tensor([1.0, -1.0, 1.0])}, "temperature=-1: must be positive"),
        ({"softcap": -1.0}, "softcap=-1.0: must be positive"),
        ({"bias": torch.zeros(4)}, r"bias \(4,\): must be \(9,\)"),
        ({"mask": torch.ones(4)}, r"mask \(4,\): must have the shape of targets"),
        ({"backend": "cuda"}, "backend='cuda' is not known: choose from auto, reference, blocked, triton"),
        ({"workspace_mb": 0.0001}, "workspace_mb=0.0001: one row of a tile needs"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"hidden": torch.zeros(3, 4), "weight": torch.zeros(9, 4), "targets": torch.zeros(3, dtype=torch.long)}
    with pytest.raises(UserError, match=message):
        linear_logprob(**(arguments | change))


def test_a_loss_that_mixes_rows_is_refused_by_its_shape():
    arguments = torch.zeros(3, 4).requires_grad_(), torch.zeros(9, 4), torch.zeros(3, dtype=torch.long)
    with pytest.raises(UserError, match=r"token_loss gave \(\) for rows \(3,\)"):
        linear_policy_loss(*arguments, lambda logprob, _, rows: logprob.mean())
