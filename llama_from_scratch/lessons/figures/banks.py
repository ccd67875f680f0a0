"""Draws a tile in shared memory bank by bank, with and without a swizzle.

Passes are counted by `kernels.emulator.rules`, as for a traced kernel.

Notebook 37.
"""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from llama_from_scratch.kernels.emulator import rules
from llama_from_scratch.lessons.figures.look import BLACK, BLUE, RED

CHUNKS = 8            # of 16 bytes, in a row of 64 numbers
ROWS = 16             # of a tile; ldmatrix_x4 reads two chunks of each
CHUNK_BYTES = 16
BANKS_OF_CHUNK = CHUNK_BYTES // rules.BANK_BYTES
PATTERNS: dict[str, Callable[[int, int], int]] = {
    "no swizzle": lambda row, chunk: row * CHUNKS + chunk,
    "chunk ^ (row % 4)": lambda row, chunk: row * CHUNKS + (chunk ^ row % 4),
    "chunk ^ (row % 8)": lambda row, chunk: row * CHUNKS + (chunk ^ row % 8),
    "16 bytes of padding": lambda row, chunk: row * (CHUNKS + 1) + chunk,
}
"""Where chunk `chunk` of row `row` is stored, counted in chunks from the tile's beginning."""


def passes(place: Callable[[int, int], int], chunk: int) -> int:
    """Returns the passes over the banks that one ldmatrix_x4 takes; 4 is the best possible.

    It reads the chunks `chunk` and `chunk + 1` of 16 rows, 16 bytes for each of 32 lanes.
    """
    read = np.zeros(rules.WARP, rules.ACCESS)
    read["thread"], read["bytes"] = np.arange(rules.WARP), CHUNK_BYTES
    read["address"] = [CHUNK_BYTES * place(lane % ROWS, chunk + lane // ROWS)
                       for lane in range(rules.WARP)]
    (moved,), _ = rules.passes(read, rules.warp_accesses(read))
    return int(moved)


def tile(pattern: str, *, chunk: int = 0) -> Figure:
    """Draws where 8 rows of a tile are stored, and the 8 chunks that one matrix of ldmatrix reads.

    A line of the picture is the 128 bytes of the 32 banks. pattern: one of `PATTERNS`. chunk: an
    even number, which of the row's chunks is read. Raises ValueError for others.

    Example: `banks.tile("chunk ^ (row % 8)", chunk=2)`
    """
    if pattern not in PATTERNS:
        raise ValueError(f"a pattern must be one of {', '.join(PATTERNS)}; got {pattern!r}")
    if chunk not in range(0, CHUNKS, 2):
        raise ValueError(f"a chunk must be 0, 2, 4 or 6, the first of a pair; got {chunk}")
    place = PATTERNS[pattern]
    at = {(row, c): place(row, c) for row in range(8) for c in range(CHUNKS)}
    n_lines = max(at.values()) // CHUNKS + 1
    read = np.array([at[row, chunk] % CHUNKS for row in range(8)])
    per_group = np.bincount(read, minlength=CHUNKS)
    state = np.zeros((n_lines, CHUNKS), int)
    for row in range(8):
        state.flat[at[row, chunk]] = 2 if per_group[read[row]] > 1 else 1
    n_passes = passes(place, chunk)
    fig, (top, ax) = plt.subplots(2, 1, figsize=(8.6, 2.2 + 0.27 * n_lines), sharex=True,
                                  height_ratios=(1, 0.22 * n_lines))
    top.bar(range(CHUNKS), per_group, color=[RED if n > 1 else BLUE for n in per_group], width=0.8)
    top.set(ylabel="rows", ylim=(0, 8.8), yticks=(0, 4, 8))
    top.set_title(f"{pattern}: the busiest banks serve {per_group.max()} of 8 rows")
    ax.imshow(state, cmap=ListedColormap(["0.93", BLUE, RED]), vmin=0, vmax=2, aspect="auto")
    for (row, c), where in at.items():
        is_read = c == chunk
        ax.text(where % CHUNKS, where // CHUNKS, f"row {row}" if is_read else f"{row}, {c}",
                ha="center", va="center", fontsize=9, color="white" if is_read else BLACK)
    for edge in np.arange(-0.5, CHUNKS):
        ax.axvline(edge, color="white", linewidth=1.5)
    for edge in np.arange(-0.5, n_lines):
        ax.axhline(edge, color="white", linewidth=1.5)
    ax.set(xlabel="banks", ylabel="128 bytes", yticks=[])
    ax.set_xticks(range(CHUNKS), [f"{BANKS_OF_CHUNK * n} to {BANKS_OF_CHUNK * n + 3}"
                                  for n in range(CHUNKS)])
    for each in (top, ax):
        each.tick_params(length=0)
    ax.spines[:].set_visible(False)
    fig.set_label(f"{pattern}: chunk {chunk} of eight rows is in {int((per_group > 0).sum())} of 8 "
                  f"groups of banks, so one ldmatrix_x4 takes {n_passes} passes. The best is 4. In "
                  "gray: row and chunk of what is not read.")
    return fig
