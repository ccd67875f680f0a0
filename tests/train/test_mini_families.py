import dataclasses

import pytest
import torch

from llama_from_scratch import family
from llama_from_scratch.train.mini_families import PUBLISHED, small_config

ROWS = (family.FAMILY | family.EXPERTS).values()
SMALLEST = {name: min((r.config for r in ROWS if r.generation == name),
                      key=lambda config: config.n_params) for name in family.TEXT_GENERATIONS}


@pytest.mark.parametrize("name", family.TEXT_GENERATIONS)
def test_a_mini_has_the_structure_of_its_family(name):
    small, first = small_config(name), SMALLEST[name]
    for field in ("norm_eps", "rope_theta", "rope_scaling", "max_seq_len", "is_tied"):
        assert getattr(small, field) == getattr(first, field), field
    assert (small.n_kv_heads < small.n_heads) == (first.n_kv_heads < first.n_heads)
    assert small.ffn_dim / small.dim == pytest.approx(first.ffn_dim / first.dim, rel=0.05)
    assert small.n_params < 4e6


def test_minis_are_as_small_as_is_said():
    sizes = {name: (c.dim, len(c.layers)) for name, c in zip(
        PUBLISHED, map(small_config, PUBLISHED), strict=True)}
    assert sizes.pop("llama-4") == (128, 4) and set(sizes.values()) == {(128, 3)}


def test_the_mini_of_llama_4_has_every_kind_of_its_layers():
    small, real = small_config("llama-4"), SMALLEST["llama-4"]
    for spec, large in zip(small.layers, real.layers[:4], strict=True):
        assert dataclasses.replace(spec, feed_forward=large.feed_forward) == large
        assert spec.feed_forward.n_experts == 4 and spec.feed_forward.width * 2 == small.ffn_dim
    assert {spec.has_rope for spec in small.layers} == {True, False}


def test_the_published_models_are_as_large_as_is_said():
    widths = {config.dim for config in SMALLEST.values()}
    depths = {len(config.layers) for config in SMALLEST.values()}
    assert (min(widths), max(widths), min(depths), max(depths)) == (2048, 8192, 16, 80)


def test_every_family_has_a_row_and_the_first_generations_are_told_apart_by_data():
    assert tuple(PUBLISHED) == family.TEXT_GENERATIONS
    sixteen = {name: row.dtype for name, row in PUBLISHED.items()}
    assert sixteen.pop("llama-1") == torch.float16 and set(sixteen.values()) == {torch.bfloat16}
    pieces = [name for name, row in PUBLISHED.items() if row.special_tokens is None]
    assert pieces == ["llama-1", "llama-2"], "SentencePiece"
    assert [name for name, row in PUBLISHED.items() if row.chat_format is None] == ["llama-1"]
    assert [name for name, row in PUBLISHED.items() if "llama2c" in row.formats] == ["llama-2"]


def test_an_unknown_family_is_refused():
    with pytest.raises(ValueError, match="got 'llama-22'; did you mean 'llama-2'"):
        small_config("llama-22")
