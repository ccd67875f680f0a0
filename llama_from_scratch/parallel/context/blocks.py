"""Attention block by block: partial softmaxes, how they are merged, and their gradients by hand.

A softmax needs the sum over all keys, and a rank has only some of the keys at a time. So each block
of keys gives its own softmax and, with it, the logarithm of its sum of exp(score), the **lse**. Two
results are merged by weights that follow from their lse. Backward, the lse of all keys is known,
so every block's probabilities are exp(score - lse), and the blocks' gradients are added up.

Everything here is fp32, or float64 for such queries. Query head h reads key/value head h // (H/G);
the heads are never copied.

Notebook 45. Sources: Milakov and Gimelshein, arXiv:1805.02867 (merging); Dao et al.,
arXiv:2205.14135, section 3.1 and appendix B (the gradients).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def attended(
    q: Float[Tensor, "B T H K"], k: Float[Tensor, "B S G K"], v: Float[Tensor, "B S G K"], *,
    mask: Bool[Tensor, "#B 1 T S"] | None,
) -> tuple[Float[Tensor, "B T H K"], Float[Tensor, "B T H"]]:
    """Returns the attention over one block of keys, and its lse.

    A query that sees no key of the block gets 0, and an lse of -infinity.
    """
    scores = _scores(q, k, mask=mask)
    largest = scores.amax(-1, keepdim=True)
    largest = torch.where(largest.isinf(), 0.0, largest)
    weights = torch.exp(scores - largest)
    total = weights.sum(-1, keepdim=True)
    found = torch.einsum("bgnts,bsgk->btgnk", weights / torch.where(total == 0, 1.0, total), v)
    lse = (largest + total.log()).squeeze(-1)
    return found.flatten(2, 3), lse.permute(0, 3, 1, 2).flatten(2)


def merged(
    out: Float[Tensor, "B T H K"], lse: Float[Tensor, "B T H"], *,
    other: Float[Tensor, "B T H K"], other_lse: Float[Tensor, "B T H"],
) -> tuple[Float[Tensor, "B T H K"], Float[Tensor, "B T H"]]:
    """Returns the attention over the keys of two blocks together, and its lse.

    Each query must see a key of the first block.
    """
    both = torch.logaddexp(lse, other_lse)
    return (out * torch.exp(lse - both)[..., None]
            + other * torch.exp(other_lse - both)[..., None]), both


def gradients(
    d_out: Float[Tensor, "B T H K"], q: Float[Tensor, "B T H K"], k: Float[Tensor, "B S G K"],
    v: Float[Tensor, "B S G K"], *, lse: Float[Tensor, "B T H"], delta: Float[Tensor, "B T H"],
    mask: Bool[Tensor, "#B 1 T S"] | None,
) -> tuple[Float[Tensor, "B T H K"], Float[Tensor, "B S G K"], Float[Tensor, "B S G K"]]:
    """Returns what one block of keys adds to the gradients of q, k and v.

    `lse`: over all keys. `delta`: the sum over the head's width of d_out times the result.
    """
    G = k.shape[2]
    by_group = lambda x: x.unflatten(2, (G, -1)).permute(0, 2, 3, 1)[..., None]
    probabilities = torch.exp(_scores(q, k, mask=mask) - by_group(lse))
    d_out = d_out.unflatten(2, (G, -1))
    d_v = torch.einsum("bgnts,btgnk->bsgk", probabilities, d_out)
    d_probabilities = torch.einsum("btgnk,bsgk->bgnts", d_out, v)
    d_scores = probabilities * (d_probabilities - by_group(delta)) * q.shape[-1] ** -0.5
    d_q = torch.einsum("bgnts,bsgk->btgnk", d_scores, k).flatten(2, 3)
    return d_q, torch.einsum("bgnts,btgnk->bsgk", d_scores, q.unflatten(2, (G, -1))), d_v


def _scores(
    q: Float[Tensor, "B T H K"], k: Float[Tensor, "B S G K"], *,
    mask: Bool[Tensor, "#B 1 T S"] | None,
) -> Float[Tensor, "B G n T S"]:
    """Returns the products of queries and keys; -infinity where the mask is False."""
    grouped = q.unflatten(2, (k.shape[2], -1))
    scores = torch.einsum("btgnk,bsgk->bgnts", grouped, k) * q.shape[-1] ** -0.5
    return scores if mask is None else scores.masked_fill(~mask[:, None], float("-inf"))
