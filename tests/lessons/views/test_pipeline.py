from fractions import Fraction

import matplotlib.pyplot as plt
import pytest
from pictures import faults, styled

from llama_from_scratch.lessons.views import pipeline as views
from llama_from_scratch.parallel.pipeline.schedules import SCHEDULES, interleaved
from llama_from_scratch.parallel.pipeline.simulate import Times, simulate


@pytest.fixture(autouse=True)
def style(monkeypatch):
    styled(monkeypatch)
    yield
    plt.close("all")


def frame(**choice):
    return views.pipeline_frame(**{
        "schedule": "1f1b", "n_ranks": 4, "n_micro_batches": 8, "n_chunks": 2, "n_together": 4,
        "hop": Fraction(0), "recompute": False} | choice)


def bars(ax):
    return [round(bar.get_width(), 6) for bar in ax.patches]


@pytest.mark.parametrize("choice", [
    {}, {"schedule": "gpipe", "n_ranks": 2, "n_micro_batches": 2, "n_together": 2},
    {"schedule": "interleaved", "n_ranks": 8, "n_micro_batches": 16, "n_together": 16,
     "n_chunks": 4, "recompute": True, "hop": Fraction(1, 2)},
    {"schedule": "zero_bubble", "n_ranks": 8, "n_micro_batches": 16, "n_together": 8}])
def test_the_picture_has_no_faults_and_its_words_name_the_choice(choice):
    figure = frame(**choice)
    assert faults(figure) == []
    words = figure.get_label()
    assert words.startswith(choice.get("schedule", "1f1b")) and "the bubble is" in words
    assert ("V and N change only" in words) == (choice.get("schedule") != "interleaved")


def test_bubble_and_memory_of_all_schedules_are_compared():
    _, bubble, kept = frame().axes
    assert bars(bubble) == [0.375, 0.375, 0.1875, 0.125]
    assert bars(kept) == [8, 4, 5.5, 4]
    assert [label.get_text() for label in bubble.get_yticklabels()] == [*SCHEDULES]


def test_chunks_and_n_together_change_the_row_of_interleaved_and_a_rank_works_as_long():
    for n_chunks, together in ((2, 8), (4, 4)):
        _, bubble, kept = frame(n_chunks=n_chunks, n_together=together).axes
        part = Fraction(1, n_chunks)
        timeline = simulate(interleaved(4, n_chunks, n_micro_batches=8, n_together=together),
                            Times(forward=part, backward=part, weights=part))
        assert bars(bubble)[2] == float(timeline.bubble) == 3 / (8 * n_chunks)
        assert bars(kept)[2] == timeline.peak(0) / n_chunks
        assert timeline.time - timeline.idle[0] == 3 * 8


def test_recomputing_and_messages_change_time_and_memory():
    plain, again, slow = frame().axes, frame(recompute=True).axes, frame(hop=Fraction(1, 4)).axes
    assert bars(again[2])[1] < 0.5 * bars(plain[2])[1]
    assert again[0].get_xlim()[1] > plain[0].get_xlim()[1]
    assert bars(slow[1])[1] > bars(plain[1])[1]


def test_every_control_changes_the_picture():
    view = views.pipeline_schedules(start={
        "schedule": "interleaved", "n_ranks": 2, "n_micro_batches": 5, "n_together": 2})
    for name, value in (("n_together", 4), ("n_chunks", 3), ("hop", Fraction(1, 8)),
                        ("recompute", True), ("n_micro_batches", 6), ("n_ranks", 3),
                        ("schedule", "gpipe")):
        before = view.picture.value
        view.controls[name].value = value
        assert view.picture.value != before and not view.problem.value, name


def test_sizes_that_do_not_work_are_explained_above_the_last_picture():
    view = views.pipeline_schedules(start={"schedule": "interleaved"})
    before = view.picture.value
    view.controls["n_ranks"].value = 6
    assert "Take n_together=6" in view.problem.value and view.picture.value == before
    view.controls["n_together"].value = 6
    assert not view.problem.value and view.picture.value != before
    view.controls["n_micro_batches"].value = 4
    assert "Divide the batch into 6 micro-batches" in view.problem.value
    assert view.controls["n_together"].max == 4
