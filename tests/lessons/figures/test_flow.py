import itertools

import matplotlib.pyplot as plt
import pytest
from drawings import covered_words, crossings, faults, overlaps, texts_outside

from llama_from_scratch.lessons.figures import look
from llama_from_scratch.lessons.figures.flow import MAX_WIDTH, SMALL_PT, STEPS, Drawing


@pytest.fixture(autouse=True)
def styled():
    with plt.rc_context():
        look.style()
        yield
    plt.close("all")


def drawing():
    made = Drawing("A title")
    x = made.tensor("x", (0.6, 0.6), shape={"B": 1, "T": 8, "D": 4096}, copies=3)
    steps = [made.step(f"a step that {does}", (3.0, 0.6 + i), does=does, detail="in\nmore words")
             for i, does in enumerate(STEPS)]
    plus, values = made.sign("+", (5.0, 0.6)), made.vector([0.5, -1.0, 0.0], (6.0, 0.6))
    made.arrow(x, steps[0])
    made.arrow(x, (1.8, 0.6), (1.8, 1.6), steps[1], label="down")
    made.arrow(steps[0], plus, label="along")
    made.arrow(plus, values)
    made.frame("a frame", steps[2:])
    made.note("a note\nof two lines", (4.6, 3.0))
    return made


def test_words_fit_into_their_boxes_and_boxes_do_not_touch():
    made = drawing()
    figure = made.figure("What to see.")
    assert texts_outside(figure, made) == [] and overlaps(made) == []
    sizes = {text.get_fontsize() for text in figure.axes[0].texts}
    assert min(sizes) >= SMALL_PT and figure.get_figwidth() <= MAX_WIDTH


def test_a_word_too_long_for_its_box_would_be_seen():
    made = drawing()
    figure = made.figure("What to see.")
    text = next(t for t in figure.axes[0].texts if t.get_text() == "x")
    text.set_text("a name far longer than its box")
    assert texts_outside(figure, made) == ["a name far longer than its box"]
    made.step("on top", (0.7, 0.7))
    assert ("x", "on top") in overlaps(made)


def test_a_tensor_shows_its_letters_and_sizes():
    made = Drawing("A title")
    node = made.tensor("x", (0.0, 0.0), shape={"B": 1, "T": 8, "D": 4096})
    assert node.lines == ("x", "B T D", "1 × 8 × 4,096") and node.name == "x"


def test_arrows_go_from_edge_to_edge():
    made = drawing()
    x, step = made.nodes[:2]
    points = made.arrows[0].points
    assert points[0][0] > x.right[0] and points[0][1] == x.y, "beyond the copies"
    assert points[1] == pytest.approx(step.left)
    corner = made.arrows[1].points
    assert corner[1:3] == ((1.8, 0.6), (1.8, 1.6))
    for node, (dx, dy) in itertools.product(made.nodes, ((5, 0), (-5, 0), (0, 5), (0, -5))):
        made.arrow(node, (node.x + dx, node.y + dy))
        start, _ = made.arrows[-1].points
        assert abs(start[0] - node.x) <= node.width / 2 + 0.2
        assert abs(start[1] - node.y) <= node.height / 2 + 1e-9


def test_colors_of_a_vector_have_the_sign_of_its_numbers():
    made = Drawing("A title")
    made.vector([0.5, -1.0, 0.0], (0.0, 0.0))
    cells = made.figure("What to see.").axes[0].patches
    red, _, blue, _ = cells[0].get_facecolor()
    assert red > blue
    red, _, blue, _ = cells[1].get_facecolor()
    assert blue > red


def test_a_drawing_wider_than_a_page_is_refused():
    made = Drawing("A title")
    made.step("left", (0.0, 0.0))
    made.step("right", (9.0, 0.0))
    with pytest.raises(ValueError, match=r"at most 9.0 inches wide.*this one is 9\.\d"):
        made.figure("What to see.")


def test_a_line_through_a_box_and_words_under_a_line_would_be_seen():
    made = Drawing("A title")
    made.step("left", (0.0, 0.0))
    made.step("middle", (2.0, 0.0))
    made.step("right", (4.0, 0.0))
    made.note("words", (1.0, 1.0))
    assert faults(made.figure("What to see."), made) == []
    made.arrow(made.nodes[0], made.nodes[2], label="far")
    assert crossings(made) == [("far", "middle")]
    made.arrow((0.5, 1.0), (3.0, 1.0))
    assert ("words", "an arrow") in covered_words(made.figure("What to see."), made)


def test_a_drawing_says_what_to_see_on_a_white_ground_even_without_the_style():
    with plt.rc_context({"figure.facecolor": "black"}):
        figure = drawing().figure("Four boxes.")
    assert figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0) and figure.get_label() == "Four boxes."


def test_cells_are_as_wide_as_their_words_and_readable_on_any_ground():
    made = Drawing("A title")
    dark, pale = made.cell("a word", (0.5, 0.5), color="#0072B2"), made.cell("7", (2.0, 0.5))
    assert dark.width > pale.width
    words = {t.get_text(): t.get_color() for t in made.figure("Two cells.").axes[0].texts}
    assert words["a word"] == "white" and words["7"] != "white"


def test_a_key_names_colors_and_an_edge_has_no_head():
    made = Drawing("A title")
    made.key({"kept": "#0072B2", "new": "#E69F00"}, (0.0, 0.0))
    made.arrow(made.nodes[0], (0.1, 1.0), has_head=False)
    figure = made.figure("Two colors.")
    assert [note.text for note in made.notes] == ["kept", "new"]
    assert {"kept", "new"} <= {t.get_text() for t in figure.axes[0].texts}
    assert made.nodes[1].color == "#E69F00"
    assert not any(type(p).__name__ == "FancyArrowPatch" for p in figure.axes[0].patches)
