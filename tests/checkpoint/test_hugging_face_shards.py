import json

import pytest
from safetensors.torch import load_file
from tiny_checkpoints import TOKENIZER, edit_json, edit_safetensors, large_tokenizer, tiny

from llama_from_scratch.checkpoint import hugging_face
from llama_from_scratch.tokenizer import hugging_face as tokenizer_json


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


def edit_index(folder, change):
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    change(index["weight_map"])
    file.write_text(json.dumps(index))


def first(folder):
    return min(folder.glob("model-*.safetensors"))


def copy_into_another_shard(folder):
    tensors = load_file(first(folder))
    edit_safetensors(folder,
                     lambda t: t.update({next(iter(tensors)): next(iter(tensors.values()))}),
                     max(folder.glob("model-*")).name)


def send_out(where):
    return lambda f: edit_index(f, lambda m: m.update({"model.norm.weight": where}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: first(f).unlink(), r"names must exist; model-00001-of-"),
        (lambda f: (f / "model-00001-of-00099.safetensors").touch(),
         "does not name model-00001-of-00099"),
        (lambda f: edit_index(f, lambda m: m.pop("model.norm.weight")),
         "model.norm.weight is in .* and not in the index"),
        (lambda f: edit_index(f, lambda m: m.update(x=first(f).name)), "x is not in model-00001"),
        (copy_into_another_shard, "is in model-.* and in model-00001"),
        (send_out("../other.safetensors"), "in the same folder; it names '../other.safetensors'"),
        (send_out("/etc/passwd"), "must be in the same folder; it names '/etc/passwd'"),
        (send_out("..\\other.safetensors"), "must be in the same folder"),
        (send_out("C:other.safetensors"), "must be in the same folder"),
        (send_out(".."), "must be in the same folder"),
        (send_out(""), "must be in the same folder"),
        (send_out(3), "must map each tensor to its file"),
        (lambda f: (f / "model.safetensors.index.json").write_text("[1]"),
         "must map each tensor to its file"),
        (lambda f: (f / "model.safetensors.index.json").write_text("{"), "needs a JSON file at"),
        (lambda f: (f / "model.safetensors").write_bytes(first(f).read_bytes()),
         "has both. Remove the older one"),
        (lambda f: (f / "model.safetensors.index.json").unlink(), "has neither"),
        (lambda f: first(f).write_bytes(first(f).read_bytes()[:-1]), "its tensors end at byte"),
        (lambda f: first(f).write_bytes(b""), "a whole safetensors file"),
        (lambda f: edit_json(f / "config.json", num_hidden_layers=10**6),
         "is 1000000, and the files hold 39"),
        (lambda f: edit_json(f / "config.json", num_hidden_layers=3),
         r"layers.3.input_layernorm.weight is not of this"),
        (lambda f: edit_json(f / "config.json", num_hidden_layers=5),
         r"model.layers.4.input_layernorm.weight is missing"),
        (lambda f: edit_json(f / "config.json", vocab_size=10**15),
         r"lm_head.weight is \(520, 64\), not \(10{15}, 64\)"),
        (lambda f: edit_json(f / "config.json", num_key_value_heads=4),
         r"k_proj.weight is \(32, 64\), not \(64, 64\)"),
        (lambda f: (f / "config.json").unlink(), "needs a JSON file at .*config.json"),
        (lambda f: (f / "tokenizer.json").unlink(), "needs its tokenizer in a tokenizer.model or, "
                                                    "in .* has none"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer.json cannot be read"),
        (lambda f: tokenizer_json.write(f / "tokenizer.json", large_tokenizer(1000)),
         "every token needs a row in the embedding; got .* and 520 rows, 480 such tokens"),
    ],
)
def test_a_bad_folder_is_refused_and_what_is_wrong_is_named(damage, message, tmp_path):
    hugging_face.write(tmp_path / "m", tiny(), tokenizer=TOKENIZER, shard_bytes=100_000)
    damage(tmp_path / "m")
    with pytest.raises(ValueError, match=message):
        hugging_face.open_checkpoint(tmp_path / "m").tokenizer()


def test_pickles_are_told_from_a_missing_download(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "pytorch_model.bin").write_text("")
    with pytest.raises(ValueError, match=r"weights as pickles \(.bin\), which cannot be read. Use "
                                         r"its safetensors version"):
        hugging_face.open_checkpoint(tmp_path)
