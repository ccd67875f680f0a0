import dataclasses
import json

import pytest
import torch
import transformers

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
        ({"model_type": "mllama"}, r"'mllama' model, which needs the vision encoder and "
                                   r"cross-attention of Llama 3.2 Vision"),
        ({"model_type": "llama4"}, "needs the experts and the vision of Llama 4; this version has"),
        ({"model_type": "mistral"}, "got 'mistral'. Only Llamas can be loaded"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "must be of a LlamaForCausalLM"),
        ({"attention_bias": True}, "attention_bias is True, and only False can be computed"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', and only 'silu' can be computed"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"sliding_window": 4096}, "sliding_window is 4096"),
        ({"quantization_config": {"quant_method": "fp8"}}, "the weights are quantized"),
        ({"head_dim": 32}, r"head_dim must be hidden_size / num_attention_heads = 16 .* has 32"),
        ({"residual_multiplier": 0.2}, "residual_multiplier is not a key that is known"),
        ({"hidden_size": "64"}, "LlamaConfig.dim must be an int above 0; got '64'"),
        ({"num_hidden_layers": 0}, "one LayerSpec per layer"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers is '2'"),
        ({"num_key_value_heads": 3}, "n_kv_heads must divide n_heads"),
        ({"tie_word_embeddings": "yes"}, "must say true or false for tie_word_embeddings"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}},
         "asks for 'linear', which is not built"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
         "scaling of RoPE has just factor, low_freq_factor"),
        ({"rope_scaling": {"rope_type": "llama3", "attention_factor": 2} | LLAMA3},
         "has attention_factor, factor"),
        ({"rope_scaling": {"rope_type": "llama3"} | LLAMA3 | {"factor": "8"}},
         "RopeScaling.factor must be a number"),
        ({"rope_scaling": {"factor": 8.0}}, "unscaled RoPE has theta and nothing else"),
        ({"rope_scaling": {"rope_type": "llama3", "type": "yarn"} | LLAMA3},
         "says several things about RoPE"),
        ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}},
         "says several things about RoPE"),
        ({"rope_theta": [1e4]}, "rope_theta must be a number"),
        ({"rope_scaling": [8]}, "must be JSON objects or null"),
    ],
)
def test_a_config_that_asks_for_another_arithmetic_is_refused(said, message):
    with pytest.raises(ValueError, match=message):
        hugging_face_config.config_from(PLAIN | said)


@pytest.mark.parametrize("key", [key for key in PLAIN if key != "model_type"])
def test_a_size_that_is_left_out_is_named(key):
    with pytest.raises(ValueError, match=f"{key} is"):
        hugging_face_config.config_from({k: v for k, v in PLAIN.items() if k != key})


def test_layers_that_config_json_has_no_words_for_are_refused():
    config = family.tiny("llama-3.1")
    odd = dataclasses.replace(config.layers[0], has_rope=False)
    config = dataclasses.replace(config, layers=(config.layers[0], odd))
    with pytest.raises(ValueError, match=r"has layers that all turn their heads .*; got"):
        hugging_face_config.config_to(config, dtype=torch.float32)
