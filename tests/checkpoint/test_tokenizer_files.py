import json
import random

import pytest
import sentencepiece
from json_layouts import layout
from tiny_checkpoints import (
    TOKENIZER,
    VOCAB,
    edit_json,
    edit_safetensors,
    tiny,
    tokenizer_for,
)
from tokenizer_texts import random_text
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llama_from_scratch import family
from llama_from_scratch.__main__ import main
from llama_from_scratch.checkpoint import hugging_face, llama2c, meta
from llama_from_scratch.checkpoint.convert import convert
from llama_from_scratch.checkpoint.inspect import marked_format
from llama_from_scratch.checkpoint.load import load
from llama_from_scratch.generate.generate import stream_text
from llama_from_scratch.tokenizer.chat_format import FORMATS
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece


def test_the_tokenizer_of_a_folder_is_told_by_its_content_and_its_special_tokens_by_the_model(
    tmp_path
):
    for generation in family.GENERATIONS:
        written = tokenizer_for(generation)
        meta.write(tmp_path / generation, tiny(generation), tokenizer=written)
        _, tokenizer = load(tmp_path / generation)
        assert type(tokenizer) is type(written) and tokenizer.special_ids == written.special_ids
        assert tokenizer.encode("the cat sat", bos=True,
                                eos=True) == written.encode("the cat sat", bos=True, eos=True)
    assert "<|eom_id|>" in load(tmp_path / "llama-3.1")[1].special_ids
    assert "<|eom_id|>" not in load(tmp_path / "llama-3")[1].special_ids


def test_a_tokenizer_that_would_not_come_back_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"cannot store special tokens and pattern, so they "
                                         r"must be llama-3.1's"):
        meta.write(tmp_path / "m", tiny("llama-3.1"), tokenizer=tokenizer_for("llama-3"))
    assert list(tmp_path.iterdir()) == []


def test_an_embedding_may_have_spare_rows_and_never_too_few(tmp_path):
    for n_rows in (VOCAB + 1, VOCAB + 255, VOCAB + 1000):
        hugging_face.write(tmp_path / str(n_rows), tiny(vocab_size=n_rows), tokenizer=TOKENIZER)
        assert load(tmp_path / str(n_rows))[1].vocab_size == VOCAB
    with pytest.raises(ValueError, match="the tokenizer has 520 ids and the embedding 519 rows"):
        hugging_face.write(tmp_path / "n", tiny(vocab_size=VOCAB - 1), tokenizer=TOKENIZER)


@pytest.mark.parametrize("n_lost", [1, 10, 100])
def test_ranks_that_lost_lines_are_noticed_by_the_rows_of_the_embedding(n_lost, tmp_path):
    meta.write(tmp_path / "m", tiny(), tokenizer=TOKENIZER)
    file = tmp_path / "m" / "tokenizer.model"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-n_lost]))
    with pytest.raises(ValueError, match="has 520 rows, and 256 of them are for .* must have "
                                         f"264 ranks; the one in .* has {264 - n_lost}|256 bytes"):
        load(tmp_path / "m")
    file.write_bytes(b"".join(lines)[:-3])  # in the middle of a line
    with pytest.raises(ValueError, match="none with rank|each line of a rank file"):
        load(tmp_path / "m")


def test_meta_has_no_place_for_spare_rows_after_ranks(tmp_path):
    with pytest.raises(ValueError, match="fill the embedding; got 520 ids and 600 rows"):
        meta.write(tmp_path / "m", tiny(vocab_size=600), tokenizer=TOKENIZER)


@pytest.mark.parametrize("generation", ["llama-1", "llama-2"])
def test_transformers_finds_the_ids_of_sentencepiece_in_a_folder_that_we_write(
    generation, tmp_path
):
    ours = tokenizer_for(generation)
    hugging_face.write(tmp_path / "m", tiny(generation), tokenizer=ours)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "m")
    reference = sentencepiece.SentencePieceProcessor(
        model_file=str(tmp_path / "m" / "tokenizer.model"))
    rng = random.Random(0)
    samples = ["", " ", "  ", "the cat", " the cat", "  the  cat ", "\n", "a\n\n the", "\tthe",
               "😀 é 中", "▁the", "<0x0A>", "the<unk", *(random_text(rng) for _ in range(300))]
    for text in samples:
        ids = reference.encode(text)
        assert theirs.encode(text, add_special_tokens=False) == ids == ours.encode(text), text
        assert theirs(text).input_ids == [ours.bos_id, *ids], text
    inside = ours.encode("the<s> cat</s>x", allowed_special="all")
    assert theirs.encode("the<s> cat</s>x", add_special_tokens=False) == inside
    assert (theirs.bos_token_id, theirs.eos_token_id) == (ours.bos_id, ours.eos_id)


def saved(folder, name, *, n_more_rows=0, **tokens):
    """A folder with a model and the tokenizer of a layout, as transformers saves them."""
    theirs = PreTrainedTokenizerFast(tokenizer_object=layout(name), **tokens)
    n_rows = len(theirs) + n_more_rows
    hugging_face.write(folder, tiny(vocab_size=max(n_rows, VOCAB)), tokenizer=TOKENIZER)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    edit_json(folder / "config.json", vocab_size=n_rows, bos_token_id=None, eos_token_id=None)
    edit_json(folder / "generation_config.json", eos_token_id=None)
    cut = lambda t: t.update({k: v[:n_rows].clone() for k, v in t.items()
                              if k in ("model.embed_tokens.weight", "lm_head.weight")})
    edit_safetensors(folder, cut)
    theirs.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


CASES = {
    "SmolLM": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>",
               "pad_token": "<|im_end|>"},
    "Hermes": {"bos_token": "<|begin_of_text|>", "eos_token": "<|im_end|>", "pad_token": "<pad>"},
    "R1-Distill": {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"},
    "TinyLlama": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
                  "pad_token": "</s>"},
    "TinyLlama with ChatML": {"bos_token": "<s>", "eos_token": "<|im_end|>", "pad_token": "[PAD]"},
    "Metaspace first": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>",
                        "extra_special_tokens": ["<more>"]},
    "Metaspace first and more": {"bos_token": "<s>", "eos_token": "<|im_end|>"},
    "every flag": {"eos_token": "<|first|>"},
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("format", ["hugging-face", "native"])
def test_what_transformers_saved_loads_converts_and_is_opened_by_transformers_again(
    name, format, tmp_path
):
    theirs = saved(tmp_path / "a", name, n_more_rows=57, **CASES[name])
    convert(tmp_path / "a", tmp_path / "b", format=format)
    tokenizers = [load(tmp_path / "a")[1], load(tmp_path / "b")[1]]
    again = theirs if format == "native" else AutoTokenizer.from_pretrained(tmp_path / "b")
    rng, added = random.Random(1), list(theirs.get_added_vocab())
    for text in ["", " a", *added, *(random_text(rng, added) for _ in range(60))]:
        ids = theirs.encode(text, add_special_tokens=False)
        assert again.encode(text, add_special_tokens=False) == ids, text
        for ours in tokenizers:
            assert ours.encode(text, allowed_special="all") == ids, text
    for ours in tokenizers:
        assert ours.eos_id == theirs.eos_token_id == again.eos_token_id
        if "bos_token" in CASES[name]:
            assert ours.bos_id == theirs.bos_token_id == again.bos_token_id


def test_a_pad_token_needs_no_row_and_every_other_token_does(tmp_path):
    frame = {"bos_token": "<s>", "eos_token": "</s>"}
    saved(tmp_path / "a", "TinyLlama", n_more_rows=-1, pad_token="<pad>", **frame)
    ours = load(tmp_path / "a")[1]
    assert ours.vocab_size == 430 and "<pad>" not in ours.special_ids
    assert ours.decode(ours.encode("<pad>", allowed_special="all")) == "<pad>"
    saved(tmp_path / "b", "TinyLlama", n_more_rows=0, pad_token="<pad>", **frame)
    assert load(tmp_path / "b")[1].special_ids["<pad>"] == 430
    saved(tmp_path / "c", "TinyLlama", n_more_rows=-1, extra_special_tokens=["<x>"], **frame)
    with pytest.raises(ValueError, match="needs a row in the embedding; got '<x>' with the id 430 "
                                         "and 430 rows, 1 such tokens in all"):
        load(tmp_path / "c")


def test_names_of_the_frame_are_read_as_texts_or_objects_from_either_file(tmp_path):
    saved(tmp_path / "m", "R1-Distill", bos_token="<｜begin▁of▁sentence｜>", eos_token="</think>")
    end = {"content": "<think>", "lstrip": False, "normalized": False, "rstrip": False,
           "single_word": False}
    for eos in ("<think>", end, end | {"__type": "AddedToken", "special": False}):
        edit_json(tmp_path / "m" / "tokenizer_config.json", eos_token=eos)
        ours = load(tmp_path / "m")[1]
        assert ours.eos == "<think>" and ours.eos_id == ours.parts.ids["<think>"]
    (tmp_path / "m" / "tokenizer_config.json").write_text("{}")
    (tmp_path / "m" / "special_tokens_map.json").write_text(json.dumps({"eos_token": end}))
    assert load(tmp_path / "m")[1].eos == "<think>"
    (tmp_path / "m" / "special_tokens_map.json").write_text('{"eos_token": 7}')
    with pytest.raises(ValueError, match="special token must be a text, or an object .* got 7"):
        load(tmp_path / "m")


def test_a_tokenizer_model_takes_the_tokens_of_added_tokens_json(tmp_path):
    ours = tokenizer_for("llama-2")
    hugging_face.write(tmp_path / "m", tiny("llama-2", vocab_size=VOCAB + 8), tokenizer=ours)
    (tmp_path / "m" / "tokenizer.json").unlink()
    (tmp_path / "m" / "tokenizer_config.json").unlink()
    added = {"<|im_end|>": VOCAB + 1, "<|im_start|>": VOCAB}
    (tmp_path / "m" / "added_tokens.json").write_text(json.dumps(added))
    found = load(tmp_path / "m")[1]
    assert found.vocab_size == VOCAB + 2
    assert VOCAB + 1 in found.encode("the <|im_end|>")
    assert found.encode("the cat") == ours.encode("the cat")
    (tmp_path / "m" / "special_tokens_map.json").write_text(json.dumps({
        "additional_special_tokens": ["<|im_end|>", "<|im_start|>"], "eos_token": "<|im_end|>"}))
    found = load(tmp_path / "m")[1]
    assert isinstance(found, SentencePiece) and found.eos_id == VOCAB + 1
    added["<|im_end|>"] = VOCAB + 2
    (tmp_path / "m" / "added_tokens.json").write_text(json.dumps(added))
    with pytest.raises(ValueError, match="The file lost a part"):
        load(tmp_path / "m")


def test_an_end_that_the_tokenizer_lacks_is_refused(tmp_path):
    hugging_face.write(tmp_path / "m", tiny(vocab_size=VOCAB + 80), tokenizer=TOKENIZER)
    edit_json(tmp_path / "m" / "config.json", eos_token_id=[VOCAB - 1, VOCAB + 5])
    with pytest.raises(ValueError, match=r"eos_token_id must be the id of a.* has 525, and the "
                                         "tokenizer has 520 ids"):
        load(tmp_path / "m")


def test_formats_without_words_for_another_vocabulary_refuse_it(tmp_path):
    saved(tmp_path / "m", "Hermes", eos_token="<|im_end|>")
    for format in ("meta", "gguf", "llama2c"):
        with pytest.raises(ValueError, match="[Ww]rite (Hugging Face's|another)"):
            convert(tmp_path / "m", tmp_path / "n", format=format)
        assert not (tmp_path / "n").exists()


@pytest.mark.parametrize("name", ["SmolLM", "Hermes", "TinyLlama"])
def test_a_text_begins_as_transformers_begins_it(name, tmp_path):
    theirs = saved(tmp_path / "m", name, **CASES[name])
    model, ours = load(tmp_path / "m")
    assert ours.encode("the cat", bos=ours.adds_bos) == theirs("the cat").input_ids
    for prompt in ("the cat", ""):
        assert isinstance("".join(stream_text(model, ours, prompt=prompt, max_tokens=3)), str)


def test_a_command_takes_the_tokenizer_that_is_named(tmp_path, capsys):
    llama2c.write(tmp_path / "m", tiny("llama-2"), tokenizer=tokenizer_for("llama-2"))
    (tmp_path / "m" / "tokenizer.bin").rename(tmp_path / "tok")
    assert main(["generate", str(tmp_path / "m"), "--max-tokens", "2"]) == 2
    assert "--tokenizer PATH" in capsys.readouterr().err
    named = ["--tokenizer", str(tmp_path / "tok")]
    assert main(["generate", str(tmp_path / "m"), "--max-tokens", "2", *named]) == 0
    assert main(["tokenize", "a", "--model", str(tmp_path / "m"), *named]) == 0
    to = [str(tmp_path / "m"), str(tmp_path / "n"), "--format", "native"]
    assert main(["convert", *to, *named]) == 0
    assert load(tmp_path / "n")[1].pieces == tokenizer_for("llama-2").pieces


@pytest.mark.parametrize("format", ["meta", "gguf", "llama2c"])
def test_an_early_llama_2_goes_into_every_format(format, tmp_path):
    ours = tokenizer_for("llama-2")
    hugging_face.write(tmp_path / "m", tiny("llama-2"), tokenizer=ours)
    file = json.loads((tmp_path / "m" / "tokenizer.json").read_text())
    added = [entry | {"normalized": True} for entry in file["added_tokens"]]
    edit_json(tmp_path / "m" / "tokenizer.json", added_tokens=added)
    model, found = load(tmp_path / "m")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "m")
    for text in ("a<s>b", "a <s>b", "<s> a</s>"):
        ids = theirs.encode(text, add_special_tokens=False)
        assert found.encode(text, allowed_special="all") == ids
    assert marked_format(model.config, found) is FORMATS["llama-2"]
    convert(tmp_path / "m", tmp_path / "n", format=format)
    assert load(tmp_path / "n")[1].encode("the  cat é") == ours.encode("the  cat é")
