"""Files beside a tokenizer.json; what they do with transformers is in test_tokenizer_files."""

import json

import pytest

from llama_from_scratch.tokenizer.hugging_face.beside import Beside, read_beside, with_beside


def entry(text, i=None, **flags):
    return {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True} | flags


def file(*added):
    return {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": list(added)}


def write(folder, **files):
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return read_beside(folder)


def test_no_files_say_nothing(tmp_path):
    assert read_beside(tmp_path) == Beside({}, [], [])
    assert with_beside(file(entry("<x>", 2)), read_beside(tmp_path), n_rows=None) == file(
        entry("<x>", 2))


def test_flags_of_the_config_go_before_those_of_the_tokenizer(tmp_path):
    new = {"2": {"content": "<x>", "lstrip": True, "special": False}}
    beside = write(tmp_path, tokenizer_config={"added_tokens_decoder": new, "eos_token": "<x>"})
    assert beside.names == {"eos_token": "<x>"}
    found = with_beside(file(entry("<x>", 2)), beside, n_rows=3)
    assert found["added_tokens"] == [entry("<x>", 2, lstrip=True, special=False)]


def test_named_tokens_take_the_id_that_they_have_or_the_next(tmp_path):
    beside = write(tmp_path, special_tokens_map={
        "bos_token": {"content": "b", "lstrip": False}, "mask_token": "<mask>",
        "additional_special_tokens": ["<more>"]})
    found = with_beside(file(), beside, n_rows=None)["added_tokens"]
    assert [(token["content"], token["id"]) for token in found] == [
        ("b", 1), ("<mask>", 2), ("<more>", 3)]


def test_an_id_that_two_files_say_otherwise_is_refused(tmp_path):
    beside = write(tmp_path, tokenizer_config={"added_tokens_decoder": {"5": {"content": "<x>"}}})
    with pytest.raises(ValueError, match="one id; got 2 for '<x>' in tokenizer.json and 5 in the"):
        with_beside(file(entry("<x>", 2)), beside, n_rows=None)


@pytest.mark.parametrize("config", [
    [], 7, {"added_tokens_decoder": []}, {"added_tokens_decoder": {"x": "<x>"}},
    {"added_tokens_decoder": {"5": 7}}, {"eos_token": ["</s>"]}, {"eos_token": {"content": 7}},
    {"extra_special_tokens": 7}, {"extra_special_tokens": [7]},
])
def test_a_damaged_config_is_refused_in_words(config, tmp_path):
    with pytest.raises(ValueError, match="Download (it|them) again"):
        write(tmp_path, tokenizer_config=config)


@pytest.mark.parametrize("data", [b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_json_is_refused(data, tmp_path):
    (tmp_path / "special_tokens_map.json").write_bytes(data)
    with pytest.raises(ValueError, match="JSON file at .*special_tokens_map.json; it cannot be"):
        read_beside(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text("{}")
    with pytest.raises(ValueError, match="an id must be a whole number; got '5' for '<x>'"):
        write(tmp_path, added_tokens={"<x>": "5"})
