"""The path of a reader through three chapters, in a real browser.

Open your copy, run it, guess, answer wrongly, take a hint, answer rightly, reach the milestone.
"""

import json
from typing import NamedTuple

import pytest

from llama_from_scratch.lessons.authoring.copies import student
from llama_from_scratch.lessons.authoring.lab import open_notebook, run_all, running
from llama_from_scratch.lessons.exercises import find
from llama_from_scratch.lessons.exercises.reading import NOTEBOOKS

pytestmark = [pytest.mark.browser, pytest.mark.slow]

STARTUP = """\
from pathlib import Path
from llama_from_scratch.lessons.exercises import progress
progress.PROGRESS = Path({file!r})
"""


class Route(NamedTuple):
    """What one reader types in one chapter."""

    chapter: str
    guess: str
    """For the question a of the chapter, which asks for a number."""
    said: str
    """What comparing the guess says."""
    exercise: str
    right: str
    wrong: str
    """What the reader types at first in the place of `right`."""
    mistake: str


PATHS = [
    Route(chapter="11_norm", guess="25", said="164 times too small",
          exercise="11.1", right="return rms(x_TD - x_TD.mean(-1, keepdim=True))",
          wrong="return rms(x_TD - x_TD.mean(0, keepdim=True))",
          mistake="the mean runs over the tokens"),
    Route(chapter="13_attention", guess="sqrt(128)", said="11 times too small",
          exercise="13.1", right="return (gpu_bytes - 2 * config.n_params) // per_token",
          wrong="return gpu_bytes // per_token", mistake="the weights are not subtracted"),
]


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """A JupyterLab that serves the readers' copies, and the file of their progress."""
    root = tmp_path_factory.mktemp("reader")
    for path in PATHS:
        student(NOTEBOOKS / f"{path.chapter}.ipynb", root / "mine")
    file = root / "progress.json"
    with running(root / "mine", places=root / "places",
                 startup=STARTUP.format(file=str(file))) as started:
        yield started, file


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.chapter)
def test_a_reader_guesses_errs_takes_a_hint_and_reaches_the_milestone(page, copies, path):
    lab, file = copies
    open_notebook(page, lab, f"{path.chapter}.ipynb")
    assert run_all(page, timeout_s=240) == [], "an untried exercise waits"
    number = path.exercise.partition(".")[0]

    question = page.locator(".jp-OutputArea-output", has_text="Your guess:").first
    question.locator("input").fill(path.guess)
    question.locator("input").press("Enter")
    question.get_by_text("Now find out.").wait_for()
    compare = cell(page, f'predict.compare("{number}.a"')
    run(page, compare)
    compare.get_by_text(path.said).wait_for()

    exercise = find(path.exercise)
    assert path.right in exercise.source
    here = cell(page, exercise.opening)
    here.get_by_text(f"{path.exercise} is not tried yet").wait_for()
    write(page, here, exercise.source.replace(path.right, path.wrong))
    here.get_by_text(path.mistake).wait_for()
    here.get_by_role("button", name="Hint", exact=True).click()
    here.get_by_text(exercise.hints[0][:20]).wait_for()
    write(page, here, exercise.source)
    here.get_by_text(f"✓ exercise {path.exercise} is done").wait_for()
    page.get_by_text(f"⚑ milestone {number}: ").wait_for()

    kept = json.loads(file.read_text())
    assert path.exercise in kept["passed"] and number in kept["milestones"]
    assert kept["tries"] == {path.exercise: 1} and kept["helped"] == {path.exercise: 1}
    assert {"guess", "answer", "surprise"} == set(kept["guesses"][f"{number}.a"])
    file.unlink()


def cell(page, text):
    """The code cell that holds a text."""
    found = page.locator(".jp-CodeCell", has=page.locator(".cm-content", has_text=text)).first
    found.scroll_into_view_if_needed()
    return found


def run(page, found):
    found.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")


def write(page, found, source):
    """Types a new source into a cell and runs it."""
    found.locator(".cm-content").click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(source)
    page.keyboard.press("Control+Enter")
