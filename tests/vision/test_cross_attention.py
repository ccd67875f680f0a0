"""Cross-attention blocks by themselves: gates, norms, no order, and tokens that see nothing."""

import pytest
import torch
from seeing_twin import TEXT, crosses, loud
from torch.nn import functional as F

from llama_from_scratch.model.inputs import ImageInputs
from llama_from_scratch.model.kv_cache import Uncached
from llama_from_scratch.model.mask import GivenMask
from llama_from_scratch.model.transformer import Block
from llama_from_scratch.vision.cross_attention import CrossAttention, SeeingBlock

B, T, S = 2, 5, 7


def inputs(sees=None, mask=None, **more):
    made = torch.Generator().manual_seed(0)
    sees = torch.ones(B, T, dtype=torch.bool) if sees is None else sees
    mask = torch.ones(B, 1, T, S, dtype=torch.bool) if mask is None else mask
    return ImageInputs(states=torch.randn(B, S, TEXT.dim, generator=made),
                       visible=GivenMask(mask=mask), sees_image=sees, **more)


def text():
    return torch.randn(B, T, TEXT.dim, generator=torch.Generator().manual_seed(1))


def rms_norm(x, weight, eps=TEXT.norm_eps):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def by_hand(part, x, images):
    """The formula, head by head, in fp64."""
    part, x, states = part.double(), x.double(), images.states.double()
    out = torch.zeros(B, T, TEXT.n_heads * TEXT.head_dim, dtype=torch.float64)
    for h in range(TEXT.n_heads):
        g = h // (TEXT.n_heads // TEXT.n_kv_heads)
        of_q, of_kv = (slice(i * TEXT.head_dim, (i + 1) * TEXT.head_dim) for i in (h, g))
        q = rms_norm(x @ part.wq.weight[of_q].T, part.q_norm.weight)
        k = rms_norm(states @ part.wk.weight[of_kv].T, part.k_norm.weight)
        v = states @ part.wv.weight[of_kv].T
        scores = q @ k.transpose(1, 2) / TEXT.head_dim**0.5
        scores = scores.masked_fill(~images.visible.mask[:, 0], -torch.inf)
        out[..., of_q] = scores.softmax(-1) @ v
    return (out * images.sees_image[..., None]) @ part.wo.weight.T


def test_the_attention_is_the_formula():
    part = crosses(loud())[0].attention
    mask = torch.rand(B, 1, T, S, generator=torch.Generator().manual_seed(2)) < 0.5
    mask[..., 0] = True
    images = inputs(mask=mask, sees=torch.tensor([[False] + [True] * 4] * B))
    found = part(text(), images, cache=Uncached())
    expected = by_hand(part, text(), images).float()
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


def test_the_block_is_the_formula():
    block = crosses(loud())[0]
    images = inputs(sees=torch.tensor([[False, True, True, True, True]] * B))
    found = block(text(), images, cache=Uncached())
    h = text() + torch.tanh(block.attention_gate.weight) * block.attention(
        rms_norm(text(), block.attention_norm.weight), images, cache=Uncached())
    y = rms_norm(h, block.ffn_norm.weight)
    ffn = block.feed_forward
    y = (F.silu(y @ ffn.w_gate.weight.T) * (y @ ffn.w_up.weight.T)) @ ffn.w_down.weight.T
    expected = h + torch.tanh(block.ffn_gate.weight) * y * images.sees_image[..., None]
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


def test_closed_gates_change_no_bit_and_still_receive_a_gradient():
    block = crosses(loud())[0]
    with torch.no_grad():
        block.attention_gate.weight.zero_()
        block.ffn_gate.weight.zero_()
    out = block(text(), inputs(), cache=Uncached())
    assert torch.equal(out, text())
    out.square().sum().backward()
    assert block.attention_gate.weight.grad.abs() > 0.1
    assert block.ffn_gate.weight.grad.abs() > 0.1
    assert not block.attention.wq.weight.grad.any()


def test_a_token_that_sees_no_image_keeps_every_bit():
    block = crosses(loud())[0]
    sees = torch.tensor([[False, False, True, True, True], [False] * 5])
    out = block(text(), inputs(sees=sees), cache=Uncached())
    assert torch.equal(out[~sees], text()[~sees])
    assert (out[sees] - text()[sees]).abs().amax(-1).min() > 0.01


def test_by_the_other_rule_such_a_token_attends_but_skips_the_feed_forward():
    block = crosses(loud())[0]
    images = inputs(sees=torch.zeros(B, T, dtype=torch.bool), is_blind=False)
    out = block(text(), images, cache=Uncached())
    shown = inputs()
    attended = block.attention_gate(block.attention(block.attention_norm(text()), shown,
                                                    cache=Uncached()))
    torch.testing.assert_close(out, text() + attended, atol=1e-6, rtol=1e-6)


def test_image_tokens_have_no_order_because_there_is_no_rope():
    block, images = crosses(loud())[0], inputs()
    order = torch.randperm(S, generator=torch.Generator().manual_seed(4))
    other = ImageInputs(states=images.states[:, order], visible=images.visible,
                        sees_image=images.sees_image)
    torch.testing.assert_close(block(text(), images, cache=Uncached()),
                               block(text(), other, cache=Uncached()), atol=1e-6, rtol=1e-5)


def test_equal_tokens_at_different_places_find_the_same():
    part = crosses(loud())[0].attention
    x = text()[:, :1].expand(B, T, -1)
    found = part(x, inputs(), cache=Uncached())
    torch.testing.assert_close(found, found[:, :1].expand_as(found), atol=1e-6, rtol=1e-6)


def test_larger_image_states_do_not_make_attention_sharper_because_keys_are_normed():
    part = crosses(loud())[0].attention
    k, v = part.keys_and_values(inputs().states)
    k_larger, v_larger = part.keys_and_values(3 * inputs().states)
    torch.testing.assert_close(k, k_larger, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(3 * v, v_larger)


def test_it_has_the_heads_of_the_text_model():
    part = CrossAttention(TEXT)
    assert part.wq.weight.shape == (TEXT.n_heads * TEXT.head_dim, TEXT.dim)
    assert part.wk.weight.shape == part.wv.weight.shape == (
        TEXT.n_kv_heads * TEXT.head_dim, TEXT.dim)
    assert part.q_norm.weight.shape == part.k_norm.weight.shape == (TEXT.head_dim,)
    assert all(linear.bias is None for linear in (part.wq, part.wk, part.wv, part.wo))


def test_a_seeing_block_has_the_parts_of_its_layer_and_gives_them_back():
    block = Block(TEXT, TEXT.layers[0])
    seeing = SeeingBlock(block, TEXT)
    given = dict(seeing.without_cross().named_parameters())
    assert type(seeing.without_cross()) is Block
    for name, weight in block.named_parameters():
        assert dict(seeing.named_parameters())[name] is weight
        assert given[name] is weight


@pytest.mark.parametrize("n_additions", [1, 16])
def test_fresh_blocks_have_closed_gates_and_matrices_of_the_usual_size(n_additions):
    torch.manual_seed(0)
    seeing = SeeingBlock(Block(TEXT, TEXT.layers[0]), TEXT)
    seeing.init_weights(n_additions=n_additions)
    cross = seeing.cross
    assert not cross.attention_gate.weight and not cross.ffn_gate.weight
    assert cross.attention.wq.weight.std().item() == pytest.approx(0.5 / TEXT.dim**0.5, rel=0.1)
    expected = 0.5 / (TEXT.dim * n_additions) ** 0.5
    assert cross.attention.wo.weight.std().item() == pytest.approx(expected, rel=0.1)
