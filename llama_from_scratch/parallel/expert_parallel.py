"""Expert parallel: ranks divide the experts, and each token travels to the rank of its expert.

Each rank routes its own tokens with the whole router. Every copy of a token goes to the rank that
holds its expert, is computed there, and comes back: two all-to-alls forward and two backward, in
which each rank sends another number of rows. The ranks tell each other these numbers first.

    rank 0 has   e0 e0 e1 e3   ->   rank 0, with e0 and e1:  e0 e0 e1 | e1      ->   back, in the
    rank 1 has   e1 e2 e2 e3   ->   rank 1, with e2 and e3:  e3 | e2 e2 e3           order they left

The gradient of an expert's weights is then already the sum over all tokens of the group. So it is
added up over the ranks that hold the same experts alone (`expert_gradients`, or `expert_shards` for
ZeRO); router, shared expert and all the rest are added up over all ranks that read other tokens.

Without a capacity no token is dropped. With one, an expert takes the first tokens only, and the
shared expert alone works on the others. The rule looks at all tokens of the group, so the same ones
are dropped as if one rank had all of them.

E experts. Notebook 46. Sources: Lepikhin et al., GShard, arXiv:2006.16668, section 2.2 (capacity);
Fedus et al., Switch Transformers, arXiv:2101.03961, section 2.2.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import torch
from jaxtyping import Int, Shaped
from torch import Tensor, nn

from llama_from_scratch.config import Experts, record
from llama_from_scratch.model.moe import Balance, RoutedExperts, Routing, balance_of
from llama_from_scratch.model.moe.balance import moe_layers
from llama_from_scratch.parallel import differentiable
from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.placement import Slice


@record
class ExpertTraffic:
    """One pass of one layer: how many rows each rank had for each expert, and how many it sent.

    The rows of the table are the ranks of the group. Neighboring experts are on the same rank.
    """

    wanted: Int[Tensor, "ranks E"]
    sent: Int[Tensor, "ranks E"]

    @property
    def rows(self) -> Int[Tensor, "ranks others"]:
        """How many rows travel from each rank to each; on the diagonal, those that stay."""
        n_ranks = len(self.sent)
        return self.sent.view(n_ranks, n_ranks, -1).sum(2)

    @property
    def n_dropped(self) -> int:
        """How many copies of tokens were over an expert's capacity."""
        return int((self.wanted - self.sent).sum())

    @property
    def balance(self) -> Balance:
        """How often all tokens of the group chose each expert, dropped ones included."""
        return Balance(counts=self.wanted.sum(0))


def within(
    wanted: Int[Tensor, "ranks E"], capacity: float | None
) -> Int[Tensor, "ranks E"]:
    """Returns how many rows of each rank each expert takes.

    `capacity`: the room of an expert in units of its even share, rounded up to whole rows; None for
    as much as needed. Rows of rank 0 come first.
    """
    if capacity is None:
        return wanted
    room = math.ceil(Fraction(str(capacity)) * int(wanted.sum()) / wanted.shape[1])
    before = wanted.cumsum(0) - wanted
    return wanted.minimum((room - before).clamp(min=0))


def split(
    model: nn.Module, group: RankGroup, *, capacity: float | None = None
) -> "ExpertParallel":
    """Cuts the experts of a model in place among the ranks of a group: neighbors stay together.

    The model has a `config`, as a Llama does, and may be on the meta device. Every rank calls it,
    before tensor and data parallel. With one rank and no capacity, nothing changes.
    Raises ValueError if the number of experts does not divide. Then the model is unchanged.
    """
    refuse_unfit(model, n_ranks=group.size, capacity=capacity)
    return ExpertParallel(model, group, capacity=capacity)


def refuse_unfit(model: nn.Module, *, n_ranks: int, capacity: float | None = None) -> None:
    """Raises ValueError unless the model has experts that `n_ranks` ranks can share equally."""
    if capacity is not None and not 0 < capacity < math.inf:
        raise ValueError("the capacity of an expert is a number above 0, in units of its even "
                         f"share; got {capacity}. None drops nothing")
    if n_ranks == 1 and capacity is None:
        return
    specs = {f"layers.{i}": spec.feed_forward for i, spec in enumerate(model.config.layers)
             if isinstance(spec.feed_forward, Experts)}
    if not specs:
        raise ValueError("only a model with experts can divide them, or give them a capacity; got "
                         f"ep={n_ranks}, capacity={capacity} for a model without. Choose ep=1, or "
                         "a config with a LayerSpec(feed_forward=Experts(...))")
    for name, spec in specs.items():
        if spec.n_experts % n_ranks:
            able = [str(n) for n in range(1, spec.n_experts + 1) if spec.n_experts % n == 0]
            raise ValueError("each rank along ep holds equally many experts; got ep="
                             f"{n_ranks} for the {spec.n_experts} experts of {name}. Choose ep="
                             f"{', '.join(able[:-1])} or {able[-1]}")


class ExpertParallel:
    """The experts of a model that `split` has cut.

    `slices`: which part of each weight this rank holds, by the names of the model's parameters;
    empty with one rank. What is not there is whole on every rank.
    """

    def __init__(self, model: nn.Module, group: RankGroup, *, capacity: float | None) -> None:
        self.group, self.slices = group, {}
        self._doors: dict[str, _Door] = {}
        if group.size == 1 and capacity is None:
            return
        mine = Slice(axis=0, part=group.rank, n_parts=group.size)
        for name, moe in moe_layers(model).items():
            for leaf, p in moe.experts.named_parameters():
                p.data = mine.of(p.data).clone(memory_format=torch.contiguous_format)
                p.grad = None
                if group.size > 1:
                    self.slices[f"{name}.experts.{leaf}"] = mine
            self._doors[name] = _Door(moe.experts, group, name=name, capacity=capacity)

    @contextlib.contextmanager
    def watched(self) -> Iterator[dict[str, list[ExpertTraffic]]]:
        """Collects what travels in each layer with experts, by its name, pass by pass."""
        found: dict[str, list[ExpertTraffic]] = {name: [] for name in self._doors}
        for name, door in self._doors.items():
            door.seen = found[name]
        try:
            yield found
        finally:
            for door in self._doors.values():
                door.seen = None

    def groups(self, *others: RankGroup) -> dict[str, tuple[RankGroup, ...]]:
        """Returns, for each weight of experts, the groups whose ranks hold its elements together.

        `others`: those over which this rank's slices are divided further.
        """
        return dict.fromkeys(self.slices, (*others, self.group))

    def of(self, name: str, whole: Shaped[Tensor, "*whole"]) -> Shaped[Tensor, "*part"]:
        """Returns this rank's slice of a whole parameter."""
        return self.slices[name].of(whole) if name in self.slices else whole

    def whole(self, name: str, part: Shaped[Tensor, "*part"]) -> Shaped[Tensor, "*whole"]:
        """Returns the whole of a parameter, or of its gradient, from every rank's slice."""
        return self.group.all_gather(part.contiguous(), note=name) if name in self.slices else part


def balance_over(routings: Sequence[Routing], group: RankGroup) -> Balance:
    """Returns the use of a layer's experts by the tokens of all ranks of a group. A collective.

    `routings`: of this rank's tokens. Raises ValueError without any.
    """
    return Balance(counts=group.all_reduce(balance_of(routings).counts, note="use of experts"))


@record
class _Trip:
    """What the way back needs: which rows left, how they were sorted, how many went where.

    `left`: the numbers of the rows that were not dropped, or None for all of them.
    """

    n_rows: int
    left: Int[Tensor, "gone"] | None
    order: Int[Tensor, "come"]
    sent: list[int]
    received: list[int]


class _Door:
    """Sends rows away before the experts of a layer compute, and brings the results back after."""

    def __init__(
        self, experts: RoutedExperts, group: RankGroup, *, name: str, capacity: float | None
    ) -> None:
        self._group, self._name, self._capacity = group, name, capacity
        self.seen: list[ExpertTraffic] | None = None
        self._trip: _Trip | None = None
        experts.register_forward_pre_hook(self._go)
        experts.register_forward_hook(self._come_back)

    def _go(self, _: nn.Module, args: tuple[Tensor, list[int]]) -> tuple[Tensor, list[int]]:
        """Returns the rows of all ranks for this rank's experts, and how many each expert has."""
        x, counts = args
        group = self._group
        wanted = group.all_gather(torch.tensor([counts], device=x.device),
                                  note=f"{self._name} counts").cpu()
        traffic = ExpertTraffic(wanted=wanted, sent=within(wanted, self._capacity))
        if self.seen is not None:
            self.seen.append(traffic)
        sent = traffic.rows[group.rank].tolist()
        received = traffic.rows[:, group.rank].tolist()
        left = None
        if sum(sent) < len(x):
            left = _firsts(counts, traffic.sent[group.rank]).to(x.device)
        rows = differentiable.all_to_all(x if left is None else x[left], group, sent=sent,
                                         received=received, note=f"{self._name} to experts")
        own = traffic.sent.view(group.size, group.size, -1)[:, group.rank]
        order = _by_expert(own).to(x.device)
        self._trip = _Trip(n_rows=len(x), left=left, order=order, sent=sent, received=received)
        return rows[order], own.sum(0).tolist()

    def _come_back(self, _: nn.Module, args: tuple, y: Tensor) -> Tensor:
        """Returns the results for this rank's rows, and zeros for those that were dropped."""
        trip, self._trip = self._trip, None
        sorted_by_rank = torch.empty_like(y).index_copy(0, trip.order, y)
        rows = differentiable.all_to_all(sorted_by_rank, self._group, sent=trip.received,
                                         received=trip.sent, note=f"{self._name} back")
        if trip.left is None:
            return rows
        return rows.new_zeros(trip.n_rows, rows.shape[1]).index_copy(0, trip.left, rows)


def _by_expert(counts: Int[Tensor, "ranks some"]) -> Int[Tensor, "come"]:
    """Returns the order by expert of rows that come by rank, and for each rank by expert.

    `counts`: how many rows came from each rank for each of this rank's experts.
    """
    n_ranks, n_experts = counts.shape
    expert = torch.arange(n_experts).repeat(n_ranks).repeat_interleave(counts.flatten())
    return expert.argsort(stable=True)


def _firsts(counts: list[int], sent: Int[Tensor, "E"]) -> Int[Tensor, "gone"]:
    """Returns the numbers of the first `sent` rows of each group of `counts` rows."""
    place = torch.cat([torch.arange(n) for n in counts])
    limit = sent.repeat_interleave(torch.tensor(counts))
    return (place < limit).nonzero()[:, 0]
