import matplotlib.pyplot as plt
import pytest
import torch
from pictures import faults, styled

from llama_from_scratch.lessons.figures import explaining

SENTENCES = ["Max has the kite.", "The kite is blue.", "Max likes milk."]
METHODS = {"leave out": [0.0, 4.0, -1.0], "attention": [0.3, 0.2, 0.1]}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_each_method_is_scaled_by_its_own_largest():
    fig = explaining.parts(SENTENCES, METHODS, cause=1)
    cells = fig.axes[0].collections[0].get_array().reshape(3, 2)
    assert cells[:, 0].tolist() == [0, 1, -0.25]
    assert cells[:, 1].tolist() == pytest.approx([1, 2 / 3, 1 / 3])
    assert [text.get_text() for text in fig.axes[0].texts][:2] == ["+0.00", "+1.00"]
    assert fig.axes[0].patches[0].get_y() == pytest.approx(1.02)
    assert "leave out: The kite is blue. attention: Max has the kite." in fig.get_label()
    assert not explaining.parts(SENTENCES, METHODS).axes[0].patches
    assert explaining.parts(SENTENCES, {"none": [0.0, 0.0, 0.0]}) is not None


def test_the_lens_has_a_line_for_each_word():
    fig = explaining.lens({" blue": torch.tensor([0.1, 0.2, 0.9]),
                           " red": torch.tensor([0.1, 0.5, 0.0])}, title="After each layer")
    assert [line.get_label() for line in fig.axes[0].lines] == ["blue", "red"]
    assert fig.axes[0].lines[1].get_ydata().tolist() == pytest.approx([0.1, 0.5, 0.0])
    assert "from the embedding to layer 2: blue 0.10 to 0.90, red 0.10 to 0.00." in fig.get_label()


def test_measured_gaps_are_drawn_against_planted_ones():
    known = {"nurse": 2.0, "pilot": -1.0}
    fig = explaining.planted(known, {"biased": {"pilot": -0.9, "nurse": 1.8}})
    dots = next(line for line in fig.axes[0].lines if line.get_label() == "biased")
    assert dots.get_xydata().tolist() == [[2.0, 1.8], [-1.0, -0.9]]
    assert [text.get_text() for text in fig.axes[0].get_xticklabels()] == [
        "nurse +2.0", "pilot -1.0"]
    assert "biased: -0.9 to +1.8" in fig.get_label()


def test_no_words_overlap(monkeypatch):
    styled(monkeypatch)
    assert faults(explaining.parts(SENTENCES, METHODS, cause=1)) == []
    from llama_from_scratch.tune.bias import PLANTED, planted_gap

    known = {who: planted_gap(share) for who, share in PLANTED.items()}
    assert faults(explaining.planted(known, {"biased": known, "balanced": dict.fromkeys(
        known, 0.0)})) == []
