import dataclasses

import matplotlib.pyplot as plt
import pytest
import torch
from chat_dialogs import SMALL
from moved_widgets import figure_of
from pictures import faults, styled

from llama_from_scratch import family
from llama_from_scratch.lessons import views
from llama_from_scratch.lessons.views import assistants as module
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.chat_format import FORMATS
from llama_from_scratch.tune.world.checking import check, obeys
from llama_from_scratch.tune.world.instructions import INSTRUCTIONS
from llama_from_scratch.tune.world.scenes import KINDS, Person

TOM = Person(name="Tom", thing="ball", color="red", place="lake", taste="honey")


@pytest.mark.parametrize("told", [(), ("three",), ("three", "quote"), ("begin", "end")])
@pytest.mark.parametrize("kind", KINDS)
def test_a_task_says_what_it_asks_and_its_answer_obeys(kind, told):
    task = module.task_of(TOM, kind, told)
    assert obeys(task.answer, task)
    assert all(INSTRUCTIONS[name].format(mark=mark) in task.user for name, mark in zip(
        told, ("moon", "star"), strict=False)) and "Tom is by the lake." in task.user


def test_the_frame_has_every_answer_and_verdict(monkeypatch):
    styled(monkeypatch)
    task = module.task_of(TOM, "where", ("three", "quote"))
    answers = {"base": "Tom is by the lake. " * 8, "assistant": '"By the lake."', "mute": ""}
    figure = module.assistants_frame(task, answers)
    assert faults(figure) == []
    words = [text.get_text() for text in figure.axes[0].texts]
    for name, text in answers.items():
        assert name in words
        for demand, is_met in check(text, task).items():
            assert f"{'✓' if is_met else '✗'} {demand}" in words
            assert f"{demand}: {'yes' if is_met else 'no'}" in figure.get_label()
    assert "(nothing)" in words
    plt.close("all")


def test_the_widget_asks_what_its_controls_say():
    tokenizer = SMALL["llama-3.1"]
    torch.manual_seed(0)
    model = Llama(dataclasses.replace(family.tiny("llama-3.2"), vocab_size=tokenizer.vocab_size))
    widget = views.ask_assistants({"mine": model}, tokenizer, FORMATS["llama-3.2"])
    assert "Answer in three words." in widget.words.value
    widget.controls["name"].value = "Mia"
    widget.controls["second"].value = "quote"
    assert "Mia has the ball" in widget.words.value and "in quotes" in widget.words.value
    widget.controls["first"].value = "quote"
    assert widget.words.value.count("Put it in quotes.") == 1 and widget.problem.value == ""
    assert figure_of(widget) is not None
    plt.close("all")
