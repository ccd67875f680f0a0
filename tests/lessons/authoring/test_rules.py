"""The notebook machinery: what it writes is stable, and what was tampered with is noticed.

The notebooks here are tiny and import neither torch nor matplotlib, so that a kernel is ready in half a second.
"""

import base64
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llama_from_scratch.lessons import notebook

PLAIN = """\
import random
random.seed(0)
print("one"); print("two")
print(f"loss {random.random():.4f}")
assert random"""
PICTURE = """\
from PIL import Image, ImageDraw
from IPython.display import display
picture = Image.new("RGB", (40, 30), "white")
ImageDraw.Draw(picture).line((0, 0, 39, 29), fill="navy")
class Figure:
    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"image/png": picture._repr_png_(), "text/plain": "<Figure size 40x30 with 1 Axes>"}
display(Figure())"""
SLIDER = """\
from ipywidgets import IntSlider, interact
interact(lambda k: print("k =", k), k=IntSlider(value=2, max=4))
_ = None"""
# As the library's own widgets: alive in JupyterLab, a still picture everywhere else.
EXPLORER = """\
from ipywidgets import VBox, IntSlider
class Explorer(VBox):
    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        return {**bundle, "image/png": picture._repr_png_(), "text/plain": "explorer: one line"}
Explorer([IntSlider()])"""
RAISES = "raise ValueError('head_dim must be even; got 7')"


def cell(source, *, tags=(), **more):
    kind = "markdown" if source.startswith("# ") else "code"
    code = {"execution_count": None, "outputs": []} if kind == "code" else {}
    return {"cell_type": kind, "metadata": {"tags": [*tags]} if tags else {}, "source": source, **code, **more}


def write(path, *cells):
    content = {"cells": [*cells], "metadata": {"widgets": {"x": 1}}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(content))
    return path


def edit(path, change):
    """Changes the stored notebook and leaves it in canonical form otherwise, as a careless hand would."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def outputs(path, number):
    return json.loads(path.read_text())["cells"][number]["outputs"]


def errors(path):
    return [str(finding) for finding in notebook.check(path) if finding.is_error]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    path = tmp_path_factory.mktemp("ran") / "12_tiny.ipynb"
    write(
        path,
        cell("# Tiny"),
        cell(PLAIN),
        cell(PICTURE),
        cell(SLIDER),
        cell(EXPLORER),
        cell(RAISES, tags=["raises-exception"]),
    )
    assert notebook.run(path)
    return path


@pytest.fixture
def tiny(ran, tmp_path):
    return Path(shutil.copy(ran, tmp_path))


def test_first_run_is_canonical_and_breaks_no_rule(ran):
    assert notebook.check(ran) == []


def test_second_run_changes_no_byte(tiny):
    before = tiny.read_bytes()
    assert not notebook.run(tiny)
    assert tiny.read_bytes() == before


def test_cells_get_slugs_counts_and_only_tags(ran):
    cells = json.loads(ran.read_text())["cells"]
    assert [c["id"] for c in cells] == [f"tiny-{k:02d}" for k in range(1, 7)]
    assert [c["execution_count"] for c in cells[1:]] == [1, 2, 3, 4, 5]
    assert [c["metadata"] for c in cells] == [{}] * 5 + [{"tags": ["raises-exception"]}]


def test_streams_are_merged(ran):
    assert outputs(ran, 1) == [{"name": "stdout", "output_type": "stream", "text": ["one\n", "two\n", "loss 0.8444\n"]}]


def test_widgets_keep_their_picture_and_first_frame_but_no_live_view(ran):
    assert "k = 2" in json.dumps(outputs(ran, 3))
    (explorer,) = outputs(ran, 4)
    assert sorted(explorer["data"]) == ["image/png", "text/plain"]
    assert "widget-view" not in ran.read_text() and '"widgets"' not in ran.read_text()


def test_expected_error_is_stored_as_one_line(ran):
    (error,) = outputs(ran, 5)
    assert error["traceback"] == ["ValueError: head_dim must be even; got 7"]


def test_kernel_is_this_python_in_the_notebooks_folder(tmp_path):
    path = write(tmp_path / "x.ipynb", cell("import os, sys\nprint(sys.executable, os.listdir())"))
    notebook.run(path)
    assert "".join(outputs(path, 0)[0]["text"]) == f"{sys.executable} ['x.ipynb']\n"


def test_failing_cell_leaves_the_file_untouched(tmp_path):
    path = write(tmp_path / "x.ipynb", cell("print(1)"), cell("1 / 0"))
    before = path.read_bytes()
    with pytest.raises(notebook.CellFailed, match="ZeroDivisionError"):
        notebook.run(path)
    assert path.read_bytes() == before


def test_endless_cell_is_stopped(tmp_path):
    path = write(tmp_path / "x.ipynb", cell("while True: pass"))
    with pytest.raises(notebook.CellFailed, match="timed out"):
        notebook.run(path, timeout_s=2)


@pytest.mark.parametrize("last", ["", "1 / 0", "while True: pass"], ids=["to the end", "failing", "endless"])
def test_kernel_is_gone_when_the_run_is_over(tmp_path, last):
    told = tmp_path / "pid"
    tell = f"import os, pathlib; pathlib.Path({str(told)!r}).write_text(str(os.getpid()))"
    with contextlib.nullcontext() if not last else pytest.raises(notebook.CellFailed):
        notebook.run(write(tmp_path / "x.ipynb", cell(tell), cell(last)), timeout_s=5)
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)


def test_gpu_cell_keeps_its_stored_output_without_cuda(tmp_path, monkeypatch):
    monkeypatch.setattr(notebook, "_has_cuda", lambda: False)
    stored = [{"name": "stdout", "output_type": "stream", "text": "from the GPU\n"}]
    path = write(tmp_path / "x.ipynb", cell("print('here')", tags=["gpu"], outputs=stored), cell("print('cpu')"))
    notebook.run(path)
    assert "".join(outputs(path, 0)[0]["text"]) == "from the GPU\n"
    assert "".join(outputs(path, 1)[0]["text"]) == "cpu\n"


@pytest.mark.parametrize("path", sorted(notebook.NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_of_the_course_breaks_no_rule(path):
    assert errors(path) == []


# --- tampering -------------------------------------------------------------------------------------------------------


def change_text(content):
    content["cells"][1]["outputs"][0]["text"][0] = "uno\n"


def change_float(content):
    content["cells"][1]["outputs"][0]["text"][2] = "loss 0.9444\n"


def remove_picture(content):
    del content["cells"][2]["outputs"][0]["data"]["image/png"]


def remove_figure(content):
    content["cells"][2]["outputs"].clear()


def remove_still_of_widget(content):
    del content["cells"][4]["outputs"][0]["data"]["image/png"]


def remove_seed(content):
    content["cells"][1]["source"].pop(1)


def change_error(content):
    content["cells"][5]["outputs"][0]["evalue"] = "something else"


# What was done, the copy it was done in (several fit in one), and the code cell, counted from 0, that must fail for it.
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
def nbval_report(ran, tmp_path_factory):
    """The failures of nbval as "notebook::Cell k", all notebooks judged in one pytest run."""
    folder = tmp_path_factory.mktemp("nbval")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    shutil.copy(notebook.NOTEBOOKS / "conftest.py", folder)
    for name in ("untouched", "nudged", "first", "second", "third"):
        shutil.copy(ran, folder / f"{name}.ipynb")
    edit(folder / "nudged.ipynb", nudge_float)
    for change, (name, _) in TAMPERED.items():
        edit(folder / f"{name}.ipynb", change)
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "--nbval-cell-timeout=60"]
    command += ["-q", "-rfE", "--color=no", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert " passed" in done.stdout, done.stdout + done.stderr
    lines = [line.split(maxsplit=1)[1] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return {line.partition(" - ")[0] for line in lines}


@pytest.mark.parametrize("change", TAMPERED)
def test_tampered_cell_fails_nbval(nbval_report, change):
    name, number = TAMPERED[change]
    assert f"{name}.ipynb::Cell {number}" in nbval_report


def test_untouched_cells_pass_nbval_and_so_does_another_last_digit(nbval_report):
    assert nbval_report <= {f"{name}.ipynb::Cell {number}" for name, number in TAMPERED.values()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda nb: nb["cells"][1].update(execution_count=None), "execution_count must be 1, it is None"),
        (lambda nb: nb["cells"][2].update(execution_count=7), "execution_count must be 2, it is 7"),
        (lambda nb: nb["cells"][1].update(id="0a1b2c3d"), "not in canonical form"),
        (lambda nb: nb["cells"][1]["metadata"].update(scrolled=True), "not in canonical form"),
        (lambda nb: nb["metadata"]["kernelspec"].update(name="my-env"), "not in canonical form"),
        (remove_picture, "a figure has lost its picture"),
        (lambda nb: nb["cells"][5]["metadata"].clear(), "an error is stored: ValueError"),
        (lambda nb: nb["cells"][5].update(outputs=[]), "raised nothing"),
        (lambda nb: nb["cells"][1]["metadata"].update(tags=["nbval-skip"]), "unknown tag 'nbval-skip'"),
        (lambda nb: nb["cells"][1]["source"].pop(), "no cell has an assert"),
        (lambda nb: nb["cells"].pop(0), "must be markdown that opens with a title"),
        (lambda nb: [c["metadata"].update(tags=["nbval-ignore-output"]) for c in nb["cells"][1:3]], "here 2 of 5"),
    ],
)
def test_check_names_the_tampered_rule(tiny, change, words):
    edit(tiny, change)
    found = errors(tiny)
    assert any(words in line for line in found), found


# --- rules on single cells -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("ax.plot(x);", "ends with `;`"),
        ("x = 1; y = 2;  # both", "ends with `;`"),
        ("from IPython.display import clear_output\nclear_output()", "`clear_output` rewrites"),
        ("h = display(1, display_id=True)", "`display_id` rewrites"),
        ("%%time\nx = 1", "`%%time` prints"),
        ("%timeit f(x)", "`%timeit f(x)` prints"),
        ("print(time.time() - t0)", "`time.time()` is a clock"),
        ("from tqdm import tqdm", "a text progress bar"),
        ("!pip install torch", "a lesson installs nothing"),
        ("import urllib.request", "`urllib` reaches for the network"),
        ("from huggingface_hub import hf_hub_download", "`huggingface_hub` reaches for the network"),
        ("open('/home/me/stories.txt')", "an absolute path"),
        (r"open('C:\\Users\\me\\stories.txt')", "an absolute path"),
        ("name = input()", "`input()` waits"),
        ("plt.show()", "shows a figure and none is stored"),
        ("\n".join(["x = 1"] * 41), "41 lines of code"),
        ("def f(x):\n    ### BEGIN SOLUTION\n    return x", "a solution block is not closed"),
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
    assert not any("cell 1:" in line for line in found if "execution_count" not in line and "title" not in line), found


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ({"name": "stdout", "output_type": "stream", "text": "<object at 0x7f00deadbeef>"}, "a memory address"),
        ({"name": "stdout", "output_type": "stream", "text": "saved to /tmp/x"}, "an absolute path"),
        ({"name": "stderr", "output_type": "stream", "text": "UserWarning: x"}, "a warning is stored: User"),
        ({"name": "stdout", "output_type": "stream", "text": "1\n" * 61}, "61 lines of output"),
        ({"data": {"image/png": "A" * 100_001}, "metadata": {}, "output_type": "display_data"}, "figure takes 100 kB"),
    ],
)
def test_check_refuses_output(tmp_path, output, words):
    found = errors(write(tmp_path / "x.ipynb", cell("f()", outputs=[output])))
    assert any(words in line for line in found), found


def test_check_only_hints_at_a_long_cell(tmp_path):
    path = write(tmp_path / "x.ipynb", cell("\n".join(["x = 1"] * 30)))
    assert [f.is_error for f in notebook.check(path) if "30 lines" in f.rule] == [False]


def test_command_check_fails_on_a_broken_rule_and_says_where(tiny, capsys):
    assert notebook.main(["check", str(tiny)]) == 0
    edit(tiny, lambda nb: nb["cells"][1].update(execution_count=None))
    assert notebook.main(["check", str(tiny)]) == 1
    assert "12_tiny.ipynb, cell 2: execution_count must be 1" in capsys.readouterr().out


# --- the canonical form ----------------------------------------------------------------------------------------------


def test_canonical_form_is_a_fixed_point(tiny):
    assert notebook.canonical(notebook.read(tiny)) == tiny.read_text()


def test_new_cell_gets_a_free_number_and_the_others_keep_theirs(tiny):
    edit(tiny, lambda nb: nb["cells"].insert(2, cell("x = 1", id="c0ffee00")))
    ids = [c["id"] for c in notebook.read(tiny).cells]
    assert ids == ["tiny-01", "tiny-02", "tiny-07", *(f"tiny-{k:02d}" for k in range(3, 7))]


def test_doubled_id_is_replaced(tmp_path):
    path = write(tmp_path / "11_norm.ipynb", cell("a", id="norm-01"), cell("b", id="norm-01"))
    assert [c["id"] for c in notebook.read(path).cells] == ["norm-01", "norm-02"]


def test_progress_bar_is_stored_as_its_last_state():
    assert notebook._stable("10%\r50%\r100%\ndone\r\n") == "100%\ndone\n"


def test_warning_names_no_temporary_file():
    assert notebook._stable("/tmp/ipykernel_123/456.py:3: UserWarning") == "<cell>:3: UserWarning"


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()


def test_picture_with_few_colours_shrinks_and_stays_what_it_was():
    ramp = np.repeat(np.arange(0, 250, 5, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(50, axis=0)
    noise = np.random.default_rng(0).integers(0, 50, size=(50, 50, 1)).astype(np.uint8) * 5
    array = np.concatenate([ramp, noise.repeat(3, axis=2)])
    small = notebook.shrink_png(png(array))
    assert len(small) < 0.7 * len(png(array))
    back = np.asarray(Image.open(io.BytesIO(base64.b64decode(small))).convert("RGB"), dtype=float)
    assert np.sqrt(((back - array) ** 2).mean()) <= notebook.MAX_PALETTE_ERROR
    assert notebook.shrink_png(small) == small == notebook.shrink_png(png(array))


def test_picture_that_a_palette_would_spoil_is_kept():
    array = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3)).astype(np.uint8)
    assert notebook.shrink_png(png(array)) == png(array)


# --- show ------------------------------------------------------------------------------------------------------------


def test_show_prints_sources_and_text_and_a_hash_for_a_picture(tiny):
    text = notebook.show(tiny)
    assert "loss 0.8444" in text and "random.seed(0)" in text and "=> ValueError: head_dim must be even; got 7" in text
    assert "--- 6 code raises-exception" in text
    picture = outputs(tiny, 2)[0]["data"]["image/png"]
    assert f"=> <image/png {len(picture)} chars " in text and picture not in text


def test_show_needs_no_package_so_that_git_diff_is_fast(tiny):
    file = Path(notebook.__file__)
    done = subprocess.run([sys.executable, "-I", "-S", file, "show", tiny], capture_output=True, text=True)
    assert done.stdout == notebook.show(tiny), done.stderr
