"""Special strings in a text: ordinary text, unless they are allowed."""

import pytest
from tokenizer_texts import BOS, BYTES, CORPUS, EOS, EOT

from llama_from_scratch.tokenizer.byte_bpe import Tokenizer


@pytest.fixture(scope="module")
def tok() -> Tokenizer:
    return Tokenizer.train(CORPUS, 440, special_tokens=[BOS, EOS, EOT])


def test_special_strings_in_text_are_ordinary_text_by_default(tok):
    ids = tok.encode(f"{EOT}hi")
    assert max(ids) < len(tok.ranks)
    assert tok.decode(ids) == f"{EOT}hi"


def test_allowed_special_strings_become_their_ids(tok):
    hi = tok.encode("hi")
    assert tok.encode(f"{BOS}hi{EOT}{EOT}", allowed_special="all") == [437, *hi, 439, 439]
    assert tok.encode(f"{EOS}hi{EOT}", allowed_special={EOT}) == [*tok.encode(EOS), *hi, 439]


def test_the_longest_of_several_special_strings_is_taken():
    tok = Tokenizer(BYTES, special_tokens=["b", "<a", "<a>"])
    assert tok.encode("<a><a", allowed_special="all") == [258, 257]


def test_disallowed_special_strings_are_refused_with_name_and_place(tok):
    with pytest.raises(ValueError, match=r"got '<\|eot_id\|>' at character 2"):
        tok.encode(f"hi{EOT}", disallowed_special="all")
    with pytest.raises(ValueError, match=r"got '<\|eot_id\|>' at character 19"):
        tok.encode(f"{BOS}hi{EOT}", allowed_special={BOS}, disallowed_special="all")
    with pytest.raises(ValueError, match=r"got '<\|eot_id\|>' at character 0"):
        tok.encode(EOT, allowed_special="all", disallowed_special={EOT})
    assert tok.encode(f"hi{EOT}", allowed_special="all", disallowed_special="all")[-1] == 439
    assert tok.encode(EOT, disallowed_special={BOS}) == tok.encode(EOT)


def test_names_that_are_no_special_tokens_are_refused(tok):
    for names in ({"allowed_special": {"<|eot|>"}}, {"disallowed_special": {"<|eot|>"}}):
        with pytest.raises(ValueError, match=r"got \['<\|eot\|>'\]. It has .*eot_id"):
            tok.encode("hi", **names)


def test_training_refuses_double_and_empty_special_tokens():
    with pytest.raises(ValueError, match=r"one id each; got \['<\|eot_id\|>'\] more than once"):
        Tokenizer.train("abc", 300, special_tokens=[EOT, BOS, EOT])
    for bad in ([""], EOT):
        with pytest.raises(ValueError, match="list of non-empty strings"):
            Tokenizer.train("abc", 300, special_tokens=bad)
