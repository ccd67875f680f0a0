import dataclasses

import pytest

from llama_from_scratch.config import (
    LayerSpec,
    LlamaConfig,
    RopeScaling,
)

SMALL = dict(dim=64, n_heads=4, n_kv_heads=2, ffn_dim=96, vocab_size=100, max_seq_len=32,
             norm_eps=1e-5, rope_theta=1e4, layers=(LayerSpec(),) * 2)


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


def test_a_whole_number_in_the_place_of_a_float_becomes_one():
    config = LlamaConfig(**SMALL | dict(rope_theta=100000), rope_scaling=RopeScaling(
        factor=8, low_freq_factor=1, high_freq_factor=4, original_max_seq_len=8192))
    scaling = config.rope_scaling
    assert [type(x) for x in (config.rope_theta, scaling.factor, scaling.low_freq_factor,
                              scaling.high_freq_factor)] == [float] * 4
    assert config.n_params > 0, "a model can be built"


@pytest.mark.parametrize(("name", "value"), [
    ("norm_eps", float("inf")), ("norm_eps", float("nan")), ("norm_eps", 1e-320),
    ("rope_theta", float("inf")), ("rope_theta", 1e300), ("rope_theta", 10**400),
    ("max_seq_len", 2**63), ("vocab_size", 10**400), ("norm_eps", [1e-5]), ("dim", {}),
])
def test_a_number_that_the_arithmetic_cannot_hold_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"LlamaConfig.{name} .*got"):
        LlamaConfig(**SMALL | {name: value})
