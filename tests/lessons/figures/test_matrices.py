"""Pictures of matrices: what is written in the cells, and in which color."""

import math

import pytest
import torch

from llama_from_scratch.lessons import figures


def cells(fig):
    return [[text.get_text() for text in ax.texts] for ax in fig.axes]


def test_grid_writes_every_value_into_its_cell_row_by_row():
    fig = figures.grid(torch.tensor([[1.0, 2.5], [-3.0, 0.0]]), title="", x="", y="", labels=".1f")
    assert cells(fig) == [["1.0", "2.5", "-3.0", "0.0"]]


def test_grid_names_what_its_colors_mean():
    fig = figures.grid(torch.tensor([[0.0, 1.0]]), title="", x="thread", y="", colors="warp")
    assert fig.axes[1].get_ylabel() == "warp"


def test_grids_draws_one_matrix_per_title_in_order():
    fig = figures.grids({"before": torch.zeros(2, 3), "after": torch.ones(2, 3)}, x="s", y="t",
                        labels=".0f")
    assert [ax.get_title(loc="left") or ax.get_title() for ax in fig.axes] == ["before", "after"]
    assert cells(fig) == [["0"] * 6, ["1"] * 6]


@pytest.mark.parametrize("is_signed", [False, True])
def test_a_masked_score_is_hatched_and_does_not_spoil_the_color_scale(is_signed):
    scores = torch.tensor([[1.0, -math.inf], [2.0, 3.0]])
    figure = figures.grids({"masked": scores}, x="", y="", labels=".0f", signed=is_signed)
    (image,) = figure.axes[0].images
    assert image.norm.vmax == 3 and image.norm.vmin == (-3 if is_signed else 1)
    assert image.to_rgba(image.get_array())[0, 1].tolist() == list(figures.CLEAR)
    assert figure.axes[0].patch.get_hatch() == "////"
    words = [text.get_color() for text in figure.axes[0].texts]
    assert words[1] == "black", "it can be read on the hatching"


def test_a_hidden_cell_is_hatched_and_empty_which_a_small_number_is_not():
    weights = torch.tensor([[1.0, math.nan], [0.999, 0.001]])
    fig = figures.grid(weights, title="", x="", y="", labels=".2f")
    (image,) = fig.axes[0].images
    assert image.to_rgba(image.get_array())[..., 3].tolist() == [[1, 0], [1, 1]]
    assert cells(fig) == [["1.00", "1.00", "0.00"]]
