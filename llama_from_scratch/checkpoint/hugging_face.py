"""Checkpoints in Hugging Face's layout: config.json, safetensors and tokenizer files.

The weights are in one file, or in several files with an index. Most Llamas are published in this
layout. Reading is lazy and strict: the headers of all files are checked against the config before
any weight is read. Reading reorders the rows of wq and wk (`names`) but never changes values.

Notebook 18. Llama 1 to 3.3, 3.2 Vision (`hugging_face_vision`) and Llama 4
(`hugging_face_llama4`, `hugging_face_fusion`). Source: transformers, models/llama, models/mllama
and models/llama4.
"""

import math
import re
from collections.abc import Iterator, Mapping, Set
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llama_from_scratch.checkpoint import (
    hugging_face_config,
    hugging_face_fusion,
    hugging_face_llama4,
    hugging_face_shards,
    hugging_face_vision,
    safetensors_file,
    tokenizer_files,
)
from llama_from_scratch.checkpoint.described import refuse_undescribed
from llama_from_scratch.checkpoint.expert_layers import expert_layers, has_experts
from llama_from_scratch.checkpoint.folders import creating_folder
from llama_from_scratch.checkpoint.hugging_face_prompting import read_prompting
from llama_from_scratch.checkpoint.json_file import read_json, write_json
from llama_from_scratch.checkpoint.names import HUGGING_FACE, TABLE
from llama_from_scratch.checkpoint.opened import Opened, common_dtype, kinds_of
from llama_from_scratch.checkpoint.safetensors_file import TensorEntry, write_tensors
from llama_from_scratch.checkpoint.strict import refuse_differences, refuse_impossible_sizes
from llama_from_scratch.checkpoint.translation import Translation, to_ours, to_theirs, translation
from llama_from_scratch.checkpoint.vision_names import published_name
from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.foreign import shown
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.vision.adapter import VisionLlama
from llama_from_scratch.vision.early_fusion import FusionLlama


def open_checkpoint(folder: str | Path) -> Opened:
    """Returns the checkpoint in `folder`, its weights not yet read.

    Raises ValueError if a file is missing or damaged, if the config describes arithmetic that is
    not built here, or if the tensors do not fit the config exactly.
    """
    folder = Path(folder)
    about = read_json(folder / "config.json")
    _refuse_quantized(about, folder / "config.json")
    found = hugging_face_shards.entries(folder)
    kind = about.get("model_type") if isinstance(about, Mapping) else None
    where, max_layers, tiling = folder / "config.json", len(found), None
    if kind == hugging_face_fusion.KIND:
        tiling = hugging_face_fusion.read_tiling(folder)
        config = hugging_face_fusion.config_from(about, max_tiles=tiling.max_tiles, where=where,
                                                 max_layers=max_layers)
        hugging_face_fusion.refuse_other_tiles(tiling, config, where=folder)
    elif kind == hugging_face_vision.KIND:
        config = hugging_face_vision.config_from(about, where=where, max_layers=max_layers)
        found = _with_published_names(found, folder)
    else:
        of_kind = hugging_face_llama4 if kind == hugging_face_llama4.KIND else hugging_face_config
        config = of_kind.config_from(about, where=where, max_layers=max_layers)
    about = about | about.get("text_config", {})
    n_values = sum(math.prod(entry.shape) for entry in found.values())
    refuse_impossible_sizes(config, n_values=n_values, where=where)
    how = translation(HUGGING_FACE, config)
    found = {name: entry for name, entry in found.items() if name not in how.ignored}
    if has_experts(config):
        _refuse_other_experts({name: entry.shape for name, entry in found.items()}, how, config,
                              where=folder)
    embedding, head = TABLE.name_of("embedding", HUGGING_FACE), TABLE.name_of("head", HUGGING_FACE)
    if config.is_tied and embedding not in found and head in found:
        found[embedding] = found.pop(head)  # one matrix, stored under its other name
    if config.is_tied and head in found:
        if not safetensors_file.are_same(found[embedding], found[head]):
            raise ValueError("with tie_word_embeddings the head must be the embedding itself; "
                             f"{folder} holds a {head} with other values than {embedding}. Set "
                             f"tie_word_embeddings to false in config.json, or remove {head}")
        del found[head]
    dtypes = {entry.dtype for entry in found.values()}
    dtype = common_dtype(dtypes)
    refuse_differences({name: entry.shape for name, entry in found.items()}, how.theirs,
                       where=str(folder))
    if kind == hugging_face_vision.KIND:
        tiling = hugging_face_vision.read_tiling(folder, config.vision)
    return Opened(format="Hugging Face", where=folder, config=config, kinds=kinds_of(dtypes),
                  dtype=dtype,
                  files=tuple(sorted({entry.file for entry in found.values()})),
                  prompting=read_prompting(folder, about, config),
                  tiling=tiling,
                  tensors=partial(_tensors, how, found),
                  read_tokenizer=partial(tokenizer_files.read_hugging_face, folder, config))


def write(
    folder: str | Path, model: Llama, *, tokenizer: Any, shard_bytes: int | None = None
) -> None:
    """Writes `model` and `tokenizer` to `folder`, which must be new or empty, all or nothing.

    `shard_bytes`: starts a new file before one grows larger than this. Tensors keep their dtype. A
    tied head is stored once, as the embedding. Raises ValueError if the model is not what its
    config describes, or if the tokenizer has ids without a row in the embedding.
    """
    refuse_undescribed(model)
    tokenizer_files.refuse_other_vocabulary(tokenizer, model.config, where=str(folder))
    how, weights = translation(HUGGING_FACE, model.config), dict(model.named_parameters())
    names = how.names_for(weights)
    sizes = {name: math.prod(how.theirs[name]) * weights[how.by_theirs[name][0].ours].itemsize
             for name in names}
    framing, ends = tokenizer_files.framing_ids(tokenizer), _ends(tokenizer.prompting.eos_ids)
    if isinstance(model, VisionLlama):
        ids = {"pad_token_id": tokenizer.named_ids.get(_PAD), **framing, **ends}
        about = hugging_face_vision.config_to_seeing(model.config, dtype=model.dtype, text_ids=ids)
    elif isinstance(model, FusionLlama):
        about = hugging_face_fusion.config_to(model.config, dtype=model.dtype,
                                              text_ids=framing | ends)
    else:
        of_kind = hugging_face_llama4 if has_experts(model.config) else hugging_face_config
        about = of_kind.config_to(model.config, dtype=model.dtype) | framing | ends
    with creating_folder(folder) as unfinished:
        write_json(unfinished / "config.json", about)
        if isinstance(model, VisionLlama):
            write_json(unfinished / "preprocessor_config.json",
                       hugging_face_vision.tiling_to(model.tiling))
        elif isinstance(model, FusionLlama):
            write_json(unfinished / "preprocessor_config.json",
                       hugging_face_fusion.tiling_to(model.tiling))
        write_json(unfinished / "generation_config.json",
                   framing | _ends(tokenizer.stop_ids)
                   | {"do_sample": True, "temperature": 0.6, "top_p": 0.9})
        tokenizer_files.write_hugging_face(unfinished, tokenizer)
        shards = hugging_face_shards.cut(sizes, shard_bytes)
        for file, inside in shards.items():
            write_tensors(unfinished / file,
                          {name: to_theirs(how, weights, name) for name in inside})
        if len(shards) > 1:
            hugging_face_shards.write_index(unfinished, shards, n_bytes=sum(sizes.values()))


_PAD = "<|finetune_right_pad_id|>"
"""The token that fills up rows in the released models that see. transformers' default id for it is
only in a vocabulary of the released size.
"""


def _with_published_names(
    found: Mapping[str, TensorEntry], folder: Path
) -> dict[str, TensorEntry]:
    """Returns the tensors of a model that sees under the names of Meta's releases."""
    renamed: dict[str, TensorEntry] = {}
    for name, entry in found.items():
        published = published_name(name)
        if published in renamed:
            raise ValueError(f"each tensor must be stored once; {folder} holds {published} under "
                             "this name and under its newer one. Remove one of them")
        renamed[published] = entry
    return renamed


_ONE_BY_ONE = re.compile(r"(?:.*\.)?layers\.(\d+)\.feed_forward\.experts\.(\d+)\..*")


def _refuse_other_experts(
    found: Mapping[str, tuple[int, ...]], how: Translation, config: LlamaConfig, *, where: Path
) -> None:
    """Raises ValueError, naming the layer, if its experts are stored in another way than published.

    `found`: name -> shape. The later check of names and shapes would list every tensor.
    """
    rule = ("the experts of a layer must be in two tensors, gate_up_proj (experts, dim, 2 * width) "
            "and down_proj (experts, width, dim)")
    cure = "Use the published checkpoint, or convert this one again"
    layers = expert_layers(config, rule=rule)
    single: dict[int, set[int]] = {}
    for match in filter(None, map(_ONE_BY_ONE.fullmatch, found)):
        single.setdefault(int(match[1]), set()).add(int(match[2]))
    for layer, experts in sorted(single.items()):
        missing = sorted(set(range(layers.experts.n_experts)) - experts)
        lacks = f", and lacks the expert {missing[0]}" if missing else ""
        raise ValueError(f"{rule}; layer {layer} in {where} stores them one by one{lacks}. {cure}")
    for i in layers.with_experts:
        for part in ("experts.w_gate", "experts.w_down"):
            piece, = how.by_ours[f"layers.{i}.feed_forward.{part}"]
            shape, needed = tuple(found.get(piece.theirs, ())), how.theirs[piece.theirs]
            if shape == (needed[0], needed[2], needed[1]) != needed:
                raise ValueError(f"{rule}; in layer {i} of {where} {piece.theirs} is transposed, "
                                 f"{shape}. {cure}")
            if len(shape) == 3 and shape[0] != needed[0] and shape[1:] == needed[1:]:
                raise ValueError(f"{rule}; layer {i} in {where} has {shape[0]} experts, and "
                                 f"config.json says {needed[0]}. {cure}")


def _refuse_quantized(about: Any, where: Path) -> None:
    """Raises ValueError if the config says that the weights are quantized.

    The later check of unknown keys would advise to remove the key, which would not help.
    """
    keys = ("quantization_config", "quantization")
    if named := [key for key in keys if isinstance(about, dict) and about.get(key) is not None]:
        how = about[named[0]]
        method = how.get("quant_method") if isinstance(how, Mapping) else None
        of_kind = "" if method is None else f" of the kind {shown(method)}"
        raise ValueError("safetensors with quantized weights cannot be read; "
                         f"{where} has a {named[0]}{of_kind}. Use the checkpoint that it was made "
                         "from, or its GGUF file")


def _tensors(
    how: Translation, entries: Mapping[str, TensorEntry], dtype: torch.dtype | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Returns each tensor: a view of its mapped file if nothing changes, or else a new tensor.

    A new tensor is made if the dtype or the order of rows changes, one at a time. The parts of a
    mapped file that were read count as our memory until the mapping is closed. So a tensor that is
    copied gets its own mapping.
    """
    whole = {file: safetensors_file.mapped(file)
             for file in {entry.file for entry in entries.values()}}

    def read(name: str, *, dtype: torch.dtype | None, is_kept: bool) -> Tensor:
        entry = entries[name]
        if dtype in (None, entry.dtype):
            return safetensors_file.view(entry, whole[entry.file] if is_kept
                                         else safetensors_file.mapped(entry.file))
        own = torch.empty(entry.shape, dtype=dtype)
        own.copy_(safetensors_file.view(entry, safetensors_file.mapped(entry.file)))
        return own

    return to_ours(how, read, dtypes={name: entry.dtype for name, entry in entries.items()},
                   dtype=dtype)


def _ends(ids: Set[int]) -> dict[str, int | list[int]]:
    """Returns the JSON entry for these ends of a text: empty, one id, or a list."""
    return {"eos_token_id": sorted(ids) if len(ids) > 1 else next(iter(ids))} if ids else {}
