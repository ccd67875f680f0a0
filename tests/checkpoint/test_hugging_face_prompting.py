import copy
import json

import chat_templates
import pytest
from tiny_checkpoints import chat_tokenizer_for, tiny, tokenizer_for
from transformers import AutoTokenizer

from llama_from_scratch.checkpoint import hugging_face
from llama_from_scratch.checkpoint.convert import convert
from llama_from_scratch.checkpoint.hugging_face_prompting import read_prompting, written
from llama_from_scratch.checkpoint.load import load, open_checkpoint
from llama_from_scratch.generate.generate import stream, stream_text, text_of
from llama_from_scratch.tokenizer.prompting import Prompting

CONFIG = tiny().config


def read(folder, **about):
    return read_prompting(folder, about, CONFIG)


def put(folder, **files):
    for name, value in files.items():
        name = name.replace("__", "/").replace("_json", ".json").replace("_jinja", ".jinja")
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def test_an_empty_folder_says_nothing(tmp_path):
    assert read(tmp_path) == Prompting()


def test_templates_in_files_go_before_those_in_the_config(tmp_path):
    put(tmp_path, tokenizer_config_json={"chat_template": "old"})
    assert read(tmp_path).templates == {"default": "old"}
    put(tmp_path, tokenizer_config_json={"chat_template": [
        {"name": "default", "template": "old"}, {"name": "rag", "template": "older"}]})
    assert read(tmp_path).templates == {"default": "old", "rag": "older"}
    put(tmp_path, chat_template_jinja="new é")
    assert read(tmp_path).templates == {"default": "new é"}
    put(tmp_path, additional_chat_templates__tool_use_jinja="tools")
    assert read(tmp_path).templates == {"default": "new é", "tool_use": "tools"}


def test_names_of_tokens_are_texts_or_objects(tmp_path):
    put(tmp_path, special_tokens_map_json={"bos_token": "<a>", "eos_token": {"content": "<b>"}},
        tokenizer_config_json={"eos_token": "<c>", "pad_token": None, "add_bos_token": False})
    said = read(tmp_path)
    assert said.token_names == {"bos_token": "<a>", "eos_token": "<b>"} and said.adds_bos is False


@pytest.mark.parametrize(("more", "eos"), [({}, "<b>"), ({"added_tokens_decoder": {}}, "<c>")])
def test_names_of_tokens_are_from_the_file_that_transformers_takes_them_from(tmp_path, more, eos):
    hugging_face.write(tmp_path, tiny("llama-3"), tokenizer=tokenizer_for("llama-3"))
    about = json.loads((tmp_path / "tokenizer_config.json").read_text())
    about.pop("added_tokens_decoder", None)
    put(tmp_path, special_tokens_map_json={"eos_token": "<b>"},
        tokenizer_config_json=about | {"eos_token": "<c>"} | more)
    assert read(tmp_path).token_names["eos_token"] == eos
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token == eos


@pytest.mark.parametrize(("files", "message"), [
    ({"tokenizer_config_json": []}, "must hold a JSON object"),
    ({"tokenizer_config_json": {"chat_template": 5}}, "chat_template must be a text, or a list"),
    ({"tokenizer_config_json": {"chat_template": [{"name": "x"}]}}, "chat_template must be a text"),
    ({"tokenizer_config_json": {"bos_token": 5}}, "special token must be a text.*got 5"),
    ({"special_tokens_map_json": {"eos_token": {"content": 5}}}, "token must be a text.*got .*5"),
    ({"chat_template_jinja": "x" * 1_000_001}, "more than 1,000,000 bytes"),
])
def test_damaged_files_are_refused(files, message, tmp_path):
    put(tmp_path, **files)
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_a_template_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="text file in UTF-8"):
        read(tmp_path)


@pytest.mark.parametrize("said", [
    Prompting(), Prompting(templates={"default": "x"}),
    Prompting(templates={"default": "x", "rag": "y"})])
def test_what_is_written_is_read_again(said, tmp_path):
    put(tmp_path, tokenizer_config_json=written(said))
    assert read(tmp_path) == said


def test_transformers_chats_with_the_folders_that_we_write(tmp_path):
    for name in ("llama-2", "llama-3", "llama-3.1"):
        hugging_face.write(tmp_path / name, tiny(name), tokenizer=chat_tokenizer_for(name))
        ids = AutoTokenizer.from_pretrained(tmp_path / name).apply_chat_template(
            [{"role": "user", "content": "the cat"}], add_generation_prompt=True,
            return_dict=False)
        assert ids[0] == tokenizer_for(name).bos_id and len(ids) > 5


def test_text_ends_at_every_id_that_the_files_name(tmp_path, monkeypatch):
    """As an instruct checkpoint of Llama 3.1 does, whose generation_config.json names three."""
    tokenizer = tokenizer_for("llama-3.1")
    hugging_face.write(tmp_path / "m", tiny(), tokenizer=tokenizer)
    config = json.loads((tmp_path / "m/config.json").read_text())
    (tmp_path / "m/config.json").write_text(json.dumps(config | {"eos_token_id": [265, 272, 7]}))
    (tmp_path / "m/generation_config.json").unlink()
    model, again = load(tmp_path / "m")
    assert again.stop_ids == {265, 272, 7}
    whole = "".join(stream_text(model, again, prompt="the cat", max_tokens=40))
    drawn = list(stream(model, again.encode("the cat", bos=True), max_tokens=40))
    again.prompting = Prompting(end_ids=frozenset({drawn[5]}))
    cut = "".join(stream_text(model, again, prompt="the cat", max_tokens=40))
    assert cut == "".join(text_of(drawn[: drawn.index(drawn[5])], again)) != whole


@pytest.mark.parametrize("template", ["headers", "chatml"])
def test_templates_and_ends_survive_every_format_that_has_words_for_them(template, tmp_path):
    source = chat_templates.TEMPLATES[template]
    tokenizer = chat_tokenizer_for("llama-3")
    tokenizer.prompting = Prompting(
        end_ids=frozenset({265, 273}), eos_ids=frozenset({273}), adds_bos=True,
        templates={"default": source, "tool_use": "tools"},
        token_names={"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"})
    hugging_face.write(tmp_path / "0", tiny("llama-3"), tokenizer=tokenizer)
    for i, format in enumerate(("gguf", "native", "hugging-face"), 1):
        convert(tmp_path / str(i - 1), tmp_path / str(i), format=format)
        again = open_checkpoint(tmp_path / str(i)).tokenizer()
        assert again.prompting == tokenizer.prompting, format


def test_whether_bos_comes_first_is_said_by_the_steps_of_the_file(tmp_path):
    for name in ("llama-2", "llama-3.1"):
        for adds_bos in (True, False):
            tokenizer, folder = copy.copy(tokenizer_for(name)), tmp_path / f"{name} {adds_bos}"
            tokenizer.prompting = Prompting(adds_bos=adds_bos)
            hugging_face.write(folder, tiny(name), tokenizer=tokenizer)
            ids = AutoTokenizer.from_pretrained(folder)("the cat")["input_ids"]
            assert (ids[0] == tokenizer.bos_id) == adds_bos
            model, again = load(folder)
            assert again.adds_bos == adds_bos
            drawn = next(stream(model, again.encode("the cat", bos=adds_bos), max_tokens=1))
            text = "".join(stream_text(model, again, prompt="the cat", max_tokens=1))
            assert text == "".join(text_of([drawn], again))
            put(folder, tokenizer_config_json={"add_bos_token": not adds_bos})
            assert load(folder)[1].adds_bos == adds_bos, "transformers ignores that entry, too"
