"""Llama 4's encoder: against transformers, with mistakes in it, and the parts by hand."""

import dataclasses
import functools
import math

import pytest
import torch
from fusion_twin import LLAMA_4, TILE, TileTwin, hugging_face_name, loud_tiles
from torch import nn
from torch.nn import functional as F

from llama_from_scratch.model.rope import rope_frequencies
from llama_from_scratch.vision import fusion_encoder
from llama_from_scratch.vision.fusion_encoder import (
    TileAdapter,
    TileModel,
    TileRope,
    places_in_tile,
    shuffled,
)

TOLERANCE = 1e-5  # of the largest number: what fp32 leaves over two layers
WIDE = dataclasses.replace(TILE, dim=24, ffn_dim=96, n_heads=3, rope_theta=100.0, n_layers=3)
COARSE = dataclasses.replace(TILE, dim=8, shuffle=4, ffn_dim=128, n_heads=1)


@functools.cache
def models():
    model = loud_tiles()
    return model, TileTwin(model)


def tiles(n=3, *, px=TILE.tile_px, seed=1):
    return torch.randn(n, 3, px, px, generator=torch.Generator().manual_seed(seed))


def distance(ours, expected):
    return ((ours - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("config", [TILE, WIDE, COARSE], ids=["two heads", "theta", "shuffle 4"])
def test_outputs_and_all_gradients_equal_transformers(config):
    model = loud_tiles(config).double()
    twin = TileTwin(model).double()
    pixels = tiles().double()
    ours, expected = model(pixels), twin(pixels)
    assert distance(ours, expected) < TOLERANCE
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2)).double()
    (ours * weights).mean().backward()
    (expected * weights).mean().backward()
    parameters = dict(twin.named_parameters())
    for name, weight in model.named_parameters():
        reference = parameters[hugging_face_name(name)].grad
        assert reference.abs().max() > 0, f"{name} does not matter, so nothing is compared"
        error = distance(weight.grad, reference)
        assert error < TOLERANCE, f"the gradient of {name} differs by {error:.1e}"


def test_outputs_in_fp32_equal_transformers():
    model, twin = models()
    assert distance(model(tiles(17)), twin(tiles(17))) < TOLERANCE


# --- mistakes, each of which this comparison finds ------------------------------------------------


def columns_and_rows_swapped(model, patch):
    original = fusion_encoder.places_in_tile
    patch.setattr(fusion_encoder, "places_in_tile", lambda *a, **k: original(*a, **k)[::-1])


def places_from_zero(model, patch):
    original = fusion_encoder.places_in_tile
    patch.setattr(fusion_encoder, "places_in_tile", lambda *a, **k: tuple(
        (place - 1).clamp(min=0) for place in original(*a, **k)))


def class_token_rotated(model, patch):
    original = fusion_encoder.places_in_tile

    def places(*a, **k):
        found = original(*a, **k)
        for place in found:
            place[-1] = 1
        return found

    patch.setattr(fusion_encoder, "places_in_tile", places)


def rope_of_the_whole_head(model, patch):  # V29: every frequency is the square root of its own
    rope = model.encoder.rope
    rope.freq = rope_frequencies(TILE.head_dim, theta=TILE.rope_theta)[: len(rope.freq)]


def rope_of_a_quarter_head(model, patch):
    rope = model.encoder.rope
    rope.freq = rope.freq**2


def half_of_the_channels_in_halves(model, patch):
    original = fusion_encoder.Rotate.forward

    def rotate(part, q, k, rotation):
        order = torch.arange(q.shape[-1]).view(2, -1).T.flatten()
        back = order.argsort()
        q, k = original(part, q[..., order], k[..., order], rotation)
        return q[..., back], k[..., back]

    patch.setattr(fusion_encoder.Rotate, "forward", rotate)


def class_token_first(model, patch):
    def embed(encoder, pixels):
        x = encoder.patch_embedding(pixels)
        x = torch.cat([encoder.class_token.expand(len(x), 1, -1), x], dim=1)
        return encoder.norm_before(x + encoder.positions)

    patch.setattr(fusion_encoder.TileEncoder, "embed", embed)


def class_token_kept_and_a_patch_dropped(model, patch):
    def forward(encoder, pixels):
        x, rotation = encoder.embed(pixels), encoder.rope()
        for block in encoder.layers:
            x = block(x, rotation)
        return encoder.norm_after(x)[:, 1:]

    patch.setattr(fusion_encoder.TileEncoder, "forward", forward)


def shuffle_transposed(model, patch):
    original = fusion_encoder.shuffled

    def transposed(x, *, edge):
        n = math.isqrt(x.shape[1])
        return original(x.unflatten(1, (n, n)).transpose(1, 2).flatten(1, 2), edge=edge)

    patch.setattr(fusion_encoder, "shuffled", transposed)


def shuffle_inside_transposed(model, patch):
    original = fusion_encoder.shuffled

    def transposed(x, *, edge):
        found = original(x, edge=edge).unflatten(2, (edge, edge, x.shape[2]))
        return found.transpose(2, 3).flatten(2)

    patch.setattr(fusion_encoder, "shuffled", transposed)


def shuffle_by_channels(model, patch):
    original = fusion_encoder.shuffled
    patch.setattr(fusion_encoder, "shuffled", lambda x, *, edge: original(x, edge=edge).unflatten(
        2, (edge * edge, -1)).transpose(2, 3).flatten(2))


def no_gelu_after_the_adapter(model, patch):
    patch.setattr(TileAdapter, "forward", lambda part, x: part.w_out(part.activation(part.w_in(x))))


def gelu_by_tanh(model, patch):
    for module in model.modules():
        if isinstance(module, nn.GELU):
            module.approximate = "tanh"


def norm_eps_of_1e_6(model, patch):
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6


def norm_before_left_out(model, patch):
    model.encoder.norm_before = nn.Identity()


def norm_after_left_out(model, patch):
    model.encoder.norm_after = nn.Identity()


def colors_last_in_a_patch(model, patch):
    weight = model.encoder.patch_embedding.linear.weight
    weight.data = weight.unflatten(1, (3, TILE.patch_px**2)).transpose(1, 2).flatten(1)


def biases_left_out(model, patch):
    for block in model.encoder.layers:
        for w in (block.attention.wq, block.attention.wk):
            w.bias.data.zero_()


MISTAKES = [columns_and_rows_swapped, places_from_zero, class_token_rotated,
            rope_of_the_whole_head, rope_of_a_quarter_head, half_of_the_channels_in_halves,
            class_token_first, class_token_kept_and_a_patch_dropped, shuffle_transposed,
            shuffle_inside_transposed, shuffle_by_channels, no_gelu_after_the_adapter,
            gelu_by_tanh, norm_eps_of_1e_6, norm_before_left_out, norm_after_left_out,
            colors_last_in_a_patch, biases_left_out]


@pytest.mark.parametrize("mistake", MISTAKES)
@torch.no_grad()
def test_the_comparison_sees_a_planted_mistake(mistake, monkeypatch):
    model, twin = loud_tiles(), models()[1]
    # Pixels with little contrast, so that the smallest of the norms' numbers matters too.
    pixels = tiles() * (0.01 if mistake is norm_eps_of_1e_6 else 1)
    if mistake is norm_eps_of_1e_6:
        for each in (model.encoder.class_token, model.encoder.positions,
                     twin.vision_model.class_embedding, twin.vision_model.positional_embedding_vlm):
            each.mul_(0.01)
    try:
        assert distance(model(pixels), twin(pixels)) < TOLERANCE
        mistake(model, monkeypatch)
        assert distance(model(pixels), twin(pixels)) > 10 * TOLERANCE
    finally:
        models.cache_clear()


# --- the parts by hand ----------------------------------------------------------------------------


def test_the_22_frequencies_of_llama_4():  # V29
    found = TileRope(LLAMA_4).freq
    expected = [10_000 ** (-2 * i / 44) for i in range(22)]
    torch.testing.assert_close(found, torch.tensor(expected))
    assert found[0] == 1.0 and math.isclose(found[21].item(), 1.5199e-4, rel_tol=1e-4)


def test_the_first_half_of_the_pairs_turns_by_the_column_and_the_second_by_the_row():
    rotation = TileRope(LLAMA_4)()[0]
    assert rotation.shape == (577, 44)
    angle = torch.tensor([(p % 24 + 1) * 10_000 ** (-2 * i / 44) for p in (0, 25, 575)
                          for i in range(22)]).view(3, 22)
    torch.testing.assert_close(rotation[[0, 25, 575], :22], torch.polar(torch.ones(3, 22), angle))
    angle = torch.tensor([(p // 24 + 1) * 10_000 ** (-2 * i / 44) for p in (0, 25, 575)
                          for i in range(22)]).view(3, 22)
    torch.testing.assert_close(rotation[[0, 25, 575], 22:], torch.polar(torch.ones(3, 22), angle))


def test_the_class_token_is_last_and_is_not_turned():
    column, row = places_in_tile(2)
    assert column.tolist() == [1, 2, 1, 2, 0] and row.tolist() == [1, 1, 2, 2, 0]
    assert (TileRope(TILE)()[0, -1] == 1).all()


def test_a_square_of_patches_becomes_one_token_row_by_row():
    x = torch.arange(16.0)[None, :, None]
    assert shuffled(x, edge=2)[0].tolist() == [
        [0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert shuffled(x, edge=1).equal(x) and shuffled(x, edge=4)[0].tolist() == [list(range(16))]


def test_the_rotation_stays_in_fp32_when_the_model_gets_another_dtype():
    model = loud_tiles()
    expected = model.encoder.rope()
    model.bfloat16()
    assert model.encoder.rope.freq.dtype == torch.float32
    assert torch.equal(model.encoder.rope(), expected)
    found = model(tiles())
    assert found.dtype == torch.bfloat16
    assert distance(found.float(), models()[0](tiles())) < 0.1


def test_a_tile_does_not_depend_on_the_others():
    model, _ = models()
    together = model(tiles(5))
    for i, pixels in enumerate(tiles(5)):
        torch.testing.assert_close(model(pixels[None])[0], together[i])


def test_no_tiles_give_no_states():
    assert loud_tiles()(tiles(0)).shape == (0, TILE.n_tokens, TILE.output_dim)


def test_fresh_weights_follow_the_seed_and_are_drawn_again():
    torch.manual_seed(3)
    first = TileModel(TILE)
    expected = {name: w.clone() for name, w in first.named_parameters()}
    torch.manual_seed(3)
    assert all(torch.equal(w, expected[name]) for name, w in TileModel(TILE).named_parameters())
    with torch.no_grad():
        for weight in first.parameters():
            weight.fill_(7.0)
    torch.manual_seed(3)
    first.init_weights()
    assert not any((w == 7.0).any() for w in first.parameters())


@pytest.mark.parametrize("shape", [(3, 3, 28, 28), (1, 4, 56, 56)])
def test_tiles_of_another_encoder_are_refused(shape):
    with pytest.raises(ValueError, match=r"must be \(tiles, 3, 56, 56\).*got \(.*encoder's own"):
        loud_tiles()(torch.zeros(shape))


def test_the_patch_embedding_is_a_convolution_without_overlap():
    linear = loud_tiles().encoder.patch_embedding.linear
    kernel = linear.weight.view(TILE.dim, 3, TILE.patch_px, TILE.patch_px)
    expected = F.conv2d(tiles(), kernel, stride=TILE.patch_px).flatten(2).transpose(1, 2)
    torch.testing.assert_close(models()[0].encoder.patch_embedding(tiles()), expected)
