"""The drawings of the vision adapter show the parts and the rule of the real one."""

import matplotlib.pyplot as plt
import pytest
import torch
from drawings import faults, links, noted
from seeing_twin import loud

from llama_from_scratch import family
from llama_from_scratch.lessons.figures import adapter
from llama_from_scratch.lessons.figures.look import TINTS
from llama_from_scratch.vision.cross_attention import SeeingBlock
from llama_from_scratch.vision.image_mask import nothing_before, sight

RELEASED = ("llama-3.2-11b-vision", "llama-3.2-11b-vision-instruct",
            "llama-3.2-90b-vision-instruct")
CONFIGS = [loud().config, family.tiny("llama-3.2-vision"), *map(family.config, RELEASED)]
IDS = ["loud", "tiny", *RELEASED]


@pytest.fixture
def made(monkeypatch):
    yield noted(monkeypatch)
    plt.close("all")


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
@pytest.mark.parametrize("draw", [adapter.model, adapter.block])
def test_the_drawings_have_no_faults(draw, config, made):
    draw(config)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    assert all(end is not None for _, end in links(drawing) if end != "bus")


@pytest.mark.parametrize("cross_layers", [(1, 3), (0, 1), (4,), (0, 2, 4)])
def test_every_block_of_a_small_model_is_drawn_before_its_text_layer(cross_layers, made):
    model = loud(cross_layers=cross_layers)
    adapter.model(model.config)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    row = [node.name for node in sorted(drawing.nodes, key=lambda node: node.x)
           if node.y > 2 and node.name not in ("ids", "head")]
    drawn, first = [], 0
    for i, layer in enumerate(model.layers):
        if isinstance(layer, SeeingBlock):
            drawn += [words(first, i - 1), "block"] if i else ["block"]
            first = i
    assert row == [*drawn, words(first, len(model.layers) - 1)]


def words(first, last):
    return f"layer {last}" if first == last else f"layers {first}–{last}"


def test_of_many_blocks_the_first_two_and_the_last_are_drawn(made):
    adapter.model(family.config("llama-3.2-11b-vision-instruct"))
    ((drawing, figure),) = made
    row = [node.name for node in sorted(drawing.nodes, key=lambda node: node.x) if node.y > 2]
    assert row == ["ids", "layers 0–2", "block", "layers 3–6", "block", "…", "block", "layer 31",
                   "head"]
    assert "before layers 3, 7, 11, 15, 19, 23, 27, 31 look at the same 6,404 states" in (
        figure.get_label())


def test_the_block_has_two_gates_and_the_norms_of_the_real_one(made):
    model = loud()
    adapter.block(model.config)
    ((drawing, _),) = made
    names = [node.name for node in drawing.nodes]
    cross = model.layers[1].cross
    assert names.count("tanh(gate)") == names.count("×") == 2
    assert names.count("norm") == sum("norm" in name for name, _ in cross.named_modules())
    assert {"wq", "wk", "wv", "wo"} <= set(names)
    assert all(hasattr(cross.attention, name) for name in ("wq", "wk", "wv", "wo"))


def test_the_table_of_tiles_is_the_librarys_rule(made):
    is_image = torch.tensor([[False, True, False, True, True, False]])
    sees = sight(is_image, before=nothing_before(1))
    images = torch.arange(3)
    sees_TI = (images >= sees.first[0, :, None]) & (images < sees.end[0, :, None])
    names = ["a", "<image>", "b", "<image>", "<image>", "c"]
    adapter.sight(names, sees_TI, n_tiles=[2, 1, 4], max_tiles=4)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    cells = [node for node in drawing.nodes if node.kind == "cell"][: 3 * 4 * 6]
    is_drawn = torch.tensor([cell.color == TINTS[0] for cell in cells]).view(3, 4, 6)
    used = torch.arange(4) < torch.tensor([2, 1, 4])[:, None]
    expected = sees_TI.T[:, None, :] & used[..., None]
    assert torch.equal(is_drawn, expected)
    assert figure.get_label() == ("Image 0 is seen by 2 of 6 tokens; image 1 is seen by 3 of 6 "
                                  "tokens; image 2 is seen by 2 of 6 tokens. No token sees an "
                                  "unused tile.")
