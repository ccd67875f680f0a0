"""Text to ids and back, against tiktoken and Hugging Face tokenizers."""

import pickle
import random
from inspect import unwrap

import pytest
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_texts import BOS, BYTES, CORPUS, EOS, EOT, random_text

from llama_from_scratch.tokenizer import Tokenizer
from llama_from_scratch.tokenizer.merges import merge_word
from llama_from_scratch.tokenizer.split import LLAMA3_PATTERN


@pytest.fixture(scope="module")
def tok() -> Tokenizer:
    return Tokenizer.train(CORPUS, 440, special_tokens=[BOS, EOS, EOT])


@pytest.fixture(scope="module")
def tiktok(tok: Tokenizer) -> tiktoken.Encoding:
    return tiktoken.Encoding(
        "trained here",
        pat_str=LLAMA3_PATTERN,
        mergeable_ranks=tok.ranks,
        special_tokens=tok.special_ids,
    )


def test_training_reports_each_merge_with_rank_and_count():
    heard = []
    tok = Tokenizer.train("abab ab ab", 258, on_merge=lambda *merge: heard.append(merge))
    assert heard == [(256, b"a", b"b", 4), (257, b" ", b"ab", 2)]
    assert tok.ranks[b" ab"] == 257


def test_training_on_texts_counts_them_together_and_joins_no_words():
    heard = []
    Tokenizer.train(iter(["ab", "ab"]), 257, on_merge=lambda *merge: heard.append(merge))
    assert heard == [(256, b"a", b"b", 2)]
    with pytest.raises(ValueError, match="none left at 257 ids"):  # "abab" would have one more
        Tokenizer.train(["ab", "ab"], 258)


@pytest.mark.parametrize("text, reachable", [("", 256), ("a", 256), ("ab", 257), ("aaaa", 258)])
def test_a_text_out_of_pairs_says_how_many_ids_it_reaches(text, reachable):
    assert Tokenizer.train(text, reachable).vocab_size == reachable
    message = rf"none left at {reachable} ids; got vocab_size=300. Give more text, or"
    with pytest.raises(ValueError, match=message):
        Tokenizer.train(text, 300)


def test_the_number_of_reachable_ids_counts_special_tokens():
    with pytest.raises(ValueError, match="none left at 258 ids; got vocab_size=300"):
        Tokenizer.train("ab", 300, special_tokens=[EOT])
    assert Tokenizer.train("ab", 258, special_tokens=[EOT]).encode("ab") == [256]


def test_special_tokens_follow_the_base_vocabulary_and_count_inside_vocab_size(tok):
    assert tok.vocab_size == 440 and len(tok.ranks) == 437
    assert tok.special_ids == {BOS: 437, EOS: 438, EOT: 439}
    assert [tok.ranks[bytes([value])] for value in range(256)] == list(range(256))


def test_training_refuses_a_vocabulary_without_room():
    message = "256 bytes and 2 special tokens; got 257. Give at least 258"
    with pytest.raises(ValueError, match=message):
        Tokenizer.train("abc", 257, special_tokens=[BOS, EOS])


@settings(max_examples=500, deadline=None)
@given(text=st.text(max_size=60))
def test_every_text_survives_the_round_trip(tok, text):
    ids = tok.encode(text)
    assert tok.decode(ids) == text
    assert tok.decode_bytes(ids) == text.encode()


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=60))
def test_every_byte_string_survives_the_round_trip(tok, data):
    assert tok.decode_bytes(merge_word(data, tok.ranks)) == data
    assert tok.decode(merge_word(data, tok.ranks)) == data.decode("utf-8", errors="replace")


def test_ids_equal_those_of_tiktoken_on_thousands_of_random_texts(tok, tiktok):
    rng = random.Random(0)
    for text in (random_text(rng) for _ in range(5000)):
        assert tok.encode(text) == tiktok.encode_ordinary(text), text
        ids = tok.encode(text, allowed_special="all")
        assert ids == tiktok.encode(text, allowed_special="all"), text


@settings(max_examples=500, deadline=None)
@given(text=st.text(st.characters(), max_size=40))
def test_ids_equal_those_of_tiktoken_on_any_characters(tok, tiktok, text):
    assert tok.encode(text) == tiktok.encode_ordinary(text)


def test_ids_equal_those_of_hugging_face_tokenizers(tok):
    symbols = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    symbol_of = {value: chr(value) for value in symbols}
    others = sorted(set(range(256)) - set(symbols))
    symbol_of |= {value: chr(256 + i) for i, value in enumerate(others)}
    written = {token: "".join(symbol_of[value] for value in token) for token in tok.ranks}
    merges = []
    for token, rank in tok.ranks.items():
        if len(token) > 1:
            earlier = {other: r for other, r in tok.ranks.items() if r < rank}
            left, right = merge_word(token, earlier)
            merges.append(tuple(written[tok.decode_bytes([part])] for part in (left, right)))
    vocab = {written[token]: rank for token, rank in tok.ranks.items()}
    model = tokenizers.models.BPE(vocab, merges, ignore_merges=True)
    theirs = tokenizers.Tokenizer(model)
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(LLAMA3_PATTERN), "isolated"),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    rng = random.Random(1)
    for text in (random_text(rng) for _ in range(1000)):
        assert tok.encode(text) == theirs.encode(text).ids, text


def test_a_whole_token_is_taken_at_once_even_where_merging_cannot_reach_it(tiktok):
    # "ab" merges before "bc" can, so the bytes of " abc" become " ", "ab", "c", never " abc"
    ranks = BYTES | {b"ab": 256, b"bc": 257, b" abc": 258}
    tok = Tokenizer(ranks)
    assert merge_word(b" abc", ranks) == [32, 256, 99]
    assert tok.encode(" abc") == [258]
    assert tok.encode(" abcd") == [32, 256, 99, 100]
    theirs = tiktoken.Encoding(
        "by hand", pat_str=LLAMA3_PATTERN, mergeable_ranks=ranks, special_tokens={}
    )
    assert [theirs.encode(text) for text in (" abc", " abcd")] == [[258], [32, 256, 99, 100]]


def test_588_tokens_that_merging_cannot_reach_are_taken_whole_as_in_tiktoken():
    # From the letters of "bcab" merging makes "bc" and "ab". No token is made of those two, so no
    # other is reached.
    rng, ranks = random.Random(3), BYTES | {b"bc": 256, b"ab": 257}
    words = sorted({b" bcab" + bytes(rng.choices(range(97, 123), k=3)) for _ in range(700)})[:588]
    ranks |= {word: 258 + i for i, word in enumerate(words)}
    tok = Tokenizer(ranks)
    theirs = tiktoken.Encoding(
        "by hand", pat_str=LLAMA3_PATTERN, mergeable_ranks=ranks, special_tokens={}
    )
    for word in words:
        assert len(merge_word(word, ranks)) > 1
        assert tok.encode(word.decode()) == [ranks[word]] == theirs.encode(word.decode())
        longer = word.decode() + "é"
        assert tok.encode(longer) == theirs.encode(longer) and ranks[word] not in tok.encode(longer)


def test_lone_surrogates_become_the_replacement_character_as_in_tiktoken(tok, tiktok):
    for text in ("a\ud800b", "\udfff", "\ud83d\ude00!", "x\ud83d"):
        assert tok.encode(text) == tiktok.encode_ordinary(text)
    assert tok.decode(tok.encode("a\ud800b")) == "a\ufffdb"
    assert Tokenizer.train("a\ud800 a\ud800", 257).vocab_size == 257


def test_encoding_refuses_bytes(tok):
    with pytest.raises(TypeError, match="takes a str; got bytes. Decode bytes to str first"):
        unwrap(Tokenizer.encode)(tok, b"abc")


def test_begin_and_end_are_added_when_asked_for(tok):
    assert tok.encode("hi", bos=True, eos=True) == [tok.bos_id, *tok.encode("hi"), tok.eos_id]
    assert tok.encode("", bos=True) == [437] and tok.encode("") == []
    assert tok.decode([tok.bos_id, *tok.encode("hi")]) == f"{BOS}hi"


def test_a_vocabulary_without_begin_and_end_says_so():
    plain = Tokenizer(BYTES, special_tokens=[EOT])
    message = r"needs the special token '<\|begin_of_text\|>'.*special_tokens when you train"
    with pytest.raises(ValueError, match=message):
        plain.encode("hi", bos=True)
    with pytest.raises(ValueError, match=r"needs the special token '<\|end_of_text\|>'"):
        _ = plain.eos_id


@pytest.mark.parametrize("id", [-1, 440, 10**9])
def test_decoding_refuses_ids_outside_the_vocabulary(tok, id):
    with pytest.raises(ValueError, match=rf"0 to vocab_size - 1 = 439; got {id}"):
        tok.decode([0, id])


def test_half_a_character_decodes_to_the_replacement_character(tok):
    assert tok.decode(list("é".encode()[:1])) == "\ufffd"


def test_a_tokenizer_can_be_sent_to_another_process(tok):
    again = pickle.loads(pickle.dumps(tok))
    assert again.encode(CORPUS, bos=True) == tok.encode(CORPUS, bos=True)
    assert (again.vocab_size, again.pattern) == (tok.vocab_size, tok.pattern)
