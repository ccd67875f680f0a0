"""Which of n programs is chosen by the tests that are shown, and whether it is right.

Used by the chapter on code (58).
"""

import dataclasses
from collections.abc import Sequence

from matplotlib.figure import Figure

from llama_from_scratch.lessons.figures.programs import tested
from llama_from_scratch.lessons.widgets.explorer import Explorer, explore
from llama_from_scratch.tune.code import CodeTask, ScoredProgram, first_passing


def choose_program(
    tasks: Sequence[CodeTask], programs: Sequence[Sequence[str]],
    scored: Sequence[Sequence[ScoredProgram]],
) -> Explorer:
    """Returns a widget: a task, how many of its programs are tried, and how many tests choose."""
    def draw(number: int, n: int, n_tests: int) -> Figure:
        i = number - 1
        return choose_program_frame(tasks[i], programs[i][:n], scored[i][:n], n_tests=n_tests)

    return explore(draw, title="Let tests choose",
                   controls={"number": (1, len(tasks)), "n": (1, len(programs[0])),
                             "n_tests": (0, len(tasks[0].visible))},
                   labels={"number": "task", "n": "programs", "n_tests": "tests that choose"},
                   start={"n": min(8, len(programs[0])), "n_tests": len(tasks[0].visible)})


def choose_program_frame(
    task: CodeTask, programs: Sequence[str], scored: Sequence[ScoredProgram], *, n_tests: int
) -> Figure:
    """Draws the programs with their tests. The title tells which one is chosen, and how it ends.

    The first program that passes the first `n_tests` visible tests is chosen, or else the first.
    """
    known = [dataclasses.replace(each, visible=each.visible[:n_tests]) for each in scored]
    place = first_passing(known)
    is_right = scored[place].passes
    fig = tested(programs, scored, title=task.text)
    told = f"Chosen: program {place + 1}, which is {'right' if is_right else 'wrong'}."
    fig.axes[0].set_xlabel(told)
    fig.axes[0].get_yticklabels()[place].set_fontweight("bold")
    fig.set_label(f"{fig.get_label()} {told}")
    return fig
