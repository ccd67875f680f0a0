import argparse
import sys

import pytest
from loud_models import loud_model
from tiny_checkpoints import tokenizer_for

from llama_from_scratch.commands.loading import load_model
from llama_from_scratch.commands.writing import (
    add_writing_arguments,
    prompt_ids,
    sampling_of,
    write,
)
from llama_from_scratch.generate.sampling import Sampling


def parse(*words):
    parser = argparse.ArgumentParser()
    add_writing_arguments(parser, usual_length="12 to 34")
    assert "12 to 34" in " ".join(parser.format_help().split())
    return parser.parse_args(words)


def test_every_option_of_sampling_reaches_it():
    assert sampling_of(parse()) == Sampling(temperature=0.7, top_p=0.95)
    words = ["--temperature", "0.5", "--top-k", "7", "--top-p", "0.3"]
    assert sampling_of(parse(*words)) == Sampling(temperature=0.5, top_k=7, top_p=0.3)


def test_the_prompt_is_printed_and_max_tokens_decides_how_much_follows(capsys):
    model, tokenizer = load_model(None)

    def text(n_tokens):
        args = parse("--temperature", "0", "--max-tokens", str(n_tokens))
        write(model, tokenizer, "Once", args, seed=0)
        return capsys.readouterr().out.removesuffix("\n")

    assert "Once" < text(2) < text(8) and text(8).startswith(text(2))


@pytest.fixture
def pieces():
    """A model of few tokens' context, and a tokenizer that puts a blank in front of all text."""
    tokenizer = tokenizer_for("llama-2")
    return loud_model(vocab_size=tokenizer.vocab_size, max_seq_len=12), tokenizer


def test_an_unnamed_length_is_what_fits_and_a_named_one_is_not(pieces, capsys):
    model, tokenizer = pieces
    for prompt in ("", "the cat"):
        n_prompt = len(tokenizer.encode(prompt, bos=True))
        write(model, tokenizer, prompt, parse("--temperature", "0"), seed=0)
        assert capsys.readouterr().out.startswith(prompt) and n_prompt < 12
    with pytest.raises(ValueError, match="context holds 12 tokens"):
        write(model, tokenizer, "", parse("--max-tokens", "12"), seed=0)
    assert capsys.readouterr().out == "", "a refusal comes before the prompt is printed"
    with pytest.raises(ValueError, match="leaves room for 0, not 1"):
        write(model, tokenizer, "the cat " * 20, parse(), seed=0)


def test_text_after_no_prompt_has_no_blank_in_front(pieces, capsys, monkeypatch):
    model, tokenizer = pieces
    ids = tokenizer.encode("the  cat")
    module = sys.modules["llama_from_scratch.generate.generate"]  # `generate` is a function, too
    monkeypatch.setattr(module, "stream", lambda *_, **__: iter(ids))
    assert tokenizer.decode_bytes(ids).startswith(b" the  cat")
    for prompt, expected in (("", "the  cat\n"), ("x", "x the  cat\n")):
        write(model, tokenizer, prompt, parse(), seed=0)
        assert capsys.readouterr().out == expected
    write(model, tokenizer, "<s>", parse(), seed=0, is_special=True)
    assert capsys.readouterr().out == "<s>the  cat\n"


@pytest.mark.parametrize(("family", "prompt", "warning"), [
    ("llama-3", "a<|eot_id|>b",
     "the prompt contains <|eot_id|>, read as plain text; --special makes it the token"),
    ("llama-2", "</s><s>", "contains </s>, <s>, read as plain text; --special makes them tokens"),
    ("llama-3", "a <| b |>", ""),
])
def test_special_tokens_in_a_prompt_are_tokens_only_if_asked_for(family, prompt, warning, capsys):
    tokenizer = tokenizer_for(family)
    assert prompt_ids(tokenizer, prompt, is_special=False) == tokenizer.encode(prompt, bos=True)
    shown = capsys.readouterr().err
    assert warning in shown and shown.count("\n") == bool(warning)
    assert prompt_ids(tokenizer, prompt, is_special=True) == tokenizer.encode(
        prompt, bos=True, allowed_special="all")
    assert capsys.readouterr().err == ""


def test_a_prompt_that_names_the_first_token_itself_gets_no_second_one():
    tokenizer = tokenizer_for("llama-3")
    ids = prompt_ids(tokenizer, "<|begin_of_text|>a", is_special=True)
    assert ids == tokenizer.encode("a", bos=True)
