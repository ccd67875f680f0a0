"""Every rule is broken once, and named with its place."""

import pytest
from tiny_notebooks import cell, edit, remove_picture, write

from llama_from_scratch.lessons.authoring.rules import check
from llama_from_scratch.lessons.exercises.reading import NOTEBOOKS


def errors(path):
    return [str(complaint) for complaint in check(path) if complaint.is_error]


def test_first_run_is_canonical_and_breaks_no_rule(ran):
    assert check(ran) == []


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_of_the_course_breaks_no_rule(path):
    assert errors(path) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda nb: nb["cells"][1].update(execution_count=None), "execution_count must "
                                                                 "be 1; got None"),
        (lambda nb: nb["cells"][2].update(execution_count=7), "execution_count must be 2; got 7"),
        (lambda nb: nb["cells"][1].update(id="0a1b2c3d"), "not in canonical form"),
        (lambda nb: nb["cells"][1]["metadata"].update(scrolled=True), "not in canonical form"),
        (lambda nb: nb["metadata"]["kernelspec"].update(name="my-env"), "not in canonical form"),
        (remove_picture, "the picture of a figure is missing"),
        (lambda nb: nb["cells"][5]["metadata"].clear(), "an error is stored: ValueError"),
        (lambda nb: nb["cells"][5].update(outputs=[]), "raised nothing"),
        (lambda nb: nb["cells"][1]["metadata"].update(tags=["nbval-skip"]),
         "unknown tag 'nbval-skip'"),
        (lambda nb: nb["cells"][1]["source"].pop(), "no cell has an assert"),
        (lambda nb: nb["cells"].pop(0), "must be a Markdown cell that begins with a title"),
        (lambda nb: [c["metadata"].update(tags=["nbval-ignore-output"]) for c in nb["cells"][1:3]],
         "got 2 of 5"),
    ],
)
def test_check_names_the_tampered_rule(tiny, change, words):
    edit(tiny, change)
    found = errors(tiny)
    assert any(words in line for line in found), found


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("ax.plot(x);", "ends with `;`"),
        ("x = 1; y = 2;  # both", "ends with `;`"),
        ("from IPython.display import clear_output\nclear_output()", "`clear_output` changes"),
        ("h = display(1, display_id=True)", "`display_id` changes"),
        ("%%time\nx = 1", "`%%time` prints"),
        ("%timeit f(x)", "`%timeit f(x)` prints"),
        ("print(time.time() - t0)", "`time.time()` reads a clock"),
        ("from tqdm import tqdm", "a text progress bar"),
        ("!pip install torch", "installs packages"),
        ("import urllib.request", "`urllib` uses the network"),
        ("from huggingface_hub import hf_hub_download", "`huggingface_hub` "
                                                        "uses the network"),
        ("open('/home/me/stories.txt')", "an absolute path"),
        (r"open('C:\\Users\\me\\stories.txt')", "an absolute path"),
        ("name = input()", "`input()` waits"),
        ("plt.show()", "shows a figure, but none is stored"),
        ("\n".join(["x = 1"] * 41), "41 lines of code"),
        ("def f(x):\n    ### BEGIN SOLUTION\n    return x", "a solution block has no end"),
    ],
)
def test_check_refuses_source(tmp_path, source, words):
    found = errors(write(tmp_path / "x.ipynb", cell(source)))
    assert any(words in line and "x.ipynb, cell 1" in line for line in found), found


@pytest.mark.parametrize(
    "source",
    [
        'kernel = """\nint i = 0;\n"""',
        "rows = {}\nrows.update(a=1)\nprint(1, end=';')",
        "# see https://arxiv.org/abs/2104.09864, clear_output() and time.time()",
        "t0 = time.perf_counter()",
        "ratio = 'a/b'",
    ],
)
def test_check_lets_harmless_source_pass(tmp_path, source):
    found = errors(write(tmp_path / "x.ipynb", cell(source)))
    assert not any("cell 1:" in line for line in found if "execution_count" not in line
                   and "title" not in line), found


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ({"name": "stdout", "output_type": "stream", "text": "<object at 0x7f00deadbeef>"},
         "a memory address"),
        ({"name": "stdout", "output_type": "stream", "text": "saved to "
                                                             "/tmp/x"}, "an absolute path"),
        ({"name": "stderr", "output_type": "stream", "text": "UserWarning: x"},
         "a warning is stored: User"),
        ({"name": "stdout", "output_type": "stream", "text": "1\n" * 61}, "61 lines of output"),
        ({"data": {"image/png": "A" * 100_001}, "metadata": {}, "output_type": "display_data"},
         "figure takes 100 kB"),
    ],
)
def test_check_refuses_output(tmp_path, output, words):
    found = errors(write(tmp_path / "x.ipynb", cell("f()", outputs=[output])))
    assert any(words in line for line in found), found


def test_check_only_hints_at_a_long_cell(tmp_path):
    path = write(tmp_path / "x.ipynb", cell("\n".join(["x = 1"] * 30)))
    assert [f.is_error for f in check(path) if "30 lines" in f.rule] == [False]
