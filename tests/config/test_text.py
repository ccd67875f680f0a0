import dataclasses
import json
import math

import pytest
from relatives import RELATIVES

from llama_from_scratch import family
from llama_from_scratch.config import (
    Dense,
    LayerSpec,
    LlamaConfig,
)

SMALL = dict(dim=64, n_heads=4, n_kv_heads=2, ffn_dim=96, vocab_size=100, max_seq_len=32,
             norm_eps=1e-5, rope_theta=1e4, layers=(LayerSpec(),) * 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(n_head=4), r"no field 'n_head'; did you mean 'n_heads'\?"),
        (dict(kv_heads=4), r"no field 'kv_heads'; did you mean 'n_kv_heads'\?"),
        (dict(n_kv_heads=3), "n_kv_heads must divide n_heads; got n_heads=4, n_kv_heads=3"),
        (dict(n_heads=6, n_kv_heads=6), "n_heads must divide it; got dim=64, n_heads=6"),
        (dict(dim=60), "dim / n_heads must be even; got 60 / 4 = 15"),
        (dict(explicit_head_dim=15), "explicit_head_dim must be even; got 15"),
        (dict(explicit_head_dim=0), "explicit_head_dim must be an int above 0; got 0"),
        (dict(explicit_head_dim=True), "explicit_head_dim must be an int above 0; got True"),
        (dict(has_qkv_bias=1), "LlamaConfig.has_qkv_bias must be True or False; got 1"),
        (dict(has_wo_bias=None), "has_wo_bias must be True or False; got None"),
        (dict(has_ffn_bias="no"), "has_ffn_bias must be True or False; got 'no'"),
        (dict(is_tied="yes"), "is_tied must be True or False; got 'yes'"),
        (dict(rope_scaling=8.0), "rope_scaling must be a RopeScaling or None; got 8.0"),
        (dict(norm_eps=math.inf), "norm_eps is used in fp32, whose numbers above 0 are 1.18e-38 "
                                  "to 3.4e[+]38; got inf"),
        (dict(norm_eps=math.nan), "norm_eps must be a number above 0; got nan"),
        (dict(norm_eps=1e-60), "norm_eps is used in fp32"),
        (dict(norm_eps=1.0), "norm_eps must be below 1; got 1.0"),
        (dict(rope_theta=math.inf), "rope_theta is used in fp32, .*; got inf"),
        (dict(rope_theta=math.nan), "rope_theta must be a number above 0; got nan"),
        (dict(rope_theta=1e60), "rope_theta is used in fp32, .*; got 1e[+]60"),
        (dict(rope_theta=10**400), "rope_theta is used in fp32, .*; got an int of 1329 bits"),
        (dict(dim=10**5000), "dim must be at most 9223372036854775807; got an int of 16610 bits"),
        (dict(dim=-(10**5000)), "dim must be an int above 0; got an int of 16610 bits"),
        (dict(vocab_size=2**63), "vocab_size must be at most 9223372036854775807"),
        (dict(max_seq_len=math.inf), "max_seq_len must be an int above 0; got inf"),
        (dict(dim=0), "LlamaConfig.dim must be an int above 0; got 0"),
        (dict(vocab_size=10.5), "vocab_size must be an int above 0; got 10.5"),
        (dict(n_heads=True), "n_heads must be an int above 0; got True"),
        (dict(norm_eps=-1e-5), "norm_eps must be a number above 0"),
        (dict(layers=()), "one LayerSpec per layer"),
        (dict(layers=4), "one LayerSpec per layer"),
    ],
)
def test_a_config_that_cannot_work_is_refused_with_the_rule_and_the_value(change, message):
    with pytest.raises(ValueError, match=message):
        LlamaConfig(**SMALL | change)


def test_heads_may_be_wider_or_narrower_than_their_share_of_dim():
    assert LlamaConfig(**SMALL).head_dim == 16
    assert LlamaConfig(**SMALL, explicit_head_dim=32).head_dim == 32
    assert LlamaConfig(**SMALL | dict(dim=60), explicit_head_dim=8).head_dim == 8
    uneven = LlamaConfig(**SMALL | dict(n_heads=6), explicit_head_dim=12)
    assert (uneven.n_heads, uneven.head_dim) == (6, 12)


def test_two_configs_of_one_model_are_equal():
    """A head that is as wide as its share of dim is the same, said or not."""
    said = LlamaConfig(**SMALL, explicit_head_dim=16)
    assert said == LlamaConfig(**SMALL) and hash(said) == hash(LlamaConfig(**SMALL))
    assert dataclasses.replace(said, dim=128).head_dim == 32


@pytest.mark.parametrize("name", RELATIVES)
def test_the_config_of_a_relative_survives_json(name):
    config = RELATIVES[name]
    assert LlamaConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_config_file_names_what_only_relatives_have_where_they_have_it():
    """So the files of every published model are what they were before, to the byte."""
    new = {"explicit_head_dim", "has_qkv_bias", "has_wo_bias", "has_ffn_bias",
           "rope_linear_factor"}
    assert not new & LlamaConfig(**SMALL).to_dict().keys()
    assert new & LlamaConfig(**SMALL, has_wo_bias=True).to_dict().keys() == {"has_wo_bias"}
    layers = (LayerSpec(feed_forward=Dense(width=40, has_bias=True)), LayerSpec())
    config = LlamaConfig(**SMALL | dict(layers=layers))
    assert config.to_dict()["layers"][0]["feed_forward"] == {
        "kind": "dense", "width": 40, "has_bias": True}
    assert LlamaConfig.from_dict(config.to_dict()) == config
    assert config.feed_forward(layers[1]) == Dense(width=96)
    assert dataclasses.replace(config, has_ffn_bias=True).feed_forward(layers[1]).has_bias


@pytest.mark.parametrize("name", family.FAMILY)
def test_every_published_config_survives_json(name):
    config = family.config(name)
    assert LlamaConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_flops_count_two_per_weight_that_multiplies_and_the_attention_over_the_context():
    config = LlamaConfig(**SMALL)
    per_layer = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96
    assert config.flops_per_token(0) == 2 * (2 * per_layer + 100 * 64)
    assert config.flops_per_token(10) - config.flops_per_token(0) == 2 * 2 * 2 * 64 * 10
    tied = dataclasses.replace(config, is_tied=True)
    assert tied.flops_per_token(7) == config.flops_per_token(7)


@pytest.mark.parametrize(("change", "message"), [
    (dict(layers=[1]), "LayerSpec must be a JSON object; got 1"),
    (dict(layers=3), "layers must be a tuple with one LayerSpec per layer"),
    (dict(layers=[{"feed_forward": [1]}]), "LayerSpec.feed_forward must be a JSON object"),
    (dict(layers=[{"feed_forward": {"kind": []}}]), r"no feed-forward is called \[\]"),
    (dict(rope_scaling=[8]), "LlamaConfig.rope_scaling must be a JSON object"),
    (dict(is_tied="yes"), "LlamaConfig.is_tied must be True or False; got 'yes'"),
    ({"\x1b]0;X\x07": 1}, r"LlamaConfig has no field '\\x1b\]0;X\\x07'"),
])
def test_a_json_value_of_another_type_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        LlamaConfig.from_dict(LlamaConfig(**SMALL).to_dict() | change)


# --- vision ---------------------------------------------------------------------------------------
