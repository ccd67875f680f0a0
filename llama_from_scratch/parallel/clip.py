"""The length of the whole gradient, when each rank has only some of it: each element counts once.

What a rank must add up depends on who else has the same numbers. Ranks that shard have different
pieces, so all count. Ranks with copies, such as the norms' weights under tensor parallel, have the
same numbers, so one of them counts. Every rank then needs the same length to the last bit, because
each divides its own part of the model by it: with different lengths the copies would drift apart.
So the ranks do not reduce, they gather each other's sums and add them in the same order.

    other parameters    their sum, over `shards`
    experts             their sum, over `expert_shards`, then over `ep`      both together over `tp`

Notebooks 41 and 46. Sources: Pascanu et al., arXiv:1211.5063, algorithm 1 (clipping).
"""

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.placement import Slice

_PART = 512


def clip_gradients(
    params: Mapping[str, Tensor], *, slices: Mapping[str, Slice], tp: RankGroup,
    shards: RankGroup | None, max_norm: float, pp: RankGroup | None = None,
    elsewhere: Mapping[str, Sequence[RankGroup]] | None = None, twice: Collection[str] = (),
) -> Float[Tensor, ""]:
    """Scales down gradients longer than `max_norm`, and returns their length before.

    See `gradient_norm` for the length and the arguments. If the length is not finite, the gradients
    are left as they are, so that the caller can refuse them.
    """
    norm = gradient_norm(params, slices=slices, tp=tp, shards=shards, pp=pp, elsewhere=elsewhere,
                         twice=twice)
    length = norm.item()
    if math.isfinite(length) and length > max_norm:
        torch._foreach_mul_([p.grad for p in params.values() if p.grad is not None],
                            max_norm / length)
    return norm


@torch.no_grad()
def gradient_norm(
    params: Mapping[str, Tensor], *, slices: Mapping[str, Slice], tp: RankGroup,
    shards: RankGroup | None, norm_type: float = 2.0, pp: RankGroup | None = None,
    elsewhere: Mapping[str, Sequence[RankGroup]] | None = None, twice: Collection[str] = (),
) -> Float[Tensor, ""]:
    """Returns the length of all gradients of the logical model as one vector, in float64.

    It has the same bits on all ranks. `params`: what this rank has, with gradients that are already
    the sums over the ranks. `slices`: what each of them is a part of, along `tp`; a rank alone in
    its `tp` needs none. `shards`: the group over which `params` are pieces, or None if they are
    whole on every rank. `pp`: the group of a pipeline, whose ranks have different layers.
    `elsewhere`: by name, the groups that take the place of `shards` for a parameter, one after the
    other; every rank names the same ones in the same order. `twice`: names of parameters that
    another rank of `pp` has, too, and counts. `norm_type`: p of the sum of |g|^p; 1, 2 and infinity
    are usual.
    Raises ValueError if no parameter has a gradient, or for parameters without a matching slice.
    """
    if not norm_type > 0:
        raise ValueError(f"norm_type must be above 0; got {norm_type}")
    _refuse_other_slices(params, slices, tp)
    if params and all(p.grad is None for p in params.values()):
        raise ValueError("clipping needs gradients, and no parameter has one. Call backward first")
    usual = () if shards is None else (shards,)
    ways = {usual: []} | {tuple(groups): [] for groups in (elsewhere or {}).values()}
    for name, p in params.items():
        if p.grad is not None and name not in twice and (
                tp.size == 1 or tp.rank % slices[name].n_copies == 0):
            ways[tuple(elsewhere[name]) if elsewhere and name in elsewhere else usual].append(
                p.grad)
    totals = [_over(groups, _power_sum(grads, norm_type, device=tp.device), norm_type)
              for groups, grads in ways.items()]
    total = _over((tp,) if pp is None else (tp, pp), _joined(torch.stack(totals), norm_type),
                  norm_type)
    return total if math.isinf(norm_type) else total ** (1 / norm_type)


def _over(
    groups: Sequence[RankGroup], total: Float[Tensor, ""], norm_type: float
) -> Float[Tensor, ""]:
    """Returns the sum, or the maximum, over the ranks of one group after the other."""
    for group in groups:
        if group.size > 1:
            total = _joined(group.all_gather(total[None], note="gradient norm"), norm_type)
    return total


def _joined(parts: Float[Tensor, "parts"], norm_type: float) -> Float[Tensor, ""]:
    return parts.max() if math.isinf(norm_type) else parts.sum()


def _power_sum(
    grads: list[Tensor], norm_type: float, *, device: torch.device
) -> Float[Tensor, ""]:
    """Returns the sum of |g|^p over all elements, or their maximum for p = infinity."""
    norms = [_norms(grad.flatten(), norm_type).to(device) for grad in grads if grad.numel()]
    if not norms:
        return torch.zeros((), dtype=torch.float64, device=device)
    each = torch.cat(norms)
    return each.max() if math.isinf(norm_type) else (each**norm_type).sum()


def _norms(flat: Float[Tensor, "n"], norm_type: float) -> Float[Tensor, "parts"]:
    """Returns the norms of short parts of a vector, in float64.

    A short part has a norm that is exact to the last digits of its dtype, or of fp32. So only the
    parts are added in float64, which takes a tenth of the time of float64 for every element.
    """
    dtype = torch.promote_types(flat.dtype, torch.float32)
    n = len(flat) // _PART * _PART
    parts = flat[:n].view(-1, _PART), flat[n:][None]
    return torch.cat([torch.linalg.vector_norm(part, norm_type, dim=1, dtype=dtype)
                      for part in parts if part.numel()]).double()


def _refuse_other_slices(
    params: Mapping[str, Tensor], slices: Mapping[str, Slice], tp: RankGroup
) -> None:
    if tp.size == 1:
        return
    for name in params:
        if name not in slices:
            raise ValueError(f"with {tp.size} tensor parallel ranks, every parameter needs a Slice "
                             f"that says who else has it; {name} has none")
        n = slices[name].n_parts * slices[name].n_copies
        if n != tp.size:
            raise ValueError(f"parts times copies of a Slice are the number of ranks; got {n} for "
                             f"{name}, with {tp.size} ranks")
