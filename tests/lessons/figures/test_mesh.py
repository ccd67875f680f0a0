import matplotlib.pyplot as plt
import pytest
from drawings import faults, noted
from pictures import faults as faults_of_plots
from pictures import styled

from llama_from_scratch.lessons.figures import mesh
from llama_from_scratch.parallel.mesh import Mesh


@pytest.mark.parametrize(("sizes", "chosen"), [
    (dict(tp=2, cp=2, pp=2, dp=2), 0), (dict(tp=2, cp=2, pp=2, dp=2), 13),
    (dict(tp=4, cp=2, pp=4, dp=4), 5), (dict(pp=3), 1), (dict(tp=2, dp=3), 2)], ids=str)
def test_a_rank_that_shares_one_group_has_its_color(monkeypatch, sizes, chosen):
    made = noted(monkeypatch)
    its_mesh = Mesh(**sizes)
    mesh.ranks(its_mesh, chosen=chosen)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    colors = {int(node.name): node.color for node in drawing.nodes if node.name}
    expected = dict.fromkeys(range(its_mesh.size), "white") | {
        rank: color for axis, color in mesh.COLORS.items()
        for line in its_mesh.lines(axis) if chosen in line for rank in line}
    assert colors == expected | {chosen: mesh.CHOSEN}
    assert [name for name, _ in drawing.frames] == [f"dp {i}" for i in range(its_mesh.dp)]
    for i, (_, nodes) in enumerate(drawing.frames):
        assert {its_mesh.coordinates(int(node.name))["dp"] for node in nodes} == {i}
    plt.close("all")


def test_the_drawing_of_the_paper_is_told():
    label = mesh.ranks(Mesh(tp=2, cp=2, pp=2, dp=2)).get_label()
    assert label.endswith("tp 0, 1; cp 0, 2; pp 0, 4; dp 0, 8.")
    label = mesh.ranks(Mesh(tp=2, cp=2, pp=2, dp=2), chosen=13).get_label()
    assert label.endswith("tp 12, 13; cp 13, 15; pp 9, 13; dp 5, 13.")
    plt.close("all")


def test_neighbors_are_next_to_each_other_and_stages_below(monkeypatch):
    made = noted(monkeypatch)
    mesh.ranks(Mesh(tp=2, cp=2, pp=2))
    at = {int(node.name): (node.x, node.y) for node in made[0][0].nodes if node.name}
    assert at[0][1] == at[1][1] == at[2][1] < at[4][1] and at[0][0] == at[4][0]
    assert at[1][0] - at[0][0] < at[2][0] - at[1][0]
    plt.close("all")


def test_bytes_are_bars_in_the_order_of_the_mesh(monkeypatch):
    styled(monkeypatch)
    figure = mesh.sent({"first": {"ends": 50, "pp": 100, "gradients": 4000, "tp": 2000},
                        "last": {"cp": 7}})
    assert faults_of_plots(figure) == []
    first, last = figure.axes
    assert [label.get_text() for label in first.get_yticklabels()] == [
        "tp", "pp", "ends", "gradients"]
    assert [bar.get_width() for bar in first.patches] == [0.5, 0.025, 0.0125, 1.0]
    assert [text.get_text() for text in first.texts] == ["2 KB", "100 bytes", "50 bytes", "4 KB"]
    assert [bar.get_width() for bar in last.patches] == [1.0]
    assert figure.get_label().startswith("first: tp 2 KB, pp 100 bytes, ")
    plt.close("all")


@pytest.mark.parametrize("sizes", [dict(pp=8), dict(dp=8), dict(tp=4, cp=4), dict(replicate=2)],
                         ids=str)
def test_a_mesh_that_does_not_fit_on_a_page_is_refused(sizes):
    with pytest.raises(ValueError, match="room for pp and dp up to 4.*Draw a smaller mesh"):
        mesh.ranks(Mesh(**sizes))
