import dataclasses

import pytest
import torch
from tiny_checkpoints import TOKENIZER, far_logits, same_weights, tiny

from llama_from_scratch.checkpoint import gguf, hugging_face
from llama_from_scratch.checkpoint.load import load, open_checkpoint
from llama_from_scratch.checkpoint.opened import build, common_dtype


@pytest.fixture
def opened(tmp_path):
    hugging_face.write(tmp_path / "m", tiny(), tokenizer=TOKENIZER)
    return hugging_face.open_checkpoint(tmp_path / "m")


def unread(*_, **__):
    pytest.fail("it was read")


def test_build_alone_refuses_what_does_not_fit_before_a_weight_is_read(opened):
    opened = dataclasses.replace(opened, tensors=unread)
    with pytest.raises(ValueError, match=r"a model must fit into memory: .* need 0.00 GB in "
                                         r"float32, and 0.00 GB are free"):
        build(opened, memory_bytes=4 * opened.config.n_params - 1)


def test_load_refuses_what_does_not_fit_before_the_tokenizer_is_read(opened, monkeypatch):
    monkeypatch.setattr("llama_from_scratch.checkpoint.tokenizer_files.read_hugging_face", unread)
    with pytest.raises(ValueError, match="a model must fit into memory"):
        load(opened.where, memory_bytes=1000)


def test_a_model_that_just_fits_is_built(opened):
    model = build(opened, memory_bytes=4 * opened.config.n_params)
    assert same_weights(model, tiny()) and torch.equal(far_logits(model), far_logits(tiny()))


@pytest.mark.parametrize("use", [build, lambda opened: load(opened.where)])
def test_tensors_of_several_dtypes_need_a_decision_before_anything_is_read(
    use, tmp_path, monkeypatch
):
    model = tiny().bfloat16()
    model.norm.float()
    hugging_face.write(tmp_path / "m", model, tokenizer=TOKENIZER)
    monkeypatch.setattr("llama_from_scratch.checkpoint.tokenizer_files.read_hugging_face", unread)
    with pytest.raises(ValueError, match=r"a model computes in one dtype; .* have several dtypes. "
                                         r"Choose dtype="):
        use(hugging_face.open_checkpoint(tmp_path / "m"))


def test_several_dtypes_become_the_one_that_is_asked_for(tmp_path):
    model = tiny().bfloat16()
    model.norm.float()
    hugging_face.write(tmp_path / "m", model, tokenizer=TOKENIZER)
    assert load(tmp_path / "m", dtype=torch.float32)[0].norm.weight.dtype == torch.float32


def test_a_format_whose_tensors_are_not_those_of_the_config_is_refused(opened):
    every = dict(opened.tensors(None))
    for tensors, message in ((dict(list(every.items())[1:]), "tok_embeddings.weight is missing"),
                             (every | {"x": torch.zeros(2)}, "x is not of this model"),
                             (every | {"norm.weight": torch.zeros(2)},
                              r"norm.weight is \(2,\), not \(64,\)")):
        given = dataclasses.replace(opened, tensors=lambda dtype,
                                    tensors=tensors: iter(tensors.items()))
        with pytest.raises(ValueError, match=message):
            build(given)


def test_a_dtype_that_is_no_weight_is_named():
    assert common_dtype({torch.bfloat16}) == torch.bfloat16 and common_dtype(
        {torch.float32, torch.float16}) is None
    for dtype in (torch.int8, torch.float8_e4m3fn):
        with pytest.raises(ValueError, match=rf"got {dtype}, as in a quantized checkpoint"):
            common_dtype({torch.float32, dtype})


def test_what_is_opened_says_how_large_it_is_and_reads_the_tokenizer_once(tmp_path):
    model = tiny().bfloat16()
    hugging_face.write(tmp_path / "h", model, tokenizer=TOKENIZER, shard_bytes=100_000)
    gguf.write(tmp_path / "g", model, tokenizer=TOKENIZER, kind="Q8_0")
    sharded, packed = open_checkpoint(tmp_path / "h"), open_checkpoint(tmp_path / "g")
    assert sharded.kinds == ("bfloat16",) and packed.kinds == ("F32", "Q8_0")
    assert len(sharded.files) > 2 and packed.files == (tmp_path / "g",)
    weights = list((tmp_path / "h").glob("*.safetensors"))
    assert sharded.n_bytes == sum(file.stat().st_size
                                  for file in weights) > 2 * model.config.n_params
    assert sharded.tokenizer() is sharded.tokenizer()
