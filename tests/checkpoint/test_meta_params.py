import dataclasses
import math

import pytest
from relatives import RELATIVES
from tiny_checkpoints import TOKENIZER, tiny, width_of

from llama_from_scratch import family
from llama_from_scratch.checkpoint import meta, meta_params


@pytest.mark.parametrize("name", family.FAMILY)
def test_params_json_says_all_of_every_published_model(name):
    config = family.config(name)
    params = meta_params.params_of(config)
    assert meta_params.config_from(params, vocab_size=config.vocab_size,
                                   is_tied=config.is_tied) == config
    assert not {"max_seq_len",
                "rope_scaling_factor"} & params.keys(), "the released files have neither"


def test_the_factor_that_params_json_leaves_out_is_32_for_the_sizes_of_llama_3_2_and_8_for_others():
    def factor(name):
        config = family.config(name)
        params = {"dim": config.dim, "n_layers": config.n_layers, "n_heads": config.n_heads,
                  "n_kv_heads": config.n_kv_heads,
                  "multiple_of": 256, "norm_eps": 1e-5, "rope_theta": 5e5, "use_scaled_rope": True}
        return meta_params.config_from(params, vocab_size=9, is_tied=True).rope_scaling.factor
    assert [factor(n)
            for n in ("llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b", "llama-3.3-70b")] == [
                32, 32, 8, 8]


def test_what_params_json_has_no_word_for_is_added_or_refused(tmp_path):
    meta.write(tmp_path / "m", tiny("llama-3.2", max_seq_len=640, ffn_dim=100), tokenizer=TOKENIZER)
    config = meta.open_checkpoint(tmp_path / "m").config
    assert (config.max_seq_len, config.rope_scaling.factor, width_of(config),
            config.is_tied) == (640, 32, 100, True)
    scaling = dataclasses.replace(family.tiny("llama-3.1").rope_scaling, high_freq_factor=2.0)
    with pytest.raises(ValueError, match=r"no words for RoPE scaling with other constants than 1, "
                                         r"4 and 8192"):
        meta.write(tmp_path / "n", tiny("llama-3.1", rope_scaling=scaling), tokenizer=TOKENIZER)


def test_a_linear_scaling_that_params_json_has_no_words_for_is_refused():
    with pytest.raises(ValueError, match="turns all pairs slower; got rope_linear_factor=4.0"):
        meta_params.params_of(RELATIVES["linear scaling"])


@pytest.mark.parametrize("name", [n for n in RELATIVES if n != "linear scaling"])
def test_heads_and_biases_that_params_json_has_no_words_for_are_refused(name):
    config = RELATIVES[name]
    with pytest.raises(ValueError, match=r"no words for heads that do not share dim equally, nor "
                                         rf"for biases; got {config.n_heads} heads of "
                                         rf"{config.head_dim} in dim=64, and biases of \w+"):
        meta_params.params_of(config)


@pytest.mark.parametrize("changes", [dict(has_rope=False), dict(chunk_size=16)])
def test_layers_that_params_json_has_no_words_for_are_refused(changes):
    config = family.tiny("llama-3.1")
    odd = dataclasses.replace(config.layers[0], **changes)
    config = dataclasses.replace(config, layers=(config.layers[0], odd))
    with pytest.raises(ValueError, match=r"no words for layers without RoPE or with chunks; got"):
        meta_params.params_of(config)


@pytest.mark.parametrize(("key", "value", "message"), [
    ("norm_eps", math.inf, "norm_eps is used in fp32"),
    ("norm_eps", math.nan, "norm_eps must be a number above 0"),
    ("rope_theta", math.inf, "rope_theta is used in fp32"),
    ("rope_scaling_factor", math.inf, "RopeScaling.factor is used in fp32"),
    ("rope_scaling_factor", 1e60, "RopeScaling.factor is used in fp32"),
    ("ffn_dim_multiplier", math.inf, "cannot convert float infinity"),
    ("ffn_dim_multiplier", math.nan, "cannot convert float NaN"),
    ("ffn_dim_multiplier", 1e30, "ffn_dim must be at most"),
    ("multiple_of", 0, "zero"), ("dim", 10**400, "describes no model of this version"),
])
def test_a_number_that_is_none_in_fp32_is_refused(key, value, message):
    params = meta_params.params_of(family.config("llama-3.1-8b")) | {key: value}
    with pytest.raises(ValueError, match=rf"^here describes no model of this version: .*{message}"
                                         if key != "dim" else message):
        meta_params.config_from(params, vocab_size=128256, is_tied=False, where="here")
