"""Tokenizers of well-known layouts give the ids and texts of the tokenizers library."""

import json
import pickle
import random

import pytest
import tokenizers
from json_layouts import LAYOUTS, layout
from tokenizer_texts import random_text
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llama_from_scratch.tokenizer import hugging_face
from llama_from_scratch.tokenizer.hugging_face import JsonTokenizer

SAMPLES = [
    "", " ", "  ", "\n", "a", " a", "  a", "a ", "a  b", "Hello, world!", " Hello", "\n\nHi\n",
    "the cat sat 2024 times", "don't DON'T I'll", "x = [1, 22, 333, 4444]\n    y", "😀", "a😀 😀b",
    "naïve ünï", "中文字 中", "\t\ttab", "e\u0301", "\u200b", "\x00", "▁", "a▁b", "Ġa", "<0x0A>",
    " <s> x", "<s>a</s>", "a<s>b", "a <s> b</s>", "\u3000wide", "thx the that", "xxaxx",
]


def texts(theirs, n=350):
    """Samples, and random texts with added tokens, blanks and line ends around them."""
    rng, added = random.Random(0), [t.content for t in theirs.get_added_tokens_decoder().values()]
    yield from SAMPLES
    for name in added:
        yield from (name, f" {name} ", f"a{name}b", f"a {name} b", f"\n{name}\n x", name + name)
    for _ in range(n):
        yield random_text(rng, added, characters=0x30000)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_gives_the_ids_and_the_texts_of_the_reference(name, tmp_path):
    theirs, path = layout(name), tmp_path / "tokenizer.json"
    theirs.save(str(path))
    ours = hugging_face.read_tokenizer(path)
    assert ours.vocab_size == theirs.get_vocab_size()
    is_bytes, special = '"type":"ByteLevel"' in theirs.to_str(), set(ours.special_ids.values())
    for text in texts(theirs):
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, allowed_special="all") == ids, text
        if not is_bytes:  # the reference shows special tokens or not, as they are normalized or not
            ids = [i for i in ids if i not in special]
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False), text


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_read_is_written_so_that_both_libraries_give_the_same_ids(name, tmp_path):
    theirs, path = layout(name), tmp_path / "tokenizer.json"
    theirs.save(str(path))
    ours = hugging_face.read_tokenizer(path)
    hugging_face.write(path, ours)
    again, back = tokenizers.Tokenizer.from_file(str(path)), hugging_face.read_tokenizer(path)
    assert type(back) is type(ours) and back.special_ids == ours.special_ids
    for text in texts(theirs, n=60):
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert again.encode(text, add_special_tokens=False).ids == ids
        assert back.encode(text, allowed_special="all") == ids


@pytest.mark.parametrize("name", ["SmolLM", "R1-Distill", "TinyLlama with ChatML", "every flag"])
def test_what_transformers_saves_gives_its_ids(name, tmp_path):
    PreTrainedTokenizerFast(tokenizer_object=layout(name)).save_pretrained(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    ours = hugging_face.read_tokenizer(tmp_path / "tokenizer.json")
    assert isinstance(ours, JsonTokenizer)
    for text in texts(layout(name), n=60):
        ids = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text, allowed_special="all") == ids, text


def test_special_strings_are_ordinary_text_unless_they_are_allowed(tmp_path):
    path = tmp_path / "tokenizer.json"
    layout("R1-Distill").save(str(path))
    ours = hugging_face.read_tokenizer(path)
    begin = "<｜begin▁of▁sentence｜>"
    assert ours.bos == begin and ours.adds_bos and ours.bos_id == ours.special_ids[begin]
    assert ours.encode("a", bos=True)[0] == ours.bos_id
    assert ours.bos_id not in ours.encode(begin) and ours.decode(ours.encode(begin)) == begin
    assert ours.encode(begin, allowed_special={begin}) == [ours.bos_id]
    think = ours.parts.ids["<think>"]
    assert think in ours.encode("a<think>b"), "a token that is not special is always found"
    with pytest.raises(ValueError, match="disallowed special tokens; got '<｜begin"):
        ours.encode(begin, disallowed_special="all")


@pytest.mark.parametrize("name", ["SmolLM", "Metaspace first and more"])
def test_halves_decode_to_the_bytes_of_the_whole_and_copies_encode_alike(name, tmp_path):
    layout(name).save(str(tmp_path / "tokenizer.json"))
    ours = hugging_face.read_tokenizer(tmp_path / "tokenizer.json")
    copy = pickle.loads(pickle.dumps(ours))
    text = "the naïve 😀 cat"
    ids = ours.encode(text)
    assert copy.encode(text) == ids == ours.encode_batch([text, text], n_workers=2)[1]
    for cut in range(len(ids)):
        whole = ours.decode_bytes(ids[:cut]) + ours.decode_bytes(ids[cut:])
        assert whole.decode().removeprefix(" ") == text
    with pytest.raises(ValueError, match="ids run from 0"):
        ours.decode([ours.vocab_size])


def test_a_text_with_a_byte_that_has_no_token_is_refused_and_not_shortened(tmp_path):
    file = json.loads(layout("SmolLM").to_str())
    vocab = file["model"]["vocab"]
    lost = hugging_face.vocabulary.SYMBOL_OF[0xF0]
    keep = [name for name in sorted(vocab, key=vocab.__getitem__) if lost not in name]
    file["model"]["vocab"] = {name: i for i, name in enumerate(keep)}
    file["model"]["merges"] = [m for m in file["model"]["merges"] if lost not in "".join(m)]
    ours = hugging_face.from_json(file)
    assert ours.decode(ours.encode("naïve cat")) == "naïve cat"
    with pytest.raises(ValueError, match="none for the byte 0xf0 in ' 😀'"):
        ours.encode("a 😀")


def test_a_frame_that_the_files_do_not_name_is_asked_for_in_vain(tmp_path):
    layout("SmolLM").save(str(tmp_path / "tokenizer.json"))
    ours = hugging_face.read_tokenizer(tmp_path / "tokenizer.json")
    assert not ours.adds_bos
    with pytest.raises(ValueError, match="needs the bos_token of the tokenizer; "):
        ours.encode("a", bos=True)
    with pytest.raises(ValueError, match="needs the eos_token"):
        _ = ours.eos_id
