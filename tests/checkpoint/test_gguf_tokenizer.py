import json

import gguf as reference
import pytest
import tokenizers
from gguf_reference import STRANGE, by_their_writer, their_facts, write
from tiny_checkpoints import TEXT, large_tokenizer, tiny, tokenizer_for

from llama_from_scratch import family
from llama_from_scratch.checkpoint import gguf
from llama_from_scratch.tokenizer import released
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.hugging_face.writing import to_json
from llama_from_scratch.tokenizer.pieces import Kind

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = Kind
TEXTS = (TEXT, STRANGE, "", " ", "  two  blanks ", "a\nb\t c", "1234567", "don't DON'T")


@pytest.mark.parametrize("generation", family.GENERATIONS)
def test_the_tokenizer_comes_back_with_the_model(generation, tmp_path):
    tokenizer = tokenizer_for(generation)
    path = write(tmp_path, tiny(generation, vocab_size=540), generation=generation)
    back = gguf.open_checkpoint(path).tokenizer()
    assert type(back) is type(tokenizer) and back.vocab_size == tokenizer.vocab_size == 520
    assert (back.special_ids, back.bos_id,
            back.eos_id) == (tokenizer.special_ids, tokenizer.bos_id, tokenizer.eos_id)
    for text in (TEXT, STRANGE):
        assert back.encode(text, bos=True) == tokenizer.encode(text, bos=True)
        assert back.encode(text,
                           allowed_special="all") == tokenizer.encode(text, allowed_special="all")
    tokens = reference.GGUFReader(path).fields["tokenizer.ggml.tokens"].contents()
    assert len(tokens) == 540, "as many as the embedding has rows"


def test_a_tokenizer_that_does_not_belong_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must belong together"):
        gguf.write(tmp_path / "m.gguf", tiny(), tokenizer=large_tokenizer(600))
    other = Tokenizer(tokenizer_for("llama-3").ranks, special_tokens=released.LLAMA_3,
                      pattern=r"\w+|\W+")
    with pytest.raises(ValueError, match="can name only the split patterns of Llama 3 and 4"):
        gguf.write(tmp_path / "m.gguf", tiny(), tokenizer=other)
    opened = gguf.open_checkpoint(by_their_writer(tmp_path / "none.gguf", tiny()))
    with pytest.raises(ValueError, match=r"tokenizer.ggml.model must be \"llama\""):
        opened.tokenizer()


def opened(tmp_path, generation, facts, **changes):
    path = by_their_writer(tmp_path / "m.gguf", tiny(generation, **changes),
                           facts=their_facts(facts))
    return gguf.open_checkpoint(path)


def of_pieces():
    """What converters of today write for Llama 2, as Python's values."""
    pieces = tokenizer_for("llama-2").pieces
    return {"model": "llama", "pre": "default", "tokens": [piece.text for piece in pieces],
            "scores": [piece.score for piece in pieces],
            "token_type": [int(piece.kind) for piece in pieces],
            "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, "padding_token_id": 0,
            "add_bos_token": True, "add_eos_token": False}


def of_bytes(generation="llama-3.1"):
    """What converters of today write for Llama 3."""
    tokenizer = tokenizer_for(generation)
    model = to_json(tokenizer)["model"]
    special = list(tokenizer.special_ids)
    return {"model": "gpt2", "pre": "llama-bpe", "tokens": [*model["vocab"], *special],
            "token_type": [NORMAL] * len(model["vocab"]) + [CONTROL] * len(special),
            "merges": model["merges"], "bos_token_id": tokenizer.bos_id,
            "eos_token_id": tokenizer.special_ids["<|eot_id|>"]}


def same_ids(a, b, **how):
    return all(a.encode(text, bos=True, **how) == b.encode(text, bos=True, **how)
               for text in TEXTS)


CONTROLLED = [CONTROL if i < 3 else kind for i, kind in enumerate(of_pieces()["token_type"])]


@pytest.mark.parametrize(("changes", "without"), [
    ({}, ()),
    ({"token_type": CONTROLLED}, ()),  # the unknown piece of Llama 2 by today's converter
    ({"token_type": CONTROLLED}, ("unknown_token_id", "bos_token_id", "eos_token_id")),
    ({}, ("token_type",)),
    ({}, ("token_type", "unknown_token_id", "bos_token_id", "eos_token_id", "pre")),
    ({"token_type": (of_pieces()["token_type"], "UINT8"),
      "scores": (of_pieces()["scores"], "FLOAT64")}, ("add_bos_token", "add_eos_token")),
    ({"token_type": (of_pieces()["token_type"], "INT64"), "bos_token_id": (1, "INT64"),
      "eot_token_id": (-1, "INT32"), "eom_token_id": 2**32 - 1, "padding_token_id": 32000}, ()),
    ({"add_bos_token": False, "add_eos_token": True, "fim_pre_token_id": 3,
      "precompiled_charsmap": ([1, 2], "UINT8"), "merges": ["a b"]}, ()),
])
def test_pieces_of_old_and_new_converters_give_the_same_ids(changes, without, tmp_path):
    facts = {key: value for key, value in (of_pieces() | changes).items() if key not in without}
    checkpoint = opened(tmp_path, "llama-2", facts)
    found, wanted = checkpoint.tokenizer(), tokenizer_for("llama-2")
    assert same_ids(found, wanted) and same_ids(found, wanted, allowed_special="all")
    assert (found.unknown_id, found.bos_id, found.eos_id) == (0, 1, 2)
    assert checkpoint.stop_ids == {2} and found.prefix == "always"


def test_tokens_of_every_type_keep_their_ids(tmp_path):
    """A vocabulary with tokens added behind it, a hole between, and padding at the end."""
    facts = of_pieces()
    n = 500
    added = {"[PAD500]": UNUSED, "<|im_end|>": USER_DEFINED, "  \n": USER_DEFINED,
             "<pad>": CONTROL, "[PAD504]": UNUSED, "[PAD505]": UNUSED}
    facts |= {"tokens": [*facts["tokens"][:n], *added],
              "token_type": [*facts["token_type"][:n], *added.values()],
              "scores": [*facts["scores"][:n], *(-1000.0 for _ in added)],
              "eos_token_id": n + 1, "eot_token_id": n + 3, "add_space_prefix": False}
    checkpoint = opened(tmp_path, "llama-2", facts, vocab_size=n + len(added))
    found = checkpoint.tokenizer()
    assert found.vocab_size == n + 4, "padding at the end has no ids"
    assert found.prefix == "never" and found.eos_id == n + 1
    assert checkpoint.stop_ids == {n + 1, n + 3}
    assert found.encode("<pad><|im_end|>", allowed_special="all") == [n + 3, n + 1]
    assert found.encode("a  \nb")[1:-1] == [n + 2], "a user-defined piece is found in any text"
    assert found.decode([n, n + 1, n + 2, n + 3]) == "  \n", "rows of no token are no text"
    assert {piece.kind for piece in found.pieces} == {NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE}


def test_padding_of_any_length_is_none_of_the_tokenizers(tmp_path):
    facts = of_pieces()
    more = 1000
    facts |= {"tokens": facts["tokens"] + [f"[PAD{520 + i}]" for i in range(more)],
              "token_type": facts["token_type"] + [UNUSED] * more,
              "scores": facts["scores"] + [-1000.0] * more}
    found = opened(tmp_path, "llama-2", facts, vocab_size=520 + more).tokenizer()
    assert found.vocab_size == 520 and same_ids(found, tokenizer_for("llama-2"))


MARKED = of_bytes()["token_type"]
EOT = tokenizer_for("llama-3.1").special_ids["<|eot_id|>"]


@pytest.mark.parametrize(("changes", "without"), [
    ({}, ()),
    ({}, ("pre",)), ({"pre": "default"}, ()), ({"pre": "llama3"}, ()), ({"pre": "llama-v3"}, ()),
    ({"scores": [0.0] * 520}, ("pre",)),
    ({}, ("pre", "token_type", "bos_token_id", "eos_token_id")),
    ({"token_type": [NORMAL] * 520}, ()),
    ({"token_type": MARKED[:EOT] + [USER_DEFINED] * (520 - EOT)}, ()),
    ({"token_type": [*MARKED[:-2], UNKNOWN, USER_DEFINED]}, ()),
    ({"token_type": [*MARKED[:-3], UNUSED, CONTROL, CONTROL]}, ()),
    ({"token_type": [BYTE] * 256 + MARKED[256:]}, ()),
    ({"token_type": (MARKED, "UINT16"), "padding_token_id": -1}, ()),
])
def test_tokens_of_old_and_new_converters_give_the_same_ids(changes, without, tmp_path):
    facts = {key: value for key, value in (of_bytes() | changes).items() if key not in without}
    checkpoint = opened(tmp_path, "llama-3.1", facts)
    found, wanted = checkpoint.tokenizer(), tokenizer_for("llama-3.1")
    assert found.special_ids == wanted.special_ids and found.ranks == wanted.ranks
    assert same_ids(found, wanted) and same_ids(found, wanted, allowed_special="all")
    assert EOT in checkpoint.stop_ids


def test_an_end_with_a_name_of_its_own_is_a_special_token_whatever_its_type(tmp_path):
    """As models that were tuned for other chats have it, in place of a reserved one."""
    facts = of_bytes()
    facts["tokens"][515], facts["token_type"][515] = "<|im_end|>", NORMAL
    found = opened(tmp_path, "llama-3.1", facts | {"eos_token_id": 515})
    assert found.stop_ids == {515}
    assert found.tokenizer().encode("a<|im_end|>", allowed_special="all")[1:] == [515]


@pytest.mark.parametrize(("generation", "changes", "message"), [
    ("llama-3.1", {"pre": "qwen2"}, r"must name the steps that cut the text, one of llama-bpe, .*; "
     r"got 'qwen2'. Load the checkpoint that the file was made from, or another conversion of it"),
    ("llama-3.1", {"pre": 3}, r"one of llama-bpe, .*; got 3"),
    ("llama-3.1", {"pre": ["llama-bpe"]}, r"one of llama-bpe, .*; got \['llama-bpe'\]"),
    ("llama-3.1", {"merges": [1, 2]}, r"merges must be a list of texts; got array"),
    ("llama-3.1", {"tokens": ["a"] * 520}, r"one occurs twice"),
    ("llama-3.1", {"bos_token_id": 520}, r"bos_token_id must be an id below 520; got 520"),
    ("llama-3.1", {"token_type": [0] * 520}, r"a number from 1 to 6 for each token; got \[0\]"),
    ("llama-3.1", {"token_type": [1] * 519}, r"token_type must be a list of 520 whole numbers"),
    ("llama-3.1", {"token_type": [1.0] * 520}, r"token_type must be a list of 520 whole numbers"),
    ("llama-3.1", {"model": "bert"}, r"or \"gpt2\" \(byte-level BPE\); got 'bert'"),
    ("llama-3.1", {"model": [1, 2]}, r"\(byte-level BPE\); got array"),
    ("llama-2", {"scores": [0.0] * 519}, r"scores must be a list of 520 numbers; got"),
    ("llama-2", {"scores": [float("inf")] * 520}, r"a piece must have a finite score"),
    ("llama-2", {"add_space_prefix": 1}, r"add_space_prefix must be true or false; got 1"),
    ("llama-2", {"bos_token_id": -1}, r"bos_token_id names none"),
    ("llama-2", {"bos_token_id": "1"}, r"bos_token_id must be an id below 520; got '1'"),
    ("llama-2", {"unknown_token_id": 600}, r"unknown_token_id must be an id below 520; got 600"),
])
def test_what_is_no_tokenizer_of_a_llama_is_refused_with_its_file(
    generation, changes, message, tmp_path
):
    facts = (of_bytes() if generation == "llama-3.1" else of_pieces()) | changes
    with pytest.raises(ValueError, match=rf"m.gguf.* cannot be read: .*{message}"):
        opened(tmp_path, generation, facts).tokenizer()


def test_an_unnamed_pattern_of_a_vocabulary_that_is_no_llamas_is_refused(tmp_path):
    facts = of_bytes()
    facts["tokens"][facts["bos_token_id"]] = "<bos>"
    del facts["pre"]
    with pytest.raises(ValueError, match=r"one of llama-bpe, .*; got None"):
        opened(tmp_path, "llama-3.1", facts).tokenizer()


@pytest.mark.parametrize(("key", "value"), [
    ("eos_token_id", 520), ("eot_token_id", "2"), ("eom_token_id", [1, 2]), ("eos_token_id", True),
])
def test_an_end_that_is_no_id_is_refused_with_its_file(key, value, tmp_path):
    with pytest.raises(ValueError, match=rf"{key} must be an id below 520; got .* in .*m.gguf"):
        opened(tmp_path, "llama-3.1", of_bytes() | {key: value})


@pytest.mark.parametrize(("pre", "steps"), [
    ("gpt-2", []), ("smollm", [{"type": "Digits", "individual_digits": True}])])
def test_models_that_cut_otherwise_are_read_by_the_name_of_their_steps(pre, steps, tmp_path):
    facts = of_bytes() | {"pre": pre}
    facts["tokens"][515], facts["token_type"][515] = "<|im_end|>", USER_DEFINED
    found = opened(tmp_path, "llama-3.1", facts).tokenizer()
    text = "the cat, 1234 rats  sat<|im_end|>\n"
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True,
                  "trim_offsets": True}
    file = found.parts.file | {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "post_processor": None, "decoder": byte_level,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*steps, byte_level]}}
    file["added_tokens"] = [
        {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False} | entry
        for entry in file["added_tokens"]]
    theirs = tokenizers.Tokenizer.from_str(json.dumps(file))
    assert found.encode(text) == theirs.encode(text, add_special_tokens=False).ids
    assert 515 in found.encode(text), "added tokens that are not special are always found"
