"""The drawings of the vision encoder show the shapes and the parts of the real one."""

import dataclasses

import matplotlib.pyplot as plt
import pytest
import torch
from drawings import faults, links, noted
from vision_twin import LLAMA_3_2_11B, SMALL, images

from llama_from_scratch.lessons.figures import encoder
from llama_from_scratch.vision.encoder import Gate, VisionBlock, VisionModel, interleaved

CONFIGS = [SMALL, LLAMA_3_2_11B, dataclasses.replace(LLAMA_3_2_11B, tile_px=448)]
IDS = ["small", "11B", "base 11B"]


@pytest.fixture
def made(monkeypatch):
    yield noted(monkeypatch)
    plt.close("all")


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
@pytest.mark.parametrize("draw", [encoder.stages, encoder.layers, encoder.features])
def test_the_drawings_have_no_faults(draw, config, made):
    draw(config)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    assert all(end is not None for _, end in links(drawing))
    assert {end for start, end in links(drawing) if start is None} <= {"+"}, "around a half"


def sizes(drawing, name):
    (node,) = (node for node in drawing.nodes if node.name == name)
    return tuple(int(size.replace(",", "")) for size in node.lines[2].split(" × "))


def test_the_shapes_of_the_stages_are_those_of_a_run(made):
    encoder.stages(SMALL)
    ((drawing, figure),) = made
    seen, model = {}, VisionModel(SMALL)
    parts = {"patches": model.encoder.patch_embedding, "tokens": model.encoder.positions,
             "last state": model.encoder.global_layers[-1], "states": model.encoder,
             "for the text model": model.projector}
    for name, part in parts.items():
        part.register_forward_hook(
            lambda module, args, out, name=name: seen.update({name: tuple(out.shape[1:])}))
    pixels, ids = images(SMALL, (6,))
    model(pixels, ids)
    assert {name: sizes(drawing, name) for name in parts} == seen
    assert any(note.text.endswith(" × ".join(map(str, pixels.shape[1:])))
               for note in drawing.notes)
    assert f"becomes {SMALL.max_tiles * SMALL.n_tokens} vectors" in figure.get_label()


def test_the_stages_name_the_layers_and_the_states_of_the_config(made):
    encoder.stages(SMALL)
    ((drawing, _),) = made
    lines = {node.name: node.lines for node in drawing.nodes}
    assert "5 local layers" in lines and "2 global layers" in lines
    assert lines["keep the states"][-1] == "1, 2, 4"
    assert lines["norm, then pad"][1] == "to 16 a tile"


@pytest.mark.parametrize("is_gated", [False, True])
def test_a_layer_is_drawn_with_as_many_gates_as_it_has(is_gated, made):
    encoder.layers(SMALL)
    ((drawing, _),) = made
    xs = sorted({node.y for node in drawing.nodes if node.name == "x"})
    row = [node for node in drawing.nodes if abs(node.y - xs[is_gated]) < 1e-6]
    block = VisionBlock(SMALL, is_gated=is_gated)
    n_gates = sum(isinstance(part, Gate) for part in block.modules())
    assert sum(node.name == "×" for node in row) == n_gates == 2 * is_gated
    (attention, *_), = (node.lines[1:] for node in row if node.name == "attention")
    assert attention == f"{SMALL.n_heads} heads of {SMALL.head_dim}"


def test_the_features_have_the_order_of_the_library(made):
    encoder.features(SMALL)
    ((drawing, _),) = made
    W, kept = SMALL.dim, SMALL.intermediate_layers
    names = ["last", *kept]
    in_result = [node for node in drawing.nodes if node.kind == "cell"][3 * len(names):]
    numbers = [int(note.text) for note in drawing.notes if note.text.isdecimal()]
    colors = [node.color for node in drawing.nodes if node.kind == "cell"][::3][:len(names)]
    states = [torch.full((1, 1, W), float(i)) for i in range(1, len(names))]
    order = torch.cat([torch.zeros(1, 1, W), interleaved(states)], dim=-1)[0, 0]
    for node, number in zip(in_result, numbers, strict=True):
        assert colors.index(node.color) == order[number]
        channel = number if number < W else (number - W) // len(kept)
        assert node.name == str(channel)
