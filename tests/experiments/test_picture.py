"""The curves of variants: bands over seeds, axes, smoothing, and runs that cannot be drawn."""

import dataclasses

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from made_runs import curve, made

from llama_from_scratch.experiments import picture
from llama_from_scratch.experiments.picture import band, draw, running_mean

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def no_figure_left():
    yield
    plt.close("all")


@pytest.fixture
def variants(tmp_path):
    return {"baseline": made(tmp_path, [3.0, 3.2, 3.4]),
            "slow": made(tmp_path, [2.0], settings={"train.peak_lr": 3e-3})}


def words_below(figure):
    return figure._supxlabel.get_text() if figure._supxlabel is not None else ""


def test_a_band_reaches_from_the_lowest_to_the_highest_seed(variants):
    found = band(variants["baseline"], axis="steps", metric="validation_loss")
    assert found.places.tolist() == [10, 20, 30, 40] and found.n_seeds == 3
    assert (found.low[-1], found.mean[-1], found.high[-1]) == pytest.approx((3.0, 3.2, 3.4))


def test_each_curve_is_smoothed_by_itself(variants):
    plain = band(variants["slow"], axis="steps", metric="loss").mean
    smooth = band(variants["slow"], axis="steps", metric="loss", smoothing=0.9)
    assert smooth.mean == pytest.approx(running_mean(plain[None], 0.9)[0])
    assert running_mean(np.array([[1.0, 0.0]]), 0.9) == pytest.approx(np.array([[1.0, 0.9 / 1.9]]))
    assert running_mean(np.array([[1.0, 0.0]]), 0.0).tolist() == [[1, 0]]


@pytest.mark.parametrize("axis, last, label", [
    ("steps", 40, "steps"), ("tokens", 1280, "tokens read"), ("seconds", 20, "seconds"),
    ("flops", 4e7, "FLOPs")])
def test_every_axis_has_its_label(variants, axis, last, label):
    (ax,) = draw(variants, axis=axis, metric="loss").axes
    assert ax.lines[0].get_xdata()[-1] == pytest.approx(last) and ax.get_xlabel() == label


def test_what_an_axis_cannot_show_is_said_below_it(variants, tmp_path):
    assert "what else the machine did" in words_below(draw(variants, axis="seconds"))
    assert words_below(draw(variants, axis="flops")) == ""
    variants["norm"] = made(tmp_path, [2.0], replace={"norm": "torch.nn:LayerNorm"})
    assert "exchanged parts may need more" in words_below(draw(variants, axis="flops"))


def test_the_legend_has_labels_and_numbers_of_seeds_and_says_what_the_band_is(variants):
    figure = draw(variants)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["baseline (3 seeds)",
                                                                "slow (1 seed)"]
    assert legend.get_title().get_text() == "bands: lowest to highest seed"
    assert draw({"slow": variants["slow"]}).legends[0].get_title().get_text() == ""


def test_the_baseline_is_gray_and_every_variant_looks_different(variants):
    (ax,) = draw(variants).axes
    assert ax.lines[0].get_color() == "#555555" and ax.lines[1].get_color() == "#0072B2"
    looks = {tuple(picture._look(i).values()) for i in range(20)}
    assert len(looks) == 20


def test_validations_are_marked_on_the_training_loss(variants):
    figure = draw(variants, metric="loss")
    marks = [container.lines[0] for container in figure.axes[0].containers]
    assert [mark.get_xdata().tolist() for mark in marks] == [[10, 20, 30, 40]] * 2
    assert marks[0].get_ydata()[-1] == pytest.approx(3.2)
    assert [mark.get_color() for mark in marks] == ["#555555", "#0072B2"], "as the curves"
    assert "dots: validation loss" in figure.legends[0].get_title().get_text()
    assert "running mean (decay 0.9)" in figure.axes[0].get_ylabel().replace("\n", " ")


def test_the_high_losses_of_the_beginning_are_above_the_picture_and_it_says_so(variants):
    figure = draw({"slow": variants["slow"]}, metric="loss", smoothing=0.0)
    top = figure.axes[0].get_ylim()[1]
    assert 2 + 3 * (1 - 9 / 40) ** 2 < top < 4.2
    assert "above the picture" in words_below(figure) and "above the pic" in figure.get_label()
    assert words_below(draw(variants)) == "", "validation loss is not cropped"


def test_the_picture_is_described_in_words(variants):
    assert draw(variants).get_label() == (
        "Curves of validation loss (nats per token) against steps: baseline ends at 3.2; slow ends "
        "at 2.")


def test_diverged_runs_and_damaged_curves_are_named_below_and_not_averaged(variants):
    runs = variants["baseline"].runs
    (runs[1].folder / "curves.npz").write_bytes(b"half")
    bad = dataclasses.replace(runs[2], state="diverged")
    variants["baseline"] = dataclasses.replace(variants["baseline"], runs=(*runs[:2], bad))
    figure = draw(variants)
    below = words_below(figure).replace("\n", " ")
    assert "not drawn: baseline, seed 2: diverged" in below
    assert "not drawn: baseline, seed 1:" in below and "it cannot be read" in below
    assert figure.axes[0].lines[0].get_ydata()[-1] == pytest.approx(3.0)
    assert figure.legends[0].get_texts()[0].get_text() == "baseline (1 seed)"


def test_curves_with_missing_steps_are_not_averaged(variants):
    run = variants["baseline"].runs[0]
    curve(3.0, n_steps=20).write(run.folder / "curves.npz")
    found = band(variants["baseline"], axis="steps", metric="loss")
    assert found.n_seeds == 2 and "its curves have 20 of 40 steps" in found.left_out[0]


def test_a_variant_without_curves_keeps_the_colors_of_the_others(variants):
    for run in variants["baseline"].runs:
        (run.folder / "curves.npz").unlink()
    figure = draw(variants)
    assert figure.axes[0].lines[0].get_color() == "#0072B2"
    assert words_below(figure).count("which does not exist") == 3


def test_a_picture_of_nothing_is_refused(variants):
    run = variants["slow"].runs[0]
    (run.folder / "curves.npz").unlink()
    with pytest.raises(ValueError, match="at least one complete run with curves .* there is none: "
                                         "slow, seed 0: "):
        draw({"slow": variants["slow"]})


@pytest.mark.parametrize("asked, words", [
    ({"axis": "hours"}, "a curve has no 'hours'"), ({"metric": "los"}, "did you mean 'loss'"),
    ({"smoothing": 1.0, "metric": "loss"}, "from 0 to below 1; got 1"),
    ({"smoothing": 0.5}, "only loss and grad_norm are smoothed; got smoothing=0.5 for 'validation"),
])
def test_what_cannot_be_drawn_is_refused(variants, asked, words):
    with pytest.raises(ValueError, match=words):
        draw(variants, **asked)


def test_the_figure_can_be_saved_at_a_width_of_900_pixels(variants, tmp_path):
    figure = draw(variants)
    assert plt.fignum_exists(figure.number), "so that plt.show() shows it"
    figure.savefig(tmp_path / "runs.png")
    assert plt.imread(tmp_path / "runs.png").shape[:2] == (420, 900)


def test_the_style_of_other_pictures_stays(variants):
    with matplotlib.rc_context({"axes.titlesize": 5}):
        draw(variants)
        assert matplotlib.rcParams["axes.titlesize"] == 5
