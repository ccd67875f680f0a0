"""Characters, blanks and bytes to ids and back, against the sentencepiece library."""

import pickle
import random
from inspect import unwrap

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sentencepiece_reference import ODD, theirs_of
from tokenizer_texts import CORPUS, FIRST_PIECES, random_text

from llama_from_scratch.tokenizer.pieces import BLANK, Kind, Piece
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece

# What is known of the 32,000 pieces that were released.
RUNS = [29871, 259, 1678, 268, 418, 539, 4706, 308, 3986, 965, 9651, 632, 795, 1669, 18884, 462]
KNOWN = {
    "▁Hello": 15043, "▁world": 3186, "▁don": 1016, "▁[": 518, "INST": 25580, "▁Hi": 6324,
    "▁def": 822, "▁f": 285, "():": 7295, "▁x": 921, "1": 29896, "2": 29906, "3": 29941, "4": 29946,
    "'": 29915, "t": 29873, "日": 30325, "本": 30346, "語": 30968, "]": 29962, "/": 29914,
    "▁<": 529, "s": 29879, ">": 29958,
}  # fmt: skip


@pytest.fixture(scope="module")
def tok() -> SentencePiece:
    return SentencePiece.train([CORPUS] * 3, 460)


@pytest.fixture(scope="module")
def theirs(tok, tmp_path_factory) -> sentencepiece.SentencePieceProcessor:
    return theirs_of(tok, tmp_path_factory.mktemp("theirs"))


@pytest.fixture(scope="module")
def llama_2() -> SentencePiece:
    """32,000 pieces: the known ones where they were released, what they are merged from among the
    first, and the others unreachable."""
    at = {piece.text: i for i, piece in enumerate(FIRST_PIECES)}
    at |= {BLANK * n: i for n, i in enumerate(RUNS, start=1)} | KNOWN
    free = (i for i in range(260, 32_000) if i not in set(at.values()))
    parts = [piece[:n] for piece in KNOWN for n in range(2, len(piece))]
    at |= {part: next(free) for part in dict.fromkeys(parts) if part not in at}
    text_of = {i: text for text, i in at.items()}
    rest = [
        Piece(text_of.get(i, "\ue000" + chr(0x20000 + i)), -1e9 if i in RUNS else 259.0 - i)
        for i in range(259, 32_000)
    ]
    return SentencePiece([*FIRST_PIECES, *rest])


@pytest.mark.parametrize(
    "text, ids",
    [
        ("", []),
        ("Hello", [15043]),
        (" Hello", [29871, 15043]),
        ("  Hello", [259, 15043]),
        ("Hello world", [15043, 3186]),
        ("Hello  world", [15043, 29871, 3186]),
        ("\n", [29871, 13]),
        ("\n\n", [29871, 13, 13]),
        ("1234", [29871, 29896, 29906, 29941, 29946]),
        ("don't", [1016, 29915, 29873]),
        ("日本語", [29871, 30325, 30346, 30968]),
        ("🙂", [29871, 243, 162, 156, 133]),
        ("[INST] Hi [/INST]", [518, 25580, 29962, 6324, 518, 29914, 25580, 29962]),
        ("    def f():", [268, 822, 285, 7295]),
        ("x▁", [921, 29871]),
        ("<s>", [529, 29879, 29958]),
        (" " * 40, [462, 462, 3986]),
    ],
)
def test_known_pieces_of_llama_2_give_the_released_ids(llama_2, text, ids):
    assert llama_2.encode(text) == ids
    assert llama_2.decode(ids) == text.replace(BLANK, " ")
    assert (llama_2.vocab_size, llama_2.bos_id, llama_2.eos_id) == (32_000, 1, 2)


def test_ids_equal_those_of_sentencepiece_on_thousands_of_random_texts(tok, theirs):
    rng = random.Random(0)
    for text in (random_text(rng, ODD) for _ in range(8000)):
        ids = tok.encode(text)
        assert ids == theirs.encode(text), text
        assert tok.decode(ids) == theirs.decode(ids) == text.replace(BLANK, " ")


@settings(max_examples=1500, deadline=None)
@given(text=st.text(max_size=40) | st.text(" ▁a1.é日\n", max_size=60))
def test_ids_equal_those_of_sentencepiece_on_any_characters(tok, theirs, text):
    assert tok.encode(text) == theirs.encode(text)


small_texts = st.text("aab ▁\n1é", max_size=60)
RUNS_OF_3 = {"▁▁": -3, "▁": -1, "▁▁▁": -3}


@settings(max_examples=250, deadline=None)
@given(
    vocabulary=st.dictionaries(
        st.text("ab▁▁1é", min_size=1, max_size=4), st.integers(-6, 0), max_size=14
    ),
    user_defined=st.sets(st.text("ab▁1", min_size=1, max_size=3), max_size=2),
    fixed=st.sampled_from([FIRST_PIECES, FIRST_PIECES[:3], FIRST_PIECES[:3]]),
    texts=st.lists(small_texts, min_size=1, max_size=30),
    prefix=st.sampled_from(["always", "never"]),
)
@example(RUNS_OF_3 | {"▁a": 0, "▁▁a": -2}, set(), FIRST_PIECES, ["   a  ab"], "always")
@example(RUNS_OF_3 | {"▁▁ab": -2, "ab": 0}, set(), FIRST_PIECES, ["    ab  ab"], "always")
@example({"▁▁": -3, "▁▁▁": -3}, set(), FIRST_PIECES[:3], ["    ab  ab"], "never")
@example({"ab": 0, "ba": 0}, set(), FIRST_PIECES[:3], ["ba" * 150], "never")
@example({"aa": 0, "aaa": 1}, set(), FIRST_PIECES[:3], ["a" * 60], "never")
def test_ids_equal_those_of_sentencepiece_with_any_vocabulary(
    tmp_path_factory, vocabulary, user_defined, fixed, texts, prefix
):
    ordinary = [text for text in vocabulary if text not in user_defined]
    normal = [Piece(text, float(vocabulary[text])) for text in ordinary]
    special = [Piece(text, 0.0, Kind.USER_DEFINED) for text in sorted(user_defined)]
    tok = SentencePiece([*fixed, *normal, *special], prefix=prefix)
    theirs = theirs_of(tok, tmp_path_factory.getbasetemp())
    for text in [*texts, "".join(texts) * 8]:
        assert tok.encode(text) == theirs.encode(text), text


def test_lone_surrogates_become_the_replacement_character(tok):
    assert tok.encode("a\ud800b\ud83d\ude00") == tok.encode("a\ufffdb😀")
    assert tok.decode(tok.encode("\udfff")) == "\ufffd"


def test_encoding_refuses_bytes(tok):
    with pytest.raises(TypeError, match="takes a str; got bytes. Decode bytes to str first"):
        unwrap(SentencePiece.encode)(tok, b"abc")


def test_no_text_becomes_a_control_or_unknown_piece(tok):
    rng = random.Random(2)
    for text in (random_text(rng, ODD) for _ in range(2000)):
        assert not {0, 1, 2} & set(tok.encode(text))


def test_a_control_piece_of_one_letter_is_not_that_letter():
    pieces = [FIRST_PIECES[0], Piece("a", 0.0, Kind.CONTROL), Piece("b")]
    tok = SentencePiece(pieces, prefix="never")
    assert tok.encode("ab") == [0, 2]
    assert tok.encode("ab", allowed_special={"a"}) == [1, 2]


def test_begin_and_end_are_added_when_asked_for(tok):
    assert tok.encode("hi", bos=True, eos=True) == [1, *tok.encode("hi"), 2]
    assert tok.encode("", bos=True) == [1] and tok.encode("") == []


def test_allowed_special_strings_become_their_ids_and_the_text_after_them_gets_a_blank(tok):
    assert tok.special_ids == {"<unk>": 0, "<s>": 1, "</s>": 2}
    hi, the = tok.encode("hi"), tok.encode("the")
    assert tok.encode("<s>hi</s><s>the", allowed_special="all") == [1, *hi, 2, 1, *the]
    assert tok.encode("<s>hi</s>", allowed_special={"</s>"}) == [*tok.encode("<s>hi"), 2]
    with pytest.raises(ValueError, match="got '</s>' at character 2"):
        tok.encode("hi</s>", disallowed_special="all")
    with pytest.raises(ValueError, match=r"got \['<eos>'\]. It has \['<unk>', '<s>', '</s>'\]"):
        tok.encode("hi", allowed_special={"<eos>"})


@pytest.mark.parametrize(
    "prefix, same_as",
    [
        ("always", [" the", "  the", " the", " the"]),
        ("if missing", [" the", " the", " the", " the"]),
        ("first if missing", [" the", " the", "the", " the"]),
        ("never", ["the", " the", "the", "the"]),
    ],
)
def test_the_blank_in_front_stands_where_the_prefix_says(tok, prefix, same_as):
    plain = SentencePiece(tok.pieces, prefix="never")
    alone, blank, after, first = same_as
    other = SentencePiece(tok.pieces, prefix=prefix)
    assert other.encode("the") == plain.encode(alone)
    assert other.encode(" the") == plain.encode(blank)
    assert other.encode("<s>the", allowed_special="all") == [1, *plain.encode(after)]
    assert other.encode("the<s>", allowed_special="all") == [*plain.encode(first), 1]
    assert other.encode("", allowed_special="all") == []


def test_a_vocabulary_without_begin_and_end_says_so():
    plain = SentencePiece([FIRST_PIECES[0], Piece("a")])
    with pytest.raises(ValueError, match="needs the control piece '<s>'; the vocabulary has"):
        plain.encode("hi", bos=True)
    with pytest.raises(ValueError, match="needs the control piece '</s>'"):
        _ = plain.eos_id
    assert SentencePiece([FIRST_PIECES[0], Piece("[E]", 0.0, Kind.CONTROL)], eos="[E]").eos_id == 1


@settings(max_examples=1500, deadline=None)
@given(
    ids=st.lists(
        st.integers(0, 459) | st.sampled_from([0, 1, 2, 259, 35, 233, 154, 168, 258]), max_size=12
    )
)
@example([3 + 0xE6, 3 + 0x97, 3 + 0xA5, 3 + 0xE6, 3 + 0x97])
@example([1, 259, 259, 259])
@example([0, 259])
def test_any_ids_decode_as_in_sentencepiece(tok, theirs, ids):
    assert tok.decode(ids) == theirs.decode(ids)


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=40), at=st.integers(0, 40))
def test_the_bytes_of_a_stream_join_to_the_bytes_of_the_whole(tok, text, at):
    ids = tok.encode(text, bos=True)
    whole = b"".join(tok.decode_bytes([i]) for i in ids)
    assert whole == tok.decode_bytes(ids) == tok.decode_bytes(ids[:at]) + tok.decode_bytes(ids[at:])
    assert whole == (b" " + text.replace(BLANK, " ").encode() if text else b"")


@pytest.mark.parametrize("id", [-1, 460, 10**9])
def test_decoding_refuses_ids_outside_the_vocabulary(tok, id):
    with pytest.raises(ValueError, match=rf"0 to vocab_size - 1 = 459; got {id}"):
        tok.decode([3, id])
    with pytest.raises(ValueError, match=rf"0 to vocab_size - 1 = 459; got {id}"):
        tok.decode_bytes([id])


def test_a_copy_gives_the_same_ids(tok):
    other = SentencePiece(tok.pieces, prefix="first if missing", bos="</s>")
    again = pickle.loads(pickle.dumps(other))
    assert (again.pieces, again.prefix, again.bos_id) == (tok.pieces, "first if missing", 2)
