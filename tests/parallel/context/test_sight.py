"""Who may see whom across ranks: the ordinary masks, cut by queries, and evenly much for each."""

import pytest
import ranks_context as work
import torch

from llama_from_scratch.model.mask import Tokens, Visible
from llama_from_scratch.parallel.context.pieces import places
from llama_from_scratch.parallel.context.sight import VisibilityAcrossRanks, VisibleAcrossRanks
from llama_from_scratch.parallel.world import alone

S = work.S


def tokens_of(kind):
    documents, positions = work.documents_of(kind)
    return Tokens(positions=positions, documents=documents, is_plain=False)


def across(rank, n_ranks, *, kind, chunk_size=None):
    return VisibleAcrossRanks(tokens=tokens_of(kind), rank=rank, n_ranks=n_ranks,
                              chunk_size=chunk_size)


def whole_mask(kind, chunk_size):
    """The dense mask of one process, (B, S, S)."""
    return Visible(tokens=tokens_of(kind), n_queries=S, chunk_size=chunk_size).mask[:, 0]


def by_rule(visible):
    """This rank's queries by all keys, from the rules that a gathering leaf reads."""
    found = torch.zeros(2, 2 * visible.piece_length, S, dtype=torch.bool)
    for i, piece in enumerate(visible.own_pieces):
        rows = slice(i * visible.piece_length, (i + 1) * visible.piece_length)
        found[:, rows, visible.span(piece)] = visible.rule(piece).mask[:, 0]
    return found


def by_blocks(visible):
    """The same from the masks of single blocks, that a ring reads."""
    n, found = visible.piece_length, torch.zeros(2, 2 * visible.piece_length, S, dtype=torch.bool)
    for i, piece in enumerate(visible.own_pieces):
        for other in visible.pieces_seen(piece):
            mask = visible.mask(piece, other)
            found[:, i * n : (i + 1) * n, other * n : (other + 1) * n] = (
                True if mask is None else mask[:, 0])
    return found


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4])
@pytest.mark.parametrize(("kind", "chunk_size"), [("one", None), ("one", 5), ("packed", None),
                                                  ("packed", 5)])
def test_a_rank_sees_its_rows_of_the_whole_mask(kind, chunk_size, n_ranks):
    whole = whole_mask(kind, chunk_size)
    for rank in range(n_ranks):
        visible = across(rank, n_ranks, kind=kind, chunk_size=chunk_size)
        own = whole[:, places(S, rank=rank, n_ranks=n_ranks)]
        assert torch.equal(by_rule(visible), own) and torch.equal(by_blocks(visible), own)


@pytest.mark.parametrize("n_ranks", [2, 3, 4])
def test_every_rank_has_equally_many_visible_pairs_of_a_document(n_ranks):
    pairs = [int(by_blocks(across(rank, n_ranks, kind="one"))[0].sum()) for rank in range(n_ranks)]
    assert pairs == [S * (S + 1) // 2 // n_ranks] * n_ranks
    contiguous = [int(part[0].sum()) for part in whole_mask("one", None).chunk(n_ranks, dim=1)]
    assert sum(contiguous) == sum(pairs) and max(contiguous) > 1.4 * max(pairs)


def test_pieces_without_a_visible_pair_are_left_out():
    # Of chunks of 5, the last piece of 3 tokens (21 to 23) sees 20 to 23.
    visible = across(0, 4, kind="one", chunk_size=5)
    assert dict(visible.pieces_seen(7)) == {6: False, 7: False}
    assert visible.span(7) == slice(18, 24)


def test_a_piece_that_is_seen_whole_needs_no_mask():
    visible = across(0, 4, kind="one")
    assert visible.mask(7, 3) is None and visible.mask(7, 7) is not None


def test_without_documents_only_the_order_counts():
    tokens = Tokens(positions=torch.arange(S)[None] % 5, documents=None, is_plain=False)
    for rank in range(2):
        visible = VisibleAcrossRanks(tokens=tokens, rank=rank, n_ranks=2)
        own = torch.ones(S, S).tril().bool()[places(S, rank=rank, n_ranks=2)]
        assert torch.equal(by_blocks(visible)[0], own) and torch.equal(by_rule(visible)[0], own)


def test_rules_are_made_once_for_all_layers():
    visible = across(1, 2, kind="packed")
    assert visible.rule(1) is visible.rule(1)
    assert visible.pieces_seen(2) is visible.pieces_seen(2)


def test_one_rank_gathers_its_own_numbers():
    tokens = tokens_of("packed")
    found = VisibilityAcrossRanks(alone(), max_seq_len=S)(
        tokens, batch_size=2, chunk_sizes={None, 5}, cache=None)
    assert set(found) == {None, 5} and found[5].chunk_size == 5
    assert torch.equal(found[None].tokens.positions, tokens.positions)
    assert torch.equal(found[None].tokens.documents, tokens.documents)
