import matplotlib.pyplot as plt
import pytest
from pictures import faults, styled

from llama_from_scratch.lessons.figures import rates
from llama_from_scratch.train.records import TrainConfig
from llama_from_scratch.train.schedule import learning_rate


def test_the_line_is_the_schedule_and_its_ends_are_named(monkeypatch):
    styled(monkeypatch)
    config = TrainConfig(n_steps=50, n_warmup=5, peak_lr=2e-3)
    figure = rates.schedule(config)
    ax = figure.axes[0]
    expected = [learning_rate(step, n_steps=50, peak=2e-3, n_warmup=5) for step in range(50)]
    assert list(ax.lines[0].get_ydata()) == pytest.approx(expected)
    words = {text.get_text() for text in ax.texts}
    assert words == {"peak 0.002", "end 0.0002", "5 steps of warm-up"}
    assert "0.002 and falls to 0.0002" in figure.get_label()
    assert figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)
    assert faults(figure) == []
    plt.close("all")
