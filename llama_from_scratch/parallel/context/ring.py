"""Ring attention: keys and values travel from rank to rank, and no rank ever has all of them.

In each of n steps a rank computes with the keys and values that it has, while they are already on
the way to the next rank. The partial results are merged by their log-sum-exp (`blocks`). Backward,
keys and values travel once more; their gradients travel behind them, collect what each rank adds,
and arrive where the keys belong. To keep all keys from forward would take the memory that the ring
saves.

Notebook 45. Source: Liu et al., Ring attention, arXiv:2310.01889, section 3.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from llama_from_scratch.parallel.comm import Pending, RankGroup
from llama_from_scratch.parallel.context import blocks
from llama_from_scratch.parallel.context.pieces import own_pieces
from llama_from_scratch.parallel.context.sight import VisibleAcrossRanks

NOTE = "keys and values"


class RingAttention(nn.Module):
    """Takes the place of `model.attention.SoftmaxAttention`; its calls are collectives of `group`.

    The arithmetic is fp32, or float64 for such queries.
    """

    def __init__(self, group: RankGroup) -> None:
        super().__init__()
        self.group = group

    def forward(
        self, q: Float[Tensor, "B T H K"], k: Float[Tensor, "B T G K"],
        v: Float[Tensor, "B T G K"], visible: VisibleAcrossRanks,
    ) -> Float[Tensor, "B T H K"]:
        """Returns the attention of this rank's queries. All ranks call it."""
        with torch.autocast(q.device.type, enabled=False):
            return _Ring.apply(q, k, v, visible, self.group)


class _Ring(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor, visible: VisibleAcrossRanks,
        group: RankGroup,
    ) -> Tensor:
        queries = _wide(q).chunk(2, dim=1)
        found: list[tuple[Tensor, Tensor] | None] = [None, None]
        for source, kv in around(torch.stack((k, v)), group, note=NOTE):
            for own, other, mask in _seen_blocks(visible, source):
                keys, values = _wide(kv).chunk(2, dim=2)[other]
                new = blocks.attended(queries[own], keys, values, mask=mask)
                # Its own piece comes first, and there each token sees itself.
                found[own] = new if found[own] is None else blocks.merged(
                    *found[own], other=new[0], other_lse=new[1])
        out, lse = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        out = out.to(q.dtype)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.visible, ctx.group = visible, group
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_out: Tensor) -> tuple:
        q, k, v, out, lse = ctx.saved_tensors
        delta = (_wide(d_out) * _wide(out)).sum(-1)
        halves = [(d_out, q, lse, delta) for d_out, q, lse, delta in zip(
            *(x.chunk(2, dim=1) for x in (_wide(d_out), _wide(q), lse, delta)), strict=True)]
        d_q = [torch.zeros_like(half[1]) for half in halves]
        own_d_kv, arriving = None, None
        for source, kv in around(torch.stack((k, v)), ctx.group, note=f"{NOTE}, backward"):
            kv = _wide(kv)
            d_kv = torch.zeros_like(kv)
            for own, other, mask in _seen_blocks(ctx.visible, source):
                d_out, q_half, lse, delta = halves[own]
                more = blocks.gradients(d_out, q_half, *kv.chunk(2, dim=2)[other], lse=lse,
                                        delta=delta, mask=mask)
                d_q[own] += more[0]
                d_keys, d_values = d_kv.chunk(2, dim=2)[other]
                d_keys += more[1]
                d_values += more[2]
            if source == ctx.group.rank:
                own_d_kv = d_kv
                continue
            if arriving is not None:
                d_kv += arriving.wait()
            arriving = PassedOn(d_kv, ctx.group, note=f"gradient of {NOTE}")
        if arriving is not None:
            own_d_kv += arriving.wait()
        d_k, d_v = own_d_kv.to(k.dtype)
        return torch.cat(d_q, dim=1).to(q.dtype), d_k, d_v, None, None


def _seen_blocks(
    visible: VisibleAcrossRanks, source: int
) -> Iterator[tuple[int, int, Tensor | None]]:
    """Yields which of this rank's pieces sees which piece of rank `source`, and the mask.

    The pieces are 0 or 1: the first or the second that the rank holds. Others have no visible pair.
    """
    for own, piece in enumerate(visible.own_pieces):
        for other, key_piece in enumerate(own_pieces(source, visible.n_ranks)):
            if key_piece in visible.pieces_seen(piece):
                yield own, other, visible.mask(piece, key_piece)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


# --- traveling ------------------------------------------------------------------------------------


def around(
    x: Shaped[Tensor, "*any"], group: RankGroup, *, note: str = ""
) -> Iterator[tuple[int, Shaped[Tensor, "*any"]]]:
    """Yields every rank's tensor with its rank, this rank's first, then that of the rank before.

    While the caller computes with one, the next is on its way. All ranks of the group call it.
    """
    for step in range(group.size):
        is_last = step == group.size - 1
        coming = None if is_last else PassedOn(x, group, note=note)
        yield (group.rank - step) % group.size, x
        if coming is not None:
            x = coming.wait()


class PassedOn:
    """A tensor that is being sent to the next rank, while another comes from the rank before.

    Neighbors begin in opposite orders, one with the sending and one with the receiving. So the
    order is right even where a send waits for its receiver, as in the queue of a GPU.
    """

    def __init__(self, x: Shaped[Tensor, "*any"], group: RankGroup, *, note: str = "") -> None:
        after, before = (group.rank + 1) % group.size, (group.rank - 1) % group.size
        received = torch.empty_like(x, memory_format=torch.contiguous_format)
        begin = [lambda: group.start_send(x, to=after, note=note),
                 lambda: group.start_receive(received, source=before, note=note)]
        order = (1, 0) if group.rank % 2 else (0, 1)
        begun: dict[int, Pending] = {which: begin[which]() for which in order}
        self._sent, self._received = begun[0], begun[1]

    def wait(self) -> Shaped[Tensor, "*any"]:
        """Returns the tensor of the rank before, when it is there and x is sent."""
        received = self._received.wait()
        self._sent.wait()
        return received
