import matplotlib.pyplot as plt
import pytest
from drawings import faults, noted
from tiny_checkpoints import TOKENIZER

from llama_from_scratch.lessons.figures import tokenizing
from llama_from_scratch.lessons.figures.boxes import letters
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer

TEXT = "the rat's 10 é"


@pytest.fixture
def made(monkeypatch):
    yield noted(monkeypatch)
    plt.close("all")


def row(drawing, y):
    return [n for n in drawing.nodes if n.y == y]


def test_every_stage_of_a_text_is_that_of_the_tokenizer(made):
    tokenizing.text_to_ids(TOKENIZER, TEXT)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    ys = sorted({n.y for n in drawing.nodes})
    text, pieces, values, tokens, ids = ([n.name for n in row(drawing, y)] for y in ys)
    assert text == [f'"{TEXT}"']
    assert pieces == ["the", "·rat", "'s", "·", "10", "·é"]
    assert bytes.fromhex("".join(values)) == TEXT.encode()
    assert list(map(int, ids)) == TOKENIZER.encode(TEXT)
    assert tokens == [letters(TOKENIZER.decode_bytes([int(i)])) for i in ids]
    assert f"{len(TEXT.encode())} bytes in 6 pieces become {len(ids)} ids" in figure.get_label()


def test_a_token_is_as_wide_as_its_bytes(made):
    tokenizing.text_to_ids(TOKENIZER, TEXT)
    ((drawing, _),) = made
    ys = sorted({n.y for n in drawing.nodes})
    cell = row(drawing, ys[2])[0].width
    for token, number in zip(row(drawing, ys[3]), row(drawing, ys[4]), strict=True):
        n_bytes = len(TOKENIZER.decode_bytes([int(number.name)]))
        assert token.width == pytest.approx(cell * n_bytes)


def test_merges_are_in_the_order_in_which_encoding_makes_them(made):
    tokenizing.merge_tree(TOKENIZER, " cats")
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    steps = tokenizing.merges_of(TOKENIZER, b" cats")
    assert len(steps) > 1
    notes = [note.text for note in drawing.notes]
    assert notes[1:] == [f"{i}. merge {rank - 255:,}" for i, (_, rank) in enumerate(steps, 1)]
    made_tokens = [n.name for n in drawing.nodes[5:]]
    assert made_tokens == [letters(TOKENIZER.decode_bytes([rank])) for _, rank in steps]
    assert len(drawing.arrows) == 2 * len(steps)


def test_the_lowest_rank_merges_first_and_not_the_leftmost_pair():
    tokens = [*(bytes([value]) for value in range(256)), b"bc", b"ab", b"xy"]
    tokenizer = Tokenizer({token: rank for rank, token in enumerate(tokens)})
    assert tokenizing.merges_of(tokenizer, b"abc") == [(1, 256)]
    assert tokenizing.merges_of(tokenizer, b"xyab") == [(2, 257), (0, 258)]


def test_what_has_no_room_is_refused():
    with pytest.raises(ValueError, match="room for 1 to 20 bytes; got 21"):
        tokenizing.text_to_ids(TOKENIZER, "a" * 21)
    with pytest.raises(ValueError, match="one piece of the split pattern"):
        tokenizing.merge_tree(TOKENIZER, "two words")
