import matplotlib.pyplot as plt
import pytest
from pictures import faults, styled

from llama_from_scratch import family
from llama_from_scratch.lessons.views import shards as views
from llama_from_scratch.parallel.sharded_cost import held, sent, unit_sizes


@pytest.fixture(autouse=True)
def style(monkeypatch):
    styled(monkeypatch)
    yield
    plt.close("all")


@pytest.mark.parametrize("model", views.MODELS)
@pytest.mark.parametrize("n_ranks", [2, 64, 16_384])
@pytest.mark.parametrize(("is_bf16", "n_micro", "gpu_bytes"), [
    (True, 1, 80 * 10**9), (False, 16, 24 * 10**9)])
def test_the_bars_are_those_of_the_formulas(model, n_ranks, is_bf16, n_micro, gpu_bytes):
    figure = views.sharding_frame(model, n_ranks, is_bf16, n_micro, gpu_bytes)
    assert faults(figure) == []
    sizes = unit_sizes(family.config(model))
    options = dict(n_ranks=n_ranks, is_bf16=is_bf16)
    for ax, expected in zip(figure.axes, (
            [held(sizes, stage=stage, **options).total for stage in range(4)],
            [sum(sent(sizes, stage=stage, n_micro=n_micro, **options).values())
             for stage in range(4)]), strict=True):
        ends = {}
        for bar in ax.patches:
            row = round(bar.get_y() + bar.get_height() / 2)
            ends[row] = max(ends.get(row, 0), bar.get_x() + bar.get_width())
        ratio = ends[0] / expected[0]
        assert [ends[row] for row in range(4)] == pytest.approx([ratio * n for n in expected])


def test_what_fits_is_named():
    label = views.sharding_frame("llama-3.1-405b", 64, True, 1, 80 * 10**9).get_label()
    assert label.endswith("It fits with none of them.")
    label = views.sharding_frame("llama-3.1-8b", 8, True, 1, 80 * 10**9).get_label()
    assert label.endswith("It fits with stage 1, stage 2, stage 3.")


def test_a_control_changes_the_picture_and_the_words():
    view = views.sharding()
    before = view.picture.value
    assert "llama-3.1-8b on 8 ranks" in view.words.value
    view.controls["n_ranks"].value = 64
    assert view.picture.value != before and "on 64 ranks" in view.words.value
    assert "on 1,024 ranks" in views.sharding(start={"n_ranks": 1024}).words.value
