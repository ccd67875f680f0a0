"""The group of all ranks: what a function that runs on every rank gets as its first argument.

Notebook 40.
"""

import contextlib
import types
from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.distributed as dist

from llama_from_scratch.parallel.agreement import Agreement, seconds
from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.comm_log import CommLog


class World(RankGroup):
    """All ranks of a program. `kept`: a namespace that lives as long as the rank does."""

    def __init__(
        self, *, rank: int, size: int, process_group: dist.ProcessGroup | None,
        device: torch.device | str = "cpu", agreement: Agreement | None = None,
        timeout_s: float = 1800.0,
    ) -> None:
        super().__init__(range(size), own=rank, name="world", log=CommLog(),
                         process_group=process_group, device=torch.device(device),
                         agreement=agreement)
        self.kept, self.timeout_s = types.SimpleNamespace(), timeout_s

    def group(self, lines: Iterable[Sequence[int]], *, name: str) -> RankGroup:
        """Returns this rank's group. A collective: every rank names the ranks of all groups.

        Each group has connections of its own, so that what two groups of the same ranks send at the
        same time is not mixed up.
        """
        own = None
        for ranks in lines:
            made = None
            if len(ranks) > 1:
                made = dist.new_group(list(ranks), timeout=seconds(self.timeout_s), group_desc=name)
            if self.rank in ranks:
                own = RankGroup(ranks, own=self.rank, name=name, log=self.log, process_group=made,
                                device=self.device, agreement=self.agreement)
        if own is None:
            raise ValueError(f"every rank is in one of the groups; got groups for {name!r} without "
                             f"rank {self.rank}")
        return own


def alone(device: torch.device | str = "cpu") -> World:
    """Returns a world of one rank, which needs no process group."""
    return World(rank=0, size=1, process_group=None, device=device)


@contextlib.contextmanager
def joined(
    *, rank: int, size: int, store: dist.Store, device: torch.device, timeout_s: float,
    agreement: Agreement | None = None,
) -> Iterator[World]:
    """Yields the world after all ranks have met at `store`; leaves it at the end.

    `timeout_s`: after which a collective fails. `agreement`: checks every collective first.
    """
    is_gpu = device.type == "cuda"
    dist.init_process_group("nccl" if is_gpu else "gloo", store=store, rank=rank, world_size=size,
                            timeout=seconds(timeout_s), device_id=device if is_gpu else None)
    try:
        yield World(rank=rank, size=size, process_group=dist.group.WORLD, device=device,
                    agreement=agreement, timeout_s=timeout_s)
    finally:
        dist.destroy_process_group()
