"""The fast twins of the patterns, and lines and words apart, against the patterns themselves."""

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llama_from_scratch.tokenizer.split import LLAMA3_PATTERN, LLAMA4_PATTERN, Splitter


@pytest.mark.parametrize("pattern", [LLAMA3_PATTERN, LLAMA4_PATTERN], ids=["llama 3", "llama 4"])
@settings(max_examples=1000, deadline=None)
@given(
    text=st.text(st.characters(max_codepoint=127), max_size=40)
    | st.text("'sTreVmlLd a", max_size=9)
    | st.text(" \na1!/A")
)
@example("a12345  \n  1\n\n   !")
@example("I'M DON'T aB ABc'd!'s a\n/ /\n/")
def test_the_ascii_twin_of_a_pattern_splits_like_the_pattern(pattern, text):
    assert Splitter(pattern)(text) == regex.findall(pattern, text)


@pytest.mark.parametrize("pattern", [LLAMA3_PATTERN, LLAMA4_PATTERN], ids=["llama 3", "llama 4"])
@settings(max_examples=1000, deadline=None)
@given(text=st.text("é日²ſ\u0301\u2028\x85\x1c\xa0 aB1!/'\t\n\r", max_size=40))
@example("é!\n/a")
def test_text_cut_in_lines_splits_like_the_pattern(pattern, text):
    assert Splitter(pattern)(text) == regex.findall(pattern, text)


@pytest.mark.parametrize("pattern", [LLAMA3_PATTERN, LLAMA4_PATTERN], ids=["llama 3", "llama 4"])
@settings(max_examples=1000, deadline=None)
@given(text=st.text("é日²ſ\u0301\u2028\x85\x1c\xa0   aB1!/'\t\n\r", max_size=40))
@example("é  \n 1\t 1 \x1c !\n /a")
def test_words_apart_split_like_the_whole(pattern, text):
    split = Splitter(pattern)
    first, *words = split.words(text)
    apart = [first, *(" " + word for word in words)]
    assert [piece for word in apart for piece in split(word)] == split(text)
