"""The ranks as a grid: which of them share a model, and which of them share the data.

A mesh has axes, each with a size, and their product is the number of ranks. Ranks along an axis
form a group. The order is Llama 3's: ranks of the same `tp` group are neighbors, because they
talk the most and neighbors have the fastest links. Then comes `dp`, and `replicate` is outermost.

    Mesh(dp=2, tp=2):      tp 0   tp 1
                    dp 0   rank 0 rank 1
                    dp 1   rank 2 rank 3

Notebook 43. Source: The Llama 3 herd of models, arXiv:2407.21783, section 3.3.2.
"""

import math
from collections.abc import Iterator, Mapping

import torch.distributed as dist

from llama_from_scratch.config import record
from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.world import World

AXES = ("tp", "dp", "replicate")
"""From the innermost to the outermost."""


@record
class Mesh:
    """How many ranks there are along each axis.

    `tp`: tensor parallel; the ranks hold slices of each matrix and read the same rows of the batch.
    `dp`: data parallel; the ranks read different rows, and may shard the model (`sharded`).
    `replicate`: whole copies of that, which only add up their gradients (hybrid sharding).
    Raises ValueError for a size below 1.
    """

    tp: int = 1
    dp: int = 1
    replicate: int = 1

    def __post_init__(self) -> None:
        for axis in AXES:
            size = getattr(self, axis)
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ValueError(f"Mesh.{axis} must be a whole number of at least 1; got {size!r}")

    @classmethod
    def parse(cls, text: str) -> "Mesh":
        """Returns the mesh that a text such as "dp=8,tp=2" describes. Raises ValueError."""
        sizes: dict[str, int] = {}
        for part in text.split(","):
            axis, _, size = part.strip().partition("=")
            if axis not in AXES or axis in sizes or not (size.isascii() and size.isdecimal()):
                raise ValueError(f"a mesh is written as axes with sizes, such as dp=8,tp=2; got "
                                 f"{text!r}. The axes are {', '.join(AXES)}")
            sizes[axis] = int(size)
        return cls(**sizes)

    @property
    def size(self) -> int:
        """The number of ranks."""
        return math.prod(getattr(self, axis) for axis in AXES)

    def coordinates(self, rank: int) -> dict[str, int]:
        """Returns the place of a rank along each axis. Raises ValueError for other numbers."""
        if not 0 <= rank < self.size:
            raise ValueError(f"the ranks of {self} are 0 to {self.size - 1}; got {rank}")
        found = {}
        for axis in AXES:
            rank, found[axis] = divmod(rank, getattr(self, axis))
        return found

    def lines(self, *axes: str) -> Iterator[tuple[int, ...]]:
        """Yields the ranks of each group along one axis, or along several axes together.

        Raises ValueError for an unknown axis.
        """
        if unknown := set(axes) - set(AXES):
            raise ValueError(f"the axes of a mesh are {', '.join(AXES)}; got {sorted(unknown)}")
        lines: dict[tuple[int, ...], list[int]] = {}
        for rank in range(self.size):
            place = self.coordinates(rank)
            key = tuple(place[axis] for axis in AXES if axis not in axes)
            lines.setdefault(key, []).append(rank)
        yield from (tuple(ranks) for ranks in lines.values())

    def __str__(self) -> str:
        return ",".join(f"{axis}={getattr(self, axis)}" for axis in reversed(AXES)
                        if getattr(self, axis) > 1) or "dp=1"

    def on(self, world: World) -> "Axes":
        """Returns the groups of this rank. A collective.

        Raises ValueError if the mesh has not as many ranks as the world.
        """
        if self.size != world.size:
            product = " x ".join(f"{axis}={getattr(self, axis)}" for axis in AXES)
            raise ValueError(f"the sizes of a mesh multiply to the number of ranks; got {product} "
                             f"= {self.size} for {world.size} ranks. {self._that_fit(world.size)}"
                             f"start {self.size} ranks")
        groups = {name: world.group(self.lines(*axes), name=name) for name, axes in GROUPS.items()}
        return Axes(mesh=self, world=world, **groups)

    def _that_fit(self, n_ranks: int) -> str:
        """Returns, as the begin of a sentence, the meshes of `n_ranks` with one other size."""
        sizes = {axis: getattr(self, axis) for axis in AXES}
        fits = [f"{axis}={n_ranks * size // self.size}" for axis, size in sizes.items()
                if n_ranks * size % self.size == 0]
        return f"Set {' or '.join(fits)}, or " if fits else "Choose sizes that divide it, or "


GROUPS: Mapping[str, tuple[str, ...]] = {
    "tp": ("tp",), "dp": ("dp",), "replicate": ("replicate",), "data": ("dp", "replicate")}
"""The axes along which the ranks of each group differ. `data`: all that read different rows."""


@record
class Axes:
    """The groups that one rank belongs to: see `GROUPS`."""

    mesh: Mesh
    world: World
    tp: RankGroup
    dp: RankGroup
    replicate: RankGroup
    data: RankGroup


def neighbors(group: RankGroup, n: int, *, name: str) -> RankGroup:
    """Returns the group of this rank and its neighbors, when each n ranks of `group` form one.

    A collective of `group`; n divides its size.
    """
    if n == group.size:
        return group
    first = group.rank // n * n
    ranks = group.ranks[first : first + n]
    made = dist.new_group(list(ranks), use_local_synchronization=True) if n > 1 else None
    return RankGroup(ranks, own=group.ranks[group.rank], name=name, log=group.log,
                     process_group=made, device=group.device, agreement=group.agreement)
