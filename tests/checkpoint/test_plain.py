import dataclasses

import pytest

from llama_from_scratch import family
from llama_from_scratch.checkpoint.plain import (
    LAYER_FIELDS,
    ffn_dim_of,
    ffn_dims,
    odd_layers,
    plain_layers,
)


@pytest.mark.parametrize("name", family.FAMILY)
def test_every_published_model_has_plain_layers_that_come_back(name):
    config = family.config(name)
    width = ffn_dim_of(config, rule="no rule is broken")
    assert odd_layers(config) == [] and ffn_dims(config) == (width,)
    again = dataclasses.replace(config, **plain_layers(config.n_layers, ffn_dim=width))
    assert again == config and set(plain_layers(1, ffn_dim=8)) <= set(LAYER_FIELDS)


@pytest.mark.parametrize("changes", [dict(has_rope=False), dict(chunk_size=16)])
def test_a_layer_that_no_text_format_has_words_for_is_named(changes):
    config = family.tiny("llama-3")
    odd = dataclasses.replace(config.layers[0], **changes)
    config = dataclasses.replace(config, layers=(config.layers[0], odd))
    assert odd_layers(config) == [str(odd)]
    with pytest.raises(ValueError, match=r"^layers are alike; got \['LayerSpec.*', "
                                         r"'LayerSpec.*'\]. Write another format"):
        ffn_dim_of(config, rule="layers are alike")
