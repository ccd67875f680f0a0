import matplotlib.pyplot as plt
import pytest
import torch
from moved_widgets import figure_of
from pictures import faults, styled

from llama_from_scratch.lessons import views
from llama_from_scratch.lessons.views import rewarding as module
from llama_from_scratch.tune.policy.records import ReinforceStep

ALL = [(baseline, is_scaled, normalizer) for baseline in ("none", "mean", "others")
       for is_scaled in (False, True) for normalizer in ("token", "sequence", "constant")]


@pytest.mark.parametrize(("baseline", "is_scaled", "normalizer"), ALL)
def test_a_push_is_the_advantage_times_the_weight_of_its_normalizer(
    baseline, is_scaled, normalizer
):
    rewards, n_tokens = (0.0, 0.0, 0.0, 1.0), (2, 2, 2, 12)
    found, pushes = module.token_pushes(rewards, n_tokens, baseline=baseline,
                                        is_scaled=is_scaled, normalizer=normalizer, max_tokens=20)
    for answer, n in enumerate(n_tokens):
        weight = {"token": 1 / 18, "sequence": 1 / (4 * n), "constant": 1 / 80}[normalizer]
        expected = [found[answer].item() * weight] * n + [0.0] * (12 - n)
        assert pushes[answer].tolist() == pytest.approx(expected)
    assert (found.sum().abs() < 1e-5) == (baseline != "none")


@pytest.mark.parametrize("name", module.GROUPS)
def test_the_frame_has_rewards_advantages_and_tokens(monkeypatch, name):
    styled(monkeypatch)
    rewards, n_tokens = module.GROUPS[name]
    figure = module.reward_group_frame(rewards, n_tokens, baseline="mean", is_scaled=True,
                                       normalizer="token")
    assert faults(figure) == []
    left, middle, right = figure.axes
    assert [bar.get_width() for bar in left.patches] == list(rewards)
    found, pushes = module.token_pushes(rewards, n_tokens, baseline="mean", is_scaled=True,
                                        normalizer="token")
    assert torch.allclose(torch.tensor([bar.get_width() for bar in middle.patches]), found.double())
    assert len(right.patches) == sum(n_tokens)
    assert f"{pushes[0, 0]:+.4f}" in figure.get_label()
    plt.close("all")


def test_the_widget_has_the_switches():
    widget = views.reward_group()
    before = widget.words.value
    widget.controls["is_scaled"].value = True
    assert widget.words.value != before and figure_of(widget) is not None
    widget.controls["name"].value = "all equal"
    assert "Advantages: +0.00, +0.00, +0.00, +0.00" in widget.words.value
    plt.close("all")


def test_the_live_plot_draws_the_last_step_of_a_run():
    plot = views.RewardPlot(n_steps=2, best=3.0)
    empty = bytes(plot.picture.value)
    assert empty[:4] == b"\x89PNG", "the axes are there before the first step"
    for number in range(2):
        plot(ReinforceStep(step=number, reward=float(number), share_equal=0.0, share_cut=0.0,
                           n_tokens=1.0, n_groups=1, n_rows=1, mismatch=0.0, ratio_min=1.0,
                           ratio_max=1.0, share_clipped=0.0, kl=0.0, loss=0.0, grad_norm=0.0,
                           lr=0.1, sampling_s=0.0, update_s=0.0))
    assert plot.bar.value == 2
    assert bytes(plot.picture.value) != empty and bytes(plot.picture.value[:4]) == b"\x89PNG"
    assert "run the cell" in plot._repr_mimebundle_()["text/plain"]
    assert not plt.get_fignums()
