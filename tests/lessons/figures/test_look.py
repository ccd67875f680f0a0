"""The look that all pictures share, and the picture as a file."""

import io

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import to_rgb

from llama_from_scratch.lessons import figures


def test_a_png_says_nothing_that_varies_and_its_figure_is_closed():
    first, second = (figures.png(plt.subplots()[0]) for _ in range(2))
    assert first == second and first[:4] == b"\x89PNG"
    assert b"Software" not in first and b"atplotlib" not in first
    assert plt.get_fignums() == []


def test_a_png_is_drawn_once_so_that_a_control_is_answered_soon(monkeypatch):
    figure, _ = plt.subplots(layout="constrained")
    n_drawn, draw = [], figure.draw
    monkeypatch.setattr(figure, "draw", lambda renderer: n_drawn.append(1) or draw(renderer))
    figures.png(figure)
    assert len(n_drawn) == 1


def test_neighbors_in_the_palette_differ_in_brightness():
    brightness = [np.dot(to_rgb(color), (0.3, 0.59, 0.11)) for color in figures.COLORS[:6]]
    assert np.abs(np.diff(brightness)).min() > 0.02
    assert len(set(figures.COLORS)) == 8


def test_style_sets_the_look_of_the_plots_of_this_kernel():
    with matplotlib.rc_context():
        figures.style()
        assert plt.rcParams["axes.titleweight"] == "bold"
        torch.set_printoptions(profile="default")  # which style changes for the whole process
        assert plt.rcParams["axes.prop_cycle"].by_key()["color"] == list(figures.COLORS)


def test_a_picture_has_an_opaque_white_ground_for_dark_pages():
    with matplotlib.rc_context():
        figures.style()
        pixels = plt.imread(io.BytesIO(figures.png(plt.subplots()[0])))
    assert pixels.shape[2] == 3 or pixels[..., 3].min() == 1
    assert pixels[0, 0, :3].tolist() == [1, 1, 1]
