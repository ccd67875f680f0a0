"""Counts of tokens by expert, and how many bits the token tells about its expert."""

import math

import pytest
import torch
from tiny_experiments import tiny

from llama_from_scratch.config import Experts, LayerSpec
from llama_from_scratch.experiments.running import prepare
from llama_from_scratch.model.moe import routings_of
from llama_from_scratch.train.expert_use import ExpertUse, chance, information, use_of_experts


@pytest.fixture(scope="module", params=[1, 2])
def found(request, tmp_path_factory):
    experts = Experts(n_experts=4, n_active=request.param, width=16, shared_width=16)
    plain = LayerSpec(feed_forward=experts).to_dict()["feed_forward"]
    return prepare(tiny(tmp_path_factory.mktemp("use"), **{
        "model.layers.feed_forward": plain, "model.n_layers": 2}))


def test_the_counts_are_those_of_a_loop_over_tokens(found):
    use = use_of_experts(found.model, found.validation, batch_size=2, seq_len=16)
    expected = torch.zeros_like(use.counts)
    for batch in found.validation.in_order(batch_size=1, seq_len=16):
        with routings_of(found.model) as routings:
            batch.logits(found.model)
        for layer, passes in enumerate(routings.values()):
            for t, token in enumerate(batch.ids[0].tolist()):
                for expert in passes[0].experts[t].tolist():
                    expected[layer, token, expert] += 1
    assert expected.shape == (2, 264, 4) and torch.equal(use.counts, expected)
    assert torch.equal(use.balance(1).counts, expected[1].sum(0))


def test_what_is_written_is_read_again_and_a_damaged_file_is_refused(found, tmp_path):
    use = use_of_experts(found.model, found.validation, batch_size=2, seq_len=16)
    file = tmp_path / "use.npz"
    use.write(file)
    assert torch.equal(ExpertUse.read(file).counts, use.counts)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"a \.npz with `counts`; .*make_baselines\.py experts"):
        ExpertUse.read(file)
    with pytest.raises(ValueError, match="cannot be read"):
        ExpertUse.read(tmp_path / "none.npz")


def test_information_is_zero_for_equal_shares_and_the_entropy_if_the_kind_decides():
    assert information(torch.tensor([[2, 4, 6], [1, 2, 3]])) == pytest.approx(0, abs=1e-12)
    assert information(torch.tensor([[5, 0], [0, 5], [5, 0]])) == pytest.approx(
        -(2 * math.log2(2 / 3) + math.log2(1 / 3)) / 3)
    assert information(10 * torch.eye(8, dtype=torch.int64)) == pytest.approx(3)


def test_information_is_the_difference_of_entropies():
    counts = torch.randint(0, 9, (5, 4), generator=torch.Generator().manual_seed(0))

    def entropy(weights):
        p = weights.flatten() / weights.sum()
        return float(-torch.special.xlogy(p, p).sum()) / math.log(2)

    expected = entropy(counts.sum(0)) + entropy(counts.sum(1)) - entropy(counts)
    assert information(counts) == pytest.approx(expected, abs=1e-6)


def test_chance_keeps_the_frequencies_and_is_the_known_bias_of_the_estimate():
    """Miller's first term: (kinds - 1) (experts - 1) / (2 N ln 2) bits."""
    kinds, experts, per_kind = 50, 8, 400
    counts = torch.full((kinds, experts), per_kind // experts)
    N = kinds * per_kind
    expected = (kinds - 1) * (experts - 1) / (2 * N * math.log(2))
    found = sum(chance(counts, seed=seed) for seed in range(5)) / 5
    assert found == pytest.approx(expected, rel=0.1)
    assert information(counts) == pytest.approx(0, abs=1e-12)
    assert chance(counts, seed=1) == chance(counts, seed=1) != chance(counts, seed=2)
