
import pytest
import torch
from hugging_face_twin import loud, twin_of
from meta_release import as_released, edit, edit_params, load
from relatives import RELATIVES
from tiny_checkpoints import (
    far_logits,
    far_positions,
    ids,
    quiet,
    same_weights,
    tiny,
    tokenizer_for,
)

from llama_from_scratch import family
from llama_from_scratch.checkpoint import hugging_face, meta
from llama_from_scratch.checkpoint.opened import build

SAME_ARITHMETIC = 1e-5
"""Largest difference of logits between two fp32 programs that add in another order; the logits are
of size 4.
"""


@pytest.mark.parametrize("n_shards", [1, 2])
@pytest.mark.parametrize("generation", [g for g in family.GENERATIONS if g != "llama-3.2"])
def test_a_release_is_read_bit_for_bit(generation, n_shards, tmp_path):
    model = tiny(generation)
    loaded = load(as_released(tmp_path / "m", model, n_shards=n_shards))
    assert loaded.config == model.config and same_weights(loaded, model)


@pytest.mark.parametrize("n_shards", [1, 2, 4])
@pytest.mark.parametrize("generation", family.GENERATIONS)
def test_hugging_face_to_ours_to_meta_to_ours_changes_no_bit(generation, n_shards, tmp_path):
    model = tiny(generation)
    twin_of(model).save_pretrained(tmp_path / "hf")
    first = build(hugging_face.open_checkpoint(tmp_path / "hf"))
    meta.write(tmp_path / "meta", first, tokenizer=tokenizer_for(generation), n_shards=n_shards)
    second = load(tmp_path / "meta")
    assert second.config == model.config and same_weights(second, model)
    assert len(list((tmp_path / "meta").glob("*.pth"))) == n_shards
    assert torch.equal(far_logits(second), far_logits(model))


def test_a_tied_head_is_seen_whether_the_file_holds_it_or_not(tmp_path):
    model = tiny("llama-3.2")
    for name, n_shards in (("one", 1), ("two", 2)):
        as_released(tmp_path / name, model, n_shards=n_shards, rope_scaling_factor=32)
        assert load(tmp_path / name).config == model.config
        for shard in range(n_shards):
            edit(tmp_path / name, lambda t: t.pop("output.weight"), shard=shard)
        loaded = load(tmp_path / name)
        assert loaded.config == model.config
        assert loaded.output.weight is loaded.tok_embeddings.weight
    as_released(tmp_path / "untied", model, rope_scaling_factor=32)
    edit(tmp_path / "untied", lambda t: t["output.weight"][3].neg_())
    assert not load(tmp_path / "untied").config.is_tied


def test_dtypes_are_kept_or_converted(tmp_path):
    model = tiny().bfloat16()
    as_released(tmp_path / "m", model, n_shards=2)
    assert same_weights(load(tmp_path / "m"), model)
    assert same_weights(load(tmp_path / "m", dtype=torch.float32), tiny().bfloat16().float())
    as_released(tmp_path / "one", model)
    assert same_weights(load(tmp_path / "one", dtype=torch.float32), tiny().bfloat16().float())


def swap(a, b):
    def change(tensors):
        for key in [k for k in tensors if a in k]:
            tensors[key], tensors[key.replace(a, b)] = tensors[key.replace(a, b)], tensors[key]
    return change


def to_halves(tensors):
    for key in tensors:
        if "wq" in key:
            w = tensors[key]
            tensors[key] = w.view(-1, 8, 2,
                                  w.shape[1]).transpose(1, 2).reshape(w.shape).contiguous()


MISTAKES = {
    "RoPE layout": ({}, to_halves),
    "theta": ({"rope_theta": 1e4}, None),
    "no scaling": ({"use_scaled_rope": False}, None),
    "scaling factor": ({"rope_scaling_factor": "remove"}, None),
    "eps": ({"norm_eps": 1e-6}, None),
    "gate and up": ({}, swap("w1", "w3")),
    "head tying": ({}, lambda t: t.update({"output.weight": t["output.weight"].roll(1, 0)})),
    "GQA order": ("swap the files", None),
}


@pytest.mark.parametrize("mistake", [None, *MISTAKES])
def test_the_comparison_with_transformers_sees_every_mistake_a_converter_can_make(
    mistake, tmp_path
):
    model = quiet(tiny("llama-3.2"))
    as_released(tmp_path / "m", model, n_shards=2, rope_scaling_factor=32.0)
    keys, change = MISTAKES.get(mistake, ({}, None))
    if keys == "swap the files":
        for name in ("wk", "wv"):
            first, second = [torch.load(tmp_path / f"m/consolidated.{i:02}.pth", weights_only=True)
                             for i in (0, 1)]
            for key in (k for k in first if name in k):
                first[key], second[key] = second[key], first[key]
            torch.save(first, tmp_path / "m/consolidated.00.pth")
            torch.save(second, tmp_path / "m/consolidated.01.pth")
    else:
        edit_params(tmp_path / "m", max_seq_len=model.config.max_seq_len, **keys)
    for shard in range(2 if change else 0):
        edit(tmp_path / "m", change, shard=shard)
    with torch.no_grad():
        theirs = twin_of(model)(ids(), position_ids=far_positions(model.config.max_seq_len)).logits
    scale = theirs.abs().max()
    difference = ((far_logits(load(tmp_path / "m")) - theirs).abs().max() / scale).item()
    assert (difference <= SAME_ARITHMETIC) == (mistake is None), f"{mistake}: {difference}"
    if mistake is not None:
        assert difference > 10 * SAME_ARITHMETIC, f"{mistake} stands out of rounding: {difference}"


# --- bad input ------------------------------------------------------------------------------------




def test_heads_and_biases_that_this_layout_does_not_know_are_refused_in_words(tmp_path):
    wide = as_released(tmp_path / "wide", loud(RELATIVES["wide heads"]))
    with pytest.raises(ValueError, match=r"heads share dim equally in Meta's layout, so wq must "
                                         r"have at most 64 rows; in .*wide it has 128"):
        meta.open_checkpoint(wide)
    edit_params(wide, head_dim=32)
    with pytest.raises(ValueError, match=r"share dim equally .* has head_dim 32. Load another"):
        meta.open_checkpoint(wide)
    biased = as_released(tmp_path / "biased",
                         loud(RELATIVES["biases of queries, keys and values"]))
    with pytest.raises(ValueError, match=r"attention.wk.bias is not of this model"):
        meta.open_checkpoint(biased)


@pytest.mark.parametrize(("head_dim", "is_taken"), [
    (16, True), (None, True), (8, False), ("16", False), (16.0, False), (True, False)])
def test_a_width_of_heads_is_taken_only_if_it_says_nothing_new(head_dim, is_taken, tmp_path):
    folder = as_released(tmp_path / "m", tiny("llama-3"))
    edit_params(folder, head_dim=head_dim)
    if is_taken:
        assert meta.open_checkpoint(folder).config == tiny("llama-3").config
        return
    with pytest.raises(ValueError, match=f"params.json has head_dim {head_dim!r}. Load another"):
        meta.open_checkpoint(folder)
