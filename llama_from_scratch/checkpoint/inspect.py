"""Describes a checkpoint and the memory that it needs, from its headers; no weight is read.

Files rarely say which Llama they hold. So its sizes and its arithmetic are compared with every
published model.

Notebook 18.
"""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from llama_from_scratch.checkpoint.expert_layers import has_experts
from llama_from_scratch.checkpoint.opened import Opened
from llama_from_scratch.checkpoint.plain import LAYER_FIELDS, ffn_dims
from llama_from_scratch.config import (
    Dense,
    Experts,
    FusionLlamaConfig,
    LlamaConfig,
    VisionLlamaConfig,
)
from llama_from_scratch.family import EXPERTS, FAMILY, FUSION, VISION
from llama_from_scratch.foreign import opened as opened_file
from llama_from_scratch.foreign import plain
from llama_from_scratch.tokenizer.chat_format import (
    FORMATS,
    ChatFormat,
    ChatTemplate,
    format_of,
)
from llama_from_scratch.tokenizer.hugging_face import plainly
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece

_PUBLISHED = {**FAMILY, **VISION, **EXPERTS, **FUSION}
_BIASES = ("has_qkv_bias", "has_wo_bias", "has_ffn_bias")
_SHAPE = ("dim", "n_heads", "n_kv_heads", "explicit_head_dim", *_BIASES, *LAYER_FIELDS)
_ARITHMETIC = ("norm_eps", "rope_theta", "rope_scaling", "rope_linear_factor", "max_seq_len",
               "is_tied", *_BIASES)


_SEEING = (VisionLlamaConfig, FusionLlamaConfig)


def facts(opened: Opened) -> dict[str, str]:
    """Returns a table that describes a checkpoint: name of the row -> text.

    Raises ValueError if its tokenizer is damaged.
    """
    config, dtype = opened.config, opened.dtype
    tokenizer = opened.tokenizer()
    found = chat_format(config, tokenizer)
    marks = marked_format(config, tokenizer) if found is None else None
    grouped = ("one for each head" if config.n_kv_heads == config.n_heads
               else f"{config.n_kv_heads}, shared")
    seeing = isinstance(config, _SEEING)
    rows = {
        "format": opened.format,
        "family": release(config),
        **_licenses(opened),
        "parameters": f"{config.n_params:,}"
        + (" (the output head is the embedding)" if config.is_tied else ""),
        **(_parts(config) if seeing else {}),
        "stored as": f"{', '.join(opened.kinds)}, {size(opened.n_bytes)} in "
                     f"{_count(len(opened.files), 'file')}",
        "context": f"{config.max_seq_len:,} tokens",
        "layers": f"{config.n_layers}, {config.dim:,} wide"
                  + (", feed-forward " if ffn_dims(config) else "")
                  + " or ".join(f"{width:,}" for width in ffn_dims(config)),
        **(_experts(config) if has_experts(config) else {}),
        "heads": f"{config.n_heads} of {config.head_dim}, key/value heads: {grouped}",
        **(_eyes(config) if seeing else {}),
        **({"biases": _biases(config)} if _biases(config) else {}),
        "vocabulary": f"{config.vocab_size:,}"
        + (f", and {config.n_image_ids} ids for images" if config.n_ids > config.vocab_size else "")
        + (f"; <|image|> is {config.image_id}" if seeing else ""),
        "chat format": found.name if found else "none" if marks is None
                       else f"not named; the special tokens are for {marks.name}",
        "a text ends at": ", ".join(_token_names(opened)) or "its length",
    }
    for as_dtype in dict.fromkeys([dtype or torch.float32, torch.bfloat16]):
        rows[f"memory, {_name(as_dtype)}"] = memory(config, as_dtype)
    return rows


def memory(config: LlamaConfig, dtype: torch.dtype) -> str:
    """Returns a text about the memory that a model needs in a dtype.

    It names the weights, and the KV cache per token and for the whole context.
    """
    per_token = config.kv_bytes_per_token(dtype.itemsize)
    per_image = (f"{size(config.kv_bytes_per_image(dtype.itemsize))} per image, "
                 if isinstance(config, VisionLlamaConfig) else
                 f"up to {size(config.kv_bytes_per_image(dtype.itemsize))} of it per image, "
                 if isinstance(config, FusionLlamaConfig) else "")
    return (f"weights {size(config.n_params * dtype.itemsize)}, KV cache {size(per_token)} per "
            f"token, {per_image}{size(per_token * config.max_seq_len)} at full context")


def _parts(config: VisionLlamaConfig | FusionLlamaConfig) -> dict[str, str]:
    """Returns rows with the parameters of each part of a model that sees, which sum to all."""
    counts = config.param_counts
    encoder, projector = counts["encoder"], counts["projector"]
    if isinstance(config, FusionLlamaConfig):
        return {"text model": f"{config.n_params - encoder - projector:,}",
                "encoder": f"{encoder:,}, and {projector:,} in its projector"}
    adapter = counts["cross-attention"] + counts["image embeddings"]
    text = config.n_params - encoder - projector - adapter
    return {"text model": f"{text:,}",
            "encoder": f"{encoder:,}, and {projector:,} in its projector",
            "adapter": f"{adapter:,}, cross-attention before layers "
                       f"{', '.join(map(str, config.cross_layers))}"}


def _experts(config: LlamaConfig) -> dict[str, str]:
    """Returns rows about layers with experts, and about layers that do not see the whole context.
    """
    found = [spec.feed_forward for spec in config.layers
             if isinstance(spec.feed_forward, Experts)]
    kinds = dict.fromkeys(f"{kind.n_experts} of {kind.width:,}, {kind.n_active} for each token, "
                          f"and a shared one of {kind.shared_width:,}" for kind in found)
    chunks = [spec.chunk_size for spec in config.layers if spec.chunk_size is not None]
    n_without = sum(not spec.has_rope for spec in config.layers)
    sizes = " or ".join(f"{size:,}" for size in dict.fromkeys(chunks))
    return {"experts": f"{' or '.join(kinds)}, in {_count(len(found), 'layer')}; "
                       f"{config.n_active_params:,} parameters work for a token",
            "attention": f"in chunks of {sizes} tokens in {_count(len(chunks), 'layer')}, "
                         f"without RoPE in {_count(n_without, 'layer')}" if chunks else
                         f"without RoPE in {_count(n_without, 'layer')}"}


def _eyes(config: VisionLlamaConfig | FusionLlamaConfig) -> dict[str, str]:
    """Returns rows about the encoder, and what one image costs."""
    vision, flops = config.vision, sum(config.image_flops.values())
    tokens = flops / config.flops_per_token(1)
    tiles = "one tile" if vision.max_tiles == 1 else f"up to {vision.max_tiles} tiles"
    px = f"{vision.tile_px} x {vision.tile_px} pixels"
    if isinstance(config, FusionLlamaConfig):
        whole = "" if vision.max_tiles == 1 else " and one of the whole image"
        shown, layers = f"{tiles} of {px}{whole}, which it reads as text", f"{vision.n_layers}"
    else:
        shown = f"{tiles} of {px}"
        layers = f"{vision.n_local_layers} local and {vision.n_global_layers} global"
    return {
        "images": f"{shown}, {vision.n_tokens:,} tokens each",
        "encoder layers": f"{layers}, {vision.dim:,} wide, feed-forward {vision.ffn_dim:,}, "
                          f"{vision.n_heads} heads of {vision.head_dim}",
        "one image": f"{flops:.3g} operations, once: as many as {tokens:,.0f} tokens of text"}


def size(n_bytes: int) -> str:
    """Returns a number of bytes with three digits and a unit: 13_476_831_232 -> "13.5 GB"."""
    value, unit = float(n_bytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"


def release(config: LlamaConfig) -> str:
    """Returns the name of the published model that has this config.

    Or the name of one of the same shape and the differences, or a text that there is no such model.
    """
    if same := [name for name, row in _PUBLISHED.items() if row.config == config]:
        return " or ".join(same)
    if isinstance(config, _SEEING):
        return f"none of the published that see; its text model is {release(config.text)}"
    rows = EXPERTS if has_experts(config) else FAMILY
    near = [(name, wrong) for name, row in rows.items()
            if not (wrong := _differences(config, row.config)).keys() & set(_SHAPE)]
    if near:
        name, wrong = min(near, key=lambda row: len(row[1]))
        return f"{name}, except for {', '.join(f'{key} {value!r}' for key, value in wrong.items())}"
    alike = dict.fromkeys(row.generation for row in rows.values()
                          if not _differences(config, row.config).keys() & set(_ARITHMETIC))
    return "none of the published" + (f"; computes as {' and '.join(alike)}" if alike else "")


def _licenses(opened: Opened) -> dict[str, str]:
    """Returns rows about Meta's license of this model, and about a license file.

    A model of another maker may have the same config as one of Meta's, so both are shown.
    """
    rows = {}
    same = [row for row in _PUBLISHED.values() if row.config == opened.config]
    if licenses := dict.fromkeys(row.license for row in same):
        rows["license"] = " or ".join(f"Meta's is under the {license.name} ({license.allows})"
                                      for license in licenses)
    if (beginning := license_beginning(opened.where)) is not None:
        rows["license file"] = beginning
    return rows


def license_beginning(where: Path) -> str | None:
    """Returns the name of a LICENSE file and its first line, in one line; None if there is none.

    It searches `where` if that is a folder, or else its folder. Control characters are escaped.
    """
    is_folder = where.is_dir()
    files = (where if is_folder else where.parent).iterdir()
    found = sorted(file for file in files if file.name.upper().startswith(("LICENSE", "LICENCE"))
                   and file.is_file())
    if not found:
        return None
    named = plain(found[0].name) + ("" if is_folder else ", in the same folder")
    try:
        with opened_file(found[0], need="a model has a license", may_be_empty=True) as source:
            lines = source.read(4096).decode("utf-8-sig", errors="replace").splitlines()
    except ValueError as error:
        return f"{named}: {plain(error)}"
    first = next((line.strip() for line in lines if line.strip()), "it is empty")
    return f"{named}: {plain(first, max_chars=80)}"


def _biases(config: LlamaConfig) -> str:
    """Returns a text that lists the matrices with a bias; empty if there are none."""
    kinds = [config.feed_forward(spec) for spec in config.layers]
    has_ffn_bias = any(isinstance(kind, Dense) and kind.has_bias for kind in kinds)
    claims = {"queries, keys and values": config.has_qkv_bias,
              "attention's output": config.has_wo_bias, "feed-forward": has_ffn_bias}
    return ", ".join(name for name, is_there in claims.items() if is_there)


def chat_format(config: LlamaConfig, tokenizer: Any) -> ChatFormat | ChatTemplate | None:
    """Returns the chat format of a model according to its files; None if they name no format.

    This is the template in the files, or one of our formats if it writes the same. Without a
    template, it is the format of the special tokens, if the model's texts end with the end of a
    turn.
    """
    marks = marked_format(config, tokenizer)
    ours = list(dict.fromkeys(f for f in (marks, *FORMATS.values()) if f is not None))
    found = format_of(tokenizer.prompting, tokenizer, ours=ours)
    is_for_chats = tokenizer.prompting.is_for_chats(tokenizer.named_ids)
    return marks if found is None and is_for_chats else found


def marked_format(config: LlamaConfig, tokenizer: Any) -> ChatFormat | None:
    """Returns the format for the special tokens of a tokenizer; None if it has none for chats.

    The base model and the chat model of a generation have the same special tokens. Llama 1 and 2
    share a tokenizer, and only their epsilon differs. From Llama 3.1 on, RoPE's scaling shows the
    generation.
    """
    tokenizer = plainly(tokenizer)
    if isinstance(tokenizer, SentencePiece):
        return (FORMATS["llama-2"] if config.norm_eps >= 1e-5
                and {"<s>", "</s>"} <= tokenizer.special_ids.keys() else None)
    if "<|header_start|>" in tokenizer.special_ids:
        return FORMATS["llama-4"]
    if not {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
            "<|end_of_text|>"} <= tokenizer.special_ids.keys():
        return None
    if "<|image|>" in tokenizer.special_ids:
        return FORMATS["llama-3.2-vision"]
    if "<|eom_id|>" not in tokenizer.special_ids:
        return FORMATS["llama-3"]
    is_small = config.rope_scaling is not None and config.rope_scaling.factor == 32
    return FORMATS["llama-3.2" if is_small else "llama-3.1"]


def _token_names(opened: Opened) -> list[str]:
    """Returns the names of the tokens that end a text, or the id of a token without a name."""
    names = {i: name for name, i in opened.tokenizer().named_ids.items()}
    return [names.get(i, str(i)) for i in sorted(opened.stop_ids)]


def _differences(config: LlamaConfig, other: LlamaConfig) -> dict[str, Any]:
    """Returns the fields of `config` that differ from `other`."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)
            if getattr(config, field.name) != getattr(other, field.name)}


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
