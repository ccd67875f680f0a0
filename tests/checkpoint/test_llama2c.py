import dataclasses
import struct

import numpy as np
import pytest
import torch
from seeing_checkpoints import CONFIG, seeing
from tiny_checkpoints import (
    MISTAKES,
    TEXT,
    TOKENIZER,
    difference_from_transformers,
    far_logits,
    quiet,
    same_weights,
    tiny,
    tokenizer_for,
    width_of,
)

from llama_from_scratch import family
from llama_from_scratch.checkpoint import llama2c
from llama_from_scratch.checkpoint.load import load
from llama_from_scratch.checkpoint.opened import build
from llama_from_scratch.tokenizer.pieces import Piece
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece

PIECES = tokenizer_for("llama-2")
UNROTATED = dataclasses.replace(family.tiny("llama-2").layers[0], has_rope=False)
SAME_ARITHMETIC = 1e-5
"""Largest difference of logits, relative to the largest of them, that comes of another order of
fp32 additions.
"""
SAME_ANGLE = 3e-4
"""Largest error of an angle of up to 4096 radians in fp32."""


def as_exported(model, version):
    """The bytes that llama2.c's own script would write, spelled out by hand: the reference for
    `read` and `write`.
    """
    config = model.config
    weights = {name: weight.detach().numpy().tobytes() for name, weight in model.named_parameters()}
    layers = range(config.n_layers)

    def each(name):
        return b"".join(weights[f"layers.{i}.{name}.weight"] for i in layers)

    vocab_size = config.vocab_size if version or config.is_tied else -config.vocab_size
    head = struct.pack("<7i", config.dim, width_of(config), config.n_layers, config.n_heads,
                       config.n_kv_heads, vocab_size,
                       config.max_seq_len)
    attention = (each("attention.wq") + each("attention.wk") + each("attention.wv")
                 + each("attention.wo"))
    forward = each("feed_forward.w_gate") + each("feed_forward.w_down") + each("feed_forward.w_up")
    output = b"" if config.is_tied else weights["output.weight"]
    if version:
        head = struct.pack("<Ii", 0x616B3432, 1) + head + bytes([config.is_tied]) + bytes(219)
        return (head + each("attention_norm") + each("ffn_norm") + weights["norm.weight"]
                + weights["tok_embeddings.weight"]
                + attention + forward + output)
    tables = np.zeros((2, config.max_seq_len, config.head_dim // 2), np.float32)
    for r in range(config.head_dim // 2):
        angle = np.arange(config.max_seq_len) * config.rope_theta ** (-2 * r / config.head_dim)
        tables[0, :, r], tables[1, :, r] = np.cos(angle), np.sin(angle)
    return (head + weights["tok_embeddings.weight"] + each("attention_norm") + attention
            + each("ffn_norm") + forward
            + weights["norm.weight"] + tables.tobytes() + output)


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("changes", [{}, {"is_tied": True}, {"n_kv_heads": 2}])
def test_a_file_that_llama2c_exports_is_read_bit_for_bit(changes, version, tmp_path):
    model = tiny("llama-2", **changes)
    (tmp_path / "stories.bin").write_bytes(as_exported(model, version))
    opened = llama2c.open_checkpoint(tmp_path / "stories.bin")
    assert opened.config == model.config and same_weights(build(opened), model)
    assert torch.equal(far_logits(build(opened)), far_logits(model))
    half = dict(opened.tensors(torch.bfloat16))
    assert torch.equal(half["norm.weight"], model.norm.weight.detach().bfloat16())


# Its files say nothing of scaling, theta and epsilon: the last two are wrong if the reader takes
# others for granted.
FIXED = {"theta": {"rope_theta": 2e4}, "eps": {"norm_eps": 1e-6}}


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("mistake", [None, *(name for name in MISTAKES if "scaling" not in name)])
def test_the_comparison_with_transformers_sees_every_mistake_a_converter_can_make(
    mistake, version, tmp_path, monkeypatch
):
    model = quiet(tiny("llama-2", n_kv_heads=2, is_tied=True))
    monkeypatch.setattr(llama2c, "_FIXED", llama2c._FIXED | FIXED.get(mistake, {}))
    mistaken = model if mistake is None or mistake in FIXED else MISTAKES[mistake](model)
    (tmp_path / "m.bin").write_bytes(as_exported(mistaken, version))
    loaded = build(llama2c.open_checkpoint(tmp_path / "m.bin"))
    difference = difference_from_transformers(loaded, model)
    if mistake is None:
        assert difference < SAME_ARITHMETIC
    else:
        assert difference > 10 * SAME_ARITHMETIC, f"{mistake}: {difference}"


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("is_tied", [False, True])
def test_we_write_what_llama2c_exports(is_tied, version, tmp_path):
    model = tiny("llama-2", is_tied=is_tied)
    llama2c.write(tmp_path / "m", model, tokenizer=PIECES, version=version)
    found, wanted = (tmp_path / "m" / "model.bin").read_bytes(), as_exported(model, version)
    if version == 0:  # their tables and ours round angles differently
        n = 4 * 4096 * 16
        start = len(wanted) - n - (0 if is_tied else 4 * 520 * 64)
        tables = [np.frombuffer(data[start : start + n], np.float32) for data in (found, wanted)]
        np.testing.assert_allclose(*tables, rtol=0, atol=SAME_ANGLE)
        found, wanted = (data[:start] + data[start + n :] for data in (found, wanted))
    assert found == wanted
    loaded, tokenizer = load(tmp_path / "m")
    assert same_weights(loaded, model)
    assert tokenizer.encode(TEXT, bos=True) == PIECES.encode(TEXT, bos=True)
    assert same_weights(load(tmp_path / "m" / "model.bin")[0], model)


@pytest.mark.parametrize("changes", [
    dict(explicit_head_dim=32), dict(has_qkv_bias=True), dict(has_wo_bias=True),
    dict(has_ffn_bias=True), dict(rope_linear_factor=4.0)])
def test_heads_and_biases_that_llama2c_does_not_know_are_refused(changes, tmp_path):
    with pytest.raises(ValueError, match=r"llama2.c runs only Llama 2; this model has "
                                         r"(explicit_head_dim=32, not None|"
                                         r"rope_linear_factor=4.0, not 1.0|has_\w+_bias=True, not "
                                         r"False|biases in the feed-forward)\. Write"):
        llama2c.write(tmp_path / "m", tiny("llama-2", **changes), tokenizer=None)
    assert not list(tmp_path.iterdir())


def test_a_model_that_llama2c_would_compute_otherwise_is_refused(tmp_path):
    refusals = {"llama-1": r"norm_eps=1e-06, not 1e-05",
                "llama-3.1": r"rope_theta=500000.0, not 10000.0, rope_s"}
    for generation, message in refusals.items():
        with pytest.raises(ValueError, match=message):
            llama2c.write(tmp_path / "m", tiny(generation), tokenizer=tokenizer_for(generation))
    with pytest.raises(ValueError, match=r"layers with LayerSpec\(.*has_rope=False"):
        llama2c.write(tmp_path / "m", tiny("llama-2", layers=(UNROTATED,)),
                      tokenizer=PIECES)
    with pytest.raises(ValueError, match=r"520 rows of the embedding; got a Tokenizer of 520"):
        llama2c.write(tmp_path / "m", tiny("llama-2"), tokenizer=TOKENIZER)
    with pytest.raises(ValueError, match=r"521 rows of the embedding; got a SentencePiece of 520"):
        llama2c.write(tmp_path / "m", tiny("llama-2", vocab_size=521), tokenizer=PIECES)
    with pytest.raises(ValueError, match=r"versions that can be written are 0, 1; got 2"):
        llama2c.write(tmp_path / "m", tiny("llama-2"), tokenizer=PIECES, version=2)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module", params=[0, 1])
def good(request):
    return as_exported(tiny("llama-2", n_layers=1, max_seq_len=64), request.param)


def refused(tmp_path, data, message):
    (tmp_path / "m.bin").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        llama2c.open_checkpoint(tmp_path / "m.bin")


def test_a_file_cut_anywhere_or_grown_is_refused(good, tmp_path):
    for cut in [*range(300), *range(300, len(good), 4999), len(good) - 1]:
        refused(tmp_path, good[:cut], r"needs a whole llama2.c file at .*m.bin")
    refused(tmp_path, good + bytes(4), r"need \d+ bytes; the file has \d+")


@pytest.mark.parametrize("value", [0, -1, 3, 2**31 - 1, -(2**31)])
def test_forged_sizes_are_refused_before_anything_is_allocated(value, good, tmp_path):
    is_new = good.startswith(b"24ka")
    start = 8 if is_new else 0
    # Nothing in version 1 depends on the last size, the length of the context.
    for at in range(start, start + (24 if is_new and value > 0 else 28), 4):
        refused(tmp_path, good[:at] + struct.pack("<i", value) + good[at + 4 :],
                r"needs a whole llama2.c file")


def test_other_versions_and_headers_are_refused(tmp_path):
    data = as_exported(tiny("llama-2"), 1)
    refused(tmp_path, data[:4] + struct.pack("<i", 2) + data[8:],
            r"versions 0 and 1, in fp32, can be read; this is version 2")
    refused(tmp_path, data[:36] + b"\2" + data[37:], r"end with 0 or 1 and then zeros")
    refused(tmp_path, data[:100] + b"\2" + data[101:], r"end with 0 or 1 and then zeros")


def test_a_tokenizer_that_is_missing_or_of_another_model_is_refused(tmp_path):
    llama2c.write(tmp_path / "m", tiny("llama-2"), tokenizer=PIECES)
    (tmp_path / "m" / "model.bin").write_bytes(as_exported(tiny("llama-2", vocab_size=1000), 1))
    with pytest.raises(ValueError, match=r"with 1000 pieces, .* tokenizer.bin has 520. It may b"):
        llama2c.open_checkpoint(tmp_path / "m").tokenizer()
    (tmp_path / "m" / "tokenizer.bin").unlink()
    with pytest.raises(ValueError, match=r"in a tokenizer.bin or another .* there is none"):
        llama2c.open_checkpoint(tmp_path / "m").tokenizer()


def test_a_tokenizer_of_any_name_is_found_by_its_content(tmp_path):
    llama2c.write(tmp_path / "m", tiny("llama-2"), tokenizer=PIECES)
    (tmp_path / "m" / "model.bin").rename(tmp_path / "m" / "stories15M.bin")
    (tmp_path / "m" / "tokenizer.bin").rename(tmp_path / "m" / "tok520.bin")
    (tmp_path / "m" / "notes.txt").write_text("nothing")
    larger = SentencePiece([*PIECES.pieces, Piece("\u4e2d", -400.0)])
    larger.save_llama2c(tmp_path / "m" / "tokenizer.bin")  # of another model in the same folder
    _, found = load(tmp_path / "m" / "stories15M.bin")
    assert found.pieces == PIECES.pieces
    PIECES.save_llama2c(tmp_path / "m" / "copy.bin")
    assert load(tmp_path / "m" / "stories15M.bin")[1].pieces == PIECES.pieces


def test_several_tokenizers_that_fit_and_differ_are_refused_until_one_is_named(tmp_path):
    llama2c.write(tmp_path / "m", tiny("llama-2"), tokenizer=PIECES)
    *rest, last = PIECES.pieces
    other = tmp_path / "m" / "other.bin"
    SentencePiece([*rest, Piece("\u4e2d", last.score)]).save_llama2c(other)
    with pytest.raises(ValueError, match="other.bin, tokenizer.bin all have the 520 pieces of "
                                         r"model.bin, and they differ. .*--tokenizer PATH"):
        load(tmp_path / "m")
    assert load(tmp_path / "m", tokenizer=other)[1].pieces[-1].text == "\u4e2d"


def test_a_tokenizer_that_was_cut_at_the_border_of_a_piece_is_noticed(tmp_path):
    llama2c.write(tmp_path / "m", tiny("llama-2"), tokenizer=PIECES)
    file = tmp_path / "m" / "tokenizer.bin"
    n_last = len(PIECES.pieces[-1].text.encode())
    file.write_bytes(file.read_bytes()[: -8 - n_last])
    with pytest.raises(ValueError, match="with 520 pieces, .* tokenizer.bin has 519. .*lost a p"):
        load(tmp_path / "m")


def test_a_model_that_sees_is_refused(tmp_path):
    model = seeing(CONFIG)
    with pytest.raises(ValueError, match="runs only Llama 2; this model has .* a vision enc"):
        llama2c.write(tmp_path / "m", model, tokenizer=PIECES)
