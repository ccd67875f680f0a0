import dataclasses
import json
import math

import pytest
import torch
import transformers
from relatives import RELATIVES, UNEVEN

from llama_from_scratch import family
from llama_from_scratch.checkpoint import hugging_face_config

PLAIN = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 192,
         "num_hidden_layers": 2, "num_attention_heads": 4,
         "vocab_size": 520}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}


def test_what_a_config_leaves_out_has_the_defaults_of_transformers():
    config, theirs = hugging_face_config.config_from(PLAIN), transformers.LlamaConfig(**PLAIN)
    assert config.norm_eps == theirs.rms_norm_eps == 1e-6
    assert config.max_seq_len == theirs.max_position_embeddings
    assert config.n_kv_heads == theirs.num_key_value_heads
    assert config.rope_theta == theirs.rope_parameters["rope_theta"] and config.rope_scaling is None
    assert config.is_tied == theirs.tie_word_embeddings


@pytest.mark.parametrize(
    "said",
    [
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3"} | LLAMA3},
        {"rope_theta": 5e5, "rope_scaling": {"type": "llama3"} | LLAMA3},
        {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", "rope_type": "llama3"} | LLAMA3},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5} | LLAMA3},
        {"rope_theta": 5e5, "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5} | LLAMA3,
         "rope_scaling": None},
    ],
)
def test_rope_is_read_in_the_words_of_transformers_4_and_5(said):
    config = hugging_face_config.config_from(PLAIN | said)
    assert (config.rope_theta, config.rope_scaling) == (5e5, family.tiny("llama-3.1").rope_scaling)


@pytest.mark.parametrize("name", family.FAMILY)
def test_a_config_comes_back_from_its_config_json(name):
    config = family.config(name)
    about = json.loads(json.dumps(hugging_face_config.config_to(config, dtype=torch.bfloat16)))
    assert hugging_face_config.config_from(about) == config
    if config.rope_scaling is None:
        assert hugging_face_config.config_from(
            {k: v for k, v in about.items() if k != "rope_scaling"}) == config
    theirs = transformers.LlamaConfig(**about).to_dict()
    assert hugging_face_config.config_from(theirs
                                           | {"architectures": ["LlamaForCausalLM"]}) == config


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"model_type": "mllama_text_model"}, r"'mllama_text_model' model, which needs the encoder "
                                              r"that its cross-attention layers look at"),
        ({"model_type": "llama4"}, "got 'llama4'. Only Llamas can be loaded"),
        ({"model_type": "mistral"}, "got 'mistral'. Only Llamas can be loaded"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "must be for a LlamaForCausalLM"),
        ({"architectures": ["LlamaModel"]}, "must be for a LlamaForCausalLM"),
        ({"attention_bias": "yes"}, "attention_bias is 'yes', not true or false"),
        ({"mlp_bias": 1}, "mlp_bias is 1, not true or false"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', and only 'silu' can be computed"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"sliding_window": 2047}, "sliding_window is 2047, and only null can be computed, or at "),
        ({"sliding_window": 64, "use_sliding_window": True}, "sliding_window is 64"),
        ({"sliding_window": "4096"}, "sliding_window is '4096'"),
        ({"use_sliding_window": "no"}, "use_sliding_window is 'no', not true or false"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types is .*sliding_att"),
        ({"layer_types": ["full_attention"] * 3}, "layer_types is .*once for each layer"),
        ({"layer_types": "full_attention"}, "layer_types is 'full_attention'"),
        ({"quantization_config": {"quant_method": "fp8"}}, "the weights are quantized"),
        ({"quantization": {"bits": 4}}, "quantization says that the weights are quantized"),
        ({"head_dim": 31}, r"explicit_head_dim must be even; got 31"),
        ({"head_dim": "32"}, r"explicit_head_dim must be an int above 0; got '32'"),
        ({"head_dim": 0}, r"explicit_head_dim must be an int above 0; got 0"),
        ({"num_attention_heads": 5}, "n_heads must divide it; got dim=64, n_heads=5"),
        ({"residual_multiplier": 0.2}, "residual_multiplier is 0.2, and only 1 can be computed"),
        ({"logit_scale": 0.0625}, "logit_scale is 0.0625"),
        ({"use_qk_norm": True}, "use_qk_norm is True"),
        ({"num_local_experts": 8}, "num_local_experts is 8"),
        ({"attention_dropout": 0.1}, "attention_dropout is 0.1"),
        ({"residual_multiplyer": 0.2}, "residual_multiplyer is not a key that is known"),
        ({"rms_norm_eps": math.inf}, "norm_eps is used in fp32, whose numbers .*; got inf"),
        ({"rms_norm_eps": math.nan}, "norm_eps must be a number above 0; got nan"),
        ({"rms_norm_eps": 5}, "norm_eps must be below 1; got 5"),
        ({"rope_theta": math.inf}, "rope_theta is used in fp32, whose numbers .*; got inf"),
        ({"rope_theta": 0}, "rope_theta must be a number above 0; got 0"),
        ({"max_position_embeddings": 1e30}, "max_seq_len must be an int above 0; got 1e[+]30"),
        ({"vocab_size": 10**400}, "vocab_size must be at most .*; got an int of 1329 bits"),
        ({"rope_scaling": {"rope_type": "llama3"} | LLAMA3 | {"factor": math.inf}},
         "RopeScaling.factor is used in fp32"),
        ({"rope_scaling": {"rope_type": "llama3"} | LLAMA3 | {"low_freq_factor": math.nan}},
         "RopeScaling.low_freq_factor must be a number above 0; got nan"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "requires 'dynamic', which is not"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "requires 'yarn', which is not"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 1.0, "attention_factor": 2.0}},
         "unscaled RoPE must have only theta; .* also has attention_factor"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 1.0}}, "requires 'longrope'"),
        ({"rope_scaling": {"type": "linear", "factor": True}},
         "rope_linear_factor must be a number above 0; got True"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
         "unscaled RoPE must have only theta; .* also has partial_rotary_factor"),
        ({"hidden_size": "64"}, "LlamaConfig.dim must be an int above 0; got '64'"),
        ({"num_hidden_layers": 0}, "one LayerSpec per layer"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers is '2'"),
        ({"num_key_value_heads": 3}, "n_kv_heads must divide n_heads"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes', not true or false"),
        ({"rope_scaling": {"type": "linear"}},
         "\"linear\" scaling of RoPE must have exactly factor; .* has nothing"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "low_freq_factor": 1.0}},
         "\"linear\" scaling of RoPE must have exactly factor; .* has factor, low_freq_factor"),
        ({"rope_scaling": {"type": "linear", "factor": -2.0}},
         "rope_linear_factor must be a number above 0; got -2.0"),
        ({"rope_scaling": {"type": "linear", "factor": math.inf}},
         "rope_linear_factor is used in fp32"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
         "scaling of RoPE must have exactly factor, low_freq_factor"),
        ({"rope_scaling": {"rope_type": "llama3", "attention_factor": 2} | LLAMA3},
         "has attention_factor, factor"),
        ({"rope_scaling": {"rope_type": "llama3"} | LLAMA3 | {"factor": "8"}},
         "RopeScaling.factor must be a number"),
        ({"rope_scaling": {"factor": 8.0}}, "unscaled RoPE must have only theta"),
        ({"rope_scaling": {"rope_type": "llama3", "type": "yarn"} | LLAMA3},
         "must describe RoPE in one way"),
        ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}},
         "must describe RoPE in one way"),
        ({"rope_theta": [1e4]}, "rope_theta must be a number"),
        ({"rope_scaling": [8]}, "must be JSON objects or null"),
    ],
)
def test_a_config_that_asks_for_another_arithmetic_is_refused(said, message):
    with pytest.raises(ValueError, match=message):
        hugging_face_config.config_from(PLAIN | said)


@pytest.mark.parametrize("said", [
    {"partial_rotary_factor": 1.0}, {"partial_rotary_factor": None}, {"sliding_window": None},
    {"sliding_window": 64, "use_sliding_window": False, "max_window_layers": 28},
    {"sliding_window": 2048}, {"layer_types": None}, {"layer_types": ["full_attention"] * 2},
    {"mlp_bias": False, "attention_bias": False}, {"mlp_bias": None, "attention_bias": None},
    {"head_dim": None}, {"head_dim": 16}, {"num_key_value_heads": None}, {"num_key_value_heads": 4},
    {"tie_word_embeddings": None}, {"max_position_embeddings": None}, {"rms_norm_eps": None},
    {"rope_theta": None}, {"rope_scaling": None}, {"rope_parameters": None}, {"rope_scaling": {}},
    {"rope_scaling": {"type": "linear", "factor": 1.0}},
    {"rope_scaling": {"rope_type": "linear", "factor": 1}},
    {"rope_scaling": {"type": "dynamic", "factor": 1.0}},
    {"rope_scaling": {"rope_type": "yarn", "factor": 1.0, "beta_fast": 32, "beta_slow": 1,
                      "original_max_position_embeddings": 2048}},
    {"rope_scaling": {"rope_type": "default"}}, {"rope_scaling": {"type": "default", "factor": 1}},
    {"rope_scaling": {"rope_type": "default", "factor": None}},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0}},
    {"residual_multiplier": 1.0, "embedding_multiplier": 1.0, "logits_scaling": 1.0},
    {"use_qk_norm": False, "num_local_experts": 0, "rope_interleaved": False, "rotary_pct": 1.0},
    {"quantization_config": None}, {"architectures": None}, {"hidden_act": "swish"},
    {"architectures": ["LLaMAForCausalLM"]}, {"some_key_of_the_future": None},
], ids=str)
def test_a_value_that_leaves_the_arithmetic_as_it_is_loads(said):
    plain = hugging_face_config.config_from(PLAIN)
    assert hugging_face_config.config_from(PLAIN | said) == plain


HARMLESS = {
    "_attn_implementation_autoset": True, "_name_or_path": "x/y", "transformers.js_config": {},
    "auto_map": {"AutoModelForCausalLM": "x.Y"}, "loss_type": "ForCausalLM", "dtype": "bfloat16",
    "torch_dtype": "bfloat16", "unsloth_fixed": True, "is_llama_config": True, "pretraining_tp": 1,
    "use_cache": True, "pad_token_id": None, "bos_token_id": 1, "eos_token_id": [2, 3],
    "transformers_version": "5.1.0", "initializer_range": 0.04, "id2label": {"0": "LABEL_0"},
    "_flash_attn_2_enabled": True, "gradient_checkpointing": False, "max_sequence_length": 2048,
    "_experts_implementation": "eager", "use_flash_attention_2": False, "model_max_length": 10**30,
}


@pytest.mark.parametrize("key", HARMLESS)
def test_a_key_that_changes_no_logit_loads(key):
    plain = hugging_face_config.config_from(PLAIN)
    assert hugging_face_config.config_from(PLAIN | {key: HARMLESS[key]}) == plain


def test_every_key_that_transformers_has_for_any_llama_is_known():
    """Those of its config, private ones too, and of generation, which older versions kept there."""
    theirs = transformers.LlamaConfig(**PLAIN, architectures=["LlamaForCausalLM"])
    generation = transformers.GenerationConfig().to_dict()
    about = {**generation, **vars(theirs), **theirs.to_dict()}
    assert hugging_face_config.config_from(about) == hugging_face_config.config_from(PLAIN)
    module = hugging_face_config
    known = {*module._READ, *module._MUST_BE, *module._CLAIMS, *module.IGNORED}
    assert about.keys() <= known, "also where their value is null today"


LAYOUTS = {
    "SmolLM2-135M": (134_515_008, {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 576,
        "initializer_range": 0.041666666666666664, "intermediate_size": 1536,
        "is_llama_config": True, "max_position_embeddings": 8192, "mlp_bias": False,
        "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30,
        "num_key_value_heads": 3, "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_interleaved": False, "rope_scaling": None, "rope_theta": 100000,
        "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}},
        "transformers_version": "4.42.3", "use_cache": True, "vocab_size": 49152}),
    "TinyLlama-1.1B": (1_100_048_384, {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
        "intermediate_size": 5632, "max_position_embeddings": 2048, "model_type": "llama",
        "num_attention_heads": 32, "num_hidden_layers": 22, "num_key_value_heads": 4,
        "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 10000.0,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16",
        "transformers_version": "4.35.0", "use_cache": True, "vocab_size": 32000}),
    "wide heads": (4_512_746_496, {  # 32 heads of 128 in a stream of 3072
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "head_dim": 128,
        "hidden_act": "silu", "hidden_size": 3072, "intermediate_size": 9216,
        "max_position_embeddings": 131072, "mlp_bias": False, "model_type": "llama",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "vocab_size": 128256,
        "rope_scaling": {"rope_type": "llama3"} | LLAMA3}),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_layouts_of_other_models_of_this_architecture_load(name):
    n_params, about = LAYOUTS[name]
    config = hugging_face_config.config_from(about)
    assert config.n_params == n_params
    theirs = transformers.LlamaConfig(**about)
    assert config.head_dim == theirs.head_dim
    resaved = theirs.to_dict() | {"architectures": ["LlamaForCausalLM"]}
    assert hugging_face_config.config_from(resaved) == config, "as transformers 5 saves it"


@pytest.mark.parametrize("name", RELATIVES)
def test_heads_and_biases_come_back_from_config_json_or_are_refused(name):
    config = RELATIVES[name]
    if config.has_qkv_bias != config.has_wo_bias:
        with pytest.raises(ValueError, match=r"one key for the biases .*; got has_qkv_bias=True "
                                             r"and has_wo_bias=False. Write another format"):
            hugging_face_config.config_to(config, dtype=torch.float32)
        return
    about = hugging_face_config.config_to(config, dtype=torch.float32)
    assert hugging_face_config.config_from(about) == config
    theirs = transformers.LlamaConfig(**about)
    assert (theirs.head_dim, theirs.attention_bias, theirs.mlp_bias) == (
        config.head_dim, config.has_qkv_bias, config.has_ffn_bias)


@pytest.mark.parametrize("said", [
    {"rope_scaling": {"type": "linear", "factor": 4.0}},
    {"rope_scaling": {"rope_type": "linear", "factor": 4}, "rope_theta": 1e5},
    {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e5}},
])
def test_linear_scaling_is_read_in_the_words_of_transformers_4_and_5(said):
    config = hugging_face_config.config_from(PLAIN | said)
    assert config.rope_linear_factor == 4.0 and config.rope_scaling is None
    theirs = transformers.LlamaConfig(**PLAIN | said)
    assert theirs.rope_parameters["rope_theta"] == config.rope_theta
    assert hugging_face_config.config_from(theirs.to_dict()) == config


def test_two_scalings_at_once_are_not_written():
    config = dataclasses.replace(family.tiny("llama-3.1"), rope_linear_factor=2.0)
    with pytest.raises(ValueError, match="in only one way; got rope_linear_factor=2.0 and"):
        hugging_face_config.config_to(config, dtype=torch.float32)


def test_heads_that_transformers_would_refuse_are_not_written():
    with pytest.raises(ValueError, match="divides hidden_size; got 6 heads and dim=64. Write"):
        hugging_face_config.config_to(UNEVEN, dtype=torch.float32)


@pytest.mark.parametrize("key", [key for key in PLAIN if key != "model_type"])
def test_a_size_that_is_left_out_is_named(key):
    with pytest.raises(ValueError, match=f"{key} is"):
        hugging_face_config.config_from({k: v for k, v in PLAIN.items() if k != key})


def test_layers_that_config_json_has_no_words_for_are_refused():
    config = family.tiny("llama-3.1")
    odd = dataclasses.replace(config.layers[0], has_rope=False)
    config = dataclasses.replace(config, layers=(config.layers[0], odd))
    with pytest.raises(ValueError, match=r"must use RoPE .*; got"):
        hugging_face_config.config_to(config, dtype=torch.float32)
