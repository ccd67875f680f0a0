import dataclasses

import matplotlib.pyplot as plt
import pytest
from drawings import faults, links, noted

from llama_from_scratch import family
from llama_from_scratch.lessons.figures import pieces
from llama_from_scratch.parallel.pipeline.layers import layers_of


@pytest.fixture
def drawn(monkeypatch):
    yield noted(monkeypatch)
    plt.close("all")


def config(n_layers):
    tiny = family.tiny("llama-3")
    return dataclasses.replace(tiny, layers=tiny.layers[:1] * n_layers)


@pytest.mark.parametrize(("n_layers", "n_ranks", "n_chunks"), [
    (8, 2, 1), (8, 4, 1), (8, 4, 2), (2, 4, 1), (126, 4, 4)])
def test_every_layer_is_drawn_on_its_rank_and_the_way_goes_through_all_pieces(
        drawn, n_layers, n_ranks, n_chunks):
    figure = pieces.on_ranks(config(n_layers), n_ranks=n_ranks, n_chunks=n_chunks)
    ((drawing, _),) = drawn
    assert faults(figure, drawing) == []
    n = n_ranks * n_chunks
    assert [node.name for node in drawing.nodes] == [f"piece {i}" for i in range(n)]
    assert links(drawing) == [(f"piece {i}", f"piece {i + 1}") for i in range(n - 1)]
    for node, layers in zip(drawing.nodes, layers_of(n_layers, n), strict=True):
        words = " ".join(node.lines[1:])
        assert ("embedding" in words) == (node is drawing.nodes[0])
        assert ("head" in words) == (node is drawing.nodes[-1])
        if len(layers) > 1:
            assert f"layers {layers[0]} to {layers[-1]}" in words
        else:
            assert ("layer " in words) == bool(layers)
    assert [(name, len(nodes)) for name, nodes in drawing.frames] == [
        (f"rank {rank}", n_chunks) for rank in range(n_ranks)]
    assert f"through {n} pieces" in figure.get_label()


@pytest.mark.parametrize(("n_ranks", "n_chunks"), [(5, 1), (1, 1), (2, 5)])
def test_what_has_no_room_is_refused(n_ranks, n_chunks):
    with pytest.raises(ValueError, match=f"room for 2 to 4 ranks.*got {n_ranks} ranks"):
        pieces.on_ranks(config(8), n_ranks=n_ranks, n_chunks=n_chunks)
