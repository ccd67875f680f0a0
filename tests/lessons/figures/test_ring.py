"""What is drawn are the messages of the real functions."""

import drawings
import matplotlib.pyplot as plt
import pytest

from llama_from_scratch.lessons.figures import ring
from llama_from_scratch.parallel import collectives


@pytest.fixture
def made(monkeypatch):
    yield drawings.noted(monkeypatch)
    plt.close("all")


def cells(drawing, color):
    """The words of the cells of one color, without the one in the key."""
    return [node.name for node in drawing.nodes if node.color == color][:-1]


@pytest.mark.parametrize("n_ranks", [2, 3, 4, 5, 6])
def test_a_reduce_scatter_is_drawn_step_by_step(made, n_ranks):
    figure = ring.steps(collectives.reduce_scatter, n_ranks)
    ((drawing, _),) = made
    assert drawings.faults(figure, drawing) == []
    assert len(cells(drawing, ring.SENT)) == n_ranks * (n_ranks - 1)
    assert cells(drawing, ring.COMPLETE) == ["all"] * n_ranks
    assert [note.text for note in drawing.notes if note.text.startswith("step")] == [
        f"step {step}" for step in range(n_ranks - 1)]
    # one arrow for each message, and one more where the last rank sends to the first
    assert len(drawing.arrows) == (n_ranks + 1) * (n_ranks - 1)


def test_the_sums_on_their_way_are_named(made):
    ring.steps(collectives.reduce_scatter, 3)
    ((drawing, _),) = made
    assert cells(drawing, ring.SENT) == ["0", "1", "2", "0+2", "0+1", "1+2"]


def test_an_all_gather_begins_with_a_piece_for_each_rank(made):
    figure = ring.steps(collectives.all_gather, 4, is_cut=True)
    ((drawing, _),) = made
    assert drawings.faults(figure, drawing) == []
    assert cells(drawing, ring.OWN) == ["0", "1", "2", "3"] + ["0", "1", "2", "3"] * 4


def test_a_rank_that_is_added_twice_is_marked(made):
    def wrong(x, group):  # always the same piece, with what was added so far
        for _ in range(group.size - 1):
            sending = group.start_send(x[[0]], to=(group.rank + 1) % group.size)
            x[[0]] += group.receive(x[[0]].clone(), source=(group.rank - 1) % group.size)
            sending.wait()
        return x

    figure = ring.steps(wrong, 4)
    ((drawing, _),) = made
    assert drawings.faults(figure, drawing) == []
    assert set(cells(drawing, ring.WRONG)) == {"wrong"}
    assert "0+3" in cells(drawing, ring.SENT)
    assert "wrong: a rank twice" in [note.text for note in drawing.notes]


@pytest.mark.parametrize(("function", "n_ranks", "links", "n_idle"), [
    (collectives.broadcast, 4, [(0, 1), (0, 2), (1, 3)], 2),
    (collectives.naive_all_reduce, 3, [(1, 0), (2, 0), (0, 1), (0, 2)], 4),
    (collectives.all_to_all, 3, [(0, 1), (1, 2), (2, 0), (0, 2), (1, 0), (2, 1)], 0),
    (collectives.naive_all_reduce, 8, None, 6 * 14),
])
def test_each_message_is_an_arrow_from_rank_to_rank(made, function, n_ranks, links, n_idle):
    figure = ring.messages(function, n_ranks)
    ((drawing, _),) = made
    assert drawings.faults(figure, drawing) == []
    pairs = [(round(arrow.points[0][1] / 0.42), round(arrow.points[-1][1] / 0.42))
             for arrow in drawing.arrows]
    assert links is None or pairs == links
    assert len(cells(drawing, "white")) == n_idle
    assert f"idle in {n_idle} of" in figure.get_label()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="needs 2 to 6 ranks; got 7"):
        ring.steps(collectives.all_reduce, 7)
    with pytest.raises(ValueError, match="rank 0 sends to rank 2"):
        ring.steps(collectives.all_to_all, 3)
    with pytest.raises(ValueError, match="these are 16. Take fewer ranks"):
        ring.messages(collectives.all_reduce, 9)
