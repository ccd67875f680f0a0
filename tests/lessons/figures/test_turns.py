import itertools

import matplotlib.pyplot as plt
import pytest
from drawings import faults, links, noted
from tiny_checkpoints import tokenizer_for

from llama_from_scratch.lessons.figures import turns
from llama_from_scratch.lessons.figures.boxes import letters
from llama_from_scratch.lessons.figures.look import ORANGE
from llama_from_scratch.tokenizer.chat_format import LLAMA_2, LLAMA_3_1, LLAMA_4, Message

DIALOG = [Message(role="system", content="the rat"), Message(role="user", content="a cat?"),
          Message(role="assistant", content="the cat sat on the mat, the rat"),
          Message(role="user", content="sat")]


@pytest.fixture
def made(monkeypatch):
    yield noted(monkeypatch)
    plt.close("all")


@pytest.mark.parametrize(("format", "generation"), [(LLAMA_3_1, "llama-3.1"),
                                                    (LLAMA_4, "llama-3.1")])
def test_each_id_has_its_owner(format, generation):
    tokenizer = tokenizer_for(generation)
    if format is LLAMA_4:
        tokenizer = type(tokenizer)(tokenizer.ranks, special_tokens=[
            format.frame.bos, format.frame.start, format.frame.end, format.frame.eot,
            *format.frame.stops[:2]])
    owned = turns.owners(format, tokenizer, DIALOG)
    assert [i for i, _, _ in owned] == format.encode(DIALOG, tokenizer)
    special = set(tokenizer.special_ids.values())
    assert all((kind == "special") == (i in special) for i, kind, _ in owned)
    for message in DIALOG[:1] + DIALOG[2:3]:
        words = [i for i, kind, role in owned if kind == "content" and role == message.role]
        assert tokenizer.decode(words) == message.content
    frame = tokenizer.decode([i for i, kind, _ in owned if kind == "frame"])
    assert frame == "".join(f"{m.role}\n\n" for m in DIALOG) + "assistant\n\n"


def test_the_cells_are_the_ids_in_their_order_and_the_model_writes_last(made):
    tokenizer = tokenizer_for("llama-3.1")
    turns.one_list(LLAMA_3_1, tokenizer, DIALOG)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    ids = LLAMA_3_1.encode(DIALOG, tokenizer)
    names = {i: name for name, i in tokenizer.special_ids.items()}
    cells = [node for node in drawing.nodes if node.name]
    assert [cell.name for cell in cells[:-1]] == [
        names.get(i) or letters(tokenizer.decode_bytes([i])) for i in ids]
    assert cells[-1].color == ORANGE and cells[-1].name == "the model writes from here on"
    notes = [note.text for note in drawing.notes]
    assert notes[:5] == ["system", "user", "assistant", "user", "assistant"]
    assert drawing.title == f"4 messages are one list of {len(ids)} ids"
    stops = [names[i] for i in LLAMA_3_1.stop_ids(tokenizer)]
    assert all(name in notes[-1] for name in stops)


def test_the_round_trip_counts_the_parts_of_the_dialog(made):
    tokenizer = tokenizer_for("llama-3.1")
    turns.round_trip(LLAMA_3_1, tokenizer, DIALOG)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    around = ["messages", "lay out", "encode", "ids", "Llama", "stop", "parse", "messages"]
    assert links(drawing) == list(itertools.pairwise(around))
    lines = {node.name: node.lines for node in drawing.nodes}
    assert lines["messages"][1] == "4 so far"
    assert lines["lay out"][1:] == ("15 special tokens", "and 14 texts"), "3 a message, and 2 + bos"
    assert lines["ids"][2] == f"1 × {len(LLAMA_3_1.encode(DIALOG, tokenizer))}"


def test_a_format_without_headers_is_refused():
    with pytest.raises(ValueError, match="a format with headers"):
        turns.one_list(LLAMA_2, tokenizer_for("llama-2"), DIALOG)
