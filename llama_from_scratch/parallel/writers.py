"""Which rank writes which piece, so that every element of a checkpoint is written once.

Ranks hold copies: replicas of the model, weights that tensor parallelism does not cut, a tied
embedding at both ends of a pipeline. Every rank tells what it holds. From that, each computes the
same plan alone. Copies go to the rank that has the least to write so far. Copies of which ranks
hold other spans are divided where the spans begin and end.

Notebook 47.
"""

from collections.abc import Mapping, Sequence

import torch

from llama_from_scratch.checkpoint.sharded.manifest import refuse_gaps
from llama_from_scratch.checkpoint.sharded.region import Region
from llama_from_scratch.checkpoint.sharded.shard_file import About
from llama_from_scratch.config import record


@record
class Holding:
    """What one rank holds of one tensor, or writes of it."""

    region: Region
    dtype: torch.dtype

    @property
    def n_bytes(self) -> int:
        return self.region.n * self.dtype.itemsize


Plan = list[dict[str, Holding]]
"""What each rank writes, by name: a part of what it holds, or all of it."""


def plan(held: Sequence[Mapping[str, Holding]]) -> Plan:
    """Returns what each rank writes. `held[rank]`: what that rank holds, by name.

    Large tensors are given away first. Raises ValueError if ranks hold nothing of some elements,
    or describe one tensor differently.
    """
    found: Plan = [{} for _ in held]
    loads = [0] * len(held)
    for name in sorted(dict.fromkeys(name for each in held for name in each),
                       key=lambda name: (-_n_bytes(held, name), name)):
        holders = {rank: each[name] for rank, each in enumerate(held) if name in each}
        _refuse_other_kinds(name, holders)
        first = next(iter(holders.values()))
        boxes: dict[tuple, dict[int, Region]] = {}
        for rank, holding in holders.items():
            region = holding.region
            boxes.setdefault((region.starts, region.sizes), {})[rank] = region
        for regions in boxes.values():
            for rank, region in _each_once(regions, loads).items():
                found[rank][name] = Holding(region=region, dtype=first.dtype)
                loads[rank] += found[rank][name].n_bytes
        refuse_gaps(name, first.region.shape,
                    [each[name].region for each in found if name in each])
    return found


def holdings(
    about: Mapping[str, About], regions: Mapping[str, Region]
) -> dict[str, Holding]:
    """Returns what this rank holds. Raises ValueError if a region is not as large as its tensor."""
    for name, region in regions.items():
        n = about[name].n_bytes // about[name].dtype.itemsize
        if n != region.n:
            raise ValueError("a piece has as many elements as its region; got "
                             f"{n} for {region.n} of {name}. A state of the optimizer has the "
                             "shape of its parameter, or is the same on all ranks")
    return {name: Holding(region=region, dtype=about[name].dtype)
            for name, region in regions.items()}


def _n_bytes(held: Sequence[Mapping[str, Holding]], name: str) -> int:
    return max(each[name].n_bytes for each in held if name in each)


def _each_once(regions: Mapping[int, Region], loads: Sequence[int]) -> dict[int, Region]:
    """Returns spans of the same box that share no element, at most one for each rank.

    It goes through the box from the front. Each span goes on as far as one rank can write.
    """
    found, at = {}, 0
    ends = {rank: region.first + region.n for rank, region in regions.items()}
    for begin in sorted({region.first for region in regions.values() if region.n}):
        at = max(at, begin)
        while here := [rank for rank, end in ends.items() if regions[rank].first <= at < end]:
            rank = min(here, key=lambda rank: (-ends[rank], loads[rank], rank))
            found[rank] = regions[rank].span(at, ends[rank] - at)
            at = ends[rank]
    return found


def _refuse_other_kinds(name: str, holders: Mapping[int, Holding]) -> None:
    kinds: dict[tuple, list[int]] = {}
    for rank, holding in holders.items():
        kinds.setdefault((holding.region.shape, holding.dtype), []).append(rank)
    if len(kinds) > 1:
        told = ", ".join(f"{shape} in {dtype} on rank {ranks[0]}"
                         for (shape, dtype), ranks in kinds.items())
        raise ValueError(f"all ranks describe a tensor alike; {name} is {told}. Give all ranks the "
                         "same model")
