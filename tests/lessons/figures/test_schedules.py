"""A chart shows every pass where the timeline has it, and the memory that the timeline counts."""

from fractions import Fraction

import matplotlib.pyplot as plt
import numpy as np
import pictures
import pytest

from llama_from_scratch.lessons.figures import schedules
from llama_from_scratch.parallel.comm_log import CommLog, Span
from llama_from_scratch.parallel.pipeline.schedule import Op
from llama_from_scratch.parallel.pipeline.schedules import (
    gpipe,
    interleaved,
    one_f_one_b,
    zero_bubble,
)
from llama_from_scratch.parallel.pipeline.simulate import Times, measured, simulate


@pytest.fixture(autouse=True)
def styled(monkeypatch):
    pictures.styled(monkeypatch)
    yield
    plt.close("all")


def blocks(ax):
    """(left, width, lane) of each pass."""
    found = [path.vertices for each in bars(ax) for path in each.get_paths()]
    return [(corners[:, 0].min(), pytest.approx(np.ptp(corners[:, 0])), int(corners[:, 1].min()))
            for corners in found]


def bars(ax):
    """What shows passes; the areas of the memory have no edge."""
    return [each for each in ax.collections if each.get_linewidth()[0] == 0.5]


def test_every_pass_is_a_block_from_its_begin_to_its_end_in_the_lane_of_its_rank():
    timeline = simulate(zero_bubble(3, 4), Times(forward=2, hop=Fraction(1, 2)))
    figure = schedules.draw({"ZB-H1": timeline})
    assert blocks(figure.axes[0]) == [(each.begin, each.end - each.begin, each.rank)
                                      for rank in range(3) for each in timeline.passes
                                      if each.rank == rank]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "rank 0", "rank 1", "rank 2"]
    assert pictures.faults(figure) == []


def test_a_block_has_the_number_of_its_micro_batch_and_the_lane_the_most_that_it_keeps():
    figure = schedules.draw({"1F1B": simulate(one_f_one_b(2, 3))})
    words = [text.get_text() for text in figure.axes[0].texts]
    assert words == ["2", *"010212", "1", *"001122"]


def test_the_area_of_the_memory_follows_the_timeline():
    timeline = simulate(gpipe(2, 3))
    figure = schedules.draw({"GPipe": timeline})
    areas = [each for each in figure.axes[0].collections if each not in bars(figure.axes[0])]
    for rank, area in enumerate(areas):
        corners = area.get_paths()[0].vertices
        floor, room = rank + 0.98, 0.98 - 0.64
        assert corners[:, 1].max() == pytest.approx(floor)
        assert corners[:, 1].min() == pytest.approx(floor - room), "3 of 3 micro-batches"
        assert corners[:, 0].max() == timeline.memory(rank)[-1][0]


def test_timelines_of_one_unit_have_one_scale_and_a_real_run_its_own():
    schedule, logs = one_f_one_b(2, 2), []
    for ops in schedule.ops:
        log = CommLog()
        log.spans += [Span(name=str(op), began_s=5.0 + i, ended_s=6.0 + i)
                      for i, op in enumerate(ops)]
        logs.append(log)
    figure = schedules.draw({"simulated": simulate(schedule), "GPipe": simulate(gpipe(2, 8)),
                             "measured": measured(schedule, logs)})
    first, second, real = (ax.get_xlim()[1] for ax in figure.axes)
    assert first == second == pytest.approx(1.05 * 27) and real == pytest.approx(1.05 * 4000)
    assert figure.axes[2].get_xlabel() == "ms" and blocks(figure.axes[2])[0] == (0, 1000, 0)
    assert pictures.faults(figure) == []


def test_kinds_have_colors_and_a_later_chunk_is_darker():
    colors = {schedules.color(Op(kind=kind, micro_batch=0), 1) for kind in "FBW"}
    assert len(colors) == 3
    brightness = [sum(schedules.color(Op(kind="F", micro_batch=0, chunk=c), 3)) for c in range(3)]
    assert brightness == sorted(brightness, reverse=True) and len(set(brightness)) == 3


def test_the_words_name_bubble_idle_share_and_what_is_kept():
    figure = schedules.draw({"a": simulate(interleaved(2, 2, n_micro_batches=4))})
    assert figure.get_label() == ("a: the bubble is 1/8 of the time that a rank computes; ranks "
                                  "are idle 11% of the time and keep the activations of at most "
                                  "2.5, 1.5 micro-batches.")
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["F: forward", "B: backward", "waits", "kept (and the most)"]


@pytest.mark.parametrize(("value", "shown"), [(4, "4"), (Fraction(3, 8), "3/8"), (0.12345, "0.123"),
                                              (Fraction(100, 301), "0.332")])
def test_a_number_is_short(value, shown):
    assert schedules.number(value) == shown


def test_no_timeline_is_refused():
    with pytest.raises(ValueError, match="shows at least one timeline; got none"):
        schedules.draw({})
