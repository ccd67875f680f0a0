"""What is drawn is in the logs: when each call and span was, and where a rank waited."""

import matplotlib.pyplot as plt
import pictures
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from llama_from_scratch.lessons.figures import timeline
from llama_from_scratch.lessons.figures.look import RED
from llama_from_scratch.parallel.comm_log import Call, CommLog, Span


@pytest.fixture(autouse=True)
def styled(monkeypatch):
    pictures.styled(monkeypatch)
    yield
    plt.close("all")


def call(began_s, waited_s, ended_s, *, op="all_reduce", note="bucket", n_bytes=800):
    return Call(op=op, group="world", size=2, n_bytes=n_bytes, note=note, began_s=began_s,
                waited_s=waited_s, ended_s=ended_s)


def span(began_s, ended_s, name="forward"):
    return Span(name=name, began_s=began_s, ended_s=ended_s)


def log(calls=(), spans=()):
    made = CommLog()
    made.calls.extend(calls)
    made.spans.extend(spans)
    return made


def boxes(figure, *, hatched=False):
    """(left, width in ms, lane) of the bars, or of the red areas, in the order they were drawn."""
    found = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    return [(pytest.approx(box.get_x(), abs=1e-6), pytest.approx(box.get_width(), abs=1e-6),
             int(box.get_y())) for box in found if bool(box.get_hatch()) == hatched]


def words(figure):
    return [text.get_text() for text in figure.axes[0].texts]


LOGS = [log([call(10.002, 10.004, 10.006)], [span(10.000, 10.002), span(10.002, 10.004, "back")]),
        log([call(10.001, 10.001, 10.006)], [span(10.000, 10.001)])]


def test_bars_begin_and_end_where_the_log_says():
    figure = timeline.draw(LOGS)
    assert boxes(figure) == [(0, 2, 0), (2, 2, 0), (2, 4, 0), (0, 1, 1), (1, 5, 1)]
    assert figure.axes[0].get_xlim() == pytest.approx((0, 6))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["rank 0", "rank 1"]
    assert figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)
    assert pictures.faults(figure) == []


def test_only_the_exposed_part_of_a_call_is_red():
    figure = timeline.draw(LOGS)
    assert boxes(figure, hatched=True) == [(4, 2, 0), (1, 5, 1)]
    red = [patch for patch in figure.axes[0].patches if patch.get_hatch()]
    assert {to_hex(patch.get_edgecolor()) for patch in red} == {RED.lower()}


def test_words_are_in_their_bar_or_a_number_is_and_the_key_has_both():
    figure = timeline.draw(LOGS)
    assert "forward" in words(figure) and "all-reduce of bucket, 800 B" in words(figure)
    key = [text.get_text() for text in figure.texts]
    assert key == ["What each rank did", "1  forward", "2  back", "3  all-reduce of bucket, 800 B",
                   "waits for a call"]
    narrow = [log([call(0.0, 0.0, 1.0)], [span(1.0, 1.04), span(1.04, 1.0401, "tiny")])]
    figure = timeline.draw(narrow)
    assert words(figure) == ["1", "all-reduce of bucket, 800 B"]
    assert pictures.faults(figure) == []


def test_calls_at_the_same_time_are_in_different_rows_and_rows_are_used_again():
    placed = timeline.bars([call(0.0, 1.0, 2.0), call(1.0, 1.5, 3.0), call(2.0, 2.5, 4.0)])
    assert [bar.row for bar in placed] == [0, 1, 0] and {bar.n_rows for bar in placed} == {2}


def test_many_kinds_of_calls_are_named_by_operation_and_the_size_of_the_picture_stays():
    many = [log([call(1.0 * i, 1.0 * i, i + 1.0, note=f"layer {i}") for i in range(40)])]
    figure = timeline.draw(many)
    assert [text.get_text() for text in figure.texts][1:] == ["1  all-reduce", "waits for a call"]
    slower = [log([call(1.0 * i, 1.0 * i, 3.0 * i + 1, note=f"layer {i}") for i in range(40)])]
    assert (timeline.draw(slower).get_size_inches() == figure.get_size_inches()).all()


def test_a_long_note_has_a_line_of_its_own():
    long = "a note that is so long that it does not fit into half of a line of the key"
    calls = [call(0.0, 0.0, 1.0, note=long), call(1.0, 1.0, 2.0, note=long + " either")]
    figure = timeline.draw([log(calls, [span(1.0, 2.0)])])
    assert pictures.faults(figure) == []


@pytest.mark.parametrize(("n_bytes", "shown"), [
    (999, "999 B"), (4000, "4 KB"), (1_234_567, "1.23 MB"), (5 * 10**9, "5 GB")])
def test_a_size_has_a_unit(n_bytes, shown):
    figure = timeline.draw([log([call(0.0, 0.0, 1.0, n_bytes=n_bytes)])])
    assert f"all-reduce of bucket, {shown}" in words(figure)


def test_an_empty_log_is_refused():
    with pytest.raises(ValueError, match="shows calls and spans; these logs have none"):
        timeline.draw([log(), log()])
