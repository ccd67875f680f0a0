import pytest
import torch

from llama_from_scratch import family
from llama_from_scratch.train.mini_families import PUBLISHED, small_config

SMALLEST = {name: min((r.config for r in family.FAMILY.values() if r.generation == name),
                      key=lambda config: config.n_params) for name in family.GENERATIONS}


@pytest.mark.parametrize("name", family.GENERATIONS)
def test_a_mini_has_the_structure_of_its_family(name):
    small, first = small_config(name), SMALLEST[name]
    for field in ("norm_eps", "rope_theta", "rope_scaling", "max_seq_len", "is_tied"):
        assert getattr(small, field) == getattr(first, field), field
    assert (small.n_kv_heads < small.n_heads) == (first.n_kv_heads < first.n_heads)
    assert small.ffn_dim / small.dim == pytest.approx(first.ffn_dim / first.dim, rel=0.05)
    assert small.n_params < 2e6


def test_minis_are_as_small_as_is_said():
    assert {(c.dim, len(c.layers)) for c in map(small_config, PUBLISHED)} == {(128, 3)}
    widths = {config.dim for config in SMALLEST.values()}
    depths = {len(config.layers) for config in SMALLEST.values()}
    assert (min(widths), max(widths), min(depths), max(depths)) == (2048, 8192, 16, 80)


def test_every_family_has_a_row_and_the_first_generations_are_told_apart_by_data():
    assert tuple(PUBLISHED) == family.GENERATIONS
    sixteen = {name: row.dtype for name, row in PUBLISHED.items()}
    assert sixteen.pop("llama-1") == torch.float16 and set(sixteen.values()) == {torch.bfloat16}
    pieces = [name for name, row in PUBLISHED.items() if row.special_tokens is None]
    assert pieces == ["llama-1", "llama-2"], "SentencePiece"
    assert [name for name, row in PUBLISHED.items() if row.chat_format is None] == ["llama-1"]
    assert [name for name, row in PUBLISHED.items() if "llama2c" in row.formats] == ["llama-2"]


def test_an_unknown_family_is_refused():
    with pytest.raises(ValueError, match="got 'llama-22'; did you mean 'llama-2'"):
        small_config("llama-22")
