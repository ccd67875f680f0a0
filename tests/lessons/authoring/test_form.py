"""What is written is stable: cells keep their names, and what varies from run to run is left out.
"""

import json

from tiny_notebooks import cell, edit, outputs, write

from llama_from_scratch.lessons.authoring import form
from llama_from_scratch.lessons.authoring.form import canonical, read_notebook


def test_cells_get_slugs_counts_and_only_tags(ran):
    cells = json.loads(ran.read_text())["cells"]
    assert [c["id"] for c in cells] == [f"tiny-{k:02d}" for k in range(1, 7)]
    assert [c["execution_count"] for c in cells[1:]] == [1, 2, 3, 4, 5]
    assert [c["metadata"] for c in cells] == [{}] * 5 + [{"tags": ["raises-exception"]}]


def test_streams_are_merged(ran):
    assert outputs(ran, 1) == [{"name": "stdout", "output_type": "stream",
                                "text": ["one\n", "two\n", "loss 0.8444\n"]}]


def test_widgets_keep_their_picture_and_first_frame_but_no_live_view(ran):
    assert "k = 2" in json.dumps(outputs(ran, 3))
    (explorer,) = outputs(ran, 4)
    assert sorted(explorer["data"]) == ["image/png", "text/plain"]
    assert "widget-view" not in ran.read_text() and '"widgets"' not in ran.read_text()


def test_expected_error_is_stored_as_one_line(ran):
    (error,) = outputs(ran, 5)
    assert error["traceback"] == ["ValueError: head_dim must be even; got 7"]


def test_canonical_form_is_a_fixed_point(tiny):
    assert canonical(read_notebook(tiny)) == tiny.read_text()


def test_new_cell_gets_a_free_number_and_the_others_keep_theirs(tiny):
    edit(tiny, lambda nb: nb["cells"].insert(2, cell("x = 1", id="c0ffee00")))
    ids = [c["id"] for c in read_notebook(tiny).cells]
    assert ids == ["tiny-01", "tiny-02", "tiny-07", *(f"tiny-{k:02d}" for k in range(3, 7))]


def test_doubled_id_is_replaced(tmp_path):
    path = write(tmp_path / "11_norm.ipynb", cell("a", id="norm-01"), cell("b", id="norm-01"))
    assert [c["id"] for c in read_notebook(path).cells] == ["norm-01", "norm-02"]


def test_progress_bar_is_stored_as_its_last_state():
    assert form._stable("10%\r50%\r100%\ndone\r\n") == "100%\ndone\n"


def test_warning_names_no_temporary_file():
    assert form._stable("/tmp/ipykernel_123/456.py:3: UserWarning") == "<cell>:3: UserWarning"
