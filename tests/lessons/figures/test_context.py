import matplotlib.pyplot as plt
import pytest
import torch
from drawings import faults, noted
from pictures import faults as picture_faults
from pictures import styled

from llama_from_scratch.lessons.figures import context
from llama_from_scratch.lessons.figures.look import TINTS


@pytest.fixture
def made(monkeypatch):
    yield noted(monkeypatch)
    plt.close("all")


@pytest.fixture(autouse=True)
def style(monkeypatch):
    styled(monkeypatch)
    yield
    plt.close("all")


@pytest.mark.parametrize("n_ranks", [2, 3, 4])
def test_each_piece_names_its_rank_and_zig_zag_divides_the_work_evenly(made, n_ranks):
    context.pieces(n_ranks=n_ranks, n_tokens=48)
    drawing, figure = made[0]
    assert faults(figure, drawing) == []
    numbers = [node.name for node in drawing.nodes]
    ascending = [str(rank) for rank in range(n_ranks)]
    assert numbers == sorted(ascending * 2) + ascending + ascending[::-1]
    assert all(node.color == TINTS[int(node.name)] for node in drawing.nodes)
    work = [note.text for note in drawing.notes if note.text.startswith("work")]
    share = 100 / n_ranks
    assert work[1] == "work: " + ", ".join(f"rank {r} {share:.0f} %" for r in range(n_ranks))
    assert work[0] != work[1]


@pytest.mark.parametrize("cut", context.CUTS)
@pytest.mark.parametrize(("n_ranks", "documents", "chunk_size"), [
    (2, (24,), None), (4, (14, 4, 6), None), (3, (12, 12), 5)])
def test_the_colors_of_the_mask_are_the_ranks_of_the_queries(cut, n_ranks, documents, chunk_size):
    figure = context.sight(n_ranks=n_ranks, cut=cut, documents=documents, chunk_size=chunk_size)
    assert picture_faults(figure) == []
    left, right = figure.axes
    shown = torch.as_tensor(left.images[0].get_array().filled(-1))
    mask = context.mask_of(*documents, chunk_size=chunk_size)
    ranks = context.ranks_of_tokens(24, n_ranks, cut)
    assert torch.equal(shown >= 0, mask)
    assert torch.equal(shown[mask], ranks[:, None].expand(24, 24)[mask].double())
    pairs = [bar.get_width() for bar in right.patches]
    assert pairs == [int((shown == rank).sum()) for rank in range(n_ranks)]
    assert f"compute {', '.join(str(int(n)) for n in pairs)} of {int(mask.sum())} pairs" in (
        figure.get_label())


@pytest.mark.parametrize("n_ranks", [2, 3, 4])
def test_every_step_of_the_ring_is_even_and_every_block_is_computed_once(n_ranks):
    figure = context.steps(n_ranks=n_ranks)
    assert picture_faults(figure) == []
    shown = [torch.as_tensor(ax.images[0].get_array().filled(-1)) for ax in figure.axes]
    n_times = sum((each >= 0).long() for each in shown)
    assert torch.equal(n_times, torch.ones(2 * n_ranks, 2 * n_ranks).tril().long())
    for step, each in enumerate(shown):
        counts = {int((each == rank).sum()) for rank in range(n_ranks)}
        assert counts == {2 if step else 3}


def test_without_contiguous_neighbors_the_first_rank_has_least():
    ranks = context.ranks_of_tokens(64, 4, "contiguous")
    pairs = context.pairs_of_ranks(context.mask_of(64), ranks, 4)
    assert pairs == [136, 392, 648, 904]


def test_too_many_ranks_and_rows_that_cannot_be_cut_are_refused():
    with pytest.raises(ValueError, match="colors for 2 to 4 ranks; got 5"):
        context.steps(n_ranks=5)
    with pytest.raises(ValueError, match="got seq_len=25 for cp=2"):
        context.sight(n_ranks=2, documents=(25,))


def test_several_documents_can_make_zig_zag_less_even_than_contiguous_pieces():
    # Chapter 45 says so, and who is busiest.
    def pairs(cut, *documents):
        return context.pairs_of_ranks(context.mask_of(*documents),
                                      context.ranks_of_tokens(24, 4, cut), 4)

    zig_zag, contiguous = (pairs(cut, 14, 4, 3, 3) for cut in ("zig-zag", "contiguous"))
    assert (max(zig_zag), max(contiguous)) == (61, 57) and zig_zag.index(61) == 3
    at_the_end = pairs("zig-zag", 3, 3, 4, 14)
    assert at_the_end.index(max(at_the_end)) == 0
