"""`sharded_cost`: the formulas, and that the strategy that runs agrees with them."""

import pytest
import ranks_sharded
from torch import nn

from llama_from_scratch import family
from llama_from_scratch.model.unwritten import unwritten
from llama_from_scratch.parallel import sharded_cost
from llama_from_scratch.parallel.sharded_cost import held, padded, sent, unit_sizes
from llama_from_scratch.parallel.units import cut
from llama_from_scratch.parallel.world import alone

N = 405_853_388_800


@pytest.fixture(scope="module")
def sizes():
    return unit_sizes(family.config("llama-3.1-405b"))


def test_405b_has_126_blocks_and_a_root(sizes):
    assert len(sizes) == 127 and sum(sizes.values()) == N
    assert sizes["root"] == 2 * 128_256 * 16_384 + 16_384


@pytest.mark.parametrize("config", [ranks_sharded.llama_config(is_tied=True),
                                    family.tiny("llama-3.2-vision"), family.tiny("llama-3")])
def test_the_sizes_are_those_of_the_units(config):
    model = unwritten(config)
    for p in model.parameters():
        assert isinstance(p, nn.Parameter) and p.is_meta
    root, *blocks = cut(model, alone(), replicate=None, param_dtype=None, is_kept=False)
    expected = [sum(shape.numel() for flat in unit.flats for shape in flat.shapes.values())
                for unit in (root, *blocks)]
    assert sorted(unit_sizes(config).values()) == sorted(expected)


def test_bytes_per_parameter_are_18_and_fall_with_each_stage(sizes):
    def per_parameter(stage, n_ranks, **options):
        found = held(sizes, n_ranks=n_ranks, stage=stage, **options)
        return (found.total - found.gathered) / N

    assert per_parameter(0, 64) == 18 and per_parameter(0, 64, is_bf16=False) == 16
    n = 64
    assert per_parameter(1, n) == pytest.approx(2 + 4 + 12 / n)
    assert per_parameter(2, n) == pytest.approx(2 + 16 / n)
    assert per_parameter(3, n) == pytest.approx(16 / n)
    assert per_parameter(2, n, is_bf16=False) == pytest.approx(4 + 12 / n)
    assert per_parameter(3, n, is_bf16=False) == pytest.approx(16 / n)


def test_only_stage_3_fits_405b_and_what_moves_becomes_the_most(sizes):
    totals = {stage: held(sizes, n_ranks=16_384, stage=stage).total / 1e9 for stage in range(4)}
    assert [round(total) for total in totals.values()] == [7305, 2435, 854, 64]
    found = held(sizes, n_ranks=16_384, stage=3)
    assert found.gathered > 100 * (found.total - found.gathered)


def test_what_is_sent_is_one_and_a_half_times_as_much_in_stage_3(sizes):
    def total(stage, **options):
        return sum(sent(sizes, n_ranks=64, stage=stage, **options).values())

    assert total(1) == total(2) == pytest.approx(63 / 64 * 6 * N)
    assert total(3, keeps_after_forward=True) == total(2)
    assert total(3) == pytest.approx(63 / 64 * (8 * N - 2 * sizes["root"]))
    assert total(0) == pytest.approx(63 / 64 * 8 * N)
    assert total(2, n_micro=4) == pytest.approx(63 / 64 * (2 + 4 * 4) * N)
    assert total(2, n_micro=4, reduces_once=True) == total(1, n_micro=4) == total(1)


def test_padding_counts():
    assert padded({"root": 5, "a": 8}, n_ranks=4) == {"root": 8, "a": 8}
    assert held({"root": 5}, n_ranks=4, stage=1).weights == 2 * 8


def test_another_stage_is_refused():
    with pytest.raises(ValueError, match=r"one of 0, 1, 2, 3; got 4"):
        held({"root": 5}, n_ranks=4, stage=4)
    with pytest.raises(ValueError, match=r"one of 0, 1, 2, 3; got True|got -1"):
        sent({"root": 5}, n_ranks=4, stage=-1)


def test_the_root_alone_is_enough():
    assert sharded_cost.held({"root": 8}, n_ranks=2, stage=3, is_bf16=False).gathered == 8 * 8
