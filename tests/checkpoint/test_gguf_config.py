import dataclasses
import math

import gguf as reference
import numpy as np
import pytest
import torch
from gguf_reference import by_their_writer, divisors_by_hand, write
from tiny_checkpoints import tiny

from llama_from_scratch import family
from llama_from_scratch.checkpoint import gguf, gguf_config
from llama_from_scratch.config import RopeScaling

LAYER = family.tiny("llama-3.1").layers[0]


@pytest.mark.parametrize("name", family.FAMILY)
def test_the_divisors_show_the_scaling_of_every_published_model(name):
    config = family.config(name)
    bare = dataclasses.replace(config, rope_scaling=None)
    assert gguf_config.scaling_of(gguf_config.divisors_of(config), bare) == config.rope_scaling
    if config.rope_scaling:
        wanted = torch.tensor(divisors_by_hand(config, config.rope_scaling))
        torch.testing.assert_close(gguf_config.divisors_of(config), wanted, rtol=1e-5, atol=0)


@pytest.mark.parametrize("scaling",
                         [(16.0, 1.0, 1.0, 8192), (4.0, 1.0, 4.0, 4096), (10.0, 1.0, 8.0, 2048)])
def test_other_scalings_of_the_same_form_are_found(scaling):
    scaling = RopeScaling(
        **dict(zip(("factor", "low_freq_factor", "high_freq_factor", "original_max_seq_len"),
                   scaling, strict=True)))
    config = dataclasses.replace(family.config("llama-3.2-1b"), rope_scaling=scaling)
    assert gguf_config.scaling_of(gguf_config.divisors_of(config), config) == scaling


def test_divisors_of_no_known_scaling_are_refused():
    config = family.config("llama-3.1-8b")
    divisors = gguf_config.divisors_of(config)
    divisors[30] *= 1.001
    with pytest.raises(ValueError, match=r"must be the divisors of a scaling as in Llama 3.1"):
        gguf_config.scaling_of(divisors, config)


def test_a_file_with_divisors_of_no_known_scaling_is_named(tmp_path):
    path = by_their_writer(tmp_path / "m.gguf", tiny())
    data, divisors = path.read_bytes(), np.ones(4, "<f4").tobytes()
    at = data.rindex(divisors)  # of the pairs that are not slowed
    path.write_bytes(data[:at] + np.full(4, 0.5, "<f4").tobytes() + data[at + 16 :])
    with pytest.raises(ValueError, match=r"m.gguf describes no model .*no such scaling has"):
        gguf.open_checkpoint(path)


@pytest.mark.parametrize(("changes", "message"), [
    (
        dict(rope_scaling=RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=3.3,
                                      original_max_seq_len=9000)),
     r"must be the divisors of a scaling"),
    (dict(norm_eps=1.23456789e-5), "norm_eps=1.23456789e-05, which would be read as 1.2345679e-05"),
    (dict(layers=(LAYER, dataclasses.replace(LAYER, has_rope=False))), r"must use RoPE"),
])
def test_what_the_format_cannot_say_is_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write(tmp_path, tiny(**dict(dim=512) | changes))
    assert not list(tmp_path.iterdir())


KIND = reference.GGUFValueType
U8, U32, I64, F32, F64, BOOL, WORD = (
    (kind,) for kind in (KIND.UINT8, KIND.UINT32, KIND.INT64, KIND.FLOAT32, KIND.FLOAT64, KIND.BOOL,
                         KIND.STRING))
U32_LIST, I64_LIST, WORD_LIST = (
    (KIND.ARRAY, kind) for kind in (KIND.UINT32, KIND.INT64, KIND.STRING))


@pytest.mark.parametrize(("facts", "factor"), [
    ({}, 1.0), ({"type": ("linear", *WORD)}, 1.0), ({"type": ("none", *WORD)}, 1.0),
    ({"factor": (4.0, *F32)}, 4.0), ({"factor": (0.0, *F32)}, 1.0), ({"factor": (1.0, *F32)}, 1.0),
    ({"type": ("linear", *WORD), "factor": (2.5, *F32)}, 2.5),
    ({"type": ("none", *WORD), "factor": (4.0, *F32)}, 1.0),
], ids=str)
def test_a_linear_scaling_of_rope_is_read_as_llama_cpp_does(facts, factor, tmp_path):
    facts = {f"llama.rope.scaling.{key}": value for key, value in facts.items()}
    opened = gguf.open_checkpoint(by_their_writer(tmp_path / "m.gguf", tiny(), facts=facts))
    assert opened.config == dataclasses.replace(tiny().config, rope_linear_factor=factor)


def test_the_older_key_of_linear_scaling_is_read_too(tmp_path):
    facts = {"llama.rope.scale_linear": (4.0, *F32)}
    opened = gguf.open_checkpoint(by_their_writer(tmp_path / "m.gguf", tiny(), facts=facts))
    assert opened.config.rope_linear_factor == 4.0


def test_a_head_as_wide_as_its_share_of_dim_is_no_explicit_one(tmp_path):
    facts = {f"llama.attention.{key}_length": (16, *U32) for key in ("key", "value")}
    opened = gguf.open_checkpoint(by_their_writer(tmp_path / "m.gguf", tiny(), facts=facts))
    assert opened.config == tiny().config


@pytest.mark.parametrize(("facts", "message"), [
    ({"llama.expert_count": (8, *U32)}, r"expert_count is 8, and only 0 can be computed"),
    ({"llama.rope.scaling.factor": (math.inf, *F32)}, r"rope_linear_factor is used in fp32"),
    ({"llama.rope.scaling.factor": (-2.0, *F32)}, r"rope_linear_factor must be a number above 0"),
    ({"llama.rope.freq_base": (math.inf, *F32)}, r"rope_theta is used in fp32, .*; got inf"),
    ({"llama.rope.freq_base": (math.nan, *F32)}, r"rope_theta must be a number above 0; got nan"),
    ({"llama.attention.layer_norm_rms_epsilon": (math.inf, *F32)}, r"norm_eps is used in fp32"),
    ({"llama.attention.layer_norm_rms_epsilon": (2.0, *F32)}, r"norm_eps must be below 1; got 2"),
    ({"llama.rope.scaling.type": ("yarn", *WORD), "llama.rope.scaling.factor": (4.0, *F32),
      "llama.rope.scaling.original_context_length": (4096, *U32)},
     r"scaling.type is 'yarn', and RoPE can be scaled only linearly, or as in Llama 3.1 by the "
     r"tensor rope_freqs.weight.*Load another model, or another conversion of this one"),
    ({"llama.rope.scaling.type": ("longrope", *WORD)}, r"rope.scaling.type is 'longrope'"),
    ({"llama.rope.scaling.type": (3, *U32)}, r"rope.scaling.type is 3"),
    ({"llama.rope.scaling.attn_factor": (1.2, *F32)}, r"attn_factor is 1.2\d*, and only 1.0"),
    ({"llama.attention.key_length": (32, *U32)}, r"rope.dimension_count is 16, not 32"),
    ({"llama.attention.value_length": (32, *U32)}, r"attention.value_length is 32, not 16"),
    ({"llama.rope.dimension_count": (8, *U32)}, r"rope.dimension_count is 8, not 16"),
    ({"llama.attention.sliding_window": (4096, *U32)}, r"attention.sliding_window is 4096"),
    ({"llama.vocab_size": (32000, *U32)}, r"vocab_size is 32000, not 520"),
    ({"llama.logit_scale": (2.0, *F32)}, r"logit_scale is 2.0, and only 1.0 can be computed"),
    ({"llama.new_thing": (2.0, *F32)}, r"'new_thing' is not a key that is known"),
    ({"llama.attention.head_count_kv": ([2, 2, 4, 2], *U32_LIST)}, r"n_kv_heads must be an int"),
    ({"llama.attention.head_count_kv": ([2] * 3, *U32_LIST)}, r"n_kv_heads must be an int"),
    ({"llama.rope.freq_base": ("500000", *WORD)}, r"freq_base is '500000', and a number is needed"),
    ({"llama.rope.freq_base": (True, *BOOL)}, r"freq_base is True, and a number is needed"),
    ({"llama.attention.layer_norm_rms_epsilon": ([1, 2], *U32_LIST)},
     r"layer_norm_rms_epsilon is array.*, and a number is needed"),
    ({"general.type": ("adapter", *WORD)}, r"general.type in .*m.gguf is 'adapter', only a part"),
    ({"general.architecture": ("qwen2", *WORD)}, r"be \"llama\" or \"llama4\"; .* has 'qwen2'"),
    ({"general.architecture": ("llama4", *WORD)}, r"embedding_length is missing"),
    ({"general.architecture": ("mllama", *WORD)},
     r"mtmd, can run Llama 3.2 Vision, .* Load Hugging Face's or Meta's layout of this model"),
    ({"general.architecture": ([1, 2], *U32_LIST)}, r"or \"llama4\"; .* has array"),
    ({"general.architecture": (["llama"], *WORD_LIST)}, r"or \"llama4\"; .* has \['llama'\]"),
])
def test_a_fact_that_changes_the_arithmetic_is_refused(facts, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        gguf.open_checkpoint(by_their_writer(tmp_path / "m.gguf", tiny(), facts=facts))


def test_heads_wider_than_the_file_is_long_are_refused_before_anything_is_made_of_them(tmp_path):
    facts = {f"llama.{key}": (2**31, *U32) for key in ("attention.key_length",
                                                       "attention.value_length",
                                                       "rope.dimension_count")}
    file = by_their_writer(tmp_path / "m.gguf", tiny("llama-2"), facts=facts)
    with pytest.raises(ValueError, match=r"wq has a row for each channel of each head"):
        gguf.open_checkpoint(file)


@pytest.mark.parametrize("facts", [
    {},
    {"llama.rope.scaling.type": ("none", *WORD), "llama.rope.scaling.factor": (8.0, *F32)},
    {"llama.rope.scaling.type": ("linear", *WORD), "llama.rope.scaling.factor": (1.0, *F32)},
    {"llama.rope.scaling.factor": (0.0, *F32), "llama.rope.scale_linear": (1.0, *F32)},
    {"llama.rope.scaling.original_context_length": (8192, *U32),
     "llama.rope.scaling.finetuned": (True, *BOOL), "llama.rope.scaling.attn_factor": (1.0, *F32)},
    {"llama.attention.key_length": (16, *U32), "llama.attention.value_length": (16, *U8),
     "llama.vocab_size": (520, *I64), "llama.expert_count": (0, *U32),
     "llama.expert_used_count": (0, *U32), "llama.attention.causal": (True, *BOOL),
     "llama.tensor_data_layout": ("Meta AI original pth", *WORD)},
    {"llama.attention.head_count": ([4] * 4, *U32_LIST),
     "llama.attention.head_count_kv": ([2] * 4, *I64_LIST)},
    {"llama.block_count": (4, *I64), "llama.context_length": (131072, *I64),
     "llama.attention.layer_norm_rms_epsilon": (1e-5, *F64),
     "llama.rope.freq_base": (500000, *U32)},
    {"general.type": ("model", *WORD), "general.file_type": (15, *U32),
     "general.name": ("Über\x1b]0;x\x07", *WORD), "general.tags": (["a", "b"], *WORD_LIST),
     "general.base_model.0.name": ("x", *WORD), "quantize.imatrix.chunks_count": (128, *I64),
     "quantize.imatrix.file": ("/x/imatrix.dat", *WORD), "general.sampling.temp": (0.6, *F32),
     "tokenizer.chat_template": ("{{ x }}", *WORD), "new.thing": (1, *U8)},
])
def test_facts_that_change_nothing_are_read(facts, tmp_path):
    opened = gguf.open_checkpoint(by_their_writer(tmp_path / "m.gguf", tiny(), facts=facts))
    assert opened.config == tiny().config


def test_a_model_that_sees_has_no_facts_and_llama_cpp_has_no_names_for_it():
    with pytest.raises(ValueError, match="neither llama.cpp nor its library for images, mtmd, can "
                                         "run Llama 3.2 Vision, .* Write another format, or the"):
        gguf_config.config_to(family.tiny("llama-3.2-vision"))
    names = {arch.name for arch in reference.MODEL_ARCH}
    names |= {name for name in vars(reference.VisionProjectorType) if not name.startswith("_")}
    assert "LLAMA4" in names and not any("MLLAMA" in name for name in names)
