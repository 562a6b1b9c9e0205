"""A head sharded over two processes is the whole head: values, and the gradients of hidden states and of each shard."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.testing import assert_close

from concise_rl.kernels import linear_logprob, linear_policy_loss

SPLIT = 27


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(30, 8, generator=generator), torch.randn(50, 8, generator=generator)
    targets = torch.randint(50, (30,), generator=generator)
    targets[4] = -100
    return hidden.requires_grad_(), weight, targets


def losses(hidden, weight, targets, **shard):
    """Both operations, each with its gradients."""
    found = linear_logprob(hidden, weight, targets, entropy="grad", **shard)
    (found.logprob.sum() + 2 * found.entropy.sum()).backward()
    first = [value.detach() for value in (*found, hidden.grad.clone(), weight.grad.clone())]
    hidden.grad = weight.grad = None
    loss, _ = linear_policy_loss(
        hidden,
        weight,
        targets,
        lambda logprob, entropy, _: logprob + 2 * entropy,
        entropy="grad",
        workspace_mb=0.1,
        **shard,
    )
    loss.backward()
    return [*first, loss.detach(), hidden.grad, weight.grad]


def rank(index: int, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=index, world_size=2)
    hidden, weight, targets = inputs()
    part = slice(0, SPLIT) if index == 0 else slice(SPLIT, 50)
    own = weight[part].clone().requires_grad_()
    found = losses(hidden, own, targets, vocab_start=part.start, group=dist.group.WORLD)
    hidden_whole, weight_whole, _ = inputs()
    expected = losses(hidden_whole, weight_whole.requires_grad_(), targets)
    for place in (4, 7):  # the head's gradient: this rank's rows of it
        expected[place] = expected[place][part]
    for ours, whole in zip(found, expected, strict=True):
        assert_close(ours, whole, rtol=1e-5, atol=1e-5)
    dist.destroy_process_group()


def test_two_processes_with_half_the_vocabulary_each(tmp_path: Path) -> None:
    mp.spawn(rank, (str(tmp_path / "store"),), nprocs=2)
