"""Holds what every widget of the course shares.

A picture keeps its own size. A control is as wide as its label needs, and no wider than the page.
The control with the focus has a frame. A widget without a kernel says so in the page.
"""

import base64
import html
import io
import struct
from collections.abc import Sequence
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.look import BLACK, png

WIDGET_CLASS, PICTURE_CLASS, NOTICE_CLASS = "llama-widget", "llama-picture", "llama-not-live"
NOT_LIVE = "This picture is not live: run its cell (Shift+Enter)."
TALK_NOT_LIVE = "This conversation is not live: run its cell (Shift+Enter)."

# Words in a picture cannot be read below half of its own size; the page then scrolls it.
_SMALLEST_SHARE = 0.5
_DESCRIPTION_EM, _LETTER_EM, _CONTROL_EM = 9.0, 0.55, 23.0

# The front end gives `jupyter-widgets-disconnected` to each view whose kernel is gone. A class
# written four times comes before ipywidgets' own rules, which take the frame of some controls away.
_STYLE = f"""<style>
.{PICTURE_CLASS} {{ display: block; width: 100%; overflow-x: auto; overflow-y: hidden;
  flex: 0 0 auto }}
.{PICTURE_CLASS} img {{ display: block; margin: 0; width: auto; height: auto; max-width: 100% }}
{4 * f".{WIDGET_CLASS}"} :focus-visible {{ outline: 2px solid #D55E00 !important;
  outline-offset: 2px }}
.{NOTICE_CLASS} {{ display: none; padding: 4px 8px; line-height: 1.4;
  border-left: 4px solid #D55E00 }}
.jupyter-widgets-disconnected .{NOTICE_CLASS} {{ display: block }}
</style>"""


def heading(title: str, *, notice: str = NOT_LIVE) -> ipywidgets.HTML:
    """The first line of a widget: its title, the style of its parts, and the notice.

    The notice is seen only while no kernel answers.
    """
    words = f"<b>{html.escape(title)}</b>" if title else ""
    return ipywidgets.HTML(f'{_STYLE}{words}<div class="{NOTICE_CLASS}">{notice}</div>')


def picture() -> ipywidgets.Image:
    """An empty picture that keeps the size of the PNG in its `value`, or shrinks with the page."""
    image = ipywidgets.Image(format="png", layout={"max_width": "100%"})
    image.observe(_keep_readable, names="value")
    return image


def _keep_readable(change: dict) -> None:
    image = change["owner"]
    width = f"{_SMALLEST_SHARE * size(image.value)[0]:.0f}px"
    if image.layout.min_width != width:
        image.layout.min_width = width


def size(content: bytes | memoryview) -> tuple[int, int]:
    """Width and height of a PNG in pixels."""
    return struct.unpack(">II", content[16:24])


def framed(shown: ipywidgets.Widget) -> ipywidgets.Box:
    """A box that gives a picture its own size, and scrolls it where the page is too narrow."""
    return ipywidgets.Box([shown]).add_class(PICTURE_CLASS)


def look_of(
    description: str, *, among: Sequence[str] = (), width_em: float = _CONTROL_EM
) -> dict[str, Any]:
    """Arguments of a control: its description, and room for the longest of the ones `among` it."""
    longest = max(map(len, (description, *among)))
    room = max(_DESCRIPTION_EM, _LETTER_EM * longest + 1)
    return {"description": description, "style": {"description_width": f"{room:.1f}em"},
            "layout": {"width": f"{room + width_em:.1f}em", "max_width": "calc(100% - 4px)"}}


def still(content: bytes | memoryview, *, words: str = NOT_LIVE) -> str:
    """The picture to store with a notebook, in base64: a PNG with `words` in a line under it."""
    pixels = plt.imread(io.BytesIO(content))
    height, width = pixels.shape[:2]
    line, dpi = 28, 100
    figure = Figure(figsize=(width / dpi, (height + line) / dpi), dpi=dpi, layout="none",
                    facecolor="white")
    figure.figimage(pixels, 0, line)
    figure.text(8 / width, line / 2 / (height + line), words, va="center", fontsize=10,
                color=BLACK, style="italic")
    return base64.b64encode(png(figure)).decode()
