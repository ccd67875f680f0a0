import matplotlib.pyplot as plt
import pytest
import torch
from pictures import faults, styled

from llama_from_scratch.lessons.figures import rewarding


@pytest.mark.parametrize("last", ["advantage", "true score"])
def test_a_group_has_its_texts_rewards_and_advantages(monkeypatch, last):
    styled(monkeypatch)
    texts = ["Tom is here. " * 20, "", "$5 for Tom."]
    figure = rewarding.group(texts, [1.0, -1.0, 0.0], [1.0, -1.0, 0.5], last=last)
    assert faults(figure) == []
    written = [text.get_text() for text in figure.axes[0].texts]
    assert "(nothing)" in written and "$5 for Tom." in written and last in written
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == pytest.approx([0.1, -0.1, 0.05])
    assert "1, -1, 0" in figure.get_label() and "+1.00, -1.00, +0.50" in figure.get_label()
    rewarding.group(["a", "b"], [1.0, 1.0], [0.0, 0.0], last=last)
    plt.close("all")


def test_a_curve_is_the_mean_of_the_last_steps(monkeypatch):
    styled(monkeypatch)
    figure = rewarding.curves({"one": [0.0, 2.0, 4.0, 6.0], "two": [1.0, 1.0]}, best=7.0)
    assert faults(figure) == []
    one, two, best = figure.axes[0].lines
    assert one.get_ydata().tolist() == [0, 1, 2, 4] and one.get_xdata().tolist() == [1, 2, 3, 4]
    assert two.get_ydata().tolist() == [1, 1] and set(best.get_ydata()) == {7.0}
    assert "one: 0.00 at the first step, 6.00 at step 4." in figure.get_label()
    assert len(rewarding.curves({"one": [0.0]}).axes[0].lines) == 1
    plt.close("all")


def test_the_clip_is_flat_only_where_the_advantage_pushes(monkeypatch):
    styled(monkeypatch)
    figure = rewarding.clip(clip_low=0.2, clip_high=0.3)
    assert faults(figure) == []
    for ax, is_flat in zip(figure.axes, (lambda q: q > 1.31, lambda q: q < 0.79), strict=True):
        ratio, gain = (torch.as_tensor(x) for x in ax.lines[1].get_data())
        slopes = (gain.diff() / ratio.diff()).abs()
        for q, slope in zip(ratio[1:].tolist(), slopes.tolist(), strict=True):
            if abs(q - 1.3) > 0.02 and abs(q - 0.8) > 0.02:
                assert slope == pytest.approx(0 if is_flat(q) else 1, abs=1e-3)
    assert "ratios above 1.3" in figure.get_label() and "ratios below 0.8" in figure.get_label()
    plt.close("all")


def test_a_baseline_leaves_the_mean_and_has_a_best_value(monkeypatch):
    styled(monkeypatch)
    p, rewards = 0.3, (1.0, 5.0)
    figure = rewarding.baseline(p, rewards)
    assert faults(figure) == []
    mean, deviation, _ = figure.axes[0].lines
    logit = torch.tensor(p).logit().double().requires_grad_()
    expected = (1 - logit.sigmoid()) * rewards[0] + logit.sigmoid() * rewards[1]
    [exact] = torch.autograd.grad(expected, logit)
    assert mean.get_ydata() == pytest.approx([exact.item()] * 121)
    at, noise = deviation.get_data()
    drawn = torch.tensor([-p * (rewards[0] - at[7]), (1 - p) * (rewards[1] - at[7])])
    weights = torch.tensor([1 - p, p])
    variance = (weights * (drawn - (weights * drawn).sum()) ** 2).sum()
    assert noise[7] == pytest.approx(variance.sqrt().item(), rel=1e-4)
    assert at[noise.argmin()] == pytest.approx((1 - p) * rewards[1] + p * rewards[0], abs=0.1)
    zero = rewarding.baseline(p, rewards, around=2.2)  # its first baseline is 0
    without = zero.axes[0].lines[1].get_ydata()[0]
    assert f"deviation is {without:.2f} without one" in zero.get_label()
    plt.close("all")
