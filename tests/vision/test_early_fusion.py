"""A Llama 4 that sees: against transformers, against itself in pieces, and with mistakes in it."""

import dataclasses
import functools

import pytest
import torch
from fusion_twin import (
    IDS,
    TILE,
    fusion_twin_of,
    grid_images,
    loud_fusion,
    their_weights,
    theirs,
)
from llama4_twin import loud_llama4, toy
from vision_twin import SMALL

from llama_from_scratch.config import FusionLlamaConfig
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.vision import attach, detach, early_fusion, image_layout
from llama_from_scratch.vision.early_fusion import FusionLlama, fuse_vision
from llama_from_scratch.vision.fusion_encoder import TileModel
from llama_from_scratch.vision.fusion_tiles import EncodedGridImages, GridImages

TOLERANCE = 1e-5  # of the largest number: what fp32 leaves over seven layers
LONG = dict(max_seq_len=256)


@functools.cache
def models():
    model = loud_fusion(toy(**LONG))
    return model, fusion_twin_of(model)


def distance(ours, expected):
    return ((ours - expected).abs().max() / expected.abs().max()).item()


GRIDS = (((1, 2), (1, 1)), (), ((3, 1),), ((1, 1), (2, 1), (2, 3)))
PROMPTS = [[5, IDS.image, 6, 7, IDS.image, 8], [4, 3, 2], [IDS.image, 9],
           [IDS.image, IDS.image, 1, IDS.image]]


def batch(model):
    """Ids, written out and filled up on the right, and images: several, none, and other grids."""
    images = grid_images(GRIDS)
    rows = model.written_out(PROMPTS, images)
    width = max(map(len, rows))
    return torch.tensor([row + [11 + b] * (width - len(row)) for b, row in enumerate(rows)]), images


# --- parity with transformers ---------------------------------------------------------------------


@pytest.mark.parametrize("fields", [
    dict(step=1, n_active=1), dict(step=2, n_active=2, has_qk_norm=False)],
    ids=["as Scout", "as Maverick, two experts"])
def test_logits_and_all_gradients_equal_transformers(fields):
    model = loud_fusion(toy(**fields, **LONG)).double()
    twin = fusion_twin_of(model).double()
    ids, images = batch(model)
    images = dataclasses.replace(images, pixels=images.pixels.double())
    ours, expected = model(ids, images=images), theirs(twin, ids, images)
    assert distance(ours, expected) < TOLERANCE
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2)).double()
    (ours * weights).mean().backward()
    (expected * weights).mean().backward()
    found = their_weights(model, lambda weight: weight.grad)
    parameters = dict(twin.named_parameters())
    assert found.keys() == parameters.keys()
    for name, gradient in found.items():
        reference = parameters[name].grad
        assert reference.abs().max() > 0, f"{name} does not matter, so nothing is compared"
        error = distance(gradient, reference)
        assert error < TOLERANCE, f"the gradient of {name} differs by {error:.1e}"


def test_logits_in_fp32_equal_transformers():
    model, twin = models()
    ids, images = batch(model)
    assert distance(model(ids, images=images), theirs(twin, ids, images)) < TOLERANCE


@pytest.mark.parametrize("size", [1, 2, 7, 200])
@torch.inference_mode()
def test_a_text_with_images_in_pieces_equals_transformers_whole_text(size):  # V1
    model, twin = models()
    ids, images = batch(model)
    x, cache = model.embed(ids, images=images), model.new_cache(batch_size=4, max_seq_len=200)
    found = []
    for piece in x.split(size, dim=1):
        inputs = model.prepare(piece, cache=cache)
        found.append(model.head(model.run(piece, inputs, cache=cache)))
    assert distance(torch.cat(found, dim=1), theirs(twin, ids, images)) < TOLERANCE


@torch.inference_mode()
def test_images_are_read_from_the_cache_after_the_prompt():  # V3
    model, twin = models()
    ids, images = batch(model)
    cache = model.new_cache(batch_size=4, max_seq_len=ids.shape[1] + 3)
    more = torch.randint(1, 80, (4, 3), generator=torch.Generator().manual_seed(4))
    calls = []
    hook = model.vision.register_forward_pre_hook(lambda *_: calls.append(1))
    found = [model(ids, images=images, cache=cache)]
    found += [model(more[:, i : i + 1], cache=cache) for i in range(3)]
    hook.remove()
    assert len(calls) == 1, "images are encoded once, with the prompt"
    expected = theirs(twin, torch.cat([ids, more], dim=1), images)
    assert distance(torch.cat(found, dim=1), expected) < TOLERANCE


@torch.inference_mode()
def test_a_batch_of_images_with_1_and_5_tiles_equals_its_rows_one_by_one():  # V27
    model, _ = models()
    rows = [(((1, 1),),), (((2, 2),),)]
    images = [grid_images(grids, seed=seed) for seed, grids in enumerate(rows)]
    both = GridImages(pixels=torch.cat([each.pixels for each in images]),
                      grids=tuple(each.grids[0] for each in images))
    prompts = model.written_out([[5, IDS.image, 6]] * 2, both)
    width = max(map(len, prompts))
    ids = torch.tensor([row + [9] * (width - len(row)) for row in prompts])
    assert len(both.pixels) == 1 + 5, "no tile of padding"
    together = model(ids, images=both)
    for b, each in enumerate(images):
        torch.testing.assert_close(model(ids[b : b + 1], images=each)[0], together[b])


# --- mistakes, each of which these comparisons find -----------------------------------------------


def rows_in_reverse_order(patch):
    original = FusionLlama.encode

    def encode(model, images):
        found = original(model, images)
        return dataclasses.replace(found, states=found.states.flip(0))

    patch.setattr(FusionLlama, "encode", encode)


def tokens_of_a_tile_transposed(patch):
    original = FusionLlama.encode

    def encode(model, images):
        found = original(model, images)
        return dataclasses.replace(found, states=found.states.unflatten(1, (2, 2)).transpose(
            1, 2).flatten(1, 2))

    patch.setattr(FusionLlama, "encode", encode)


def tiles_interleaved(patch):
    original = FusionLlama.encode

    def encode(model, images):
        found = original(model, images)
        mixed = found.states.transpose(0, 1).reshape(found.states.shape)
        return dataclasses.replace(found, states=mixed)

    patch.setattr(FusionLlama, "encode", encode)


def added_to_the_embedding(patch):
    original = FusionLlama.embed

    def embed(model, ids, *, images=None):
        return original(model, ids, images=images) + Llama.embed(model, ids) * (
            ids == IDS.patch)[..., None]

    patch.setattr(FusionLlama, "embed", embed)


def global_tile_first(patch):
    original = early_fusion.FusionLlama.encode

    def encode(model, images):
        found, first, states = original(model, images), 0, []
        for grid in (grid for row in images.grids for grid in row):
            n = image_layout.n_tiles(grid)
            states.append(found.states[first : first + n].roll(1, 0))
            first += n
        return dataclasses.replace(found, states=torch.cat(states))

    patch.setattr(FusionLlama, "encode", encode)


def projector_left_out(patch):
    patch.setattr(TileModel, "forward", lambda model, pixels: model.projector.weight.new_zeros(
        len(pixels), TILE.n_tokens, TILE.output_dim))


@pytest.mark.parametrize("mistake", [
    rows_in_reverse_order, tokens_of_a_tile_transposed, tiles_interleaved, added_to_the_embedding,
    global_tile_first, projector_left_out])
@torch.no_grad()
def test_the_comparison_sees_a_planted_mistake(mistake, monkeypatch):
    model, twin = models()
    ids, images = batch(model)
    expected = theirs(twin, ids, images)
    mistake(monkeypatch)
    assert distance(model(ids, images=images), expected) > 100 * TOLERANCE


# --- what an image may change ---------------------------------------------------------------------


@torch.inference_mode()
def test_another_image_changes_its_places_and_what_comes_after_and_nothing_before():  # V6
    model, _ = models()
    ids, images = batch(model)
    changed = images.pixels.clone()
    changed[3] += 1  # the second image of row 0, after the 3 tiles of its first
    found = model(ids, images=dataclasses.replace(images, pixels=changed))
    differs_BT = (found - model(ids, images=images)).abs().amax(-1) > 1e-6
    place = [i for i, token in enumerate(ids[0].tolist()) if token == IDS.patch][3 * TILE.n_tokens]
    assert not differs_BT[0, :place].any() and differs_BT[0, place:].any()
    assert not differs_BT[1:].any()


@torch.inference_mode()
def test_encoded_images_are_read_as_their_tiles_are():
    model, _ = models()
    ids, images = batch(model)
    assert torch.equal(model(ids, images=model.encode(images)), model(ids, images=images))


@torch.inference_mode()
def test_a_text_without_images_is_what_the_text_model_reads():
    model, _ = models()
    ids = torch.randint(1, 80, (2, 12), generator=torch.Generator().manual_seed(5))
    assert torch.equal(model(ids), detach(model)(ids))


@torch.inference_mode()
def test_a_patch_id_that_the_model_wrote_is_looked_up():
    model, twin = models()
    ids = torch.tensor([[5, 6, IDS.patch]])
    cache = model.new_cache(batch_size=1, max_seq_len=8)
    model(ids[:, :2], cache=cache)
    assert distance(model(ids[:, 2:], cache=cache)[:, 0], theirs(twin, ids)[:, -1]) < TOLERANCE


def test_images_train_the_encoder_and_the_text():
    model = loud_fusion(toy(**LONG))
    ids, images = batch(model)
    model(ids, images=images).square().mean().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_a_model_in_bf16_reads_images():
    model, _ = models()
    ids, images = batch(model)
    small = loud_fusion(toy(**LONG)).bfloat16()
    with torch.inference_mode():
        assert distance(small(ids, images=images), model(ids, images=images)) < 0.5


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_patches", [0, 3, 5])
def test_unequal_counts_of_ids_and_tokens_are_refused_with_both(n_patches):
    model, _ = models()
    ids = torch.tensor([[5, *[IDS.patch] * n_patches, 6]])
    message = f"row 0 has {n_patches} of these ids, and its images have 4 tokens"
    with pytest.raises(ValueError, match=message):
        model(ids, images=grid_images((((1, 1),),)))


def test_rows_may_not_lend_each_other_their_places():
    model, _ = models()
    ids = torch.tensor([[5] + [IDS.patch] * 4, [5] * 5])
    with pytest.raises(ValueError, match="row 0 has 4 of these ids, and its images have 0 tokens"):
        model(ids, images=grid_images(((), ((1, 1),))))


def test_places_without_images_are_refused():
    model, _ = models()
    ids = torch.tensor([[5, *[IDS.patch] * 4]])
    with pytest.raises(ValueError, match="row 0 has 4 of these ids, and its images have 0 tokens"):
        model(ids)
    cache = model.new_cache(batch_size=1, max_seq_len=8)
    with pytest.raises(ValueError, match="has 4 of these ids"):
        model(ids, cache=cache)
    assert cache.length == 0, "a refusal leaves no trace"


def test_images_of_another_encoder_are_refused():
    model, _ = models()
    ids = torch.tensor([[5, *[IDS.patch] * 4]])
    with pytest.raises(ValueError, match="edges of 56 pixels for this encoder; got 28"):
        model(ids, images=grid_images((((1, 1),),), px=28))
    states = EncodedGridImages(states=torch.zeros(1, 9, 32), grids=(((1, 1),),))
    with pytest.raises(ValueError, match=r"with the last two \(4, 32\); got \(1, 9, 32\)"):
        model(ids, images=states)
    with pytest.raises(ValueError, match="2 rows of ids and 1 rows of images"):
        model(ids.expand(2, -1), images=grid_images((((1, 1),),)))


# --- the verb and its reverse ---------------------------------------------------------------------


def test_fused_and_detached_models_have_the_very_parts_of_the_text_model():
    text = loud_llama4(toy())
    expected = dict(text.named_parameters())
    model = fuse_vision(text, TILE, image_ids=IDS)
    assert type(model.config) is FusionLlamaConfig and model.config.text == text.config
    assert all(dict(model.named_parameters())[name] is w for name, w in expected.items())
    again = detach(model)
    assert type(again) is Llama and again.config == text.config
    assert list(dict(again.named_parameters()).items()) == list(expected.items())
    assert all(w is dict(text.named_parameters())[name] for name, w in again.named_parameters())


def test_a_config_makes_the_model_that_it_describes():
    config = loud_fusion().config
    torch.manual_seed(0)
    model = config.new_model()
    assert type(model) is FusionLlama and model.config == config
    assert model.tiling.size_px == TILE.tile_px and model.tiling.max_tiles == TILE.max_tiles
    torch.manual_seed(1)
    model.init_weights()
    assert sum(w.numel() for w in model.parameters()) == config.n_params


def test_a_new_encoder_is_on_the_device_and_in_the_dtype_of_its_text():
    model = fuse_vision(loud_llama4(toy()).bfloat16().eval(), TILE, image_ids=IDS)
    assert {w.dtype for w in model.parameters()} == {torch.bfloat16} and not model.training


def test_only_a_text_model_is_fused():
    model = loud_fusion()
    with pytest.raises(ValueError, match="is fused with a Llama; got"):
        fuse_vision(torch.nn.Linear(2, 2), TILE, image_ids=IDS)
    with pytest.raises(ValueError, match="has an encoder already"):
        fuse_vision(model, TILE, image_ids=IDS)
    with pytest.raises(ValueError, match="has an encoder already"):
        attach(model, SMALL)
    with pytest.raises(ValueError, match="output_dim must be 32; got 8"):
        fuse_vision(detach(model), dataclasses.replace(TILE, output_dim=8), image_ids=IDS)
