import dataclasses

import pytest

from llama_from_scratch import family
from llama_from_scratch.checkpoint.plain import (
    LAYER_FIELDS,
    biases_of,
    ffn_dim_of,
    ffn_dims,
    odd_layers,
    plain_layers,
)
from llama_from_scratch.config import Dense, LayerSpec


@pytest.mark.parametrize("name", family.FAMILY)
def test_every_published_model_has_plain_layers_that_come_back(name):
    config = family.config(name)
    width = ffn_dim_of(config, rule="no rule is broken")
    assert odd_layers(config) == [] and ffn_dims(config) == (width,)
    again = dataclasses.replace(config, **plain_layers(config.n_layers, ffn_dim=width))
    assert again == config and set(plain_layers(1, ffn_dim=8)) <= set(LAYER_FIELDS)


def test_biases_are_those_that_the_layers_add():
    none = {"qkv": False, "wo": False, "ffn": False}
    config = family.tiny("llama-3")
    assert biases_of(config) == none
    assert biases_of(dataclasses.replace(config, has_qkv_bias=True)) == none | {"qkv": True}
    assert biases_of(dataclasses.replace(config, has_wo_bias=True)) == none | {"wo": True}
    assert biases_of(dataclasses.replace(config, has_ffn_bias=True)) == none | {"ffn": True}
    layers = (LayerSpec(feed_forward=Dense(width=config.ffn_dim, has_bias=True)),) * 4
    named = dataclasses.replace(config, layers=layers)
    assert biases_of(named) == none | {"ffn": True} and odd_layers(named) == []
    mixed = dataclasses.replace(config, layers=(*layers[:3], LayerSpec()))
    assert len(odd_layers(mixed)) == 1, "layers that add a bias and layers that do not"


@pytest.mark.parametrize("changes", [dict(has_rope=False), dict(chunk_size=16)])
def test_a_layer_that_no_text_format_has_words_for_is_named(changes):
    config = family.tiny("llama-3")
    odd = dataclasses.replace(config.layers[0], **changes)
    config = dataclasses.replace(config, layers=(config.layers[0], odd))
    assert odd_layers(config) == [str(odd)]
    with pytest.raises(ValueError, match=r"^layers are alike; got \['LayerSpec.*', "
                                         r"'LayerSpec.*'\]. Write another format"):
        ffn_dim_of(config, rule="layers are alike")
