import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hugging_face_twin import twin_of
from tiny_checkpoints import (
    TOKENIZER,
    far_logits,
    large_tokenizer,
    same_weights,
    sized,
    tiny,
    tokenizer_for,
)

import llama_from_scratch
from llama_from_scratch import family
from llama_from_scratch.checkpoint import (
    gguf,
    hugging_face,
    llama2c,
    machine,
    meta,
    native,
    tokenizer_files,
)
from llama_from_scratch.checkpoint.folders import creating_folder
from llama_from_scratch.checkpoint.hugging_face_config import config_to
from llama_from_scratch.checkpoint.load import load, open_checkpoint
from llama_from_scratch.checkpoint.names import HUGGING_FACE
from llama_from_scratch.checkpoint.translation import translation
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.pieces import Piece
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece

WRITERS = {
    "native": native.save,
    "hugging_face": lambda folder, model, tokenizer: hugging_face.write(
        folder, model, tokenizer=tokenizer, shard_bytes=10**5),
    "meta": lambda folder, model, tokenizer: meta.write(
        folder, model, tokenizer=tokenizer, n_shards=2),
}


@pytest.mark.parametrize("layout", WRITERS)
def test_a_path_is_recognized_and_gives_model_and_tokenizer(layout, tmp_path):
    model = tiny("llama-3.1")
    WRITERS[layout](tmp_path / "m", model, TOKENIZER)
    loaded, tokenizer = llama_from_scratch.load(tmp_path / "m")
    assert loaded.config == model.config and same_weights(loaded, model)
    same_logits = torch.equal(far_logits(loaded), far_logits(model))
    assert same_logits, "the frequencies of RoPE are there, too"
    assert tokenizer.encode("the cat", bos=True) == TOKENIZER.encode("the cat", bos=True)
    assert all(weight.requires_grad for weight in loaded.parameters())


@pytest.mark.parametrize("layout", WRITERS)
def test_the_wanted_dtype_is_given_and_the_callers_seed_kept(layout, tmp_path):
    WRITERS[layout](tmp_path / "m", tiny().bfloat16(), TOKENIZER)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    as_saved, _ = load(tmp_path / "m")
    wide, _ = load(tmp_path / "m", dtype=torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
    assert same_weights(as_saved, tiny().bfloat16())
    assert same_weights(wide, tiny().bfloat16().float())
    assert as_saved.rope.freq_R.dtype == torch.float32


def test_no_weight_is_drawn_to_be_thrown_away_and_nothing_heavy_imported(tmp_path):
    """On the meta device PyTorch would draw weights in Python, for which it imports sympy: seconds
    before the first load.
    """
    hugging_face.write(tmp_path / "m", tiny("llama-3.1"), tokenizer=TOKENIZER)
    script = """
import sys
from llama_from_scratch.checkpoint import open_checkpoint
from llama_from_scratch.checkpoint.opened import build
model = build(open_checkpoint(sys.argv[1]))
print("sympy" in sys.modules, any(p.is_meta for p in [*model.parameters(), *model.buffers()]))
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "m"], capture_output=True,
                          text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_progress_is_told_in_bytes_up_to_all_of_them(tmp_path):
    model = tiny("llama-3.2")
    hugging_face.write(tmp_path / "m", model, tokenizer=TOKENIZER)
    heard = []
    load(tmp_path / "m", on_tensor=lambda done, n_bytes: heard.append((done, n_bytes)))
    assert len(heard) == 38 and heard == sorted(heard)
    assert heard[-1] == (4 * model.config.n_params,) * 2


@pytest.mark.parametrize("layout", WRITERS)
def test_a_loaded_model_can_be_trained(layout, tmp_path):
    WRITERS[layout](tmp_path / "m", tiny("llama-3.2"), TOKENIZER)
    loaded, _ = load(tmp_path / "m")
    loaded(torch.zeros(1, 3, dtype=torch.int64)).sum().backward()
    torch.optim.SGD(loaded.parameters(), lr=0.1).step()
    assert not torch.equal(loaded.norm.weight, tiny("llama-3.2").norm.weight)
    assert same_weights(load(tmp_path / "m")[0], tiny("llama-3.2")), "the files keep what was saved"


def sparse_checkpoint(folder, config):
    """A folder as Hugging Face's, whose weights are holes in the file: long as the real one, small
    on the disk.
    """
    folder.mkdir()
    header, end = {}, 0
    for name, shape in translation(HUGGING_FACE, config).theirs.items():
        n_bytes = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + n_bytes]}
        end += n_bytes
    head = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + end)
    (folder / "config.json").write_text(json.dumps(config_to(config, dtype=torch.bfloat16)))
    return folder


def test_an_8b_model_that_does_not_fit_is_refused_before_a_weight_is_read(tmp_path, monkeypatch):
    folder = sparse_checkpoint(tmp_path / "m", family.config("llama-3.1-8b"))
    assert (folder / "model.safetensors").stat().st_size > 16_060_522_496
    monkeypatch.setattr(hugging_face, "_tensors", lambda *_: pytest.fail("a weight was read"))
    with pytest.raises(ValueError, match=r"8.03 billion parameters of .* need 16.06 GB in "
                                         r"bfloat16, and 12.00 GB are free on cpu. Use a smaller "
                                         r"model"):
        load(folder, memory_bytes=12 * 10**9)
    with pytest.raises(ValueError, match=r"need 32.12 GB in float32, and 20.00 GB .* Choose "
                                         r"dtype=torch.bfloat16, which"):
        load(folder, dtype=torch.float32, memory_bytes=20 * 10**9)
    monkeypatch.setattr(machine, "free_bytes", lambda device: 10**9)
    with pytest.raises(ValueError, match=r"and 1.00 GB are free on cpu"):
        load(folder)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: None, "does not exist"),
        (lambda f: f.mkdir(), "has none of these"),
        (lambda f: f.write_text("x"), "is another kind of file. Give its folder"),
        (lambda f: [f.mkdir(), (f / "config.json").touch(), (f / "params.json").touch()],
         "must hold only one"),
        (lambda f: [f.mkdir(), (f / "config.json").write_text("nonsense")],
         "needs a JSON file at .*config.json"),
        (lambda f: [f.mkdir(), (f / "config.json").write_text('{"model_type": "bert"}')],
         "neither"),
    ],
)
def test_a_path_without_a_checkpoint_is_refused(make, message, tmp_path):
    make(tmp_path / "m")
    with pytest.raises(ValueError, match=message):
        llama_from_scratch.load(tmp_path / "m")


PIECES = tokenizer_for("llama-2").pieces

# Prints the peak of resident memory while a checkpoint is loaded and every weight used once, over
# what was there before.
PEAK = """
import sys, torch
from llama_from_scratch.checkpoint import open_checkpoint
from llama_from_scratch.checkpoint.opened import build
folder, dtype = sys.argv[1], getattr(torch, sys.argv[2])
build(open_checkpoint(sys.argv[3]), dtype=dtype)  # loads what PyTorch loads lazily
def status(key):
    lines = open("/proc/self/status")
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
model = build(open_checkpoint(folder), dtype=dtype)
for weight in model.parameters():
    weight.data.view(torch.uint8)[..., ::64].max()
print((status("VmHWM") - before) / sum(weight.nbytes for weight in model.parameters()))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(),
                    reason="the peak of memory can be reset on Linux only")
@pytest.mark.parametrize(
    ("layout", "dtype", "is_tied"),
    [("native", "bfloat16", False), ("hugging_face", "bfloat16", False),
     ("hugging_face", "float32", False),
     ("meta", "bfloat16", False), ("meta", "float32", True), ("meta in one file", "bfloat16", True),
     ("meta in one file", "float32", False), ("gguf F32", "float32", False),
     ("gguf F16", "bfloat16", True),
     ("gguf Q8_0", "float32", False), ("llama2c", "float32", False), ("llama2c", "bfloat16", True)],
)
def test_loading_takes_little_more_memory_than_the_model(layout, dtype, is_tied, tmp_path):
    """The proportions of a small Llama: the embedding is a seventh of it, or with the head a
    quarter.
    """
    torch.manual_seed(0)
    generation = "llama-2" if layout == "llama2c" else "llama-3.1"
    config = sized(family.tiny(generation), dim=768, n_heads=12, n_kv_heads=4, ffn_dim=2048,
                   n_layers=12, vocab_size=12_000, is_tied=is_tied)
    with torch.device("meta"):
        model = Llama(config)
    model = model.to_empty(device="cpu").bfloat16()
    if is_tied:
        model.output.weight = model.tok_embeddings.weight
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(1)
    assert sum(p.nbytes for p in model.parameters()) > 150e6
    write_weights_only(layout, tmp_path / "m", model)
    write_weights_only(layout, tmp_path / "small", tiny(generation).bfloat16())
    done = subprocess.run([sys.executable, "-c", PEAK, tmp_path / "m", dtype, tmp_path / "small"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 0.95 < float(done.stdout) < 1.15, done.stdout


def write_weights_only(layout, folder, model):
    tokenizer = large_tokenizer(model.config.vocab_size)
    if layout.startswith("gguf"):
        return gguf.write(folder, model, tokenizer=tokenizer, kind=layout.removeprefix("gguf "))
    if layout == "llama2c":
        pieces = [*PIECES[:259], *(Piece(f"word{i}") for i in range(model.config.vocab_size - 259))]
        return llama2c.write(folder, model, tokenizer=SentencePiece(pieces))
    if layout == "meta in one file":
        meta.write(folder, model, tokenizer=tokenizer)
    elif layout == "native":
        with creating_folder(folder) as unfinished:
            native.write(unfinished, model, tokenizer=TOKENIZER)
    elif layout == "meta":
        meta.write(folder, model, tokenizer=tokenizer, n_shards=2)
    else:
        hugging_face.write(folder, model, tokenizer=tokenizer, shard_bytes=40_000_000)


@pytest.mark.parametrize("generation", family.GENERATIONS)
def test_a_round_through_all_layouts_changes_no_bit(generation, tmp_path):
    """transformers -> ours -> Meta -> ours -> GGUF -> ours -> Hugging Face -> ours."""
    model, tokenizer = tiny(generation), tokenizer_for(generation)
    twin_of(model).save_pretrained(tmp_path / "0")
    tokenizer_files.write_hugging_face(tmp_path / "0", tokenizer)
    write = {"1": lambda *where, **what: meta.write(*where, n_shards=2, **what), "2": gguf.write,
             "3": hugging_face.write}
    for i in range(4):
        model_then, tokenizer_then = load(tmp_path / str(i))
        assert model_then.config == model.config and same_weights(model_then, model)
        wanted = tokenizer.encode("the cat sat", bos=True, eos=True)
        assert tokenizer_then.encode("the cat sat", bos=True, eos=True) == wanted
        if i < 3:
            write[str(i + 1)](tmp_path / str(i + 1), model_then, tokenizer=tokenizer_then)
    assert torch.equal(far_logits(model_then), far_logits(model))


@pytest.mark.parametrize(("generation", "ends"), [
    ("llama-2", ["</s>"]), ("llama-3", ["<|end_of_text|>", "<|eot_id|>"]),
    ("llama-3.1", ["<|end_of_text|>", "<|eot_id|>", "<|eom_id|>"])])
def test_every_layout_tells_after_which_ids_to_stop(generation, ends, tmp_path):
    tokenizer, model = tokenizer_for(generation), tiny(generation)
    hugging_face.write(tmp_path / "hugging_face", model, tokenizer=tokenizer)
    meta.write(tmp_path / "meta", model, tokenizer=tokenizer)
    gguf.write(tmp_path / "gguf", model, tokenizer=tokenizer)
    native.save(tmp_path / "native", model, tokenizer)
    if generation == "llama-2":
        llama2c.write(tmp_path / "llama2c", model, tokenizer=tokenizer)
    for path in tmp_path.iterdir():
        wanted = {tokenizer.special_ids[name] for name in ends}
        wanted |= {tokenizer.bos_id} if path.name == "llama2c" else set()  # where its run ends
        assert open_checkpoint(path).stop_ids == wanted, path.name


@pytest.mark.parametrize(("generation", "config", "stops"), [
    (7, 8, {7}), ([7, 9], 8, {7, 9}), (None, 8, {8}), (..., [8, 9], {8, 9}),
    ([], None, {265, 273, 272})])
def test_what_the_files_say_of_stopping_goes_before_the_tokenizer(
    generation, config, stops, tmp_path
):
    hugging_face.write(tmp_path / "m", tiny(), tokenizer=TOKENIZER)
    for name, said in (("generation_config.json", generation), ("config.json", config)):
        file = tmp_path / "m" / name
        about = json.loads(file.read_text()) | {"eos_token_id": said}
        file.unlink() if said is ... else file.write_text(json.dumps(about))
    assert open_checkpoint(tmp_path / "m").stop_ids == stops


@pytest.mark.parametrize(("said", "message"), [
    ({"eos_token_id": 520}, "below vocab_size=520.* has 520"),
    ({"eos_token_id": [1, -1]}, "generation_config.json has -1"),
    ({"eos_token_id": True}, "has True"), ([], "must hold a JSON object; got list")])
def test_an_end_that_is_no_id_is_refused(said, message, tmp_path):
    hugging_face.write(tmp_path / "m", tiny(), tokenizer=TOKENIZER)
    (tmp_path / "m/generation_config.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match=message):
        open_checkpoint(tmp_path / "m")


