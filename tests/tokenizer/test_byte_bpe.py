"""Text to ids and back, against a trainer that recounts everything, tiktoken and Hugging Face tokenizers."""

import base64
import pickle
import random
import re
import time
from collections import Counter
from inspect import unwrap
from itertools import pairwise

import pytest
import regex
import tiktoken
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiktoken.load import load_tiktoken_bpe
from tokenizer_texts import CORPUS, random_text

from llama_from_scratch.tokenizer import Tokenizer
from llama_from_scratch.tokenizer.byte_bpe import learn_merges, merge_word
from llama_from_scratch.tokenizer.split import LLAMA3_PATTERN, LLAMA4_PATTERN, Splitter, cut_long
from llama_from_scratch.tokenizer.word_cache import Memo

BOS, EOS, EOT = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"
BYTES = {bytes([value]): value for value in range(256)}


def recount_merges(counts: dict[bytes, int], n_merges: int) -> list[tuple[bytes, bytes]]:
    """The slow reference: count every pair in every word again before each merge."""
    tokens = [bytes([value]) for value in range(256)]
    words, merges = [(list(word), n) for word, n in counts.items()], []
    while len(merges) < n_merges:
        pairs = Counter()
        for ids, n in words:
            for pair in pairwise(ids):
                pairs[pair] += n
        if not pairs:
            break
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        for ids, _ in words:
            i = 0
            while i < len(ids) - 1:
                if ids[i] == left and ids[i + 1] == right:
                    ids[i : i + 2] = [len(tokens)]
                i += 1
        merges.append((tokens[left], tokens[right]))
        tokens.append(tokens[left] + tokens[right])
    return merges


@pytest.fixture(scope="module")
def tok() -> Tokenizer:
    return Tokenizer.train(CORPUS, 440, special_tokens=[BOS, EOS, EOT])


@pytest.fixture(scope="module")
def tiktok(tok: Tokenizer) -> tiktoken.Encoding:
    return tiktoken.Encoding("trained here", pat_str=LLAMA3_PATTERN, mergeable_ranks=tok.ranks, special_tokens=tok.special_ids)


# --- training ---------------------------------------------------------------------------------------------------------


def test_merges_equal_those_of_a_full_recount():
    words = {word.encode(): n for word, n in Counter(Splitter(LLAMA3_PATTERN)(CORPUS)).items()}
    assert learn_merges(words, 400) == recount_merges(words, 400)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text("ab", min_size=1, max_size=12).map(str.encode), st.integers(1, 4), max_size=6))
@example({b"aaaaa": 1, b"aaa": 1})
@example({b"ababab": 1, b"abab": 2})
def test_merges_equal_those_of_a_full_recount_where_pairs_overlap_and_tie(words):
    assert learn_merges(words, 30) == recount_merges(words, 30)


def test_a_tie_goes_to_the_smallest_left_id_and_then_the_smallest_right_id():
    assert learn_merges({b"zb": 2, b"ya": 2, b"yb": 2}, 3) == [(b"y", b"a"), (b"y", b"b"), (b"z", b"b")]
    assert learn_merges({b"abab": 1, b"ab": 3}, 5) == [(b"a", b"b"), (b"ab", b"ab")]


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
    with pytest.raises(ValueError, match=rf"none left at {reachable} ids; got vocab_size=300; give more text or"):
        Tokenizer.train(text, 300)


def test_the_number_of_reachable_ids_counts_special_tokens():
    with pytest.raises(ValueError, match="none left at 258 ids; got vocab_size=300"):
        Tokenizer.train("ab", 300, special_tokens=[EOT])
    assert Tokenizer.train("ab", 258, special_tokens=[EOT]).encode("ab") == [256]


def test_special_tokens_follow_the_base_vocabulary_and_count_inside_vocab_size(tok):
    assert tok.vocab_size == 440 and len(tok.ranks) == 437
    assert tok.special_ids == {BOS: 437, EOS: 438, EOT: 439}
    assert [tok.ranks[bytes([value])] for value in range(256)] == list(range(256))


def test_training_time_does_not_explode_on_one_endless_word():
    letters = "".join(random.Random(0).choices("ACGT", k=200_000))
    start = time.process_time()
    Tokenizer.train(letters, 400)
    assert time.process_time() - start < 3


def test_training_refuses_a_vocabulary_without_room():
    with pytest.raises(ValueError, match="256 bytes and 2 special tokens, so at least 258; got 257"):
        Tokenizer.train("abc", 257, special_tokens=[BOS, EOS])


def test_training_refuses_double_and_empty_special_tokens():
    with pytest.raises(ValueError, match=r"one id each, got \['<\|eot_id\|>'\] more than once"):
        Tokenizer.train("abc", 300, special_tokens=[EOT, BOS, EOT])
    for bad in ([""], EOT):
        with pytest.raises(ValueError, match="list of non-empty strings"):
            Tokenizer.train("abc", 300, special_tokens=bad)


# --- encoding ---------------------------------------------------------------------------------------------------------


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
        assert tok.encode(text, allowed_special="all") == tiktok.encode(text, allowed_special="all"), text


@settings(max_examples=500, deadline=None)
@given(text=st.text(st.characters(), max_size=40))
def test_ids_equal_those_of_tiktoken_on_any_characters(tok, tiktok, text):
    assert tok.encode(text) == tiktok.encode_ordinary(text)


@pytest.mark.parametrize("pattern", [LLAMA3_PATTERN, LLAMA4_PATTERN], ids=["llama 3", "llama 4"])
@settings(max_examples=1000, deadline=None)
@given(text=st.text(st.characters(max_codepoint=127), max_size=40) | st.text("'sTreVmlLd a", max_size=9) | st.text(" \na1!/A"))
@example("a12345  \n  1\n\n   !")
@example("I'M DON'T aB ABc'd!'s a\n/ /\n/")
def test_the_ascii_twin_of_a_pattern_splits_like_the_pattern(pattern, text):
    assert Splitter(pattern)(text) == regex.findall(pattern, text)


@pytest.mark.parametrize("pattern", [LLAMA3_PATTERN, LLAMA4_PATTERN], ids=["llama 3", "llama 4"])
@settings(max_examples=1000, deadline=None)
@given(text=st.text("é日²ſ\u0301\u2028\x85\x1c\xa0 aB1!/'\t\n\r", max_size=40))
@example("é!\n/a")
def test_text_cut_in_lines_splits_like_the_pattern(pattern, text):
    assert Splitter(pattern)(text) == regex.findall(pattern, text)


@pytest.mark.parametrize("pattern", [LLAMA3_PATTERN, LLAMA4_PATTERN], ids=["llama 3", "llama 4"])
@settings(max_examples=1000, deadline=None)
@given(text=st.text("é日²ſ\u0301\u2028\x85\x1c\xa0   aB1!/'\t\n\r", max_size=40))
@example("é  \n 1\t 1 \x1c !\n /a")
def test_words_apart_split_like_the_whole(pattern, text):
    split = Splitter(pattern)
    first, *words = split.words(text)
    assert [piece for word in [first, *(" " + word for word in words)] for piece in split(word)] == split(text)


def test_a_pattern_of_ones_own_is_not_cut_at_blanks():
    tok = Tokenizer(BYTES | {"é é".encode(): 256}, pattern=r"[\s\S]+")
    assert tok.encode("é é") == [256]


def test_ids_equal_those_of_hugging_face_tokenizers(tok):
    symbols = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    symbol_of = {value: chr(value) for value in symbols}
    symbol_of |= {value: chr(256 + i) for i, value in enumerate(sorted(set(range(256)) - set(symbols)))}
    written = {token: "".join(symbol_of[value] for value in token) for token in tok.ranks}
    merges = []
    for token, rank in tok.ranks.items():
        if len(token) > 1:
            left, right = merge_word(token, {other: r for other, r in tok.ranks.items() if r < rank})
            merges.append(tuple(written[tok.decode_bytes([part])] for part in (left, right)))
    model = tokenizers.models.BPE({written[token]: rank for token, rank in tok.ranks.items()}, merges, ignore_merges=True)
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
    # "ab" merges before "bc" can, so the bytes of " abc" become " ", "ab", "c" and never the token " abc"
    ranks = BYTES | {b"ab": 256, b"bc": 257, b" abc": 258}
    tok = Tokenizer(ranks)
    assert merge_word(b" abc", ranks) == [32, 256, 99]
    assert tok.encode(" abc") == [258]
    assert tok.encode(" abcd") == [32, 256, 99, 100]
    theirs = tiktoken.Encoding("by hand", pat_str=LLAMA3_PATTERN, mergeable_ranks=ranks, special_tokens={})
    assert [theirs.encode(text) for text in (" abc", " abcd")] == [[258], [32, 256, 99, 100]]


def test_588_tokens_that_merging_cannot_reach_are_taken_whole_as_in_tiktoken():
    # From the letters of "bcab" merging makes "bc" and "ab"; no token is made of those, so none beside them is reached.
    rng, ranks = random.Random(3), BYTES | {b"bc": 256, b"ab": 257}
    words = sorted({b" bcab" + bytes(rng.choices(range(97, 123), k=3)) for _ in range(700)})[:588]
    ranks |= {word: 258 + i for i, word in enumerate(words)}
    tok = Tokenizer(ranks)
    theirs = tiktoken.Encoding("by hand", pat_str=LLAMA3_PATTERN, mergeable_ranks=ranks, special_tokens={})
    for word in words:
        assert len(merge_word(word, ranks)) > 1
        assert tok.encode(word.decode()) == [ranks[word]] == theirs.encode(word.decode())
        longer = word.decode() + "é"
        assert tok.encode(longer) == theirs.encode(longer) and ranks[word] not in tok.encode(longer)


def test_the_lowest_rank_merges_first_and_the_leftmost_of_equals():
    ranks = BYTES | {b"bc": 256, b"ab": 257, b"aa": 258}
    assert merge_word(b"abc", ranks) == [97, 256]
    assert merge_word(b"aaa", ranks) == [258, 97]


@settings(max_examples=200, deadline=None)
@given(
    tokens=st.lists(st.binary(min_size=2, max_size=4).map(lambda b: bytes(97 + v % 2 for v in b)), unique=True),
    word=st.text("ab", min_size=1, max_size=40).map(str.encode),
)
def test_long_words_merge_as_short_ones(tokens, word):
    ranks = BYTES | {token: 256 + i for i, token in enumerate(tokens)}
    theirs = tiktoken.Encoding("random", pat_str=r"[\s\S]+", mergeable_ranks=ranks, special_tokens={})
    for text in (word, word * 20):  # 20 times as long is past the change to the heap
        expected = theirs.encode(text.decode())
        assert ([ranks[text]] if text in ranks else merge_word(text, ranks)) == expected


@pytest.mark.parametrize("text", ["a" * 25_000, " " * 25_000, "ab" * 12_500, "é" * 12_500, "\n\t" * 12_000 + "é"])
def test_a_very_long_run_takes_no_quadratic_time(text):
    tok = Tokenizer.train([text[:64]] * 2, 258)
    start = time.process_time()
    ids = tok.encode(text)
    assert time.process_time() - start < 1
    assert tok.decode(ids) == text


def test_lone_surrogates_become_the_replacement_character_as_in_tiktoken(tok, tiktok):
    for text in ("a\ud800b", "\udfff", "\ud83d\ude00!", "x\ud83d"):
        assert tok.encode(text) == tiktok.encode_ordinary(text)
    assert tok.decode(tok.encode("a\ud800b")) == "a\ufffdb"
    assert Tokenizer.train("a\ud800 a\ud800", 257).vocab_size == 257


def test_encoding_refuses_bytes(tok):
    with pytest.raises(TypeError, match="takes str, got bytes; decode bytes to str first"):
        unwrap(Tokenizer.encode)(tok, b"abc")


def test_the_memory_is_bounded_and_changes_no_result(tok, monkeypatch):
    rng = random.Random(2)
    texts = [random_text(rng) for _ in range(300)]
    expected = [tok.encode(text) for text in texts]
    assert [tok.encode(text) for text in texts] == expected
    monkeypatch.setattr("llama_from_scratch.tokenizer.word_cache._MEMO_TEXTS", 5)
    small = Tokenizer(tok.ranks, special_tokens=list(tok.special_ids))
    for text, ids in zip(texts, expected):
        assert small.encode(text) == ids
        assert len(small._words._ids_of) <= 5 and len(small._words._ids_after_blank) <= 5


def test_the_memory_keeps_no_long_text():
    memo = Memo(lambda text: (len(text),))
    assert [memo["a" * 64], memo["b" * 65]] == [(64,), (65,)]
    assert list(memo) == ["a" * 64]


# --- very long strings ------------------------------------------------------------------------------------------------


def cut_by_reading_each_character(text: str, slice_chars: int = 400_000, run_chars: int = 25_000) -> list[str]:
    pieces = []
    for start in range(0, len(text), slice_chars):
        piece, run = "", 0
        for char in text[start : start + slice_chars]:
            run = run + 1 if piece and piece[-1].isspace() == char.isspace() else 1
            if run > run_chars:
                pieces.append(piece)
                piece, run = "", 1
            piece += char
        pieces.append(piece)
    return pieces


def test_sixty_thousand_letters_are_cut_in_three():
    assert [len(piece) for piece in cut_long("a" * 60_000)] == [25_000, 25_000, 10_000]


@pytest.mark.parametrize(
    "runs",
    [
        [("x", 25_000), (" ", 25_000), ("y", 24_999)],
        [("x", 25_001), (" ", 3), ("y", 50_000), ("\n", 50_001)],
        [("ab ", 9_000), ("\x1c", 26_000), ("z", 1)],
        [("word ", 81_000), ("x", 30_000)],
        [("x", 399_990), (" ", 20), ("é", 30_000)],
        [("x", 12_500), (" ", 1), ("x", 24_999), (" ", 1), ("x", 25_001)],
    ],
)
def test_long_text_is_cut_where_reading_each_character_cuts_it(runs):
    text = "".join(part * times for part, times in runs)
    assert list(cut_long(text)) == cut_by_reading_each_character(text)


def test_encoding_cuts_long_text_before_anything_else(tok):
    text = "a" * 30_000 + " the cat"
    assert tok.encode(text) == [id for piece in cut_long(text) for id in tok.encode(piece)]
    odd = Tokenizer(BYTES | {b"aaa": 256, b"aa": 257})  # 25,000 is no multiple of 3: the cut shows in the ids
    assert odd.encode("a" * 25_002)[-2:] == [97, 257]


@pytest.mark.parametrize("pattern", [LLAMA3_PATTERN, LLAMA4_PATTERN], ids=["llama 3", "llama 4"])
@pytest.mark.parametrize("part", ["the cat ", "the cät, ", "日本", "x1 \n"])
def test_slices_of_400_000_characters_are_encoded_apart(tok, pattern, part):
    tok = Tokenizer(tok.ranks, pattern=pattern)
    theirs = tiktoken.Encoding("slices", pat_str=pattern, mergeable_ranks=tok.ranks, special_tokens={})
    text = (part * 120_000)[7:900_000]
    expected = [id for piece in cut_by_reading_each_character(text) for id in theirs.encode_ordinary(piece)]
    assert tok.encode(text) == expected


# --- special tokens ---------------------------------------------------------------------------------------------------


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
        with pytest.raises(ValueError, match=r"got \['<\|eot\|>'\]; it has .*eot_id"):
            tok.encode("hi", **names)


def test_begin_and_end_are_added_when_asked_for(tok):
    assert tok.encode("hi", bos=True, eos=True) == [tok.bos_id, *tok.encode("hi"), tok.eos_id]
    assert tok.encode("", bos=True) == [437] and tok.encode("") == []
    assert tok.decode([tok.bos_id, *tok.encode("hi")]) == f"{BOS}hi"


def test_a_vocabulary_without_begin_and_end_says_so():
    plain = Tokenizer(BYTES, special_tokens=[EOT])
    with pytest.raises(ValueError, match=r"needs the special token '<\|begin_of_text\|>'.*special_tokens when training"):
        plain.encode("hi", bos=True)
    with pytest.raises(ValueError, match=r"needs the special token '<\|end_of_text\|>'"):
        _ = plain.eos_id


# --- decoding and files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", [-1, 440, 10**9])
def test_decoding_refuses_ids_outside_the_vocabulary(tok, id):
    with pytest.raises(ValueError, match=rf"0 to vocab_size - 1 = 439, got {id}"):
        tok.decode([0, id])


def test_half_a_character_decodes_to_the_replacement_character(tok):
    assert tok.decode(list("é".encode()[:1])) == "\ufffd"


def test_a_saved_tokenizer_loads_as_it_was_and_leaves_no_other_file(tok, tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_text("an old file")
    tok.save(path)
    again = Tokenizer.load(path, special_tokens=list(tok.special_ids))
    assert (again.ranks, again.special_ids) == (tok.ranks, tok.special_ids)
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.model"]
    assert path.read_bytes().splitlines()[97] == base64.b64encode(b"a") + b" 97"
    assert load_tiktoken_bpe(str(path)) == tok.ranks


def test_a_save_that_fails_leaves_the_old_file(tok, tmp_path, monkeypatch):
    def fail(*paths):
        raise OSError("disk full")

    (tmp_path / "t").write_text("an old file")
    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        tok.save(tmp_path / "t")
    assert (tmp_path / "t").read_text() == "an old file"


def test_blank_and_crlf_lines_of_a_rank_file_are_tolerated(tmp_path):
    lines = [base64.b64encode(token) + b" %d" % rank for token, rank in BYTES.items()]
    (tmp_path / "t").write_bytes(b"\r\n\r\n".join(lines) + b"\n \n")
    assert Tokenizer.load(tmp_path / "t").ranks == BYTES


def test_ranks_of_another_order_than_the_bytes_are_kept(tmp_path):
    ranks = {bytes([value]): 255 - value for value in range(256)}  # as Meta's file, where rank 0 is "!"
    Tokenizer(ranks).save(tmp_path / "t")
    assert Tokenizer.load(tmp_path / "t").encode("a") == [255 - 97]


@pytest.mark.parametrize(
    "line, message",
    [
        (b"!!! 256", "line 257"),
        (b"YWI=", "line 257"),
        (b"YWI= x", "line 257"),
        (b"YWI= 256 0", "line 257"),
        (b"YQ== 256", "got b'a' again in line 257"),
        (b"YWI= 257", "257 tokens have the ranks 0 to 256, each once, got none with rank 256"),
        (b"YWI= 255", "257 tokens have the ranks 0 to 256, each once, got none with rank 256"),
    ],
)
def test_a_malformed_rank_file_is_refused_with_its_line(tmp_path, line, message):
    Tokenizer(BYTES).save(tmp_path / "t")
    with open(tmp_path / "t", "ab") as file:
        file.write(line)
    with pytest.raises(ValueError, match=re.escape(message)):
        Tokenizer.load(tmp_path / "t")


def test_ranks_without_every_byte_or_with_an_empty_token_are_refused(tmp_path):
    (tmp_path / "t").write_bytes(b"")
    with pytest.raises(ValueError, match=r"256 bytes is a token; got ranks without \[0, 1, .* 256 in all"):
        Tokenizer.load(tmp_path / "t")
    with pytest.raises(ValueError, match=r"at least one byte, got b'' at rank 256"):
        Tokenizer(BYTES | {b"": 256})


# --- patterns and copies ----------------------------------------------------------------------------------------------


def test_another_pattern_cuts_elsewhere():
    tok = Tokenizer.train("ab ab", 259, pattern=r"[\s\S]+")
    assert (tok.ranks[b"ab ab"], tok.encode("abab ab")) == (258, [256, 258])


def test_a_pattern_that_loses_text_or_has_groups_is_refused():
    with pytest.raises(ValueError, match=r"matches every character, but '\[a-z\]\+' keeps 4 of 5; end it with"):
        Tokenizer(BYTES, pattern="[a-z]+").encode("ab cd")
    with pytest.raises(ValueError, match="no capturing groups, got 1"):
        Tokenizer(BYTES, pattern="([a-z]+)")


def test_a_tokenizer_can_be_sent_to_another_process(tok):
    again = pickle.loads(pickle.dumps(tok))
    assert again.encode(CORPUS, bos=True) == tok.encode(CORPUS, bos=True)
    assert (again.vocab_size, again.pattern) == (tok.vocab_size, tok.pattern)
