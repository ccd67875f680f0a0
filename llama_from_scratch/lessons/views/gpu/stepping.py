"""Shows a block's shared memory step by step, at each barrier."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from llama_from_scratch.kernels.emulator.trace import Moment, Trace
from llama_from_scratch.lessons.figures.look import BLUE, TINTS
from llama_from_scratch.lessons.views.gpu.drawing import MONO, amount, legend, separate, short
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore

# They differ in brightness, so that readers can distinguish them without seeing their hue.
WRITTEN, READ, IDLE, EMPTY = BLUE, TINTS[1], "#FFFFFF", "0.88"

MAX_CELLS = 256


def steps(found: Trace, *, array: str | None = None) -> Explorer:
    """Returns a widget that shows a shared array of the traced block at each barrier.

    Raises ValueError if the kernel has no such array.
    """
    arrays = found.steps[0].arrays if found.steps else {}
    array = array or next(iter(arrays), None)
    if array not in arrays:
        raise ValueError("the array must be a shared array of the trace, which has "
                         f"{', '.join(arrays) or 'none'}; got {array}")
    last = len(found.steps) - 1
    return explore(lambda step: step_frame(found.steps[step], array),
                   title=f"The block's shared memory, {array}, step by step",
                   controls={"step": (0, last) if last else [0]},
                   labels={"step": "step (to the next barrier)"}, has_hover=True)


def step_frame(step: Moment, array: str) -> Figure:
    """Draws a shared array at the end of a step; a cell's color shows how the step used it."""
    values, written, read = step.arrays[array], step.written[array] > 0, step.read[array] > 0
    if values.size > MAX_CELLS:
        raise ValueError(f"this picture has room for {MAX_CELLS} elements; {array} "
                         f"has {values.size}. Trace a smaller block")
    if values.ndim < 2:
        values, written, read = (_rows(a) for a in (values, written, read))
    never = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    state = np.select([written, read, never], [3, 2, 0], 1)
    rows, columns = values.shape
    n_lines = len(step.lines)
    heights = 0.3 * n_lines + 0.1, 0.42 * rows + 0.3
    fig, (top, ax) = plt.subplots(2, 1, figsize=(8.6, 0.35 + sum(heights)), height_ratios=heights)
    for k, line in enumerate(step.lines):
        top.text(0, n_lines - 1 - k, f"{line.number:3}  {short(line.text, 84)}", fontsize=10.5,
                 **MONO)
    end = f"up to the barrier in {step.barrier}" if step.barrier else "up to the end"
    top.set(title=f"step {step.number}, {end}: the lines that used memory", xlim=(0, 1),
            ylim=(-0.6, n_lines - 0.4))
    top.axis("off")
    ax.imshow(state, cmap=ListedColormap([EMPTY, IDLE, READ, WRITTEN]), vmin=0, vmax=3,
              aspect="auto")
    separate(ax, rows, columns)
    for (row, column), value in np.ndenumerate(values):
        ax.text(column, row, "–" if never[row, column] else f"{value:.4g}", ha="center",
                va="center", fontsize=9.5,
                color="white" if state[row, column] == 3 else "black")
    is_flat = step.arrays[array].ndim < 2
    ax.set_yticks(range(rows), [f"{array}[{row * columns}…]" if is_flat else f"{array}[{row}]"
                                for row in range(rows)])
    ax.set_xticks([])
    legend(ax, {"written in this step": WRITTEN, "only read": READ, "not used": IDLE,
                "never written": EMPTY})
    names = ("never written", "not used in this step", "read in this step", "written in this step")

    def tell(x: float | int, y: float | int) -> str:
        row, column = round(y), round(x)
        place = f"[{row * columns + column}]" if is_flat else f"[{row}][{column}]"
        return f"{array}{place} = {values[row, column]:.6g}, {names[state[row, column]]}"

    ax.format_coord = tell
    fig.set_label(f"Step {step.number}: {amount(written.sum(), 'element')} written, "
                  f"{amount(read.sum(), 'element')} read, {amount(never.sum(), 'element')} never "
                  f"written so far. {end[0].upper() + end[1:]}.")
    return fig


def _rows(values: np.ndarray, most: int = 16) -> np.ndarray:
    columns = next(n for n in range(min(most, max(values.size, 1)), 0, -1) if values.size % n == 0)
    return values.reshape(-1, columns)
