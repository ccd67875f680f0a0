import dataclasses
import json
import os

import pytest
import torch
from llama4_files import text_model, whole_model
from llama4_files import tokenizer as llama4_tokenizer
from llama4_twin import loud_llama4, toy
from safetensors.torch import load_file, save_file
from seeing_checkpoints import logits, seeing
from seeing_checkpoints import tokenizer as seeing_tokenizer
from tiny_checkpoints import sized

import llama_from_scratch
from llama_from_scratch import family
from llama_from_scratch.checkpoint import native
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer import released, split
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece

SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>")
TOKENIZER = Tokenizer.train("the cat sat on the mat, the rat sat on the cat. " * 4, 270,
                            special_tokens=SPECIAL)


def make(seed=0, generation="llama-3.1", **changes):
    torch.manual_seed(seed)
    return Llama(sized(family.tiny(generation), **dict(vocab_size=270, max_seq_len=64) | changes))


def same_weights(a, b):
    theirs = dict(b.named_parameters())
    return all(torch.equal(p, theirs[name]) and p.dtype == theirs[name].dtype
               for name, p in a.named_parameters())


@pytest.mark.parametrize("generation", family.GENERATIONS)
def test_what_is_saved_comes_back_bit_for_bit(generation, tmp_path):
    model = make(generation=generation)
    native.save(tmp_path / "m", model, TOKENIZER)
    loaded, tokenizer = llama_from_scratch.load(tmp_path / "m")
    assert loaded.config == model.config and same_weights(loaded, model)
    assert (tokenizer.ranks, tokenizer.special_ids, tokenizer.pattern) == (
        TOKENIZER.ranks, TOKENIZER.special_ids, TOKENIZER.pattern)
    ids = torch.tensor([tokenizer.encode("the cat", bos=True)])
    assert torch.equal(model(ids), loaded(ids))
    names = sorted(p.name for p in tmp_path.rglob("*"))
    expected = sorted(["m", "checksums.json", *native.FILES])
    assert names == expected, "a save leaves nothing else behind"


def test_a_tied_head_is_stored_once_and_stays_tied(tmp_path):
    model = make(generation="llama-3.2")
    native.save(tmp_path / "m", model, TOKENIZER)
    assert "output.weight" not in load_file(tmp_path / "m/model.safetensors")
    loaded, _ = native.load(tmp_path / "m")
    assert loaded.output.weight is loaded.tok_embeddings.weight


def test_weights_keep_their_dtype_and_loading_keeps_the_callers_seed(tmp_path):
    model = make().bfloat16()
    native.save(tmp_path / "m", model, TOKENIZER)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    loaded, _ = native.load(tmp_path / "m")
    assert torch.equal(torch.get_rng_state(), before)
    assert same_weights(loaded, model)
    assert loaded.layers[0].attention.wq.weight.dtype == torch.bfloat16


def test_a_loaded_model_does_not_change_when_its_file_does(tmp_path):
    model = make()
    native.save(tmp_path / "m", model, TOKENIZER)
    loaded, _ = native.load(tmp_path / "m")
    file = tmp_path / "m/model.safetensors"
    with open(file, "r+b") as f:
        f.seek(file.stat().st_size // 2)
        f.write(bytes(4096))
    assert same_weights(loaded, model)


PIECES = SentencePiece.train("".join(map(chr, range(33, 255))) + "the cat sat on the mat. " * 9,
                             520)
RANKS = TOKENIZER.ranks
EVERY_TOKENIZER = {
    "SentencePiece": PIECES,
    "SentencePiece without a blank in front": SentencePiece(PIECES.pieces, prefix="never"),
    "SentencePiece of a tokenizer.json": SentencePiece(PIECES.pieces, prefix="first if missing"),
    "SentencePiece with other ends": SentencePiece(PIECES.pieces, bos="</s>", eos="<s>"),
    "bytes, no special tokens": Tokenizer(RANKS),
    **{generation: Tokenizer(RANKS, special_tokens=names)
       for generation, names in released.SPECIAL_TOKENS.items()},
    "llama-4 with its pattern": Tokenizer(RANKS, special_tokens=released.LLAMA_4,
                                          pattern=split.LLAMA4_PATTERN),
}


@pytest.mark.parametrize("kind", EVERY_TOKENIZER)
def test_every_tokenizer_comes_back_with_its_special_tokens(kind, tmp_path):
    tokenizer = EVERY_TOKENIZER[kind]
    native.save(tmp_path / "m", make(vocab_size=tokenizer.vocab_size), tokenizer)
    for back in (native.load(tmp_path / "m")[1], native.load_tokenizer(tmp_path / "m")):
        assert type(back) is type(tokenizer) and back.special_ids == tokenizer.special_ids
        text = "  the cat's 12345 <s>DON'T <|eot_id|>Über\n\n naïve 🙂"
        for how in ({}, {"allowed_special": "all"},
                    {"bos": True, "eos": True} if "no special" not in kind else {}):
            assert back.encode(text, **how) == tokenizer.encode(text, **how)
        assert back.decode(tokenizer.encode(text)) == tokenizer.decode(tokenizer.encode(text))


@pytest.mark.parametrize(("key", "value"), [("prefix", "sometimes"), ("bos", 3), ("eos", None)])
def test_what_config_json_says_of_sentencepiece_is_checked(key, value, tmp_path):
    native.save(tmp_path / "m", make(vocab_size=520), PIECES)
    edit(tmp_path / "m", "tokenizer", key, value)
    with pytest.raises(ValueError, match=r"the prefix of SentencePiece must be one of always, .* "
                                         r"bos and eos must be names"):
        native.load_tokenizer(tmp_path / "m")


def test_load_weights_fills_a_model_of_the_same_configuration(tmp_path):
    native.save(tmp_path / "m", make(seed=1), TOKENIZER)
    model = make(seed=2)
    native.load_weights(tmp_path / "m", model)
    assert same_weights(model, make(seed=1))


def test_a_checkpoint_of_another_configuration_names_the_differing_keys(tmp_path):
    native.save(tmp_path / "m", make(), TOKENIZER)
    scaling = dataclasses.replace(make().config.rope_scaling, factor=4.0)
    with pytest.raises(ValueError) as caught:
        native.load_weights(tmp_path / "m",
                            make(ffn_dim=96, rope_scaling=scaling, n_layers=3))
    message = str(caught.value)
    assert "ffn_dim is 192 there and 96 here" in message
    assert "rope_scaling.factor is 8.0 there and 4.0 here" in message
    assert "layers has 4 entries there and 3 here" in message
    assert "dim is 64" not in message.replace("ffn_dim", ""), "equal keys are not named"


def test_missing_extra_and_misshapen_tensors_are_all_listed(tmp_path):
    native.save(tmp_path / "m", make(), TOKENIZER)
    file = tmp_path / "m/model.safetensors"
    tensors = load_file(file)
    del tensors["norm.weight"]
    tensors["surprise"] = torch.zeros(2)
    tensors["layers.0.attention.wk.weight"] = torch.zeros(4, 4)
    tensors["layers.1.attention.wk.weight"] = tensors["layers.1.attention.wk.weight"].to(
        torch.int64)
    save_file(tensors, file)
    with pytest.raises(ValueError) as caught:
        native.load(tmp_path / "m")
    for part in ("norm.weight is missing", "surprise is not of this model",
                 "wk.weight is torch.float32 (4, 4), not",
                 "layers.1.attention.wk.weight is torch.int64"):
        assert part in str(caught.value)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_weight_file_is_refused(kept, tmp_path):
    native.save(tmp_path / "m", make(), TOKENIZER)
    file = tmp_path / "m/model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"whole safetensors file at .*model.safetensors; it "
                                         r"cannot be read"):
        native.load(tmp_path / "m")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: [p.unlink() for p in f.iterdir()], "has no config.json"),
        (lambda f: [[p.unlink() for p in f.iterdir()], f.rmdir()], "does not exist"),
        (lambda f: (f / "config.json").write_text("{"), "a JSON file at .*config.json; it cannot "
                                                        "be read"),
        (lambda f: (f / "config.json").write_text('{"model_type": "llama"}'),
         "is for a Hugging Face model"),
        (lambda f: (f / "config.json").write_text(json.dumps({"format": native.FORMAT})),
         "no model and no tokenizer"),
        (lambda f: (f / "model.safetensors").unlink(), "whole safetensors file"),
        (lambda f: (f / "tokenizer.model").unlink(), "has no tokenizer.model"),
        (lambda f: edit(f, "model", "dims", 3), r"describes no model of this version: .*did you "
                                                r"mean 'dim'\?"),
        (lambda f: edit(f, "tokenizer", "patern", "x"), "in .* it has pater"),
        (lambda f: (f / "checksums.json").write_text("[]"), r"checksums.json must have the 8 "),
    ],
)
def test_a_folder_that_is_no_checkpoint_says_what_was_expected(damage, message, tmp_path):
    native.save(tmp_path / "m", make(), TOKENIZER)
    damage(tmp_path / "m")
    with pytest.raises(ValueError, match=message):
        native.load(tmp_path / "m")


def edit(folder, part, key, value):
    about = json.loads((folder / "config.json").read_text())
    about[part][key] = value
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "checksums.json").unlink()


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got 270 ids and vocab_size=269"):
        native.save(tmp_path / "m", make(vocab_size=269), TOKENIZER)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="file size limits are POSIX")
def test_a_disk_that_refuses_the_weights_is_an_oserror_and_keeps_the_previous_checkpoint(tmp_path):
    import resource

    native.save(tmp_path / "m", make(seed=1), TOKENIZER)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # a real refusal in the middle of a real write
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"could not write .*model.safetensors"):
            native.save(tmp_path / "m", make(seed=2), TOKENIZER)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert same_weights(native.load(tmp_path / "m")[0], make(seed=1))


def test_a_tokenizer_with_more_ids_than_the_model_has_rows_is_refused(tmp_path):
    native.save(tmp_path / "m", make(), TOKENIZER)
    config = json.loads((tmp_path / "m/config.json").read_text())
    config["tokenizer"]["special_tokens"] += [f"<|{i}|>" for i in range(1000)]
    (tmp_path / "m/config.json").write_text(json.dumps(config))
    (tmp_path / "m/checksums.json").unlink(missing_ok=True)
    with pytest.raises(ValueError, match="every id of the tokenizer needs a row"):
        native.load(tmp_path / "m")


@pytest.mark.parametrize("change", [{"special_tokens": [1]}, {"special_tokens": "x"},
                                    {"pattern": ["a"]}, {"pattern": None}])
def test_a_tokenizer_that_is_described_in_another_type_is_refused(change, tmp_path):
    native.save(tmp_path / "m", make(), TOKENIZER)
    config = json.loads((tmp_path / "m/config.json").read_text())
    config["tokenizer"] |= change
    (tmp_path / "m/config.json").write_text(json.dumps(config))
    (tmp_path / "m/checksums.json").unlink(missing_ok=True)
    with pytest.raises(ValueError, match="special_tokens must be a list of names, and pattern"):
        native.load(tmp_path / "m")


# --- models that see ------------------------------------------------------------------------------


@pytest.fixture
def seeing_folder(tmp_path):
    model = seeing(has_one_grid=False)
    model.tiling = dataclasses.replace(model.tiling, mean=(0.1, 0.2, 0.3))
    native.save(tmp_path / "m", model, seeing_tokenizer())
    return tmp_path / "m", model


def test_a_model_that_sees_comes_back_bit_for_bit(seeing_folder):
    folder, model = seeing_folder
    loaded, tokenizer = llama_from_scratch.load(folder)
    assert loaded.config == model.config and loaded.tiling == model.tiling
    assert same_weights(loaded, model) and same_weights(model, loaded)
    assert torch.equal(logits(loaded), logits(model))
    assert tokenizer.special_ids["<|image|>"] == model.config.image_id


def test_weights_of_a_model_that_sees_are_loaded_into_another_one(seeing_folder):
    folder, model = seeing_folder
    other = seeing(seed=1)
    native.load_weights(folder, other)
    assert same_weights(model, other)


@pytest.mark.parametrize(("colors", "message"), [
    (None, "a model that sees needs \"tiling\" with mean and std"),
    ({"mean": [0, 0, 0]}, "needs \"tiling\" with mean and std"),
    ({"mean": [0, 0], "std": [1, 1, 1]}, "is damaged: Tiling.mean must be three finite numbers"),
])
def test_damaged_colors_are_refused(colors, message, seeing_folder):
    folder, _ = seeing_folder
    about = json.loads((folder / "config.json").read_text()) | {"tiling": colors}
    (folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=message):
        llama_from_scratch.load(folder)


def test_a_tokenizer_with_more_ids_than_a_model_that_sees_can_read_is_refused(tmp_path):
    large = Tokenizer.train("a", 540, special_tokens=tuple(map(str, range(284))))
    with pytest.raises(ValueError, match="got 540 ids and vocab_size=528"):
        native.save(tmp_path / "m", seeing(), large)


@pytest.mark.parametrize("make_model", [
    lambda: text_model("experts in every second, top 2, no norm"), whole_model,
], ids=["text", "whole"])
def test_a_llama_4_comes_back_with_its_encoder_and_without(make_model, tmp_path):
    model = make_model()
    native.save(tmp_path / "m", model, llama4_tokenizer())
    loaded, tokenizer = llama_from_scratch.load(tmp_path / "m")
    assert type(loaded) is type(model) and loaded.config == model.config
    assert same_weights(loaded, model) and tokenizer.pattern == released.LLAMA4_PATTERN
    ids = torch.tensor([[1, 5, 7, 9, 2, 4]])
    with torch.no_grad():
        assert torch.equal(model(ids), loaded(ids))


def test_how_a_model_that_reads_images_as_tokens_cuts_them_comes_back(tmp_path):
    model = whole_model()
    model.tiling = dataclasses.replace(model.tiling, mean=(0.4, 0.5, 0.6), fills_canvas=True)
    native.save(tmp_path / "m", model, llama4_tokenizer())
    assert native.load(tmp_path / "m")[0].tiling == model.tiling
    about = json.loads((tmp_path / "m/config.json").read_text())
    del about["tiling"]["fills_canvas"]
    (tmp_path / "m/config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"needs \"tiling\" with mean and std and fills_canvas"):
        native.load(tmp_path / "m")


@pytest.mark.parametrize("step", [1, 2])
def test_a_llama_4_comes_back_bit_for_bit(step, tmp_path):
    model = loud_llama4(toy(step=step, n_active=2, vocab_size=270))
    native.save(tmp_path / "m", model, TOKENIZER)
    loaded, _ = llama_from_scratch.load(tmp_path / "m")
    assert loaded.config == model.config and same_weights(loaded, model)
    ids = torch.arange(1, 20)[None]
    assert torch.equal(model(ids), loaded(ids))
