"""Merges are replayed, and the picture shows what was made."""

import itertools

import pytest
from moved_widgets import TEXT, figure_of

from llama_from_scratch.lessons import views
from llama_from_scratch.lessons.views import merging
from llama_from_scratch.tokenizer.split import Splitter


def test_merges_used_are_those_that_plain_merging_makes(tokenizer):
    """Replays byte-pair encoding word by word and notes each product."""
    text = "the garden, and the girl"
    made = set()
    for pretoken in Splitter(tokenizer.pattern)(text):
        parts = [bytes([value]) for value in pretoken.encode()]
        while pairs := [pair
                        for pair in itertools.pairwise(parts) if b"".join(pair) in tokenizer.ranks]:
            best = min(pairs, key=lambda pair: tokenizer.ranks[b"".join(pair)])
            i = list(itertools.pairwise(parts)).index(best)
            parts[i : i + 2] = [b"".join(best)]
            made.add(parts[i])
    assert views.merges_used(tokenizer, text) == sorted(made, key=tokenizer.ranks.get)
    assert len(made) > 5


def test_first_step_of_merges_is_bytes_and_the_last_the_tokenizers_own(tokenizer, monkeypatch):
    drawn, draw = [], merging.tokens
    monkeypatch.setattr(merging, "tokens",
                        lambda pieces, **settings: drawn.append(pieces) or draw(pieces, **settings))
    explorer = views.merges(tokenizer, text=TEXT)
    explorer.controls["step"].value = 0
    assert drawn[-1] == [bytes([value]) for value in TEXT.encode()]
    assert "single bytes" in explorer.words.value
    explorer.controls["step"].value = explorer.controls["step"].max
    assert drawn[-1] == [tokenizer.decode_bytes([i]) for i in tokenizer.encode(TEXT)]


def test_merges_of_a_long_text_are_drawn_in_few_artists_and_so_at_once(tokenizer):
    """Not a time, which depends on the machine: 600 texts and boxes of their own took twenty times
    as long as one path.
    """
    explorer = views.merges(tokenizer, text=(TEXT + " ") * 30)
    explorer.controls["step"].value = 0
    assert explorer.problem.value == "" and len(figure_of(explorer).findobj()) < 200


def test_merges_of_a_text_without_any_are_shown_as_bytes(tokenizer):
    explorer = views.merges(tokenizer, text=TEXT)
    explorer.controls["text"].value = "@"
    assert explorer.problem.value == "" and "1 byte is 1 token." in explorer.words.value


@pytest.mark.parametrize(("text", "words"), [("", "Type a few words"),
                                             ("word " * 20_000, "got 100,000. Shorten the text"),
                                             ("?" + "!?" * 400, "room for 600 tokens; got 801")],
                         ids=["empty", "huge", "too many tokens"])
def test_merges_refuse_in_words_what_they_cannot_show(tokenizer, text, words):
    explorer = views.merges(tokenizer, text=TEXT)
    explorer.controls["step"].value = 0
    before = explorer.picture.value
    explorer.controls["text"].value = text
    assert words in explorer.problem.value and explorer.picture.value == before
