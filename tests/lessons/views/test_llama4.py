"""The widgets of Llama 4 draw the library's masks and tiles at all ends of their controls."""

import itertools

import matplotlib.pyplot as plt
from moved_widgets import ends, figure_of
from pictures import faults, styled

from llama_from_scratch.lessons import views


def test_both_ends_of_every_control_can_be_drawn(monkeypatch):
    styled(monkeypatch)
    for widget in (views.chunks(), views.image_tokens()):
        assert widget.problem.value == ""
        for values in itertools.product(*map(ends, widget.controls.values())):
            for control, value in zip(widget.controls.values(), values, strict=True):
                control.value = value
            figure = figure_of(widget)
            assert widget.problem.value == "" and faults(figure) == []
            plt.close(figure)


def test_a_token_and_a_chunk_size_change_the_picture_and_its_words():
    widget = views.chunks(start={"position": 7})
    assert widget.controls["position"].value == 7
    assert "It sees 8 tokens in a layer with chunks of 8, and 8 in one without" in (
        widget.words.value)
    before = widget.picture.value
    widget.controls["position"].value = 8
    assert "It sees only itself in a layer with chunks of 8" in widget.words.value
    assert widget.picture.value != before
    widget.controls["chunk_size"].value = 24
    assert "It sees 9 tokens in a layer with chunks of 24, and 9" in widget.words.value


def test_a_size_changes_the_tiles_and_the_tokens():
    widget = views.image_tokens(start={"height": 336, "width": 336})
    assert "1 × 1 tiles. It takes 147 tokens" in widget.words.value
    widget.controls["width"].value = 337
    assert "gets 1 × 2 tiles and one that shows it whole" in widget.words.value
