"""llama2.c's checkpoints: a short header, then every number of the model in fp32.

The order of the numbers is fixed. They have no names in the file, so the check is the file's size,
which must be exactly what the sizes in the header require. The old version 0 has no mark, and holds
tables for RoPE that are not needed. Version 1 has a mark, and unused room in its header. The
program llama2.c runs only Llama 2: theta is 10,000 and epsilon 1e-5. The tokenizer is in another
file of the same folder, usually tokenizer.bin.

Notebook 18. Source: karpathy/llama2.c, export.py and run.c.
"""

import dataclasses
import io
import math
import os
import struct
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llama_from_scratch.checkpoint import safetensors_file
from llama_from_scratch.checkpoint.described import refuse_undescribed
from llama_from_scratch.checkpoint.folders import creating_folder
from llama_from_scratch.checkpoint.names import groups, shapes
from llama_from_scratch.checkpoint.opened import Opened
from llama_from_scratch.checkpoint.plain import biases_of, ffn_dim_of, odd_layers, plain_layers
from llama_from_scratch.checkpoint.safetensors_file import TensorEntry, read_tensor
from llama_from_scratch.checkpoint.strict import refuse_impossible_sizes
from llama_from_scratch.config import FusionLlamaConfig, LlamaConfig, VisionLlamaConfig
from llama_from_scratch.foreign import is_there, opened, plain
from llama_from_scratch.model.rope import rope_rotation
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer import tokenizer_bin
from llama_from_scratch.tokenizer.prompting import Prompting
from llama_from_scratch.tokenizer.sentencepiece import SentencePiece

MODEL, TOKENIZER = "model.bin", "tokenizer.bin"
_NEED = "a checkpoint needs a whole llama2.c file"
_MAGIC = b"24ka"  # 0x616b3432, the lowest byte first
_SIZES = ("dim", "ffn_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "max_seq_len")
"""The sizes in the header, in order."""
_PROMPTING = Prompting(end_ids=frozenset({1, 2}), adds_bos=True)
"""llama2.c ends a text at <s>, which begins the next text in its data, and a chat at </s>."""
_HEADER_BYTES = {0: 28, 1: 256}
_FIXED = {"norm_eps": 1e-5, "rope_theta": 1e4, "rope_scaling": None, "explicit_head_dim": None,
          "has_qkv_bias": False, "has_wo_bias": False, "rope_linear_factor": 1.0}
_MATRICES = ("attention.wq.weight", "attention.wk.weight", "attention.wv.weight",
             "attention.wo.weight")
_FEED_FORWARD = ("feed_forward.w_gate.weight", "feed_forward.w_down.weight",
                 "feed_forward.w_up.weight")
_TABLES = "RoPE's tables"
_ORDER = {
    0: ("tok_embeddings.weight", "attention_norm.weight", *_MATRICES, "ffn_norm.weight",
        *_FEED_FORWARD,
        "norm.weight", _TABLES, "output.weight"),
    1: ("attention_norm.weight", "ffn_norm.weight", "norm.weight", "tok_embeddings.weight",
        *_MATRICES,
        *_FEED_FORWARD, "output.weight"),
}
"""The rows of the table of names in the order of each version. A row of a layer is stored for all
layers together, one after the other.
"""


def is_one(path: Path) -> bool:
    """Returns whether `path` is named like llama2.c's files, which have no other mark.

    It is then a .bin file, or a folder whose weights are in a model.bin.
    """
    if path.is_file():
        return path.suffix == ".bin"
    return is_there(path / MODEL) and not any(is_there(path / name)
                                              for name in ("config.json", "params.json"))


def open_checkpoint(path: str | Path) -> Opened:
    """Returns the checkpoint in a .bin file, or in a folder's model.bin, its weights not yet read.

    Raises ValueError if the file is missing, cut short, damaged, or of the version with integer
    weights.
    """
    path = Path(path)
    file = path / MODEL if path.is_dir() else path
    with opened(file, need=_NEED) as source:
        try:
            config, version = _header(source, file)
        except (OSError, ValueError) as error:
            raise ValueError(f"{_NEED} at {plain(file)}; it cannot be read ({error}). Export or "
                             "download it again") from error
    places, at = {}, _HEADER_BYTES[version]
    for name, shape in _order(config, version):
        places[name] = TensorEntry(file=file, start=at, dtype=torch.float32, shape=shape)
        at += places[name].n_bytes
    return Opened(format="llama2.c", where=file, files=(file,), config=config, kinds=("float32",),
                  dtype=torch.float32, prompting=_PROMPTING,
                  tensors=partial(_tensors, file, {name: places[name] for name in shapes(config)}),
                  read_tokenizer=partial(_tokenizer, file, config))


def write(folder: str | Path, model: Llama, *, tokenizer: Any, version: int = 0) -> None:
    """Writes model.bin and tokenizer.bin to `folder`, which must be new or empty, all or nothing.

    `version`: 0, which llama2.c's program `run` reads, or 1. Weights become fp32. Raises ValueError
    for a model that llama2.c would compute differently, or a tokenizer that does not have exactly
    one piece for each row of the embedding.
    """
    if version not in _ORDER:
        raise ValueError(f"versions that can be written are {', '.join(map(str, _ORDER))}; got "
                         f"{version!r}")
    refuse_undescribed(model)
    config = model.config
    wrong = [f"{name}={getattr(config, name)!r}, not {value!r}" for name, value in _FIXED.items()
             if getattr(config, name) != value]
    wrong += ["a vision encoder"] * isinstance(config, (VisionLlamaConfig, FusionLlamaConfig))
    odd = odd_layers(config)
    wrong += [f"layers with {spec}" for spec in odd]
    if not odd and biases_of(config)["ffn"]:
        wrong.append("biases in the feed-forward")
    if wrong:
        raise ValueError(f"llama2.c runs only Llama 2; this model has {', '.join(wrong)}. Write "
                         "another format")
    if not isinstance(tokenizer, SentencePiece) or tokenizer.vocab_size != config.vocab_size:
        raise ValueError("llama2.c needs a SentencePiece tokenizer with one piece for each of the "
                         f"{config.vocab_size} rows of the embedding; got a "
                         f"{type(tokenizer).__name__} of {tokenizer.vocab_size} ids. Write another "
                         "format")
    weights = dict(model.named_parameters())
    sizes = {"dim": config.dim, "ffn_dim": ffn_dim_of(config, rule="llama2.c has one width"),
             "n_layers": config.n_layers,
             "n_heads": config.n_heads, "n_kv_heads": config.n_kv_heads,
             "vocab_size": config.vocab_size,
             "max_seq_len": config.max_seq_len}
    if version == 0 and not config.is_tied:
        sizes["vocab_size"] *= -1
    header = struct.pack("<7i", *(sizes[name] for name in _SIZES))
    if version:
        header = _MAGIC + struct.pack("<i", version) + header + struct.pack("<?", config.is_tied)
    with creating_folder(folder) as unfinished:
        tokenizer.save_llama2c(unfinished / TOKENIZER)
        with open(unfinished / MODEL, "wb") as out:
            out.write(header.ljust(_HEADER_BYTES[version], b"\0"))
            for name, _ in _order(config, version):
                values = _tables(model) if name == _TABLES else weights[name].detach()
                for piece in values.contiguous().flatten().split(1 << 22):
                    out.write(memoryview(piece.cpu().float().numpy().astype("<f4")).cast("B"))


def _header(source: io.BufferedReader, file: Path) -> tuple[LlamaConfig, int]:
    head, n_bytes = source.read(_HEADER_BYTES[1]), os.fstat(source.fileno()).st_size
    version, at = (struct.unpack_from("<i", head, 4)[0],
                   8) if head.startswith(_MAGIC) and len(head) >= 8 else (0, 0)
    if version not in _ORDER or (at and version == 0):
        raise ValueError(f"versions 0 and 1, in fp32, can be read; this is version {version}: "
                         "export it as one of those")
    if len(head) < _HEADER_BYTES[version]:
        raise ValueError(f"its header must be {_HEADER_BYTES[version]} bytes long; the file has "
                         f"{n_bytes}")
    sizes = dict(zip(_SIZES, struct.unpack_from("<7i", head, at), strict=True))
    if version and (head[36] > 1 or any(head[37:])):
        raise ValueError("a header must end with 0 or 1 and then zeros; this one has other bytes")
    is_tied = bool(head[36]) if version else sizes["vocab_size"] > 0
    sizes["vocab_size"] *= 1 if version or is_tied else -1
    n_layers, ffn_dim = sizes.pop("n_layers"), sizes.pop("ffn_dim")
    one = LlamaConfig(**sizes, **_FIXED, is_tied=is_tied, **plain_layers(1, ffn_dim=ffn_dim))
    refuse_impossible_sizes(one, n_values=n_bytes // 4, where=file)
    per_layer = _n_values(dataclasses.replace(one, **plain_layers(2, ffn_dim=ffn_dim))) - _n_values(
        one)
    n_tables = 0 if version else one.max_seq_len * one.head_dim
    needed = _HEADER_BYTES[version] + 4 * (_n_values(one) + (n_layers - 1) * per_layer + n_tables)
    if n_layers < 1 or needed != n_bytes:
        raise ValueError(f"{n_layers} layers of {sizes} and ffn_dim {ffn_dim} need {needed} bytes; "
                         f"the file has {n_bytes}")
    return dataclasses.replace(one, **plain_layers(n_layers, ffn_dim=ffn_dim)), version


def _n_values(config: LlamaConfig) -> int:
    return sum(math.prod(shape) for shape in shapes(config).values())


def _order(config: LlamaConfig, version: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields our name and the shape of each part of a file, in order; `_TABLES` for the tables."""
    known = shapes(config)
    names: dict[str, list[str]] = {part: [] for part in _ORDER[version]}
    for _, rows in groups(known, config.n_layers):
        for name, row in rows.items():
            if row.ours not in names:
                raise ValueError(f"a llama2.c file can hold only {', '.join(names)}; got "
                                 f"{name}. Write another format")
            names[row.ours].append(name)
    for part in _ORDER[version]:
        if part == _TABLES:
            yield _TABLES, (2, config.max_seq_len, config.head_dim // 2)
        yield from ((name, known[name]) for name in names[part])


def _tables(model: Llama) -> Tensor:
    """Returns the cosine, then the sine, of the angle of each position and pair."""
    rotation_TR = rope_rotation(torch.arange(model.config.max_seq_len)[None],
                                model.rope.freq_R.cpu())[0]
    return torch.stack([rotation_TR.real, rotation_TR.imag])


def _tensors(
    file: Path, places: Mapping[str, TensorEntry], dtype: torch.dtype | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Yields (name, tensor): views of the mapped file in fp32, new tensors in another dtype."""
    data = safetensors_file.mapped(file)
    for name, entry in places.items():
        is_same = dtype in (None, entry.dtype)
        yield (name,
               safetensors_file.view(entry, data) if is_same else read_tensor(entry, dtype=dtype))


def _tokenizer(model: Path, config: LlamaConfig) -> SentencePiece:
    """Returns the tokenizer from the folder of a model; its file may have any name.

    Raises ValueError unless exactly one has as many pieces as the embedding has rows.
    """
    cure = "Copy it there, or give its path: --tokenizer PATH, or load(..., tokenizer=PATH)"
    read, refused = {}, []
    for file in sorted(model.parent.iterdir()):
        try:
            if file.is_file() and file != model and tokenizer_bin.is_one(file):
                read[file.name] = SentencePiece.load_llama2c(file)
        except ValueError as error:  # such as a git-lfs pointer, which may be for any file
            refused.append(error)
    fitting = {name: tokenizer for name, tokenizer in read.items()
               if tokenizer.vocab_size == config.vocab_size}
    if not fitting and refused:
        raise refused[0]
    if not fitting:
        seen = [f"{name} has {tokenizer.vocab_size}" for name, tokenizer in read.items()]
        raise ValueError(f"a llama2.c checkpoint needs its tokenizer in the same folder, in a "
                         f"{TOKENIZER} or another such file with {config.vocab_size} pieces, one "
                         f"for each row of the embedding; in {model.parent} "
                         f"{', '.join(seen) or 'there is none'}. It may belong to another model, "
                         f"or have lost a part. {cure}")
    if len({tokenizer.pieces for tokenizer in fitting.values()}) > 1:
        raise ValueError("only one file in the folder of a model may be its tokenizer; in "
                         f"{model.parent} {', '.join(fitting)} all have the {config.vocab_size} "
                         f"pieces of {model.name}, and they differ. {cure}")
    return next(iter(fitting.values()))
