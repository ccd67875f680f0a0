import json
import os
import pickle
import zipfile

import pytest
import torch
from meta_release import as_released, edit, edit_params, load
from tiny_checkpoints import TOKENIZER, large_tokenizer, same_weights, tiny

from llama_from_scratch.checkpoint import meta
from llama_from_scratch.checkpoint.opened import build


def test_key_value_heads_that_several_shards_repeat_are_counted_once(tmp_path):
    model = tiny("llama-3.1", n_heads=8, n_kv_heads=2)
    meta.write(tmp_path / "m", model, tokenizer=TOKENIZER, n_shards=8)
    shards = [torch.load(tmp_path / f"m/consolidated.{i:02}.pth", weights_only=True)
              for i in range(8)]
    wk = [shard["layers.1.attention.wk.weight"] for shard in shards]
    assert [torch.equal(wk[i], wk[0])
            for i in range(8)] == [True] * 4 + [False] * 4, "four neighbors share a head"
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
    with pytest.raises(ValueError, match=r"must hold only tensors, and nothing that runs; "
                                         r".*consolidated.00.pth holds more"):
        meta.open_checkpoint(tmp_path / "m")
    file.write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
    with pytest.raises(ValueError, match="not a zip archive"):
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
    at = raw.rindex(b"PK\x01\x02", 0,
                    raw.index(b"consolidated.00/data.pkl", raw.index(b"PK\x01\x02")))
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
        (lambda f: edit_params(f, ffn_dim_multiplier=1.3),
         r"w1.weight is \(96, 64\), not \(112, 64\)"),
        (lambda f: edit_params(f, n_layers=10**6), "n_layers is 1000000, and a file holds"),
        (lambda f: edit_params(f, n_layers=3), r"layers.3.attention.wk.weight is not of this "
                                               r"model"),
        (lambda f: edit_params(f, vocab_size=9), r"has 9, but the embedding in the 2 files "
                                                 r"has 520 rows"),
        (lambda f: edit_params(f, moe_args={"num_experts": 16}),
         "layers.0.attention.wqkv.weight is missing"),
        (lambda f: edit_params(f, use_qk_norm=True), "only a Llama 4 has the key use_qk_norm, and"),
        (lambda f: edit_params(f, vision_chunk_size=448), "hold no matrix called tok_embeddings"),
        (lambda f: edit_params(f, quantization_args={"scheme": "int4"}), "a quantized Llama"),
        (lambda f: (f / "consolidated.01.pth").unlink(), "there must be 2 files consolidated"),
        (lambda f: (f / "consolidated.00.pth").unlink(), "without a gap; .* has "
                                                         "consolidated.01.pth"),
        (lambda f: [(f / f"consolidated.0{i}.pth").unlink() for i in (0, 1)], "has none"),
        (lambda f: edit(f, lambda t: t.pop("norm.weight")),
         r"consolidated.00.pth must fit its config; norm.weight is missing"),
        (lambda f: edit(f, lambda t: t.update(x=torch.zeros(2)), 1),
         r"consolidated.01.pth .* x is not of this model"),
        (lambda f: edit(f, lambda t: t.update({"norm.weight": torch.zeros(64, dtype=torch.int8)})),
         "torch.int8"),
        (lambda f: edit(f, lambda t: t.update({"norm.weight": {}})),
         r"norm.weight in .* is a dict"),
        (lambda f: edit(f, expand_one), r"output.weight .* is claimed to have 4000000000000 bytes"),
        (lambda f: save(f / "consolidated.00.pth", [torch.zeros(2)]), "must hold tensors by name"),
        (lambda f: (f / "consolidated.00.pth").write_bytes(b""), "whole .pth file"),
        (lambda f: (f / "consolidated.00.pth").write_bytes((f / "params.json").read_bytes()),
         "whole .pth file"),
        (lambda f: truncate(f / "consolidated.00.pth"), "whole .pth file"),
        (forge_entry_size, "'consolidated.00/data.pkl' is claimed to be 4294967280 bytes long"),
        (compress, "is compressed, which PyTorch never does"),
        (lambda f: (f / "tokenizer.model").unlink(), "needs its tokenizer in a tokenizer.model or, "
                                                     "in .* has none"),
        (lambda f: (f / "tokenizer.model").write_bytes(b""), "tokenizer.model"),
        (lambda f: (f / "tokenizer.model").write_bytes(b"\x93NUMPY" * 99), "tokenizer.model"),
        (lambda f: large_tokenizer(4000).save(f / "tokenizer.model"),
         "tokenizer.model must have 264 ranks; the one in .* has 3744"),
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
    """300 files with a few bytes overwritten, cut or zeroed. A .pth has no check sum that is read:
    weights may change.
    """
    folder = as_released(tmp_path / "m", tiny(dim=16, n_heads=2, n_kv_heads=1, ffn_dim=64))
    file = folder / "consolidated.00.pth"
    good = file.read_bytes()
    # the pickle and the archive's list: what is read as structure, and not as weights
    with zipfile.ZipFile(file) as archive:
        start = archive.getinfo("consolidated.00/data.pkl").header_offset
        stop, listing = (start + archive.getinfo("consolidated.00/data.pkl").file_size,
                         archive.start_dir)
    draw = torch.Generator().manual_seed(0)
    n_refused = 0
    for trial in range(300):
        bad = bytearray(good)
        begin, end = [(start, stop), (listing, len(good)), (0, len(good))][trial % 3]
        for _ in range(1 + trial % 4):
            bad[torch.randint(begin, end, (), generator=draw)] = int(
                torch.randint(256, (), generator=draw))
        if trial % 10 == 9:
            del bad[int(torch.randint(len(bad), (), generator=draw)) :]
        file.write_bytes(bad)
        try:
            load(folder)
        except ValueError as error:
            n_refused += 1
            assert "consolidated.00.pth" in str(error) or "params.json" in str(error), str(error)
    assert n_refused > 100


QUERIES = "layers.0.attention.wq.weight"


@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch's, of kinds that it develops
@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t.to_sparse(), r"is a sparse tensor \(sparse_coo\)"),
    (lambda t: t.to_sparse_csr(), r"is a sparse tensor \(sparse_csr\)"),
    (lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8), "is a quantized tensor"),
    (lambda t: t.to("meta"), "is on the device 'meta', without values in the file"),
    (lambda t: t.t().contiguous().t(), r"is a view with the steps \(1, 64\) for the shape"),
    (lambda t: t[:1].expand(64, 64), r"is a view with the steps \(0, 1\)"),
    (lambda t: torch.nested.nested_tensor([t[0], t[0, :1]]), "nested tensor"),
    (lambda t: [t], "is a list"), (lambda t: "x", "is a str"),
])
def test_a_tensor_of_another_kind_is_refused_in_words(change, message, tmp_path):
    folder = as_released(tmp_path / "m", tiny())
    edit(folder, lambda t: t.update({QUERIES: change(t[QUERIES])}))
    with pytest.raises(ValueError, match=rf"{QUERIES} in .*consolidated.00.pth .*{message}"):
        meta.open_checkpoint(folder)


def test_tensors_that_share_memory_are_refused_unless_they_are_head_and_embedding(tmp_path):
    folder = as_released(tmp_path / "m", tiny("llama-3.2"))
    edit(folder, lambda t: t.update({"output.weight": t["tok_embeddings.weight"]}))
    assert meta.open_checkpoint(folder).config.is_tied
    edit(folder, lambda t: t.update({"layers.1.attention.wq.weight": t[QUERIES]}))
    with pytest.raises(ValueError, match="own bytes; .* shares bytes with .*tensor.clone"):
        meta.open_checkpoint(folder)


def test_a_parameter_is_a_tensor_too(tmp_path):
    model = tiny()
    folder = as_released(tmp_path / "m", model)
    edit(folder, lambda t: t.update({name: torch.nn.Parameter(p) for name, p in t.items()}))
    assert same_weights(load(folder), model)


def test_an_archive_of_an_old_pytorch_has_a_cure_of_its_own(tmp_path):
    folder = as_released(tmp_path / "m", tiny())
    file = folder / "consolidated.00.pth"
    torch.save(torch.load(file, weights_only=True), file, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="seems older: read it with torch.load.* and save it aga"):
        meta.open_checkpoint(folder)
