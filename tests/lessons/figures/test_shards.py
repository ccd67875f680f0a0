import matplotlib.pyplot as plt
import pytest
from drawings import faults, noted
from pictures import faults as faults_of_plots
from pictures import styled

from llama_from_scratch.lessons.figures import shards

SIZES = {"wq": 9, "wk": 4, "wo": 9, "norm": 3}


def test_each_element_has_the_color_of_its_owner_and_padding_has_none(monkeypatch):
    made = noted(monkeypatch)
    shards.buffer(SIZES, n_ranks=4)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    elements = sorted((node for node in drawing.nodes if not node.name and node.y == 0.42),
                      key=lambda node: node.x)
    colors = [node.color for node in elements]
    assert len(colors) == 28 and [colors.count(c) for c in dict.fromkeys(colors)] == [7, 7, 7, 4, 3]
    boxes = {node.name: node for node in drawing.nodes if node.name}
    ends = {name: node.x + node.width / 2 for name, node in boxes.items()}
    assert ends["wk"] == pytest.approx(elements[12].x + elements[12].width / 2)
    assert "3 of padding" in figure.get_label()
    plt.close("all")


def test_without_padding_none_is_drawn(monkeypatch):
    made = noted(monkeypatch)
    shards.buffer({"weight": 8}, n_ranks=2)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == [] and "padding" not in [n.text for n in drawing.notes]
    plt.close("all")


@pytest.mark.parametrize("n_ranks", [1, 2, 4])
def test_each_stage_divides_one_more_kind(monkeypatch, n_ranks):
    made = noted(monkeypatch)
    shards.owners(n_ranks=n_ranks)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    cells = [node for node in drawing.nodes if node.height == 0.2]
    assert len(cells) == 4 * n_ranks * 3 * n_ranks
    rows = sorted({round(node.y, 3) for node in cells})
    filled = [sum(node.color != "white" for node in cells if round(node.y, 3) == y) for y in rows]
    n = n_ranks
    assert filled == [n * n] * 3 + [n * n, n * n, n] + [n * n, n, n] + [n, n, n]
    plt.close("all")


def test_the_kinds_are_those_of_the_formulas():
    assert [shards.whole_kinds(stage) for stage in range(4)] == [
        {"weights", "gradients", "averages"}, {"weights", "gradients"}, {"weights"}, set()]


def test_bars_have_the_lengths_that_are_passed_in_and_the_totals_are_written(monkeypatch):
    styled(monkeypatch)
    bars = {"copies": {"weights": 4 * 10**9, "gradients": 4 * 10**9,
                       "averages of the optimizer": 8 * 10**9},
            "stage 3": {"master weights": 10**9, "there for a moment": 5 * 10**8}}
    figure = shards.memory(bars, limit=("a limit of 12 GB", 12 * 10**9))
    assert faults_of_plots(figure) == []
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == pytest.approx([4, 4, 8, 1, 0.5])
    assert [text.get_text().strip() for text in figure.axes[0].texts] == ["16 GB", "1.5 GB"]
    assert figure.get_label() == "Bytes on one rank: copies 16 GB; stage 3 1.5 GB."
    assert figure.axes[0].lines[0].get_xdata()[0] == pytest.approx(12)
    plt.close("all")


@pytest.mark.parametrize(("call", "told"), [
    (lambda: shards.buffer({"w": 31}, n_ranks=1), "room for 30 elements and 6 ranks; got 31 and 1"),
    (lambda: shards.owners(n_ranks=5), "room for 1 to 4 ranks; got 5"),
    (lambda: shards.memory({"a": {"wieghts": 1}}), "the parts of a bar are weights.*got wieghts"),
])
def test_what_does_not_fit_is_refused(call, told):
    with pytest.raises(ValueError, match=told):
        call()
