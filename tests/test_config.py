import dataclasses
import json
import math

import pytest
from relatives import RELATIVES

from llama_from_scratch import family
from llama_from_scratch.config import (
    Dense,
    FeedForwardSpec,
    LayerSpec,
    LlamaConfig,
    RopeScaling,
    VisionConfig,
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


@pytest.mark.parametrize("factor", [math.inf, math.nan, 1e60, 0])
def test_a_scaling_by_no_number_of_fp32_is_refused(factor):
    with pytest.raises(ValueError, match="RopeScaling.factor (must be a number above|is used in)"):
        RopeScaling(factor=factor, low_freq_factor=1.0, high_freq_factor=4.0,
                    original_max_seq_len=8192)


def test_heads_may_be_wider_or_narrower_than_their_share_of_dim():
    assert LlamaConfig(**SMALL).head_dim == 16
    assert LlamaConfig(**SMALL, explicit_head_dim=32).head_dim == 32
    assert LlamaConfig(**SMALL | dict(dim=60), explicit_head_dim=8).head_dim == 8
    uneven = LlamaConfig(**SMALL | dict(n_heads=6), explicit_head_dim=12)
    assert (uneven.n_heads, uneven.head_dim) == (6, 12)


def test_a_whole_number_in_the_place_of_a_float_becomes_one():
    config = LlamaConfig(**SMALL | dict(rope_theta=100000), rope_scaling=RopeScaling(
        factor=8, low_freq_factor=1, high_freq_factor=4, original_max_seq_len=8192))
    scaling = config.rope_scaling
    assert [type(x) for x in (config.rope_theta, scaling.factor, scaling.low_freq_factor,
                              scaling.high_freq_factor)] == [float] * 4
    assert config.n_params > 0, "a model can be built"


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
        with pytest.raises(ValueError, match="can name only these feed-forwards: dense; got "):
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

VISION = dict(dim=64, n_heads=4, ffn_dim=96, n_local_layers=4, n_global_layers=2,
              intermediate_layers=(1, 3), tile_px=28, patch_px=14, max_tiles=2,
              aspect_ratios=((1, 1), (1, 2), (2, 1)), norm_eps=1e-5, output_dim=48)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(n_head=4), r"VisionConfig has no field 'n_head'; did you mean 'n_heads'\?"),
        (dict(n_heads=5), "n_heads must divide it; got dim=64, n_heads=5"),
        (dict(dim=0), "VisionConfig.dim must be an int above 0; got 0"),
        (dict(dim=64.0), r"VisionConfig.dim must be an int above 0; got 64\.0"),
        (dict(ffn_dim=True), "VisionConfig.ffn_dim must be an int above 0; got True"),
        (dict(n_local_layers=0), "VisionConfig.n_local_layers must be an int above 0; got 0"),
        (dict(n_global_layers=-1), "VisionConfig.n_global_layers must be an int above 0; got -1"),
        (dict(output_dim="48"), "VisionConfig.output_dim must be an int above 0; got '48'"),
        (dict(norm_eps=math.nan), "VisionConfig.norm_eps must be a number above 0; got nan"),
        (dict(norm_eps=1.0), "VisionConfig.norm_eps must be below 1; got 1.0"),
        (dict(tile_px=30), "patch_px must divide tile_px; got tile_px=30, patch_px=14"),
        (dict(patch_px=2**63), "VisionConfig.patch_px must be at most"),
        (dict(intermediate_layers=()), r"from 0 to 3, with at least one; got \(\)"),
        (dict(intermediate_layers=(3, 1)), r"ascending numbers of local layers, .*got \(3, 1\)"),
        (dict(intermediate_layers=(1, 1)), r"ascending numbers of local layers, .*got \(1, 1\)"),
        (dict(intermediate_layers=(1, 4)), r"from 0 to 3, with at least one; got \(1, 4\)"),
        (dict(intermediate_layers=(-1, 2)), r"from 0 to 3, with at least one; got \(-1, 2\)"),
        (dict(intermediate_layers=(0, True)), r"numbers of local layers, .*got \(0, True\)"),
        (dict(intermediate_layers=3), "intermediate_layers must be a tuple of .*; got 3"),
        (dict(intermediate_layers=("1",)), r"intermediate_layers must be a tuple .*got \('1',\)"),
        (dict(max_tiles=1), r"more than max_tiles=1 tiles; got \(1, 2\)"),
        (dict(aspect_ratios=()), r"aspect_ratios must be a tuple .*; got \(\)"),
        (dict(aspect_ratios=((1, 2, 1),)), r"with \(rows, columns\) of each canvas"),
        (dict(aspect_ratios=((0, 1),)), r"with \(rows, columns\) of each canvas, .*\(\(0, 1\),\)"),
        (dict(aspect_ratios=((True, 1),)), r"with \(rows, columns\) of each canvas"),
        (dict(aspect_ratios=(1, 2)), r"with \(rows, columns\) of each canvas, .*got \(1, 2\)"),
        (dict(aspect_ratios=((1, 1), (1, 1))), "must be given once, because its place is its id"),
    ],
)
def test_a_vision_config_that_cannot_work_is_refused_with_the_rule_and_the_value(change, message):
    with pytest.raises(ValueError, match=message):
        VisionConfig(**VISION | change)


def test_a_missing_field_of_a_vision_config_is_named():
    with pytest.raises(ValueError, match="VisionConfig needs patch_px; got only dim, n_heads"):
        VisionConfig(**{k: v for k, v in VISION.items() if k != "patch_px"})


def test_what_follows_from_a_vision_config():
    config = VisionConfig(**VISION)
    assert (config.head_dim, config.n_patches, config.n_tokens) == (16, 4, 5)
    assert config.n_features == 3 * 64 and config.n_tiles == (1, 1, 2, 2)
    assert config.n_params == sum(config.param_counts.values()) > 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.dim = 128


def test_both_released_tile_sizes_have_their_numbers_of_tokens():
    for tile_px, n_tokens in ((448, 1025), (560, 1601)):
        assert VisionConfig(**VISION | dict(tile_px=tile_px)).n_tokens == n_tokens


def test_a_vision_config_survives_json():
    config = VisionConfig(**VISION)
    plain = json.loads(json.dumps(config.to_dict()))
    assert plain["aspect_ratios"] == [[1, 1], [1, 2], [2, 1]]
    assert VisionConfig.from_dict(plain) == config


@pytest.mark.parametrize(("change", "message"), [
    (dict(aspect_ratios=[1, 2]), r"aspect_ratios must be a tuple .*got \(1, 2\)"),
    (dict(aspect_ratios=[[1, [2]]]), "aspect_ratios must be a tuple"),
    (dict(aspect_ratios={"1": 2}), "aspect_ratios must be a tuple"),
    (dict(intermediate_layers=[[1], 3]), "intermediate_layers must be a tuple"),
    (dict(intermediate_layers=[1.0]), "intermediate_layers must be a tuple"),
    (dict(dim=[64]), "VisionConfig.dim must be an int above 0"),
    (dict(tile=448), r"no field 'tile'; did you mean 'tile_px'\?"),
])
def test_a_json_value_of_another_type_is_refused_in_a_vision_config(change, message):
    with pytest.raises(ValueError, match=message):
        VisionConfig.from_dict(VisionConfig(**VISION).to_dict() | change)
