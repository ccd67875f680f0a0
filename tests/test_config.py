import dataclasses
import json

import pytest

from llama_from_scratch import family
from llama_from_scratch.config import (
    Dense,
    FeedForwardSpec,
    LayerSpec,
    LlamaConfig,
    RopeScaling,
    record,
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


def test_a_missing_field_is_named():
    with pytest.raises(ValueError, match="LlamaConfig needs rope_theta; got only"):
        LlamaConfig(**{k: v for k, v in SMALL.items() if k != "rope_theta"})


def test_nested_records_refuse_unknown_keys_too():
    plain = LlamaConfig(**SMALL).to_dict()
    with pytest.raises(ValueError, match=r"no field 'chunk'; did you mean 'chunk_size'\?"):
        LlamaConfig.from_dict(plain | {"layers": [{"chunk": 8}]})
    with pytest.raises(ValueError, match="RopeScaling has no field 'type'"):
        LlamaConfig.from_dict(plain | {"rope_scaling": {"type": "llama3"}})
    with pytest.raises(ValueError, match="low_freq_factor <= high_freq_factor"):
        RopeScaling(factor=8.0, low_freq_factor=4.0, high_freq_factor=1.0,
                    original_max_seq_len=8192)
    with pytest.raises(ValueError, match="chunk_size must be an int above 0; got -1"):
        LayerSpec(chunk_size=-1)


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LlamaConfig(**SMALL).dim = 128


@pytest.mark.parametrize("name", family.FAMILY)
def test_every_published_config_survives_json(name):
    config = family.config(name)
    assert LlamaConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_layer_with_its_own_feed_forward_survives_json():
    layers = (LayerSpec(), LayerSpec(feed_forward=Dense(width=40), chunk_size=8))
    config = LlamaConfig(**SMALL | dict(layers=layers))
    plain = json.loads(json.dumps(config.to_dict()))
    assert plain["layers"] == [
        {"has_rope": True, "chunk_size": None},
        {"has_rope": True, "chunk_size": 8, "feed_forward": {"kind": "dense", "width": 40}}]
    assert LlamaConfig.from_dict(plain) == config


def test_a_layer_is_as_wide_as_its_spec_says_or_else_as_the_config():
    config = LlamaConfig(**SMALL)
    assert config.feed_forward(LayerSpec()) == Dense(width=96)
    assert config.feed_forward(LayerSpec(feed_forward=Dense(width=40))) == Dense(width=40)


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"kind": "dens", "width": 40}, "no feed-forward is called 'dens'; did you mean 'dense'"),
        ({"width": 40}, "no feed-forward is called None; known: dense"),
        ({"kind": "dense", "widht": 40}, "Dense has no field 'widht'; did you mean 'width'"),
        ({"kind": "dense"}, "Dense needs width"),
        ({"kind": "dense", "width": 0}, r"Dense\.width must be an int above 0; got 0"),
    ],
)
def test_a_feed_forward_that_a_file_describes_wrongly_is_refused(plain, message):
    with pytest.raises(ValueError, match=message):
        LayerSpec.from_dict({"feed_forward": plain})


def test_a_feed_forward_that_is_no_spec_is_refused():
    with pytest.raises(ValueError, match=r"such as Dense\(width=256\), or None; got 256"):
        LayerSpec(feed_forward=256)


def test_a_feed_forward_that_files_cannot_name_is_not_written():
    @record
    class Narrow(Dense):
        """Even a record below `Dense` is another kind: read back, it would be a plain `Dense`."""

    @record
    class Sparse(FeedForwardSpec):
        n_experts: int

    for feed_forward in (Sparse(n_experts=8), Narrow(width=40)):
        config = LlamaConfig(**SMALL | dict(layers=(LayerSpec(feed_forward=feed_forward),)))
        with pytest.raises(ValueError, match="can name these feed-forwards: dense; this layer has"):
            config.to_dict()


def test_flops_count_two_per_weight_that_multiplies_and_the_attention_over_the_context():
    config = LlamaConfig(**SMALL)
    per_layer = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96
    assert config.flops_per_token(0) == 2 * (2 * per_layer + 100 * 64)
    assert config.flops_per_token(10) - config.flops_per_token(0) == 2 * 2 * 2 * 64 * 10
    tied = dataclasses.replace(config, is_tied=True)
    assert tied.flops_per_token(7) == config.flops_per_token(7)


@pytest.mark.parametrize(("name", "value"), [
    ("norm_eps", float("inf")), ("norm_eps", float("nan")), ("norm_eps", 1e-320),
    ("rope_theta", float("inf")), ("rope_theta", 1e300), ("rope_theta", 10**400),
    ("max_seq_len", 2**63), ("vocab_size", 10**400), ("norm_eps", [1e-5]), ("dim", {}),
])
def test_a_number_that_the_arithmetic_cannot_hold_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"LlamaConfig.{name} .*got"):
        LlamaConfig(**SMALL | {name: value})


@pytest.mark.parametrize("name", ["factor", "low_freq_factor", "high_freq_factor"])
def test_an_infinite_scaling_is_refused(name):
    given = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_seq_len=8192)
    with pytest.raises(ValueError, match=rf"RopeScaling.{name} .*got inf"):
        RopeScaling(**given | {name: float("inf")})


@pytest.mark.parametrize(("change", "message"), [
    (dict(layers=[1]), "LayerSpec is described by a JSON object; got 1"),
    (dict(layers=3), "layers must be a tuple with one LayerSpec per layer"),
    (dict(layers=[{"feed_forward": [1]}]), "LayerSpec.feed_forward is described by a JSON object"),
    (dict(layers=[{"feed_forward": {"kind": []}}]), r"no feed-forward is called \[\]"),
    (dict(rope_scaling=[8]), "LlamaConfig.rope_scaling is described by a JSON object"),
    (dict(is_tied="yes"), "LlamaConfig.is_tied must be True or False; got 'yes'"),
    ({"\x1b]0;X\x07": 1}, r"LlamaConfig has no field '\\x1b\]0;X\\x07'"),
])
def test_a_json_value_of_another_type_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        LlamaConfig.from_dict(LlamaConfig(**SMALL).to_dict() | change)
