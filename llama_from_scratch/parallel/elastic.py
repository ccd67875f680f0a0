"""Replicas that may fail: the others go on without them, and later they come back.

In hybrid sharding each replica holds the whole model. When a rank of one fails, only its replica
stops. The others do not wait: the replicas that are left add up their gradients, and divide by the
number of targets of the rows that are left, so the loss stays a mean over targets. To come back, a
replica takes the weights and averages of another one, and from then on all are equal again.

    step        0      1      2      3            4
    replica 0   rows   rows   rows   rows, sends  rows
    replica 1   rows   -      -      takes        rows

At 100,000 GPUs something fails every few minutes, and to start all of them again takes as long.
A real system finds out by missing heartbeats who is left. Here the program tells it. Groups for
all sets of replicas are made at the start, because a failed rank cannot take part in making one.

Notebook 47.
"""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor

from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.mesh import Axes
from llama_from_scratch.parallel.shard import ShardedModel
from llama_from_scratch.parallel.sharded import Sharded
from llama_from_scratch.parallel.training import rows_of
from llama_from_scratch.train.data import Batch
from llama_from_scratch.train.protocols import Optimizer

MAX_REPLICAS = 4
"""There is a group for every set of replicas, and the number of sets doubles with each replica."""


class ElasticReplicas:
    """The replicas of a sharded model, of which some may be away. All ranks make it together.

    `present`: the numbers of the replicas that are there. `is_present`: whether this rank's is.
    Raises ValueError unless the model is sharded over 2 to 4 replicas.
    """

    def __init__(self, sharded: ShardedModel) -> None:
        axes = sharded.axes
        n = axes.mesh.replicate
        if not isinstance(sharded.data, Sharded) or not 2 <= n <= MAX_REPLICAS:
            raise ValueError("replicas may fail in hybrid sharding, with stage 1 to 3 and 2 to "
                             f"{MAX_REPLICAS} replicas; got the mesh {axes.mesh}. Choose "
                             "replicate=2 and a stage")
        self._sharded, self._data, self._axes = sharded, sharded.data, axes
        self.own = axes.replicate.rank
        self._groups = {present: _groups_of(present, axes)
                        for k in range(1, n + 1) for present in itertools.combinations(range(n), k)}
        self._set(tuple(range(n)))

    @property
    def is_present(self) -> bool:
        return self.own in self.present

    def lose(self, replica: int) -> None:
        """Goes on without a replica. Raises ValueError if it is the last one, or not there."""
        if replica not in self.present or len(self.present) == 1:
            raise ValueError("a replica that is there can be lost, if another one is left; got "
                             f"{replica} of {self.present}")
        self._set(tuple(other for other in self.present if other != replica))

    @torch.no_grad()
    def rejoin(self, replica: int, optimizer: Optimizer) -> None:
        """Takes a replica back, with the weights and the optimizer's state of the first present.

        All present ranks call it, and the ranks of the replica. Raises ValueError if it is there.
        """
        if replica in self.present or not 0 <= replica < self._axes.mesh.replicate:
            raise ValueError("a replica that was lost can come back; got "
                             f"{replica}, and {self.present} are there")
        first = self.present[0]
        self._set(tuple(sorted((*self.present, replica))))
        group, state = self._groups[self.present][0], optimizer.state_dict()
        for x in (*(p.detach() for p in self._sharded.weights.values()), *state.values()):
            group.broadcast(x, source=self.present.index(first), note="rejoin")
        optimizer.load_state_dict(state)
        self._sharded.after_fill()

    def rows_of(self, batch: Batch) -> Batch:
        """Returns this rank's rows of a batch. The rows of a replica that is away are not read."""
        return rows_of(batch, self._axes.data)

    def n_targets_in(self, batch: Batch) -> int:
        """Returns the number of targets in the rows of all replicas that are there."""
        shares = batch.split(len(batch.ids) // self._axes.mesh.replicate)
        return sum(share.n_targets for replica, share in enumerate(shares)
                   if replica in self.present)

    def total(self, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Returns the sum of a loss over all ranks that read rows and are there."""
        return self._groups[self.present][1].all_reduce(loss.clone(), note="loss")

    def _set(self, present: tuple[int, ...]) -> None:
        self.present = present
        self._data.replicate_over(self._groups[present][0])


def _groups_of(present: tuple[int, ...], axes: Axes) -> tuple[RankGroup, RankGroup]:
    """Returns the groups of this rank if only these replicas are there. A collective.

    The first: ranks that hold the same pieces. The second: all that read rows.
    """
    mesh, found = axes.mesh, []
    for name in (("replicate",), ("dp", "replicate")):
        lines = []
        for ranks in mesh.lines(*name):
            here = tuple(r for r in ranks if mesh.coordinates(r)["replicate"] in present)
            lines += [here, *((r,) for r in ranks if r not in here)]
        found.append(axes.world.group([line for line in lines if line], name="present"))
    return found[0], found[1]
