"""Where text is cut: by a pattern, and where it is very long."""

import pytest
import tiktoken
from tokenizer_texts import BOS, BYTES, CORPUS, EOS, EOT

from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.split import LLAMA3_PATTERN, LLAMA4_PATTERN, cut_long


@pytest.fixture(scope="module")
def tok() -> Tokenizer:
    return Tokenizer.train(CORPUS, 440, special_tokens=[BOS, EOS, EOT])


def test_another_pattern_cuts_elsewhere():
    tok = Tokenizer.train("ab ab", 259, pattern=r"[\s\S]+")
    assert (tok.ranks[b"ab ab"], tok.encode("abab ab")) == (258, [256, 258])


def test_a_pattern_that_loses_text_or_has_groups_is_refused():
    message = r"match every character; '\[a-z\]\+' matches 4 of 5. End it with"
    with pytest.raises(ValueError, match=message):
        Tokenizer(BYTES, pattern="[a-z]+").encode("ab cd")
    with pytest.raises(ValueError, match="no capturing groups; got 1"):
        Tokenizer(BYTES, pattern="([a-z]+)")


def cut_by_reading_each_character(
    text: str, slice_chars: int = 400_000, run_chars: int = 25_000
) -> list[str]:
    pieces = []
    for start in range(0, len(text), slice_chars):
        piece, run = "", 0
        for char in text[start : start + slice_chars]:
            run = run + 1 if piece and piece[-1].isspace() == char.isspace() else 1
            if run > run_chars:
                pieces.append(piece)
                piece, run = "", 1
            piece += char
        pieces.append(piece)
    return pieces


def test_sixty_thousand_letters_are_cut_in_three():
    assert [len(piece) for piece in cut_long("a" * 60_000)] == [25_000, 25_000, 10_000]


@pytest.mark.parametrize(
    "runs",
    [
        [("x", 25_000), (" ", 25_000), ("y", 24_999)],
        [("x", 25_001), (" ", 3), ("y", 50_000), ("\n", 50_001)],
        [("ab ", 9_000), ("\x1c", 26_000), ("z", 1)],
        [("word ", 81_000), ("x", 30_000)],
        [("x", 399_990), (" ", 20), ("é", 30_000)],
        [("x", 12_500), (" ", 1), ("x", 24_999), (" ", 1), ("x", 25_001)],
    ],
)
def test_long_text_is_cut_where_reading_each_character_cuts_it(runs):
    text = "".join(part * times for part, times in runs)
    assert list(cut_long(text)) == cut_by_reading_each_character(text)


def test_encoding_cuts_long_text_before_anything_else(tok):
    text = "a" * 30_000 + " the cat"
    assert tok.encode(text) == [id for piece in cut_long(text) for id in tok.encode(piece)]
    # 25,000 is no multiple of 3: the cut shows in the ids
    odd = Tokenizer(BYTES | {b"aaa": 256, b"aa": 257})
    assert odd.encode("a" * 25_002)[-2:] == [97, 257]


@pytest.mark.parametrize("pattern", [LLAMA3_PATTERN, LLAMA4_PATTERN], ids=["llama 3", "llama 4"])
@pytest.mark.parametrize("part", ["the cat ", "the cät, ", "日本", "x1 \n"])
def test_slices_of_400_000_characters_are_encoded_apart(tok, pattern, part):
    tok = Tokenizer(tok.ranks, pattern=pattern)
    theirs = tiktoken.Encoding(
        "slices", pat_str=pattern, mergeable_ranks=tok.ranks, special_tokens={}
    )
    text = (part * 120_000)[7:900_000]
    slices = cut_by_reading_each_character(text)
    expected = [id for piece in slices for id in theirs.encode_ordinary(piece)]
    assert tok.encode(text) == expected
