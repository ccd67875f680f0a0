import matplotlib.pyplot as plt
import pytest

from llama_from_scratch.lessons.widgets import explore, parts


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
    ((0, 9, 3), "IntSlider", 3), ((0.5, 2.0), "FloatSlider", 0.5),
    (["a", "b"], "ToggleButtons", "a"),
    (True, "Checkbox", True), ("once", "Text", "once"),
])
def test_each_kind_of_argument_gets_its_control(choice, kind, value):
    control = explore(draw, title="t", controls={"x": choice}).controls["x"]
    assert type(control).__name__ == kind and control.value == value


def test_a_field_for_text_is_wider_than_a_slider_and_no_wider_than_the_page():
    controls = explore(draw, title="t", controls={"k": (0, 6), "text": "once"}).controls
    slider, field = (controls[name].layout for name in ("k", "text"))
    assert float(field.width[:-2]) - float(slider.width[:-2]) == parts.TEXT_EM - parts.CONTROL_EM
    assert field.max_width == slider.max_width == "calc(100% - 4px)"


def test_a_label_is_written_before_its_control_and_its_argument_keeps_its_name():
    explorer = explore(draw, title="t", controls={"n_kv": [1, 2], "batch_size": (1, 4)},
                       labels={"n_kv": "key/value heads"})
    assert [control.description for control in explorer.controls.values()] == [
        "key/value heads", "batch size"]
    assert explorer._values() == {"n_kv": 1, "batch_size": 1}


@pytest.mark.parametrize("given", ["labels", "start"])
def test_a_name_that_is_no_control_is_refused(given):
    with pytest.raises(ValueError, match=rf"{given} may only name the controls k; got 'j'"):
        explore(draw, title="t", controls={"k": (0, 9)}, **{given: {"j": "1"}})


def test_without_a_kernel_the_first_picture_stands_in():
    explorer = explore(draw, title="Heads", controls={"k": (0, 9)})
    bundle = explorer._repr_mimebundle_()
    assert bundle["image/png"] == parts.still(explorer.picture.value)
    assert bundle["text/plain"].startswith("Heads (")
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_a_refused_value_is_told_and_the_last_good_picture_stays():
    explorer = explore(draw, title="t", controls={"k": (0, 9)})
    before = explorer.picture.value
    explorer.controls["k"].value = 7
    assert "k must not be 7; got 7" in explorer.problem.value and explorer.picture.value == before
    explorer.controls["k"].value = 8
    assert explorer.problem.value == ""


def test_a_range_without_room_is_refused():
    with pytest.raises(ValueError, match=r"k must be \(low, high\).*got \(3, 3\)"):
        explore(draw, title="t", controls={"k": (3, 3)})


def test_a_long_list_becomes_a_menu_and_labels_a_slider_over_their_values():
    explorer = explore(draw, title="t", start={"m": 30}, controls={
        "n": list(range(9)), "word": ["a long name of a model", "another long name", "and a third"],
        "m": {"ten": 10, "thirty": 30}})
    n, word, m = explorer.controls.values()
    kinds = [type(control).__name__ for control in (n, word, m)]
    assert kinds == ["Dropdown", "Dropdown", "SelectionSlider"]
    assert (n.value, word.value, m.value) == (0, "a long name of a model", 30)


def test_a_limit_moves_the_end_of_a_slider_and_draws_once():
    drawn = []

    def note(size, place):
        drawn.append((size, place))
        return draw()

    explorer = explore(note, title="t", controls={"size": (1, 9, 9), "place": (0, 9, 8)},
                       limits=lambda size, place: {"place": size})
    explorer.controls["size"].value = 3
    assert explorer.controls["place"].max == 3 and drawn == [(9, 8), (3, 3)]


def test_the_label_of_a_figure_is_told_in_words_and_escaped():
    def labelled(k):
        figure = draw()
        figure.set_label(f"k < {k}")
        return figure

    explorer = explore(labelled, title="t", controls={"k": (0, 9)})
    assert "k &lt; 0" in explorer.words.value


def test_an_error_in_the_readers_own_function_is_told_with_its_line_and_leaves_no_figure():
    def broken(k):
        fig, ax = plt.subplots()
        ax.plot([1 / (k - 2)])
        return fig

    explorer = explore(broken, title="t", controls={"k": (0, 9)})
    before = explorer.picture.value
    explorer.controls["k"].value = 2
    assert "ZeroDivisionError" in explorer.problem.value and "in broken" in explorer.problem.value
    assert "1 / (k - 2)" in explorer.problem.value and explorer.picture.value == before
    assert plt.get_fignums() == []
    with pytest.raises(ZeroDivisionError):
        explore(broken, title="t", controls={"k": (2, 9)})


def test_a_widget_refused_from_the_start_says_so_and_stores_no_empty_picture():
    explorer = explore(draw, title="t", controls={"k": (7, 9)})
    assert "k must not be 7" in explorer.problem.value
    assert "image/png" not in explorer._repr_mimebundle_()
