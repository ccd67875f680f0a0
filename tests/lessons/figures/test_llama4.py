"""The drawings of Llama 4's layers show the masks and the factors of the real parts."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from drawings import faults, noted
from pictures import faults as picture_faults
from pictures import styled

from llama_from_scratch.config import LayerSpec, TemperatureTuning
from llama_from_scratch.lessons.figures import llama4
from llama_from_scratch.lessons.figures.look import TINTS
from llama_from_scratch.model.mask import causal_mask, chunk_mask
from llama_from_scratch.model.temperature import query_scales

NEAR, FAR = LayerSpec(chunk_size=4, has_qk_norm=True), LayerSpec(has_rope=False)
PATTERN = (NEAR, NEAR, NEAR, FAR)


@pytest.fixture
def made(monkeypatch):
    yield noted(monkeypatch)
    plt.close("all")


def allowed(position, chunk_size):
    """What a token sees by the two functions that every mask is made of."""
    t = torch.arange(position + 1)[None]
    row = causal_mask(1, position + 1)[0, 0]
    if chunk_size is None:
        return row
    return row & chunk_mask(t[:, -1:], t, chunk_size=chunk_size)[0, 0]


@pytest.mark.parametrize("position", [0, 3, 4, 13, 15])
def test_the_drawing_shows_what_the_masks_allow(position, made):
    llama4.sight(PATTERN, position=position)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    cells = [node for node in drawing.nodes if node.y in {0.42 * i for i in range(4)}]
    for i, spec in enumerate(PATTERN):
        row = sorted((node for node in cells if node.y == pytest.approx(0.42 * (3 - i))),
                     key=lambda node: node.x)[-(position + 1):]
        shown = [node.color != "white" for node in row]
        assert shown == allowed(position, spec.chunk_size).tolist()
        assert row[-1].color == TINTS[1], "the token itself is marked"
    assert f"token {position} sees" in figure.get_label()


def test_too_many_tokens_are_refused():
    with pytest.raises(ValueError, match="at most 16 tokens are drawn; got position 16"):
        llama4.sight(PATTERN, position=16)


@pytest.mark.parametrize(("chunk_size", "position"), [(8, 17), (1, 5), (24, 23), (8, 16), (5, 0)])
def test_both_masks_are_the_librarys(chunk_size, position, monkeypatch):
    styled(monkeypatch)
    figure = llama4.masks(n_tokens=24, chunk_size=chunk_size, position=position)
    assert picture_faults(figure) == []
    for ax, size in zip(figure.axes, (chunk_size, None), strict=True):
        shown = ~np.ma.getmaskarray(np.ma.masked_invalid(ax.images[0].get_array()))
        for t in range(24):
            assert shown[t, : t + 1].tolist() == allowed(t, size).tolist()
            assert not shown[t, t + 1:].any()
        n_seen = int(allowed(position, size).sum())
        assert ax.get_title(loc="left").endswith(f"sees {n_seen}")
        assert ax.patches[0].get_y() == position - 0.5
    plt.close(figure)


def test_a_token_outside_the_text_is_refused():
    with pytest.raises(ValueError, match="from 0 to 23; got 24"):
        llama4.masks(n_tokens=24, chunk_size=8, position=24)


def test_the_line_is_the_librarys_factor(monkeypatch):
    styled(monkeypatch)
    tuning = TemperatureTuning(floor=100, strength=0.2)
    figure = llama4.query_growth(tuning, contexts={"short": 5_000, "long": 80_000})
    assert picture_faults(figure) == []
    x, y = figure.axes[0].lines[0].get_data()
    at = torch.as_tensor(np.asarray(x)).long() - 1
    np.testing.assert_allclose(np.asarray(y), query_scales(at[None], tuning)[0].numpy())
    assert int(x[-1]) == 80_000 and f"{float(y[-1]):.2f} times" in figure.get_label()
    plt.close(figure)
