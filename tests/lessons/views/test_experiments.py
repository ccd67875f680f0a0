"""The widget of remembered runs: which are drawn, what is judged, and what cannot be compared."""

import dataclasses

import matplotlib.pyplot as plt
import pytest
from made_runs import MACHINE, TINY, made
from moved_widgets import figure_of

from llama_from_scratch.lessons import views

RATE = "peak_lr=0.003"


@pytest.fixture
def kept_in(tmp_path):
    made(tmp_path / "runs", [3.0, 3.01, 3.02])
    made(tmp_path / "runs", [2.0, 2.01, 2.02], settings={"train.peak_lr": 3e-3})
    made(tmp_path / "runs", [2.5], settings={"train.peak_lr": 2e-2})
    return tmp_path / "runs"


def shown(kept_in, tmp_path):
    return views.choose_runs(TINY, kept_in=kept_in, saved_in=tmp_path / "saved")


def names(widget):
    return [text.get_text().replace("\n", " ")
            for text in figure_of(widget).legends[0].get_texts()]


def test_every_variant_has_a_checkbox_and_the_table_is_below(kept_in, tmp_path):
    widget = shown(kept_in, tmp_path)
    assert names(widget) == ["baseline (3 seeds)", "peak_lr=0.003 (3 seeds)",
                             "peak_lr=0.02 (1 seed)"]
    assert widget.controls[RATE].description == RATE
    table = widget.children[-1].value
    assert "<caption>tiny: validation loss" in table and ">lower<" in table
    assert widget.problem.value == "" and "ends at 2.01" in widget.words.value


def test_what_is_chosen_is_drawn_and_compared(kept_in, tmp_path):
    widget = shown(kept_in, tmp_path)
    widget.controls["reference"].value = RATE
    widget.controls["peak_lr=0.02"].value = False
    assert names(widget) == ["peak_lr=0.003 (3 seeds)", "baseline (3 seeds)"]
    assert ">higher<" in widget.children[-1].value
    widget.controls["baseline"].value = False
    assert names(widget) == ["peak_lr=0.003 (3 seeds)"], "the one to compare with is always drawn"
    assert "Choose another variant" in widget.children[-1].value


def test_axis_metric_and_smoothing_are_chosen_in_words(kept_in, tmp_path):
    widget = shown(kept_in, tmp_path)
    widget.controls["metric"].value = "training loss (nats per token)"
    widget.controls["axis"].value = "tokens read"
    widget.controls["smoothing"].value = 0.5
    (ax,) = figure_of(widget).axes
    assert ax.get_xlabel() == "tokens read"
    assert "running mean (decay 0.5)" in ax.get_ylabel().replace("\n", " ")
    assert "tiny: training loss" in widget.children[-1].value, "the drawn metric is judged"
    widget.controls["metric"].value = "learning rate"
    assert "tiny: validation loss" in widget.children[-1].value, "a rate is not a result"
    for name, control in widget.controls.items():
        assert control.description and control.tabbable is not False, name


def test_the_saved_baseline_comes_first(kept_in, tmp_path, monkeypatch):
    made(tmp_path / "data" / "experiments", [3.1, 3.2])
    monkeypatch.setattr("llama_from_scratch.bundled.DATA", tmp_path / "data")
    widget = views.choose_runs(TINY, kept_in=kept_in)
    assert names(widget)[:2] == ["baseline (saved) (2 seeds)", "baseline (3 seeds)"]
    assert widget.controls["reference"].value == "baseline (saved)"


def test_what_cannot_be_shown_is_named_below_the_table(kept_in, tmp_path):
    hurt = made(kept_in, [2.2], settings={"train.peak_lr": 5e-3}).runs[0].folder
    (hurt / "run.json").write_text("<b>")
    below = shown(kept_in, tmp_path).children[-1].value
    assert "<li>not shown: " in below and "peak_lr=0.005" in below and "<b>" not in below
    assert "a saved baseline must exist" in below


def test_seconds_of_two_machines_leave_the_last_picture_and_say_why(kept_in, tmp_path):
    made(kept_in, [2.1], settings={"train.peak_lr": 4e-3}, machine=MACHINE | {"processor": "Z1"})
    widget = shown(kept_in, tmp_path)
    before = widget.picture.value, widget.children[-1].value
    widget.controls["axis"].value = "seconds"
    assert "one machine only" in widget.problem.value
    assert (widget.picture.value, widget.children[-1].value) == before
    widget.controls["peak_lr=0.004"].value = False
    assert widget.problem.value == ""


def test_different_texts_begin_with_bits_per_byte(kept_in, tmp_path):
    made(kept_in, [2.1], settings={"data.path": "other.txt"}, data={"digest": "07", "files": "07"})
    widget = shown(kept_in, tmp_path)
    assert widget.controls["metric"].value == "validation, bits per byte"
    assert widget.problem.value == "" and widget.picture.value


def test_a_diverged_reference_is_refused_until_another_is_chosen(tmp_path):
    made(tmp_path / "runs", [3.0], state="diverged", error="NaN")
    made(tmp_path / "runs", [2.0, 2.1], settings={"train.peak_lr": 3e-3})
    widget = shown(tmp_path / "runs", tmp_path)
    assert "at least one complete run" in widget.problem.value
    widget.controls["reference"].value = RATE
    assert widget.problem.value == "" and "0 of 1" in widget.children[-1].value


def test_more_than_six_variants_start_hidden(kept_in, tmp_path):
    for i in range(6):
        made(kept_in, [2.0], settings={"train.n_warmup": i + 3})
    widget = shown(kept_in, tmp_path)
    boxes = [control.value for name, control in widget.controls.items() if "=" in name]
    assert boxes == [True] * 5 + [False] * 3


def test_an_experiment_without_runs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="runs can be chosen when there are some; a saved baseline "
                                         "must exist.*has no runs of 'tiny'"):
        shown(tmp_path / "runs", tmp_path)
    other = dataclasses.replace(TINY, name="other")
    made(tmp_path / "runs", [2.0], base=other)
    with pytest.raises(ValueError, match="did you mean|known: other"):
        shown(tmp_path / "runs", tmp_path)


def test_it_folds_into_one_still_picture_and_leaves_no_figure_open(kept_in, tmp_path):
    plt.close("all")
    stored = shown(kept_in, tmp_path)._repr_mimebundle_()
    assert stored["image/png"] and stored["text/plain"].startswith("Which runs of tiny?")
    assert plt.get_fignums() == []
