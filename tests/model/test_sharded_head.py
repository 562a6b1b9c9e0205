"""A head that FSDP shards by itself is refused; what trains is in tests/engine/test_sharded_ranks.py."""

from __future__ import annotations

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor

from concise_rl.errors import UserError
from concise_rl.model.sharded_head import whole


def test_what_nobody_shards_is_itself():
    weight = torch.nn.Parameter(torch.ones(4, 2))
    assert whole(weight) is weight
    assert whole(None) is None


def test_a_head_that_is_wrapped_by_itself_is_refused():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        shard = distribute_tensor(torch.ones(4, 2), init_device_mesh("cpu", (1,)))
        with pytest.raises(UserError, match="take it out of what fsdp_auto_wrap_policy wraps"):
            whole(shard)
    finally:
        distributed.destroy_process_group()
