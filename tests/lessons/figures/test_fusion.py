"""The drawings of images among words show the real layout, order and angles."""

import matplotlib.pyplot as plt
import pytest
import torch
from drawings import faults, noted
from fusion_twin import IDS, LLAMA_4, TILE
from pictures import faults as picture_faults
from pictures import styled

from llama_from_scratch.lessons.figures import fusion
from llama_from_scratch.vision.fusion_encoder import TileRope, shuffled
from llama_from_scratch.vision.image_layout import layout
from llama_from_scratch.vision.tiles import GridTiling, place

WORDS = {"image\nstart": "image_start", "image\nend": "image_end", "image": "image",
         "next\ntile": "tile_x_separator", "row\nends": "tile_y_separator"}


@pytest.fixture
def made(monkeypatch):
    yield noted(monkeypatch)
    plt.close("all")


@pytest.mark.parametrize("grid", [(1, 1), (1, 2), (2, 3), (3, 1), (4, 4), (1, 5)])
@pytest.mark.parametrize("n_tokens", [3, 144])
def test_the_tokens_are_those_of_the_layout_in_its_order(grid, n_tokens, made):
    fusion.image_text(*grid, n_tokens=n_tokens)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    ids = []
    for node in sorted((n for n in drawing.nodes if n.lines != ("",)), key=lambda n: (n.y, n.x)):
        words = "\n".join(node.lines)
        ids += ([getattr(IDS, WORDS[words])] if words in WORDS else n_tokens * [IDS.patch])
    wanted = layout(grid, ids=IDS, n_tokens=n_tokens)
    assert ids == wanted
    assert f"takes {len(wanted):,} places" in figure.get_label()


def test_too_many_columns_are_refused():
    with pytest.raises(ValueError, match="at most 5 columns of tiles are drawn; got 6"):
        fusion.image_text(1, 6, n_tokens=2)


@pytest.mark.parametrize(("grid", "edge"), [(4, 2), (2, 2), (6, 3), (6, 2)])
def test_patches_of_one_color_are_one_token_of_the_library(grid, edge, made):
    fusion.pixel_shuffle(grid, edge=edge)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    cells = [node for node in drawing.nodes if node.kind == "cell"]
    in_tile, joined = cells[: grid**2], cells[grid**2:]
    numbers = torch.arange(float(grid**2))[None, :, None]
    wanted = shuffled(numbers, edge=edge)[0].long().flatten().tolist()
    assert [int(node.name) for node in joined] == wanted
    color_of = {node.name: node.color for node in in_tile}
    assert all(color_of[node.name] == node.color for node in joined)
    assert len({(node.x, node.y) for node in in_tile}) == grid**2


def test_too_many_patches_are_refused():
    with pytest.raises(ValueError, match="at most 6 patches along an edge are drawn; got 8"):
        fusion.pixel_shuffle(8)


@pytest.mark.parametrize("config", [LLAMA_4, TILE], ids=["published", "toy"])
def test_the_hands_are_the_angles_of_the_encoder(config, made):
    fusion.tile_rope(config)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    hands = [float(node.name) for node in drawing.nodes if node.kind == "clock"]
    turns = TileRope(config)()[0]
    half = turns.shape[1] // 2
    n = min(3, config.grid)
    patches = [row * config.grid + column for row in range(n) for column in range(n)]
    wanted = [turns[patch, pair] for patch in (*patches, -1) for pair in (0, half)]
    ours = torch.polar(torch.ones(len(hands)), torch.tensor(hands))
    torch.testing.assert_close(ours, torch.stack(wanted))


@pytest.mark.parametrize("size", [(800, 1200), (336, 336), (337, 337), (80, 3900), (4000, 30)])
def test_an_image_of_any_size_has_its_tiles_and_its_tokens(size, monkeypatch):
    styled(monkeypatch)
    tiling = GridTiling(size_px=336)
    figure = fusion.image_size(*size, tiling=tiling, n_tokens=144)
    assert picture_faults(figure) == []
    at = place(*size, tiling=tiling, fills_canvas=False)
    left, right = figure.axes
    image, *tiles = left.patches
    assert (image.get_height(), image.get_width()) == (at.height_px, at.width_px)
    assert len(tiles) == at.rows * at.columns
    n_tokens = len(layout((at.rows, at.columns), ids=IDS, n_tokens=144))
    assert right.get_title(loc="left") == f"{n_tokens:,} tokens"
    assert figure.get_suptitle().startswith(f"{size[0]:,} × {size[1]:,} pixels")
    n_boxes = sum(patch.get_width() == 0.86 for patch in right.patches)
    assert n_boxes == len(tiles) + (len(tiles) > 1)
    plt.close(figure)
