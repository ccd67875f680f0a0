import dataclasses

import matplotlib.pyplot as plt
import pytest
from drawings import faults, links, noted

from llama_from_scratch import family
from llama_from_scratch.lessons.figures import slices
from llama_from_scratch.lessons.figures.look import TINTS

SMALL = dataclasses.replace(family.tiny("llama-3.1"), n_heads=8, n_kv_heads=2)
COLUMNS = {"wo", "w_down"}


@pytest.fixture
def made(monkeypatch):
    yield noted(monkeypatch)
    plt.close("all")


def parts(drawing, name):
    """The cells below the name of a matrix, each as (who holds it, is it a column)."""
    (note,) = (note for note in drawing.notes if note.text == name)
    cells = [node for node in drawing.nodes if node.lines[0] and abs(node.x - note.x) < 0.85
             and 0 < node.y - note.y < 1.8 and abs(node.top[1] - note.y) < 1.6]
    return [(cell.name, len({round(other.x, 3) for other in cells}) > 1) for cell in cells]


@pytest.mark.parametrize(("config", "n_ranks"), [
    (family.config("llama-3.1-8b"), 2), (family.config("llama-3.1-405b"), 4), (SMALL, 4),
    (family.config("llama-3.2-3b"), 2)])
def test_each_part_names_the_ranks_that_hold_it(made, config, n_ranks):
    slices.held(config, n_ranks=n_ranks)
    drawing, figure = made[0]
    assert faults(figure, drawing) == []
    numbers = [str(rank) for rank in range(n_ranks)]
    for name in (full.split(".")[-1] for row in slices.ROWS for full in row):
        if name == "attention_norm":
            assert parts(drawing, name) == [("all", False)]
        elif name in ("wk", "wv") and config is SMALL:
            assert parts(drawing, name) == [("0, 1", False), ("2, 3", False)]
        else:
            assert parts(drawing, name) == [(number, name in COLUMNS) for number in numbers]
    colors = {node.name: node.color for node in drawing.nodes if node.name in numbers}
    assert colors == {number: TINTS[rank] for rank, number in enumerate(numbers)}
    notes = [note.text for note in drawing.notes]
    assert f"{config.ffn_dim:,} × {config.dim:,}" in notes


def test_a_drawing_for_more_ranks_than_it_has_room_for_is_refused():
    with pytest.raises(ValueError, match="2 to 4 ranks; got 8"):
        slices.held(SMALL, n_ranks=8)


@pytest.mark.parametrize(("is_cut", "ops", "n_own"), [
    (False, ["nothing to send", "all-reduce"] * 2, 8),
    (True, ["all-gather", "reduce-scatter"] * 2, 4)])
def test_a_block_shows_what_is_sent_in_both_directions(made, is_cut, ops, n_own):
    slices.block(SMALL, is_sequence_parallel=is_cut)
    drawing, figure = made[0]
    assert faults(figure, drawing) == []
    bars = [node for node in drawing.nodes if node.kind == "memory"]
    assert [bar.name for bar in bars] == ops
    assert [note.text for note in drawing.notes if "backward" in note.text] == [
        f"backward:\n{op}" for op in (ops[1], ops[0]) * 2]
    assert [node.lines[-1] for node in drawing.nodes if node.kind == "tensor"] == [
        f"1 × {n_own} × 64"] * 4
    assert {line for node in drawing.nodes for line in node.lines} >= {
        "4 of 8 heads; 1 × 8 × 64:", f"{SMALL.ffn_dim // 2} of {SMALL.ffn_dim} channels; "
        "1 × 8 × 64:"}
    assert len(links(drawing)) == 18 and None not in {name for link in links(drawing)
                                                      for name in link}
