import dataclasses
import os

import pytest
import torch
from llama4_files import tokenizer as llama4_tokenizer
from relatives import RELATIVES
from tiny_checkpoints import chat_tokenizer_for, tiny, tokenizer_for

from llama_from_scratch import family
from llama_from_scratch.checkpoint import inspect
from llama_from_scratch.checkpoint.convert import NO_CHATS, write
from llama_from_scratch.checkpoint.load import open_checkpoint
from llama_from_scratch.checkpoint.opened import Opened
from llama_from_scratch.tokenizer.byte_bpe import BEGIN_AND_END, Tokenizer
from llama_from_scratch.tokenizer.chat_format import FORMATS

CHATS = {"llama-1": None, "llama-2": "llama-2", "llama-3": "llama-3", "llama-3.1": "llama-3.1",
         "llama-3.2": "llama-3.2",
         "llama-3.3": "llama-3.1"}  # the files of a 3.3 are those of a 3.1


def opened(config, file, *, dtype=torch.bfloat16, kinds=("bfloat16",), name="llama-3.1"):
    def unread(dtype):
        raise AssertionError("a weight was read")

    return Opened(format="Meta", where=file.parent, files=(file, file), kinds=kinds, config=config,
                  dtype=dtype, tensors=unread,
                  read_tokenizer=lambda: tokenizer_for(name))


@pytest.mark.parametrize("name", family.FAMILY)
def test_every_published_model_is_recognized_from_its_config(name):
    row = family.FAMILY[name]
    expected = [other for other, r in family.FAMILY.items() if r.config == row.config]
    assert inspect.release(row.config) == " or ".join(expected) and name in expected


def test_only_two_published_models_cannot_be_told_apart():
    names = {inspect.release(row.config) for row in family.FAMILY.values()}
    assert {name for name in names if " or " in name} == {"llama-3.1-70b or llama-3.3-70b"}


def test_a_model_of_a_known_shape_is_named_with_what_differs():
    tuned = dataclasses.replace(family.config("llama-2-7b"), vocab_size=32016, rope_theta=1e6)
    assert inspect.release(tuned) == "llama-2-7b, except for vocab_size 32016, rope_theta 1000000.0"


@pytest.mark.parametrize("name", family.GENERATIONS)
def test_a_model_of_another_shape_is_none_of_them_and_its_arithmetic_is_named(name):
    told = inspect.release(family.tiny(name))
    beginning, _, generations = told.partition("; computes as ")
    assert beginning == "none of the published" and name in generations.split(" and ")
    other = dataclasses.replace(family.tiny(name), norm_eps=2e-5)
    assert inspect.release(other) == "none of the published"


@pytest.mark.parametrize("name", family.GENERATIONS)
def test_marks_for_turns_are_those_of_the_tokenizer_and_the_config(name):
    found = inspect.marked_format(family.tiny(name), tokenizer_for(name))
    assert found is (None if CHATS[name] is None else FORMATS[CHATS[name]])
    assert inspect.chat_format(family.tiny(name), tokenizer_for(name)) is None


def test_a_tokenizer_without_marks_for_turns_has_no_chat_format():
    plain = Tokenizer.train("the cat and the rat", 258, special_tokens=BEGIN_AND_END)
    assert inspect.marked_format(family.tiny("llama-3.1"), plain) is None
    four = Tokenizer.train("the cat", 261,
                           special_tokens=("<|begin_of_text|>", "<|header_start|>",
                                           "<|header_end|>", "<|eot|>",
                                                          "<|eom|>"))
    assert inspect.marked_format(family.tiny("llama-3.1"), four) is FORMATS["llama-4"]


@pytest.mark.parametrize(("name", "weights", "per_token", "full"), [
    ("llama-2-7b", "13.5 GB", "524 kB", "2.15 GB"),
    ("llama-3.1-8b", "16.1 GB", "131 kB", "17.2 GB"),
    ("llama-3.1-405b", "812 GB", "516 kB", "67.6 GB"),
    ("llama-3.2-1b", "2.47 GB", "32.8 kB", "4.29 GB"),
])
def test_memory_is_weights_and_cache_in_the_dtype(name, weights, per_token, full):
    words = f"weights {weights}, KV cache {per_token} per token, {full} at full context"
    assert inspect.memory(family.config(name), torch.bfloat16) == words


@pytest.mark.parametrize(("n_bytes", "words"), [
    (0, "0 bytes"), (512, "512 bytes"), (999, "999 bytes"), (1000, "1 kB"), (999_499, "999 kB"),
    (999_500, "1 MB"), (13_476_831_232, "13.5 GB"), (5_000_000_000_000_000, "5e+03 TB")])
def test_sizes_have_three_digits(n_bytes, words):
    assert inspect.size(n_bytes) == words


def test_the_table_tells_all_and_reads_no_weight(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(bytes(750))
    rows = inspect.facts(opened(family.config("llama-3.2-1b"), file, name="llama-3.2"))
    assert rows == {
        "format": "Meta", "family": "llama-3.2-1b",
        "license": "Meta's is under the Llama 3.2 Community License "
                   f"({family.LICENSES['llama-3.2'].allows})",
        "parameters": "1,235,814,400 (the output head is the embedding)",
        "stored as": "bfloat16, 1.5 kB in 2 files", "context": "131,072 tokens",
        "layers": "16, 2,048 wide, feed-forward 8,192",
        "heads": "32 of 64, key/value heads: 8, shared", "vocabulary": "128,256",
        "chat format": "not named; the special tokens are for Llama 3.2",
        "a text ends at": "<|end_of_text|>, <|eom_id|>, <|eot_id|>",
        "memory, bfloat16": "weights 2.47 GB, KV cache 32.8 kB per token, 4.29 GB at full context"}
    mixed = inspect.facts(opened(
        family.config("llama-2-7b"), file, dtype=None, kinds=("F32", "Q4_K"), name="llama-2"))
    assert mixed["stored as"].startswith("F32, Q4_K, ")
    assert mixed["heads"] == "32 of 128, key/value heads: one for each head"
    assert [key for key in mixed
            if key.startswith("memory")] == ["memory, float32", "memory, bfloat16"]


def test_biases_and_wide_heads_are_told_where_they_are(tmp_path):
    (tmp_path / "weights").write_bytes(b"")
    rows = inspect.facts(opened(RELATIVES["all of it, tied"], tmp_path / "weights"))
    assert rows["heads"] == "4 of 24, key/value heads: 2, shared"
    assert rows["biases"] == "queries, keys and values, attention's output, feed-forward"
    assert rows["family"] == "none of the published" and "license" not in rows
    wide = inspect.facts(opened(RELATIVES["wide heads"], tmp_path / "weights"))
    assert "biases" not in wide and "computes as llama-3.1" in wide["family"]


def test_a_model_that_could_be_of_two_releases_shows_both_licenses(tmp_path):
    (tmp_path / "weights").write_bytes(b"")
    rows = inspect.facts(opened(family.config("llama-3.3-70b"), tmp_path / "weights"))
    assert "Llama 3.1 Community License" in rows["license"]
    assert "or Meta's is under the Llama 3.3 Community License" in rows["license"]


@pytest.mark.parametrize(("name", "content", "told"), [
    ("LICENSE", b"Apache License\nVersion 2.0\n", "LICENSE: Apache License"),
    ("license.TXT", b"\xef\xbb\xbf\r\n  LLAMA 2 COMMUNITY LICENSE\r\n",
     "license.TXT: LLAMA 2 COMMUNITY LICENSE"),
    ("LICENCE.md", b"", "LICENCE.md: it is empty"),
    ("LICENSE", b"a\x1b]0;X\x07b\xff\xe2\x80\xae\n", r"LICENSE: a\x1b]0;X\x07b\ufffd\u202e"),
    ("LICENSE", b"x" * 10**6, "LICENSE: " + "x" * 40 + "..." + "x" * 20),
])
def test_a_license_in_the_folder_is_shown_by_its_first_line(name, content, told, tmp_path):
    (tmp_path / name).write_bytes(content)
    told = told.replace(r"\ufffd", "\ufffd")
    assert inspect.license_beginning(tmp_path) == told
    (tmp_path / "m.gguf").write_bytes(b"")
    beside = told.replace(f"{name}:", f"{name}, in the same folder:")
    assert inspect.license_beginning(tmp_path / "m.gguf") == beside


def test_what_is_no_license_file_is_not_read(tmp_path):
    assert inspect.license_beginning(tmp_path) is None
    (tmp_path / "LICENSE").mkdir()
    os.mkfifo(tmp_path / "LICENSE.txt")
    assert inspect.license_beginning(tmp_path) is None


@pytest.mark.parametrize(("name", "format", "told"), [
    ("llama-2", "hugging-face", "Hugging Face"), ("llama-2", "meta", "Meta"),
    ("llama-2", "gguf", "GGUF"),
    ("llama-2", "llama2c", "llama2.c"), ("llama-3.1", "native", "llama_from_scratch"),
])
def test_every_format_is_inspected(name, format, told, tmp_path):
    write(tmp_path / "x", tiny(name), tokenizer=chat_tokenizer_for(name), format=format)
    rows = inspect.facts(open_checkpoint(tmp_path / "x"))
    chats = FORMATS[name].name if format not in NO_CHATS else (
        f"not named; the special tokens are for {FORMATS[name].name}")
    assert (rows["format"], rows["chat format"]) == (told, chats)
    assert name in rows["family"] and rows["stored as"].endswith("in 1 file")


@pytest.mark.parametrize("name", family.VISION)
def test_a_published_model_that_sees_is_shown_by_its_parts_with_what_an_image_costs(
    name, tmp_path
):
    file = tmp_path / "w"
    file.write_bytes(bytes(1000))
    config = family.config(name)
    rows = inspect.facts(opened(config, file))
    assert name in rows["family"].split(" or ") and "European Union" in rows["license"]
    parts = [int(rows[part].split(",  ")[0].split(", ")[0].replace(",", ""))
             for part in ("text model", "encoder", "adapter")]
    counts = config.param_counts
    assert parts[0] == config.text.n_params and parts[1] == counts["encoder"]
    assert sum(parts) + counts["projector"] == config.n_params
    assert f"{counts['projector']:,} in its projector" in rows["encoder"]
    tile = config.vision.tile_px
    assert rows["images"].startswith(f"up to 4 tiles of {tile} x {tile} pixels, ")
    assert rows["encoder layers"].startswith("32 local and 8 global, 1,280 wide")
    wanted = {448: "1.08e+13", 560: "1.99e+13"}[tile] if "11b" in name else "2.37e+13"
    assert rows["one image"].startswith(wanted)
    assert {"11b": "134 MB" if tile == 448 else "210 MB", "90b": "525 MB"}[
        name.split("-")[2]] + " per image" in rows["memory, bfloat16"]
    assert rows["vocabulary"] == "128,256, and 8 ids for images; <|image|> is 128256"


def test_a_model_that_sees_and_is_not_published_is_shown_as_that():
    config = family.tiny("llama-3.2-vision")
    assert inspect.release(config).startswith("none of the published that see; its text model is ")


@pytest.mark.parametrize("name", [*family.EXPERTS, *family.FUSION])
def test_every_llama_4_is_recognized_and_shown_with_its_experts(name, tmp_path):
    file = tmp_path / "w"
    file.write_bytes(bytes(1000))
    config = family.config(name)
    rows = inspect.facts(dataclasses.replace(opened(config, file),
                                             read_tokenizer=llama4_tokenizer))
    assert rows["family"] == name and "Llama 4 Community License" in rows["license"]
    n, where = ("16", "48 layers") if "scout" in name else ("128", "24 layers")
    assert rows["experts"].startswith(f"{n} of 8,192, 1 for each token, and a shared one of 8,192, "
                                      f"in {where}; ")
    assert f"{config.n_active_params:,} parameters work" in rows["experts"]
    assert rows["attention"] == "in chunks of 8,192 tokens in 36 layers, without RoPE in 12 layers"
    assert ("feed-forward 16,384" in rows["layers"]) == ("maverick" in name)
    assert rows["chat format"] == "not named; the special tokens are for Llama 4"


def test_a_llama_4_of_another_shape_is_none_of_them_and_its_arithmetic_is_named():
    assert inspect.release(family.tiny("llama-4")) == "none of the published; computes as llama-4"
    longer = dataclasses.replace(family.config("llama-4-scout-17b-16e-text"), max_seq_len=4096)
    assert inspect.release(longer) == "llama-4-scout-17b-16e-text, except for max_seq_len 4096"
