import matplotlib.pyplot as plt
import pytest
from drawings import faults, noted

from llama_from_scratch import family
from llama_from_scratch.lessons.figures import widths
from llama_from_scratch.model.feed_forward import FeedForward


@pytest.mark.parametrize("name", ["llama-1-7b", "llama-3.1-8b", "llama-3.2-1b"])
def test_bars_are_to_scale_and_weights_those_of_the_module(name, monkeypatch):
    made, config = noted(monkeypatch), family.config(name)
    widths.classic_and_gated(config)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    heights = {node.name: node.height for node in drawing.nodes if node.kind == "cell"}
    assert heights["4 D"] == pytest.approx(4 * heights["D"])
    assert heights["F"] == pytest.approx(config.ffn_dim / config.dim * heights["D"])
    notes = " ".join(note.text for note in drawing.notes)
    n = 3 * config.dim * config.ffn_dim
    assert f"{n / 1e6:,.0f}M weights per layer,\n{n / (8 * config.dim ** 2):.2f} times" in notes
    assert f"2 matrices of {config.dim:,} × {4 * config.dim:,}" in notes
    plt.close("all")


def test_the_count_is_that_of_a_feed_forward():
    config = family.tiny("llama-3")
    part = FeedForward(config.dim, config.ffn_dim)
    assert sum(p.numel() for p in part.parameters()) == 3 * config.dim * config.ffn_dim
