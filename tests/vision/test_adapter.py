"""A text model that sees: against transformers, against itself in pieces, and with mistakes in it.

Every gate is open. A fresh adapter ignores its images, so a comparison with one proves nothing.
"""

import dataclasses
import functools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from seeing_twin import (
    IMAGE,
    TEXT,
    VISION,
    batch,
    crosses,
    hugging_face_layers,
    loud,
    pictures,
    row_of,
    theirs,
    theirs_of,
    twin_of,
)
from torch import nn
from torch.nn import functional as F

from llama_from_scratch.config import VisionLlamaConfig
from llama_from_scratch.model.mask import GivenMask
from llama_from_scratch.model.rope import Rotate
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.vision import adapter, encoder, image_mask
from llama_from_scratch.vision.adapter import attach, detach, usual_cross_layers
from llama_from_scratch.vision.cross_attention import CrossAttention, CrossBlock, SeeingBlock
from llama_from_scratch.vision.encoder import Gate, PositionEmbedding, TileEmbedding
from llama_from_scratch.vision.tiles import TiledImages

TOLERANCE = 1e-5  # of the largest number: what fp32 leaves over twelve layers


@functools.cache
def models():
    model = loud()
    return model, twin_of(model)


def distance(ours, expected):
    return ((ours - expected).abs().max() / expected.abs().max()).item()


@torch.inference_mode()
def in_pieces(model, ids, images, *, size):
    """Logits of a text that is read `size` tokens at a time; the images come first."""
    cache = model.new_cache(batch_size=len(ids), max_seq_len=ids.shape[1])
    return torch.cat([model(ids[:, at : at + size], images=images if at == 0 else None, cache=cache)
                      for at in range(0, ids.shape[1], size)], dim=1)


# --- parity with transformers ---------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["meta", "transformers"])
def test_logits_and_all_gradients_equal_transformers_with_every_gate_open(rule):
    model = loud()
    twin = twin_of(model)
    gates = [part.weight for part in model.modules() if isinstance(part, Gate)]
    assert len(gates) == 3 + 2 * VISION.n_global_layers + 2 * len(model.config.cross_layers)
    assert all(gate.abs() > 0.2 for gate in gates)
    model.sees_before_images = rule == "transformers"
    ids, images = batch()
    ours, expected = model(ids, images=images), theirs(twin, ids, images, rule=rule)
    assert distance(ours, expected) < TOLERANCE
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2))
    (ours * weights).mean().backward()
    (expected * weights).mean().backward()
    parameters = dict(twin.named_parameters())
    for name, weight in model.named_parameters():
        for there, gradient in theirs_of(name, weight.grad, model,
                                         *hugging_face_layers(model.config)):
            reference = parameters[there].grad
            if name in ("tok_embeddings.weight", "image_embeddings.weight"):
                first = 0 if name.startswith("tok") else TEXT.vocab_size
                reference = reference[first : first + len(gradient)]
            assert reference.abs().max() > 0, f"{name} does not matter, so nothing is compared"
            error = distance(gradient, reference.reshape(gradient.shape))
            assert error < TOLERANCE, f"the gradient of {name} differs by {error:.1e}"


@pytest.mark.parametrize("number", range(1, 9))
def test_an_image_of_each_aspect_ratio_equals_transformers(number):
    model, twin = models()
    ids = torch.tensor([[4, IMAGE, 7, 9, 11]])
    assert distance(model(ids, images=pictures([[number]])),
                    theirs(twin, ids, pictures([[number]]))) < TOLERANCE


def test_the_two_rules_differ_only_where_a_text_begins_without_an_image():
    _, twin = models()
    ids, images = batch()
    meta, other = (theirs(twin, ids, images, rule=rule) for rule in ("meta", "transformers"))
    assert distance(other[1], meta[1]) < TOLERANCE  # row 1 begins with its image
    assert all(distance(other[row], meta[row]) > 0.01 for row in (0, 2, 3))


@pytest.mark.parametrize("size", [1, 2, 7, 14])
def test_pieces_equal_transformers_whole_text(size):
    model, twin = models()
    ids, images = batch()
    assert distance(in_pieces(model, ids, images, size=size), theirs(twin, ids, images)) < TOLERANCE


# --- mistakes, each of which these comparisons find -----------------------------------------------


def zeroed(kind):
    def plant(model, patch):
        for block in crosses(model):
            nn.init.zeros_(getattr(block, kind).weight)
    return plant


def replaced(owner, name, make):
    """A mistake that puts `make(original)` in the place of a function or method."""
    def plant(model, patch):
        patch.setattr(owner, name, make(getattr(owner, name)))
    return plant


def without(kind):
    def plant(model, patch):
        for block in crosses(model):
            setattr(block.attention, kind, nn.Identity())
    return plant


def moved(before, after):
    """Cross blocks come before other text layers."""
    def plant(model, patch):
        cross = model.layers[before].cross
        model.layers[before] = model.layers[before].without_cross()
        seeing = SeeingBlock(model.layers[after], model.config)
        seeing.cross = cross
        model.layers[after] = seeing
    return plant


def masks(change):
    """`change` gets the dense mask (B, 1, T, I, J, n) and returns another one."""
    def make(original):
        def wrong(sees, slots, *, max_tiles, n_tokens):
            given, sees_image = original(sees, slots, max_tiles=max_tiles, n_tokens=n_tokens)
            mask = given.mask.unflatten(-1, (-1, max_tiles, n_tokens))
            return GivenMask(mask=change(mask, sees_image).flatten(3)), sees_image
        return wrong
    return replaced(adapter, "image_token_mask", make)


def no_rows_hidden(block, x, images, *, cache):
    x = x + block.attention_gate(block.attention(block.attention_norm(x), images, cache=cache))
    return x + block.ffn_gate(block.feed_forward(block.ffn_norm(x)))


def ffn_first(block, x, images, *, cache):
    sees = images.sees_image[..., None]
    x = x + block.ffn_gate(block.feed_forward(block.ffn_norm(x)) * sees)
    return x + block.attention_gate(block.attention(block.attention_norm(x), images, cache=cache))


def with_rope(part, x, images, *, cache):
    q = part.q_norm(part.wq(x).unflatten(-1, (-1, part.head_dim)))
    keys, values = part.keys_and_values(images.states)
    turn = torch.polar(torch.ones(1), torch.arange(x.shape[1])[None, :, None]
                       * torch.logspace(0, -3, part.head_dim // 2))
    q, _ = Rotate()(q, q, turn)
    found = part.attend(q, keys, values, images.visible).flatten(-2)
    return part.wo(found * images.sees_image[..., None])


def heads_by_turn(part, x, images, *, cache):
    """Query head h reads key/value head h % G."""
    q = part.q_norm(part.wq(x).unflatten(-1, (-1, part.head_dim)))
    k, v = part.keys_and_values(images.states)
    n = q.shape[2] // k.shape[2]
    found = part.attend(q, k.repeat(1, 1, n, 1), v.repeat(1, 1, n, 1), images.visible).flatten(-2)
    return part.wo(found * images.sees_image[..., None])


def normed_values(part, states):
    heads = (-1, part.head_dim)
    return (part.k_norm(part.wk(states).unflatten(-1, heads)),
            part.k_norm(part.wv(states).unflatten(-1, heads)))


def norm_over_all_heads(part, x, images, *, cache):
    q = part.wq(x)
    q = F.rms_norm(q, q.shape[-1:], eps=part.q_norm.eps).unflatten(-1, (-1, part.head_dim))
    keys, values = part.keys_and_values(images.states)
    found = part.attend(q * part.q_norm.weight, keys, values, images.visible).flatten(-2)
    return part.wo(found * images.sees_image[..., None])


def sights(change):
    """`change` gets (first, end, is_image) and returns another (first, end)."""
    def make(original):
        def wrong(is_image, **more):
            right = original(is_image, **more)
            first, end = change(right.first, right.end, is_image)
            return image_mask.Sight(first=first, end=end)
        return wrong
    return replaced(adapter, "sight", make)


MISTAKES = {
    "attention gates zeroed": zeroed("attention_gate"),
    "feed-forward gates zeroed": zeroed("ffn_gate"),
    "tanh left out of the gates": replaced(Gate, "forward", lambda _: lambda gate, x:
                                           gate.weight * x),
    "q norm left out": without("q_norm"),
    "k norm left out": without("k_norm"),
    "norm over all heads at once": replaced(CrossAttention, "forward", lambda _:
                                            norm_over_all_heads),
    "values normed like keys": replaced(CrossAttention, "keys_and_values", lambda _: normed_values),
    "RoPE in cross-attention": replaced(CrossAttention, "forward", lambda _: with_rope),
    "key/value heads taken in turn": replaced(CrossAttention, "forward", lambda _: heads_by_turn),
    "feed-forward before attention": replaced(CrossBlock, "forward", lambda _: ffn_first),
    "feed-forward of tokens that see nothing": replaced(CrossBlock, "forward", lambda _:
                                                        no_rows_hidden),
    "cross blocks one layer too late": moved(3, 4),
    "mask transposed: tiles before images": masks(lambda mask, _: mask.transpose(3, 4).reshape(
        mask.shape)),
    "unused tiles visible": masks(lambda mask, _: mask.any(4, keepdim=True).expand_as(mask)),
    "only the first tile visible": masks(lambda mask, sees: mask & (
        (torch.arange(4) == 0)[:, None] | ~sees[:, None, :, None, None, None])),
    "only the class tokens visible": masks(lambda mask, sees: mask & (
        (torch.arange(mask.shape[5]) == 0) | ~sees[:, None, :, None, None, None])),
    "the image token itself sees nothing": sights(lambda first, end, is_image: (
        first, torch.where(is_image, end - 1, end).maximum(first))),
    "adjacent images do not belong together": sights(lambda first, end, _: (
        first.maximum(end - 1), end)),
    "all earlier images stay visible": sights(lambda first, end, _: (first * 0, end)),
    "tokens before an image see it": sights(lambda first, end, _: (first, end.clamp(min=1))),
    "tile embedding left out": replaced(TileEmbedding, "forward", lambda _: lambda part, x, ids: x),
    "aspect ids off by one": replaced(TileEmbedding, "forward", lambda original:
                                      lambda part, x, ids: original(part, x, (ids - 1) % 9)),
    "places in the canvas of the wrong id": replaced(
        PositionEmbedding, "forward", lambda original:
        lambda part, x, ids: original(part, x, (ids + 1) % 9)),
    "intermediate states layer by layer": replaced(encoder, "interleaved", lambda _: lambda states:
                                                   torch.cat(states, dim=-1)),
    "projector without its bias": lambda model, patch: nn.init.zeros_(model.vision.projector.bias),
    "image id looked up among the text's": replaced(
        adapter.VisionLlama, "look_up", lambda _: lambda model, ids:
        model.tok_embeddings(ids.clamp(max=TEXT.vocab_size - 1))),
    "tokens that see nothing attend": lambda model, patch: setattr(model, "sees_before_images",
                                                                   True),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_the_comparison_finds(name, monkeypatch):
    _, twin = models()
    ids, images = batch()
    wrong = loud()
    with torch.no_grad():
        MISTAKES[name](wrong, monkeypatch)
        error = distance(wrong(ids, images=images), theirs(twin, ids, images))
    assert error > 100 * TOLERANCE, f"{name} changes logits by only {error:.1e}"


def test_the_comparison_finds_states_that_leave_a_layer_instead_of_entering_it():
    _, twin = models()
    ids, images = batch()
    wrong, right = loud(), loud()
    wrong.vision.encoder.config = dataclasses.replace(VISION, intermediate_layers=(0, 1, 3))
    with torch.no_grad():
        assert distance(right(ids, images=images), theirs(twin, ids, images)) < TOLERANCE
        assert distance(wrong(ids, images=images), theirs(twin, ids, images)) > 100 * TOLERANCE


# --- the text model stays what it was -------------------------------------------------------------


def test_the_parts_of_the_text_model_are_the_very_same_and_come_back():
    text = Llama(TEXT)
    model = attach(text, VISION, cross_layers=(1, 3))
    plain = detach(model)
    assert type(plain) is Llama and plain.config == text.config
    ours, back = dict(model.named_parameters()), dict(plain.named_parameters())
    assert list(back) == list(dict(text.named_parameters()))
    for name, weight in text.named_parameters():
        assert ours[name] is weight and back[name] is weight


def test_a_text_without_images_gives_the_same_bits_attached_or_not():
    model = loud()
    text = detach(model)
    ids = torch.randint(0, IMAGE, (3, 12), generator=torch.Generator().manual_seed(5))
    assert torch.equal(model(ids), text(ids))
    (model(ids).square().mean()).backward()
    ours = {name: weight.grad.clone() for name, weight in text.named_parameters()}
    text.zero_grad()
    text(ids).square().mean().backward()
    assert all(torch.equal(ours[name], weight.grad) for name, weight in text.named_parameters())
    with torch.inference_mode():
        caches = [each.new_cache(batch_size=3, max_seq_len=12) for each in (model, text)]
        for at in range(0, 12, 5):
            left, right = (each(ids[:, at : at + 5], cache=cache)
                           for each, cache in zip((model, text), caches, strict=True))
            assert torch.equal(left, right)


def test_a_row_of_text_in_a_batch_with_images_has_the_text_models_bits():
    model = loud()
    ids, images = batch()
    ids[:, :] = torch.where(ids == IMAGE, 1, ids)
    text = detach(model)(ids)
    ids, images = batch()
    assert torch.equal(model(ids, images=images)[2], text[2])


def test_fresh_gates_leave_the_text_as_it_is_with_images_too():
    torch.manual_seed(0)
    text = Llama(TEXT)
    model = attach(text, VISION)
    ids, images = batch()
    closed = model(ids, images=images)
    embedded = model.head(model.run(x := model.embed(ids), Llama.prepare(model, x)))
    assert torch.equal(closed, embedded)


def test_attaching_keeps_dtype_mode_and_the_released_schedule():
    model = attach(Llama(TEXT).bfloat16().eval(), VISION)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert not model.training and not model.layers[0].cross.training
    assert model.config.cross_layers == (0, 4) and model.config.image_id == IMAGE
    assert usual_cross_layers(32) == tuple(range(3, 32, 4))
    assert usual_cross_layers(80) == tuple(range(3, 80, 4))


# --- the same by other ways -----------------------------------------------------------------------


def test_rows_of_a_batch_equal_each_row_alone():
    model, _ = models()
    ids, images = batch()
    together = model(ids, images=images)
    for row in range(len(ids)):
        alone = model(ids[row : row + 1], images=row_of(images, row))
        torch.testing.assert_close(alone[0], together[row], atol=2e-5, rtol=1e-5)


def test_equal_rows_have_equal_logits_and_other_orders_permute_them():
    model, _ = models()
    ids, images = batch()
    order = [3, 0, 2, 1, 0]
    permuted = TiledImages(pixels=images.pixels[order], aspect_ids=images.aspect_ids[order])
    out, expected = model(ids[order], images=permuted), model(ids, images=images)[order]
    assert torch.equal(out[1], out[4])
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


def test_padding_on_the_left_changes_nothing():
    model, _ = models()
    ids, images = torch.tensor([[3, IMAGE, 5, 6]]), pictures([[6]])
    padded = torch.tensor([[0, 0, 3, IMAGE, 5, 6]])
    documents = torch.tensor([[-1, -1, 0, 0, 0, 0]])
    out = model(padded, images=images, documents=documents,
                positions=torch.tensor([[0, 0, 0, 1, 2, 3]]))
    torch.testing.assert_close(out[:, 2:], model(ids, images=images), atol=1e-5, rtol=1e-5)


def test_documents_in_one_row_do_not_see_each_others_images():
    model, _ = models()
    first, second, images = [3, IMAGE, 5], [IMAGE, 7, 8, 9], pictures([[6, 2]])
    ids, documents = torch.tensor([first + second]), torch.tensor([[0] * 3 + [1] * 4])
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3]])
    out = model(ids, images=images, documents=documents, positions=positions)
    for number, (text, span) in enumerate(((first, slice(0, 3)), (second, slice(3, 7)))):
        alone = TiledImages(pixels=images.pixels[:, number : number + 1],
                            aspect_ids=images.aspect_ids[:, number : number + 1])
        torch.testing.assert_close(out[:, span], model(torch.tensor([text]), images=alone),
                                   atol=1e-5, rtol=1e-5)


def test_images_may_come_with_the_piece_that_shows_them_or_before():
    model, _ = models()
    ids, images = torch.tensor([[3, IMAGE, 5, IMAGE, IMAGE, 6]]), pictures([[6, 2, 3]])
    part = [TiledImages(pixels=images.pixels[:, span], aspect_ids=images.aspect_ids[:, span])
            for span in (slice(0, 1), slice(1, 3))]
    with torch.inference_mode():
        cache = model.new_cache(batch_size=1, max_seq_len=6)
        out = torch.cat([model(ids[:, :3], images=part[0], cache=cache),
                         model(ids[:, 3:4], images=part[1], cache=cache),
                         model(ids[:, 4:], cache=cache)], dim=1)
    torch.testing.assert_close(out, model(ids, images=images), atol=1e-5, rtol=1e-5)


def test_encoded_images_can_be_asked_several_times():
    model, _ = models()
    images = pictures([[6], [2]])
    questions = torch.tensor([[IMAGE, 5, 6], [IMAGE, 7, 8], [IMAGE, 9, 1]])
    encoded = model.encode(images).rows([0, 1, 0])
    again = TiledImages(pixels=images.pixels[[0, 1, 0]], aspect_ids=images.aspect_ids[[0, 1, 0]])
    torch.testing.assert_close(model(questions, images=encoded), model(questions, images=again),
                               atol=1e-5, rtol=1e-5)


def test_images_of_padding_do_not_go_through_the_encoder():
    model, _ = models()
    counted = []
    hook = model.vision.register_forward_pre_hook(lambda _, args: counted.append(len(args[0])))
    states = model.encode(pictures([[6, 2, 1], [3, 0, 0], [0, 0, 0]])).states
    hook.remove()
    assert counted == [4]
    assert not states[1, 1:].any() and not states[2].any() and states[0].any()


@torch.inference_mode()
def test_keys_and_values_of_an_image_are_projected_once():
    model, counted = loud(), []
    for block in crosses(model):
        block.attention.wk.register_forward_pre_hook(lambda _, args: counted.append(args[0].shape))
    hook = model.vision.register_forward_pre_hook(lambda *_: counted.append("encoder"))
    ids, images = batch()
    in_pieces(model, ids, images, size=1)
    hook.remove()
    assert counted == ["encoder"] + [(4, 3 * 4 * VISION.n_tokens, TEXT.dim)] * len(crosses(model))


@torch.inference_mode()
def test_a_changed_second_image_changes_only_what_follows_its_id():
    model, _ = models()
    ids, images, other = torch.tensor([[IMAGE, 5, 6, IMAGE, 7, 8]]), *(
        pictures([[6, 2]], seed=seed) for seed in (1, 2))
    mixed = TiledImages(pixels=torch.cat([images.pixels[:, :1], other.pixels[:, 1:]], 1),
                        aspect_ids=images.aspect_ids)
    change = (model(ids, images=images) - model(ids, images=mixed)).abs().amax(-1)[0]
    assert change[:3].max() < 1e-5 and change[3:].min() > 1e-3


ALONE = """
import torch
from seeing_twin import IMAGE, batch, loud
from llama_from_scratch.vision.adapter import VisionLlama

model, (ids, images) = loud(), batch()
compiled = torch.compile(model, fullgraph=True, backend="eager")
encoded = model.encode(images)
with torch.inference_mode():
    for given in (images, encoded):
        torch.testing.assert_close(compiled(ids, images=given), model(ids, images=given))
    caches = [model.new_cache(batch_size=4, max_seq_len=32) for _ in range(2)]
    for each, cache in zip((compiled, model), caches):
        each(ids, images=encoded, cache=cache)
    for step in range(3):
        left, right = (each(ids[:, :1] * 0 + 7 + step, cache=cache)
                       for each, cache in zip((compiled, model), caches))
        torch.testing.assert_close(left, right)
try:
    model(ids, images=images.pixels)
except ValueError as problem:
    print(problem)
"""


def test_it_compiles_into_one_graph_for_prefill_and_for_decoding_and_knows_images_from_tensors():
    """In a process of its own, because pytest executes shapes and compilers cannot."""
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True,
                          cwd=Path(__file__).resolve().parents[1])
    assert done.stdout.startswith("images are given as tiles or encoded, as"), done.stderr


# --- at the door ----------------------------------------------------------------------------------


def test_more_images_than_ids_or_fewer_are_refused_with_both_numbers_and_the_row():
    model, _ = models()
    with pytest.raises(ValueError, match="row 1 has 1 of these ids and 2 images"):
        model(torch.tensor([[IMAGE, 1], [IMAGE, 2]]), images=pictures([[1, 0], [1, 2]]))
    with pytest.raises(ValueError, match="row 0 has 2 of these ids and 1 images"):
        model(torch.tensor([[IMAGE, IMAGE]]), images=pictures([[1]]))
    with pytest.raises(ValueError, match="row 0 has 1 of these ids and 0 images"):
        model(torch.tensor([[IMAGE, 3]]))
    with pytest.raises(ValueError, match="row 0 has 0 of these ids and 1 images"):
        model(torch.tensor([[4, 3]]), images=pictures([[1]]))


@torch.inference_mode()
def test_a_refused_pass_leaves_the_cache_as_it_was():
    model, _ = models()
    cache = model.new_cache(batch_size=1, max_seq_len=4)
    model(torch.tensor([[IMAGE, 3]]), images=pictures([[1]]), cache=cache)
    before = cache.length, cache.slots.numbers.tolist(), cache.n_bytes
    for ids, images in (([[IMAGE]], None), ([[1, 2, 3]], None), ([[IMAGE, 2, 3]], pictures([[1]])),
                        ([[5], [5]], pictures([[1], [1]]))):
        with pytest.raises(ValueError):
            model(torch.tensor(ids), images=images, cache=cache)
        assert (cache.length, cache.slots.numbers.tolist(), cache.n_bytes) == before


def test_images_for_other_rows_or_another_encoder_are_refused():
    model, _ = models()
    with pytest.raises(ValueError, match="2 rows of ids and 1 rows of images"):
        model(torch.tensor([[IMAGE], [IMAGE]]), images=pictures([[1]]))
    larger = dataclasses.replace(VISION, tile_px=16)
    with pytest.raises(ValueError, match="pixels must be .* 12, 12.*got .* 16, 16"):
        model(torch.tensor([[IMAGE]]), images=pictures([[1]], config=larger))
    encoded = attach(Llama(TEXT), larger).encode(pictures([[1]], config=larger))
    with pytest.raises(ValueError, match=r"last three \(4, 10, 32\).*Encode them with this model"):
        model(torch.tensor([[IMAGE]]), images=encoded)


def test_ids_after_the_vocabulary_are_known_and_others_are_not():
    model, _ = models()
    assert model.embed(torch.tensor([[IMAGE + 7]])).shape == (1, 1, TEXT.dim)
    with pytest.raises(ValueError, match=r"ids run from 0 to 57; got \[58\]"):
        model(torch.tensor([[58]]))
    with pytest.raises(ValueError, match=r"ids run from 0 to 57; got \[-1\]"):
        model(torch.tensor([[-1]]))
    with pytest.raises(ValueError, match="ids run from 0 to 49; got"):
        detach(model)(torch.tensor([[IMAGE]]))


def test_what_cannot_be_attached_is_refused():
    text = Llama(TEXT)
    with pytest.raises(ValueError, match="attached to a Llama; got"):
        attach(torch.nn.Linear(2, 2), VISION)
    with pytest.raises(ValueError, match="has an encoder already.*detach"):
        attach(attach(text, VISION), VISION)
    with pytest.raises(ValueError, match="vision.output_dim must be 32; got 20"):
        attach(text, dataclasses.replace(VISION, output_dim=20))
    with pytest.raises(ValueError, match="cross_layers must be .* from 0 to 4.*5"):
        attach(text, VISION, cross_layers=(1, 5))
    with pytest.raises(ValueError, match="image_id must be .* from 50 to 57; got 49"):
        attach(text, VISION, image_id=49)
    fields = {name: getattr(TEXT, name) for name in TEXT.__dataclass_fields__}
    with pytest.raises(ValueError, match="vision must be a VisionConfig; got"):
        VisionLlamaConfig(**fields, vision={"dim": 3}, cross_layers=(1,), image_id=IMAGE)
    with pytest.raises(ValueError, match="only a model that sees can be detached"):
        detach(text)


def test_a_cache_of_the_text_model_is_refused_with_what_differs():
    model, _ = models()
    with pytest.raises(ValueError, match="must be made for this model"):
        model(torch.tensor([[1]]), cache=detach(model).new_cache(batch_size=1, max_seq_len=4))


def test_a_config_that_sees_makes_no_text_model_by_mistake():
    model, _ = models()
    with pytest.raises(ValueError, match="got a VisionLlamaConfig.*config.new_model()"):
        Llama(model.config)


def test_a_config_makes_its_model_and_survives_json():
    model, _ = models()
    again = VisionLlamaConfig.from_dict(model.config.to_dict())
    assert again == model.config and again.text == TEXT
    made = again.new_model()
    shapes = {name: weight.shape for name, weight in model.named_parameters()}
    assert {name: weight.shape for name, weight in made.named_parameters()} == shapes
