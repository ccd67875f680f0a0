import pytest
from tiny_checkpoints import chat_tokenizer_for, tiny, tokenizer_for

from llama_from_scratch.checkpoint.gguf_prompting import facts_of, read_prompting
from llama_from_scratch.tokenizer.prompting import Prompting

CONFIG = tiny().config
KEY = "tokenizer.ggml."


def read(facts, tmp_path):
    return read_prompting(facts, CONFIG, where=tmp_path / "x.gguf")


def written(tokenizer):
    return {key: value for key, (_, value) in facts_of(tokenizer).items()}


def test_a_file_that_says_nothing_says_nothing(tmp_path):
    assert read({}, tmp_path) == Prompting()


@pytest.mark.parametrize("name", ["llama-2", "llama-3", "llama-3.1"])
def test_what_is_written_is_read_again(name, tmp_path):
    for tokenizer in (tokenizer_for(name), chat_tokenizer_for(name)):
        said = read(written(tokenizer), tmp_path)
        assert said.end_ids == tokenizer.stop_ids and said.adds_bos
        assert said.templates == tokenizer.prompting.templates


def test_names_are_those_of_the_tokens(tmp_path):
    facts = {KEY + "tokens": ["<a>", "<b>"], KEY + "bos_token_id": 0, KEY + "eos_token_id": 1,
             KEY + "padding_token_id": 7, "tokenizer.chat_template": "x"}
    said = read(facts, tmp_path)
    assert said.token_names == {"bos_token": "<a>", "eos_token": "<b>"} and said.eos_ids == {1}


@pytest.mark.parametrize(("facts", "message"), [
    ({KEY + "eos_token_id": 520}, "an id below 520; got 520 in"),
    ({KEY + "eot_token_id": "x"}, "eot_token_id must be an id"),
    ({KEY + "add_bos_token": 1}, "add_bos_token must be true or false"),
    ({"tokenizer.chat_template": 5}, "'default' is 5"),
    ({"tokenizer.chat_template.rag": 5}, "'rag' is 5")])
def test_damaged_facts_are_refused(facts, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read(facts, tmp_path)


def test_more_ends_than_the_format_has_words_for_are_refused():
    tokenizer = chat_tokenizer_for("llama-3.1")
    tokenizer.prompting = Prompting(end_ids=frozenset({1, 2, 3, 4}))
    with pytest.raises(ValueError, match="at most three ids"):
        facts_of(tokenizer)
