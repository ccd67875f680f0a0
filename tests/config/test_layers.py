import json
import math

import pytest

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
