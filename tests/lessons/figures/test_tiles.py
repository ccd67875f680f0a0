"""What is drawn is what the library computes: canvases, places, tiles and masks."""

import drawings
import matplotlib.pyplot as plt
import numpy as np
import pictures
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from llama_from_scratch.lessons.figures import tiles
from llama_from_scratch.lessons.figures.look import TINTS
from llama_from_scratch.vision.tiles import (
    Tiling,
    canvases,
    place,
    split,
)

TILING = Tiling(size_px=20)


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def made(monkeypatch):
    yield drawings.noted(monkeypatch)
    plt.close("all")


@pytest.fixture(autouse=True)
def styled(monkeypatch):
    pictures.styled(monkeypatch)


def shown(figure):
    """(left, top, picture) of each image in a figure, in inches from the top left."""
    return [(image.get_extent()[0], image.get_extent()[3], np.asarray(image.get_array()))
            for image in figure.axes[0].images]


@pytest.mark.parametrize("size", [(20, 20), (9, 35), (37, 37), (70, 20), (300, 900), (1, 4000)])
def test_the_canvas_and_the_tiles_are_the_same_pieces_in_the_same_order(size):
    image, at = noise(*size), place(*size, tiling=TILING)
    figure = tiles.on_canvas(image, TILING)
    assert pictures.faults(figure) == []
    pieces = shown(figure)
    assert len(pieces) == 2 * at.rows * at.columns
    on_canvas, apart = pieces[::2], pieces[1::2]
    assert all(np.array_equal(one[2], other[2]) for one, other in zip(
        on_canvas, apart, strict=True))
    for places in (on_canvas, apart):
        assert [piece[:2] for piece in places] == sorted(
            (piece[:2] for piece in places), key=lambda place: (place[1], place[0]))
    numbers = [text.get_text() for text in figure.axes[0].texts][3:]
    assert numbers == [str(number) for number in range(at.rows * at.columns)]
    assert f"canvas {at.aspect_id}" in [text.get_text() for text in figure.axes[0].texts]
    assert f"{at.height_px:,} × {at.width_px:,} pixels" in figure.get_label()


def test_the_pieces_on_the_canvas_are_the_image_in_few_colors_on_black():
    image = np.full((40, 30, 3), (200, 100, 0), np.uint8)
    pieces = shown(tiles.on_canvas(image, TILING))[::2]
    (left, top), (right, bottom) = pieces[0][:2], pieces[-1][:2]
    assert left < right and top < bottom
    assert pieces[0][2].reshape(-1, 3).tolist() == [[200, 100, 0]] * len(
        pieces[0][2].reshape(-1, 3))
    width = pieces[1][2].shape[1]
    assert pieces[1][2][:, : width // 2 - 1].any() and not pieces[1][2][:, width // 2 + 1:].any()


def test_every_canvas_is_drawn_with_its_id(made):
    figure = tiles.canvases()
    ((drawing, _),) = made
    assert drawings.faults(figure, drawing) == []
    notes = [note.text for note in drawing.notes]
    assert notes[::2] == [f"id {number}" for number in range(1, 9)]
    assert notes[1::2] == [f"{rows} × {columns}" for rows, columns in canvases(4)]
    for number, (rows, columns) in enumerate(canvases(4), start=1):
        cells = [node for node in drawing.nodes if node.color == tiles.CANVAS_COLORS[number - 1]]
        assert len({cell.y for cell in cells}) == rows
        assert len({cell.x for cell in cells}) == columns
    tiles.canvases(9)
    assert drawings.faults(made[1][1], made[1][0]) == []


@pytest.mark.parametrize("size", [(427, 640), (3000, 4000), (10, 10)])
def test_the_road_has_the_real_sizes_and_one_way(made, size):
    figure = tiles.road(noise(*size), Tiling(size_px=560))
    ((drawing, _),) = made
    assert drawings.faults(figure, drawing) == []
    at = place(*size, tiling=Tiling(size_px=560))
    lines = {node.name: node.lines for node in drawing.nodes}
    assert lines["pixels"][2] == "1 × 1 × 4 × 3 × 560 × 560"
    assert f"{at.rows * 560:,} × {at.columns * 560:,} × 3" in lines
    ways = drawings.links(drawing)
    assert ways[0] == ("image", "decode") and ways[-1] == (f"{at.rows} × {at.columns} tiles",
                                                           "aspect_ids")
    steps = [start for start, _ in ways[:-1]]
    assert steps[4:] == [f"{at.rows} × {at.columns} tiles", "resize", "pad",
                         f"{at.rows * 560:,} × {at.columns * 560:,} × 3", "cut", "normalize"]


def test_a_batch_shows_ids_masks_and_which_slots_hold_tiles(made):
    batch = split([[noise(30, 30), noise(9, 70)], [], [noise(5, 5)]], TILING)
    figure = tiles.batch(batch)
    ((drawing, _),) = made
    assert drawings.faults(figure, drawing) == []
    cells = drawing.nodes[: 3 * 2 * 4]
    assert [int(cell.name) for cell in cells] == batch.tile_mask.int().ravel().tolist()
    colors = [TINTS[0] if tile < n else "white" if n else "#D4D4D4"
              for n in batch.n_tiles.ravel().tolist() for tile in range(4)]
    assert [cell.color for cell in cells] == colors
    ids = [note.text for note in drawing.notes if note.text.startswith("id ")]
    assert ids == [f"id {each}" for each in batch.aspect_ids.ravel().tolist()]


def test_the_plane_has_the_canvas_of_each_size():
    figure = tiles.plane(TILING, longest_px=100, n_steps=100)
    assert pictures.faults(figure) == []
    (image,) = figure.axes[0].images
    ids = np.asarray(image.get_array())
    assert image.origin == "lower" and image.get_extent() == [0, 100, 0, 100]
    for height, width in ((1, 1), (20, 21), (21, 20), (50, 100), (51, 100), (100, 100), (99, 4)):
        at = place(height, width, tiling=TILING)
        assert ids[height - 1, width - 1] == at.aspect_id
        assert to_hex(image.cmap(image.norm(at.aspect_id))).upper() == tiles.CANVAS_COLORS[
            at.aspect_id - 1].upper()
    for text, (rows, columns) in zip(figure.axes[0].texts, canvases(4), strict=True):
        width, height = text.get_position()
        at = place(round(height), round(width), tiling=TILING)
        assert text.get_text() == f"{rows} × {columns}" == f"{at.rows} × {at.columns}"


def test_pictures_are_shown_pixel_by_pixel_each_under_its_name():
    images = {"small": noise(4, 6), "large": noise(8, 8)}
    figure = tiles.pictures(images, see="two")
    assert pictures.faults(figure) == [] and figure.get_label() == "two"
    assert [text.get_text() for text in figure.axes[0].texts] == list(images)
    for (_, _, picture), image in zip(shown(figure), images.values(), strict=True):
        assert np.array_equal(picture, image)


def test_pictures_wider_than_a_page_are_refused():
    with pytest.raises(ValueError, match=r"at most 9.0 inches wide together; these are 19.3"):
        tiles.pictures({"long": noise(4, 40)}, see="one")


def test_a_gallery_shows_normalized_tiles_as_the_pixels_they_were():
    images = [noise(20, 20), noise(40, 20), noise(40, 40), noise(20, 80)]
    batches = [split([[image]], TILING) for image in images]
    made = {batch.aspect_ids.item(): batch.pixels[0, 0, : batch.n_tiles.item()].numpy()
            for batch in batches}
    figure = tiles.gallery(made, TILING)
    assert pictures.faults(figure) == []
    pieces = shown(figure)
    assert np.array_equal(pieces[0][2], images[0])
    assert np.array_equal(np.concatenate([pieces[1][2], pieces[2][2]]), images[1])
    places = [piece[:2] for piece in pieces]
    assert places[1][0] == places[2][0] and places[1][1] < places[2][1], "2 × 1: one below another"
    assert len({top for _, top in places[7:]}) == 1 and places[7:] == sorted(places[7:]), "1 × 4"
    assert [text.get_text() for text in figure.axes[0].texts] == ["1 × 1", "2 × 1", "2 × 2",
                                                                  "1 × 4"]


@pytest.mark.parametrize("size", [(700, 2000), (1, 1), (2800, 1), (1, 2800), (200, 300)])
@pytest.mark.parametrize("longest", [None, 2800])
def test_an_image_and_its_canvas_have_one_scale(size, longest):
    tiling = Tiling(size_px=560)
    figure = tiles.own_size(*size, tiling=tiling, longest_px=longest)
    assert pictures.faults(figure) == []
    at = place(*size, tiling=tiling)
    image, canvas, on_it, *edges = [patch for patch in figure.axes[0].patches
                                    if isinstance(patch, Rectangle)]
    inch = canvas.get_width() / (at.columns * 560)
    assert (image.get_height(), image.get_width()) == pytest.approx(
        (size[0] * inch, size[1] * inch))
    assert (on_it.get_height(), on_it.get_width()) == pytest.approx(
        (at.height_px * inch, at.width_px * inch))
    assert on_it.get_xy() == canvas.get_xy() and len(edges) == at.rows * at.columns


def test_the_words_say_whether_an_image_grows_shrinks_or_keeps_its_size():
    words = [tiles.own_size(*size, tiling=Tiling(size_px=560)).get_label()
             for size in ((200, 300), (427, 640), (3000, 4000), (1, 600))]
    assert words == [
        "The image grows to 373 × 560, 1.9 times its size. It takes 1 tile of 560 × 560; 33% of "
        "the canvas is black padding.",
        "The image keeps its size. It takes 2 tiles of 560 × 560; 56% of the canvas is black "
        "padding.",
        "The image shrinks to 840 × 1,120, 0.28 times its size. It takes 4 tiles of 560 × 560; 25% "
        "of the canvas is black padding.",
        "The image keeps its size. It takes 2 tiles of 560 × 560; 99% of the canvas is black "
        "padding."]


def test_images_up_to_the_longest_have_one_scale_and_one_height():
    figures = [tiles.own_size(*size, tiling=TILING, longest_px=100)
               for size in ((10, 10), (100, 20), (30, 100))]
    assert len({tuple(figure.get_size_inches()) for figure in figures}) == 1
    scales = [figure.axes[0].patches[0].get_height() / height
              for figure, height in zip(figures, (10, 100, 30), strict=True)]
    assert scales == pytest.approx([scales[0]] * 3)
