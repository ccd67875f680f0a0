import math

import matplotlib.pyplot as plt
import pytest
import torch
from pictures import faults, styled

from llama_from_scratch.lessons.figures import stretching
from llama_from_scratch.model.rope import rope_frequencies


def test_dots_above_their_bars_and_below_a_turn_are_new_angles(monkeypatch):
    styled(monkeypatch)
    freqs = rope_frequencies(32, theta=100.0)
    figure = stretching.turns({"as trained": freqs, "divided": freqs / 4}, trained=64, asked=256)
    assert faults(figure) == []
    plain, divided = figure.axes
    for ax in (plain, divided):
        assert [bar.get_height() for bar in ax.patches] == pytest.approx(
            (64 * freqs / (2 * math.pi)).tolist())
    reached = plain.collections[0].get_offsets()[:, 1]
    assert list(reached) == pytest.approx((256 * freqs / (2 * math.pi)).tolist())
    assert "as trained: 7, divided: 0 of 16" in figure.get_label()
    plt.close("all")


def test_distances_are_those_to_the_latest_occurrence(monkeypatch):
    styled(monkeypatch)
    keys = [0, 1, 0, 1, 2, *range(3, 18), 2]
    ids = torch.tensor([[each for key in keys for each in (key, 40 + key)]])
    figure = stretching.distances({"few": ids, "same": ids}, trained=16)
    assert faults(figure) == []
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights[:2] == pytest.approx([200 / 3, 0]) and heights[2] == pytest.approx(100 / 3)
    assert "few: 33% are more than 16 tokens back" in figure.get_label()
    plt.close("all")


def test_a_map_of_needles_has_its_percents_and_bold_lengths(monkeypatch):
    styled(monkeypatch)
    figure = stretching.needles({"one": [[1.0, 0.5], [0.03, 0.25]], "two": [[0.0, 0.0]] * 2},
                                lengths=(64, 1024), trained=64)
    assert faults(figure) == []
    first = figure.axes[0]
    assert [text.get_text() for text in first.texts] == ["100", "50", "3", "25"]
    assert [label.get_fontweight() for label in first.get_yticklabels()] == ["normal", "bold"]
    assert [label.get_text() for label in first.get_yticklabels()] == ["64", "1,024"]
    assert "one 14 %, two 0 %" in figure.get_label()
    plt.close("all")


def test_bits_are_drawn_over_their_parts(monkeypatch):
    styled(monkeypatch)
    figure = stretching.bits({"base": [0.5, 3.4], "stretched": [0.6, 0.7]}, edges=(0, 256, 1024),
                             trained=256)
    assert faults(figure) == []
    values, edges, _ = figure.axes[0].patches[0].get_data()
    assert list(values) == [0.5, 3.4] and list(edges) == [0, 256, 1024]
    assert "base 3.40, stretched 0.70" in figure.get_label()
    plt.close("all")
