"""The parts that all widgets of the course share.

A picture keeps its own size. A control is as wide as its label needs, but no wider than the page.
The control with the focus has a frame. A widget without a kernel shows a notice in the page.
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

# Words in a picture cannot be read below half of its own size; then the page scrolls instead.
_SMALLEST_SHARE = 0.5
_DESCRIPTION_EM, _LETTER_EM = 9.0, 0.55
CONTROL_EM, TEXT_EM = 23.0, 46.0
_REDRAW_S, _WAIT_RATIO = 0.7, 4

# JupyterLab gives the class `jupyter-widgets-disconnected` to each view whose kernel is gone. A
# class written four times overrides ipywidgets' own rules, which remove the frame of some controls.
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
    """Returns the first line of a widget: its title, the style of its parts, and the notice.

    The notice is visible only without a kernel.
    """
    words = f"<b>{html.escape(title)}</b>" if title else ""
    return ipywidgets.HTML(f'{_STYLE}{words}<div class="{NOTICE_CLASS}">{notice}</div>')


def picture() -> ipywidgets.Image:
    """Returns an empty picture, which has the size of the PNG in its `value` or shrinks to fit."""
    image = ipywidgets.Image(format="png", layout={"max_width": "100%"})
    image.observe(_keep_readable, names="value")
    return image


def _keep_readable(change: dict) -> None:
    image = change["owner"]
    width = f"{_SMALLEST_SHARE * size(image.value)[0]:.0f}px"
    if image.layout.min_width != width:
        image.layout.min_width = width


def size(content: bytes | memoryview) -> tuple[int, int]:
    """Returns width and height of a PNG in pixels."""
    return struct.unpack(">II", content[16:24])


def framed(shown: ipywidgets.Widget) -> ipywidgets.Box:
    """Returns a box in which a picture has its own size, and scrolls if the page is too narrow."""
    return ipywidgets.Box([shown]).add_class(PICTURE_CLASS)


def look_of(
    description: str, *, among: Sequence[str] = (), width_em: float | int = CONTROL_EM
) -> dict[str, Any]:
    """Returns the arguments of a control: its description, and space for the longest `among` all.
    """
    longest = max(map(len, (description, *among)))
    room = max(_DESCRIPTION_EM, _LETTER_EM * longest + 1)
    return {"description": description, "style": {"description_width": f"{room:.1f}em"},
            "layout": {"width": f"{room + width_em:.1f}em", "max_width": "calc(100% - 4px)"}}


def still(content: bytes | memoryview, *, words: str = NOT_LIVE) -> str:
    """Returns the picture that is stored with a notebook (PNG in base64), with `words` under it."""
    pixels = plt.imread(io.BytesIO(content))
    height, width = pixels.shape[:2]
    line, dpi = 28, 100
    figure = Figure(figsize=(width / dpi, (height + line) / dpi), dpi=dpi, layout="none",
                    facecolor="white")
    figure.figimage(pixels, 0, line)
    figure.text(8 / width, line / 2 / (height + line), words, va="center", fontsize=10,
                color=BLACK, style="italic")
    return base64.b64encode(png(figure)).decode()


def next_drawing_s(began_s: float, ended_s: float) -> float:
    """Returns when to draw a live plot again, after a drawing from `began_s` to `ended_s`.

    A drawing takes longer than a step of a small training, so the plot waits after it, and at most
    a fifth of the time is spent on drawing.
    """
    return ended_s + max(_REDRAW_S, _WAIT_RATIO * (ended_s - began_s))
