"""Characters, blanks and bytes to ids and back, against the sentencepiece library on vocabularies made here."""

import io
import pickle
import random
import re
import struct
import time
from inspect import unwrap

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizer_texts import CORPUS, FIRST_PIECES, random_text

from llama_from_scratch.tokenizer.pieces import BLANK, Kind, Piece
from llama_from_scratch.tokenizer.protobuf import fields
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece

# What is known of the 32,000 pieces that were released.
RUNS = [29871, 259, 1678, 268, 418, 539, 4706, 308, 3986, 965, 9651, 632, 795, 1669, 18884, 462]
KNOWN = {
    "▁Hello": 15043, "▁world": 3186, "▁don": 1016, "▁[": 518, "INST": 25580, "▁Hi": 6324, "▁def": 822, "▁f": 285, "():": 7295,
    "▁x": 921, "1": 29896, "2": 29906, "3": 29941, "4": 29946, "'": 29915, "t": 29873, "日": 30325, "本": 30346, "語": 30968,
    "]": 29962, "/": 29914, "▁<": 529, "s": 29879, ">": 29958,
}  # fmt: skip


# What a text may hold that only looks like a piece.
ODD = ["<s>", "</s>", "<unk>", "<0x0A>", "<0x", "⁇", "\ufffd"]


def theirs_of(tok: SentencePiece, folder) -> sentencepiece.SentencePieceProcessor:
    tok.save(folder / "theirs.model")
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "theirs.model"))


def trained_by_them(**options) -> bytes:
    options = dict(
        vocab_size=420,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
        num_threads=1,
    ) | options
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS.splitlines() * 3), model_writer=file, **options
    )
    return file.getvalue()


@pytest.fixture(scope="module")
def tok() -> SentencePiece:
    return SentencePiece.train([CORPUS] * 3, 460)


@pytest.fixture(scope="module")
def theirs(tok, tmp_path_factory) -> sentencepiece.SentencePieceProcessor:
    return theirs_of(tok, tmp_path_factory.mktemp("theirs"))


@pytest.fixture(scope="module")
def llama_2() -> SentencePiece:
    """32,000 pieces, those known where they were released; what they are merged from among the first; the rest unreachable."""
    at = {piece.text: i for i, piece in enumerate(FIRST_PIECES)} | {BLANK * n: i for n, i in enumerate(RUNS, start=1)} | KNOWN
    free = (i for i in range(260, 32_000) if i not in set(at.values()))
    parts = [piece[:n] for piece in KNOWN for n in range(2, len(piece))]
    at |= {part: next(free) for part in dict.fromkeys(parts) if part not in at}
    text_of = {i: text for text, i in at.items()}
    return SentencePiece([
        *FIRST_PIECES,
        *(Piece(text_of.get(i, "\ue000" + chr(0x20000 + i)), -1e9 if i in RUNS else 259.0 - i) for i in range(259, 32_000)),
    ])  # fmt: skip


# --- encoding ---------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byte_fallback": False, "vocab_size": 180},
        {"split_digits": False},
        {"user_defined_symbols": "<x>,<xy>,▁[,  "},
        {"add_dummy_prefix": False},
        {"split_by_unicode_script": False},
        {"split_by_whitespace": False},
    ],
)
def test_a_vocabulary_that_sentencepiece_trained_is_read_and_gives_its_ids(options, tmp_path):
    data = trained_by_them(**options)
    (tmp_path / "tokenizer.model").write_bytes(data)
    tok, theirs = SentencePiece.load(tmp_path / "tokenizer.model"), sentencepiece.SentencePieceProcessor(model_proto=data)
    assert [piece.text for piece in tok.pieces] == [theirs.id_to_piece(i) for i in range(theirs.vocab_size())]
    assert [piece.score for piece in tok.pieces] == [theirs.get_score(i) for i in range(tok.vocab_size)]
    rng = random.Random(1)
    texts = [random_text(rng, ODD) for _ in range(1000)] + ["<xy><x>y<x", " [a  [ [x", "12 123 1234", "éé\x01\x02é", CORPUS]
    for text in texts:
        ids = tok.encode(text)
        assert ids == theirs.encode(text), text
        assert tok.decode(ids) == theirs.decode(ids), text


small_texts = st.text("aab ▁\n1é", max_size=60)


@settings(max_examples=250, deadline=None)
@given(
    vocabulary=st.dictionaries(st.text("ab▁▁1é", min_size=1, max_size=4), st.integers(-6, 0), max_size=14),
    user_defined=st.sets(st.text("ab▁1", min_size=1, max_size=3), max_size=2),
    fixed=st.sampled_from([FIRST_PIECES, FIRST_PIECES[:3], FIRST_PIECES[:3]]),
    texts=st.lists(small_texts, min_size=1, max_size=30),
    prefix=st.sampled_from(["always", "never"]),
)
@example({"▁▁": -3, "▁": -1, "▁▁▁": -3, "▁a": 0, "▁▁a": -2}, set(), FIRST_PIECES, ["   a  ab"], "always")
@example({"▁▁": -3, "▁": -1, "▁▁▁": -3, "▁▁ab": -2, "ab": 0}, set(), FIRST_PIECES, ["    ab  ab"], "always")
@example({"▁▁": -3, "▁▁▁": -3}, set(), FIRST_PIECES[:3], ["    ab  ab"], "never")
@example({"ab": 0, "ba": 0}, set(), FIRST_PIECES[:3], ["ba" * 150], "never")
@example({"aa": 0, "aaa": 1}, set(), FIRST_PIECES[:3], ["a" * 60], "never")
def test_ids_equal_those_of_sentencepiece_with_any_vocabulary(tmp_path_factory, vocabulary, user_defined, fixed, texts, prefix):
    normal = [Piece(text, float(score)) for text, score in vocabulary.items() if text not in user_defined]
    special = [Piece(text, 0.0, Kind.USER_DEFINED) for text in sorted(user_defined)]
    tok = SentencePiece([*fixed, *normal, *special], prefix=prefix)
    theirs = theirs_of(tok, tmp_path_factory.getbasetemp())
    for text in [*texts, "".join(texts) * 8]:
        assert tok.encode(text) == theirs.encode(text), text


def test_a_piece_across_words_is_found_although_words_are_encoded_apart():
    for across in ("a▁", "a1", "1a", "a.", ".a", "12", "é.", "\n\n", "\x01▁"):
        tok = SentencePiece([*FIRST_PIECES, Piece(across)])
        assert 259 in tok.encode("x" + across + "x"), across


def test_a_long_word_is_cut_only_where_no_piece_can_go_on():
    tok = SentencePiece([*FIRST_PIECES, Piece("ab", -1.0), Piece("abc", -2.0), Piece("ca", -3.0)])
    assert tok.encode("abcabd" * 20)[3:] == [260, 259, ord("d") + 3] * 20  # first the blank, in three bytes


@settings(max_examples=300, deadline=None)
@given(text=st.text("aé日 ▁\uac00\U0001f600-]^\\", max_size=60))
@pytest.mark.parametrize("has_bytes", [True, False])
def test_characters_of_no_piece_give_the_ids_of_sentencepiece(tmp_path_factory, has_bytes, text):
    folder = tmp_path_factory.getbasetemp() / f"unknown {has_bytes}"
    folder.mkdir(exist_ok=True)
    first = FIRST_PIECES if has_bytes else FIRST_PIECES[:3]
    tok = SentencePiece([*first, *map(Piece, ["a", "^", "aa", "日a", "▁"])])
    assert tok.encode(text) == theirs_of(tok, folder).encode(text)


def test_characters_of_no_piece_take_no_merging(tok):
    text = "".join(map(chr, range(0xAC00, 0xAC00 + 10_000)))
    SentencePiece(tok.pieces).encode(text[:10])
    start = time.process_time()
    ids = SentencePiece(tok.pieces).encode(text)
    assert time.process_time() - start < 0.1
    assert ids[1:] == [3 + value for value in text.encode()]


@pytest.mark.parametrize("text", ["a" * 1_000_000, " " * 1_000_000, "é" * 500_000, "ab" * 500_000])
def test_a_megabyte_of_one_repeated_character_takes_less_than_a_second(tok, text):
    start = time.process_time()
    ids = tok.encode(text)
    assert time.process_time() - start < 1
    assert tok.decode(ids) == text


def test_a_repeated_character_with_many_pieces_gives_the_ids_of_sentencepiece(tmp_path):
    tok = SentencePiece.train("a" * 5000 + " " + "ab" * 3000, 259 + 16 + 2 + 20)
    theirs = theirs_of(tok, tmp_path)
    for text in ("a" * 3001, "ab" * 1501, "a" * 500 + "b" + "a" * 777, " " * 999, " " * 500 + "a" * 500):
        assert tok.encode(text) == theirs.encode(text)


def test_lone_surrogates_become_the_replacement_character(tok):
    assert tok.encode("a\ud800b\ud83d\ude00") == tok.encode("a\ufffdb😀")
    assert tok.decode(tok.encode("\udfff")) == "\ufffd"


def test_encoding_refuses_bytes(tok):
    with pytest.raises(TypeError, match="takes str, got bytes; decode bytes to str first"):
        unwrap(SentencePiece.encode)(tok, b"abc")


# --- special pieces ---------------------------------------------------------------------------------------------------


def test_no_text_becomes_a_control_or_unknown_piece(tok):
    rng = random.Random(2)
    for text in (random_text(rng, ODD) for _ in range(2000)):
        assert not {0, 1, 2} & set(tok.encode(text))


def test_a_control_piece_of_one_letter_is_not_that_letter():
    tok = SentencePiece([FIRST_PIECES[0], Piece("a", 0.0, Kind.CONTROL), Piece("b")], prefix="never")
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
    with pytest.raises(ValueError, match=r"got \['<eos>'\]; it has \['<unk>', '<s>', '</s>'\]"):
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
    with pytest.raises(ValueError, match="needs the control piece '<s>', and the vocabulary has"):
        plain.encode("hi", bos=True)
    with pytest.raises(ValueError, match="needs the control piece '</s>'"):
        _ = plain.eos_id
    assert SentencePiece([FIRST_PIECES[0], Piece("[E]", 0.0, Kind.CONTROL)], eos="[E]").eos_id == 1


# --- decoding ---------------------------------------------------------------------------------------------------------


@settings(max_examples=1500, deadline=None)
@given(ids=st.lists(st.integers(0, 459) | st.sampled_from([0, 1, 2, 259, 35, 233, 154, 168, 258]), max_size=12))
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
    with pytest.raises(ValueError, match=rf"0 to vocab_size - 1 = 459, got {id}"):
        tok.decode([3, id])
    with pytest.raises(ValueError, match=rf"0 to vocab_size - 1 = 459, got {id}"):
        tok.decode_bytes([id])


def test_a_copy_gives_the_same_ids(tok):
    other = SentencePiece(tok.pieces, prefix="first if missing", bos="</s>")
    again = pickle.loads(pickle.dumps(other))
    assert (again.pieces, again.prefix, again.bos_id) == (tok.pieces, "first if missing", 2)


# --- training ---------------------------------------------------------------------------------------------------------


def test_training_lays_out_pieces_as_llama_does(tok):
    assert tok.vocab_size == 460 and list(tok.pieces[:259]) == FIRST_PIECES
    assert tok.pieces[259:275] == tuple(Piece(BLANK * n, -1e9) for n in range(1, 17))
    learned = tok.pieces[275:]
    assert [piece.score for piece in learned] == [float(-i) for i in range(len(learned))]
    n_merged = sum(len(piece.text) > 1 for piece in learned)
    assert all(len(piece.text) > 1 for piece in learned[:n_merged]) and n_merged > 50
    assert {piece.text for piece in learned[n_merged:]} == set(CORPUS) - {" "}


def test_training_merges_the_commonest_pair_first():
    tok = SentencePiece.train(["abab ab", "ab cd cd"], 259 + 16 + 4 + 3)
    assert [piece.text for piece in tok.pieces[275:]] == ["ab", "▁ab", "▁c", "a", "b", "c", "d"]
    assert tok.encode("ab cd") == [276, 277, 281]


def test_training_keeps_the_256_commonest_characters_and_leaves_the_rest_bytes():
    text = "".join(chr(0x4E00 + i) * (2 if i < 255 else 1) for i in range(300))
    tok = SentencePiece.train(text, 259 + 16 + 255)
    assert tok.encode(chr(0x4E00 + 254))[1:] == [529]
    assert tok.encode(chr(0x4E00 + 255))[1:] == [3 + value for value in chr(0x4E00 + 255).encode()]
    assert tok.decode(tok.encode(text)) == text


def test_training_refuses_a_vocabulary_without_room_or_beyond_the_text():
    with pytest.raises(ValueError, match="275 fixed pieces and 2 characters, so at least 277; got 276"):
        SentencePiece.train("ab", 276)
    with pytest.raises(ValueError, match="none left at 279 pieces; got vocab_size=300; give more text or vocab_size=279"):
        SentencePiece.train("ab", 300)
    assert SentencePiece.train("ab", 279).encode("ab") == [276]


# --- tokenizer.model --------------------------------------------------------------------------------------------------


def test_a_saved_tokenizer_loads_as_it_was_and_leaves_no_other_file(tok, theirs, tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_text("an old file")
    tok.save(path)
    again = SentencePiece.load(path)
    assert (again.pieces, again.prefix, again.special_ids) == (tok.pieces, tok.prefix, tok.special_ids)
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.model"]
    assert (theirs.bos_id(), theirs.eos_id(), theirs.unk_id(), theirs.pad_id()) == (1, 2, 0, -1)


def test_a_prefix_the_format_cannot_say_is_refused(tok, tmp_path):
    with pytest.raises(ValueError, match="always or never, got prefix='if missing'"):
        SentencePiece(tok.pieces, prefix="if missing").save(tmp_path / "t")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"model_type": "unigram", "vocab_size": 360}, "the model is BPE, type 2, got type 1"),
        ({"normalization_rule_name": "nmt_nfkc"}, r"text is not normalized, got a table of \d+ bytes"),
        ({"remove_extra_whitespaces": True}, "blanks are kept, got remove_extra_whitespaces"),
        ({"treat_whitespace_as_suffix": True}, "a blank belongs to the word after it"),
        ({"unk_surface": "??"}, "unk_surface is ' ⁇ '"),
    ],
)
def test_a_model_of_another_kind_is_refused(options, message, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(trained_by_them(**options))
    with pytest.raises(ValueError, match=rf"tokenizer.model cannot be read as a SentencePiece model: .*{message}"):
        SentencePiece.load(tmp_path / "tokenizer.model")


@pytest.mark.parametrize(
    "pieces, message",
    [
        ([*FIRST_PIECES, Piece("a"), Piece("a")], "pieces are texts that differ, got 'a' 2 times, first as piece 259"),
        ([*FIRST_PIECES, Piece("")], "pieces are texts that differ, got '' 1 times, first as piece 259"),
        (FIRST_PIECES[1:], "one unknown piece, got 0"),
        ([*FIRST_PIECES, Piece("?", 0.0, Kind.UNKNOWN)], "one unknown piece, got 2"),
        (FIRST_PIECES[:-1], r"<0x00> to <0xFF>, each once, got \['<0xFF>'\]"),
        ([*FIRST_PIECES, Piece("<0xff>", 0.0, Kind.BYTE)], r"<0x00> to <0xFF>, each once, got \['<0xff>'\]"),
        ([*FIRST_PIECES, Piece("a", float("nan"))], "finite score"),
        ([*FIRST_PIECES, Piece("a", 0.0, Kind.UNUSED)], "a kind that Llama uses"),
    ],
)
def test_impossible_vocabularies_are_refused(pieces, message):
    with pytest.raises(ValueError, match=message):
        SentencePiece(pieces)


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "no pieces"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "bytes, 0 are left"),
        (b"\x0a\x02", "has 2 bytes, 0 are left"),
        (b"\x0a", "a number is cut off by the end"),
        (b"\xff" * 20, "at most ten bytes"),
        (b"\x08\x01", "wire type of its values, got 0 for field 1"),
        (b"\x03", "wire type of its values, got 3 for field 0"),
        (b"\x33", "4 or 8 bytes, got wire type 3"),
        (b"\x0a\x03\x0a\x01\xff", "a piece is UTF-8"),
        (b"\x0a\x05\x0a\x01a\x18\x07", "the kind of a piece is 1 to 6, got 7 for piece 0"),
        (b"not a model, but a text of some length", "SentencePiece model"),
    ],
)
def test_a_forged_file_is_refused(tmp_path, data, message):
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        SentencePiece.load(tmp_path / "t")


def test_fields_that_are_not_ours_are_skipped():
    data = b"\x08\x96\x01" + b"\x11" + bytes(8) + b"\x1a\x02hi" + b"\x25" + struct.pack("<f", 1.5) + b"\x28\x07"
    assert list(fields(data, {1: int, 3: bytes, 4: float})) == [(1, 150), (3, b"hi"), (4, 1.5)]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Cut short, or with a few bits turned."""
    if rng.random() < 0.4:
        return data[: rng.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        place = rng.choice([rng.randrange(len(data)), rng.randrange(20), len(data) - 1 - rng.randrange(80)])
        changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize("form", ["model", "llama2c"])
def test_a_damaged_file_is_refused_or_read_and_never_breaks_the_reader(form, tmp_path):
    tok = SentencePiece.train("the cat sat on the mat", 259 + 16 + 10 + 4)
    path = tmp_path / "t"
    save, load = (tok.save, SentencePiece.load) if form == "model" else (tok.save_llama2c, SentencePiece.load_llama2c)
    save(path)
    whole, rng = path.read_bytes(), random.Random(3)
    n_refused, start = 0, time.process_time()
    for _ in range(200):
        path.write_bytes(damaged(whole, rng))
        try:
            read = load(path)
            assert read.decode(read.encode("the cat")) is not None
        except ValueError as error:
            n_refused += 1
            assert str(path) in str(error)
    assert n_refused > 80 and time.process_time() - start < 20


# --- tokenizer.bin ----------------------------------------------------------------------------------------------------


def test_a_tokenizer_bin_loads_as_it_was(tok, tmp_path):
    tok.save_llama2c(tmp_path / "tokenizer.bin")
    assert SentencePiece.load_llama2c(tmp_path / "tokenizer.bin").pieces == tok.pieces
    data = (tmp_path / "tokenizer.bin").read_bytes()
    longest = max(len(piece.text.encode()) for piece in tok.pieces if BLANK not in piece.text)
    assert struct.unpack_from("<IfI", data) == (max(longest, 16), 0.0, 5)
    assert data[12:] .startswith(b"<unk>" + struct.pack("<fI", 0.0, 5) + b"\n<s>\n")
    assert struct.pack("<fI", -1e9, 2) + b"  " in data


def test_a_tokenizer_bin_of_the_first_version_has_bytes_as_characters(tok, tmp_path):
    texts = ["<unk>", "\n<s>\n", "\n</s>\n", *map(chr, range(256)), *(p.text.replace(BLANK, " ") for p in tok.pieces[259:])]
    records = (struct.pack("<fI", piece.score, len(text.encode())) + text.encode() for piece, text in zip(tok.pieces, texts))
    (tmp_path / "t").write_bytes(struct.pack("<I", 16) + b"".join(records))
    assert SentencePiece.load_llama2c(tmp_path / "t").pieces == tok.pieces


def test_only_a_vocabulary_laid_out_as_llamas_has_a_tokenizer_bin(tok, tmp_path):
    unknown, bos, *rest = FIRST_PIECES
    for other in (SentencePiece([bos, unknown, *rest]), SentencePiece(tok.pieces, prefix="never")):
        with pytest.raises(ValueError, match="a tokenizer.bin has <unk>, <s>, </s> and then the 256 bytes"):
            other.save_llama2c(tmp_path / "t")


@pytest.mark.parametrize(
    "data, message",
    [
        (b"\x01\x00", "in 4 bytes, got 2 bytes"),
        (struct.pack("<I", 5) + b"1234567", "begins with 8 bytes, got 7 for piece 0"),
        (struct.pack("<IfI", 5, 0, 2**32 - 1) + b"<unk>", "piece 0 has 4294967295 bytes, with 5 as the longest and 5 left"),
        (struct.pack("<IfI", 4, 0, 5) + b"<unk>", "piece 0 has 5 bytes, with 4 as the longest and 5 left"),
        (struct.pack("<IfI", 5, 0, 5) + b"<unk" + b"?", "piece 0 is <unk>, got '<unk?'"),
        (struct.pack("<I", 5), "one unknown piece, got 0"),
    ],
)
def test_a_forged_tokenizer_bin_is_refused(tmp_path, data, message):
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(message)):
        SentencePiece.load_llama2c(tmp_path / "t")
