r"""Patterns of files: the same cuts as the engine they were written for, or an error in words."""

import random

import pytest
import regex
import tokenizers
from tokenizer_texts import random_text

from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.file_pattern import (
    bounded,
    compile_foreign,
    compile_pattern,
    is_read_alike,
)
from llama_from_scratch.tokenizer.split import LLAMA3_PATTERN, LLAMA4_PATTERN, Splitter

EVERY_BYTE = {bytes([value]): value for value in range(256)}
KNOWN = {
    "llama 3": LLAMA3_PATTERN,
    "llama 4": LLAMA4_PATTERN,
    "gpt 2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "one digit": r"\p{N}|[^\p{N}]+",
    "ends of lines": r"^\s*\w+|\s++$|[\s\S]",
    "any case": r"(?i)[a-e]+|é+|[\s\S]",
    "words and underscores": r"[\w]+|[^\w]+",
    "punctuation": r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]|[^!-/:-@\[-`{-~]+|[\s\S]",
}


@pytest.mark.parametrize("pattern", KNOWN.values(), ids=KNOWN)
def test_a_pattern_cuts_as_in_the_library_that_files_are_written_for(pattern):
    theirs = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    rng = random.Random(0)
    texts = ["", "a\n\nb  \n c", "x_1 ² ½ ٣", *(random_text(rng, ["A's"]) for _ in range(400))]
    for text in texts:
        wanted = [piece for piece, _ in theirs.pre_tokenize_str(text)] if text else []
        assert compile_foreign(pattern).findall(text) == wanted, text


@pytest.mark.parametrize("pattern", ["(", "[a", "*a", r"\p{Nope}", "a{2,1}", "(?P<x", "(?",
                                     "(" * 2000 + ")" * 2000, "\\", "[z-a]", "(?<=a*b"])
def test_a_pattern_that_does_not_compile_is_refused_in_words(pattern):
    for compiled in (compile_pattern, compile_foreign):
        with pytest.raises(ValueError, match="does not compile|must mean the same"):
            compiled(pattern)
    with pytest.raises(ValueError, match="split pattern"):
        Tokenizer(EVERY_BYTE, pattern=pattern)


@pytest.mark.parametrize("pattern", [
    r"\h+", r"\R", r"\bword", r"\W+", r"a\Z", r"(?m:.)", r"(?x)a b", r"a(?i)b", r"[a&&b]",
    r"[[:punct:]]", r"[a[bc]]", r"\p{N}{1,3}+", r"a{3}?", r"(?<name>a)", r"(?P<name>a)",
    r"(a)\1", r"\k<n>", r"\x41",
])
def test_what_the_two_engines_read_in_different_ways_is_refused(pattern):
    with pytest.raises(ValueError, match="must mean the same here as in the library"):
        compile_foreign(pattern)


def test_a_pattern_of_our_own_is_read_as_it_always_was():
    assert Splitter(r"\w+|\W+")("a²b c") == ["a", "²", "b", " ", "c"]
    assert is_read_alike(LLAMA3_PATTERN) and is_read_alike(LLAMA4_PATTERN)
    assert not is_read_alike(r"\w+|[^x]") and not is_read_alike(r"^a|b")


def test_a_very_long_pattern_is_refused_before_it_is_compiled():
    with pytest.raises(ValueError, match="at most 20,000 characters; got 300,000"):
        compile_pattern("(?:a|" * 60_000)


def test_a_search_that_never_ends_is_stopped_in_words(monkeypatch):
    monkeypatch.setattr("llama_from_scratch.tokenizer.file_pattern._SEARCH_SECONDS", 0.2)
    endless = r"(?:(?:a|a)+)+(?=c)|[\s\S]"
    with pytest.raises(ValueError, match="finish 61 characters in 0.2 seconds of processor time"):
        bounded(regex.compile(endless).findall, "a" * 60 + "b", pattern=endless)
    with pytest.raises(ValueError, match="nested repetitions"):
        Splitter(endless)("a" * 60 + "b")
    with pytest.raises(ValueError, match="nested repetitions"):
        Tokenizer(EVERY_BYTE, pattern=endless).encode("a" * 60 + "b")


def test_a_pattern_that_fills_the_memory_is_refused_in_words():
    def search(text, *, timeout):
        raise MemoryError

    with pytest.raises(ValueError, match="must not run out of memory"):
        bounded(search, "abc", pattern="(?R)")
