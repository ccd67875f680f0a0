"""Shows how an image becomes tiles: for a size that is dragged, or for the reader's own picture.

The frames are `figures.tiles.own_size` and `figures.tiles.on_canvas`. Used by chapter 20.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures import tiles as frames
from llama_from_scratch.lessons.widgets import parts
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore
from llama_from_scratch.vision.tiles import Tiling

LONGEST_PX = 2800
TILINGS: Mapping[str, Tiling] = {
    "560 (Llama 3.2)": Tiling(size_px=560), "448 (11B base)": Tiling(size_px=448),
    "336, 16 tiles (Llama 4)": Tiling(size_px=336, max_tiles=16)}
_LABELS = {"width": "width (pixels)", "height": "height (pixels)", "tile": "tile (pixels)"}


def tiles_of_size(*, start: Mapping[str, Any] | None = None) -> Explorer:
    """Returns a widget with an image's width and height, which shows its canvas and padding.

    `start`: other first values, such as {"width": 2000, "height": 1000}.
    """
    def draw(width: int, height: int, tile: str) -> Figure:
        return frames.own_size(height, width, tiling=TILINGS[tile], longest_px=LONGEST_PX)

    return explore(draw, title="An image of any size becomes tiles", labels=_LABELS,
                   start={"width": 2000, "height": 700} | dict(start or {}), controls={
                       "width": (1, LONGEST_PX), "height": (1, LONGEST_PX),
                       "tile": list(TILINGS)})


def tiles_of_picture(picture: object) -> Explorer:
    """Returns a widget that cuts the reader's own picture: an uploaded file, or the file at a path.

    `picture` is shown while there is neither. A file that is no image shows the library's error,
    above the last picture that could be cut.
    """
    looks = {name: parts.look_of(name, among=("tile (pixels)",), width_em=width_em)
             for name, width_em in (("tile (pixels)", parts.CONTROL_EM),
                                    ("or its path", parts.TEXT_EM))}
    tile = ipywidgets.Dropdown(options=list(TILINGS), **looks["tile (pixels)"])
    upload = ipywidgets.FileUpload(accept="image/*", description="choose a picture",
                                   layout={"width": "max-content", "margin": "4px 2px"})
    path = ipywidgets.Text(continuous_update=False, placeholder="such as photos/cat.jpg",
                           **looks["or its path"])
    # The latest of both counts, so each removes the other.
    upload.observe(lambda change: change.new and setattr(path, "value", ""), names="value")
    path.observe(lambda change: change.new and setattr(upload, "value", ()), names="value")

    def draw(tile: str, upload: Sequence[Mapping[str, Any]], path: str) -> Figure:
        source = path.strip() or (upload[0]["content"] if upload else picture)
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            figure = frames.on_canvas(source, TILINGS[tile])
        words = [figure.get_label(), *(f"Note: {note.message}." for note in notes)]
        figure.set_label(" ".join(words))
        return figure

    return Explorer(draw, title="Your own picture becomes tiles",
                    controls={"tile": tile, "upload": upload, "path": path})
