"""What a rank keeps of a model: its own layers, under the names they had."""

import parity
import pipeline_on_ranks
import pytest
import torch

from llama_from_scratch import family
from llama_from_scratch.model.unwritten import unwritten
from llama_from_scratch.parallel.pipeline.stage import Absent, keep, pieces_of
from llama_from_scratch.vision.adapter import VisionLlama


def kept(counts, *, rank, n_ranks, is_tied=False):
    its_config = pipeline_on_ranks.deep_config(sum(counts), is_tied=is_tied)
    model = parity.model_of(its_config)
    whole = dict(model.named_parameters())
    pieces = keep(model, pieces_of(counts), rank=rank, n_ranks=n_ranks)
    return model, pieces, whole


def test_pieces_are_neighboring_layers_and_know_the_ends():
    pieces = pieces_of((1, 3, 0))
    assert [(p.layers.start, p.layers.stop) for p in pieces] == [(0, 1), (1, 4), (4, 4)]
    assert [(p.is_first, p.is_last) for p in pieces] == [(True, False), (False, False),
                                                         (False, True)]


@pytest.mark.parametrize("is_tied", (False, True))
def test_the_ranks_together_keep_every_parameter_under_its_name(is_tied):
    counts, found = (1, 2, 1), []
    for rank in range(3):
        model, _, whole = kept(counts, rank=rank, n_ranks=3, is_tied=is_tied)
        own = dict(model.named_parameters())
        assert all(torch.equal(p, whole[name]) for name, p in own.items())
        found += own
    twice = ["tok_embeddings.weight"] if is_tied else []
    assert sorted(found) == sorted([*whole, *twice])


def test_a_rank_has_several_chunks_and_layers_keep_their_numbers():
    model, pieces, _ = kept((1, 1, 1, 1), rank=1, n_ranks=2)
    assert [piece.number for piece in pieces] == [1, 3]
    assert [isinstance(block, Absent) for block in model.layers] == [True, False, True, False]
    assert {name.split(".")[1] for name, _ in model.named_parameters() if "layers" in name
            } == {"1", "3"}


def test_what_is_on_another_rank_says_so_when_it_is_called():
    model, _, _ = kept((1, 1), rank=0, n_ranks=2)
    with pytest.raises(RuntimeError, match=r"layers.1 is on another rank of the pipeline.*"
                                           r"sharded.loss"):
        model(torch.zeros(1, 3, dtype=torch.int64))


def test_a_model_without_memory_is_cut_the_same():
    its_config = pipeline_on_ranks.deep_config(4)
    model = unwritten(its_config)
    keep(model, pieces_of((2, 2)), rank=1, n_ranks=2)
    assert all(p.is_meta for p in model.parameters())
    assert "tok_embeddings.weight" not in dict(model.named_parameters())


@pytest.mark.parametrize("counts", ((1, 1), (2, 3), (0, 5)))
def test_pieces_that_do_not_have_all_layers_are_refused(counts):
    model = parity.model_of(pipeline_on_ranks.deep_config(4))
    with pytest.raises(ValueError, match="have each of the 4 layers once"):
        keep(model, pieces_of(counts), rank=0, n_ranks=2)


def test_a_model_that_sees_is_refused():
    model = parity.seeing_model()
    assert isinstance(model, VisionLlama)
    with pytest.raises(ValueError, match="a pipeline is cut from a Llama.*VisionLlama. Choose pp"):
        keep(model, pieces_of((1, 1)), rank=0, n_ranks=2)


def test_every_published_text_model_can_be_cut():
    for name in ("llama-3.2-1b", "llama-3.1-405b"):
        its_config = family.config(name)
        model = unwritten(its_config)
        n = its_config.n_layers
        keep(model, pieces_of((n // 2, n - n // 2)), rank=0, n_ranks=2)
        assert sum(not isinstance(block, Absent) for block in model.layers) == n // 2
