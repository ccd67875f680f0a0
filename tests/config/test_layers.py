import json
import math

import pytest

from llama_from_scratch.config import (
    Dense,
    Experts,
    FeedForwardSpec,
    LayerSpec,
    LlamaConfig,
    RopeScaling,
    TemperatureTuning,
    record,
)

SMALL = dict(dim=64, n_heads=4, n_kv_heads=2, ffn_dim=96, vocab_size=100, max_seq_len=32,
             norm_eps=1e-5, rope_theta=1e4, layers=(LayerSpec(),) * 2)


@pytest.mark.parametrize("factor", [math.inf, math.nan, 1e60, 0])
def test_a_scaling_by_no_number_of_fp32_is_refused(factor):
    with pytest.raises(ValueError, match="RopeScaling.factor (must be a number above|is used in)"):
        RopeScaling(factor=factor, low_freq_factor=1.0, high_freq_factor=4.0,
                    original_max_seq_len=8192)


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
        with pytest.raises(ValueError, match="can name only these feed-forwards: dense, experts; "):
            config.to_dict()


@pytest.mark.parametrize("name", ["factor", "low_freq_factor", "high_freq_factor"])
def test_an_infinite_scaling_is_refused(name):
    given = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_seq_len=8192)
    with pytest.raises(ValueError, match=rf"RopeScaling.{name} .*got inf"):
        RopeScaling(**given | {name: float("inf")})


FULL = LayerSpec(
    has_rope=False, chunk_size=8, has_qk_norm=True,
    temperature=TemperatureTuning(floor=8192, strength=0.1),
    feed_forward=Experts(n_experts=16, n_active=2, width=24, shared_width=32))


def test_everything_that_llama_4_adds_survives_json():
    config = LlamaConfig(**SMALL | dict(layers=(LayerSpec(), FULL)))
    plain = json.loads(json.dumps(config.to_dict()))
    assert plain["layers"] == [
        {"has_rope": True, "chunk_size": None},
        {"has_rope": False, "chunk_size": 8, "has_qk_norm": True,
         "temperature": {"floor": 8192, "strength": 0.1},
         "feed_forward": {"kind": "experts", "n_experts": 16, "n_active": 2, "width": 24,
                          "shared_width": 32}}]
    assert LlamaConfig.from_dict(plain) == config


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Experts(n_experts=2, n_active=3, width=4, shared_width=4),
     "Experts.n_active must be at most n_experts=2; got 3"),
    (lambda: Experts(n_experts=2, n_active=0, width=4, shared_width=4), "n_active must be an int"),
    (lambda: Experts(n_experts=2, n_active=1, width=4), "Experts needs shared_width"),
    (lambda: TemperatureTuning(floor=0, strength=0.1), "floor must be an int above 0; got 0"),
    (lambda: TemperatureTuning(floor=0.5, strength=0.1), "floor must be an int above 0; got 0.5"),
    (lambda: TemperatureTuning(floor=8, strength=math.nan), "TemperatureTuning.strength"),
    (lambda: LayerSpec(temperature=0.1), "must be a TemperatureTuning or None; got 0.1"),
    (lambda: LayerSpec(has_qk_norm=1), "has_qk_norm"),
    (lambda: LayerSpec(has_qk_nrom=True), "did you mean 'has_qk_norm'"),
    (lambda: LayerSpec.from_dict({"temperature": {"floor": 8, "stength": 0.1}}),
     "did you mean 'strength'"),
    (lambda: LayerSpec.from_dict({"feed_forward": {"kind": "expert"}}), "did you mean 'experts'"),
])
def test_what_llama_4_adds_is_refused_if_it_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()
