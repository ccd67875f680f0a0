import dataclasses
import io
import json
import re

import pytest
import torch
from llama4_files import (
    VOCAB,
    as_released,
    meta_small,
    params_by_hand,
    same_weights,
    small,
    text_model,
    tokenizer,
)
from llama4_twin import loud_llama4
from meta_release import edit, edit_params, load
from tiny_checkpoints import tokenizer_for

from llama_from_scratch import family
from llama_from_scratch.checkpoint import meta, meta_llama4
from llama_from_scratch.config import RopeScaling

STEPS = {"experts in all layers": meta_small(),
         "experts in every second": meta_small(step=2, n_active=2, has_qk_norm=False)}


@pytest.mark.parametrize("n_shards", [1, 2])
@pytest.mark.parametrize("name", STEPS)
def test_a_release_is_read_bit_for_bit(name, n_shards, tmp_path):
    model = loud_llama4(STEPS[name])
    loaded = load(as_released(tmp_path / "m", model, n_shards=n_shards))
    assert loaded.config == model.config and same_weights(loaded, model)


@pytest.mark.parametrize("n_shards", [1, 2])
@pytest.mark.parametrize("name", STEPS)
def test_what_is_written_has_the_entries_of_a_release(name, n_shards, tmp_path):
    model = loud_llama4(STEPS[name])
    as_released(tmp_path / "hand", model, n_shards=n_shards)
    meta.write(tmp_path / "m", model, tokenizer=tokenizer(), n_shards=n_shards)
    unread = re.compile(r"_extra_state|freq_cis|rope.freqs|stats_3E|activation_DE")
    for i in range(n_shards):
        ours = torch.load(tmp_path / f"m/consolidated.{i:02}.pth", weights_only=True)
        with torch.serialization.safe_globals([io.BytesIO]):
            hand = torch.load(tmp_path / f"hand/consolidated.{i:02}.pth", weights_only=True)
        hand = {key: tensor for key, tensor in hand.items() if not unread.search(key)}
        assert ours.keys() == hand.keys()
        assert all(torch.equal(ours[key], hand[key]) for key in hand)
    said = json.loads((tmp_path / "m/params.json").read_text())
    by_hand = params_by_hand(model.config)
    assert meta_llama4.config_from(said, vocab_size=VOCAB, is_tied=False) == model.config
    assert said.keys() - {"multiple_of", "ffn_dim_multiplier"} <= by_hand.keys()


@pytest.mark.parametrize("n_shards", [1, 2])
@pytest.mark.parametrize("kind", ["experts in all layers",
                                  "experts in every second, top 2, no norm"])
def test_a_model_with_any_widths_comes_back(kind, n_shards, tmp_path):
    model = text_model(kind)
    meta.write(tmp_path / "m", model, tokenizer=tokenizer(), n_shards=n_shards)
    loaded = load(tmp_path / "m")
    assert loaded.config == model.config and same_weights(loaded, model)


def test_dtypes_are_kept_or_converted(tmp_path):
    model = loud_llama4(STEPS["experts in every second"]).bfloat16()
    as_released(tmp_path / "m", model, n_shards=2)
    assert same_weights(load(tmp_path / "m"), model)
    wide = load(tmp_path / "m", dtype=torch.float32)
    assert same_weights(wide, model.float())


# --- params.json ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", family.EXPERTS)
def test_a_published_config_comes_back_from_its_params(name):
    config = family.config(name)
    params = json.loads(json.dumps(meta_llama4.params_of(config)))
    assert meta_llama4.config_from(params, vocab_size=202_048, is_tied=False) == config
    assert params["ffn_dim_multiplier"] == 1.2 and params["moe_args"]["auto_scale_F"] is True
    assert ("max_seq_len" in params) == ("instruct" in name)


RELEASED = {
    "dim": 5120, "n_layers": 48, "n_heads": 40, "n_kv_heads": 8, "vocab_size": 202_048,
    "multiple_of": 2048, "ffn_dim_multiplier": 1.2, "ffn_exp": 4.0, "norm_eps": 1e-5,
    "attention_chunk_size": 8192, "rope_theta": 500_000.0, "nope_layer_interval": 4,
    "attn_temperature_tuning": True, "use_qk_norm": True, "use_scaled_rope": True,
    "moe_args": {"num_experts": 16, "capacity_factor": 1.0, "auto_scale_F": True, "top_k": 1,
                 "interleave_moe_layer_step": 1}}


@pytest.mark.parametrize("more", [
    {}, {"rope_scaling_factor": 16, "rope_high_freq_factor": 1.0}, {"head_dim": 128},
    {"floor_scale": 8192.0, "attn_scale": 0.1}, {"ffn_exp": None},
    {"moe_args": {"num_experts": 16}}, {"max_batch_size": 32, "quantization_args": None},
], ids=range(7))
def test_widths_and_constants_that_a_file_leaves_out_are_those_of_metas_code(more):
    found = meta_llama4.config_from(RELEASED | more, vocab_size=202_048, is_tied=False)
    assert found == family.config("llama-4-scout-17b-16e-text")


def test_the_width_of_experts_is_truncated_step_by_step():
    """20480 -> 13653 -> 16383 -> 8191 -> 8192; without sharing, 16384."""
    def width(**moe):
        params = RELEASED | {"moe_args": RELEASED["moe_args"] | moe}
        found = meta_llama4.config_from(params, vocab_size=202_048, is_tied=False)
        return found.ffn_dim, found.layers[0].feed_forward.width

    assert width() == (16384, 8192) and width(auto_scale_F=False) == (16384, 16384)
    assert width(capacity_factor=3.0) == (16384, 4096)


@pytest.mark.parametrize(("changes", "message"), [
    ({"moe_args": {"num_experts": 16, "topk": 1}}, "'topk' is not a key of moe_args; did you mean"),
    ({"moe_args": {"num_experts": "16"}}, "num_experts of moe_args must be an int above 0"),
    ({"moe_args": {}}, "num_experts of moe_args must be an int above 0; got None"),
    ({"moe_args": [16]}, "moe_args must be a JSON object"),
    ({"moe_args": {"num_experts": 16, "interleave_moe_layer_step": 49}}, "none would have experts"),
    ({"moe_args": {"num_experts": 16, "capacity_factor": -1}}, "capacity_factor of moe_args"),
    ({"moe_args": {"num_experts": 16, "auto_scale_F": 1}}, "auto_scale_F of moe_args must be true"),
    ({"use_qk_norm": "yes"}, "use_qk_norm must be true or false; got 'yes'"),
    ({"attention_chunk_size": 0.5}, "attention_chunk_size must be an int above 0"),
    ({"ffn_exp": "4"}, "ffn_exp must be a number above 0"),
    ({"head_dim": 64}, "head_dim must be dim / n_heads = 128; got 64"),
    ({"n_kv_heads": 7}, "n_kv_heads must divide n_heads"),
])  # fmt: skip
def test_params_of_another_model_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        meta_llama4.config_from(RELEASED | changes, vocab_size=202_048, is_tied=False)


@pytest.mark.parametrize(("damage", "message"), [
    (lambda f: edit_params(f, moe_args="remove"), "a Llama 4 has the key .*, and here a Llama"),
    (lambda f: edit_params(f, quantization_args={"scheme": "int4"}), "as in a quantized Llama"),
    (lambda f: edit_params(f, use_qk_norms=True), "'use_qk_norms' is not a key of params.json"),
    (lambda f: (f / "consolidated.01.pth").unlink(), r"the 1 files has 1156 rows"),
    (lambda f: edit(f, lambda t: t.pop("layers.2.feed_forward.experts.moe_w_in_eD_F")),
     r"layers.2.feed_forward.experts.moe_w_in_eD_F is missing"),
    (lambda f: edit(f, lambda t: t.update({"layers.2.feed_forward.experts.moe_w_in_eD_F": t[
        "layers.2.feed_forward.experts.moe_w_in_eD_F"][:96].clone()})),
     r"layers.2.feed_forward.experts.moe_w_in_eD_F is \(96, 28\), not \(128, 28\)"),
])
def test_damaged_files_are_refused_with_the_layer(damage, message, tmp_path):
    folder = tmp_path / "m"
    meta.write(folder, loud_llama4(meta_small()), tokenizer=tokenizer(), n_shards=2)
    damage(folder)
    with pytest.raises(ValueError, match=message):
        meta.open_checkpoint(folder)


def changed(**fields):
    return dataclasses.replace(meta_small(), **fields)


def layers_changed(change):
    return changed(layers=tuple(change(i, spec) for i, spec in enumerate(meta_small().layers)))


@pytest.mark.parametrize(("config", "message"), [
    (layers_changed(lambda i, spec: spec if i != 1 else dataclasses.replace(
        spec, feed_forward=None)), r"one step for the layers with experts .* got layers \(0, 2, 3"),
    (layers_changed(lambda i, spec: spec if i != 1 else dataclasses.replace(
        spec, chunk_size=None)), r"all layers with RoPE have chunks, or none"),
    (changed(explicit_head_dim=16), "cannot describe heads that do not share dim equally; got 4"),
    (small(rope_scaling=RopeScaling(factor=16.0, low_freq_factor=1.0, high_freq_factor=1.0,
                                    original_max_seq_len=4096)),
     "cannot describe RoPE scaling with other constants than 1 and 8192"),
])
def test_what_params_cannot_describe_is_not_written(config, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        meta.write(tmp_path / "m", loud_llama4(config), tokenizer=tokenizer())
    assert not list(tmp_path.iterdir())


def test_more_shards_than_key_value_heads_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"n_shards must divide 2; got 4. Choose another number"):
        meta.write(tmp_path / "m", loud_llama4(meta_small()), tokenizer=tokenizer(), n_shards=4)


def test_a_tokenizer_of_llama_3_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="must be llama-4's|must fill the embedding"):
        meta.write(tmp_path / "m", loud_llama4(meta_small()), tokenizer=tokenizer_for("llama-3.1"))
