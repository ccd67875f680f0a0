"""Which tokens a rank holds: every token once, early and late ones, targets right at borders."""

import parity
import pytest
import ranks_context as work
import torch

from llama_from_scratch.model.mask import PADDING
from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.comm_log import CommLog
from llama_from_scratch.parallel.context.pieces import (
    in_order,
    own_pieces,
    padded,
    places,
    refuse_uncut,
    tokens_of,
)
from llama_from_scratch.parallel.world import alone
from llama_from_scratch.train.data import IGNORE


def group_of(rank, n_ranks):
    """A group that is only asked who is in it."""
    return RankGroup(range(n_ranks), own=rank, name="cp", log=CommLog(), process_group=None,
                     device=torch.device("cpu"))


def test_four_ranks_hold_an_early_and_a_late_piece_each():
    assert [own_pieces(rank, 4) for rank in range(4)] == [(0, 7), (1, 6), (2, 5), (3, 4)]
    assert places(16, rank=1, n_ranks=4).tolist() == [2, 3, 12, 13]


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4])
def test_every_token_is_on_one_rank_and_comes_back_to_its_place(n_ranks):
    x = torch.arange(48).view(2, 24)
    parts = [x[:, places(24, rank=rank, n_ranks=n_ranks)] for rank in range(n_ranks)]
    assert torch.equal(in_order(torch.cat(parts, dim=1), n_ranks=n_ranks, axis=1), x)
    assert sum(part.shape[1] for part in parts) == 24


def test_targets_positions_and_documents_are_those_of_the_whole_rows():
    # torchtitan#4544: a target that is made after the cut is wrong at the border of a piece.
    batch = work.batch_of("packed")
    for rank in range(4):
        own, own_T = tokens_of(batch, group_of(rank, 4)), places(24, rank=rank, n_ranks=4)
        for t, place in enumerate(own_T.tolist()):
            if batch.targets[1, place] != IGNORE:
                assert own.targets[1, t] == batch.ids[1, place + 1]
        for name in ("ids", "targets", "documents", "positions"):
            assert torch.equal(getattr(own, name), getattr(batch, name)[:, own_T])


def test_targets_are_counted_once_over_the_ranks_though_not_evenly():
    batch = work.batch_of("one")
    counts = [tokens_of(batch, group_of(rank, 4)).n_targets for rank in range(4)]
    assert sum(counts) == batch.n_targets and len(set(counts)) > 1


@pytest.mark.parametrize(("seq_len", "n_ranks", "cure"), [
    (30, 4, "got seq_len=30 for cp=4, which is 8 pieces. Choose seq_len=24 or 32, or another cp"),
    (3, 2, "got seq_len=3 for cp=2, which is 4 pieces. Choose seq_len=4, or another cp"),
    (0, 2, "got seq_len=0 for cp=2"), (9, 3, "padded(batch, 3)")])
def test_a_length_that_cannot_be_cut_is_refused_with_those_that_can(seq_len, n_ranks, cure):
    with pytest.raises(ValueError, match="2 x cp equal pieces") as error:
        refuse_uncut(seq_len, n_ranks)
    assert cure in str(error.value)


def test_lengths_that_can_be_cut_and_any_length_on_one_rank_pass():
    refuse_uncut(24, 3)
    refuse_uncut(7, 1)


def test_padding_is_seen_by_no_token_and_has_no_targets():
    batch = padded(work.batch_of("packed", n_tokens=21), 4)
    assert batch.ids.shape == (2, 24)
    assert (batch.documents[:, 21:] == PADDING).all() and (batch.targets[:, 21:] == IGNORE).all()
    assert batch.n_targets == work.batch_of("packed", n_tokens=21).n_targets
    logits = batch.logits(work.model_of(work.config("grouped")))
    whole = work.batch_of("packed", n_tokens=21).logits(work.model_of(work.config("grouped")))
    torch.testing.assert_close(logits[:, :21], whole, rtol=0, atol=1e-12)


def test_a_batch_that_fits_is_not_padded():
    batch = work.batch_of("one")
    assert torch.equal(padded(batch, 3).ids, batch.ids)
    assert torch.equal(padded(work.batch_of("one", n_tokens=21), 1).ids,
                       work.batch_of("one", n_tokens=21).ids)
    assert torch.equal(tokens_of(batch, alone()).ids, batch.ids)


def test_a_rank_alone_has_the_batch_itself_with_its_images():
    """A batch that is made again from ids, targets, documents and positions has no images."""
    (batch, *_) = parity.image_batches(parity.seeing_model().config)
    assert tokens_of(batch, alone()) is batch and padded(batch, 1) is batch
