import matplotlib.pyplot as plt
import pytest
import torch
from pictures import faults, styled

from llama_from_scratch.lessons.views import expert_parallel as views


@pytest.fixture(autouse=True)
def style(monkeypatch):
    styled(monkeypatch)
    yield
    plt.close("all")


def traffic(**choice):
    return views.drawn_traffic(**{"n_ranks": 4, "n_experts": 16, "capacity": 0.0, "skew": 1.0}
                               | choice)


def test_every_token_of_every_rank_goes_to_one_expert():
    found = traffic(n_ranks=8, n_experts=64)
    assert found.wanted.sum(1).tolist() == [views.N_TOKENS] * 8
    assert found.n_dropped == 0 and torch.equal(found.wanted, traffic(n_ranks=8,
                                                                      n_experts=64).wanted)


def test_a_larger_skew_loads_one_rank_more_and_a_smaller_capacity_drops_more():
    loads = [int(traffic(skew=skew).rows.sum(0).max()) for skew in views.SKEWS.values()]
    assert loads == sorted(loads) and loads[0] < 1.1 * views.N_TOKENS < loads[-1] / 2
    dropped = [traffic(capacity=c).n_dropped for c in list(views.CAPACITIES.values())[1:]]
    assert dropped == sorted(dropped, reverse=True) and dropped[0] > dropped[1] > 0
    room = views.N_TOKENS * 4 // 16
    assert int(traffic(capacity=1.0).sent.sum(0).max()) == room


@pytest.mark.parametrize("choice", [{}, {"n_ranks": 16, "n_experts": 128, "skew": 1.5},
                                    {"capacity": 1.0}, {"n_ranks": 2, "skew": 0.0}])
def test_the_picture_shows_the_rows_and_what_each_rank_computes(choice):
    choice = {"n_ranks": 4, "n_experts": 16, "capacity": 0.0, "skew": 1.0} | choice
    figure = views.expert_traffic_frame(**choice)
    assert faults(figure) == []
    found, n = traffic(**choice), choice["n_ranks"]
    left, right, *_ = figure.axes
    assert left.images[0].get_array().tolist() == found.rows.tolist()
    heights = [bar.get_height() for bar in right.patches]
    assert heights[:n] == found.rows.sum(0).tolist()
    assert sum(heights[n:]) == found.n_dropped
    slowest = int(found.rows.sum(0).max()) / views.N_TOKENS
    assert f"computes {slowest:.2f} times the even share" in figure.get_label()


def test_a_control_changes_the_picture_and_the_words():
    view = views.expert_traffic()
    before = view.picture.value
    assert "8,192 rows on 8 ranks" in view.words.value and "nothing is dropped" in view.words.value
    view.controls["capacity"].value = 1.0
    assert view.picture.value != before and "% of the rows are dropped" in view.words.value
    assert "16 ranks" in views.expert_traffic(start={"n_ranks": 16}).words.value
