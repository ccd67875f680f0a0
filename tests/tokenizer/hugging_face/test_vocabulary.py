"""Merges against ranks: the same ids as the tokenizers library, or a refusal."""

import json
import re

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizer_json_reference import changed
from tokenizer_texts import BYTES, FIRST_PIECES

from llama_from_scratch.tokenizer import Tokenizer, hugging_face
from llama_from_scratch.tokenizer.pieces import BLANK, Piece
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tokenizer.json"


@settings(max_examples=300, deadline=None)
@given(
    tokens=st.lists(
        st.text("ab", min_size=2, max_size=5).map(str.encode), unique=True, max_size=10
    ),
    words=st.lists(st.text("ab", min_size=1, max_size=16), min_size=1, max_size=20),
)
@example([b"aaa", b"aa"], ["aaaaaaa"])
@example([b"aa", b"aaa"], ["aaaaaaa"])
def test_any_ranks_give_the_same_ids_here_and_there(tmp_path_factory, tokens, words):
    path = tmp_path_factory.getbasetemp() / "ranks.json"
    ours = Tokenizer(BYTES | {token: 256 + i for i, token in enumerate(tokens)})
    hugging_face.write(path, ours)
    theirs = tokenizers.Tokenizer.from_file(str(path))
    for word in words:
        assert ours.encode(word) == theirs.encode(word).ids
    assert hugging_face.read_tokenizer(path).ranks == ours.ranks


@settings(max_examples=300, deadline=None)
@given(
    merges=st.lists(
        st.tuples(*[st.text("ab", min_size=1, max_size=3)] * 2), unique=True, max_size=10
    ),
    words=st.lists(st.text("ab", min_size=1, max_size=16), min_size=1, max_size=20),
)
@example([("a", "b"), ("b", "a"), ("b", "b"), ("a", "bb")], ["abb", "abbb"])
@example([("bb", "a"), ("a", "b"), ("b", "b")], ["abb"])
def test_any_list_of_merges_is_refused_or_gives_the_same_ids(tmp_path_factory, merges, words):
    path = tmp_path_factory.getbasetemp() / "merges.json"
    parts = (part for left, right in merges for part in (left, right, left + right))
    tokens = dict.fromkeys(part for part in parts if len(part) > 1)
    hugging_face.write(path, Tokenizer(BYTES))
    vocab = json.loads(path.read_text())["model"]["vocab"]
    vocab |= {token: 256 + i for i, token in enumerate(tokens)}
    changed(path, model__vocab=vocab, model__merges=merges)
    theirs = tokenizers.Tokenizer.from_file(str(path))
    try:
        ours = hugging_face.read_tokenizer(path)
    except ValueError as error:
        assert re.search("must make every token that two others make", str(error))
        return
    for word in words:
        assert ours.encode(word) == theirs.encode(word).ids


def test_a_token_that_merging_cannot_reach_is_taken_whole_as_there(path):
    ranks = BYTES | {b"ab": 256, b"bc": 257, b" abc": 258}
    hugging_face.write(path, Tokenizer(ranks))
    theirs, ours = tokenizers.Tokenizer.from_file(str(path)), hugging_face.read_tokenizer(path)
    assert [ours.encode(text) for text in (" abc", " abcd")] == [[258], [32, 256, 99, 100]]
    assert [theirs.encode(text).ids for text in (" abc", " abcd")] == [[258], [32, 256, 99, 100]]
    changed(path, model__ignore_merges=False)
    theirs, ours = tokenizers.Tokenizer.from_file(str(path)), hugging_face.read_tokenizer(path)
    assert ours.encode(" abc") == theirs.encode(" abc").ids == [32, 256, 99]


@settings(max_examples=300, deadline=None)
@given(
    tokens=st.lists(st.text("ab▁▁", min_size=2, max_size=4), unique=True, max_size=12),
    texts=st.lists(st.text("ab  ", min_size=1, max_size=20), min_size=1, max_size=20),
    n_run=st.sampled_from([1, 1, 2, 4]),
)
def test_any_pieces_give_the_same_ids_here_and_there(tmp_path_factory, tokens, texts, n_run):
    path = tmp_path_factory.getbasetemp() / "pieces.json"
    runs = [Piece(BLANK * n, -1e9) for n in range(1, n_run + 1)]
    taken = {run.text for run in runs}
    made = [Piece(token, float(-i)) for i, token in enumerate(tokens) if token not in taken]
    ours = SentencePiece([*FIRST_PIECES[:3], *made, *runs, Piece("a", -50.0), Piece("b", -51.0)])
    try:
        hugging_face.write(path, ours)
    except ValueError as error:
        assert "have equal scores" in str(error)
        assert any(BLANK * 2 in token for token in tokens) and n_run > 2
        return
    theirs, again = tokenizers.Tokenizer.from_file(str(path)), hugging_face.read_tokenizer(path)
    for text in texts:
        expected = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text) == again.encode(text) == expected, text
