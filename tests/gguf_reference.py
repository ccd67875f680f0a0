"""GGUF files as llama.cpp's own package would write them, and the tests' shorthand for ours."""

import gguf as reference
import numpy as np
from gguf import quants
from tiny_checkpoints import tokenizer_for, width_of

from llama_from_scratch.checkpoint import gguf

TYPE = reference.GGMLQuantizationType
STRANGE = "Über 12345 <s><|eot_id|> naïve\n\n  the cat’s 🙂 \x00"


def write(tmp_path, model, *, generation="llama-3.1", name="m.gguf", **how):
    gguf.write(tmp_path / name, model, tokenizer=tokenizer_for(generation), **how)
    return tmp_path / name


def by_their_writer(path, model, *, kinds=None, facts=None, drop=(), alignment=None, order=None,
                    packed=None, **how):
    """Writes the same model with llama.cpp's own package, as the reference for `gguf.read`.

    `packed(name, shape)`: the bytes of each matrix where the package cannot pack its kind. `how`:
    for the writer, such as how many tensors a part has.
    """
    config, kinds = model.config, kinds or {}
    writer = reference.GGUFWriter(path, "llama", **how)
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(width_of(config))
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.head_dim)
    if config.rope_linear_factor != 1:
        writer.add_rope_scaling_type(reference.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_linear_factor)
    if config.explicit_head_dim is not None:
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    for key, value in (facts or {}).items():
        writer.add_key_value(key, *value)
    parts = {"tok_embeddings": "token_embd", "norm": "output_norm", "output": "output",
             "attention_norm": "attn_norm",
             "ffn_norm": "ffn_norm", "wq": "attn_q", "wk": "attn_k", "wv": "attn_v",
             "wo": "attn_output", "w_gate": "ffn_gate", "w_up": "ffn_up", "w_down": "ffn_down"}
    weights = list(model.named_parameters())
    for name, weight in weights if order is None else sorted(weights, key=order):
        where = name.split(".")
        theirs = (f"blk.{where[1]}." if where[0] == "layers" else "") + parts[where[-2]]
        theirs += "." + where[-1]
        if theirs in drop:
            continue
        kind = kinds.get(theirs, kinds.get("all", TYPE.F32)) if weight.ndim > 1 else TYPE.F32
        data = weight.detach().float().numpy()
        if kind in (TYPE.F32, TYPE.F16):
            writer.add_tensor(theirs, data.astype(np.float16) if kind == TYPE.F16 else data)
        else:
            raw = quants.quantize(data, kind) if packed is None else packed(theirs, data.shape)
            writer.add_tensor(theirs, raw, raw_dtype=kind)
    if (scaling := config.rope_scaling) is not None:
        writer.add_tensor("rope_freqs.weight",
                          np.array(divisors_by_hand(config, scaling), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def their_facts(values):
    """Facts about a tokenizer for `by_their_writer`, from Python's values by their short keys.

    A pair names the type; for a list, it is the type of its numbers.
    """
    kinds = {bool: "BOOL", str: "STRING", float: "FLOAT32", int: "INT32"}
    found = {}
    for key, value in values.items():
        value, name = value if isinstance(value, tuple) else (value, None)
        first = value[0] if isinstance(value, list) else value
        name = name or ("UINT32" if value == 2**32 - 1 else kinds.get(type(first), "INT32"))
        kind = reference.GGUFValueType[name]
        found[f"tokenizer.ggml.{key}"] = (
            (value, reference.GGUFValueType.ARRAY, kind) if isinstance(value, list)
            else (value, kind))
    return found


def divisors_by_hand(config, scaling):
    return list(each_divisor(config, scaling))


def each_divisor(config, scaling):
    for i in range(0, config.head_dim, 2):
        turns = (
            scaling.original_max_seq_len / (2 * np.pi * config.rope_theta ** (i / config.head_dim)))
        if turns > scaling.high_freq_factor:
            yield 1.0
        elif turns < scaling.low_freq_factor:
            yield scaling.factor
        else:
            smooth = (turns - scaling.low_freq_factor) / (
                scaling.high_freq_factor - scaling.low_freq_factor)
            yield 1 / ((1 - smooth) / scaling.factor + smooth)
