import dataclasses

import pytest
from llama4_files import KINDS, small

from llama_from_scratch import family
from llama_from_scratch.checkpoint.expert_layers import (
    every,
    expert_layers,
    has_experts,
    step_of,
)
from llama_from_scratch.config import Dense, TemperatureTuning

RULE = "the rule"


@pytest.mark.parametrize("name", [*family.EXPERTS, *KINDS])
def test_layers_come_back_from_the_terms_of_the_files(name):
    config = KINDS[name] if name in KINDS else family.config(name)
    assert expert_layers(config, rule=RULE).specs() == config.layers


def test_the_published_layers_have_the_published_pattern():
    scout, maverick = (expert_layers(family.config(f"llama-4-{name}-text"), rule=RULE)
                       for name in ("scout-17b-16e", "maverick-17b-128e"))
    assert scout.with_experts == tuple(range(48)) and scout.has_qk_norm
    assert maverick.with_experts == tuple(range(1, 48, 2)) and not maverick.has_qk_norm
    for layers in (scout, maverick):
        assert layers.without_rope == (3, 7, 11, 15, 19, 23, 27, 31, 35, 39, 43, 47)
        assert layers.chunked == tuple(i for i in range(48) if i not in layers.without_rope)
        assert layers.temperature == TemperatureTuning(floor=8192, strength=0.1)
        assert (layers.chunk_size, layers.ffn_dim, layers.experts.width) == (8192, 16384, 8192)


def test_only_a_llama_4_has_experts():
    assert has_experts(family.tiny("llama-4")) and has_experts(family.tiny("llama-4-vision"))
    assert not any(has_experts(row.config) for row in (family.FAMILY | family.VISION).values())


def test_a_dense_width_that_a_layer_names_is_the_width_of_the_file():
    config = small(step=2)
    named = dataclasses.replace(config, ffn_dim=999, layers=tuple(
        dataclasses.replace(spec, feed_forward=spec.feed_forward or Dense(width=40))
        for spec in config.layers))
    assert expert_layers(named, rule=RULE) == expert_layers(config, rule=RULE)


def changed(i, **fields):
    config = small(step=2)
    return dataclasses.replace(config, layers=tuple(
        dataclasses.replace(spec, **fields) if k == i else spec
        for k, spec in enumerate(config.layers)))


@pytest.mark.parametrize("config", [
    changed(0, has_qk_norm=False), changed(3, has_qk_norm=True), changed(0, chunk_size=8),
    changed(0, temperature=TemperatureTuning(floor=3, strength=0.1)),
    changed(0, feed_forward=Dense(width=48)),
    changed(0, feed_forward=Dense(width=40, has_bias=True)),
    changed(1, feed_forward=dataclasses.replace(small().layers[1].feed_forward, n_active=2)),
], ids=range(7))
def test_layers_that_the_terms_cannot_describe_are_refused_with_the_odd_layer(config):
    with pytest.raises(ValueError, match=r"^the rule; got \['LayerSpec.*\]. Write our own format"):
        expert_layers(config, rule=RULE)


def test_what_no_llama_4_has_is_refused():
    narrow = dataclasses.replace(small().layers[0].feed_forward, shared_width=8)
    with pytest.raises(ValueError, match=r"one width for routed and shared experts; got Experts"):
        expert_layers(dataclasses.replace(small(), layers=tuple(
            dataclasses.replace(spec, feed_forward=narrow) for spec in small().layers)), rule=RULE)
    with pytest.raises(ValueError, match=r"no biases, .* got has_qkv_bias=True"):
        expert_layers(dataclasses.replace(small(), has_qkv_bias=True), rule=RULE)
    with pytest.raises(ValueError, match=r"is a Llama 4, with experts; got layers without any"):
        expert_layers(family.tiny("llama-3"), rule=RULE)


def test_every_and_step_of_undo_each_other():
    assert every(4, 9) == (3, 7) and every(1, 3) == (0, 1, 2)
    for step in range(1, 10):
        assert step_of(every(step, 9), 9) == step
    assert step_of((0, 2), 4) is None and step_of((), 4) is None
