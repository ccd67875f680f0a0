"""The ranks as a grid: which of them share a model, and which of them share the data.

A mesh has axes, each with a size, and their product is the number of ranks. Ranks along an axis
form a group. The order is Llama 3's, [TP, CP, PP, DP]: ranks of the same `tp` group are neighbors,
because they talk the most and neighbors have the fastest links. `replicate` is outermost.

    Mesh(dp=2, tp=2):      tp 0   tp 1
                    dp 0   rank 0 rank 1
                    dp 1   rank 2 rank 3

Expert parallelism is no axis of its own. It cuts the ranks along `cp` and `dp`, which hold the same
slices of the model, into smaller groups: `ep` neighbors divide the experts among themselves.

Notebooks 43 and 47. Source: The Llama 3 herd of models, arXiv:2407.21783, section 3.3.2.
"""

import math
from collections.abc import Iterator, Mapping

import torch.distributed as dist

from llama_from_scratch.config import record
from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.world import World

AXES = ("tp", "cp", "pp", "dp", "replicate")
"""From the innermost to the outermost."""


@record
class Mesh:
    """How many ranks there are along each axis.

    `tp`: tensor parallel; the ranks hold slices of each matrix and read the same rows of the batch.
    `cp`: context parallel; the ranks hold the same weights and read different tokens of the rows.
    `pp`: pipeline parallel; the ranks hold different layers.
    `dp`: data parallel; the ranks read different rows, and may shard the model (`sharded`).
    `replicate`: whole copies of that, which only add up their gradients (hybrid sharding).
    `ep`: expert parallel; how many of the cp x dp ranks divide the experts among themselves.
    Raises ValueError for a size below 1, and for an `ep` that does not divide cp x dp.
    """

    tp: int = 1
    cp: int = 1
    pp: int = 1
    dp: int = 1
    replicate: int = 1
    ep: int = 1

    def __post_init__(self) -> None:
        for axis in (*AXES, "ep"):
            size = getattr(self, axis)
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ValueError(f"Mesh.{axis} must be a whole number of at least 1; got {size!r}")
        if self.cp * self.dp % self.ep:
            raise ValueError("ep must divide cp x dp, because ranks that hold the same layers share"
                             f" their experts; got ep={self.ep} for cp={self.cp} x dp={self.dp}. "
                             f"Choose ep={math.gcd(self.ep, self.cp * self.dp)}, or a larger dp")

    @classmethod
    def parse(cls, text: str) -> "Mesh":
        """Returns the mesh that a text such as "dp=8,tp=2" describes. Raises ValueError."""
        sizes: dict[str, int] = {}
        for part in text.split(","):
            axis, _, size = part.strip().partition("=")
            if (axis not in (*AXES, "ep") or axis in sizes
                    or not (size.isascii() and size.isdecimal())):
                raise ValueError(f"a mesh is written as axes with sizes, such as dp=8,tp=2; got "
                                 f"{text!r}. The axes are {', '.join(AXES)}, and ep")
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

    def expert_lines(self, group: str) -> Iterator[tuple[int, ...]]:
        """Yields the ranks of each group that expert parallelism makes.

        "ep": neighbors along cp and dp, which divide the experts. "expert_shards": the ranks along
        cp and dp that hold the same experts. "expert_gradients": those along `replicate` as well.
        Raises ValueError for another name.
        """
        if group not in EXPERT_GROUPS:
            raise ValueError(f"the groups of experts are {', '.join(EXPERT_GROUPS)}; got {group!r}")
        axes = ("cp", "dp", "replicate") if group == "expert_gradients" else ("cp", "dp")
        for ranks in self.lines(*axes):
            if group == "ep":
                yield from (ranks[i : i + self.ep] for i in range(0, len(ranks), self.ep))
            else:
                yield from (ranks[i :: self.ep] for i in range(self.ep))

    def end_lines(self) -> Iterator[tuple[int, ...]]:
        """Yields the first and the last rank of each pipeline, and every rank between them alone.

        A weight that is tied between embedding and head is on both ends.
        """
        for ranks in self.lines("pp"):
            yield tuple(dict.fromkeys((ranks[0], ranks[-1])))
            yield from ((rank,) for rank in ranks[1:-1])

    def __str__(self) -> str:
        return ",".join(f"{axis}={getattr(self, axis)}" for axis in ("ep", *reversed(AXES))
                        if getattr(self, axis) > 1) or "dp=1"

    def on(self, world: World) -> "Axes":
        """Returns the groups of this rank. A collective.

        Raises ValueError if the mesh has not as many ranks as the world.
        """
        if self.size != world.size:
            product = " x ".join(f"{axis}={getattr(self, axis)}" for axis in self._shown)
            raise ValueError(f"the sizes of a mesh multiply to the number of ranks; got {product} "
                             f"= {self.size} for {world.size} ranks. {self._that_fit(world.size)}"
                             f"start {self.size} ranks")
        groups = {name: world.group(self.lines(*axes), name=name) for name, axes in GROUPS.items()
                  if self.cp > 1 or name not in _SAME_WITHOUT_CP}
        groups |= {name: groups[other] for name, other in _SAME_WITHOUT_CP.items() if self.cp == 1}
        for name in EXPERT_GROUPS:
            same = self._same_ranks(name)
            groups[name] = groups[same] if same else world.group(self.expert_lines(name), name=name)
        groups["ends"] = world.group(self.end_lines(), name="ends")
        return Axes(mesh=self, world=world, **groups)

    def _same_ranks(self, name: str) -> str:
        """Returns which group before it has the ranks of a group of experts, or an empty text."""
        if self.ep == 1:
            return {"expert_shards": "shards", "expert_gradients": "gradients"}.get(name, "")
        return "expert_shards" if name == "expert_gradients" and self.replicate == 1 else ""

    @property
    def _shown(self) -> tuple[str, ...]:
        """The axes that an error names: those in use, and `dp`."""
        return tuple(axis for axis in AXES if axis == "dp" or getattr(self, axis) > 1)

    def _that_fit(self, n_ranks: int) -> str:
        """Returns, as the begin of a sentence, the meshes of `n_ranks` with one other size."""
        sizes = {axis: getattr(self, axis) for axis in self._shown}
        fits = [f"{axis}={n_ranks * size // self.size}" for axis, size in sizes.items()
                if n_ranks * size % self.size == 0]
        return f"Set {' or '.join(fits)}, or " if fits else "Choose sizes that divide it, or "


GROUPS: Mapping[str, tuple[str, ...]] = {
    "tp": ("tp",), "cp": ("cp",), "pp": ("pp",), "dp": ("dp",), "replicate": ("replicate",),
    "data": ("dp", "replicate"), "shards": ("cp", "dp"),
    "gradients": ("cp", "dp", "replicate")}
"""The axes along which the ranks of each group differ. `data`: all that read different rows.
`shards`: the ranks that hold the same slices, and among which ZeRO divides them. `gradients`: all
whose gradients for the same slices are added up."""
_SAME_WITHOUT_CP = {"shards": "dp", "gradients": "data"}
EXPERT_GROUPS = ("ep", "expert_shards", "expert_gradients")
"""See `Mesh.expert_lines`. The last two are for experts what `shards` and `gradients` are for the
other parameters."""


@record
class Axes:
    """The groups that one rank belongs to: see `GROUPS`, `expert_lines` and `end_lines`.

    Groups of the same ranks may be the same object: without `cp`, `shards` is `dp`.
    """

    mesh: Mesh
    world: World
    tp: RankGroup
    cp: RankGroup
    pp: RankGroup
    dp: RankGroup
    replicate: RankGroup
    data: RankGroup
    shards: RankGroup
    gradients: RankGroup
    ep: RankGroup
    expert_shards: RankGroup
    expert_gradients: RankGroup
    ends: RankGroup


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
