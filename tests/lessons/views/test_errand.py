from random import Random

import matplotlib.pyplot as plt
import pytest
import torch
from moved_widgets import figure_of
from pictures import faults, styled

from llama_from_scratch import bundled, load
from llama_from_scratch.lessons import views
from llama_from_scratch.tokenizer import FORMATS
from llama_from_scratch.tune import agent
from llama_from_scratch.tune.world import errands


@pytest.mark.parametrize("kind", [*errands.KINDS, *errands.DEEPER])
def test_no_words_overlap_and_the_verdict_waits_for_the_end(monkeypatch, kind):
    styled(monkeypatch)
    task = errands.errand(Random(2), "test", kind)
    dialog = errands.played(task).messages
    for n_shown in (1, len(dialog) - 2, len(dialog) - 1):
        figure = views.do_errand_frame(task, dialog, is_done=True, n_shown=n_shown)
        assert faults(figure) == []
        title = figure.axes[0].texts[0].get_text()
        assert (f"done: {task.answer}" in title) == (n_shown == len(dialog) - 1)
        plt.close("all")
    wrong = views.do_errand_frame(task, dialog, is_done=False, n_shown=99)
    assert f"wrong, should be: {task.answer}" in wrong.axes[0].texts[0].get_text()
    plt.close("all")


def test_the_widget_runs_the_chosen_errand_once(monkeypatch):
    asked, plain = [], agent.run
    monkeypatch.setattr(agent, "run", lambda *values, **named: asked.append(1) or plain(
        *values, **named))
    model, tokenizer = load(bundled.path("world/agent"), dtype=torch.float32)
    widget = views.do_errand(model, tokenizer, FORMATS["llama-3.2"])
    assert figure_of(widget) is not None and "made 2 calls" in widget.words.value
    widget.controls["kind"].value = "hello"
    assert "made 0 calls" in widget.words.value and "Hello." in widget.words.value
    assert len(asked) == 2
    widget.controls["kind"].value = "chain"
    widget.controls["messages"].value = 2
    assert len(asked) == 2 and "made 1 calls and read 0 results" in widget.words.value
    widget.controls["seed"].value = 5
    assert len(asked) == 3
    plt.close("all")
