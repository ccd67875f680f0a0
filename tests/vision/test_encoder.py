"""The vision encoder against transformers, with all gates open, and against planted mistakes.

Fresh models have closed gates, so their tile embeddings and global layers change nothing. A
comparison with such a model passes whatever these parts do.
"""

import dataclasses
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from vision_twin import RATIOS, SMALL, images, loud_vision, twin_of

from llama_from_scratch.model.mask import GivenMask
from llama_from_scratch.vision import encoder as encoder_module
from llama_from_scratch.vision.encoder import (
    TOKEN_MULTIPLE,
    Gate,
    PatchEmbedding,
    PositionEmbedding,
    TileEmbedding,
    VisionBlock,
    VisionEncoder,
    VisionFeedForward,
    VisionModel,
    interleaved,
    patches,
    who_sees_whom,
)

OTHER = dataclasses.replace(
    SMALL, dim=32, n_heads=2, n_local_layers=3, n_global_layers=1, intermediate_layers=(2,),
    tile_px=28, patch_px=14, max_tiles=3, aspect_ratios=((3, 1), (1, 1), (1, 2)), output_dim=7)
TOLERANCE = 1e-5  # of the largest number in a tensor: what fp32 leaves over seven layers


def assert_close(ours, theirs, name):
    error = (ours - theirs).abs().max() / theirs.abs().max()
    assert error <= TOLERANCE, f"{name} differs by {error:.1e} of its largest number"


def assert_parity(model, twin, pixels, ids):
    """The result, and the gradient of every parameter and of the pixels, equal transformers'."""
    ours, theirs = (pixels.clone().requires_grad_() for _ in range(2))
    found, expected = model(ours, ids), twin(theirs, ids)
    assert_close(found, expected, "the result")
    assert_close(model.encoder(ours, ids), twin.encode(theirs, ids), "the encoder's result")
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    (found * weights).mean().backward()
    (expected * weights).mean().backward()
    assert_close(ours.grad, theirs.grad, "the gradient of the pixels")
    for name, parameter in model.named_parameters():
        theirs_grad = twin.gradient(name, parameter.shape)
        assert theirs_grad.abs().max() > 0, f"{name} does not matter, so nothing is compared"
        assert_close(parameter.grad, theirs_grad, f"the gradient of {name}")


# --- parity ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [SMALL, OTHER], ids=["released ratios", "other ratios"])
def test_outputs_and_all_gradients_equal_transformers_with_every_gate_open(config):
    model = loud_vision(config)
    gates = [part.weight for part in model.modules() if isinstance(part, Gate)]
    assert len(gates) == 3 + 2 * config.n_global_layers
    assert all(gate.abs() > 0.2 for gate in gates)
    ids = tuple(range(len(config.n_tiles)))
    assert_parity(model, twin_of(model), *images(config, ids + ids[::2]))


@pytest.mark.parametrize("number", range(1 + len(RATIOS)))
def test_one_image_of_each_aspect_ratio_equals_transformers(number):
    model = loud_vision()
    pixels, ids = images(SMALL, (number,))
    assert_close(model(pixels, ids), twin_of(model)(pixels, ids), "the result")


def test_a_batch_of_rows_with_unequal_numbers_of_images_equals_transformers():
    """Their rows are padded with images of id 0; ours are the images of all rows in one list."""
    model = loud_vision()
    twin = twin_of(model)
    pixels, ids = images(SMALL, (6, 2, 8, 5, 0, 0))
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0],
                         [1, 0, 0, 0]])
    theirs = twin.model.vision_model(
        pixel_values=pixels.unflatten(0, (2, 3)), aspect_ratio_ids=ids.view(2, 3),
        aspect_ratio_mask=mask.view(2, 3, 4)).last_hidden_state
    assert_close(model.encoder(pixels, ids).unflatten(0, (2, 3)), theirs, "with padding")
    assert_close(model.encoder(pixels[:4], ids[:4]), theirs.flatten(0, 1)[:4], "without padding")


def test_a_state_that_enters_the_first_layer_is_the_first_state():
    """Transformers cannot name this one: it counts from the state that leaves the first layer."""
    config = dataclasses.replace(SMALL, intermediate_layers=(0,))
    model = loud_vision(config)
    pixels, ids = images()
    _, first = model.encoder(pixels, ids).split(config.dim, dim=-1)
    torch.testing.assert_close(first, model.encoder.embed(pixels, ids), rtol=0, atol=0)


# --- planted mistakes -----------------------------------------------------------------------------


def gates_zeroed(model, patch):
    for part in model.modules():
        if isinstance(part, Gate):
            part.init_weights()


def tile_embedding_before_left_out(model, patch):
    model.encoder.tiles_before.forward = lambda x, ids: x


def tile_embedding_after_left_out(model, patch):
    model.encoder.tiles_after.forward = lambda x, ids: x


def aspect_ratio_id_off_by_one_in_the_tile_embedding(model, patch):
    right = TileEmbedding.forward
    patch.setattr(TileEmbedding, "forward", lambda self, x, ids: right(self, x, (ids - 1) % 9))


def aspect_ratio_id_off_by_one_in_the_positions(model, patch):
    right = PositionEmbedding.forward
    patch.setattr(PositionEmbedding, "forward",
                  lambda self, x, ids: right(self, x, (ids - 1) % 9))


def aspect_ratio_id_off_by_one_in_the_mask(model, patch):
    model.encoder.n_tiles = model.encoder.n_tiles.roll(1)


def positions_in_the_tile_not_reduced_by_the_gate(model, patch):
    right = PositionEmbedding.forward
    patch.setattr(PositionEmbedding, "forward",
                  lambda self, x, ids: right(self, x, ids) + self.gate(self.in_tile))


def use_masks_of(function, patch):
    """Lets attention use the mask of `function` instead of groups of tokens."""
    right = encoder_module.VisionAttention.forward
    patch.setattr(encoder_module.VisionAttention, "forward", lambda self, x, visible: right(
        self, x, function(visible.n_tiles, max_tiles=visible.max_tiles,
                          n_tokens=visible.n_tokens, n_padded=visible.n_padded)))


def mask_transposed(model, patch):
    """Tokens first and then tiles, where the states have tiles first and then tokens."""
    def transposed(n_tiles, *, max_tiles, n_tokens, n_padded):
        right = who_sees_whom(n_tiles, max_tiles=max_tiles, n_tokens=n_tokens, n_padded=n_padded)
        cut = right.mask.view(len(n_tiles), 1, *(max_tiles, n_padded) * 2)
        return GivenMask(mask=cut.transpose(2, 3).transpose(4, 5).reshape(right.mask.shape))

    use_masks_of(transposed, patch)


def given_mask(patch, change):
    """Plants another mask; `change` makes it from what is empty, (I, T)."""
    def changed(n_tiles, **sizes):
        mask_ITT = who_sees_whom(n_tiles, **sizes).mask[:, 0]
        is_empty_IT = ~mask_ITT.diagonal(dim1=1, dim2=2)  # only an empty token misses itself
        return GivenMask(mask=change(is_empty_IT)[:, None])

    use_masks_of(changed, patch)


def unused_tiles_see_each_other(model, patch):
    given_mask(patch, lambda empty_IT: torch.ones_like(empty_IT[:, :, None] & empty_IT[:, None]))


def real_tokens_see_no_unused_tiles(model, patch):
    given_mask(patch, lambda empty_IT: ~empty_IT[:, None].expand(-1, empty_IT.shape[1], -1))


def padding_of_the_tiles_left_out(model, patch):
    patch.setattr(encoder_module, "TOKEN_MULTIPLE", 1)


def padding_before_the_tokens(model, patch):
    pad = F.pad
    patch.setattr(encoder_module, "F", SimpleNamespace(
        pad=lambda x, sides: pad(x, (*sides[:2], *sides[2:][::-1]))))


def intermediate_states_layer_by_layer(model, patch):
    patch.setattr(encoder_module, "interleaved", lambda states: torch.cat(states, dim=-1))


def intermediate_states_leave_their_layer(model, patch):
    def run_local(x, visible):
        leaving = []
        for block in model.encoder.local_layers:
            x = block(x, visible)
            leaving.append(x)
        return x, [leaving[i] for i in SMALL.intermediate_layers]

    model.encoder.run_local = run_local


def five_copies_of_the_last_local_state(model, patch):
    """What transformers 4.55.4 did."""
    right = model.encoder.run_local

    def run_local(x, visible):
        x, entering = right(x, visible)
        return x, [x] * len(entering)

    model.encoder.run_local = run_local


def norm_before_left_out(model, patch):
    model.encoder.norm_before.forward = lambda x: x


def norm_after_left_out(model, patch):
    model.encoder.norm_after.forward = lambda x: x


def global_layers_ungated(model, patch):
    for block in model.encoder.global_layers:
        block.attention_gate.forward = block.ffn_gate.forward = lambda x: x


def gates_without_tanh(model, patch):
    patch.setattr(Gate, "forward", lambda self, x: self.weight * x)


def norms_after_the_parts(model, patch):
    def forward(self, x, visible):
        x = x + self.attention_gate(self.attention_norm(self.attention(x, visible)))
        return x + self.ffn_gate(self.ffn_norm(self.feed_forward(x)))

    patch.setattr(VisionBlock, "forward", forward)


def class_token_last(model, patch):
    right = model.encoder.with_class_token
    model.encoder.with_class_token = lambda x: right(x).roll(-1, dims=2)


def class_token_before_the_tile_embedding(model, patch):
    """The class token of a tile gets the tile's vector too."""
    right, add = model.encoder.with_class_token, model.encoder.tiles_before
    empty = torch.zeros(10, SMALL.max_tiles, 1, SMALL.dim)

    def with_class_token(x):
        x = right(x)
        return torch.cat([x[:, :, :1] + add(empty, images()[1]), x[:, :, 1:]], dim=2)

    model.encoder.with_class_token = with_class_token


def gelu_by_tanh(model, patch):
    for part in model.modules():
        if isinstance(part, VisionFeedForward):
            part.activation = nn.GELU(approximate="tanh")


def colors_last_in_a_patch(model, patch):
    def forward(self, pixels):
        cut = patches(pixels, patch_px=self.patch_px).unflatten(-1, (3, -1))
        return self.linear(cut.transpose(-1, -2).flatten(-2))

    patch.setattr(PatchEmbedding, "forward", forward)


def patches_column_by_column(model, patch):
    def forward(self, pixels):
        return self.linear(patches(pixels.mT.contiguous(), patch_px=self.patch_px).unflatten(
            -1, (3, self.patch_px, self.patch_px)).mT.flatten(-3))

    patch.setattr(PatchEmbedding, "forward", forward)


MISTAKES = [
    gates_zeroed, tile_embedding_before_left_out, tile_embedding_after_left_out,
    aspect_ratio_id_off_by_one_in_the_tile_embedding, aspect_ratio_id_off_by_one_in_the_positions,
    aspect_ratio_id_off_by_one_in_the_mask, positions_in_the_tile_not_reduced_by_the_gate,
    mask_transposed, unused_tiles_see_each_other, real_tokens_see_no_unused_tiles,
    padding_of_the_tiles_left_out, padding_before_the_tokens, intermediate_states_layer_by_layer,
    intermediate_states_leave_their_layer, five_copies_of_the_last_local_state,
    norm_before_left_out, norm_after_left_out, global_layers_ungated, gates_without_tanh,
    norms_after_the_parts, class_token_last, class_token_before_the_tile_embedding, gelu_by_tanh,
    colors_last_in_a_patch, patches_column_by_column]


@pytest.mark.parametrize("ids", [tuple(range(9)), (6, 1, 6, 0), (7,), ()])
@pytest.mark.parametrize("config", [SMALL, OTHER], ids=["padded tiles", "others"])
def test_attention_by_groups_is_attention_with_the_mask(ids, config, monkeypatch):
    model, ids = loud_vision(config), tuple(i for i in ids if i < len(config.n_tiles))
    pixels, numbers = images(config, ids)
    by_groups = model.encoder(pixels, numbers.long())
    use_masks_of(who_sees_whom, monkeypatch)
    if ids:
        assert_close(by_groups, model.encoder(pixels, numbers), "the result")
    else:
        assert by_groups.shape[0] == 0


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_the_comparison_sees_a_planted_mistake(mistake, monkeypatch):
    model = loud_vision()
    twin = twin_of(model)
    mistake(model, monkeypatch)
    with pytest.raises(AssertionError, match=r"differs by [\d.]+e[-+]\d+ of its largest number"):
        assert_parity(model, twin, *images())


@pytest.mark.parametrize("mistake", [
    tile_embedding_before_left_out, tile_embedding_after_left_out,
    aspect_ratio_id_off_by_one_in_the_tile_embedding, aspect_ratio_id_off_by_one_in_the_positions])
def test_with_closed_gates_the_comparison_would_be_blind(mistake, monkeypatch):
    model = loud_vision()
    gates_zeroed(model, monkeypatch)
    twin = twin_of(model)
    mistake(model, monkeypatch)
    assert_close(model(*images()), twin(*images()), "the result")


# --- who sees whom --------------------------------------------------------------------------------


def test_only_two_empty_tokens_are_hidden_from_each_other():
    n_tiles = [1, 3, 2]
    mask = who_sees_whom(torch.tensor(n_tiles), max_tiles=3, n_tokens=2, n_padded=4).mask

    def is_empty(image, token):
        return token // 4 >= n_tiles[image] or token % 4 >= 2

    expected = [[[not (is_empty(i, t) and is_empty(i, s)) for s in range(12)] for t in range(12)]
                for i in range(3)]
    assert mask.shape == (3, 1, 12, 12) and mask[:, 0].tolist() == expected


def test_the_mask_of_a_real_token_hides_nothing():
    """Softmax over no key at all is not a number; every row must have a key."""
    for number in range(1 + len(RATIOS)):
        n_tiles = torch.tensor([SMALL.n_tiles[number]])
        mask = who_sees_whom(n_tiles, max_tiles=4, n_tokens=10, n_padded=16).mask[0, 0]
        assert mask.any(-1).all() and mask[:10].all()


def test_real_tiles_do_attend_to_unused_ones_as_in_the_released_models():
    """So unused tiles must be zero: other pixels there change the tiles next to them."""
    model = loud_vision()
    twin = twin_of(model)
    pixels, ids = images(SMALL, (2,))
    other = pixels.clone()
    other[:, 3] = 1.0
    ours, theirs = (each(other, ids) - each(pixels, ids) for each in (model, twin))
    assert ours[:, :2].abs().max() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_in_one_layer_an_unused_tile_changes_only_tiles_in_use():
    """Unused tiles do not see each other, nor the padding of any tile."""
    block = loud_vision().encoder.local_layers[0]
    visible = who_sees_whom(torch.tensor([2]), max_tiles=4, n_tokens=10, n_padded=16)
    x = torch.randn(1, 64, SMALL.dim)
    other = x.clone()
    other[:, 48:] += 1.0
    change = (block(other, visible) - block(x, visible)).abs().amax(-1)[0].view(4, 16)
    assert (change[:2, :10] > 0).all(), "real tokens"
    assert (change[:2, 10:] == 0).all() and (change[2] == 0).all(), "padding and an unused tile"


@pytest.mark.parametrize("side", range(1, 50))
def test_every_tile_is_padded(side):
    """A square plus 1 is no multiple of 8: no tile meets the rules of Meta and others at 0."""
    n = dataclasses.replace(SMALL, tile_px=side, patch_px=1).n_tokens
    assert -n % TOKEN_MULTIPLE in (3, 6, 7)


# --- batches --------------------------------------------------------------------------------------


def test_a_batch_equals_its_images_one_by_one_forward_and_gradients():
    model = loud_vision()
    pixels, ids = images()
    weights = torch.randn(model(pixels, ids).shape, generator=torch.Generator().manual_seed(2))
    together = model(pixels, ids)
    (together * weights).sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    for row in range(len(ids)):
        alone = model(pixels[row:row + 1], ids[row:row + 1])
        torch.testing.assert_close(alone, together[row:row + 1], rtol=0, atol=1e-5)
        (alone * weights[row:row + 1]).sum().backward()
    for (name, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
        assert_close(parameter.grad, gradient, name)


def test_permuting_the_images_permutes_the_results():
    model = loud_vision()
    pixels, ids = images()
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(model(pixels[order], ids[order]), model(pixels, ids)[order],
                               rtol=0, atol=1e-5)


def test_equal_images_give_equal_results():
    model = loud_vision()
    found = model(*(each.repeat_interleave(2, dim=0) for each in images(SMALL, (6, 3))))
    torch.testing.assert_close(found[::2], found[1::2], rtol=0, atol=1e-5)


def test_no_images_give_no_states():
    pixels, ids = images()
    assert loud_vision()(pixels[:0], ids[:0]).shape == (0, 4, 10, 20)


# --- parts ----------------------------------------------------------------------------------------


def test_the_patch_embedding_is_a_convolution_without_overlap():
    embedding = loud_vision().encoder.patch_embedding
    pixels, _ = images()
    kernel = embedding.linear.weight.view(SMALL.dim, 3, 4, 4)
    expected = F.conv2d(pixels.flatten(0, 1), kernel, stride=4).flatten(2).mT
    torch.testing.assert_close(embedding(pixels).flatten(0, 1), expected, rtol=0, atol=1e-5)


def test_a_patch_is_color_by_color_and_row_by_row():
    pixels = torch.arange(2 * 4 * 4.0).view(1, 1, 2, 4, 4)
    assert patches(pixels, patch_px=2)[0, 0].tolist() == [
        [0, 1, 4, 5, 16, 17, 20, 21], [2, 3, 6, 7, 18, 19, 22, 23],
        [8, 9, 12, 13, 24, 25, 28, 29], [10, 11, 14, 15, 26, 27, 30, 31]]


def test_states_are_interleaved_channel_by_channel():
    states = [torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[10.0, 20.0]]])]
    assert interleaved(states).tolist() == [[[1, 10, 2, 20]]]


def test_with_closed_gates_the_canvas_and_the_global_layers_change_nothing():
    torch.manual_seed(0)
    model = VisionModel(SMALL)
    assert all(part.weight == 0 for part in model.modules() if isinstance(part, Gate))
    pixels, _ = images(SMALL, (4, 4))
    result = model(pixels, torch.tensor([4, 6]))  # a row and a square of 4 tiles
    torch.testing.assert_close(result[0], model(pixels[:1], torch.tensor([8]))[0],
                               rtol=0, atol=1e-6)
    x = torch.randn(2, 64, SMALL.dim)
    visible = who_sees_whom(torch.tensor([4, 4]), max_tiles=4, n_tokens=10, n_padded=16)
    for block in model.encoder.global_layers:
        assert torch.equal(block(x, visible), x)


def test_a_closed_gate_can_open():
    torch.manual_seed(0)
    model = VisionModel(SMALL)
    model(*images()).square().mean().backward()
    gates = [part.weight for part in model.modules() if isinstance(part, Gate)]
    assert len(gates) == 7 and all(gate.grad.abs() > 0 for gate in gates)


def test_fresh_weights_follow_the_seed_and_are_drawn_again():
    def fresh():
        torch.manual_seed(5)
        return VisionModel(SMALL)

    first, second = fresh().state_dict(), fresh()
    assert all(torch.equal(first[name], weight) for name, weight in second.state_dict().items())
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.fill_(7.0)
    torch.manual_seed(5)
    second.init_weights()
    assert not any((parameter == 7.0).any() for parameter in second.parameters()), "all are drawn"


def test_a_model_in_bf16_takes_pixels_in_fp32_and_keeps_its_counts_of_tiles():
    model = loud_vision().bfloat16()
    assert model.encoder.n_tiles.tolist() == [1, 1, 2, 3, 4, 2, 4, 3, 4]
    assert model(*images()).dtype == torch.bfloat16
    assert model.state_dict().keys() == dict(model.named_parameters()).keys()


COMPILE = """
import torch
from vision_twin import images, loud_vision
model = loud_vision()
compiled = torch.compile(model, fullgraph=True, backend="eager")
torch.testing.assert_close(compiled(*images()), model(*images()), rtol=0, atol=1e-5)
print("equal")
"""


def test_the_encoder_compiles_as_one_graph():
    """In a process of its own, because pytest executes shapes and compilers cannot."""
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True,
                          cwd=Path(__file__).resolve().parents[1])
    assert done.stdout.strip() == "equal", done.stderr


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "got"), [
    ((1, 4, 3, 16, 16), r"got \(1, 4, 3, 16, 16\)"),
    ((1, 2, 3, 12, 12), r"got \(1, 2, 3, 12, 12\)"),
    ((1, 4, 4, 12, 12), r"got \(1, 4, 4, 12, 12\)")])
def test_tiles_of_another_encoder_are_refused(shape, got):
    rule = r"pixels must be \(I, 4, 3, 12, 12\) for this encoder: images, tiles, colors, .*"
    with pytest.raises(ValueError, match=rule + got):
        VisionEncoder(SMALL)(torch.zeros(shape), torch.tensor([1]))


@pytest.mark.parametrize("number", [9, -1])
def test_an_aspect_ratio_id_that_the_config_does_not_have_is_refused(number):
    pixels, _ = images(SMALL, (1, 2))
    with pytest.raises(ValueError, match=rf"run from 0 to 8; got \[1, {number}\]. Cut the image"):
        VisionEncoder(SMALL)(pixels, torch.tensor([1, number]))
    with pytest.raises(ValueError, match="run from 0 to 8"):
        VisionEncoder(SMALL).embed(pixels, torch.tensor([1, number]))


def test_ids_of_32_bits_are_ids_too():
    pixels, ids = images()
    model = loud_vision()
    assert torch.equal(model(pixels, ids.int()), model(pixels, ids))


SHAPES = """
import torch
from vision_twin import SMALL, images
from llama_from_scratch.vision import VisionEncoder
pixels, ids = images()
for wrong in ((pixels, ids.float()), (pixels, ids[:3]), (pixels, ids[:, None]), (pixels[0], ids),
              (pixels[None], ids), (pixels[..., :8], ids)):
    try:
        VisionEncoder(SMALL)(*wrong)
    except ValueError as error:
        print(error)
"""


def test_shapes_that_do_not_belong_together_are_refused_in_words():
    """In a process of its own, because pytest itself refuses them here, by the signatures."""
    done = subprocess.run([sys.executable, "-c", SHAPES], capture_output=True, text=True,
                          cwd=Path(__file__).resolve().parents[1])
    got = [line.partition("; got ")[2].partition(". Cut")[0] for line in done.stdout.splitlines()]
    assert got == ["(10,) of float32", "(3,) of int64", "(10, 1) of int64", "(4, 3, 12, 12)",
                   "(1, 10, 4, 3, 12, 12)", "(10, 4, 3, 12, 8)"], done.stderr
