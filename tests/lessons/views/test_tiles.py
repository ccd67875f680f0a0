"""A dragged size and the reader's own picture become tiles, and a bad file shows its error."""

import datetime
import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from moved_widgets import figure_of
from pictures import faults, styled
from PIL import Image

from llama_from_scratch.lessons import views
from llama_from_scratch.lessons.views.tiles import LONGEST_PX, TILINGS
from llama_from_scratch.vision.tiles import place


def picture(height=30, width=40):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def file_of(*images, kind="PNG"):
    file = io.BytesIO()
    first, *more = map(Image.fromarray, images)
    first.save(file, format=kind, **({"save_all": True, "append_images": more} if more else {}))
    return file.getvalue()


def upload(explorer, data, name="a.png"):
    """Puts a file into the widget as the browser does."""
    explorer.controls["upload"].value = ({
        "name": name, "type": "image/png", "size": len(data), "content": memoryview(data),
        "last_modified": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)},)


def words(explorer):
    return explorer.words.value


@pytest.mark.parametrize("name", TILINGS)
@pytest.mark.parametrize("size", [(1, 1), (700, 2000), (LONGEST_PX, LONGEST_PX), (560, 561)])
def test_the_canvas_of_a_dragged_size_is_the_librarys(name, size, monkeypatch):
    styled(monkeypatch)
    explorer = views.tiles_of_size()
    for control, value in {"height": size[0], "width": size[1], "tile": name}.items():
        explorer.controls[control].value = value
    at = place(*size, tiling=TILINGS[name])
    figure = figure_of(explorer)
    assert faults(figure) == [] and explorer.problem.value == ""
    title = figure.axes[0].texts[0].get_text()
    assert title.startswith(f"{size[0]:,} × {size[1]:,} pixels on {at.rows} × {at.columns} tile")
    plt.close(figure)


def test_dragging_changes_the_picture_and_a_chapter_chooses_the_start():
    explorer = views.tiles_of_size(start={"width": 1000})
    assert explorer.controls["width"].value == 1000 and explorer.controls["height"].value == 700
    before = explorer.picture.value
    explorer.controls["height"].value = 1500
    assert explorer.picture.value != before


def test_the_chapters_picture_is_shown_until_the_reader_gives_one():
    explorer = views.tiles_of_picture(picture(500, 700))
    assert "An image of 500 × 700 pixels" in words(explorer)
    assert explorer.problem.value == ""


def test_an_uploaded_file_and_a_path_replace_each_other(tmp_path):
    (tmp_path / "b.png").write_bytes(file_of(picture(60, 50)))
    explorer = views.tiles_of_picture(picture())
    upload(explorer, file_of(picture(20, 90)))
    assert "An image of 20 × 90 pixels" in words(explorer)
    explorer.controls["path"].value = str(tmp_path / "b.png")
    assert "An image of 60 × 50 pixels" in words(explorer)
    assert explorer.controls["upload"].value == ()
    upload(explorer, file_of(picture(20, 90)))
    assert "An image of 20 × 90 pixels" in words(explorer)
    assert explorer.controls["path"].value == ""
    explorer.controls["upload"].value = ()
    assert "An image of 30 × 40 pixels" in words(explorer)


def test_other_tiles_cut_the_same_picture_again():
    explorer = views.tiles_of_picture(picture())
    upload(explorer, file_of(picture(500, 700)))
    for name, n_tiles in {"448 (11B base)": "2 × 2", "336, 16 tiles (Llama 4)": "2 × 3"}.items():
        explorer.controls["tile"].value = name
        assert f"An image of 500 × 700 pixels (height × width) becomes 500 × 700 pixels on " \
               f"{n_tiles} tiles" in words(explorer)


@pytest.mark.parametrize(("data", "message"), [
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "this is an SVG, which describes shapes"),
    (b"hello", "this is text, &#x27;hello&#x27;"), (b"", "nothing (0 bytes)"),
    (file_of(picture(200, 200))[:3000], "an image must be whole"),
], ids=["svg", "text", "empty", "truncated"])
def test_a_bad_file_shows_the_librarys_error_above_the_last_good_picture(data, message, tmp_path):
    explorer = views.tiles_of_picture(picture())
    before = explorer.picture.value
    upload(explorer, data)
    assert message in explorer.problem.value and explorer.picture.value == before
    (tmp_path / "bad.png").write_bytes(data)
    explorer.controls["path"].value = str(tmp_path / "bad.png")
    assert "bad.png" in explorer.problem.value and explorer.picture.value == before
    upload(explorer, file_of(picture(20, 90)))
    assert explorer.problem.value == "" and explorer.picture.value != before


def test_a_missing_file_and_an_address_are_refused():
    explorer = views.tiles_of_picture(picture())
    for path, message in {"no.png": "no.png; it is missing",
                          "https://example.org/a.png": "from a file on this machine"}.items():
        explorer.controls["path"].value = path
        assert message in explorer.problem.value


def test_an_animation_says_which_frame_is_shown():
    explorer = views.tiles_of_picture(picture())
    upload(explorer, file_of(picture(), picture()[::-1], kind="GIF"))
    assert "Note: this image has several frames; only frame 1 is used." in words(explorer)


def test_the_reader_may_write_spaces_around_a_path(tmp_path):
    (tmp_path / "b.png").write_bytes(file_of(picture(60, 50)))
    explorer = views.tiles_of_picture(picture())
    explorer.controls["path"].value = f"  {tmp_path / 'b.png'} "
    assert explorer.problem.value == "" and "60 × 50" in words(explorer)
