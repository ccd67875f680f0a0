import dataclasses
import json
import os
import pickle
import zipfile

import pytest
import torch
from hugging_face_twin import twin_of
from tiny_checkpoints import TOKENIZER, far_logits, far_positions, ids, large_tokenizer, same_weights, tiny, tokenizer_for

from llama_from_scratch import family
from llama_from_scratch.checkpoint import hugging_face, meta, meta_params
from llama_from_scratch.checkpoint.opened import build

SAME_ARITHMETIC = 1e-5
"""Largest difference of logits between two fp32 programs that add in another order; the logits are of size 4."""

AXIS = {"wq": 0, "wk": 0, "wv": 0, "w1": 0, "w3": 0, "output": 0, "wo": 1, "w2": 1}


def as_released(folder, model, *, n_shards=1, **more):
    """The same model as Meta's programs would have written it, spelt out by hand: the reference for `meta.read`."""
    config = model.config
    is_old = config.rope_theta == 1e4
    params = {"dim": config.dim, "multiple_of": 32, "n_heads": config.n_heads, "n_layers": config.n_layers,
              "norm_eps": config.norm_eps, "vocab_size": -1 if is_old else config.vocab_size}
    if not is_old:
        params |= {"n_kv_heads": config.n_kv_heads, "rope_theta": config.rope_theta}
        params |= {"use_scaled_rope": True} if config.rope_scaling else {}
    whole = {}
    for name, weight in model.state_dict(keep_vars=False).items():
        for ours, theirs in {"w_gate": "w1", "w_up": "w3", "w_down": "w2"}.items():
            name = name.replace(ours, theirs)
        whole[name] = weight
    folder.mkdir()
    for i in range(n_shards):
        shard = {"rope.freqs": torch.zeros(config.head_dim // 2)}
        for name, weight in whole.items():
            axis = (1 if is_old else 0) if "tok_embeddings" in name else AXIS.get(name.split(".")[-2])
            shard[name] = weight.clone() if axis is None else weight.chunk(n_shards, dim=axis)[i].clone()
        torch.save(shard, folder / f"consolidated.{i:02}.pth")
    (folder / "params.json").write_text(json.dumps(params | more))
    tokenizer_for("llama-1" if is_old else "llama-3").save(folder / "tokenizer.model")
    return folder


def load(folder, **how):
    return build(meta.open_checkpoint(folder), **how)


def edit(folder, change, shard=0):
    file = folder / f"consolidated.{shard:02}.pth"
    tensors = torch.load(file, weights_only=True)
    change(tensors)
    torch.save(tensors, file)


def edit_params(folder, **changes):
    params = json.loads((folder / "params.json").read_text()) | changes
    (folder / "params.json").write_text(json.dumps({k: v for k, v in params.items() if v != "remove"}))


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


@pytest.mark.parametrize("name", family.FAMILY)
def test_params_json_says_all_of_every_published_model(name):
    config = family.config(name)
    params = meta_params.params_of(config)
    assert meta_params.config_from(params, vocab_size=config.vocab_size, is_tied=config.is_tied) == config
    assert not {"max_seq_len", "rope_scaling_factor"} & params.keys(), "the released files have neither"


def test_the_factor_that_params_json_leaves_out_is_32_for_the_sizes_of_llama_3_2_and_8_for_others():
    def factor(name):
        config = family.config(name)
        params = {"dim": config.dim, "n_layers": config.n_layers, "n_heads": config.n_heads, "n_kv_heads": config.n_kv_heads,
                  "multiple_of": 256, "norm_eps": 1e-5, "rope_theta": 5e5, "use_scaled_rope": True}
        return meta_params.config_from(params, vocab_size=9, is_tied=True).rope_scaling.factor
    assert [factor(n) for n in ("llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b", "llama-3.3-70b")] == [32, 32, 8, 8]


def test_what_params_json_has_no_word_for_is_added_or_refused(tmp_path):
    meta.write(tmp_path / "m", tiny("llama-3.2", max_seq_len=640, ffn_dim=100), tokenizer=TOKENIZER)
    config = meta.open_checkpoint(tmp_path / "m").config
    assert (config.max_seq_len, config.rope_scaling.factor, config.ffn_dim, config.is_tied) == (640, 32, 100, True)
    scaling = dataclasses.replace(family.tiny("llama-3.1").rope_scaling, high_freq_factor=2.0)
    with pytest.raises(ValueError, match=r"no words for RoPE scaling with other constants than 1, 4 and 8192"):
        meta.write(tmp_path / "n", tiny("llama-3.1", rope_scaling=scaling), tokenizer=TOKENIZER)


def test_key_value_heads_that_several_shards_repeat_are_counted_once(tmp_path):
    model = tiny("llama-3.1", n_heads=8, n_kv_heads=2)
    meta.write(tmp_path / "m", model, tokenizer=TOKENIZER, n_shards=8)
    shards = [torch.load(tmp_path / f"m/consolidated.{i:02}.pth", weights_only=True) for i in range(8)]
    wk = [shard["layers.1.attention.wk.weight"] for shard in shards]
    assert [torch.equal(wk[i], wk[0]) for i in range(8)] == [True] * 4 + [False] * 4, "four neighbours share a head"
    assert json.loads((tmp_path / "m/params.json").read_text())["n_kv_heads"] == 8
    assert load(tmp_path / "m").config == model.config and same_weights(load(tmp_path / "m"), model)
    edit(tmp_path / "m", lambda t: t["layers.2.attention.wv.weight"].add_(1), shard=5)
    with pytest.raises(ValueError, match=r"shards 4 and 5 differ in layers.2.attention.wv.weight"):
        load(tmp_path / "m")


def test_a_model_with_as_many_heads_as_shards_keeps_them_all(tmp_path):
    model = tiny("llama-3.1", n_heads=8, n_kv_heads=4)
    assert load(as_released(tmp_path / "m", model, n_shards=4)).config.n_kv_heads == 4


def test_norms_come_from_the_first_shard_where_their_copies_drifted_apart(tmp_path):
    model = tiny()
    as_released(tmp_path / "m", model, n_shards=2)
    edit(tmp_path / "m", lambda t: t["norm.weight"].add_(1e-3), shard=1)
    assert same_weights(load(tmp_path / "m"), model)


def test_a_tied_head_is_seen_whether_the_file_holds_it_or_not(tmp_path):
    model = tiny("llama-3.2")
    for name, n_shards in (("one", 1), ("two", 2)):
        as_released(tmp_path / name, model, n_shards=n_shards, rope_scaling_factor=32)
        assert load(tmp_path / name).config == model.config
        for shard in range(n_shards):
            edit(tmp_path / name, lambda t: t.pop("output.weight"), shard=shard)
        loaded = load(tmp_path / name)
        assert loaded.config == model.config and loaded.output.weight is loaded.tok_embeddings.weight
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


def quiet(model):
    """Embeddings so small that the epsilon of the first norm matters, as it does for rare tokens."""
    with torch.no_grad():
        model.tok_embeddings.weight.mul_(0.02)
    return model


def swap(a, b):
    def change(tensors):
        for key in [k for k in tensors if a in k]:
            tensors[key], tensors[key.replace(a, b)] = tensors[key.replace(a, b)], tensors[key]
    return change


def to_halves(tensors):
    for key in tensors:
        if "wq" in key:
            w = tensors[key]
            tensors[key] = w.view(-1, 8, 2, w.shape[1]).transpose(1, 2).reshape(w.shape).contiguous()


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
def test_the_comparison_with_transformers_sees_every_mistake_a_converter_can_make(mistake, tmp_path):
    model = quiet(tiny("llama-3.2"))
    as_released(tmp_path / "m", model, n_shards=2, rope_scaling_factor=32.0)
    keys, change = MISTAKES.get(mistake, ({}, None))
    if keys == "swap the files":
        for name in ("wk", "wv"):
            first, second = [torch.load(tmp_path / f"m/consolidated.{i:02}.pth", weights_only=True) for i in (0, 1)]
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


# --- bad input --------------------------------------------------------------------------------------------------------


class Runs:
    """A pickle of this creates a file when it is opened by a reader that runs code."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (str(self.proof),)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path):
    as_released(tmp_path / "m", tiny())
    file = tmp_path / "m/consolidated.00.pth"
    torch.save({"tok_embeddings.weight": Runs(tmp_path / "ran")}, file)
    with pytest.raises(ValueError, match=r"may hold tensors and nothing that runs; .*consolidated.00.pth asks for more"):
        meta.open_checkpoint(tmp_path / "m")
    file.write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
    with pytest.raises(ValueError, match="no zip archive"):
        meta.open_checkpoint(tmp_path / "m")
    assert not (tmp_path / "ran").exists()
    torch.load(save(file, Runs(tmp_path / "ran")), weights_only=False)
    assert (tmp_path / "ran").exists(), "the pickle does run where code is let run"


def save(file, content):
    torch.save(content, file)
    return file


def forge_entry_size(folder):
    """The archive's list says that data.pkl is 4 GB long."""
    file = folder / "consolidated.00.pth"
    raw = bytearray(file.read_bytes())
    at = raw.rindex(b"PK\x01\x02", 0, raw.index(b"consolidated.00/data.pkl", raw.index(b"PK\x01\x02")))
    raw[at + 20 : at + 28] = b"\xf0\xff\xff\xff" * 2
    file.write_bytes(raw)


def compress(folder):
    file = folder / "consolidated.00.pth"
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def expand_one(tensors):
    tensors["output.weight"] = torch.zeros(1).as_strided((10**6, 10**6), (0, 0))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "params.json").unlink(), r"needs a JSON file at .*params.json"),
        (lambda f: (f / "params.json").write_text("[]"), "must hold a JSON object; got list"),
        (lambda f: edit_params(f, dim="remove"), "dim is missing"),
        (lambda f: edit_params(f, dim=65), r"wq has 65 rows in all and 32 in each file"),
        (lambda f: edit_params(f, multiple_of=0), "describes no model of this version"),
        (lambda f: edit_params(f, ffn_dim_multiplier=1.3), r"w1.weight is \(96, 64\), not \(112, 64\)"),
        (lambda f: edit_params(f, n_layers=10**6), "n_layers is 1000000, and a file holds"),
        (lambda f: edit_params(f, n_layers=3), r"layers.3.attention.wk.weight is not of this model"),
        (lambda f: edit_params(f, vocab_size=9), r"says vocab_size 9, but the 2 files hold an embedding of 520 rows"),
        (lambda f: edit_params(f, moe_args={"num_experts": 16}), "moe_args, as in Llama 4, which is not built yet"),
        (lambda f: edit_params(f, vision_chunk_size=448), "vision_chunk_size, as in Llama 3.2 Vision"),
        (lambda f: edit_params(f, quantization_args={"scheme": "int4"}), "a quantized Llama"),
        (lambda f: (f / "consolidated.01.pth").unlink(), "there must be 2 files consolidated"),
        (lambda f: (f / "consolidated.00.pth").unlink(), "without a gap; .* has consolidated.01.pth"),
        (lambda f: [(f / f"consolidated.0{i}.pth").unlink() for i in (0, 1)], "has none"),
        (lambda f: edit(f, lambda t: t.pop("norm.weight")), r"consolidated.00.pth must be those .* norm.weight is missing"),
        (lambda f: edit(f, lambda t: t.update(x=torch.zeros(2)), 1), r"consolidated.01.pth .* x is not of this model"),
        (lambda f: edit(f, lambda t: t.update({"norm.weight": torch.zeros(64, dtype=torch.int8)})), "torch.int8"),
        (lambda f: edit(f, lambda t: t.update({"norm.weight": {}})), "holds something else"),
        (lambda f: edit(f, expand_one), r"output.weight in .* is said to have 4000000000000 bytes"),
        (lambda f: save(f / "consolidated.00.pth", [torch.zeros(2)]), "holds something else"),
        (lambda f: (f / "consolidated.00.pth").write_bytes(b""), "whole .pth file"),
        (lambda f: (f / "consolidated.00.pth").write_bytes((f / "params.json").read_bytes()), "whole .pth file"),
        (lambda f: truncate(f / "consolidated.00.pth"), "whole .pth file"),
        (forge_entry_size, "'consolidated.00/data.pkl' is said to be 4294967280 bytes long"),
        (compress, "is compressed, which PyTorch never does"),
        (lambda f: (f / "tokenizer.model").unlink(), "has its tokenizer in a tokenizer.model or, in .* has none"),
        (lambda f: (f / "tokenizer.model").write_bytes(b""), "tokenizer.model"),
        (lambda f: (f / "tokenizer.model").write_bytes(b"\x93NUMPY" * 99), "tokenizer.model"),
        (lambda f: large_tokenizer(4000).save(f / "tokenizer.model"), "the tokenizer has 4000 ids and the embedding 520 rows"),
    ],
)
def test_a_bad_folder_is_refused_and_what_is_wrong_is_named(damage, message, tmp_path):
    folder = as_released(tmp_path / "m", tiny(), n_shards=2)
    damage(folder)
    with pytest.raises(ValueError, match=message):
        opened = meta.open_checkpoint(folder)
        opened.tokenizer()
        build(opened)


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1000])


@pytest.mark.parametrize("n_shards", [0, 3, 8])
def test_shards_of_unequal_size_are_not_written(n_shards, tmp_path):
    with pytest.raises(ValueError, match="Choose another number"):
        meta.write(tmp_path / "m", tiny(), tokenizer=TOKENIZER, n_shards=n_shards)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_refused_or_read_and_never_crashes(tmp_path):
    """300 files with a few bytes overwritten, cut or zeroed. A .pth has no check sum that is read: weights may change."""
    folder = as_released(tmp_path / "m", tiny(dim=16, n_heads=2, n_kv_heads=1, ffn_dim=64))
    file = folder / "consolidated.00.pth"
    good = file.read_bytes()
    # the pickle and the archive's list: what is read as structure, and not as weights
    with zipfile.ZipFile(file) as archive:
        start = archive.getinfo("consolidated.00/data.pkl").header_offset
        stop, listing = start + archive.getinfo("consolidated.00/data.pkl").file_size, archive.start_dir
    draw = torch.Generator().manual_seed(0)
    n_refused = 0
    for trial in range(300):
        bad = bytearray(good)
        begin, end = [(start, stop), (listing, len(good)), (0, len(good))][trial % 3]
        for _ in range(1 + trial % 4):
            bad[torch.randint(begin, end, (), generator=draw)] = int(torch.randint(256, (), generator=draw))
        if trial % 10 == 9:
            del bad[int(torch.randint(len(bad), (), generator=draw)) :]
        file.write_bytes(bad)
        try:
            load(folder)
        except ValueError as error:
            n_refused += 1
            assert "consolidated.00.pth" in str(error) or "params.json" in str(error), str(error)
    assert n_refused > 100
