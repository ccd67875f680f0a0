import matplotlib.pyplot as plt
import pytest
from drawings import faults, noted

from llama_from_scratch import family
from llama_from_scratch.lessons.figures import heads


@pytest.mark.parametrize("name", ["llama-1-7b", "llama-3.1-8b", "llama-3.1-405b", "llama-3.2-3b"])
def test_each_query_head_is_above_the_head_that_it_reads(name, monkeypatch):
    made, config = noted(monkeypatch), family.config(name)
    heads.groups(config, others=(1,))
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    size = config.n_heads // config.n_kv_heads
    top = min(node.y for node in drawing.nodes)
    shared = sorted({node.y for node in drawing.nodes})[1]
    for query in (node for node in drawing.nodes if node.y == top):
        (below,) = (node for node in drawing.nodes
                    if node.y == shared and abs(node.x - query.x) < node.width / 2)
        assert int(below.name) == int(query.name) // size and below.color == query.color
        assert any(a.points[0] == (query.x, below.top[1]) and a.points[-1] == query.bottom
                   for a in drawing.arrows)
    notes = " ".join(note.text for note in drawing.notes)
    assert f"G = {config.n_kv_heads}, this model" in notes
    assert f"{2 * config.n_kv_heads * config.head_dim:,} numbers kept" in notes
    plt.close("all")


def test_heads_that_cannot_be_shared_evenly_are_refused():
    with pytest.raises(ValueError, match="must divide 32; got 5"):
        heads.groups(family.config("llama-3.1-8b"), others=(5,))
