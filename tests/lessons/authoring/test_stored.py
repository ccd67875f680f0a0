"""What differs from the stored output of a cell is found, and the last digit of a float is not."""

import json

import pytest
from tiny_notebooks import cell

from llama_from_scratch.lessons.authoring.form import read_notebook
from llama_from_scratch.lessons.authoring.stored import difference, is_close


@pytest.fixture
def cells(ran):
    """The cells of a notebook that was run and stored, as they are when it is run again."""
    return read_notebook(ran).cells


def changed(cells, change):
    """A copy of the cells, in which the stored outputs were tampered with."""
    tampered = json.loads(json.dumps(cells))
    change(tampered)
    return tampered


def found(cells, change):
    """What is found in each code cell, by its position, where something is found."""
    pairs = zip(cells, changed(cells, change), strict=True)
    words = {position: difference(cell, before) for position, (cell, before) in enumerate(pairs)
             if cell["cell_type"] == "code"}
    return {position: each for position, each in words.items() if each}


def change_text(cells):
    cells[1]["outputs"][0]["text"] = cells[1]["outputs"][0]["text"].replace("one", "uno")


def change_float(cells):
    cells[1]["outputs"][0]["text"] = cells[1]["outputs"][0]["text"].replace("0.8444", "0.9444")


def remove_picture(cells):
    del cells[2]["outputs"][0]["data"]["image/png"]


def remove_figure(cells):
    cells[2]["outputs"].clear()


def remove_still_of_widget(cells):
    del cells[4]["outputs"][0]["data"]["image/png"]


def change_words_of_widget(cells):
    cells[4]["outputs"][0]["data"]["text/plain"] = "explorer: two lines"


def change_error(cells):
    cells[5]["outputs"][0]["evalue"] = "something else"


def change_kind_of_error(cells):
    cells[5]["outputs"][0]["ename"] = "TypeError"


def exchange_print_for_an_error(cells):
    cells[5]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "fine\n"}]


@pytest.mark.parametrize(("change", "position", "words"), [
    (change_text, 1, "'one', stored 'uno'"),
    (change_float, 1, "'loss 0.8444', stored 'loss 0.9444'"),
    (remove_picture, 2, "image/png and text/plain, stored text/plain"),
    (remove_figure, 2, "1 outputs, 0 stored; the last is '<Figure size 40x30 with 1 Axes>'"),
    (remove_still_of_widget, 4, "image/png and text/plain, stored text/plain"),
    (change_words_of_widget, 4, "'explorer: one line', stored 'explorer: two lines'"),
    (change_error, 5, "'head_dim must be even; got 7', stored 'something else'"),
    (change_kind_of_error, 5, "'ValueError', stored 'TypeError'"),
    (exchange_print_for_an_error, 5, "ename and evalue, stored stdout"),
])
def test_what_was_tampered_with_is_found_in_its_cell_alone(cells, change, position, words):
    assert found(cells, change) == {position: words}


def nudge_float(cells):
    cells[1]["outputs"][0]["text"] = cells[1]["outputs"][0]["text"].replace("0.8444", "0.8445")


def draw_another_picture(cells):
    cells[2]["outputs"][0]["data"]["image/png"] = "AAAA"


def warn(cells):
    cells[1]["outputs"].append({"output_type": "stream", "name": "stderr", "text": "deprecated"})


def was_never_run(cells):
    change_text(cells)
    cells[1]["execution_count"] = None


def ignore(cells):
    change_text(cells)
    cells[1]["metadata"]["tags"] = ["nbval-ignore-output"]


@pytest.mark.parametrize("change", [nudge_float, draw_another_picture, warn, was_never_run, ignore])
def test_what_may_differ_between_machines_and_what_is_not_compared_is_no_difference(cells, change):
    assert changed(cells, change) != json.loads(json.dumps(cells))
    assert found(cells, change) == {}


def test_what_is_printed_in_parts_is_one_text(cells):
    def part(cells):
        [out] = cells[1]["outputs"]
        first, rest = out["text"][:5], out["text"][5:]
        warning = {"output_type": "stream", "name": "stderr", "text": "slow"}
        cells[1]["outputs"] = [out | {"text": first}, warning, out | {"text": rest}]

    assert found(cells, part) == {}


def test_data_that_is_no_text_has_no_tolerance():
    shown = cell("x", outputs=[{"output_type": "display_data", "metadata": {},
                                "data": {"application/json": {"loss": 0.5000}}}])
    shown |= {"execution_count": 1, "id": "x-01"}
    assert difference(shown, shown) == ""
    [other] = changed([shown], lambda cells: cells[0]["outputs"][0]["data"].update(
        {"application/json": {"loss": 0.5001}}))
    assert difference(shown, other) == "{'loss': 0.5}, stored {'loss': 0.5001}"


@pytest.mark.parametrize(("new", "ref", "is_equal"), [
    ("loss 0.8444", "loss 0.8445", True), ("loss 0.8444", "loss 0.8544", False),
    ("12 steps", "13 steps", False), ("v1.2", "v1.3", False), ("1.5e-9", "1.6e-9", True),
])
def test_only_floats_have_a_tolerance(new, ref, is_equal):
    assert is_close(new, ref) is is_equal
