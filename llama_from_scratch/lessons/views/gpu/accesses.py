"""Draws one access of a warp: the sectors of global memory or the banks of shared memory it uses.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from llama_from_scratch.kernels.emulator.rules import BANK_BYTES, N_BANKS, SECTOR_BYTES, WARP
from llama_from_scratch.kernels.emulator.trace import Trace
from llama_from_scratch.lessons.figures.look import BLUE, RED, TINTS
from llama_from_scratch.lessons.views.gpu.drawing import amount, legend, separate

ASKED, MOVED, UNTOUCHED = BLUE, TINTS[1], "0.94"
_LANE_PT = 8.2


def sectors_frame(
    found: Trace, text: str, array: str, *, kind: str | None = None, number: int = 0
) -> Figure:
    """Draws which bytes of a tensor one warp asks for, and which sectors move for them.

    A row is 128 bytes.

    `text`: a part of the source line. `array`: the tensor that the line reads or writes. `number`:
    which of the line's warp accesses is drawn.
    """
    row = found.at(text, array, kind=kind)
    if row.is_shared:
        raise ValueError(f"this picture shows the sectors of a tensor; {array} is in shared "
                         "memory, which has banks. Use banks_frame")
    known = next(a for a in found.known if a.name == array)
    lanes = found.warp_access(row, number=number)
    per_sector = SECTOR_BYTES // known.item_bytes
    columns = 4 * per_sector
    first_row = min(first for first, _ in lanes.values()) // columns
    asked = {first + k: lane for lane, (first, n) in reversed(lanes.items()) for k in range(n)}
    n_rows = max(asked) // columns - first_row + 1
    if n_rows > 40:
        raise ValueError("this picture has room for 40 rows of 128 bytes; this access needs "
                         f"{n_rows}")
    n_rows = max(n_rows, 4)
    state = np.zeros((n_rows, columns), int)
    for index in asked:
        at = index - first_row * columns
        state.flat[at // per_sector * per_sector:(at // per_sector + 1) * per_sector] = 1
    for index in asked:
        state.flat[index - first_row * columns] = 2
    n_sectors = (state.reshape(-1, per_sector) > 0).any(1).sum()
    fig, ax = plt.subplots(figsize=(8.6, 1.4 + 0.2 * n_rows))
    ax.imshow(state, cmap=ListedColormap([UNTOUCHED, MOVED, ASKED]), vmin=0, vmax=2, aspect="auto")
    separate(ax, n_rows, columns, every=per_sector)
    # a lane's elements in one row get its number once, in their middle
    spans: dict[tuple[int, int], list[int]] = {}
    for index, lane in asked.items():
        y, x = divmod(index - first_row * columns, columns)
        spans.setdefault((y, lane), []).append(x)
    # numbers of two digits do not fit next to each other in columns of 2 bytes
    is_crowded = any(len(xs) * known.item_bytes < 4 for xs in spans.values())
    for (y, lane), xs in spans.items():
        if not is_crowded or lane % 4 == 0:
            ax.text((min(xs) + max(xs)) / 2, y, str(lane), ha="center", va="center",
                    fontsize=_LANE_PT, color="white")
    marked = range(0, n_rows, max(n_rows // 8, 1))
    ax.set_yticks(marked, [f"{array}[{(first_row + k) * columns}]" for k in marked])
    ax.set_xticks(np.arange(4) * per_sector + (per_sector - 1) / 2, ["32 bytes"] * 4)
    n_bytes = len(asked) * known.item_bytes
    share = n_bytes / (n_sectors * SECTOR_BYTES)
    ax.set_title(f"{n_bytes} bytes asked for, {n_sectors} sectors = {n_sectors * SECTOR_BYTES} "
                 f"bytes moved: {share:.0%} used")
    legend(ax, {"asked for, by lane": ASKED, "moved, but not used": MOVED},
           below=0.4 / fig.get_figheight())

    def tell(x: float | int, y: float | int) -> str:
        index = (first_row + round(y)) * columns + round(x)
        words = ("does not move", "moves, but no lane asked for it",
                 f"lane {asked.get(index)} asked for it")
        return f"{array}[{index}]: {words[state[round(y), round(x)]]}"

    ax.format_coord = tell
    fig.set_label(f"One warp access: {len(lanes)} lanes ask for {n_bytes} bytes of {array}, which "
                  f"are in {n_sectors} sectors of 32 bytes. {share:.0%} of the moved bytes are "
                  "used.")
    return fig


def banks_frame(
    found: Trace, text: str, array: str, *, kind: str | None = None, number: int = 0
) -> Figure:
    """Draws which words of shared memory one warp uses, bank by bank.

    A row is the 128 bytes that are next to each other in the 32 banks.
    """
    row = found.at(text, array, kind=kind)
    if not row.is_shared:
        raise ValueError(f"this picture shows the banks of shared memory; {array} is a tensor, "
                         "which has sectors. Use sectors_frame")
    known = next(a for a in found.known if a.name == array)
    words: dict[int, list[int]] = {}
    for lane, (first, n) in found.warp_access(row, number=number).items():
        low, high = ((first + k) * known.item_bytes // BANK_BYTES for k in (0, n))
        for word in range(low, max(high, low + 1)):
            words.setdefault(word, []).append(lane)
    n_rows = known.n_bytes // (N_BANKS * BANK_BYTES) + (known.n_bytes % (N_BANKS * BANK_BYTES) > 0)
    last_row = min(n_rows, max(words) // N_BANKS + 2)
    per_bank = np.bincount([word % N_BANKS for word in words], minlength=N_BANKS)
    most = int(per_bank.max())
    fig, (top, ax) = plt.subplots(2, 1, figsize=(8.6, 2.1 + 0.15 * last_row),
                                  height_ratios=(1, max(0.1 * last_row, 1)),
                                  sharex=True)
    top.bar(range(N_BANKS), per_bank, color=[RED if n > 1 else BLUE for n in per_bank], width=0.8)
    top.set(ylabel="words", ylim=(0, 34),
            yticks=sorted({most, WARP} | ({0} if most > 3 else set())))
    extra = row.moved / row.ideal
    top.set_title(f"busiest bank: {amount(most, 'word')}, so {amount(most, 'pass', 'passes')} "
                  f"(whole line: {extra:.3g} × the ideal)")
    state = np.zeros(last_row * N_BANKS, int)
    for word in words:
        state[word] = 2 if per_bank[word % N_BANKS] > 1 else 1
    state = state.reshape(last_row, N_BANKS)
    ax.imshow(state, cmap=ListedColormap([UNTOUCHED, BLUE, RED]), vmin=0, vmax=2, aspect="auto")
    separate(ax, last_row, N_BANKS, color="white")
    for word, lanes in words.items():
        ax.text(word % N_BANKS, word // N_BANKS,
                str(lanes[0]) if len(lanes) == 1 else "all" if len(lanes) == WARP else "*",
                ha="center", va="center", fontsize=_LANE_PT, color="white")
    ax.set(xlabel="bank", xticks=range(0, N_BANKS, 4))
    marked = range(0, last_row, max(last_row // 6, 1))
    ax.set_yticks(marked, [f"word {k * N_BANKS}" for k in marked])

    def tell(x: float | int, y: float | int) -> str:
        word = round(y) * N_BANKS + round(x)
        asked = words.get(word)
        who = ("no lane" if not asked else f"lane {asked[0]}" if len(asked) == 1
               else f"{len(asked)} lanes")
        return f"word {word}, bank {word % N_BANKS}: {who}"

    ax.format_coord = tell
    fig.set_label(f"One warp access to {array}: {len(words)} words in "
                  f"{amount((per_bank > 0).sum(), 'bank')}. The busiest bank serves {most} of "
                  "them, one in each pass.")
    return fig
