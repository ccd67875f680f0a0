import pytest
import torch

from llama_from_scratch import family
from llama_from_scratch.model.transformer import Llama

N_PARAMS = {
    "llama-1-7b": 6_738_415_616, "llama-1-13b": 13_015_864_320, "llama-1-33b": 32_528_943_616, "llama-1-65b": 65_285_660_672,
    "llama-2-7b": 6_738_415_616, "llama-2-13b": 13_015_864_320, "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248, "llama-3-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248, "llama-3.1-70b": 70_553_706_496, "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400, "llama-3.2-3b": 3_212_749_824, "llama-3.3-70b": 70_553_706_496,
}  # fmt: skip

KV_BYTES = {
    "llama-1-7b": 524_288, "llama-1-13b": 819_200, "llama-1-33b": 1_597_440, "llama-3-8b": 131_072, "llama-2-70b": 327_680,
    "llama-3.1-405b": 516_096, "llama-3.2-1b": 32_768, "llama-3.2-3b": 114_688,
}  # fmt: skip


def test_the_family_is_complete():
    assert set(family.FAMILY) == set(N_PARAMS)


@pytest.mark.parametrize("name", N_PARAMS)
def test_parameter_counts_are_those_published_to_the_last_digit(name):
    assert family.config(name).n_params == N_PARAMS[name]


@pytest.mark.parametrize("name", N_PARAMS)
def test_the_model_that_is_built_has_the_parameters_that_the_config_counts(name):
    with torch.device("meta"):
        model = Llama(family.config(name))
    assert sum(p.numel() for p in model.parameters()) == N_PARAMS[name]


@pytest.mark.parametrize("name", KV_BYTES)
def test_kv_cache_bytes_per_token_in_bf16(name):
    assert family.config(name).kv_bytes_per_token(2) == KV_BYTES[name]


def test_the_order_of_the_two_truncations_in_the_ffn_rule_matters():
    assert family.ffn_dim(8192, multiple_of=4096, multiplier=1.3) == 28672
    assert family.ffn_dim(4096, multiple_of=256) == 11008
    assert family.ffn_dim(10, multiple_of=1, multiplier=1.3) == int(1.3 * 26) != int(1.3 * 8 * 10 / 3)


@pytest.mark.parametrize("generation", family.GENERATIONS)
def test_tiny_twins_keep_what_makes_the_generation(generation):
    twin = family.tiny(generation)
    real = next(r.config for r in family.FAMILY.values() if r.generation == generation)
    for field in ("rope_theta", "rope_scaling", "norm_eps", "is_tied", "max_seq_len"):
        assert getattr(twin, field) == getattr(real, field)
    assert (twin.n_kv_heads < twin.n_heads) == (real.n_kv_heads < real.n_heads)
    assert twin.n_params < 300_000


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'llama-3.1-8b'"):
        family.config("llama-3.1-8B")
    with pytest.raises(ValueError, match="did you mean 'llama-3.2'"):
        family.tiny("llama-32")
