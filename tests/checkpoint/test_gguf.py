
import gguf as reference
import numpy as np
import pytest
import torch
from gguf import quants
from gguf_reference import TYPE, by_their_writer, write
from hugging_face_twin import loud, twin_of
from relatives import RELATIVES
from tiny_checkpoints import (
    MISTAKES,
    TEXT,
    difference_from_transformers,
    far_logits,
    quiet,
    same_weights,
    tiny,
    tokenizer_for,
    width_of,
)

from llama_from_scratch import family
from llama_from_scratch.checkpoint import gguf
from llama_from_scratch.checkpoint.load import load
from llama_from_scratch.checkpoint.opened import build

BYTES_OF_ONE = {"F32": 4, "F16": 2, "Q8_0": 34 / 32}
# Where the fp16 scales of a block are
SCALES_AT = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
             "IQ4_NL": (0,), "IQ4_XS": (0,)}
SAME_ARITHMETIC = 1e-5
"""Largest difference of logits, relative to the largest of them, that comes of another order of
fp32 additions.
"""


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
        values = quants.dequantize(tensor.data, wanted_kind).copy()
        values = torch.from_numpy(values).view(weight.shape)
        wanted = quants.dequantize(quants.quantize(weight.numpy(), wanted_kind), wanted_kind)
        assert torch.equal(values, torch.from_numpy(wanted)) and torch.equal(back[ours], values)


def test_the_reference_reads_the_facts_we_write(tmp_path):
    model = tiny("llama-3.1")
    path = write(tmp_path, model, kind="Q8_0")
    fields = {name: field.contents() for name, field in reference.GGUFReader(path).fields.items()}
    config, tokenizer = model.config, tokenizer_for("llama-3.1")
    wanted = {"general.architecture": "llama", "general.file_type": 7,
              "general.quantization_version": 2,
              "llama.context_length": 131072, "llama.embedding_length": 64, "llama.block_count": 4,
              "llama.feed_forward_length": width_of(config), "llama.attention.head_count": 4,
              "llama.attention.head_count_kv": 2,
              "llama.attention.layer_norm_rms_epsilon": float(np.float32(1e-5)),
              "llama.rope.freq_base": 5e5, "llama.rope.dimension_count": 16,
              "llama.vocab_size": 520, "tokenizer.ggml.model": "gpt2",
              "tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.bos_token_id": tokenizer.bos_id,
              "tokenizer.ggml.eos_token_id": tokenizer.eos_id,
              "tokenizer.ggml.eot_token_id": tokenizer.special_ids["<|eot_id|>"],
              "tokenizer.ggml.add_bos_token": True}
    assert {name: fields[name] for name in wanted} == wanted
    tokens = fields["tokenizer.ggml.tokens"]
    assert len(tokens) == 520 and tokens[32] == "Ġ"
    assert set(fields["tokenizer.ggml.token_type"]) == {1, 3}


@pytest.mark.parametrize("generation", family.GENERATIONS)
def test_we_read_what_the_reference_writes(generation, tmp_path):
    model = tiny(generation)
    opened = gguf.open_checkpoint(by_their_writer(tmp_path / "m.gguf", model))
    assert opened.config == model.config and opened.dtype == torch.float32
    assert same_weights(build(opened), model)
    assert torch.equal(far_logits(build(opened)), far_logits(model))


@pytest.mark.parametrize("name", RELATIVES)
def test_a_relative_is_read_from_what_the_reference_writes(name, tmp_path):
    model = loud(RELATIVES[name])
    opened = gguf.open_checkpoint(by_their_writer(tmp_path / "m.gguf", model))
    assert opened.config == model.config and same_weights(build(opened), model)
    assert difference_from_transformers(build(opened), model) < SAME_ARITHMETIC


@pytest.mark.parametrize("name", RELATIVES)
def test_the_reference_reads_a_relative_as_llama_cpps_converter_would_have_written_it(
    name, tmp_path
):
    """From transformers' tensors, rows of wq and wk and their biases permuted as llama.cpp does."""
    model = loud(RELATIVES[name])
    config, theirs = model.config, twin_of(model).state_dict()
    generation = "llama-2" if config.rope_theta == 1e4 else "llama-3.1"
    read = reference.GGUFReader(write(tmp_path, model, generation=generation))
    found = {tensor.name: tensor.data for tensor in read.tensors}
    facts = {key: field.contents() for key, field in read.fields.items()}
    for kind in ("weight", "bias"):
        for ours, name, n_heads in (("attn_q", "q_proj", config.n_heads),
                                    ("attn_k", "k_proj", config.n_kv_heads)):
            wanted = theirs.get(f"model.layers.2.self_attn.{name}.{kind}")
            if wanted is None:
                assert f"blk.2.{ours}.{kind}" not in found
                continue
            halves = wanted.numpy().reshape(n_heads, 2, -1, *wanted.shape[1:])
            np.testing.assert_array_equal(found[f"blk.2.{ours}.{kind}"],
                                          halves.swapaxes(1, 2).reshape(wanted.shape))
    is_explicit = config.explicit_head_dim is not None
    assert facts["llama.rope.dimension_count"] == config.head_dim
    for key in ("llama.attention.key_length", "llama.attention.value_length"):
        assert facts.get(key) == (config.head_dim if is_explicit else None)
    biases = {key for key in found if key.startswith("blk.0.") and key.endswith(".bias")}
    n_biases = 3 * config.has_qkv_bias + config.has_wo_bias + 3 * config.has_ffn_bias
    assert len(biases) == n_biases


def test_a_file_with_biases_in_some_layers_is_refused(tmp_path):
    model = loud(RELATIVES["biases of attention"])
    for dropped, wrong in (("blk.3.attn_q.bias", "blk.3.attn_q.bias is missing"),
                           ("blk.0.attn_q.bias", "blk.0.attn_k.bias is not of this model")):
        path = by_their_writer(tmp_path / "m.gguf", model, drop=[dropped])
        with pytest.raises(ValueError, match=wrong):
            gguf.open_checkpoint(path)


@pytest.mark.parametrize("mistake", [None, *MISTAKES])
def test_the_comparison_with_transformers_sees_every_mistake_a_converter_can_make(
    mistake, tmp_path
):
    model = quiet(tiny("llama-3.2"))
    mistaken = model if mistake is None else MISTAKES[mistake](model)
    difference = difference_from_transformers(
        build(gguf.open_checkpoint(by_their_writer(tmp_path / "m.gguf", mistaken))), model)
    if mistake is None:
        assert difference < SAME_ARITHMETIC
    else:
        assert difference > 10 * SAME_ARITHMETIC, f"{mistake}: {difference}"


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "MXFP4"])
def test_matrices_of_every_kind_are_unpacked_as_the_reference_does(kind, tmp_path):
    model = tiny("llama-3.2")
    opened = gguf.open_checkpoint(
        by_their_writer(tmp_path / "m.gguf", model, kinds={"all": TYPE[kind]}))
    assert opened.dtype == {"F16": torch.float16, "BF16": torch.bfloat16}.get(kind, torch.float32)
    for dtype in (torch.float32, torch.bfloat16):
        read = dict(opened.tensors(dtype))
        for name, weight in model.named_parameters():
            data = weight.detach().numpy()
            wanted = (quants.dequantize(quants.quantize(data, TYPE[kind]), TYPE[kind])
                      if data.ndim > 1 else data)
            assert torch.equal(read[name], torch.from_numpy(wanted).to(dtype)), name
    natural = dict(opened.tensors(None))
    assert natural["norm.weight"].dtype == torch.float32
    assert natural["tok_embeddings.weight"].dtype == opened.dtype


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"])
def test_kinds_that_the_reference_only_unpacks_are_unpacked_as_it_does(kind, tmp_path):
    """Random bytes with small scales stand for a packed matrix; rows are two blocks or more."""
    model = tiny(dim=512, ffn_dim=512, n_layers=1)
    n_values, n_bytes = reference.GGML_QUANT_SIZES[TYPE[kind]]
    random = np.random.default_rng(0)
    matrices = {}

    def packed(name, shape):
        blocks = random.integers(0, 256, (shape[0], shape[1] // n_values, n_bytes), dtype=np.uint8)
        for at in SCALES_AT[kind]:
            blocks[..., at : at + 2] = np.array([0.001], np.float16).view(np.uint8)
        return matrices.setdefault(name, blocks.reshape(shape[0], -1))

    opened = gguf.open_checkpoint(
        by_their_writer(tmp_path / "m.gguf", model, kinds={"all": TYPE[kind]}, packed=packed))
    read = dict(opened.tensors(None))
    assert set(opened.kinds) == {"F32", kind}
    names = {"tok_embeddings.weight": "token_embd.weight",
             "layers.0.attention.wk.weight": "blk.0.attn_k.weight",
             "layers.0.feed_forward.w_down.weight": "blk.0.ffn_down.weight"}
    for ours, theirs in names.items():
        wanted = quants.dequantize(matrices[theirs], TYPE[kind])
        assert np.isfinite(wanted).all() and wanted.std() > 0
        assert torch.equal(read[ours], torch.from_numpy(wanted))


def test_a_file_is_recognized_by_its_first_bytes(tmp_path):
    model = tiny()
    loaded, tokenizer = load(write(tmp_path, model, name="model.bin"))
    assert same_weights(loaded, model)
    assert tokenizer.encode(TEXT) == tokenizer_for("llama-3.1").encode(TEXT)


def test_a_tensor_that_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"blk.2.attn_v.weight is missing"):
        gguf.open_checkpoint(
            by_their_writer(tmp_path / "m.gguf", tiny(), drop=("blk.2.attn_v.weight",)))


