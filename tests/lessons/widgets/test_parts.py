import base64
import io
import re

import ipywidgets
import matplotlib.pyplot as plt
import pytest

from llama_from_scratch.lessons.figures.look import png
from llama_from_scratch.lessons.widgets import parts


def drawn(width, height):
    with plt.rc_context({"figure.dpi": 100, "savefig.dpi": "figure"}):
        fig, ax = plt.subplots(figsize=(width / 100, height / 100))
        ax.plot([0, 1])
        return png(fig)


def test_the_size_of_a_picture_is_read_from_its_file():
    assert parts.size(drawn(320, 150)) == (320, 150)


def test_a_picture_keeps_its_own_size_and_shrinks_to_half_of_it_at_most():
    image = parts.picture()
    image.value = drawn(320, 150)
    assert image.layout.min_width == "160px" and image.layout.max_width == "100%"
    assert image.layout.width is None and image.layout.height is None
    assert parts.PICTURE_CLASS in parts.framed(image)._dom_classes


def test_every_label_has_room_and_no_control_is_wider_than_the_page():
    short = parts.look_of("k")
    long = parts.look_of("k", among=["k", "query heads per key/value head"])
    room = [float(look["style"]["description_width"].removesuffix("em")) for look in (short, long)]
    assert room[0] < 0.5 * len("query heads per key/value head") < room[1]
    assert all(look["layout"]["max_width"] == "calc(100% - 4px)" for look in (short, long))
    assert ipywidgets.IntSlider(**long).description == "k"


def test_the_heading_holds_the_notice_which_only_a_missing_kernel_shows():
    words = parts.heading("a < b").value
    assert "<b>a &lt; b</b>" in words and parts.NOT_LIVE in words
    hidden, shown = (re.search(rf"{rule} {{ *display: (\w+)", words)[1] for rule in (
        rf"\n\.{parts.NOTICE_CLASS}", rf"\n\.jupyter-widgets-disconnected \.{parts.NOTICE_CLASS}"))
    assert (hidden, shown) == ("none", "block")


@pytest.mark.parametrize("size", [(320, 150), (951, 401)])
def test_the_stored_picture_is_the_picture_above_one_line_of_words(size):
    live = plt.imread(io.BytesIO(drawn(*size)))
    stored = plt.imread(io.BytesIO(base64.b64decode(parts.still(drawn(*size)))))
    height, width = live.shape[:2]
    assert stored.shape[1] == width and height < stored.shape[0] < height + 40
    assert abs(stored[:height] - live).max() < 0.01
    assert stored[height:, :, :3].min() < 0.5, "the words are there"
    assert plt.get_fignums() == []
