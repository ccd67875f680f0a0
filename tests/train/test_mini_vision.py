"""The bundled model that sees, in each layout that can hold it. A small one stands in for it."""

import pytest
import torch
from seeing_checkpoints import logits, seeing, tokenizer
from tiny_checkpoints import same_weights, tiny, tokenizer_for

from llama_from_scratch import bundled
from llama_from_scratch.checkpoint import native
from llama_from_scratch.checkpoint.load import load, open_checkpoint
from llama_from_scratch.train import mini_vision
from llama_from_scratch.train.mini import mini
from llama_from_scratch.train.mini_families import SEEING
from llama_from_scratch.vision import share_places


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model in the place of the bundled one, its canvases not alike."""
    model = seeing(has_one_grid=False)
    native.save(tmp_path / "data" / mini_vision.FOLDER, model, tokenizer())
    monkeypatch.setattr(bundled, "DATA", tmp_path / "data")
    return model


@pytest.mark.parametrize("format", SEEING.formats)
def test_every_layout_holds_the_bundled_model(format, model, tmp_path):
    mini(tmp_path / "x", family="llama-3.2-vision", format=format, dtype="float32")
    found, its_tokenizer = load(tmp_path / "x")
    share_places(model)
    assert same_weights(found, model) and torch.equal(logits(found), logits(model))
    assert its_tokenizer.special_ids["<|image|>"] == model.config.image_id
    mini(tmp_path / "y", family="llama-3.2-vision", format=format)
    assert open_checkpoint(tmp_path / "y").dtype == torch.bfloat16


@pytest.mark.parametrize(("format", "files"), [
    ("hugging-face", ["config.json", "generation_config.json", "model.safetensors",
                      "preprocessor_config.json", "special_tokens_map.json", "tokenizer.json",
                      "tokenizer_config.json"]),
    ("meta", ["checklist.chk", "consolidated.00.pth", "params.json", "tokenizer.model"])])
def test_a_folder_has_the_files_of_a_published_model_that_sees(format, files, model, tmp_path):
    mini(tmp_path / "x", family="llama-3.2-vision", format=format)
    assert sorted(file.name for file in (tmp_path / "x").iterdir()) == files


def test_what_cannot_be_done_with_the_bundled_model_is_refused(model, tmp_path):
    made = dict(family="llama-3.2-vision")
    with pytest.raises(ValueError, match="the format gguf can hold only llama-1"):
        mini(tmp_path / "x", format="gguf", **made)
    with pytest.raises(ValueError, match="is bundled and not trained by this function, .*=3"):
        mini(tmp_path / "x", format="meta", n_steps=3, **made)
    assert not (tmp_path / "x").exists()


def test_a_bundled_model_that_is_missing_or_does_not_see_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "DATA", tmp_path)
    with pytest.raises(FileNotFoundError, match="got 'vision'"):
        mini_vision.trained()
    native.save(tmp_path / mini_vision.FOLDER, tiny(), tokenizer_for("llama-3.1"))
    with pytest.raises(ValueError, match="must see images; it is a text model"):
        mini_vision.trained()
