from random import Random

import matplotlib.pyplot as plt
import pytest
from pictures import faults, styled

from llama_from_scratch.lessons.figures import calling
from llama_from_scratch.tokenizer.chat_format import Message
from llama_from_scratch.tune.world import errands


def shown(figure):
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("kind", [*errands.KINDS, *errands.DEEPER])
def test_an_exchange_shows_all_calls_and_results_in_their_order(monkeypatch, kind):
    styled(monkeypatch)
    task = errands.errand(Random(3), "test", kind)
    dialog = errands.played(task).messages
    figure = calling.exchange(dialog, title=kind)
    assert faults(figure) == []
    expected = [message.content.strip() for message in dialog if message.role == "ipython"]
    words = shown(figure)
    assert not any(errands.SYSTEM in each for each in words)
    places = [text.get_position() for text in figure.axes[0].texts]
    ys = {each: y for each, (_, y) in zip(words, places, strict=True)}
    for calls in task.plan:
        names = [f"{call.name}({', '.join(f'{k}={v!r}' for k, v in call.arguments.items())})"
                 for call in calls]
        heights = [ys[" ".join(each.split("\n"))] for each in names]
        assert heights == sorted(heights)
    assert all(" ".join(words).count(each) for each in expected)
    n_calls = sum(map(len, task.plan))
    assert f"made {n_calls} calls and read {n_calls} results." in figure.get_label()
    assert f"The user reads: {task.answer}" in figure.get_label()
    plt.close("all")


def test_an_exchange_can_stop_in_the_middle(monkeypatch):
    styled(monkeypatch)
    dialog = errands.played(errands.errand(Random(1), "test", "sum")).messages
    figure = calling.exchange(dialog, title="A sum", n_shown=4)
    assert "made 2 calls and read 1 results." in figure.get_label()
    assert "The user reads" not in figure.get_label()
    assert not any("calc" in each for each in shown(figure))
    with pytest.raises(ValueError, match="without one"):
        calling.exchange(dialog, title="A sum", n_shown=1)
    plt.close("all")


def test_long_and_empty_messages_have_room(monkeypatch):
    styled(monkeypatch)
    dialog = [Message(role="user", content="word " * 60), Message(role="assistant", content="")]
    figure = calling.exchange(dialog, title="Long")
    assert faults(figure) == []
    assert "(no text)" in shown(figure) and any(each.endswith("…") for each in shown(figure))
    plt.close("all")


@pytest.mark.parametrize(("text", "refused"), [
    ("[get(who='Tom', what='coins'), calc(x='2+5')]", []),
    ("[calc(x=2 + 5)]", ["BinOp   2 + 5"]),
    ("[calc(x=wipe())]", ["Call   wipe()"]),
    ("[send('Mia', coins=4)]", ["Call   send('Mia', coins=4)", "Constant   'Mia'"]),
    ("[a.b(x=1)]", ["Call   a.b(x=1)"]),
    ("calc(x='2+5')", ["Call   calc(x='2+5')"]),
    ("[3]", ["Constant   3"]),
])
def test_a_tree_marks_what_is_refused(monkeypatch, text, refused):
    styled(monkeypatch)
    figure = calling.syntax(text)
    assert faults(figure) == []
    expected = "The reader refuses: " + ", ".join(refused) if refused else "Everything can be read"
    assert figure.get_label() == f"{expected}. Nothing is run."
    plt.close("all")


def test_a_text_that_is_no_expression_has_no_tree():
    with pytest.raises(ValueError, match="needs an expression"):
        calling.syntax("[calc(x=")
