"""What a config costs is what its model has; the arithmetic by hand is the reference."""

import dataclasses

import pytest
from llama4_twin import toy
from relatives import RELATIVES, UNEVEN

from llama_from_scratch import family
from llama_from_scratch.config import Dense, Experts, LayerSpec, LlamaConfig
from llama_from_scratch.model.costs import kv_values_per_token, param_counts, param_shapes
from llama_from_scratch.model.transformer import Llama

CONFIGS = {generation: family.tiny(generation) for generation in family.GENERATIONS}
CONFIGS["widths"] = dataclasses.replace(
    family.tiny("llama-3"), layers=(LayerSpec(), LayerSpec(feed_forward=Dense(width=40))) * 2)


@pytest.mark.parametrize("name", RELATIVES)
def test_the_shapes_of_a_relative_are_those_of_the_model_that_is_built(name):
    built = {n: tuple(p.shape) for n, p in Llama(RELATIVES[name]).named_parameters()}
    assert dict(param_shapes(RELATIVES[name])) == built


@pytest.mark.parametrize("name", [*RELATIVES, "uneven"])
def test_the_costs_of_a_relative_equal_the_arithmetic_by_hand(name):
    config = (RELATIVES | {"uneven": UNEVEN})[name]
    D, F, V, K = config.dim, config.ffn_dim, config.vocab_size, config.head_dim
    q, kv = config.n_heads * K, config.n_kv_heads * K
    matrices = {"attention": 2 * D * q + 2 * D * kv, "feed-forward": 3 * D * F}
    biases = {"attention": config.has_qkv_bias * (q + 2 * kv) + config.has_wo_bias * D,
              "feed-forward": config.has_ffn_bias * (2 * F + D)}
    counts = param_counts(config)
    assert {place: counts[place] for place in matrices} == {
        place: config.n_layers * (matrices[place] + biases[place]) for place in matrices}
    assert config.flops_per_token(0) == 2 * (config.n_layers * sum(matrices.values()) + V * D)
    assert config.flops_per_token(7) - config.flops_per_token(0) == config.n_layers * 4 * q * 7
    assert config.kv_bytes_per_token(2) == 2 * 2 * config.n_layers * kv


@pytest.mark.parametrize("name", CONFIGS)
def test_shapes_are_those_of_the_model_that_is_built_in_its_order(name):
    built = {n: tuple(p.shape) for n, p in Llama(CONFIGS[name]).named_parameters()}
    assert dict(param_shapes(CONFIGS[name])) == built
    assert list(param_shapes(CONFIGS[name])) == list(built)


@pytest.mark.parametrize("name", CONFIGS)
def test_counts_equal_the_arithmetic_by_hand(name):
    config = CONFIGS[name]
    D, V, kv = config.dim, config.vocab_size, config.n_kv_heads * config.head_dim
    widths = [config.feed_forward(spec).width for spec in config.layers]
    assert param_counts(config) == {
        "embedding": V * D, "attention": config.n_layers * (2 * D * D + 2 * D * kv),
        "feed-forward": sum(3 * D * width for width in widths),
        "norms": (2 * config.n_layers + 1) * D, "output": 0 if config.is_tied else V * D}


def test_flops_see_only_the_chunk_that_a_layer_sees():
    config = family.tiny("llama-3")
    chunked = dataclasses.replace(config, layers=(LayerSpec(chunk_size=8), LayerSpec()) * 2)
    at = chunked.flops_per_token
    assert at(8) == config.flops_per_token(8)
    assert at(20) - at(8) == 2 * 4 * config.dim * 12, "two of four layers look further than 8"


def test_flops_of_a_tied_head_are_those_of_its_product():
    tied = dataclasses.replace(family.tiny("llama-3"), is_tied=True)
    assert tied.flops_per_token(5) == family.tiny("llama-3").flops_per_token(5)


def test_the_cache_grows_by_a_key_and_a_value_per_layer_and_head():
    config = family.tiny("llama-3.1")
    assert kv_values_per_token(config) == 2 * 4 * config.n_kv_heads * config.head_dim


def test_changing_the_counts_that_were_returned_changes_no_later_ones():
    config = family.tiny("llama-2")
    counts = config.param_counts
    counts["embedding"] = 0
    assert config.param_counts["embedding"] == config.vocab_size * config.dim


@pytest.mark.parametrize("n_active", [1, 3])
def test_the_active_parameters_of_experts_are_counted_by_hand(n_active):
    config = toy(step=2, n_experts=4, n_active=n_active)
    n_moe = sum(isinstance(spec.feed_forward, Experts) for spec in config.layers)
    expert = 3 * config.dim * 24
    total = sum(p.numel() for p in Llama(config).parameters())
    assert config.n_params == total
    assert config.n_active_params == total - n_moe * (4 - n_active) * expert
    dense = family.tiny("llama-3")
    assert dense.n_active_params == dense.n_params


def test_flops_of_experts_are_those_of_the_chosen_ones_the_shared_one_and_the_router():
    one, three = (toy(n_layers=1, n_experts=4, n_active=n) for n in (1, 3))
    expert = 2 * 3 * one.dim * 24
    assert three.flops_per_token(0) - one.flops_per_token(0) == 2 * expert
    more = toy(n_layers=1, n_experts=64)
    assert more.flops_per_token(0) - one.flops_per_token(0) == 2 * one.dim * 60, "the router alone"


def test_the_published_sizes_of_llama_4_are_met():
    """The text models of Scout and Maverick, without their encoder."""
    for n_experts, step, total, active in ((16, 1, 107_769_861_120, 17_172_894_720),
                                           (128, 2, 400_711_848_960, 17_184_691_200)):
        layers = tuple(LayerSpec(
            has_rope=(i + 1) % 4 != 0, feed_forward=Experts(
                n_experts=n_experts, n_active=1, width=8192, shared_width=8192)
            if (i + 1) % step == 0 else Dense(width=16384)) for i in range(48))
        config = LlamaConfig(dim=5120, n_heads=40, n_kv_heads=8, ffn_dim=16384, vocab_size=202048,
                             max_seq_len=8192, norm_eps=1e-5, rope_theta=5e5, layers=layers)
        assert (config.n_params, config.n_active_params) == (total, active)
