import math

import matplotlib.pyplot as plt
import pytest
from drawings import faults, links, noted

from llama_from_scratch import family
from llama_from_scratch.lessons.figures import flow, rotation
from llama_from_scratch.model.rope import Rope
from llama_from_scratch.model.transformer import Llama


def test_hands_are_those_of_the_model_and_turns_are_told(monkeypatch):
    made = noted(monkeypatch)
    rope = Rope(family.tiny("llama-2"))
    positions = (0, 1, 2, 30, 400)
    rotation.pairs(rope, positions=positions, n_pairs=2)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    angles = [float(node.name) for node in drawing.nodes]
    n = len(rope.freq_R)
    for row, pair in enumerate((0, n - 1)):
        for column, position in enumerate(positions):
            expected = math.remainder(position * float(rope.freq_R[pair]), 2 * math.pi)
            assert angles[5 * row + column] == pytest.approx(expected, abs=1e-4)
    columns = {text: x for text, x, *_ in drawing.notes if text.isdigit()}
    assert columns == {str(position): drawing.nodes[column].x
                       for column, position in enumerate(positions)}
    notes = " ".join(text for text, *_ in drawing.notes)
    assert "channels 0, 1\none turn: 6 tokens" in notes, "2 pi at one radian per token"
    assert f"channels {2 * n - 2}, {2 * n - 1}\n" in notes


def test_a_hand_points_where_its_angle_says():
    made = flow.Drawing("A title")
    made.clock(math.pi / 2, (1.0, 1.0))
    circle, hand = made.figure("What to see.").axes[0].patches
    (x0, y0), (x1, y1) = hand._posA_posB
    assert (x0, y0) == (1.0, 1.0) and x1 == pytest.approx(1.0) and y1 < y0, "up"
    assert circle.radius == pytest.approx(1.0 - y1)
    plt.close("all")


@pytest.mark.parametrize("name", ["llama-1", "llama-3.2"])
def test_q_and_k_are_turned_and_v_is_not(name, monkeypatch):
    made, config = noted(monkeypatch), family.tiny(name)
    rotation.in_layer(Llama(config), n_tokens=5)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    lines = {node.name: node.lines for node in drawing.nodes}
    assert lines["q"][2] == f"1 × 5 × {config.n_heads} × {config.head_dim}"
    assert lines["k"][2] == lines["v"][2] == f"1 × 5 × {config.n_kv_heads} × {config.head_dim}"
    assert lines["turns"][1:] == ("B T R", f"1 × 5 × {config.head_dim // 2}")
    assert lines["Rope"][1] == f"theta = {config.rope_theta:,.0f}"
    turned = [node.y for node in drawing.nodes if node.name == "turn pairs"]
    places = {node.name: node.y for node in drawing.nodes if node.name in "qkv"}
    assert turned == [places["q"], places["k"]]
    assert sorted(links(drawing)) == sorted([
        ("positions", "Rope"), ("Rope", "turns"), ("turns", "turn pairs"), ("turns", "turn pairs"),
        *(pair for name in "qkv" for pair in (("x", f"w{name}"), (f"w{name}", name))),
        ("q", "turn pairs"), ("k", "turn pairs"), ("turn pairs", "KV cache"), ("v", "KV cache"),
        ("turn pairs", "attend"), ("KV cache", "attend")])
    plt.close("all")
