"""What was tampered with in a stored notebook is noticed by nbval with the course's own rules of
comparison.
"""

import shutil
import subprocess
import sys

import pytest
from tiny_notebooks import edit, remove_picture, write_tiny

from llama_from_scratch.lessons.authoring.executing import run
from llama_from_scratch.lessons.exercises.reading import NOTEBOOKS


def change_text(content):
    content["cells"][1]["outputs"][0]["text"][0] = "uno\n"


def change_float(content):
    content["cells"][1]["outputs"][0]["text"][2] = "loss 0.9444\n"


def remove_figure(content):
    content["cells"][2]["outputs"].clear()


def remove_still_of_widget(content):
    del content["cells"][4]["outputs"][0]["data"]["image/png"]


def remove_seed(content):
    content["cells"][1]["source"].pop(1)


def change_error(content):
    content["cells"][5]["outputs"][0]["evalue"] = "something else"


# What was done, the copy it was done in (several fit in one), and the code cell, counted from 0,
# that must fail for it.
TAMPERED = {
    change_text: ("first", 0),
    remove_picture: ("first", 1),
    remove_still_of_widget: ("first", 3),
    change_error: ("first", 4),
    change_float: ("second", 0),
    remove_figure: ("second", 1),
    remove_seed: ("third", 0),
}


def nudge_float(content):
    content["cells"][1]["outputs"][0]["text"][2] = "loss 0.8445\n"


@pytest.fixture(scope="module")
def nbval_report(tmp_path_factory):
    """The failures of nbval as "notebook::Cell k", all notebooks judged in one pytest run."""
    ran = write_tiny(tmp_path_factory.mktemp("ran"))
    assert run(ran)
    folder = tmp_path_factory.mktemp("nbval")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    shutil.copy(NOTEBOOKS / "conftest.py", folder)
    for name in ("untouched", "nudged", "first", "second", "third"):
        shutil.copy(ran, folder / f"{name}.ipynb")
    edit(folder / "nudged.ipynb", nudge_float)
    for change, (name, _) in TAMPERED.items():
        edit(folder / f"{name}.ipynb", change)
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env",
               "--nbval-cell-timeout=60"]
    command += ["-q", "-rfE", "--color=no", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert " passed" in done.stdout, done.stdout + done.stderr
    lines = [line.split(maxsplit=1)[1]
             for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return {line.partition(" - ")[0] for line in lines}


@pytest.mark.parametrize("change", TAMPERED)
def test_tampered_cell_fails_nbval(nbval_report, change):
    name, number = TAMPERED[change]
    assert f"{name}.ipynb::Cell {number}" in nbval_report


def test_untouched_cells_pass_nbval_and_so_does_another_last_digit(nbval_report):
    assert nbval_report <= {f"{name}.ipynb::Cell {number}" for name, number in TAMPERED.values()}
