"""Partial softmaxes: merged they are one softmax, and the gradients by hand are autograd's."""

import pytest
import ranks_context as work
import torch

from llama_from_scratch.model.attention import SoftmaxAttention
from llama_from_scratch.model.mask import GivenMask
from llama_from_scratch.parallel.context import blocks

B, T, S, H, K = 2, 5, 7, 4, 6
CLOSE = 1e-12


def inputs(n_kv_heads, *, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, dtype=torch.float64, generator=generator)
    mask = torch.rand(B, 1, T, S, generator=generator) < 0.5
    mask[..., 0] = True
    return (draw(B, T, H, K) * scale, draw(B, S, n_kv_heads, K), draw(B, S, n_kv_heads, K)), mask


def in_two(q, k, v, mask, *, cut=3):
    """The result over the keys before and after `cut`, merged, and its lse."""
    first = blocks.attended(q, k[:, :cut], v[:, :cut], mask=mask[..., :cut])
    other, other_lse = blocks.attended(q, k[:, cut:], v[:, cut:], mask=mask[..., cut:])
    return blocks.merged(*first, other=other, other_lse=other_lse)


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_two_blocks_merged_are_one_attention(n_kv_heads, scale):
    (q, k, v), mask = inputs(n_kv_heads, scale=scale)
    out, lse = in_two(q, k, v, mask)
    torch.testing.assert_close(out, SoftmaxAttention()(q, k, v, GivenMask(mask=mask)), rtol=0,
                               atol=CLOSE)
    keys = k.repeat_interleave(H // n_kv_heads, dim=2)
    scores = torch.einsum("bthk,bshk->bths", q, keys) / K**0.5
    hidden = scores.masked_fill(~mask[:, 0, :, None], float("-inf"))
    torch.testing.assert_close(lse, hidden.logsumexp(-1), rtol=1e-14, atol=0)


def test_a_merge_without_the_largest_score_overflows():
    (q, k, v), mask = inputs(2, scale=1e4)
    with work.MUTANTS["merged without the largest"][1]():
        assert not in_two(q, k, v, mask)[0].isfinite().all()


def test_a_query_that_sees_no_key_of_a_block_gets_nothing_from_it():
    (q, k, v), mask = inputs(2)
    mask[:, :, 1, 3:] = False
    out, lse = blocks.attended(q, k[:, 3:], v[:, 3:], mask=mask[..., 3:])
    assert (out[:, 1] == 0).all() and (lse[:, 1] == float("-inf")).all()
    torch.testing.assert_close(in_two(q, k, v, mask)[0],
                               SoftmaxAttention()(q, k, v, GivenMask(mask=mask)), rtol=0,
                               atol=CLOSE)


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
def test_gradients_of_blocks_add_up_to_autograd_s(n_kv_heads):
    tensors, mask = inputs(n_kv_heads)
    q, k, v = (x.requires_grad_() for x in tensors)
    out = SoftmaxAttention()(q, k, v, GivenMask(mask=mask))
    d_out = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    out.backward(d_out)
    with torch.no_grad():
        merged, lse = in_two(q, k, v, mask)
        delta = (d_out * merged).sum(-1)
        parts = [blocks.gradients(d_out, q, k[:, span], v[:, span], lse=lse, delta=delta,
                                  mask=mask[..., span]) for span in (slice(0, 3), slice(3, S))]
    found = (parts[0][0] + parts[1][0], *(torch.cat([part[i] for part in parts], dim=1)
                                          for i in (1, 2)))
    for mine, x in zip(found, (q, k, v), strict=True):
        torch.testing.assert_close(mine, x.grad, rtol=0, atol=CLOSE)
