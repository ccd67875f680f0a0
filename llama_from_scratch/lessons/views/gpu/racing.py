"""Removes barriers from a kernel, and shows the races and the results of other thread orders."""

import itertools
import re
import textwrap
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import ScaledTranslation
from torch import Tensor

from llama_from_scratch.kernels.emulator import machine
from llama_from_scratch.kernels.emulator.trace import Trace, trace
from llama_from_scratch.kernels.machinery.source import Program, Source
from llama_from_scratch.lessons.figures.look import RED, TINTS
from llama_from_scratch.lessons.views.gpu.drawing import MONO, amount, short
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore

BARRIER = re.compile(r"^[^\n/]*__sync(?:threads|warp)\(\);[^\n]*$", re.M)


def barriers(
    program: Program, entry: str, args: Callable[[], Sequence[Tensor | float | int]], *,
    grid: int | tuple[int, ...],
    block: int | tuple[int, ...], result: int = -1,
) -> Explorer:
    """Returns a widget with a checkbox for each line with a barrier.

    If a barrier is removed, it shows the races and the results of three orders of threads.

    `args`: makes new arguments for each run. `result`: which of them holds the result. Every choice
    of barriers is compiled when the widget is made, so that the widget responds at once.
    """
    lines = program.source.text.split("\n")
    numbers = [number for number, line in enumerate(lines) if BARRIER.match(line)]
    if not 1 <= len(numbers) <= 3:
        raise ValueError("the source must have 1 to 3 lines that contain only a barrier; it has "
                         f"{len(numbers)}")
    choices = list(itertools.product((True, False), repeat=len(numbers)))
    programs = {kept: _without(program, list(itertools.compress(numbers, (not k for k in kept))))
                for kept in choices}
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
        gone = [number + 1 for name, number in zip(names, numbers, strict=True) if not kept[name]]
        results = dict(zip(machine.ORDERS, outcomes, strict=True))
        return _source_frame(found, lines, gone, results)

    return explore(draw, title="Take a barrier away", controls=dict.fromkeys(names, True),
                   labels={name: name.replace("line_", "barrier in line ") for name in names})


def _without(program: Program, numbers: Sequence[int]) -> Program:
    lines = program.source.text.split("\n")
    for number in numbers:
        lines[number] = ""
    source = Source(name=program.source.name, text="\n".join(lines), headers=program.source.headers)
    return Program(source=source, real=program.real)


def source_frame(found: Trace) -> Figure:
    """Draws the traced source, and marks the lines that raced or left the bounds of an array.

    Words below the source describe each problem.
    """
    return _source_frame(found, found.program.source.text.split("\n"), (), {})


def _source_frame(
    found: Trace, lines: Sequence[str], gone: Sequence[int], outcomes: dict[str, float]
) -> Figure:
    """Draws the source `lines`; the lines `gone`, which the traced program does not have, are gray.

    `gone` has line numbers, counted from 1.
    """
    marks = {access.line.number: "races" for race in found.races
             for access in (race.first, race.second)}
    told = [str(race) for race in found.races]
    if found.out_of_bounds:
        marks[found.out_of_bounds.access.line.number] = "out of bounds"
        told.insert(0, str(found.out_of_bounds))
    shown = lines[:-1] if not lines[-1] else lines
    words = [part for sentence in told[:2] for part in textwrap.wrap(sentence, 112)]
    words += [f"and {amount(len(told) - 2, 'more pair')} of lines"] if len(told) > 2 else []
    results = "   ".join(f"{order}: {value:.6g}" for order, value in outcomes.items())
    bottom = len(shown) + (1.2 if results else 0)
    fig, ax = plt.subplots(figsize=(9, 0.4 + 0.245 * (bottom + len(words) + 1)))
    for k, line in enumerate(shown, start=1):
        if k in marks:
            ax.add_patch(plt.Rectangle((0, k - 0.5), 100, 1, color=TINTS[1], linewidth=0))
            ax.text(99.4, k, marks[k], ha="right", fontsize=10, weight="bold", va="center")
        text = ax.text(0.6, k, f"{k:2}  {short(line, 92)}", fontsize=10,
                       color="0.55" if k in gone else "black", **MONO)
        if k in gone:
            _strike(ax, k, text=text)
    if results:
        ax.text(0.6, bottom, f"result, threads in order   {results}", fontsize=11, va="center",
                weight="bold")
    for k, part in enumerate(words, start=1):
        ax.text(0.6, bottom + 0.3 + k, part, fontsize=10, va="center", parse_math=False)
    n = len(found.races)
    verdict = (f"{amount(n, 'pair')} of lines "
               f"race{'s' * (n == 1)}" if n else "Out of bounds" if told else "No race")
    ax.set(title=verdict, xlim=(0, 100), ylim=(bottom + 0.9 + len(words), 0.4))
    ax.axis("off")
    fig.set_label((f"{verdict}. " if n or not told else "") + " ".join(told)
                  + (f" The result: {results}." if results else ""))
    return fig


def _strike(ax: Axes, row: int, *, text: Text) -> None:
    """Draws a line through a line of source, from its first letter to its last.

    A letter on the screen has a whole number of pixels, so its width is measured.
    """
    box = text.get_window_extent()
    words = text.get_text()
    letter = box.width / len(words)
    n_before = 4 + len(words[4:]) - len(words[4:].lstrip())
    place = ScaledTranslation(text.get_position()[0], row, ax.transData)
    ax.add_line(Line2D([letter * n_before, box.width], [0, 0], color=RED, linewidth=1.8,
                       transform=place))
