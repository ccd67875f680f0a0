import dataclasses
import itertools
import math

import pytest
import torch
from hugging_face_twin import hugging_face_layout, hugging_face_name, loud, twin_of
from relatives import RELATIVES, UNEVEN
from torch import nn
from torch.nn import functional as F

from llama_from_scratch import family
from llama_from_scratch.config import Dense, LayerSpec
from llama_from_scratch.model.attention import attention
from llama_from_scratch.model.transformer import Llama

# Positions far enough apart to show RoPE scaling.
FAR = torch.tensor([[0, 1, 2, 3, 50, 700, 8191, 8192, 20_000, 60_000, 99_999, 131_071]])


def difference(model, twin):
    """The largest gap of logits and gradients, at near and far positions.

    Each gap is divided by the largest value of the tensor that it is in.
    """
    torch.manual_seed(1)
    ids = torch.randint(0, model.config.vocab_size, (2, FAR.shape[1]))
    far = FAR * model.config.max_seq_len // 131_072
    ours, theirs = model(ids, positions=far), twin(ids, position_ids=far).logits
    fake_loss = torch.randn_like(ours)
    model.zero_grad(), twin.zero_grad()
    (ours * fake_loss).mean().backward(), (theirs * fake_loss).mean().backward()
    gaps = [(ours - theirs).abs().max() / theirs.abs().max()]
    their_grads = {n: p.grad for n, p in twin.named_parameters()}
    for name, weight in model.named_parameters():
        expected = their_grads[hugging_face_name(name)]
        ours = hugging_face_layout(name, weight.grad, model.config.head_dim)
        gaps.append((ours - expected).abs().max() / expected.abs().max())
    return max(gaps).item()


@pytest.mark.parametrize("generation", family.GENERATIONS)
def test_logits_and_every_gradient_equal_transformers(generation):
    model = loud(dataclasses.replace(family.tiny(generation), n_kv_heads=2))
    assert difference(model, twin_of(model)) < 1e-5


@pytest.mark.parametrize("name", RELATIVES)
def test_a_relative_with_other_heads_or_with_biases_equals_transformers_too(name):
    model = loud(RELATIVES[name])
    assert difference(model, twin_of(model)) < 1e-5


@pytest.mark.parametrize("name", [*RELATIVES, "uneven"])
def test_a_relative_reads_in_pieces_and_in_batches_as_in_one(name):
    model = loud((RELATIVES | {"uneven": UNEVEN})[name])
    ids = torch.randint(0, 512, (3, 10), generator=torch.Generator().manual_seed(1))
    cache = model.new_cache(batch_size=3, max_seq_len=10)
    assert cache.n_bytes == 3 * 10 * model.config.kv_bytes_per_token(4)
    with torch.inference_mode():
        whole = model(ids)
        pieces = [model(piece, cache=cache) for piece in ids.split([4, 1, 5], dim=1)]
        torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-5, atol=1e-5)
        alone = torch.cat([model(ids[b : b + 1]) for b in range(3)])
        torch.testing.assert_close(alone, whole, rtol=1e-5, atol=1e-5)


def test_logits_equal_transformers_for_multi_head_and_multi_query_attention():
    for n_kv_heads in (1, 4):
        model = loud(dataclasses.replace(family.tiny("llama-3"), n_kv_heads=n_kv_heads))
        assert difference(model, twin_of(model)) < 1e-5


class Tiled(nn.Module):
    def forward(self, q, k, v, visible):
        tile = q.shape[2] // k.shape[2]
        return attention(q, k.repeat(1, 1, tile, 1), v=v.repeat(1, 1, tile, 1), visible=visible)


class Halves(nn.Module):
    def forward(self, q, k, rotation):
        return self.turn(q, rotation), self.turn(k, rotation)

    def turn(self, x, rotation):
        a, b = x.chunk(2, -1)
        turned = torch.complex(a, b) * rotation[:, :, None]
        return torch.cat([turned.real, turned.imag], -1)


@pytest.mark.parametrize("mutation", ["theta", "scaling", "scaling factor", "eps", "rope layout",
                                      "kv heads tiled", "gate and up"])
def test_parity_fails_when_a_part_is_broken(mutation):
    model = loud(dataclasses.replace(family.tiny("llama-3.1"), norm_eps=1e-3))
    twin = twin_of(model)
    if mutation == "theta":
        model.rope._config = dataclasses.replace(model.config, rope_theta=4e5)
        model.to("cpu")
    elif mutation == "scaling":
        model.rope._config = dataclasses.replace(model.config, rope_scaling=None)
        model.to("cpu")
    elif mutation == "scaling factor":
        scaling = dataclasses.replace(model.config.rope_scaling, factor=32.0)
        model.rope._config = dataclasses.replace(model.config, rope_scaling=scaling)
        model.to("cpu")
    elif mutation == "eps":
        for block in model.layers:
            block.ffn_norm.eps = block.attention_norm.eps = 1e-4
    elif mutation == "rope layout":
        for block in model.layers:
            block.attention.rotate = Halves()
    elif mutation == "kv heads tiled":
        for block in model.layers:
            block.attention.attend = Tiled()
    elif mutation == "gate and up":
        for block in model.layers:
            ffn = block.feed_forward
            ffn.w_gate, ffn.w_up = ffn.w_up, ffn.w_gate
    torch.manual_seed(1)
    ids = torch.randint(0, 512, (2, FAR.shape[1]))
    gap = (model(ids, positions=FAR) - twin(ids, position_ids=FAR).logits).abs().max().item()
    assert gap > 1e-3, f"parity does not notice a wrong {mutation}: logits moved by {gap}"


def test_bf16_logits_stay_near_the_fp32_ones_at_far_positions():
    model = loud(family.tiny("llama-3.1"))
    ids = torch.randint(0, 512, (1, 12), generator=torch.Generator().manual_seed(1))
    exact = model(ids, positions=FAR)
    rounded = model.bfloat16()(ids, positions=FAR)
    assert rounded.dtype == torch.float32, "logits are raised to fp32 after the head"
    assert (rounded - exact).abs().mean() < 0.03 * exact.abs().mean()


def test_batched_equals_one_by_one():
    model = loud(family.tiny("llama-3"))
    ids = torch.randint(0, 512, (3, 10), generator=torch.Generator().manual_seed(1))
    batched = model(ids)
    for b in range(3):
        torch.testing.assert_close(batched[b : b + 1], model(ids[b : b + 1]), rtol=1e-5, atol=1e-5)


def test_packed_documents_equal_separate_ones_forward_and_backward():
    model = loud(family.tiny("llama-3"))
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randint(0, 512, (1, T), generator=generator) for T in (5, 8))
    positions = torch.cat([torch.arange(5), torch.arange(8)])[None]
    documents = torch.tensor([[0] * 5 + [1] * 8])

    def grads(loss):
        return torch.autograd.grad(loss, list(model.parameters()))

    packed = model(torch.cat([first, second], 1), positions=positions, documents=documents)
    separate = torch.cat([model(first), model(second)], 1)
    torch.testing.assert_close(packed, separate, rtol=1e-5, atol=1e-5)
    got, expected = grads(packed.square().mean()), grads(separate.square().mean())
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    leaky = model(torch.cat([first, second], 1), positions=positions)
    assert not torch.allclose(leaky[:, 5:], separate[:, 5:], atol=1e-2), "the second read the first"


def test_without_rope_the_order_of_earlier_tokens_changes_nothing():
    config = dataclasses.replace(family.tiny("llama-3"), layers=(LayerSpec(has_rope=False),))
    model = loud(config)
    ids = torch.tensor([[1, 2, 3, 4]])
    swapped = torch.tensor([[3, 1, 2, 4]])
    torch.testing.assert_close(model(ids)[:, -1], model(swapped)[:, -1], rtol=1e-5, atol=1e-5)
    rotary = loud(dataclasses.replace(config, layers=(LayerSpec(),)))
    assert not torch.allclose(rotary(ids)[:, -1], rotary(swapped)[:, -1], atol=1e-2)


def test_a_tied_head_is_the_embedding_itself():
    model = Llama(family.tiny("llama-3.2"))
    assert model.output.weight is model.tok_embeddings.weight


@pytest.mark.parametrize("dim", [64, 256])
def test_a_fresh_model_guesses_almost_evenly_at_any_width(dim):
    torch.manual_seed(0)
    model = Llama(dataclasses.replace(family.tiny("llama-3"), dim=dim, ffn_dim=3 * dim))
    ids = torch.randint(0, 512, (4, 32))
    loss = F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    # Logits of size 1/2 cost 1/8 nat.
    assert loss.item() == pytest.approx(math.log(512) + 0.5**2 / 2, abs=0.04)


def test_the_stream_of_a_fresh_model_does_not_grow_with_depth():
    config, streams = family.tiny("llama-3"), []
    for n_layers in (2, 16):
        torch.manual_seed(0)
        model = Llama(dataclasses.replace(config, layers=(LayerSpec(),) * n_layers))
        model.norm.register_forward_pre_hook(lambda _, args: streams.append(args[0]))
        model(torch.randint(0, 512, (4, 32)))
    sizes = [stream.square().mean().sqrt().item() for stream in streams]
    # Without the smaller weights, 8 times the depth would give 2.8 times the size.
    assert sizes[1] == pytest.approx(sizes[0], rel=0.4)


def test_a_sequence_longer_than_the_model_was_made_for_is_refused():
    model = Llama(dataclasses.replace(family.tiny("llama-1"), max_seq_len=8))
    with pytest.raises(ValueError, match="made for at most 8 tokens; got 9"):
        model(torch.zeros(1, 9, dtype=torch.int64))


def test_an_id_outside_the_vocabulary_is_refused():
    model = Llama(family.tiny("llama-1"))
    with pytest.raises(ValueError, match=r"ids run from 0 to 511; got \[512\]"):
        model(torch.tensor([[1, 512]]))


# --- the four stages ------------------------------------------------------------------------------

CHUNKED = dataclasses.replace(
    family.tiny("llama-3"), layers=(LayerSpec(chunk_size=4), LayerSpec(has_rope=False)) * 2)


def ids_of(B=2, T=9):
    return torch.randint(0, 512, (B, T), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("cuts", [(1,), (2,), (1, 3), (0, 4)])
def test_layers_run_slice_by_slice_equal_all_of_them(cuts):
    model = loud(CHUNKED)
    start = model.embed(ids_of())
    inputs = model.prepare(start)
    x = start
    for first, last in itertools.pairwise((0, *cuts, 4)):
        x = model.run(x, inputs, layers=slice(first, last))
    assert torch.equal(x, model.run(start, inputs))
    assert torch.equal(model.head(x), model(ids_of()))
    assert not torch.allclose(model.run(start, inputs, layers=slice(3)), x)


def test_layers_run_slice_by_slice_use_their_own_part_of_the_cache():
    model = loud(CHUNKED)
    cache, pieces = model.new_cache(batch_size=2, max_seq_len=9), []
    with torch.inference_mode():
        for span in (slice(5), slice(5, 9)):
            x = model.embed(ids_of()[:, span])
            inputs = model.prepare(x, cache=cache)
            for layers in (slice(1), slice(1, 4)):
                x = model.run(x, inputs, cache=cache, layers=layers)
            pieces.append(model.head(x))
        assert [layer.length for layer in cache.layers] == [9] * 4
        torch.testing.assert_close(torch.cat(pieces, 1), model(ids_of()), rtol=1e-5, atol=1e-5)


def test_hidden_is_what_the_output_matrix_turns_into_logits():
    model = loud(CHUNKED)
    assert torch.equal(model.output(model.hidden(ids_of())), model(ids_of()))


def test_positions_count_on_from_what_the_cache_holds():
    model = loud(CHUNKED)
    cache = model.new_cache(batch_size=1, max_seq_len=9)
    with torch.inference_mode():
        model(ids_of(B=1, T=5), cache=cache)
        x = model.embed(ids_of(B=1, T=2))
        counted = model.prepare(x, cache=cache).rotation
        assert torch.equal(counted, model.prepare(x, positions=torch.tensor([[5, 6]])).rotation)


def test_the_norm_after_attention_goes_through_the_part_that_adds():
    model, seen = loud(family.tiny("llama-3")), []
    for block in model.layers:
        block.add_norm.register_forward_hook(lambda part, args, out: seen.append(args[2]))
    model(ids_of())
    assert all(norm is block.ffn_norm for norm, block in zip(seen, model.layers, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtype_and_the_caches_follow_a_move_to_another(dtype):
    model = Llama(family.tiny("llama-3"))
    assert model.dtype == torch.float32
    model.to(dtype)
    assert model.dtype == dtype
    assert model.rope.freq_R.dtype == torch.float32, "so no buffer decides it"
    n_values = 3 * 7 * 2 * 2 * 16 * 4  # batch, tokens, keys and values, heads, channels, layers
    assert model.new_cache(batch_size=3, max_seq_len=7).n_bytes == n_values * dtype.itemsize
    halves = model.new_cache(batch_size=3, max_seq_len=7, dtype=torch.float16)
    assert halves.n_bytes == n_values * 2


def test_device_and_the_caches_follow_a_move_to_another():
    model = Llama(family.tiny("llama-3"))
    assert model.device.type == "cpu"
    model.to("meta")
    assert model.device.type == "meta"
    assert model.new_cache(batch_size=1, max_seq_len=4)._positions_BS.is_meta


def test_a_matrix_of_whole_numbers_does_not_decide_the_dtype():
    model = Llama(family.tiny("llama-3")).bfloat16()
    whole = torch.ones(512, 64, dtype=torch.int8)
    model.tok_embeddings.weight = nn.Parameter(whole, requires_grad=False)
    assert model.dtype == torch.bfloat16


def test_each_layer_has_the_feed_forward_that_its_spec_names():
    layers = (LayerSpec(), LayerSpec(feed_forward=Dense(width=40)))
    config = dataclasses.replace(family.tiny("llama-3"), layers=layers)
    widths = [block.feed_forward.w_down.in_features for block in Llama(config).layers]
    assert widths == [config.ffn_dim, 40]
