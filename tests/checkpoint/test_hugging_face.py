import json

import pytest
import torch
import transformers
from hugging_face_twin import loud, twin_of
from relatives import RELATIVES
from safetensors.torch import load_file, save_file
from tiny_checkpoints import (
    TOKENIZER,
    edit_json,
    edit_safetensors,
    far_logits,
    far_positions,
    ids,
    quiet,
    same_weights,
    tiny,
    tokenizer_for,
)

from llama_from_scratch import family
from llama_from_scratch.checkpoint import hugging_face
from llama_from_scratch.checkpoint.opened import build

SAME_ARITHMETIC = 1e-5
"""Largest difference of logits between two fp32 programs that add in another order; the logits are
of size 4.
"""


def their_logits(twin):
    with torch.no_grad():
        return twin(ids(), position_ids=far_positions(twin.config.max_position_embeddings)).logits


def their_load(folder):
    return transformers.LlamaForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype="auto")


def our_load(folder, **how):
    return build(hugging_face.open_checkpoint(folder), **how)


def greedy(logits_of, n_new=12):
    row = ids(6)
    for _ in range(n_new):
        row = torch.cat([row, logits_of(row)[:, -1:].argmax(-1)], dim=1)
    return row.tolist()


@pytest.mark.parametrize("shard_bytes", [None, 100_000])
@pytest.mark.parametrize("generation", family.GENERATIONS)
def test_transformers_computes_the_same_from_what_we_write(generation, shard_bytes, tmp_path):
    model = tiny(generation)
    tokenizer = tokenizer_for(generation)
    hugging_face.write(tmp_path / "m", model, tokenizer=tokenizer, shard_bytes=shard_bytes)
    twin = their_load(tmp_path / "m")
    torch.testing.assert_close(far_logits(model), their_logits(twin), rtol=0, atol=SAME_ARITHMETIC)
    with torch.no_grad():
        assert greedy(model) == greedy(lambda row: twin(row).logits)
    ends = hugging_face.open_checkpoint(tmp_path / "m").stop_ids
    wanted = sorted(ends) if len(ends) > 1 else tokenizer.eos_id
    assert twin.generation_config.eos_token_id == wanted


@pytest.mark.parametrize("shard_size", ["5GB", "100KB"])
@pytest.mark.parametrize("generation", family.GENERATIONS)
def test_we_compute_the_same_from_what_transformers_writes(generation, shard_size, tmp_path):
    model = tiny(generation)
    twin = twin_of(model)
    twin.save_pretrained(tmp_path / "m", max_shard_size=shard_size)
    assert (len(list((tmp_path / "m").glob("*.safetensors"))) > 1) == (shard_size == "100KB")
    loaded = our_load(tmp_path / "m")
    assert loaded.config == model.config and same_weights(loaded, model)
    torch.testing.assert_close(far_logits(loaded), their_logits(twin), rtol=0, atol=SAME_ARITHMETIC)
    with torch.no_grad():
        assert greedy(loaded) == greedy(lambda row: twin(row).logits)


HELD = [name for name, config in RELATIVES.items() if config.has_qkv_bias == config.has_wo_bias]


@pytest.mark.parametrize("name", HELD)
def test_a_relative_with_other_heads_or_with_biases_goes_to_transformers_and_back(name, tmp_path):
    model = loud(RELATIVES[name])
    tokenizer = tokenizer_for("llama-2" if model.config.rope_theta == 1e4 else "llama-3.1")
    hugging_face.write(tmp_path / "m", model, tokenizer=tokenizer)
    twin = their_load(tmp_path / "m")
    ours = far_logits(model)
    bound = SAME_ARITHMETIC * ours.abs().max().item()
    torch.testing.assert_close(ours, their_logits(twin), rtol=0, atol=bound)
    twin.save_pretrained(tmp_path / "theirs")
    loaded = our_load(tmp_path / "theirs")
    assert loaded.config == model.config and same_weights(loaded, model)


def test_biases_of_attention_that_are_not_all_there_are_named(tmp_path):
    model = loud(RELATIVES["biases of attention"])
    hugging_face.write(tmp_path / "m", model, tokenizer=tokenizer_for("llama-2"))
    edit_safetensors(tmp_path / "m", lambda t: [t.pop(k) for k in list(t) if "o_proj.bias" in k])
    with pytest.raises(ValueError, match=r"model.layers.0.self_attn.o_proj.bias is missing"):
        our_load(tmp_path / "m")
    edit_json(tmp_path / "m/config.json", attention_bias=False)
    with pytest.raises(ValueError, match=r"self_attn.q_proj.bias is not of this model"):
        our_load(tmp_path / "m")


def swap_rows(name, n_heads):
    """Rows of wq and wk left in the other layout."""
    def change(tensors):
        for key in tensors:
            if name in key:
                w = tensors[key]
                tensors[key] = w.view(n_heads, 2, -1,
                                      w.shape[1]).transpose(1, 2).reshape(w.shape).contiguous()
    return change


def roll_heads(tensors):
    """Key/value heads in another order: query head h reads another one."""
    for key in tensors:
        if "k_proj" in key or "v_proj" in key:
            tensors[key] = tensors[key].roll(tensors[key].shape[0] // 2, 0)


def swap_gate_and_up(tensors):
    for key in [k for k in tensors if "gate_proj" in k]:
        up = key.replace("gate", "up")
        tensors[key], tensors[up] = tensors[up], tensors[key]


def untie(tensors):
    head = tensors["model.embed_tokens.weight"].clone()
    tensors["lm_head.weight"] = head.roll(1, 0)


# What each mistake changes in a checkpoint of Llama 3.2: (the config's keys, the tensors).
MISTAKES = {
    "RoPE layout of q": ({}, swap_rows("q_proj", 4)),
    "RoPE layout of k": ({}, swap_rows("k_proj", 2)),
    "theta": ({"rope_theta": 1e4}, None),
    "no scaling": ({"rope_scaling": None}, None),
    "scaling factor 8 for 32": (
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                                  "high_freq_factor": 4.0,
                                                  "original_max_position_embeddings": 8192}}, None),
    "GQA order": ({}, roll_heads),
    "eps": ({"rms_norm_eps": 1e-6}, None),
    "gate and up": ({}, swap_gate_and_up),
    "head tying": ({"tie_word_embeddings": False}, untie),
}


@pytest.mark.parametrize("mistake", [None, *MISTAKES])
def test_the_comparison_with_transformers_sees_every_mistake_a_converter_can_make(
    mistake, tmp_path
):
    """The two parity tests above would pass with a part broken if their inputs did not reach it;
    these reach all.
    """
    model = quiet(tiny("llama-3.2"))
    hugging_face.write(tmp_path / "m", model, tokenizer=TOKENIZER)
    keys, change = MISTAKES.get(mistake, ({}, None))
    edit_json(tmp_path / "m/config.json", **keys)
    if change:
        tensors = load_file(tmp_path / "m/model.safetensors")
        change(tensors)
        save_file(tensors, tmp_path / "m/model.safetensors", metadata={"format": "pt"})
    ours, theirs = far_logits(model), their_logits(their_load(tmp_path / "m"))
    scale = ours.abs().max()
    difference = ((ours - theirs).abs().max() / scale).item()
    assert (difference <= SAME_ARITHMETIC) == (mistake is None), f"{mistake}: {difference}"
    if mistake is not None:
        assert difference > 10 * SAME_ARITHMETIC, f"{mistake} stands out of rounding: {difference}"
    # And the other way round: what we make of the mistaken files is what transformers makes of
    # them.
    mine = far_logits(our_load(tmp_path / "m"))
    torch.testing.assert_close(mine / scale, theirs / scale, rtol=0, atol=SAME_ARITHMETIC)


# --- what config.json says ------------------------------------------------------------------------


@pytest.mark.parametrize("generation", ["llama-2", "llama-3", "llama-3.1"])
def test_the_tokenizer_comes_back_and_transformers_gives_the_same_ids(generation, tmp_path):
    tokenizer = tokenizer_for(generation)
    hugging_face.write(tmp_path / "m", tiny(generation), tokenizer=tokenizer)
    text = "the cat sat on Äx\n  <rat> <|eot_id|></s>"
    mine = hugging_face.open_checkpoint(tmp_path / "m").tokenizer()
    assert type(mine) is type(tokenizer) and mine.special_ids == tokenizer.special_ids
    assert mine.encode(text, bos=True) == tokenizer.encode(text, bos=True)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    assert theirs(text)["input_ids"] == tokenizer.encode(text, bos=True, allowed_special="all")
    assert (theirs.bos_token_id, theirs.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)


def test_a_tokenizer_model_is_read_where_no_tokenizer_json_is(tmp_path):
    tokenizer = tokenizer_for("llama-2")
    hugging_face.write(tmp_path / "m", tiny("llama-2"), tokenizer=tokenizer)
    (tmp_path / "m/tokenizer.json").unlink()
    read = hugging_face.open_checkpoint(tmp_path / "m").tokenizer()
    assert read.encode("the cat") == tokenizer.encode("the cat")


# --- the files ------------------------------------------------------------------------------------


def test_a_tied_head_may_be_stored_or_not_but_must_be_the_embedding(tmp_path):
    model = tiny("llama-3.2")
    hugging_face.write(tmp_path / "m", model, tokenizer=TOKENIZER)
    assert "lm_head.weight" not in load_file(tmp_path / "m/model.safetensors")
    edit_safetensors(tmp_path / "m",
                     lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    loaded = our_load(tmp_path / "m")
    assert same_weights(loaded, model) and loaded.output.weight is loaded.tok_embeddings.weight
    edit_safetensors(tmp_path / "m", lambda t: t["lm_head.weight"][100].mul_(2))
    with pytest.raises(ValueError, match=r"holds a lm_head.weight with other values .* Set "
                                         r"tie_word_embeddings to false"):
        our_load(tmp_path / "m")
    edit_json(tmp_path / "m/config.json", tie_word_embeddings=False)
    assert not our_load(tmp_path / "m").config.is_tied
    edit_safetensors(tmp_path / "m", lambda t: t.pop("lm_head.weight"))
    with pytest.raises(ValueError, match="lm_head.weight is missing"):
        our_load(tmp_path / "m")


@pytest.mark.parametrize("n_shards", [1, 3])
@pytest.mark.parametrize("has_both", [False, True])
def test_a_tied_model_may_be_stored_under_the_name_of_its_head(has_both, n_shards, tmp_path):
    """transformers takes either name, and other programs write the head alone."""
    model = tiny("llama-3.2")
    tensors = {name: tensor.clone() for name, tensor in twin_of(model).state_dict().items()}
    if not has_both:
        del tensors["model.embed_tokens.weight"]
    folder = tmp_path / "m"
    hugging_face.write(folder, model, tokenizer=TOKENIZER)
    (folder / "model.safetensors").unlink()
    for i, file in enumerate(shards := ["model.safetensors"] if n_shards == 1 else [
            f"model-{i + 1:05}-of-00003.safetensors" for i in range(3)]):
        inside = list(tensors)[i::n_shards]
        save_file({name: tensors[name] for name in inside}, folder / file)
    if n_shards > 1:
        places = {name: shards[k % n_shards] for k, name in enumerate(tensors)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    loaded = our_load(folder)
    assert same_weights(loaded, model) and loaded.output.weight is loaded.tok_embeddings.weight
    hugging_face.write(tmp_path / "again", loaded, tokenizer=TOKENIZER)
    assert same_weights(our_load(tmp_path / "again"), model)


def test_a_model_that_is_not_tied_needs_both_matrices(tmp_path):
    hugging_face.write(tmp_path / "m", tiny(), tokenizer=TOKENIZER)
    edit_safetensors(tmp_path / "m", lambda t: t.pop("model.embed_tokens.weight"))
    with pytest.raises(ValueError, match="model.embed_tokens.weight is missing"):
        our_load(tmp_path / "m")


def test_the_frequencies_that_old_converters_stored_are_ignored(tmp_path):
    model = tiny("llama-2")
    hugging_face.write(tmp_path / "m", model, tokenizer=tokenizer_for("llama-2"))
    old = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.zeros(8) for i in range(4)}
    edit_safetensors(tmp_path / "m", lambda t: t.update(old))
    assert same_weights(our_load(tmp_path / "m"), model)
    assert torch.equal(far_logits(our_load(tmp_path / "m")), far_logits(model))


def test_nothing_is_left_of_a_checkpoint_that_could_not_be_written(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds files. Choose another name"):
        hugging_face.write(tmp_path / "m", tiny(), tokenizer=TOKENIZER)
    with pytest.raises(ValueError, match="the tokenizer has 520 ids and the embedding 519 rows"):
        hugging_face.write(tmp_path / "n", tiny(vocab_size=519), tokenizer=TOKENIZER)
    assert [p.name for p in tmp_path.rglob("*")] == ["m", "notes.txt"]


def test_dtypes_that_are_no_weights_are_named(tmp_path):
    hugging_face.write(tmp_path / "m", tiny(), tokenizer=TOKENIZER)
    edit_safetensors(tmp_path / "m",
                     lambda t: t.update(
                         {"model.norm.weight": t["model.norm.weight"].to(torch.float8_e4m3fn)}))
    with pytest.raises(ValueError, match=r"got torch.float8_e4m3fn, as in a quantized "
                                         r"checkpoint"):
        hugging_face.open_checkpoint(tmp_path / "m")


def test_damaged_json_is_refused_or_read_and_never_crashes(tmp_path):
    """400 folders with a few bytes of config.json or of the index overwritten or the end cut."""
    folder = tmp_path / "m"
    hugging_face.write(folder, tiny(dim=16, n_heads=2, n_kv_heads=1, ffn_dim=32),
                       tokenizer=TOKENIZER, shard_bytes=20_000)
    draw = torch.Generator().manual_seed(0)
    n_refused = 0
    for trial in range(400):
        file = folder / ("config.json", "model.safetensors.index.json")[trial % 2]
        good = file.read_bytes()
        bad = bytearray(good)
        for _ in range(1 + trial % 3):
            bad[int(torch.randint(len(bad), (), generator=draw))] = int(
                torch.randint(32, 127, (), generator=draw))
        if trial % 10 > 7:
            del bad[int(torch.randint(len(bad), (), generator=draw)) :]
        file.write_bytes(bad)
        try:
            hugging_face.open_checkpoint(folder)
        except ValueError as error:
            n_refused += 1
            assert str(folder) in str(error)
        file.write_bytes(good)
    assert n_refused > 200


@pytest.mark.parametrize("key", ["quantization_config", "quantization"])
def test_quantized_weights_are_refused_with_another_cure_than_to_remove_the_key(key, tmp_path):
    hugging_face.write(tmp_path / "m", tiny(), tokenizer=TOKENIZER)
    edit_json(tmp_path / "m/config.json", **{key: {"quant_method": "fp8"}})
    with pytest.raises(ValueError, match=rf"has a {key} of the kind 'fp8'\. Use the checkpoint "
                                         "that it was made"):
        hugging_face.open_checkpoint(tmp_path / "m")


def test_a_dtype_that_is_not_read_does_not_ask_for_another_download(tmp_path):
    hugging_face.write(tmp_path / "m", tiny(), tokenizer=TOKENIZER)
    file = tmp_path / "m/model.safetensors"
    file.write_bytes(file.read_bytes().replace(b'"F32"', b'"U64"'))
    with pytest.raises(ValueError, match="has the dtype 'U64', .*Use the checkpoint that it was"):
        hugging_face.open_checkpoint(tmp_path / "m")
