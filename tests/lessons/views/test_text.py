"""A reader's text is read as tokens, or refused in words, by every view that takes one."""

import matplotlib.pyplot as plt
import pytest
import torch
from moved_widgets import TEXT, ids_of

from llama_from_scratch.lessons import views
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer

READING = {"attention": views.attention, "residual": views.residual_stream,
           "sampling": views.sampling}


@pytest.fixture(params=READING)
def reading(request, model, tokenizer):
    return READING[request.param](model, tokenizer, text=TEXT)


@pytest.mark.parametrize(("text", "words"), [
    ("", "type a few words"), ("word " * 20_000, "room for 64 tokens; got far more "
                                                 "in 100,000 letters. Shorten"),
    ("?!" * 40, "room for 64 tokens; got 81 in 80 letters"),
], ids=["empty", "huge", "too many tokens"])
def test_a_text_that_cannot_be_shown_is_refused_in_words(reading, text, words):
    before = reading.picture.value
    reading.controls["text"].value = text
    assert words in reading.problem.value and reading.picture.value == before
    reading.controls["text"].value = "the garden"
    assert reading.problem.value == "" and reading.picture.value != before


def test_what_is_seen_is_told_in_words(reading):
    assert len(reading.words.value) > 60
    assert plt.get_fignums() == []


def test_a_token_beyond_a_shorter_text_moves_to_its_end(model, tokenizer):
    explorer = views.attention(model, tokenizer, text=TEXT)
    n_long = len(ids_of(tokenizer))
    assert explorer.controls["token"].max == explorer.controls["token"].value == n_long - 1
    explorer.controls["text"].value = "the"
    n_short = len(ids_of(tokenizer, "the"))
    assert (explorer.controls["token"].max == explorer.controls["token"].value == n_short
            - 1 < n_long - 1)
    assert explorer.problem.value == "" and f"token {n_short - 1}," in explorer.words.value


def test_widget_shows_the_weights_as_they_are_now(model, tokenizer):
    explorer = views.sampling(model, tokenizer, text=TEXT)
    before = explorer.picture.value
    with torch.no_grad():
        model.output.weight.mul_(0)
    explorer.redraw()
    assert explorer.picture.value != before


def test_tokenizer_of_another_model_is_named_as_the_likely_cause(model, tokenizer):
    small = type(model)(type(model.config)(**{**vars(model.config), "vocab_size": 100}))
    with pytest.raises(ValueError, match="has the ids 0 to 99, but this text has 288"):
        views.encode(small, tokenizer, text="the")


def test_a_vocabulary_without_a_beginning_is_read_as_it_is(model, tokenizer):
    plain = Tokenizer(tokenizer.ranks)
    assert views.encode(model, plain, text=TEXT) == plain.encode(TEXT)


def test_a_dollar_in_a_text_starts_no_formula(model, tokenizer, recwarn):
    for make in READING.values():
        assert make(model, tokenizer, text="$\\frac$ $x$").problem.value == ""
    assert not recwarn
