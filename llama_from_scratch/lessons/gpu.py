"""Pictures and widgets of the emulated CUDA machine: a block's shared memory step by step, races, sectors, banks.

Every picture is drawn from a `Trace` of the reader's own kernel (kernels/emulator/trace.py), so it shows what that source does
and no animation of what it should do. `steps` and `barriers` are widgets; the frames are pictures for a widget of the reader's.

Used in the chapter on the CUDA machine (30).
"""

import itertools
import re
import textwrap
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from llama_from_scratch.kernels.emulator import machine
from llama_from_scratch.kernels.emulator.rules import BANK_BYTES, N_BANKS, SECTOR_BYTES, WARP
from llama_from_scratch.kernels.emulator.trace import Moment, Trace, trace
from llama_from_scratch.kernels.machinery.source import FOLDER, Program, Source
from llama_from_scratch.lessons import figures
from llama_from_scratch.lessons.widgets import Explorer, explore

# Three brightnesses apart, so that they can be told without their hue.
WRITTEN, READ, IDLE, EMPTY = figures.BLUE, figures.TINTS[1], "#FFFFFF", "0.88"
ASKED, MOVED, UNTOUCHED = figures.BLUE, figures.TINTS[1], "0.94"
MAX_CELLS = 256
BARRIER = re.compile(r"^[^\n/]*__sync(?:threads|warp)\(\);[^\n]*$", re.M)
_MONO = {"family": "DejaVu Sans Mono", "va": "center", "parse_math": False}


def program(text: str, *, real: torch.dtype = torch.float32) -> Program:
    """CUDA source that was written in a notebook, ready to be launched and traced. It may include "common.cuh"."""
    headers = {"common.cuh": (FOLDER / "common.cuh").read_text()}
    return Program(source=Source(name="notebook", text=text.strip("\n") + "\n", headers=headers), real=real)


def listing(program: Program) -> str:
    """The source with line numbers, as traces name them."""
    return "\n".join(f"{n:3} {line}" for n, line in enumerate(program.source.text.rstrip("\n").split("\n"), start=1))


# --- a block, step by step ---------------------------------------------------------------------------------------------


def steps(found: Trace, *, array: str | None = None) -> Explorer:
    """A shared array of the traced block as each barrier found it. Raises ValueError if the kernel has no such array."""
    arrays = found.steps[0].arrays if found.steps else {}
    array = array or next(iter(arrays), None)
    if array not in arrays:
        raise ValueError(f"the trace must have that shared array; there are {', '.join(arrays) or 'none'}; got {array}")
    last = len(found.steps) - 1
    return explore(lambda step: step_frame(found.steps[step], array), title=f"The block's shared memory, {array}, step by step",
                   controls={"step": (0, last) if last else [0]}, has_hover=True)


def step_frame(step: Moment, array: str) -> Figure:
    """One shared array at the end of a step: numbers in cells, by what was done to them."""
    values, written, read = step.arrays[array], step.written[array] > 0, step.read[array] > 0
    if values.size > MAX_CELLS:
        raise ValueError(f"a picture holds {MAX_CELLS} elements; {array} has {values.size}. Trace a smaller block")
    if values.ndim < 2:
        values, written, read = (_rows(a) for a in (values, written, read))
    never = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    state = np.select([written, read, never], [3, 2, 0], 1)
    rows, columns = values.shape
    n_lines = len(step.lines)
    heights = 0.3 * n_lines + 0.1, 0.42 * rows + 0.3
    fig, (top, ax) = plt.subplots(2, 1, figsize=(8.6, 0.35 + sum(heights)), height_ratios=heights)
    for k, line in enumerate(step.lines):
        top.text(0, n_lines - 1 - k, f"{line.number:3}  {_short(line.text, 84)}", fontsize=10.5, **_MONO)
    end = f"up to the barrier in {step.barrier}" if step.barrier else "up to the end"
    top.set(title=f"step {step.number}, {end}: the lines that touched memory", xlim=(0, 1), ylim=(-0.6, n_lines - 0.4))
    top.axis("off")
    ax.imshow(state, cmap=ListedColormap([EMPTY, IDLE, READ, WRITTEN]), vmin=0, vmax=3, aspect="auto")
    _separate(ax, rows, columns)
    for (row, column), value in np.ndenumerate(values):
        ax.text(column, row, "–" if never[row, column] else f"{value:.4g}", ha="center", va="center", fontsize=9.5,
                color="white" if state[row, column] == 3 else "black")
    is_flat = step.arrays[array].ndim < 2
    ax.set_yticks(range(rows), [f"{array}[{row * columns}…]" if is_flat else f"{array}[{row}]" for row in range(rows)])
    ax.set_xticks([])
    _legend(ax, {"written in this step": WRITTEN, "only read": READ, "left alone": IDLE, "never written": EMPTY})
    names = ("never written", "left alone", "read in this step", "written in this step")

    def tell(x: float | int, y: float | int) -> str:
        row, column = round(y), round(x)
        place = f"[{row * columns + column}]" if is_flat else f"[{row}][{column}]"
        return f"{array}{place} = {values[row, column]:.6g}, {names[state[row, column]]}"

    ax.format_coord = tell
    fig.set_label(f"Step {step.number}: {_words(written.sum(), 'element')} written, {_words(read.sum(), 'element')} read, "
                  f"{_words(never.sum(), 'element')} never written so far. {end[0].upper() + end[1:]}.")
    return fig


def _rows(values: np.ndarray, most: int = 16) -> np.ndarray:
    columns = next(n for n in range(min(most, max(values.size, 1)), 0, -1) if values.size % n == 0)
    return values.reshape(-1, columns)


def _words(n: int | np.integer, one: str, many: str | None = None) -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _separate(ax: Axes, rows: int, columns: int, *, every: int = 1, colour: str = "0.55") -> None:
    # Lines, for a minor tick at each would take ten times as long.
    ax.vlines(np.arange(0, columns + 1, every) - 0.5, -0.5, rows - 0.5, color=colour, linewidth=0.8)
    ax.hlines(np.arange(rows + 1) - 0.5, -0.5, columns - 0.5, color=colour, linewidth=0.8)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _legend(ax: Axes, colours: dict[str, str], *, below: float = 0.01) -> None:
    boxes = [plt.Rectangle((0, 0), 1, 1, facecolor=colour, edgecolor="0.55") for colour in colours.values()]
    ax.legend(boxes, list(colours), loc="upper center", bbox_to_anchor=(0.5, -below), ncols=len(boxes), fontsize=10,
              handlelength=1, columnspacing=1.4)


# --- barriers taken away -----------------------------------------------------------------------------------------------


def barriers(
    program: Program, entry: str, args: Callable[[], Sequence[Tensor | float | int]], *, grid: int | tuple[int, ...],
    block: int | tuple[int, ...], result: int = -1,
) -> Explorer:
    """A checkbox for each line with a barrier; without one, the races that follow and what three orders of threads compute.

    args: makes the arguments anew for each run. result: which of them holds the outcome. Every choice of barriers is compiled
    when the widget is made, so that it answers at once.
    """
    lines = program.source.text.split("\n")
    numbers = [number for number, line in enumerate(lines) if BARRIER.match(line)]
    if not 1 <= len(numbers) <= 3:
        raise ValueError(f"the source must have 1 to 3 lines with nothing but a barrier in them; it has {len(numbers)}")
    choices = list(itertools.product((True, False), repeat=len(numbers)))
    programs = {kept: _without(program, [n for n, is_kept in zip(numbers, kept) if not is_kept]) for kept in choices}
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda changed: machine.load(changed, kind="traced"), programs.values()))
    shape = {"grid": grid, "block": block}
    seen = {}
    for kept, changed in programs.items():
        outcomes = []
        for order in machine.ORDERS:
            given = list(args())
            found = trace(changed, entry, given, **shape, order=order, seed=1)
            outcomes.append(given[result].flatten()[0].item())
        seen[kept] = found, outcomes
    names = [f"line_{number + 1}" for number in numbers]

    def draw(**kept: bool) -> Figure:
        found, outcomes = seen[tuple(kept[name] for name in names)]
        gone = [number + 1 for name, number in zip(names, numbers) if not kept[name]]
        return _source_frame(found, lines, gone, dict(zip(machine.ORDERS, outcomes)))

    return explore(draw, title="Take a barrier away", controls=dict.fromkeys(names, True))


def _without(program: Program, numbers: Sequence[int]) -> Program:
    lines = program.source.text.split("\n")
    for number in numbers:
        lines[number] = ""
    source = Source(name=program.source.name, text="\n".join(lines), headers=program.source.headers)
    return Program(source=source, real=program.real)


def source_frame(found: Trace) -> Figure:
    """The traced source with the lines marked that race, or that left the bounds of an array, and what was found in words."""
    return _source_frame(found, found.program.source.text.split("\n"), (), {})


def _source_frame(found: Trace, lines: Sequence[str], gone: Sequence[int], outcomes: dict[str, float]) -> Figure:
    """lines: the source, with the lines `gone` (numbers from 1) that the traced program does not have."""
    marks = {access.line.number: "races" for race in found.races for access in (race.first, race.second)}
    told = [str(race) for race in found.races]
    if found.out_of_bounds:
        marks[found.out_of_bounds.access.line.number] = "out of bounds"
        told.insert(0, str(found.out_of_bounds))
    shown = lines[:-1] if not lines[-1] else lines
    words = [part for sentence in told[:2] for part in textwrap.wrap(sentence, 112)]
    words += [f"and {_words(len(told) - 2, 'more pair')} of lines"] if len(told) > 2 else []
    results = "   ".join(f"{order}: {value:.6g}" for order, value in outcomes.items())
    bottom = len(shown) + (1.2 if results else 0)
    fig, ax = plt.subplots(figsize=(9, 0.4 + 0.245 * (bottom + len(words) + 1)))
    for k, line in enumerate(shown, start=1):
        if k in marks:
            ax.add_patch(plt.Rectangle((0, k - 0.5), 100, 1, color=figures.TINTS[1], linewidth=0))
            ax.text(99.4, k, marks[k], ha="right", fontsize=10, weight="bold", va="center")
        ax.text(0.6, k, f"{k:2}  {_short(line, 92)}", fontsize=10, color="0.55" if k in gone else "black", **_MONO)
        if k in gone:
            indent = len(line) - len(line.lstrip())
            ax.plot([0.6 + (4 + indent) * 0.94, 0.6 + (4 + len(line)) * 0.94], [k, k], color=figures.RED, linewidth=1.8)
    if results:
        ax.text(0.6, bottom, f"result, threads in order   {results}", fontsize=11, va="center", weight="bold")
    for k, part in enumerate(words, start=1):
        ax.text(0.6, bottom + 0.3 + k, part, fontsize=10, va="center", parse_math=False)
    n = len(found.races)
    verdict = f"{_words(n, 'pair')} of lines race{'s' * (n == 1)}" if n else "Out of bounds" if told else "No race"
    ax.set(title=verdict, xlim=(0, 100), ylim=(bottom + 0.9 + len(words), 0.4))
    ax.axis("off")
    fig.set_label((f"{verdict}. " if n or not told else "") + " ".join(told) + (f" The result: {results}." if results else ""))
    return fig


# --- one access of a warp ----------------------------------------------------------------------------------------------


def sectors_frame(found: Trace, text: str, array: str, *, kind: str | None = None, number: int = 0) -> Figure:
    """Which bytes of a tensor one warp asks for, and which sectors move for them; a row is 128 bytes.

    text: a part of the source line; array: the tensor it touches; number: which of its warp accesses.
    """
    row = found.at(text, array, kind=kind)
    if row.is_shared:
        raise ValueError(f"sectors are of tensors; {array} is shared memory, which has banks: use banks_frame")
    known = next(a for a in found.known if a.name == array)
    lanes = found.warp_access(row, number=number)
    per_sector = SECTOR_BYTES // known.item_bytes
    columns = 4 * per_sector
    first_row = min(first for first, _ in lanes.values()) // columns
    asked = {first + k: lane for lane, (first, n) in reversed(lanes.items()) for k in range(n)}
    n_rows = max(asked) // columns - first_row + 1
    if n_rows > 40:
        raise ValueError(f"a picture holds 40 rows of 128 bytes; this access spans {n_rows}")
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
    _separate(ax, n_rows, columns, every=per_sector)
    spans: dict[tuple[int, int], list[int]] = {}   # a lane's elements in one row get its number once, in their middle
    for index, lane in asked.items():
        y, x = divmod(index - first_row * columns, columns)
        spans.setdefault((y, lane), []).append(x)
    for (y, lane), xs in spans.items():
        ax.text((min(xs) + max(xs)) / 2, y, str(lane), ha="center", va="center", fontsize=7.5, color="white")
    marked = range(0, n_rows, max(n_rows // 8, 1))
    ax.set_yticks(marked, [f"{array}[{(first_row + k) * columns}]" for k in marked])
    ax.set_xticks(np.arange(4) * per_sector + (per_sector - 1) / 2, ["32 bytes"] * 4)
    n_bytes = len(asked) * known.item_bytes
    share = n_bytes / (n_sectors * SECTOR_BYTES)
    ax.set_title(f"{n_bytes} bytes asked for, {n_sectors} sectors = {n_sectors * SECTOR_BYTES} bytes moved: {share:.0%} used")
    _legend(ax, {"asked for, by lane": ASKED, "moved for nothing": MOVED}, below=0.4 / fig.get_figheight())

    def tell(x: float | int, y: float | int) -> str:
        index = (first_row + round(y)) * columns + round(x)
        words = ("does not move", "moves, and nobody asked for it", f"lane {asked.get(index)} asked for it")
        return f"{array}[{index}]: {words[state[round(y), round(x)]]}"

    ax.format_coord = tell
    fig.set_label(f"One warp access: {len(lanes)} lanes ask for {n_bytes} bytes of {array}, which lie in {n_sectors} sectors "
                  f"of 32 bytes. {share:.0%} of what moves is used.")
    return fig


def banks_frame(found: Trace, text: str, array: str, *, kind: str | None = None, number: int = 0) -> Figure:
    """Which words of shared memory one warp touches, bank by bank; a row is the 128 bytes that 32 banks hold side by side."""
    row = found.at(text, array, kind=kind)
    if not row.is_shared:
        raise ValueError(f"banks are of shared memory; {array} is a tensor, which has sectors: use sectors_frame")
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
    fig, (top, ax) = plt.subplots(2, 1, figsize=(8.6, 2.1 + 0.125 * last_row), height_ratios=(1, max(0.09 * last_row, 1)),
                                  sharex=True)
    top.bar(range(N_BANKS), per_bank, color=[figures.RED if n > 1 else figures.BLUE for n in per_bank], width=0.8)
    top.set(ylabel="words", ylim=(0, 34), yticks=sorted({most, WARP} | ({0} if most > 3 else set())))
    extra = row.moved / row.ideal
    top.set_title(f"busiest bank: {_words(most, 'word')}, so {_words(most, 'pass', 'passes')} "
                  f"(whole line: {extra:.3g} × the ideal)")
    state = np.zeros(last_row * N_BANKS, int)
    for word in words:
        state[word] = 2 if per_bank[word % N_BANKS] > 1 else 1
    state = state.reshape(last_row, N_BANKS)
    ax.imshow(state, cmap=ListedColormap([UNTOUCHED, figures.BLUE, figures.RED]), vmin=0, vmax=2, aspect="auto")
    _separate(ax, last_row, N_BANKS, colour="white")
    for word, lanes in words.items():
        ax.text(word % N_BANKS, word // N_BANKS, str(lanes[0]) if len(lanes) == 1 else "all" if len(lanes) == WARP else "*",
                ha="center", va="center", fontsize=6.5, color="white")
    ax.set(xlabel="bank", xticks=range(0, N_BANKS, 4))
    marked = range(0, last_row, max(last_row // 6, 1))
    ax.set_yticks(marked, [f"word {k * N_BANKS}" for k in marked])

    def tell(x: float | int, y: float | int) -> str:
        word = round(y) * N_BANKS + round(x)
        asked = words.get(word)
        who = "nobody" if not asked else f"lane {asked[0]}" if len(asked) == 1 else f"{len(asked)} lanes"
        return f"word {word}, bank {word % N_BANKS}: {who}"

    ax.format_coord = tell
    fig.set_label(f"One warp access to {array}: {len(words)} words in {(per_bank > 0).sum()} banks; the busiest bank serves "
                  f"{most} of them, one a pass.")
    return fig
