import matplotlib.pyplot as plt
import pytest
from drawings import faults, noted
from matplotlib.colors import to_rgb

from llama_from_scratch.lessons.figures import dialogs
from llama_from_scratch.lessons.figures.turns import ROLES
from llama_from_scratch.tokenizer import released
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.chat_format import LLAMA_2, LLAMA_3_1, LLAMA_4, Message, ToolCall
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece

TEXTS = ["system\n\nuser\n\nassistant\n\nipython\n\n" * 400, "Be brief. Hello! Good day. " * 40]
DIALOG = [Message(role="system", content="Be brief."), Message(role="user", content="Hello!"),
          Message(role="assistant", content="Good day."), Message(role="user", content="Hello!")]


def tokenizer_of(special_tokens):
    return Tokenizer.train(TEXTS, 292 + len(special_tokens), special_tokens=special_tokens)


@pytest.fixture(scope="module")
def llama_3():
    return tokenizer_of(released.LLAMA_3_1)


def runs(speaking):
    return [role for i, role in enumerate(speaking) if i == 0 or speaking[i - 1] != role]


def test_every_id_belongs_to_the_role_of_its_header(llama_3):
    speaking = dialogs.speakers(LLAMA_3_1.encode(DIALOG, llama_3), llama_3)
    assert runs(speaking) == ["", "system", "user", "assistant", "user", "assistant"]


def test_headers_of_llama_4_are_found_too():
    tokenizer = tokenizer_of(released.LLAMA_4)
    speaking = dialogs.speakers(LLAMA_4.encode(DIALOG, tokenizer), tokenizer)
    assert runs(speaking) == ["", "system", "user", "assistant", "user", "assistant"]


def test_marks_in_the_text_decide_in_llama_2():
    tokenizer = SentencePiece.train(TEXTS, 320)
    speaking = dialogs.speakers(LLAMA_2.encode(DIALOG, tokenizer), tokenizer)
    assert runs(speaking) == ["user", "system", "user", "assistant", "user"]  # no header at its end


def test_boxes_are_dark_for_special_ids_and_tinted_by_role_for_all_others(llama_3):
    ids = LLAMA_3_1.encode(DIALOG, llama_3)
    figure = dialogs.turns(ids, llama_3, title="A dialog", first=3)
    special = set(llama_3.special_ids.values())
    boxes = list(figure.axes[0].patches)
    assert len(boxes) == len(ids) - 3
    for i, role, box in zip(ids[3:], dialogs.speakers(ids, llama_3)[3:], boxes, strict=True):
        wanted = dialogs.SPECIAL if i in special else ROLES[role]
        assert to_rgb(box.get_facecolor()) == to_rgb(wanted)
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["special token", *(role for role in ROLES if role in set(
        dialogs.speakers(ids, llama_3)[3:]))] and "ipython" not in names
    n_special = sum(i in special for i in ids[3:])
    assert figure.get_label() == f"A dialog: {len(ids) - 3} ids, {n_special} of them special"
    plt.close("all")


def test_the_loop_of_a_tool_shows_every_prompt_call_and_result(monkeypatch):
    calls = [ToolCall(name="add", arguments={"a": 1, "b": 2}),
             ToolCall(name="add", arguments={"a": 3, "b": 4})]
    asked = [Message(role="user", content="1 + 2 + 4?")]
    finished = [*asked, Message(role="assistant", tool_calls=(calls[0],)),
                Message(role="ipython", content="3"),
                Message(role="assistant", tool_calls=(calls[1],)),
                Message(role="ipython", content="7"),
                Message(role="assistant", content="It is seven. " * 9)]
    made = noted(monkeypatch)
    dialogs.tool_loop(finished, n_ids=[1200, 1300, 1400])
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    labels = [arrow.label for arrow in drawing.arrows if arrow.has_head]
    assert labels[:5] == ["prompt: 1,200 ids", "a call of add", "a=1, b=2", "3",
                          "prompt: 1,300 ids"]
    assert len(labels) == 10 and labels[-1].startswith("It is seven.") and len(labels[-1]) == 40
    assert "asked 3 times and the function runs 2 times" in figure.get_label()
    with pytest.raises(ValueError, match="got 3 messages and 2 prompts"):
        dialogs.tool_loop(finished, n_ids=[1200, 1300])
    plt.close("all")
