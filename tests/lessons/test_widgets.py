import base64

import matplotlib.pyplot as plt
import pytest

from llama_from_scratch.lessons.widgets import explore


def draw(**values):
    if values.get("k") == 7:
        raise ValueError("k must not be 7; got 7")
    fig, ax = plt.subplots(figsize=(2, 1))
    ax.set_title(str(values))
    return fig


def test_moving_a_control_changes_the_picture_and_leaves_no_figure_open():
    explorer = explore(draw, title="t", controls={"k": (0, 9, 3)})
    before = explorer.picture.value
    explorer.controls["k"].value = 4
    assert explorer.picture.value[:8] == b"\x89PNG\r\n\x1a\n" and explorer.picture.value != before
    assert plt.get_fignums() == []


@pytest.mark.parametrize(("choice", "kind", "value"), [
    ((0, 9, 3), "IntSlider", 3), ((0.5, 2.0), "FloatSlider", 0.5), (["a", "b"], "ToggleButtons", "a"),
    (True, "Checkbox", True), ("once", "Text", "once"),
])
def test_each_kind_of_argument_gets_its_control(choice, kind, value):
    control = explore(draw, title="t", controls={"x": choice}).controls["x"]
    assert type(control).__name__ == kind and control.value == value


def test_without_a_kernel_the_first_picture_stands_in():
    explorer = explore(draw, title="Heads", controls={"k": (0, 9)})
    bundle = explorer._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]) == explorer.picture.value
    assert bundle["text/plain"].startswith("Heads (") and "application/vnd.jupyter.widget-view+json" in bundle


def test_a_refused_value_is_told_and_the_last_good_picture_stays():
    explorer = explore(draw, title="t", controls={"k": (0, 9)})
    before = explorer.picture.value
    explorer.controls["k"].value = 7
    assert "k must not be 7; got 7" in explorer.problem.value and explorer.picture.value == before
    explorer.controls["k"].value = 8
    assert explorer.problem.value == ""


def test_a_range_without_room_is_refused():
    with pytest.raises(ValueError, match=r"k needs \(low, high\).*got \(3, 3\)"):
        explore(draw, title="t", controls={"k": (3, 3)})
