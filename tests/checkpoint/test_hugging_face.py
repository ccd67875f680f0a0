import json

import pytest
import torch
import transformers
from hugging_face_twin import twin_of
from safetensors.torch import load_file, save_file
from tiny_checkpoints import TOKENIZER, far_logits, far_positions, ids, same_weights, tiny

from llama_from_scratch import family
from llama_from_scratch.checkpoint import hugging_face
from llama_from_scratch.checkpoint.opened import build

SAME_ARITHMETIC = 1e-5
"""Largest difference of logits between two fp32 programs that add in another order; the logits are of size 4."""


def their_logits(twin):
    with torch.no_grad():
        return twin(ids(), position_ids=far_positions(twin.config.max_position_embeddings)).logits


def their_load(folder):
    return transformers.LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype="auto")


def our_load(folder, **how):
    return build(hugging_face.read(folder), **how)


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
    hugging_face.write(tmp_path / "m", model, tokenizer=TOKENIZER, shard_bytes=shard_bytes)
    twin = their_load(tmp_path / "m")
    torch.testing.assert_close(far_logits(model), their_logits(twin), rtol=0, atol=SAME_ARITHMETIC)
    with torch.no_grad():
        assert greedy(model) == greedy(lambda row: twin(row).logits)
    assert twin.generation_config.eos_token_id == TOKENIZER.eos_id


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
