import matplotlib.pyplot as plt
import pytest
from pictures import faults, styled

from llama_from_scratch.lessons.views import collectives as views
from llama_from_scratch.parallel import ways


@pytest.fixture(autouse=True)
def style(monkeypatch):
    styled(monkeypatch)
    yield
    plt.close("all")


@pytest.mark.parametrize("n_ranks", [2, 64, 16_384])
@pytest.mark.parametrize("n_bytes", [1000, 10**6, 10**11])
@pytest.mark.parametrize("network", [(1e-6, 4.5e11), (1e-3, 1e8)])
def test_the_bars_are_the_costs_and_the_fastest_is_named(n_ranks, n_bytes, network):
    latency_s, bytes_per_s = network
    figure = views.all_reduce_costs_frame(n_ranks, n_bytes, latency_s, bytes_per_s)
    left, right = figure.axes
    times = {way: ways.all_reduce(way, n_ranks, n_bytes=n_bytes).seconds(
        latency_s=latency_s, bytes_per_s=bytes_per_s) for way in ways.WAYS}
    ends = [bar.get_x() + bar.get_width() for bar in left.patches[1::2]]
    assert ends == pytest.approx([1e3 * time_s for time_s in times.values()])
    dots = [line.get_ydata()[0] for line in right.lines if len(line.get_xdata()) == 1]
    assert dots == pytest.approx([1e3 * time_s for time_s in times.values()])
    fastest = min(times, key=times.get)
    assert figure.get_label().endswith(f"The {fastest} is fastest.")
    assert faults(figure) == []


def test_the_tree_wins_for_small_tensors_and_the_ring_for_large_ones():
    def fastest(n_bytes):
        return views.all_reduce_costs_frame(64, n_bytes, 1e-5, 5e10).get_label().split()[-3]

    assert (fastest(1000), fastest(10**9)) == ("tree", "ring")


def test_a_control_changes_the_picture_and_the_words():
    view = views.all_reduce_costs()
    before, words = view.picture.value, view.words.value
    assert "naive 126 steps, 126 times the tensor" in words
    view.controls["n_ranks"].value = 8
    assert view.picture.value != before and "naive 14 steps" in view.words.value
    assert "64 ranks" in views.all_reduce_costs(start={"n_bytes": 1000}).words.value


@pytest.mark.parametrize(("time_s", "words"), [
    (2.0, "2 s"), (0.0123, "12.3 ms"), (4e-6, "4 µs"), (5e-8, "50 ns")])
def test_a_time_has_a_unit(time_s, words):
    assert views.duration(time_s) == words
