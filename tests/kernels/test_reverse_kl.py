"""Reverse KL from hidden states is that of logits that exist, in value and gradient."""

from __future__ import annotations

import math

import pytest
import torch

from concise_rl.errors import UserError
from concise_rl.kernels.reverse_kl import linear_reverse_kl


def test_the_worked_example_of_two_tokens():
    """Student (.6, .4), teacher (.8, .2): .6 ln .75 + .4 ln 2 = .1046."""
    head = torch.eye(2, dtype=torch.float64)
    student = torch.tensor([[0.6, 0.4]], dtype=torch.float64).log()
    teacher = torch.tensor([[0.8, 0.2]], dtype=torch.float64).log()
    found = linear_reverse_kl(student, head, teacher, head, torch.ones(1))
    assert float(found.kl) == pytest.approx(0.6 * math.log(0.75) + 0.4 * math.log(2), abs=1e-12)
    assert float(found.entropy) == pytest.approx(-0.6 * math.log(0.6) - 0.4 * math.log(0.4), abs=1e-12)


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("biased", [False, True])
def test_value_and_gradients_are_those_of_the_formula(softcap, biased):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    hidden, weight, bias = draw(3, 5, 8).requires_grad_(), draw(11, 8).requires_grad_(), draw(11).requires_grad_()
    other, other_weight, row_weight = draw(3, 5, 6), draw(11, 6), draw(3, 5).abs()
    mask = torch.rand(3, 5, generator=generator) > 0.3
    bias = bias if biased else None
    found = linear_reverse_kl(
        hidden, weight, other, other_weight, row_weight, bias=bias, temperature=0.7, mask=mask, softcap=softcap,
        logit_scale=1.3,
    )  # fmt: skip

    def log_probs(h, w, b):
        z = 1.3 * (h @ w.T + (0 if b is None else b))
        return ((softcap * (z / softcap).tanh() if softcap else z) / 0.7).log_softmax(-1)

    p, q = log_probs(hidden, weight, bias), log_probs(other, other_weight, None)
    kl = (p.exp() * (p - q)).sum(-1) * mask
    loss = (kl * row_weight).sum()
    torch.testing.assert_close(found.loss, loss)
    torch.testing.assert_close(found.kl, kl.detach())
    wanted = [hidden, weight, *([bias] if biased else [])]
    for mine, exact in zip(torch.autograd.grad(found.loss, wanted), torch.autograd.grad(loss, wanted), strict=True):
        torch.testing.assert_close(mine, exact)


def test_heads_of_two_vocabularies_are_refused():
    with pytest.raises(UserError, match="no divergence"):
        linear_reverse_kl(torch.ones(1, 2), torch.ones(3, 2), torch.ones(1, 2), torch.ones(4, 2), torch.ones(1))
