"""Special tokens, patterns and known ids of what was released, on rank files made here."""

import random
import time

import pytest
import tiktoken
from released_tokens import IN_NO_TEXT, KNOWN_3, KNOWN_4, in_order, ranks_with

from llama_from_scratch.tokenizer import Tokenizer, hugging_face
from llama_from_scratch.tokenizer.released import (
    LLAMA_3,
    LLAMA_3_1,
    LLAMA_3_2_VISION,
    LLAMA_4,
    SPECIAL_TOKENS,
    llama_3,
    llama_4,
    load,
)
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece
from llama_from_scratch.tokenizer.split import LLAMA3_PATTERN, LLAMA4_PATTERN


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("released")
    Tokenizer(ranks_with(KNOWN_3, in_order([]), 128_000)).save(folder / "3.model")
    Tokenizer(ranks_with(KNOWN_4, in_order(IN_NO_TEXT), 200_000)).save(folder / "4.model")
    return folder


@pytest.fixture(scope="module")
def tok_3(files) -> Tokenizer:
    return llama_3(files / "3.model")


@pytest.fixture(scope="module")
def tok_4(files) -> Tokenizer:
    return llama_4(files / "4.model")


@pytest.mark.parametrize(
    "text, ids",
    [
        ("This is a test sentence.", [2028, 374, 264, 1296, 11914, 13]),
        ("Hello, world!", [9906, 11, 1917, 0]),
        (" Hello", [22691]),
        ("  two  spaces", [220, 1403, 220, 12908]),
        ("\n", [198]),
        ("\n\n", [271]),
        ("system", [9125]),
        ("assistant", [78191]),
        ("1234567890", [4513, 10961, 16474, 15]),
        ("don't DON'T", [15357, 956, 45373, 17773]),
        ("héllo", [71, 19010, 385]),
        ("   ", [262]),
        ("\t\tif x:\r\n", [197, 748, 865, 2904]),
        ("<|eot_id|>", [27, 91, 68, 354, 851, 91, 29]),
    ],
)
def test_known_tokens_of_llama_3_give_the_released_ids(tok_3, text, ids):
    assert tok_3.encode(text) == ids
    assert tok_3.decode(ids) == text


@pytest.mark.parametrize(
    "text, ids",
    [
        ("This is a test sentence.", [3231, 373, 262, 1600, 17705, 26]),
        ("Hello, world!", [19873, 24, 3817, 13]),
        ("\n\n", [368]),
        ("system", [15651]),
        ("assistant", [140680]),
        ("1234567890", [7235, 19596, 30054, 28]),
        ("don't", [127161]),
        ("I'm I'M", [23752, 5384, 57]),
        ("x/y//z\n/", [100, 28889, 405, 102, 198, 27]),
    ],
)
def test_known_tokens_of_llama_4_give_the_released_ids(tok_4, text, ids):
    assert tok_4.encode(text) == ids
    assert tok_4.decode(ids) == text


@pytest.mark.parametrize(
    "table, names",
    [
        (LLAMA_3, {
            0: "begin_of_text", 1: "end_of_text", 2: "reserved_special_token_0",
            4: "reserved_special_token_2", 5: "reserved_special_token_3", 6: "start_header_id",
            7: "end_header_id", 8: "reserved_special_token_4", 9: "eot_id",
            10: "reserved_special_token_5", 255: "reserved_special_token_250",
        }),
        (LLAMA_3_1, {
            2: "reserved_special_token_0", 4: "finetune_right_pad_id",
            5: "reserved_special_token_2", 8: "eom_id", 9: "eot_id", 10: "python_tag",
            11: "reserved_special_token_3", 255: "reserved_special_token_247",
        }),
        (LLAMA_3_2_VISION, {
            5: "step_id", 11: "reserved_special_token_2", 255: "reserved_special_token_246",
            256: "image",
        }),
        (LLAMA_4, {
            0: "begin_of_text", 4: "fim_suffix", 5: "header_start", 9: "step",
            10: "text_post_train_reserved_special_token_0",
            15: "text_post_train_reserved_special_token_5", 16: "python_start",
            18: "finetune_right_pad", 19: "text_post_train_reserved_special_token_8",
            79: "text_post_train_reserved_special_token_68", 80: "image_start", 81: "image_end",
            83: "vision_reserved_special_token_1", 85: "tile_y_separator",
            86: "vision_reserved_special_token_2", 90: "image",
            91: "vision_reserved_special_token_6", 92: "patch",
            93: "vision_reserved_special_token_7", 1133: "vision_reserved_special_token_1047",
            1134: "reasoning_reserved_special_token_0", 1141: "reasoning_reserved_special_token_7",
            1142: "reasoning_thinking_start", 1143: "reasoning_thinking_end",
            1144: "reserved_special_token_0", 2047: "reserved_special_token_903",
        }),
    ],
    ids=["3", "3.1", "3.2 vision", "4"],
)  # fmt: skip
def test_special_tokens_stand_where_they_were_released(table, names):
    assert {i: table[i] for i in names} == {i: f"<|{name}|>" for i, name in names.items()}
    assert len(set(table)) == len(table) == {LLAMA_3_2_VISION: 257, LLAMA_4: 2048}.get(table, 256)


def test_patterns_are_to_the_letter_those_of_the_published_files():
    # files name their pattern, and a fast twin is known for these two alone
    tail = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    assert LLAMA3_PATTERN == (
        tail + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    assert LLAMA4_PATTERN == (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        + tail
        + r"?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        + tail
        + "?|"
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


def test_vocabularies_have_the_released_sizes_and_begin_and_end(files, tok_3, tok_4):
    assert (tok_3.vocab_size, tok_3.bos_id, tok_3.eos_id) == (128_256, 128_000, 128_001)
    assert (tok_4.vocab_size, tok_4.bos_id, tok_4.eos_id) == (202_048, 200_000, 200_001)
    assert tok_3.special_ids["<|eom_id|>"] == 128_008 and tok_4.special_ids["<|patch|>"] == 200_092
    vision = load(files / "3.model", "llama-3.2-vision")
    assert vision.special_ids["<|image|>"] == 128_256 and vision.vocab_size == 128_257


def test_each_generation_loads_with_its_own_names_and_pattern(files, tmp_path):
    for generation, names in SPECIAL_TOKENS.items():
        tok = load(files / ("4.model" if generation == "llama-4" else "3.model"), generation)
        assert tuple(tok.special_ids) == names
        assert tok.pattern == (LLAMA4_PATTERN if generation == "llama-4" else LLAMA3_PATTERN)
    SentencePiece.train("the cat", 285).save(tmp_path / "tokenizer.model")
    for generation in ("llama-1", "llama-2"):
        assert load(tmp_path / "tokenizer.model", generation).vocab_size == 285


def test_a_file_of_another_generation_is_refused(files, tmp_path):
    SentencePiece.train("the cat", 285).save(tmp_path / "tokenizer.model")
    with pytest.raises(ValueError, match="each line of a rank file must be a token in base64"):
        load(tmp_path / "tokenizer.model", "llama-3")
    with pytest.raises(ValueError, match="cannot be read as a SentencePiece model"):
        load(files / "3.model", "llama-2")
    with pytest.raises(ValueError, match="one of llama-1, llama-2, llama-3, .*; got 'llama-5'"):
        load(files / "3.model", "llama-5")


def test_a_token_of_llama_3_that_merging_cannot_reach_is_taken_whole():
    # Its parts, with what they are merged from, and no token " việ": so it is with 588 of 128,000.
    placed = {b" v": 348, b" vi": 3355, "ệ".encode()[:2]: 15_000, "ệ".encode(): 26_298}
    placed |= {" việc".encode(): 100_769}
    others = ranks_with({}, in_order([]), 128_000)
    taken = set(placed.values())
    ranks = {token: rank for token, rank in others.items() if rank not in taken}
    tok = Tokenizer(ranks | placed)
    assert tok.encode(" việc") == [100_769]
    assert tok.encode(" việcz") == [3355, 26_298, 66, 89]


@pytest.fixture(scope="module")
def every(files, tmp_path_factory):
    """A tokenizer of each kind from its own file, and from a tokenizer.json."""
    folder = tmp_path_factory.mktemp("every")
    SentencePiece.train("the cat sat on the mat, " * 3, 290).save(folder / "2.model")
    found = {
        "llama-2": load(folder / "2.model", "llama-2"),
        "llama-3": load(files / "3.model", "llama-3.1"),
        "llama-4": load(files / "4.model", "llama-4"),
    }
    for name, tok in list(found.items()):
        small = tok if name == "llama-2" else Tokenizer.train("the cat", 260, pattern=tok.pattern)
        path = folder / "tokenizer.json"
        hugging_face.write(path, small)
        found[f"{name} tokenizer.json"] = hugging_face.read_tokenizer(path)
    return found


NAMES = ("llama-2", "llama-3", "llama-4")
KINDS = [name + form for name in NAMES for form in ("", " tokenizer.json")]


@pytest.mark.parametrize("name", KINDS)
def test_lone_surrogates_become_the_replacement_character_in_every_tokenizer(every, name):
    tok = every[name]
    for text, same in (
        ("a\ud800b", "a\ufffdb"),
        ("\udfff", "\ufffd"),
        ("\ud83d\ude00", "😀"),
        ("é \udc80 é", "é \ufffd é"),
    ):
        assert tok.encode(text) == tok.encode(same) and tok.decode(tok.encode(text)) == same


@pytest.mark.parametrize("name", KINDS)
def test_a_megabyte_of_one_character_takes_less_than_a_second_in_every_tokenizer(every, name):
    tok = every[name]
    for char in ("a", " ", "\n", "é", "👍", "\ud800", "!", "\u0301"):
        text = char * (1_000_000 // len(char.encode("utf-8", "surrogatepass")))
        start = time.process_time()
        ids = tok.encode(text)
        assert time.process_time() - start < 1, ascii(char)
        assert tok.decode(ids) == text.replace("\ud800", "\ufffd")


@pytest.mark.parametrize("pattern", [LLAMA3_PATTERN, LLAMA4_PATTERN], ids=["llama 3", "llama 4"])
def test_ids_equal_those_of_tiktoken_on_random_texts(pattern):
    corpus = (
        "The cat's hat, I'M sure THEY'LL say:\n\tdef f(x1):\n    return x/y\n"
        "/* naïve */ Ünï ΑΒγ 日本 123456 ½\r\n\r\n"
    )
    tok = Tokenizer.train([corpus] * 2, 320 + 256, special_tokens=LLAMA_3_1, pattern=pattern)
    theirs = tiktoken.Encoding(
        "made here",
        pat_str=pattern,
        mergeable_ranks=tok.ranks,
        special_tokens=tok.special_ids,
    )
    rng = random.Random(0)
    parts = [*corpus.split(" "), *corpus, *" \n\t/'sSǅʰ\u0301ſaA!<>|", *LLAMA_3_1[:12]]
    for _ in range(5000):
        text = "".join(rng.choices(parts, k=rng.randint(0, 12)))
        assert tok.encode(text) == theirs.encode_ordinary(text), text
        ids = tok.encode(text, allowed_special="all")
        assert ids == theirs.encode(text, allowed_special="all"), text


def test_a_rank_file_without_its_last_lines_is_refused(files, tmp_path):
    lines = (files / "3.model").read_bytes().splitlines(keepends=True)
    (tmp_path / "cut").write_bytes(b"".join(lines[:-10]))
    message = "must have 128,000 ranks; got 127,990 in .*cut"
    for reading in (llama_3, lambda path: load(path, "llama-3.1")):
        with pytest.raises(ValueError, match=message):
            reading(tmp_path / "cut")
    with pytest.raises(ValueError, match="must have 200,000 ranks"):
        llama_4(files / "3.model")


def test_a_small_rank_file_of_ones_own_is_read_where_its_length_is_said(tmp_path):
    Tokenizer.train("the cat " * 9, 260).save(tmp_path / "t")
    assert load(tmp_path / "t", "llama-3", n_ranks=260).special_ids["<|begin_of_text|>"] == 260
    assert llama_4(tmp_path / "t", n_ranks=260).vocab_size == 260 + len(LLAMA_4)
    with pytest.raises(ValueError, match="must have 261 ranks"):
        llama_3(tmp_path / "t", n_ranks=261)
