"""Llama 4 in GGUF, compared with llama.cpp's own package: names, keys, shapes and values."""

import dataclasses

import gguf as reference
import numpy as np
import pytest
import torch
from gguf_reference import TYPE
from llama4_files import (
    KINDS,
    TEXT,
    VOCAB,
    published_layers,
    same_weights,
    tokenizer,
    whole_model,
)
from llama4_twin import loud_llama4, text_weights_of

from llama_from_scratch import family
from llama_from_scratch.checkpoint import gguf, gguf_config, gguf_llama4
from llama_from_scratch.checkpoint.load import load
from llama_from_scratch.config import TemperatureTuning
from llama_from_scratch.tokenizer import released

ARCH = reference.MODEL_ARCH.LLAMA4


def as_maverick(n_experts=128):
    """The twin with Maverick's layers: every second with experts, and no norm of queries."""
    config = family.tiny("llama-4")
    return [dataclasses.replace(spec, has_qk_norm=False, feed_forward=dataclasses.replace(
        spec.feed_forward, n_experts=n_experts, width=32, shared_width=32) if i % 2 else None)
        for i, spec in enumerate(config.layers)]


TWINS = {"scout": lambda: published_layers(),
         "maverick": lambda: published_layers(layers=tuple(as_maverick()), rope_scaling=None)}


def write(tmp_path, model, **how):
    gguf.write(tmp_path / "m.gguf", model, tokenizer=tokenizer(), **how)
    return tmp_path / "m.gguf"


def by_their_writer(path, model, *, drop=(), change=None):
    """The same model, written by llama.cpp's package under the names of its own table.

    Their table maps Hugging Face's names, after which the converter splits and turns what Hugging
    Face joined. `change`: facts that get another value.
    """
    config, change = model.config, change or {}
    experts = config.layers[1].feed_forward
    writer = reference.GGUFWriter(path, reference.MODEL_ARCH_NAMES[ARCH])
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.ffn_dim)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    facts = {"expert_count": experts.n_experts, "expert_used_count": experts.n_active,
             "expert_feed_forward_length": experts.width,
             "interleave_moe_layer_step": 1 if config.layers[0].feed_forward else 2}
    for key, value in (facts | change).items():
        if key not in drop:
            writer.add_uint32(f"llama4.{key}", value)
    names = reference.get_tensor_name_map(ARCH, config.n_layers)
    for name, weight in text_weights_of(model).items():
        weight = weight.float()
        parts = {name: weight}
        if name.endswith("gate_up_proj"):
            gate, up = weight.chunk(2, dim=-1)
            parts = {name.replace("gate_up", "gate") + ".weight": gate.transpose(1, 2),
                     name.replace("gate_up", "up") + ".weight": up.transpose(1, 2)}
        elif name.endswith("experts.down_proj"):
            parts = {name + ".weight": weight.transpose(1, 2)}
        for theirs, part in parts.items():
            found = names.get_name(theirs, try_suffixes=(".weight",))
            assert found is not None, theirs
            writer.add_tensor(found, part.contiguous().numpy())
    if (scaling := config.rope_scaling) is not None:
        freq = config.rope_theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
        slow = 2 * np.pi / freq > scaling.original_max_seq_len
        writer.add_tensor("rope_freqs.weight",
                          np.where(slow, scaling.factor, 1.0).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("name", TWINS)
def test_a_file_of_their_writer_is_read_bit_for_bit(name, tmp_path):
    model = TWINS[name]()
    opened = gguf.open_checkpoint(by_their_writer(tmp_path / "m.gguf", model))
    assert opened.config == model.config
    weights = dict(model.named_parameters())
    for ours, tensor in opened.tensors(None):
        assert torch.equal(tensor, weights.pop(ours).detach()), ours
    assert not weights


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0"])
@pytest.mark.parametrize("name", TWINS)
def test_their_reader_finds_their_names_and_our_numbers(name, kind, tmp_path):
    model = TWINS[name]()
    path = write(tmp_path, model, kind=kind)
    hand = reference.GGUFReader(by_their_writer(tmp_path / "hand.gguf", model))
    ours = reference.GGUFReader(path)
    assert ours.fields["general.architecture"].contents() == "llama4"
    wanted = {tensor.name: tensor for tensor in hand.tensors}
    found = {tensor.name: tensor for tensor in ours.tensors}
    assert found.keys() == wanted.keys()
    for key, tensor in found.items():
        assert list(tensor.shape) == list(wanted[key].shape), key
        is_fp32 = len(tensor.shape) == 1 or "ffn_gate_inp" in key
        assert tensor.tensor_type == (TYPE.F32 if is_fp32 else TYPE[kind]), key
        values = reference.quants.dequantize(tensor.data, tensor.tensor_type)
        bound = {"F32": 0, "F16": 2e-3, "Q8_0": 2e-2}[kind] * np.abs(wanted[key].data).max()
        np.testing.assert_allclose(values, wanted[key].data, rtol=0, atol=bound, err_msg=key)
    keys = {key for key in hand.fields if key.startswith("llama4.")}
    assert keys - {"llama4.attention.key_length", "llama4.attention.value_length"} == {
        key for key in ours.fields if key.startswith("llama4.")}
    for key in ours.fields:
        if key.startswith("llama4."):
            assert ours.fields[key].contents() == hand.fields[key].contents(), key


@pytest.mark.parametrize("name", TWINS)
def test_ours_to_gguf_to_ours_changes_no_bit_and_keeps_the_tokenizer(name, tmp_path):
    model = TWINS[name]()
    back, its_tokenizer = load(write(tmp_path, model))
    assert back.config == model.config and same_weights(back, model)
    fields = reference.GGUFReader(tmp_path / "m.gguf").fields
    assert fields["tokenizer.ggml.pre"].contents() == "llama4"
    assert its_tokenizer.pattern == tokenizer().pattern == released.LLAMA4_PATTERN
    ends = tokenizer().named_ids
    assert fields["tokenizer.ggml.eot_token_id"].contents() == ends["<|eot|>"]
    assert fields["tokenizer.ggml.eom_token_id"].contents() == ends["<|eom|>"]
    for text in (TEXT, "I'M x/y//z\n/ 12345", "<|image|><|eot|>"):
        for how in ({}, {"allowed_special": "all"}):
            assert its_tokenizer.encode(text, **how) == tokenizer().encode(text, **how)
    assert its_tokenizer.prompting.end_ids == tokenizer().prompting.end_ids


@pytest.mark.parametrize("name", family.EXPERTS)
def test_a_published_config_has_the_published_facts(name):
    config = family.config(name)
    facts = {key: value for key, (_, value) in gguf_config.config_to(config).items()}
    assert facts["llama4.feed_forward_length"] == 16384, "the dense width"
    assert facts["llama4.expert_feed_forward_length"] == 8192
    assert facts["llama4.expert_count"] == (16 if "scout" in name else 128)
    assert facts["llama4.interleave_moe_layer_step"] == (1 if "scout" in name else 2)
    about = {key.removeprefix("llama4."): value for key, value in facts.items()}
    assert gguf_llama4.layers_from(about, 48, ffn_dim=16384).specs() == config.layers


@pytest.mark.parametrize(("change", "drop", "message"), [
    ({}, ["expert_count"], "expert_count is missing"),
    ({}, ["interleave_moe_layer_step"], "interleave_moe_layer_step is missing"),
    ({"interleave_moe_layer_step": 9}, [], "must be from 1 to the number of layers, 4; got 9"),
    ({"interleave_moe_layer_step": 2}, [], r"blk.0.ffn_down.weight is missing"),
    ({"expert_count": 3}, [], r"blk.0.ffn_down_exps.weight is \(4, 64, 96\), not \(3, 64, 96\)"),
    ({"expert_used_count": 5}, [], "n_active must be at most n_experts=4; got 5"),
    ({"attention.sliding_window": 0}, [], "attention.sliding_window is 0, and only 8192"),
    ({"expert_gating_func": 1}, [], "expert_gating_func is 1, and only 2 can be computed"),
    ({"new_thing": 1}, [], "'new_thing' is not a key that is known"),
])  # fmt: skip
def test_facts_of_another_model_are_refused(change, drop, message, tmp_path):
    path = by_their_writer(tmp_path / "m.gguf", TWINS["scout"](), change=change, drop=drop)
    with pytest.raises(ValueError, match=message):
        gguf.open_checkpoint(path)


def twin_changed(change):
    return published_layers(layers=tuple(
        change(i, spec) for i, spec in enumerate(family.tiny("llama-4").layers)))


@pytest.mark.parametrize("make", [
    lambda: loud_llama4(KINDS["experts in all layers"]),
    lambda: published_layers(layers=tuple(as_maverick(n_experts=4))),
    lambda: twin_changed(lambda i, spec: dataclasses.replace(spec, temperature=None)),
    lambda: twin_changed(lambda i, spec: dataclasses.replace(
        spec, temperature=spec.temperature and TemperatureTuning(floor=8192, strength=0.2))),
    lambda: twin_changed(lambda i, spec: dataclasses.replace(
        spec, feed_forward=None if i == 1 else spec.feed_forward)),
], ids=["other chunks", "no norm with few experts", "no temperature", "another strength",
        "no step"])
def test_layers_that_llama_cpp_does_not_have_are_not_written(make, tmp_path):
    with pytest.raises(ValueError, match="llama.cpp fixes the layers of a Llama 4: experts in"):
        write(tmp_path, make())
    assert not list(tmp_path.iterdir())


def test_a_model_that_sees_is_written_without_its_encoder_only_on_request(tmp_path):
    with pytest.raises(ValueError, match="keeps the encoder of a model in a file of its own"):
        write(tmp_path, whole_model())
    assert VOCAB == tokenizer().vocab_size
