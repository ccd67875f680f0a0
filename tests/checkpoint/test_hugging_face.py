import json

import pytest
import torch
import transformers
from hugging_face_twin import twin_of
from safetensors.torch import load_file, save_file
from tiny_checkpoints import TOKENIZER, far_logits, far_positions, ids, large_tokenizer, same_weights, tiny, tokenizer_for

from llama_from_scratch import family
from llama_from_scratch.checkpoint import hugging_face, hugging_face_config
from llama_from_scratch.checkpoint.opened import build
from llama_from_scratch.tokenizer import hugging_face as tokenizer_json

SAME_ARITHMETIC = 1e-5
"""Largest difference of logits between two fp32 programs that add in another order; the logits are of size 4."""


def their_logits(twin):
    with torch.no_grad():
        return twin(ids(), position_ids=far_positions(twin.config.max_position_embeddings)).logits


def their_load(folder):
    return transformers.LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype="auto")


def our_load(folder, **how):
    return build(hugging_face.open_checkpoint(folder), **how)


def edit_json(file, **changes):
    about = json.loads(file.read_text())
    file.write_text(json.dumps(about | changes))


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
    assert twin.generation_config.eos_token_id == (sorted(ends) if len(ends) > 1 else tokenizer.eos_id)


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


def swap_rows(name, n_heads):
    """Rows of wq and wk left in the other layout."""
    def change(tensors):
        for key in tensors:
            if name in key:
                w = tensors[key]
                tensors[key] = w.view(n_heads, 2, -1, w.shape[1]).transpose(1, 2).reshape(w.shape).contiguous()
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
    "scaling factor 8 for 32": ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                                  "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}, None),
    "GQA order": ({}, roll_heads),
    "eps": ({"rms_norm_eps": 1e-6}, None),
    "gate and up": ({}, swap_gate_and_up),
    "head tying": ({"tie_word_embeddings": False}, untie),
}


def quiet(model):
    """Embeddings so small that the epsilon of the first norm matters, as it does for rare tokens."""
    with torch.no_grad():
        model.tok_embeddings.weight.mul_(0.02)
    return model


@pytest.mark.parametrize("mistake", [None, *MISTAKES])
def test_the_comparison_with_transformers_sees_every_mistake_a_converter_can_make(mistake, tmp_path):
    """The two parity tests above would pass with a part broken if their inputs did not reach it; these reach all."""
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
    # And the other way round: what we make of the mistaken files is what transformers makes of them.
    mine = far_logits(our_load(tmp_path / "m"))
    torch.testing.assert_close(mine / scale, theirs / scale, rtol=0, atol=SAME_ARITHMETIC)


# --- what config.json says --------------------------------------------------------------------------------------------

PLAIN = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4,
         "vocab_size": 520}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


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
        {"rope_theta": 5e5, "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5} | LLAMA3, "rope_scaling": None},
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
        assert hugging_face_config.config_from({k: v for k, v in about.items() if k != "rope_scaling"}) == config
    theirs = transformers.LlamaConfig(**about).to_dict()
    assert hugging_face_config.config_from(theirs | {"architectures": ["LlamaForCausalLM"]}) == config


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"model_type": "mllama"}, r"'mllama' model, which needs the vision encoder and cross-attention of Llama 3.2 Vision"),
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
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "asks for 'linear', which is not built"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "scaling of RoPE has just factor, low_freq_factor"),
        ({"rope_scaling": {"rope_type": "llama3", "attention_factor": 2} | LLAMA3}, "has attention_factor, factor"),
        ({"rope_scaling": {"rope_type": "llama3"} | LLAMA3 | {"factor": "8"}}, "RopeScaling.factor must be a number"),
        ({"rope_scaling": {"factor": 8.0}}, "unscaled RoPE has theta and nothing else"),
        ({"rope_scaling": {"rope_type": "llama3", "type": "yarn"} | LLAMA3}, "says several things about RoPE"),
        ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}}, "says several things about RoPE"),
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
    assert hugging_face.open_checkpoint(tmp_path / "m").tokenizer().encode("the cat") == tokenizer.encode("the cat")


# --- the files --------------------------------------------------------------------------------------------------------


def edit(folder, change, file="model.safetensors"):
    tensors = load_file(folder / file)
    change(tensors)
    save_file(tensors, folder / file)


def test_a_tied_head_may_be_stored_or_not_but_must_be_the_embedding(tmp_path):
    model = tiny("llama-3.2")
    hugging_face.write(tmp_path / "m", model, tokenizer=TOKENIZER)
    assert "lm_head.weight" not in load_file(tmp_path / "m/model.safetensors")
    edit(tmp_path / "m", lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    loaded = our_load(tmp_path / "m")
    assert same_weights(loaded, model) and loaded.output.weight is loaded.tok_embeddings.weight
    edit(tmp_path / "m", lambda t: t["lm_head.weight"][100].mul_(2))
    with pytest.raises(ValueError, match=r"holds a lm_head.weight with other values .* Set tie_word_embeddings to false"):
        our_load(tmp_path / "m")
    edit_json(tmp_path / "m/config.json", tie_word_embeddings=False)
    assert not our_load(tmp_path / "m").config.is_tied
    edit(tmp_path / "m", lambda t: t.pop("lm_head.weight"))
    with pytest.raises(ValueError, match="lm_head.weight is missing"):
        our_load(tmp_path / "m")


def test_the_frequencies_that_old_converters_stored_are_ignored(tmp_path):
    model = tiny("llama-2")
    hugging_face.write(tmp_path / "m", model, tokenizer=tokenizer_for("llama-2"))
    old = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.zeros(8) for i in range(4)}
    edit(tmp_path / "m", lambda t: t.update(old))
    assert same_weights(our_load(tmp_path / "m"), model)
    assert torch.equal(far_logits(our_load(tmp_path / "m")), far_logits(model))


def test_shards_are_cut_by_size_and_say_what_they_hold(tmp_path):
    model = tiny()
    hugging_face.write(tmp_path / "m", model, tokenizer=TOKENIZER, shard_bytes=140_000)
    files = sorted(p.name for p in (tmp_path / "m").glob("*.safetensors"))
    assert len(files) > 3 and files[0] == f"model-00001-of-{len(files):05}.safetensors"
    index = json.loads((tmp_path / "m/model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 4 * model.config.n_params
    for file in files:
        tensors = load_file(tmp_path / "m" / file)
        assert sum(t.nbytes for t in tensors.values()) <= 140_000
        assert all(index["weight_map"][name] == file for name in tensors)


def test_nothing_is_left_of_a_checkpoint_that_could_not_be_written(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds files; choose another name"):
        hugging_face.write(tmp_path / "m", tiny(), tokenizer=TOKENIZER)
    with pytest.raises(ValueError, match="the tokenizer has 520 ids and the embedding 519 rows"):
        hugging_face.write(tmp_path / "n", tiny(vocab_size=519), tokenizer=TOKENIZER)
    assert [p.name for p in tmp_path.rglob("*")] == ["m", "notes.txt"]


def edit_index(folder, change):
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    change(index["weight_map"])
    file.write_text(json.dumps(index))


def first(folder):
    return min(folder.glob("model-*.safetensors"))


def copy_into_another_shard(folder):
    tensors = load_file(first(folder))
    edit(folder, lambda t: t.update({next(iter(tensors)): next(iter(tensors.values()))}), max(folder.glob("model-*")).name)


def send_out(where):
    return lambda f: edit_index(f, lambda m: m.update({"model.norm.weight": where}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: first(f).unlink(), r"names files that are not there: model-00001-of-"),
        (lambda f: (f / "model-00001-of-00099.safetensors").touch(), "does not name model-00001-of-00099"),
        (lambda f: edit_index(f, lambda m: m.pop("model.norm.weight")), "model.norm.weight is in .* and not in the index"),
        (lambda f: edit_index(f, lambda m: m.update(x=first(f).name)), "x is not in model-00001"),
        (copy_into_another_shard, "is in model-.* and in model-00001"),
        (send_out("../other.safetensors"), "must lie beside it; it names '../other.safetensors'"),
        (send_out("/etc/passwd"), "must lie beside it; it names '/etc/passwd'"),
        (send_out("..\\other.safetensors"), "must lie beside it"),
        (send_out("C:other.safetensors"), "must lie beside it"),
        (send_out(".."), "must lie beside it"),
        (send_out(""), "must lie beside it"),
        (send_out(3), "must map each tensor to its file"),
        (lambda f: (f / "model.safetensors.index.json").write_text("[1]"), "must map each tensor to its file"),
        (lambda f: (f / "model.safetensors.index.json").write_text("{"), "needs a JSON file at"),
        (lambda f: (f / "model.safetensors").write_bytes(first(f).read_bytes()), "has both. Remove the one that is older"),
        (lambda f: (f / "model.safetensors.index.json").unlink(), "has neither"),
        (lambda f: first(f).write_bytes(first(f).read_bytes()[:-1]), "its tensors end at byte"),
        (lambda f: first(f).write_bytes(b""), "a whole safetensors file"),
        (lambda f: edit_json(f / "config.json", num_hidden_layers=10**6), "is 1000000, and the files hold 39"),
        (lambda f: edit_json(f / "config.json", num_hidden_layers=3), r"layers.3.input_layernorm.weight is not of this"),
        (lambda f: edit_json(f / "config.json", num_hidden_layers=5), r"model.layers.4.input_layernorm.weight is missing"),
        (lambda f: edit_json(f / "config.json", vocab_size=10**15), r"lm_head.weight is \(520, 64\), not \(10{15}, 64\)"),
        (lambda f: edit_json(f / "config.json", num_key_value_heads=4), r"k_proj.weight is \(32, 64\), not \(64, 64\)"),
        (lambda f: (f / "config.json").unlink(), "needs a JSON file at .*config.json"),
        (lambda f: (f / "tokenizer.json").unlink(), "has its tokenizer in a tokenizer.model or, in .* has none"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer.json cannot be read"),
        (lambda f: tokenizer_json.write(f / "tokenizer.json", large_tokenizer(1000)), "has 1000 ids and the embedding 520"),
    ],
)
def test_a_bad_folder_is_refused_and_what_is_wrong_is_named(damage, message, tmp_path):
    hugging_face.write(tmp_path / "m", tiny(), tokenizer=TOKENIZER, shard_bytes=100_000)
    damage(tmp_path / "m")
    with pytest.raises(ValueError, match=message):
        hugging_face.open_checkpoint(tmp_path / "m").tokenizer()


def test_dtypes_that_are_no_weights_are_named(tmp_path):
    hugging_face.write(tmp_path / "m", tiny(), tokenizer=TOKENIZER)
    edit(tmp_path / "m", lambda t: t.update({"model.norm.weight": t["model.norm.weight"].to(torch.float8_e4m3fn)}))
    with pytest.raises(ValueError, match=r"these hold torch.float8_e4m3fn, as a quantized checkpoint does"):
        hugging_face.open_checkpoint(tmp_path / "m")


def test_pickles_are_told_from_a_missing_download(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PLAIN))
    (tmp_path / "pytorch_model.bin").write_text("")
    with pytest.raises(ValueError, match=r"weights as pickles \(.bin\), which are not read: take its safetensors version"):
        hugging_face.open_checkpoint(tmp_path)


def test_damaged_json_is_refused_or_read_and_never_crashes(tmp_path):
    """400 folders with a few bytes of config.json or of the index overwritten or the end cut."""
    folder = tmp_path / "m"
    hugging_face.write(folder, tiny(dim=16, n_heads=2, n_kv_heads=1, ffn_dim=32), tokenizer=TOKENIZER, shard_bytes=20_000)
    draw = torch.Generator().manual_seed(0)
    n_refused = 0
    for trial in range(400):
        file = folder / ("config.json", "model.safetensors.index.json")[trial % 2]
        good = file.read_bytes()
        bad = bytearray(good)
        for _ in range(1 + trial % 3):
            bad[int(torch.randint(len(bad), (), generator=draw))] = int(torch.randint(32, 127, (), generator=draw))
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
