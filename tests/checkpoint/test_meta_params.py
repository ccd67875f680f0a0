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
    with pytest.raises(ValueError, match=r"cannot describe RoPE scaling with constants other than "
                                         r"1, 4 and 8192"):
        meta.write(tmp_path / "n", tiny("llama-3.1", rope_scaling=scaling), tokenizer=TOKENIZER)


def test_a_linear_scaling_that_params_json_has_no_words_for_is_refused():
    with pytest.raises(ValueError, match="linear scaling of RoPE; got rope_linear_factor=4.0"):
        meta_params.params_of(RELATIVES["linear scaling"])


@pytest.mark.parametrize("name", [n for n in RELATIVES if n != "linear scaling"])
def test_heads_and_biases_that_params_json_has_no_words_for_are_refused(name):
    config = RELATIVES[name]
    with pytest.raises(ValueError, match=r"cannot describe heads that do not share dim equally, "
                                         rf"or biases; got {config.n_heads} heads of "
                                         rf"{config.head_dim} in dim=64, and biases of \w+"):
        meta_params.params_of(config)


@pytest.mark.parametrize("changes", [dict(has_rope=False), dict(chunk_size=16)])
def test_layers_that_params_json_has_no_words_for_are_refused(changes):
    config = family.tiny("llama-3.1")
    odd = dataclasses.replace(config.layers[0], **changes)
    config = dataclasses.replace(config, layers=(config.layers[0], odd))
    with pytest.raises(ValueError, match=r"describe layers without RoPE or with chunks; got"):
        meta_params.params_of(config)


@pytest.mark.parametrize(("key", "value", "message"), [
    ("norm_eps", math.inf, "norm_eps is used in fp32"),
    ("norm_eps", math.nan, "norm_eps must be a number above 0"),
    ("rope_theta", math.inf, "rope_theta is used in fp32"),
    ("rope_scaling_factor", math.inf, "rope_scaling_factor must be a number above 0 and below"),
    ("rope_scaling_factor", 1e60, "rope_scaling_factor must be a number above 0 and below"),
    ("ffn_dim_multiplier", math.inf, "ffn_dim_multiplier must be a number above 0 and below"),
    ("ffn_dim_multiplier", math.nan, "ffn_dim_multiplier must be a number above 0 and below"),
    ("ffn_dim_multiplier", 1e30, "ffn_dim_multiplier must be a number above 0 and below"),
    ("multiple_of", 0, "multiple_of must be an int above 0"),
    ("dim", 10**400, "dim must be an int above 0"),
])
def test_a_number_that_is_none_in_fp32_is_refused(key, value, message):
    params = meta_params.params_of(family.config("llama-3.1-8b")) | {key: value}
    with pytest.raises(ValueError, match=rf"^here describes no model of this version: .*{message}"):
        meta_params.config_from(params, vocab_size=128256, is_tied=False, where="here")


PARAMS = {"dim": 64, "n_layers": 2, "n_heads": 4, "multiple_of": 32, "norm_eps": 1e-6,
          "vocab_size": -1}


def config_of(**changes):
    said = {key: value for key, value in (PARAMS | changes).items() if value != "absent"}
    return meta_params.config_from(said, vocab_size=9, is_tied=False)


@pytest.mark.parametrize(("key", "cure"), [
    ("rope_thetaa", "did you mean 'rope_theta'?"), ("norm_epsilon", "did you mean 'norm_eps'?"),
    ("n_kv_head", "did you mean 'n_kv_heads'?"), ("use_scaled_ropes", "'use_scaled_rope'?"),
    ("rope_scaling_facto", "'rope_scaling_factor'?"), ("Norm_eps", "'norm_eps'?"),
    ("hidden_dim", "did you mean 'head_dim'?"), ("\x1b]0;X\x07", "known: dim, n_layers"),
])
def test_a_key_that_metas_code_does_not_have_is_refused_with_the_nearest_one(key, cure, tmp_path):
    for refuse in (lambda: config_of(**{key: 1}),
                   lambda: meta_params.text_params(PARAMS | {key: 1}, where=tmp_path)):
        with pytest.raises(ValueError, match="is not a key of params.json") as caught:
            refuse()
        assert cure in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize("key", ["max_batch_size", "model_parallel_size"])
def test_keys_about_running_change_nothing(key):
    assert config_of(**{key: 8}) == config_of()


@pytest.mark.parametrize(("absent", "field", "value"), [
    ("norm_eps", "norm_eps", 1e-5), ("multiple_of", "ffn_dim", 256),
    ("n_kv_heads", "n_kv_heads", 4),
])
def test_a_key_that_is_absent_has_the_default_of_metas_code(absent, field, value):
    assert getattr(config_of(**{absent: "absent"}), field) == value


def test_theta_that_is_absent_is_that_of_the_code_which_reads_the_file():
    assert config_of().rope_theta == 1e4
    assert config_of(use_scaled_rope=False).rope_theta == 5e5
    assert config_of(use_scaled_rope=False).max_seq_len == 8192
    assert config_of(vocab_size=128256).rope_theta == 5e5


def test_both_factors_of_the_scaling_are_obeyed():
    scaling = config_of(use_scaled_rope=True, rope_scaling_factor=16.0,
                        rope_high_freq_factor=1.0).rope_scaling
    assert (scaling.factor, scaling.high_freq_factor) == (16.0, 1.0)


@pytest.mark.parametrize(("changes", "message"), [
    (dict(use_scaled_rope="false"), "use_scaled_rope must be true or false; got 'false'"),
    (dict(multiple_of=0), "multiple_of must be an int above 0 and below 2\\*\\*31; got 0"),
    (dict(multiple_of=32.0), "multiple_of must be an int"), (dict(dim=[64]), "dim must be an int"),
    (dict(ffn_dim_multiplier=True), "ffn_dim_multiplier must be a number"),
    (dict(ffn_dim_multiplier=float("inf")), "ffn_dim_multiplier must be a number"),
    (dict(rope_scaling_factor="8"), "rope_scaling_factor must be a number"),
    (dict(norm_eps=float("inf")), "norm_eps .*got inf"),
    (dict(norm_eps=None), "norm_eps must be a number"),
    (dict(rope_theta=float("inf")), "rope_theta .*got inf"),
    (dict(n_heads="absent"), "n_heads is missing"),
    (dict(head_dim=8), "head_dim must be dim / n_heads"),
    (dict(n_kv_heads=3), "n_kv_heads must divide n_heads"),
])
def test_a_value_of_another_type_or_model_is_refused(changes, message):
    with pytest.raises(ValueError, match=rf"params.json describes no model.*{message}"):
        config_of(**changes)


def test_a_nested_file_says_each_thing_once(tmp_path):
    assert meta_params.text_params({"model": PARAMS, "tokenizer": "x"}, where=tmp_path) == PARAMS
    with pytest.raises(ValueError, match="also has dim, rope_theta outside"):
        meta_params.text_params({"model": PARAMS, "dim": 64, "rope_theta": 1}, where=tmp_path)
