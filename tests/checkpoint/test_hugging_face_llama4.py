import dataclasses
import json

import pytest
import torch
import transformers
from llama4_files import KINDS, VOCAB, same_weights, small, text_model, tokenizer
from llama4_twin import loud_llama4, text_twin_of
from tiny_checkpoints import edit_json, edit_safetensors

from llama_from_scratch import family
from llama_from_scratch.checkpoint import hugging_face, hugging_face_llama4
from llama_from_scratch.checkpoint.load import load
from llama_from_scratch.checkpoint.opened import build

SAME_ARITHMETIC = 2e-5
"""Largest difference of logits between two fp32 programs that add in another order; the logits
reach 4.
"""
IDS = torch.randint(VOCAB, (2, 19), generator=torch.Generator().manual_seed(4))
SCOUT, MAVERICK = (family.config(f"llama-4-{name}-text")
                   for name in ("scout-17b-16e", "maverick-17b-128e"))


def logits(model):
    with torch.no_grad():
        return model(IDS)


def their_logits(twin):
    with torch.no_grad():
        return twin(IDS, use_cache=False).logits


@pytest.mark.parametrize("shard_size", ["5GB", "100KB"])
@pytest.mark.parametrize("kind", KINDS)
def test_we_compute_the_same_from_what_transformers_writes(kind, shard_size, tmp_path):
    model = text_model(kind)
    twin = text_twin_of(model)
    twin.save_pretrained(tmp_path / "m", max_shard_size=shard_size)
    assert (len(list((tmp_path / "m").glob("*.safetensors"))) > 1) == (shard_size == "100KB")
    loaded = build(hugging_face.open_checkpoint(tmp_path / "m"))
    assert loaded.config == model.config and same_weights(loaded, model)
    torch.testing.assert_close(logits(loaded), their_logits(twin), rtol=0, atol=SAME_ARITHMETIC)


@pytest.mark.parametrize("shard_bytes", [None, 100_000])
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_computes_the_same_from_what_we_write(kind, shard_bytes, tmp_path):
    model = text_model(kind)
    hugging_face.write(tmp_path / "m", model, tokenizer=tokenizer(), shard_bytes=shard_bytes)
    twin = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "m", attn_implementation="eager").eval()
    assert type(twin).__name__ == "Llama4ForCausalLM"
    torch.testing.assert_close(their_logits(twin), logits(model), rtol=0, atol=SAME_ARITHMETIC)
    assert set(twin.generation_config.eos_token_id) == tokenizer().stop_ids
    back, its_tokenizer = load(tmp_path / "m")
    assert back.config == model.config and same_weights(back, model)
    assert its_tokenizer.encode("I'M here 123") == tokenizer().encode("I'M here 123")


def test_the_comparison_sees_the_scaling_of_rope():
    assert (logits(text_model("scaled")) - logits(text_model())).abs().max() > 1e-2


# --- config.json ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", family.EXPERTS)
def test_a_config_comes_back_from_its_config_json_and_from_that_of_transformers(name):
    config = family.config(name)
    about = json.loads(json.dumps(hugging_face_llama4.config_to(config, dtype=torch.bfloat16)))
    assert hugging_face_llama4.config_from(about) == config
    theirs = transformers.Llama4TextConfig(**about).to_dict()
    assert hugging_face_llama4.config_from(theirs) == config


def test_no_rope_layers_has_one_for_a_layer_with_rope():
    about = hugging_face_llama4.config_to(SCOUT, dtype=torch.bfloat16)
    assert about["no_rope_layers"] == [1, 1, 1, 0] * 12
    assert about["layer_types"][2:4] == ["chunked_attention", "full_attention"]
    assert about["intermediate_size"] == 8192 and about["intermediate_size_mlp"] == 16384
    assert about["rope_scaling"]["factor"] == 16 and about["rope_scaling"]["high_freq_factor"] == 1


OLD_SCOUT = {  # the keys of the first releases, for transformers 4.51
    "model_type": "llama4_text", "attention_bias": False, "attention_chunk_size": 8192,
    "attention_dropout": 0.0, "attn_scale": 0.1, "attn_temperature_tuning": 4,
    "bos_token_id": 200000, "cache_implementation": "hybrid",
    "eos_token_id": [200001, 200007, 200008], "floor_scale": 8192, "for_llm_compressor": False,
    "head_dim": 128, "hidden_act": "silu", "hidden_size": 5120, "initializer_range": 0.02,
    "interleave_moe_layer_step": 1, "intermediate_size": 8192, "intermediate_size_mlp": 16384,
    "max_position_embeddings": 262144, "no_rope_layers": [], "num_attention_heads": 40,
    "num_experts_per_tok": 1, "num_hidden_layers": 48, "num_key_value_heads": 8,
    "num_local_experts": 16, "output_router_logits": False, "pad_token_id": 200018,
    "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "router_aux_loss_coef": 0.001,
    "router_jitter_noise": 0.0, "torch_dtype": "bfloat16", "use_cache": True, "use_qk_norm": True,
    "vocab_size": 202048,
    "rope_scaling": {"factor": 16.0, "high_freq_factor": 1.0, "low_freq_factor": 1.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"}}
ROPE_5 = {"rope_theta": None, "rope_scaling": None,
          "rope_parameters": OLD_SCOUT["rope_scaling"] | {"rope_theta": 5e5}}
TYPES = (["chunked_attention"] * 3 + ["full_attention"]) * 12


@pytest.mark.parametrize("said", [
    {}, ROPE_5, {"attn_temperature_tuning": True}, {"no_rope_layers": [1, 1, 1, 0] * 12},
    {"no_rope_layers": [1, 1, 1, 0] * 13}, {"no_rope_layers": None, "no_rope_layer_interval": 4},
    {"moe_layers": list(range(48))},
    {"interleave_moe_layer_step": 4, "moe_layers": list(range(48))},
    {"layer_types": TYPES}, {"floor_scale": 8192.0}, {"quantization_config": None},
], ids=range(11))
def test_the_keys_of_all_versions_are_read(said):
    assert hugging_face_llama4.config_from(OLD_SCOUT | said) == SCOUT


def test_what_a_config_leaves_out_has_the_defaults_of_transformers():
    found = hugging_face_llama4.config_from({"model_type": "llama4_text"})
    theirs = transformers.Llama4TextConfig().to_dict()
    assert hugging_face_llama4.config_from(theirs) == found
    assert found.max_seq_len == 131072 and found.rope_theta == 5e5 and found.rope_scaling is None


def test_a_key_changes_the_layers_that_it_is_about():
    read = hugging_face_llama4.config_from
    assert read(OLD_SCOUT | {"interleave_moe_layer_step": 2, "num_local_experts": 128,
                             "use_qk_norm": False, "rope_scaling": None}) == MAVERICK
    specs = read(OLD_SCOUT | {"no_rope_layers": [0, 1] * 24}).layers
    assert [spec.has_rope for spec in specs[:2]] == [False, True]
    assert [spec.has_qk_norm for spec in specs[:2]] == [False, True]
    assert [spec.chunk_size for spec in specs[:2]] == [None, 8192]
    assert specs[0].temperature.floor == 8192 and specs[1].temperature is None
    whole = read(OLD_SCOUT | {"attention_chunk_size": None}).layers
    assert {spec.chunk_size for spec in whole} == {None}
    assert {spec.chunk_size for spec in read(
        OLD_SCOUT | {"layer_types": ["full_attention"] * 48}).layers} == {None}
    assert not any(spec.temperature for spec in read(
        OLD_SCOUT | {"attn_temperature_tuning": False}).layers)
    moe = [spec.feed_forward is not None for spec in read(OLD_SCOUT | {"moe_layers": [5]}).layers]
    assert moe == [i == 5 for i in range(48)]


@pytest.mark.parametrize(("said", "message"), [
    ({"model_type": "llama"}, "must say \"model_type\": \"llama4_text\""),
    ({"architectures": ["Llama4TextModel"]}, "must be for a Llama4ForCausalLM"),
    ({"hidden_act": "gelu"}, "hidden_act is 'gelu', and only 'silu' can be computed"),
    ({"attention_bias": True}, "attention_bias is True, and only False can be computed"),
    ({"use_qk_norms": True}, "use_qk_norms is not a key that is known"),
    ({"use_qk_norm": 1}, "use_qk_norm is 1, not true or false"),
    ({"attn_temperature_tuning": "yes"}, "attn_temperature_tuning is 'yes', not true or false"),
    ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
    ({"no_rope_layers": [1, 0]}, "no_rope_layers is .*, not 0 or 1 for each of 48 layers; 1 is"),
    ({"no_rope_layers": [2] * 48}, "1 is a layer with RoPE"),
    ({"moe_layers": []}, "moe_layers is .*, not ascending numbers of layers below 48"),
    ({"moe_layers": [48]}, "moe_layers is .*48"),
    ({"interleave_moe_layer_step": 0}, "interleave_moe_layer_step is 0, not an int above 0"),
    ({"interleave_moe_layer_step": 49}, "with 48 layers none would have experts"),
    ({"layer_types": ["sliding_attention"] * 48}, "not 'chunked_attention' or 'full_attention'"),
    ({"layer_types": TYPES, "attention_chunk_size": None}, "attention_chunk_size is null"),
    ({"attention_chunk_size": "8192"}, "chunk_size must be an int above 0; got '8192'"),
    ({"num_experts_per_tok": 17}, "n_active must be at most n_experts=16; got 17"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "requires 'yarn', which is not built"),
    ({"head_dim": 7}, "explicit_head_dim must be even; got 7"),
])  # fmt: skip
def test_a_config_for_another_model_is_refused_with_the_key(said, message):
    with pytest.raises(ValueError, match=message):
        hugging_face_llama4.config_from(OLD_SCOUT | said)


def test_a_forged_number_of_layers_is_refused_before_anything_is_made_of_it():
    with pytest.raises(ValueError, match=r"is 1000000000, and the files hold 99 tensors in all"):
        hugging_face_llama4.config_from(OLD_SCOUT | {"num_hidden_layers": 10**9}, max_layers=99)


# --- files of other programs ----------------------------------------------------------------------


def one_by_one(tensors, *, without=None):
    """Experts as programs that quantize store them: a tensor for each matrix of each expert."""
    for name in [name for name in tensors if "layers.3." in name and ".experts." in name]:
        whole = tensors.pop(name)
        for e in range(len(whole)):
            if e == without:
                continue
            if "gate_up" in name:
                gate, up = whole[e].T.contiguous().chunk(2)
                prefix = name.replace("gate_up_proj", f"{e}.")
                tensors[prefix + "gate_proj.weight"] = gate.clone()
                tensors[prefix + "up_proj.weight"] = up.clone()
            else:
                tensors[name.replace("down_proj", f"{e}.down_proj.weight")] = whole[
                    e].T.contiguous()


def change(name, of):
    def changed(tensors):
        key = f"model.layers.2.feed_forward.experts.{name}"
        tensors[key] = of(tensors[key]).contiguous()
    return changed


@pytest.mark.parametrize(("damage", "message"), [
    (one_by_one, r"must be in two tensors, .* layer 3 in .*m stores them one by one. Use the"),
    (lambda t: one_by_one(t, without=2), r"layer 3 .* one by one, and lacks the expert 2. Use"),
    (change("gate_up_proj", lambda w: w.transpose(1, 2)),
     r"in layer 2 of .* model.layers.2.*gate_up_proj is transposed, \(4, 48, 32\)"),
    (change("down_proj", lambda w: w.transpose(1, 2)),
     r"in layer 2 of .*down_proj is transposed, \(4, 32, 24\)"),
    (change("gate_up_proj", lambda w: w[:3]),
     r"layer 2 in .*m has 3 experts, and config.json says 4"),
    (lambda t: t.pop("model.layers.1.feed_forward.router.weight"),
     r"model.layers.1.feed_forward.router.weight is missing"),
])  # fmt: skip
def test_experts_that_are_stored_otherwise_are_refused_with_the_layer(damage, message, tmp_path):
    hugging_face.write(tmp_path / "m", text_model(), tokenizer=tokenizer())
    edit_safetensors(tmp_path / "m", damage)
    with pytest.raises(ValueError, match=message):
        hugging_face.open_checkpoint(tmp_path / "m")


@pytest.mark.parametrize("method", ["fp8", "compressed-tensors"])
def test_quantized_experts_are_refused_by_the_name_of_the_method(method, tmp_path):
    hugging_face.write(tmp_path / "m", text_model(), tokenizer=tokenizer())
    edit_json(tmp_path / "m/config.json", quantization_config={"quant_method": method})
    with pytest.raises(ValueError, match=f"quantization_config of the kind '{method}'. Use the"):
        hugging_face.open_checkpoint(tmp_path / "m")


def test_layers_that_the_file_cannot_describe_are_not_written(tmp_path):
    config = small()
    odd = dataclasses.replace(config, layers=(
        dataclasses.replace(config.layers[0], has_qk_norm=False), *config.layers[1:]))
    with pytest.raises(ValueError, match="all layers with RoPE norm queries and keys or none"):
        hugging_face.write(tmp_path / "m", loud_llama4(odd), tokenizer=tokenizer())
    assert not list(tmp_path.iterdir())
