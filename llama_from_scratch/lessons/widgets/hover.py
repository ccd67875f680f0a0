"""Shows words for the cell under the pointer, with a transparent grid over the picture of a matrix.

The words come from matplotlib's own hook, `axes.format_coord(column, row)`. The grid is plain HTML
and CSS, so hovering needs neither the kernel nor a script. Its places are given in percent of the
picture's size, so it fits at every scale. Used by `widgets.Explorer`, for example in the chapter on
attention (13).
"""

import html
import itertools
import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

MAX_CELLS = 16_000
"""More cells would make the page slow. Then hovering shows only a message."""

PICTURE_CLASS, CELLS_CLASS = "llama-hover-picture", "llama-hover-cells"

# The words are above or below their row, on the side with more space, so that no edge cuts them
# off.
STYLE = f"""<style>
.{PICTURE_CLASS} {{ display: block; position: relative; width: fit-content; max-width: 100%;
  min-width: min-content; overflow: hidden; margin: 2px }}
.{PICTURE_CLASS} > img {{ display: block; margin: 0 }}
.{PICTURE_CLASS} > .{CELLS_CLASS}, .{CELLS_CLASS} > .widget-html-content {{
  position: absolute; inset: 0; width: auto; height: auto; margin: 0; pointer-events: none }}
.{CELLS_CLASS} .grid {{ position: absolute; display: flex; flex-direction: column;
  pointer-events: auto }}
.{CELLS_CLASS} .row {{ position: relative; display: flex; flex: 1 1 0; min-height: 0 }}
.{CELLS_CLASS} i {{ flex: 1 1 0; min-width: 0 }}
.{CELLS_CLASS} i:hover {{ outline: 2px solid #D55E00 }}
.{CELLS_CLASS} i:hover::after {{ content: attr(data-words); position: absolute; z-index: 1;
  pointer-events: none; padding: 2px 8px; border: 1px solid #222; border-radius: 3px;
  background: #FFF; color: #222;
  font: normal 14px/1.4 sans-serif; white-space: nowrap }}
.{CELLS_CLASS} .above i::after {{ bottom: calc(100% + 4px) }}
.{CELLS_CLASS} .below i::after {{ top: calc(100% + 4px) }}
.{CELLS_CLASS} .rightwards i::after {{ left: 0 }}
.{CELLS_CLASS} .leftwards i::after {{ right: 0 }}
</style>"""


def cells(figure: Figure) -> str:
    """Returns HTML that describes each cell under the pointer.

    It has the cells of the first image in each axes of a drawn figure, up to `MAX_CELLS`.
    """
    shown = [ax for ax in figure.axes if ax.images]
    n_cells = sum(math.prod(ax.images[0].get_size()) for ax in shown)
    grids = "".join(map(_grid, shown)) if n_cells <= MAX_CELLS else _refusal(n_cells)
    # Screen readers read the sentence under the picture; thousands of cells would only disturb.
    return f'{STYLE}<div aria-hidden="true">{grids}</div>'


def _refusal(n_cells: int) -> str:
    words = (f"{n_cells:,} cells are too many to describe one by one. Show only a part, or use a "
             "shorter text")
    return ('<div class="grid rightwards" style="inset:0 0 20% 0"><div class="row '
            f'below">{_cell(words, 1)}</div></div>')


def _grid(ax: Axes) -> str:
    box, (n_rows, n_columns) = ax.get_position(), ax.images[0].get_size()
    side = "rightwards" if box.x0 + box.x1 < 1 else "leftwards"
    place = f"left:{box.x0:.3%};top:{1 - box.y1:.3%};width:{box.width:.3%};height:{box.height:.3%}"
    rows = []
    for row in range(n_rows):
        words = (ax.format_coord(column, row) for column in range(n_columns))
        is_low = 1 - box.y1 + box.height * row / n_rows > 0.5
        runs = "".join(_cell(told, len(list(same))) for told, same in itertools.groupby(words))
        rows.append(f'<div class="row {"above" if is_low else "below"}">{runs}</div>')
    return f'<div class="grid {side}" style="{place}">{"".join(rows)}</div>'


def _cell(words: str, width: int) -> str:
    style = f" style=flex-grow:{width}" if width > 1 else ""
    return f'<i data-words="{html.escape(words)}"{style}></i>'
