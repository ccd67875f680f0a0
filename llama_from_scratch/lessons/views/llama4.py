"""Shows what a token of Llama 4 sees, and how many tokens an image of any size takes.

The frames are `figures.llama4.masks` and `figures.fusion.image_size`. Used by chapter 24.
"""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures import fusion, llama4
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore
from llama_from_scratch.vision.tiles import GridTiling

N_TOKENS, LONGEST_PX = 24, 4000
TOKENS_OF_TILE, TILING = 144, GridTiling(size_px=336)
"""Of the published models."""


def chunks(*, start: Mapping[str, Any] | None = None) -> Explorer:
    """Returns a widget with a token and a chunk size, which shows both masks of Llama 4.

    `start`: other first values, such as {"position": 3}.
    """
    def draw(position: int, chunk_size: int) -> Figure:
        return llama4.masks(n_tokens=N_TOKENS, chunk_size=chunk_size, position=position)

    return explore(draw, title="Two kinds of layers, two masks",
                   controls={"position": (0, N_TOKENS - 1), "chunk_size": (1, N_TOKENS)},
                   labels={"position": "token", "chunk_size": "chunk size"},
                   start={"position": 17, "chunk_size": 8} | dict(start or {}))


def image_tokens(*, start: Mapping[str, Any] | None = None) -> Explorer:
    """Returns a widget with an image's height and width, which shows its tiles and its tokens.

    `start`: other first values, such as {"width": 2000, "height": 1000}.
    """
    def draw(height: int, width: int) -> Figure:
        return fusion.image_size(height, width, tiling=TILING, n_tokens=TOKENS_OF_TILE)

    return explore(draw, title="An image of any size becomes tokens",
                   controls={"height": (1, LONGEST_PX), "width": (1, LONGEST_PX)},
                   labels={"height": "height (pixels)", "width": "width (pixels)"},
                   start={"height": 800, "width": 1200} | dict(start or {}))
