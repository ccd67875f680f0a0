"""The names of a model that sees in each layout: each parameter once, and the numbers of layers."""

import dataclasses

import pytest
from seeing_checkpoints import CONFIG
from seeing_twin import hugging_face_layers

from llama_from_scratch.checkpoint.names import GGUF, HUGGING_FACE, META, shapes
from llama_from_scratch.checkpoint.translation import translation
from llama_from_scratch.checkpoint.vision_names import merged_layers, published_name, sections
from llama_from_scratch.model.costs import param_shapes


def test_every_parameter_has_a_row_in_exactly_one_section():
    names = [section.ours + row.ours for section in sections(CONFIG) for row in section.rows]
    assert len(set(names)) == len(names) and set(param_shapes(CONFIG)) <= set(names)


@pytest.mark.parametrize("format", [HUGGING_FACE, META])
def test_a_layout_has_one_tensor_for_each_parameter_but_for_the_two_embeddings(format):
    how = translation(format, CONFIG)
    assert how.ours == shapes(CONFIG) == param_shapes(CONFIG)
    n_shared = 1 if format is HUGGING_FACE else 0
    assert len(how.theirs) == len(how.ours) - n_shared
    assert sum(len(pieces) for pieces in how.by_theirs.values()) == len(how.ours)


def test_only_the_texts_own_queries_and_keys_are_in_halves():
    turned = {piece.ours for piece in translation(HUGGING_FACE, CONFIG).pieces if piece.n_heads}
    assert turned == {f"layers.{i}.attention.{w}.weight" for i in range(4) for w in ("wq", "wk")}
    assert not any(piece.n_heads for piece in translation(META, CONFIG).pieces)


def test_gguf_has_no_names_for_a_model_that_sees():
    with pytest.raises(ValueError, match="GGUF has no names for a model that sees images"):
        translation(GGUF, CONFIG)


def test_the_published_models_have_blocks_at_every_fifth_number():
    assert merged_layers(32, range(3, 32, 4)).cross == tuple(range(3, 40, 5))
    assert merged_layers(80, range(3, 80, 4)).cross == tuple(range(3, 100, 5))


@pytest.mark.parametrize("cross_layers", [(1, 3), (0,), (0, 1, 2, 3), (3,)])
def test_blocks_come_right_before_their_text_layer(cross_layers):
    config = dataclasses.replace(CONFIG, cross_layers=cross_layers)
    text, cross = hugging_face_layers(config)
    found = merged_layers(4, cross_layers)
    assert found.text == tuple(text.values()) and found.cross == tuple(cross.values())
    assert sorted(found.text + found.cross) == list(range(4 + len(cross_layers)))


@pytest.mark.parametrize(("newer", "published"), [
    ("model.language_model.layers.3.mlp.up_proj.weight",
     "language_model.model.layers.3.mlp.up_proj.weight"),
    ("model.vision_model.class_embedding", "vision_model.class_embedding"),
    ("model.multi_modal_projector.bias", "multi_modal_projector.bias"),
    ("lm_head.weight", "language_model.lm_head.weight"),
    ("language_model.model.norm.weight", "language_model.model.norm.weight"),
    ("model.norm.weight", "model.norm.weight")])
def test_newer_names_become_published_ones(newer, published):
    assert published_name(newer) == published
