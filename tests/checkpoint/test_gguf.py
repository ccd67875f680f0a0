import dataclasses
import re
import struct

import gguf as reference
import numpy as np
import pytest
import torch
from gguf import quants
from tiny_checkpoints import (
    MISTAKES,
    TEXT,
    difference_from_transformers,
    far_logits,
    large_tokenizer,
    quiet,
    same_weights,
    tiny,
    tokenizer_for,
)

from llama_from_scratch import family
from llama_from_scratch.checkpoint import gguf, gguf_blocks, gguf_config
from llama_from_scratch.checkpoint.load import load
from llama_from_scratch.checkpoint.opened import build
from llama_from_scratch.config import LayerSpec, RopeScaling
from llama_from_scratch.tokenizer import released
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer

TYPE = reference.GGMLQuantizationType
BYTES_OF_ONE = {"F32": 4, "F16": 2, "Q8_0": 34 / 32}
SAME_ARITHMETIC = 1e-5
"""Largest difference of logits, relative to the largest of them, that comes of another order of fp32 additions."""
STRANGE = "Über 12345 <s><|eot_id|> naïve\n\n  the cat’s 🙂 \x00"


def write(tmp_path, model, *, generation="llama-3.1", name="m.gguf", **how):
    gguf.write(tmp_path / name, model, tokenizer=tokenizer_for(generation), **how)
    return tmp_path / name


def by_their_writer(path, model, *, kinds=None, facts=None, tokens=None, drop=()):
    """The same model as llama.cpp's own package would write it: the reference for `gguf.read`."""
    config, kinds = model.config, kinds or {}
    writer = reference.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.ffn_dim)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.head_dim)
    for key, value in (facts or {}).items():
        writer.add_key_value(key, *value)
    parts = {"tok_embeddings": "token_embd", "norm": "output_norm", "output": "output", "attention_norm": "attn_norm",
             "ffn_norm": "ffn_norm", "wq": "attn_q", "wk": "attn_k", "wv": "attn_v", "wo": "attn_output",
             "w_gate": "ffn_gate", "w_up": "ffn_up", "w_down": "ffn_down"}
    for name, weight in model.named_parameters():
        where = name.split(".")
        theirs = (f"blk.{where[1]}." if where[0] == "layers" else "") + parts[where[-2]] + ".weight"
        if theirs in drop:
            continue
        kind = kinds.get(theirs, kinds.get("all", TYPE.F32)) if weight.ndim > 1 else TYPE.F32
        data = weight.detach().float().numpy()
        if kind in (TYPE.F32, TYPE.F16):
            writer.add_tensor(theirs, data.astype(np.float16) if kind == TYPE.F16 else data)
        else:
            writer.add_tensor(theirs, quants.quantize(data, kind), raw_dtype=kind)
    if (scaling := config.rope_scaling) is not None:
        writer.add_tensor("rope_freqs.weight", np.array(divisors_by_hand(config, scaling), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def divisors_by_hand(config, scaling):
    return list(each_divisor(config, scaling))


def each_divisor(config, scaling):
    for i in range(0, config.head_dim, 2):
        turns = scaling.original_max_seq_len / (2 * np.pi * config.rope_theta ** (i / config.head_dim))
        if turns > scaling.high_freq_factor:
            yield 1.0
        elif turns < scaling.low_freq_factor:
            yield scaling.factor
        else:
            smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
            yield 1 / ((1 - smooth) / scaling.factor + smooth)


@pytest.mark.parametrize("generation", family.GENERATIONS)
def test_ours_to_gguf_to_ours_changes_no_bit(generation, tmp_path):
    model = tiny(generation)
    back = build(gguf.open_checkpoint(write(tmp_path, model, generation=generation)))
    assert back.config == model.config and same_weights(back, model)
    assert torch.equal(far_logits(back), far_logits(model))


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0"])
@pytest.mark.parametrize("generation", ["llama-2", "llama-3.1", "llama-3.2"])
def test_the_reference_reads_what_we_write(generation, kind, tmp_path):
    model = tiny(generation)
    path = write(tmp_path, model, generation=generation, kind=kind)
    theirs = {tensor.name: tensor for tensor in reference.GGUFReader(path).tensors}
    names = {"tok_embeddings.weight": "token_embd.weight", "norm.weight": "output_norm.weight",
             "layers.3.attention.wk.weight": "blk.3.attn_k.weight",
             "layers.1.feed_forward.w_down.weight": "blk.1.ffn_down.weight"}
    assert ("output.weight" in theirs) != model.config.is_tied
    assert ("rope_freqs.weight" in theirs) == (model.config.rope_scaling is not None)
    back = dict(gguf.open_checkpoint(path).tensors(torch.float32))
    weights = dict(model.named_parameters())
    for ours, name in names.items():
        tensor, weight = theirs[name], weights[ours].detach()
        wanted_kind = TYPE[kind] if weight.ndim > 1 else TYPE.F32
        assert tensor.tensor_type == wanted_kind and tuple(tensor.shape)[::-1] == weight.shape
        values = torch.from_numpy(quants.dequantize(tensor.data, wanted_kind).copy()).view(weight.shape)
        wanted = quants.dequantize(quants.quantize(weight.numpy(), wanted_kind), wanted_kind)
        assert torch.equal(values, torch.from_numpy(wanted)) and torch.equal(back[ours], values)


def test_the_reference_reads_the_facts_we_write(tmp_path):
    model = tiny("llama-3.1")
    path = write(tmp_path, model, kind="Q8_0")
    fields = {name: field.contents() for name, field in reference.GGUFReader(path).fields.items()}
    config, tokenizer = model.config, tokenizer_for("llama-3.1")
    wanted = {"general.architecture": "llama", "general.file_type": 7, "general.quantization_version": 2,
              "llama.context_length": 131072, "llama.embedding_length": 64, "llama.block_count": 4,
              "llama.feed_forward_length": config.ffn_dim, "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2,
              "llama.attention.layer_norm_rms_epsilon": float(np.float32(1e-5)), "llama.rope.freq_base": 5e5,
              "llama.rope.dimension_count": 16, "llama.vocab_size": 520, "tokenizer.ggml.model": "gpt2",
              "tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.bos_token_id": tokenizer.bos_id,
              "tokenizer.ggml.eos_token_id": tokenizer.eos_id,
              "tokenizer.ggml.eot_token_id": tokenizer.special_ids["<|eot_id|>"],
              "tokenizer.ggml.add_bos_token": True}
    assert {name: fields[name] for name in wanted} == wanted
    assert len(fields["tokenizer.ggml.tokens"]) == 520 and fields["tokenizer.ggml.tokens"][32] == "Ġ"
    assert set(fields["tokenizer.ggml.token_type"]) == {1, 3}


@pytest.mark.parametrize("generation", family.GENERATIONS)
def test_we_read_what_the_reference_writes(generation, tmp_path):
    model = tiny(generation)
    opened = gguf.open_checkpoint(by_their_writer(tmp_path / "m.gguf", model))
    assert opened.config == model.config and opened.dtype == torch.float32
    assert same_weights(build(opened), model)
    assert torch.equal(far_logits(build(opened)), far_logits(model))


@pytest.mark.parametrize("mistake", [None, *MISTAKES])
def test_the_comparison_with_transformers_sees_every_mistake_a_converter_can_make(mistake, tmp_path):
    model = quiet(tiny("llama-3.2"))
    mistaken = model if mistake is None else MISTAKES[mistake](model)
    difference = difference_from_transformers(build(gguf.open_checkpoint(by_their_writer(tmp_path / "m.gguf", mistaken))), model)
    assert difference < SAME_ARITHMETIC if mistake is None else difference > 10 * SAME_ARITHMETIC, f"{mistake}: {difference}"


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0"])
def test_matrices_of_every_kind_are_unpacked_as_the_reference_does(kind, tmp_path):
    model = tiny("llama-3.2")
    opened = gguf.open_checkpoint(by_their_writer(tmp_path / "m.gguf", model, kinds={"all": TYPE[kind]}))
    assert opened.dtype == {"F16": torch.float16, "BF16": torch.bfloat16}.get(kind, torch.float32)
    for dtype in (torch.float32, torch.bfloat16):
        read = dict(opened.tensors(dtype))
        for name, weight in model.named_parameters():
            data = weight.detach().numpy()
            wanted = quants.dequantize(quants.quantize(data, TYPE[kind]), TYPE[kind]) if data.ndim > 1 else data
            assert torch.equal(read[name], torch.from_numpy(wanted).to(dtype)), name
    natural = dict(opened.tensors(None))
    assert natural["norm.weight"].dtype == torch.float32 and natural["tok_embeddings.weight"].dtype == opened.dtype


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_K", "Q6_K"])
def test_any_block_is_unpacked_bit_for_bit_as_the_reference_does(kind):
    ours = next(k for k in gguf_blocks.KINDS.values() if k.name == kind)
    blocks = np.random.default_rng(0).integers(0, 256, (3000, ours.n_bytes), dtype=np.uint8)
    with np.errstate(invalid="ignore", over="ignore"):
        found, wanted = ours.unpack(blocks), quants.dequantize(blocks, TYPE[kind])
    assert reference.GGML_QUANT_SIZES[TYPE[kind]] == (ours.n_values, ours.n_bytes) and TYPE[kind] == ours.number
    assert np.array_equal(found, wanted, equal_nan=True)


def test_q8_0_is_packed_bit_for_bit_as_the_reference_does():
    random = np.random.default_rng(0)
    values = (random.standard_normal((4000, 32)) * 10.0 ** random.uniform(-6, 3, (4000, 1))).astype(np.float32)
    values[0] = 0
    values[1] = [127.0, *([0.5, -0.5, 1.5, -2.5] * 7), 3, 4, 5]
    assert np.array_equal(gguf_blocks.pack_q8_0(values), quants.quantize(values, TYPE.Q8_0))


@pytest.mark.parametrize("generation", family.GENERATIONS)
def test_the_tokenizer_comes_back_with_the_model(generation, tmp_path):
    tokenizer = tokenizer_for(generation)
    path = write(tmp_path, tiny(generation, vocab_size=540), generation=generation)
    back = gguf.open_checkpoint(path).tokenizer()
    assert type(back) is type(tokenizer) and back.vocab_size == tokenizer.vocab_size == 520
    assert (back.special_ids, back.bos_id, back.eos_id) == (tokenizer.special_ids, tokenizer.bos_id, tokenizer.eos_id)
    for text in (TEXT, STRANGE):
        assert back.encode(text, bos=True) == tokenizer.encode(text, bos=True)
        assert back.encode(text, allowed_special="all") == tokenizer.encode(text, allowed_special="all")
    tokens = reference.GGUFReader(path).fields["tokenizer.ggml.tokens"].contents()
    assert len(tokens) == 540, "as many as the embedding has rows"


def test_a_file_is_recognised_by_its_first_bytes(tmp_path):
    model = tiny()
    loaded, tokenizer = load(write(tmp_path, model, name="model.bin"))
    assert same_weights(loaded, model) and tokenizer.encode(TEXT) == tokenizer_for("llama-3.1").encode(TEXT)


@pytest.mark.parametrize("name", family.FAMILY)
def test_the_divisors_show_the_scaling_of_every_published_model(name):
    config = family.config(name)
    bare = dataclasses.replace(config, rope_scaling=None)
    assert gguf_config.scaling_of(gguf_config.divisors_of(config), bare) == config.rope_scaling
    if config.rope_scaling:
        wanted = torch.tensor(divisors_by_hand(config, config.rope_scaling))
        torch.testing.assert_close(gguf_config.divisors_of(config), wanted, rtol=1e-5, atol=0)


@pytest.mark.parametrize("scaling", [(16.0, 1.0, 1.0, 8192), (4.0, 1.0, 4.0, 4096), (10.0, 1.0, 8.0, 2048)])
def test_other_scalings_of_the_same_form_are_found(scaling):
    scaling = RopeScaling(**dict(zip(("factor", "low_freq_factor", "high_freq_factor", "original_max_seq_len"), scaling)))
    config = dataclasses.replace(family.config("llama-3.2-1b"), rope_scaling=scaling)
    assert gguf_config.scaling_of(gguf_config.divisors_of(config), config) == scaling


def test_divisors_of_no_known_scaling_are_refused():
    config = family.config("llama-3.1-8b")
    divisors = gguf_config.divisors_of(config)
    divisors[30] *= 1.001
    with pytest.raises(ValueError, match=r"must be the divisors of a scaling as in Llama 3.1"):
        gguf_config.scaling_of(divisors, config)


@pytest.mark.parametrize(("changes", "message"), [
    (dict(rope_scaling=RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=3.3, original_max_seq_len=9000)),
     r"must be the divisors of a scaling"),
    (dict(norm_eps=1.23456789e-5), r"norm_eps=1.23456789e-05 would come back as 1.2345679e-05"),
    (dict(layers=(LayerSpec(), LayerSpec(has_rope=False))), r"all turn their heads"),
])
def test_what_the_format_cannot_say_is_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write(tmp_path, tiny(**dict(dim=512) | changes))
    assert not list(tmp_path.iterdir())


def test_numbers_that_a_kind_cannot_hold_are_refused(tmp_path):
    model = tiny()
    with torch.no_grad():
        model.output.weight[3, 3] = 7e4
    for kind in ("F16", "Q8_0"):
        with pytest.raises(ValueError, match=rf"{kind} holds finite numbers up to 65504; output.weight has others"):
            write(tmp_path, model, kind=kind)
    with pytest.raises(ValueError, match=r"multiple of that; blk.0.ffn_down.weight is \(64, 100\)"):
        write(tmp_path, tiny(ffn_dim=100), kind="Q8_0")
    with pytest.raises(ValueError, match=r"kinds that are written are F32, F16, Q8_0; got 'Q4_K'"):
        write(tmp_path, tiny(), kind="Q4_K")
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_a_tokenizer_that_does_not_belong_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must belong together"):
        gguf.write(tmp_path / "m.gguf", tiny(), tokenizer=large_tokenizer(600))
    other = Tokenizer(tokenizer_for("llama-3").ranks, special_tokens=released.LLAMA_3, pattern=r"\w+|\W+")
    with pytest.raises(ValueError, match=r"has a name for the pattern of Llama 3, and none for another"):
        gguf.write(tmp_path / "m.gguf", tiny(), tokenizer=other)
    opened = gguf.open_checkpoint(by_their_writer(tmp_path / "none.gguf", tiny()))
    with pytest.raises(ValueError, match=r"tokenizer.ggml.model must be \"llama\""):
        opened.tokenizer()


U32, F32, TEXT_FACT = (reference.GGUFValueType.UINT32,), (reference.GGUFValueType.FLOAT32,), (reference.GGUFValueType.STRING,)


@pytest.mark.parametrize(("facts", "message"), [
    ({"llama.expert_count": (8, *U32)}, r"expert_count is 8, and only 0 can be computed"),
    ({"llama.rope.scaling.type": ("linear", *TEXT_FACT)}, r"rope.scaling.type is 'linear'"),
    ({"llama.attention.key_length": (32, *U32)}, r"attention.key_length is 32, not 16"),
    ({"llama.vocab_size": (32000, *U32)}, r"vocab_size is 32000, not 520"),
    ({"llama.logit_scale": (2.0, *F32)}, r"logit_scale is not a key that is known"),
    ({"split.count": (2, *U32)}, r"it is one of 2 files"),
])
def test_a_fact_that_changes_the_arithmetic_is_refused(facts, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        gguf.open_checkpoint(by_their_writer(tmp_path / "m.gguf", tiny(), facts=facts))


def test_a_tensor_that_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"blk.2.attn_v.weight is missing"):
        gguf.open_checkpoint(by_their_writer(tmp_path / "m.gguf", tiny(), drop=("blk.2.attn_v.weight",)))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write(tmp_path_factory.mktemp("good"), tiny(layers=(LayerSpec(),)), kind="Q8_0").read_bytes()


def refused(tmp_path, data, message):
    (tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        gguf.open_checkpoint(tmp_path / "m.gguf")


def with_claim(data, *, dims=None, kind=None, offset=None, n_dims=2):
    """The file with another claim about token_embd.weight."""
    at = data.index(b"token_embd.weight") + len("token_embd.weight")
    old = struct.unpack_from("<IQQIQ", data, at)
    new = (n_dims, *(dims or old[1:3]), old[3] if kind is None else kind, old[4] if offset is None else offset)
    return data[:at] + struct.pack("<IQQIQ", *(x % 2**64 for x in new)) + data[at + 32 :]


@pytest.mark.parametrize(("claim", "message"), [
    (dict(dims=(-64, 520)), r"said to be \(520, 18446744073709551552\)"),
    (dict(dims=(2**40, 2**40)), r"and the file has \d+ bytes"),
    (dict(dims=(0, 520)), r"said to be \(520, 0\)"),
    (dict(dims=(520, 64)), r"is \(64, 520\), and Q8_0 packs 32"),
    (dict(kind=77), r"'token_embd.weight' is of kind 77; those that are read are F32, F16"),
    (dict(kind=11), r"is of kind Q3_K"),
    (dict(offset=2**63), r"at byte 9223372036854775808 of its data"),
    (dict(offset=32), r"but what lies before it ends at"),
    (dict(n_dims=9), r"has 9 axes"),
])
def test_a_forged_claim_about_a_tensor_is_refused(claim, message, good, tmp_path):
    refused(tmp_path, with_claim(good, **claim), message)


def test_forged_counts_and_lengths_are_refused_before_anything_is_allocated(good, tmp_path):
    refused(tmp_path, good[:8] + struct.pack("<Q", 2**33) + good[16:], r"said to hold \d+ tensors")
    refused(tmp_path, good[:16] + struct.pack("<Q", 2**33) + good[24:], r"said to hold \d+ facts")
    refused(tmp_path, good[:24] + struct.pack("<Q", 2**50) + good[32:], r"a name at byte 32 is 1125899906842624 bytes long")
    tokens = good.index(b"tokenizer.ggml.tokens") + len("tokenizer.ggml.tokens") + 8
    refused(tmp_path, good[:tokens] + struct.pack("<Q", 2**33) + good[tokens + 8 :], r"said to hold \d+ texts")
    kinds = good.index(b"tokenizer.ggml.token_type") + len("tokenizer.ggml.token_type")
    refused(tmp_path, good[: kinds + 4] + struct.pack("<I", 99) + good[kinds + 8 :], r"texts or numbers, got type 99")
    refused(tmp_path, good[: kinds + 8] + struct.pack("<Q", 2**33) + good[kinds + 16 :], r"said to hold \d+ numbers")
    layers = good.index(b"llama.block_count") + len("llama.block_count") + 4
    refused(tmp_path, good[:layers] + struct.pack("<I", 2**32 - 1) + good[layers + 4 :], r"block_count is 4294967295")


@pytest.mark.parametrize(("data", "message"), [
    (b"", r"it is empty"), (b"GGU", r"the first four bytes"), (b"GGML" * 20, r"it begins with b'GGML'"),
    (b"GGUF" + struct.pack("<I", 1) + bytes(40), r"this is version 1"),
    (b"GGUF" + struct.pack(">I", 3) + bytes(40), r"big-endian"),
])
def test_a_file_that_is_no_gguf_is_refused(data, message, tmp_path):
    refused(tmp_path, data, message)


def test_a_file_cut_anywhere_or_grown_is_refused(good, tmp_path):
    cuts = [*range(0, 400), *range(400, len(good), 997), len(good) - 33]
    for cut in cuts:
        refused(tmp_path, good[:cut], r"needs a whole GGUF file")
    refused(tmp_path, good + bytes(64), r"its tensors end at byte \d+, and the file has")


def test_bytes_changed_anywhere_in_the_header_are_refused_or_harmless(good, tmp_path):
    random = np.random.default_rng(0)
    n_header = good.index(b"rope_freqs.weight") + 40
    path, n_refused = tmp_path / "m.gguf", 0
    for _ in range(600):
        data = bytearray(good)
        for at in random.integers(0, n_header, random.integers(1, 4)):
            data[at] = random.integers(256)
        path.write_bytes(data)
        try:
            opened = gguf.open_checkpoint(path)
            opened.tokenizer()
            list(opened.tensors(torch.float32))
        except ValueError as error:
            n_refused += 1
            assert re.search(re.escape(str(path)), str(error))
    assert n_refused > 100
