"""Files of every kind that a Llama has are read, and others refused."""

import json
import random
import re
import time

import pytest
import tokenizers
from tokenizer_json_reference import assert_same_ids, changed
from tokenizer_texts import CORPUS, FIRST_PIECES
from transformers import LlamaTokenizer

from llama_from_scratch.tokenizer import Tokenizer, hugging_face
from llama_from_scratch.tokenizer.pieces import BLANK, Piece
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece
from llama_from_scratch.tokenizer.split import LLAMA3_PATTERN


@pytest.mark.parametrize("form", ["lists", "one merge a token"])
def test_merges_are_read_in_either_form_and_all_or_the_needed_ones(byte_bpe, path, form):
    hugging_face.write(path, byte_bpe)
    file = json.loads(path.read_text())
    merges = [entry.split(" ") for entry in file["model"]["merges"]]
    if form == "one merge a token":
        written = file["model"]["vocab"]
        merges = []
        for token in sorted(written, key=written.__getitem__)[256:]:
            model = tokenizers.models.BPE(written, [tuple(pair) for pair in merges])
            theirs = tokenizers.Tokenizer(model)
            merges.append([part.value for part in theirs.model.tokenize(token)])
        assert all(len(pair) == 2 for pair in merges)
    changed(path, model__merges=merges)
    ours = hugging_face.read_tokenizer(path)
    assert ours.ranks == byte_bpe.ranks
    assert_same_ids(ours, tokenizers.Tokenizer.from_file(str(path)), n_texts=300)


def test_a_file_that_tokenizers_trained_gives_its_ids(path):
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(LLAMA3_PATTERN), "isolated")
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, byte_level])
    theirs.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, show_progress=False
    )
    theirs.train_from_iterator([CORPUS] * 3, trainer)
    theirs.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>"])
    theirs.save(str(path))
    ours = hugging_face.read_tokenizer(path)
    assert (ours.vocab_size, ours.bos_id, ours.eos_id) == (402, 400, 401)
    assert_same_ids(ours, theirs)


def test_scores_are_those_of_the_model_file_that_was_converted(pieces, path, tmp_path):
    learned = [
        Piece(text, score if score == -1e9 else float(-i))
        for i, (text, score, _) in enumerate(pieces.pieces[259:])
    ]
    shifted = SentencePiece([*FIRST_PIECES, *learned])
    hugging_face.write(path, shifted)
    assert hugging_face.read_tokenizer(path).pieces == shifted.pieces
    hugging_face.read_tokenizer(path).save(tmp_path / "tokenizer.model")
    assert SentencePiece.load(tmp_path / "tokenizer.model").pieces == shifted.pieces


def test_runs_of_blanks_in_the_order_of_older_files_give_the_same_ids(pieces, path):
    hugging_face.write(path, pieces)
    merges = json.loads(path.read_text())["model"]["merges"]
    runs = [merge for merge in merges if set(merge) == {BLANK, " "}]
    rng = random.Random(2)
    for _ in range(5):
        order = rng.sample(range(2, 17), 15)
        runs.sort(key=lambda merge: order.index(merge.count(BLANK)))
        changed(path, model__merges=[merge for merge in merges if merge not in runs] + runs)
        theirs = tokenizers.Tokenizer.from_file(str(path))
        try:
            ours = hugging_face.read_tokenizer(path)
        except ValueError as error:
            assert re.search("every token that two others make", str(error))
            continue
        for n in range(1, 80):
            text = " " * n + "the"
            assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids


def test_a_tokenizer_that_transformers_saved_gives_its_ids(pieces, path, tmp_path):
    hugging_face.write(path, pieces)
    model = json.loads(path.read_text())["model"]
    merges = [tuple(merge.split(" ")) for merge in model["merges"]]
    theirs = LlamaTokenizer(vocab=model["vocab"], merges=merges)
    theirs.save_pretrained(tmp_path / "saved")
    ours = hugging_face.read_tokenizer(tmp_path / "saved" / "tokenizer.json")
    assert ours.prefix in ("if missing", "first if missing")
    assert_same_ids(ours, theirs.backend_tokenizer)


def test_a_real_sized_file_is_read_within_seconds(path):
    rng = random.Random(3)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(20_000)]
    hugging_face.write(path, Tokenizer.train(" ".join(words), 20_000))
    start = time.process_time()
    assert hugging_face.read_tokenizer(path).vocab_size == 20_000
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model": None}, "'model' must be a JSON dict; got None"),
        ({"model__type": "Unigram"}, "type BPE; got 'Unigram'"),
        ({"model__dropout": 0.1}, "dropout None; got 0.1"),
        ({"model__end_of_word_suffix": "</w>"}, "end_of_word_suffix None; got '</w>'"),
        ({"model__vocab__the": 1.5}, "whole number; got 1.5 for 'the'"),
        ({"model__vocab__new": 10**6}, "each once"),
        ({"model__vocab__new": 300}, "each once"),
        (
            {"model__merges": [["a", "nothing"]]},
            r"a merge must make a token of two tokens; got \('a', 'nothing'\)",
        ),
        ({"model__merges": ["a b c"]}, "a merge must be two tokens; got 'a b c'"),
        ({"model__merges": [["a"]]}, "a merge must be two tokens"),
        ({"model__merges": [7]}, "a merge must be two tokens"),
        ({"model__merges": []}, "must make every token that two others make; got none that"),
        ({"normalizer": {"type": "Lowercase"}}, "must normalize text by Prepend, Replace or NFC"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "must cut text by Split, Digits, ByteLevel or"),
        ({"decoder": None}, "must decode by ByteLevel, by Metaspace, or by Replace"),
        ({"decoder": {"type": "BPEDecoder", "suffix": ""}}, "must decode by ByteLevel"),
        (
            {"added_tokens": [{"id": 1, "content": "<s>", "special": "yes"}]},
            "flags that are true or false",
        ),
        ({"added_tokens": [{"id": 1, "content": "x"}] * 2}, "its own text; got one text twice"),
        ({"added_tokens": [{"id": "1", "content": "<s>"}]}, "'id' must be a JSON int"),
        ({"added_tokens": 5}, "'added_tokens' must be a JSON list"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_a_file_of_another_kind_or_a_damaged_one_is_refused(pieces, path, changes, message, kind):
    byte_bpe = Tokenizer.train(CORPUS, 400, special_tokens=["<s>"])
    hugging_face.write(path, pieces if kind == "pieces" else byte_bpe)
    changed(path, **changes)
    message = rf"tokenizer.json cannot be read as a tokenizer.json of a Llama: .*({message})"
    with pytest.raises(ValueError, match=message):
        hugging_face.read_tokenizer(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"model__byte_fallback": False},
        {"model__ignore_merges": True},
        {"model__byte_fallback": False, "model__fuse_unk": False},
        {
            "pre_tokenizer": {
                "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True,
            },
            "normalizer": None,
        },
    ],
)  # fmt: skip
def test_pieces_with_settings_that_no_llama_has_give_the_ids_of_the_file(pieces, path, changes):
    hugging_face.write(path, pieces)
    changed(path, **changes)
    ours, theirs = hugging_face.read_tokenizer(path), tokenizers.Tokenizer.from_file(str(path))
    assert_same_ids(ours, theirs, n_texts=400)


def test_an_unknown_token_that_is_not_in_the_vocabulary_is_refused(pieces, path):
    hugging_face.write(path, pieces)
    changed(path, model__unk_token="<none>")
    with pytest.raises(ValueError, match="got unk_token '<none>'"):
        hugging_face.read_tokenizer(path)


@pytest.mark.parametrize(
    "data", [b"{", b"[]", b"7", b"[" * 100_000, b"\xff\xfe", b'{"model": {"vocab": []}}']
)
def test_what_is_no_tokenizer_json_is_refused(path, data):
    path.write_bytes(data)
    with pytest.raises(ValueError, match="cannot be read as a tokenizer.json of a Llama"):
        hugging_face.read_tokenizer(path)


def test_a_file_with_turned_bits_is_refused_or_read(pieces, path):
    hugging_face.write(path, pieces)
    whole, rng = path.read_bytes(), random.Random(4)
    for _ in range(60):
        data = bytearray(whole[: rng.choice([len(whole), rng.randrange(len(whole))])] or b"x")
        for _ in range(rng.randint(0, 3)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            hugging_face.read_tokenizer(path).encode("the cat")
        except ValueError as error:
            assert str(path) in str(error)
