import matplotlib.pyplot as plt
import pytest
import torch
from drawings import faults, noted

from llama_from_scratch.lessons.figures import traffic as figures
from llama_from_scratch.lessons.figures.experts import color_of
from llama_from_scratch.parallel.expert_parallel import ExpertTraffic, within


@pytest.fixture
def drawn(monkeypatch):
    """The drawings that are made, to compare them with what they show."""
    yield noted(monkeypatch)
    plt.close("all")


def of(table, *, capacity=None):
    wanted = torch.tensor(table)
    return ExpertTraffic(wanted=wanted, sent=within(wanted, capacity))


TWO = of([[2, 1, 0, 1], [0, 1, 2, 1]])


def test_each_row_is_drawn_where_it_leaves_and_where_it_arrives(drawn):
    figure = figures.travel(TWO)
    ((drawing, _),) = drawn
    assert faults(figure, drawing) == []
    above, below = drawing.nodes[:8], drawing.nodes[8:]
    assert [node.name for node in above] == list("0013" "1223")
    assert [node.name for node in below] == list("0011" "3223")
    assert all(node.color == color_of(int(node.name)) for node in drawing.nodes)
    assert len(drawing.arrows) == 8
    notes = [note.text for note in drawing.notes]
    assert "rank 0: experts 0 to 1" in notes and "rank 1: experts 2 to 3" in notes
    assert "rank 0 sends 1 of its 4; rank 1 sends 1 of its 4" in figure.get_label()


@pytest.mark.parametrize("table", [
    [[0, 4], [0, 4]], [[3, 3], [0, 0]], [[1] * 4] * 4,
    [[0, 1, 2, 1], [1] * 4, [0] * 4, [2, 0, 0, 3]]])
def test_ranks_without_rows_leave_their_place_empty(drawn, table):
    figure = figures.travel(of(table))
    ((drawing, _),) = drawn
    assert faults(figure, drawing) == []
    assert len(drawing.nodes) == 2 * sum(map(sum, table))


def test_an_arrow_leads_from_a_row_to_itself(drawn):
    figures.travel(TWO)
    ((drawing, _),) = drawn
    at = {node.top: node.name for node in drawing.nodes}
    at |= {node.bottom: node.name for node in drawing.nodes}
    assert all(at[arrow.points[0]] == at[arrow.points[1]] for arrow in drawing.arrows)


@pytest.mark.parametrize("n_ranks", [2, 4, 8])
def test_the_matrix_has_the_rows_of_every_pair_and_their_sums(drawn, n_ranks):
    draw = torch.Generator().manual_seed(n_ranks)
    traffic = of(torch.randint(0, 90, (n_ranks, 2 * n_ranks), generator=draw).tolist())
    figure = figures.matrix(traffic)
    ((drawing, _),) = drawn
    assert faults(figure, drawing) == []
    assert [int(node.name) for node in drawing.nodes] == traffic.rows.flatten().tolist()
    assert {node.color for node in drawing.nodes[:: n_ranks + 1]} == {figures.STAYS}
    sums = [note.text for note in drawing.notes]
    assert all(str(n) in sums for n in traffic.rows.sum(0).tolist())
    away = traffic.rows.sum(1) - traffic.rows.diag()
    assert all(f"{n} leave" in sums for n in away.tolist())
    assert f"of which {int(away.sum())} leave their rank" in figure.get_label()


def test_dropped_rows_are_named_and_not_drawn(drawn):
    full = of([[4, 0], [4, 0]], capacity=1.0)
    assert "4 more were dropped" in figures.matrix(full).get_label()
    assert "4 rows, each" in figures.travel(full).get_label()


def test_what_has_no_room_is_refused():
    with pytest.raises(ValueError, match="room for 20 rows of 4 ranks; got 21 of 2"):
        figures.travel(of([[10, 0], [11, 0]]))
    with pytest.raises(ValueError, match="room for 8 ranks; got 9"):
        figures.matrix(of([[1] * 9] * 9))
