"""A notebook is run by this Python, and stored only if it ran to its end."""

import contextlib
import os
import sys

import pytest
from tiny_notebooks import cell, outputs, write

from llama_from_scratch.lessons.authoring import executing
from llama_from_scratch.lessons.authoring.executing import CellFailed, run


def test_second_run_changes_no_byte(tiny):
    before = tiny.read_bytes()
    assert not run(tiny)
    assert tiny.read_bytes() == before


def test_kernel_is_this_python_in_the_notebooks_folder(tmp_path):
    path = write(tmp_path / "x.ipynb", cell("import os, sys\nprint(sys.executable, os.listdir())"))
    run(path)
    assert "".join(outputs(path, 0)[0]["text"]) == f"{sys.executable} ['x.ipynb']\n"


def test_failing_cell_leaves_the_file_untouched(tmp_path):
    path = write(tmp_path / "x.ipynb", cell("print(1)"), cell("1 / 0"))
    before = path.read_bytes()
    with pytest.raises(CellFailed, match="ZeroDivisionError"):
        run(path)
    assert path.read_bytes() == before


def test_endless_cell_is_stopped(tmp_path):
    path = write(tmp_path / "x.ipynb", cell("while True: pass"))
    with pytest.raises(CellFailed, match="timed out"):
        run(path, timeout_s=2)


@pytest.mark.parametrize("last", ["", "1 / 0", "while True: pass"],
                         ids=["to the end", "failing", "endless"])
def test_kernel_is_gone_when_the_run_is_over(tmp_path, last):
    told = tmp_path / "pid"
    tell = f"import os, pathlib; pathlib.Path({str(told)!r}).write_text(str(os.getpid()))"
    with contextlib.nullcontext() if not last else pytest.raises(CellFailed):
        run(write(tmp_path / "x.ipynb", cell(tell), cell(last)), timeout_s=5)
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)


def test_gpu_cell_keeps_its_stored_output_without_cuda(tmp_path, monkeypatch):
    monkeypatch.setattr(executing, "_has_cuda", lambda: False)
    stored = [{"name": "stdout", "output_type": "stream", "text": "from the GPU\n"}]
    path = write(tmp_path / "x.ipynb", cell("print('here')", tags=["gpu"], outputs=stored),
                 cell("print('cpu')"))
    run(path)
    assert "".join(outputs(path, 0)[0]["text"]) == "from the GPU\n"
    assert "".join(outputs(path, 1)[0]["text"]) == "cpu\n"
