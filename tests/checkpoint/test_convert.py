import dataclasses
import errno
import itertools
import shutil
import subprocess
import sys

import pytest
import torch
from hugging_face_twin import loud
from relatives import RELATIVES
from seeing_checkpoints import logits, seeing
from seeing_checkpoints import tokenizer as seeing_tokenizer
from tiny_checkpoints import edit_json, far_logits, same_weights, tiny, tokenizer_for

from llama_from_scratch.checkpoint import folders, gguf_file, hugging_face, inspect, native
from llama_from_scratch.checkpoint.convert import FORMATS, convert, write
from llama_from_scratch.checkpoint.load import load, open_checkpoint
from llama_from_scratch.tokenizer.chat_format import FORMATS as CHATS
from llama_from_scratch.tokenizer.chat_format import template_of

ALL_HOLD = ("hugging-face", "meta", "gguf", "native")
HOLDS = {"llama-2": (*ALL_HOLD, "llama2c"), "llama-3.2": ALL_HOLD}
TEXT = "the cat sat on the mat, é \n  and the rat"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A checkpoint of each format that holds it, for a family of each kind of tokenizer."""
    folder = tmp_path_factory.mktemp("sources")
    models = {name: tiny(name) for name in HOLDS}
    for name, formats in HOLDS.items():
        for format in formats:
            write(folder / name / format, models[name], tokenizer=tokenizer_for(name),
                  format=format)
    return folder, models


@pytest.mark.parametrize(("name", "source", "target"),
                         [(name, *pair) for name, formats in HOLDS.items()
                          for pair in itertools.product(formats, repeat=2)])
def test_every_readable_format_becomes_every_writable_one_bit_for_bit(
    name, source, target, sources, tmp_path
):
    folder, models = sources
    convert(folder / name / source, tmp_path / "new", format=target)
    model, tokenizer = load(tmp_path / "new")
    assert model.config == models[name].config and same_weights(model, models[name])
    assert tokenizer.encode(TEXT) == tokenizer_for(name).encode(TEXT)
    assert torch.equal(far_logits(model), far_logits(models[name]))


def formats_for(name):
    has_halves_of_attention = RELATIVES[name].has_qkv_bias != RELATIVES[name].has_wo_bias
    return ("native", "gguf") if has_halves_of_attention else ("native", "gguf", "hugging-face")


@pytest.mark.parametrize(("name", "source", "target"),
                         [(name, *pair) for name in RELATIVES
                          for pair in itertools.permutations(formats_for(name), 2)])
def test_relatives_of_llama_become_every_format_that_can_say_them_bit_for_bit(
    name, source, target, tmp_path
):
    model, generation = loud(RELATIVES[name]), generation_of(RELATIVES[name])
    write(tmp_path / "a", model, tokenizer=tokenizer_for(generation), format=source)
    convert(tmp_path / "a", tmp_path / "b", format=target)
    again, _ = load(tmp_path / "b")
    assert again.config == model.config and same_weights(again, model)


def generation_of(config):
    return "llama-2" if config.rope_theta == 1e4 else "llama-3.1"


@pytest.mark.parametrize("name", RELATIVES)
@pytest.mark.parametrize("format", ["meta", "llama2c", "hugging-face"])
def test_relatives_of_llama_are_refused_where_a_format_has_no_words_for_them(
    name, format, tmp_path
):
    if format in formats_for(name):
        return
    with pytest.raises(ValueError, match="Write another format"):
        write(tmp_path / "a", loud(RELATIVES[name]), format=format,
              tokenizer=tokenizer_for(generation_of(RELATIVES[name])))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("format", "dtype", "expected"), [
    ("meta", None, torch.bfloat16), ("native", None, torch.bfloat16), ("gguf", None, torch.float32),
    ("hugging-face", "float32", torch.float32), ("hugging-face", "float16", torch.float16),
    ("gguf", "float16", torch.float16),
])
def test_a_dtype_is_kept_unless_another_is_asked_for_or_the_format_lacks_it(
    format, dtype, expected, tmp_path
):
    model = tiny().bfloat16()
    write(tmp_path / "a", model, tokenizer=tokenizer_for("llama-3.1"), format="hugging-face")
    convert(tmp_path / "a", tmp_path / "b", format=format, dtype=dtype)
    assert open_checkpoint(tmp_path / "b").dtype == expected
    again, _ = load(tmp_path / "b", dtype=torch.float32)
    assert same_weights(again, model.to(expected).float())


def test_q8_0_packs_the_matrices_and_stays_close(sources, tmp_path):
    folder, models = sources
    convert(folder / "llama-3.2" / "meta", tmp_path / "packed.gguf", format="gguf", dtype="q8_0")
    kinds = {entry.kind.name
             for entry in gguf_file.header(tmp_path / "packed.gguf").tensors.values()
             if len(entry.shape) > 1}
    assert kinds == {"Q8_0"}
    packed, whole = load(tmp_path / "packed.gguf")[0], models["llama-3.2"]
    error = (packed.tok_embeddings.weight - whole.tok_embeddings.weight).abs().max()
    assert 0 < error <= whole.tok_embeddings.weight.abs().max() / 127


@pytest.mark.parametrize("n_shards", [2, 3, 4])
def test_shards_are_as_many_as_asked_for(n_shards, sources, tmp_path):
    source, model = sources[0] / "llama-3.2" / "gguf", sources[1]["llama-3.2"]
    convert(source, tmp_path / "hf", format="hugging-face", n_shards=n_shards)
    sizes = [file.stat().st_size for file in (tmp_path / "hf").glob("model-*.safetensors")]
    assert len(sizes) == n_shards and max(sizes) < 2 * sum(sizes) / n_shards
    assert same_weights(load(tmp_path / "hf")[0], model)
    if n_shards == 3:
        with pytest.raises(ValueError, match="n_shards must divide n_heads"):
            convert(source, tmp_path / "meta", format="meta", n_shards=n_shards)
        assert not (tmp_path / "meta").exists()
        return
    convert(source, tmp_path / "meta", format="meta", n_shards=n_shards)
    assert len(list((tmp_path / "meta").glob("consolidated.*.pth"))) == n_shards
    assert same_weights(load(tmp_path / "meta")[0], model)


def test_the_reader_hears_how_far_it_is(sources, tmp_path):
    heard = []
    convert(sources[0] / "llama-2" / "meta", tmp_path / "b", format="gguf",
            on_tensor=lambda done, n: heard.append((done, n)))
    assert heard[-1] == (sources[1]["llama-2"].config.n_params * 4,) * 2 and len(heard) > 10


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("there", ["a file", "an empty folder", "a folder", "a broken link"])
def test_nothing_is_ever_overwritten(format, there, sources, tmp_path):
    target = tmp_path / "b"
    if there == "a file":
        target.write_text("mine")
    elif there == "a broken link":
        target.symlink_to(tmp_path / "nowhere")
    else:
        target.mkdir()
    if there == "a folder":
        (target / "config.json").write_text("mine")
    with pytest.raises(ValueError, match="there is something at"):
        convert(sources[0] / "llama-2" / "meta", target, format=format)
    assert target.is_symlink() or target.is_dir() or target.read_text() == "mine"
    assert there != "a folder" or (target / "config.json").read_text() == "mine"


def test_a_checkpoint_is_not_converted_onto_itself(sources):
    with pytest.raises(ValueError, match="there is something at"):
        convert(sources[0] / "llama-2" / "meta", sources[0] / "llama-2" / "meta", format="gguf")


@pytest.mark.parametrize(("settings", "message"), [
    (dict(format="ggufs"), "formats that can be written are .* did you mean 'gguf'"),
    (dict(format="meta", dtype="float8"), "dtypes that can be written are .*; got 'float8'"),
    (dict(format="gguf", dtype="bfloat16"), "gguf can be written in float32, float16, q8_0; got "
                                            "bfloat16"),
    (dict(format="meta", dtype="q8_0"),
     "meta can be written in float32, bfloat16, float16; got q8_0"),
    (dict(format="llama2c", dtype="float16"), "llama2c can be written in float32; got float16"),
    (dict(format="gguf", n_shards=2), "other formats have one; got 2 for gguf"),
    (dict(format="meta", n_shards=0), "one or more weight files"),
    (dict(format="llama2c"), r"llama2.c runs only Llama 2; .* rope_theta=500000.0"),
])  # fmt: skip
def test_what_cannot_be_written_is_refused_with_the_reason_and_leaves_nothing(
    settings, message, sources, tmp_path
):
    with pytest.raises(ValueError, match=message):
        convert(sources[0] / "llama-3.2" / "meta", tmp_path / "b", **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_a_format_has_no_words_for_is_refused(tmp_path):
    odd = tiny("llama-3.1",
               rope_scaling=dataclasses.replace(tiny("llama-3.1").config.rope_scaling,
                                                low_freq_factor=2.0))
    native.save(tmp_path / "odd", odd, tokenizer_for("llama-3.1"))
    for format in ("meta", "gguf"):
        with pytest.raises(ValueError, match="Write another format"):
            convert(tmp_path / "odd", tmp_path / "b", format=format)
    with pytest.raises(ValueError, match="65504"):
        native.save(tmp_path / "large", loud_in_one_place(), tokenizer_for("llama-3.1"))
        convert(tmp_path / "large", tmp_path / "b", format="gguf", dtype="float16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large", "odd"]


def loud_in_one_place():
    model = tiny()
    with torch.no_grad():
        model.layers[0].attention.wo.weight[0, 0] = 1e5
    return model


@pytest.mark.parametrize("path", ["nowhere", "empty"])
def test_a_source_that_is_no_checkpoint_is_refused(path, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="a checkpoint must be a folder with"):
        convert(tmp_path / path, tmp_path / "b", format="gguf")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("format", ["hugging-face", "meta", "gguf", "llama2c"])
def test_a_disk_that_fills_up_leaves_nothing_behind(format, sources, tmp_path, monkeypatch):
    """The writer gets some bytes onto the disk, then the disk refuses."""
    n_written = 0

    def full(*args, **settings):
        nonlocal n_written
        n_written += 1
        raise OSError(errno.ENOSPC, "No space left on device")

    whole = {"hugging-face": (hugging_face, "write_tensors"), "meta": (torch, "save"),
             "gguf": (gguf_file, "_packed"),
             "llama2c": (folders, "sync")}
    monkeypatch.setattr(*whole[format], full)
    with pytest.raises(OSError, match="No space left"):
        convert(sources[0] / "llama-2" / "hugging-face", tmp_path / "b", format=format)
    assert n_written == 1 and list(tmp_path.iterdir()) == []


def test_the_folder_above_the_target_is_made(sources, tmp_path):
    convert(sources[0] / "llama-2" / "meta", tmp_path / "deep" / "er" / "b.gguf", format="gguf")
    assert open_checkpoint(tmp_path / "deep" / "er" / "b.gguf").format == "GGUF"


# --- what is said of chats ------------------------------------------------------------------------


def test_a_format_that_is_named_is_written_as_a_template(sources, tmp_path):
    """The files of Meta do not say which model was made for chats."""
    folder, _ = sources
    convert(folder / "llama-3.2/meta", tmp_path / "new", format="hugging-face",
            chat_format="llama-3.2")
    opened = open_checkpoint(tmp_path / "new")
    format = CHATS["llama-3.2"]
    assert inspect.chat_format(opened.config, opened.tokenizer()) is format
    assert opened.stop_ids == format.stop_ids(opened.tokenizer())
    with pytest.raises(ValueError, match=r"chat format must be one of .* did you mean 'llama-3.2'"):
        convert(folder / "llama-3.2/meta", tmp_path / "x", format="gguf", chat_format="llama-32")


def test_a_model_whose_texts_end_as_turns_do_gets_the_template_of_its_format(sources, tmp_path):
    folder, _ = sources
    shutil.copytree(folder / "llama-3.2/hugging-face", tmp_path / "old")
    eot = tokenizer_for("llama-3.2").special_ids["<|eot_id|>"]
    edit_json(tmp_path / "old/config.json", eos_token_id=eot)
    assert not open_checkpoint(tmp_path / "old").prompting.templates
    convert(tmp_path / "old", tmp_path / "new.gguf", format="gguf")
    said = open_checkpoint(tmp_path / "new.gguf").prompting
    assert said.templates == {"default": template_of(CHATS["llama-3.2"])}
    convert(folder / "llama-3.2/hugging-face", tmp_path / "base.gguf", format="gguf")
    assert not open_checkpoint(tmp_path / "base.gguf").prompting.templates
TWO_AT_ONCE = """
import sys
from llama_from_scratch.checkpoint.convert import convert
began = []
def wait(*_):
    if not began:
        began.append(True)
        print("reads", flush=True)
        sys.stdin.readline()
convert(sys.argv[1], sys.argv[2], format=sys.argv[3], on_tensor=wait)
"""


@pytest.mark.parametrize("format", ["gguf", "hugging-face", "native"])
def test_of_two_conversions_to_one_place_the_second_is_refused_at_the_door(format, tmp_path):
    source, target = tmp_path / "source", tmp_path / "new" / "target"
    write(source, tiny("llama-3.1"), tokenizer=tokenizer_for("llama-3.1"), format="native")
    first = subprocess.Popen(
        [sys.executable, "-c", TWO_AT_ONCE, source, target, format], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout.readline() == "reads\n"
    with pytest.raises(ValueError, match=rf"only one process at a time may write .*target; process "
                                         rf"{first.pid} on .* does now"):
        convert(source, target, format=format)
    first.communicate("go on\n")
    assert first.returncode == 0
    assert [path.name for path in target.parent.iterdir()] == ["target"]
    assert same_weights(load(target)[0], load(source)[0])


def test_a_target_that_cannot_be_written_is_refused_before_the_weights_are_read(tmp_path):
    write(tmp_path / "source", tiny("llama-3.1"), tokenizer=tokenizer_for("llama-3.1"),
          format="native")
    (tmp_path / "file").write_text("")
    for target in ("/proc/target", tmp_path / "file" / "target"):
        for format in ("gguf", "meta"):
            with pytest.raises(ValueError, match="[Cc]hoose another"):
                convert(tmp_path / "source", target, format=format,
                        on_tensor=lambda *_: pytest.fail("a tensor was read"))


# --- models that see ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seeing_sources(tmp_path_factory):
    """A checkpoint of each format that holds a model that sees, and the model."""
    folder, model = tmp_path_factory.mktemp("seeing"), seeing()
    for format in SEE:
        write(folder / format, model, tokenizer=seeing_tokenizer(), format=format)
    return folder, model


SEE = ("hugging-face", "meta", "native")


@pytest.mark.parametrize(("source", "target"), list(itertools.product(SEE, SEE)))
def test_a_model_that_sees_survives_every_conversion(source, target, seeing_sources, tmp_path):
    folder, model = seeing_sources
    convert(folder / source, tmp_path / "x", format=target)
    found, tokenizer = load(tmp_path / "x")
    assert found.config == model.config and found.tiling == model.tiling
    assert same_weights(found, model) and torch.equal(logits(found), logits(model))
    assert tokenizer.encode(TEXT) == seeing_tokenizer().encode(TEXT)
    assert tokenizer.special_ids["<|image|>"] == model.config.image_id


@pytest.mark.parametrize("target", ["gguf", "llama2c"])
def test_a_model_that_sees_is_not_converted_to_what_cannot_hold_it(
    target, seeing_sources, tmp_path
):
    with pytest.raises(ValueError, match="mtmd, can run Llama 3.2 Vision|runs only Llama 2"):
        convert(seeing_sources[0] / "native", tmp_path / "x", format=target)
    assert not (tmp_path / "x").exists()


def test_a_model_that_sees_is_converted_to_another_dtype(seeing_sources, tmp_path):
    folder, model = seeing_sources
    convert(folder / "hugging-face", tmp_path / "x", format="meta", dtype="bfloat16", n_shards=2)
    found, _ = load(tmp_path / "x")
    assert found.dtype == torch.bfloat16
    assert torch.equal(found.image_embeddings.weight, model.image_embeddings.weight.bfloat16())
