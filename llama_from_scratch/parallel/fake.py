"""A world of which only one rank exists, to ask what a rank of a large cluster would hold.

Collectives return at once and leave what they should fill as it is. So numbers mean nothing here,
but shapes, counts and bytes are true. On the meta device, tensors have shapes and no memory.

Notebook 43.
"""

import contextlib
from collections.abc import Iterator

import torch
import torch.distributed as dist

from llama_from_scratch.parallel.world import World


@contextlib.contextmanager
def pretended(
    *, size: int, rank: int = 0, device: torch.device | str = "meta"
) -> Iterator[World]:
    """Yields the world of one rank out of `size`, whose other ranks do not exist.

    Raises ValueError if this process has a process group already.
    """
    if dist.is_initialized():
        raise ValueError("a process is in one world at a time; this one has a process group "
                         "already. Leave it first: torch.distributed.destroy_process_group()")
    from torch.testing._internal.distributed.fake_pg import FakeStore  # registers its backend

    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=size)
    try:
        yield World(rank=rank, size=size, process_group=dist.group.WORLD, device=device)
    finally:
        dist.destroy_process_group()
