"""Checkpoints in Meta's layout: params.json, consolidated.00.pth and on, tokenizer.model.

There is one .pth file for each GPU that the released code uses. params.json describes the model
(`meta_params`), and each file holds a part of each matrix (`meta_shards`). Only the weights show
whether the head is tied, and how many rows the embedding has.

Notebook 18. Llama 1 to 3.3, 3.2 Vision (`meta_vision`) and Llama 4 (`meta_llama4`,
`meta_fusion`). Source: llama-models, models/llama3/args.py, models/llama4/args.py and
models/checkpoint.py.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llama_from_scratch.checkpoint import (
    meta_fusion,
    meta_llama4,
    meta_params,
    meta_shards,
    meta_vision,
    tokenizer_files,
)
from llama_from_scratch.checkpoint.described import refuse_undescribed
from llama_from_scratch.checkpoint.expert_layers import has_experts
from llama_from_scratch.checkpoint.folders import creating_folder
from llama_from_scratch.checkpoint.json_file import read_json
from llama_from_scratch.checkpoint.meta_params import (
    NEEDED,
    config_from,
    is_old,
    params_of,
    text_params,
)
from llama_from_scratch.checkpoint.meta_shards import (
    Cut,
    Shards,
    are_same,
    open_shard,
    shard_translation,
)
from llama_from_scratch.checkpoint.names import META, TABLE
from llama_from_scratch.checkpoint.opened import Opened, common_dtype, kinds_of
from llama_from_scratch.checkpoint.strict import refuse_differences, refuse_impossible_sizes
from llama_from_scratch.checkpoint.translation import translation
from llama_from_scratch.config import FusionLlamaConfig, LlamaConfig, VisionLlamaConfig
from llama_from_scratch.foreign import shown
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.vision.adapter import VisionLlama
from llama_from_scratch.vision.early_fusion import FusionLlama
from llama_from_scratch.vision.tiles import GridTiling, Tiling

_EMBEDDING, _HEAD, _QUERIES, _KEYS = (
    TABLE.name_of(role, META) for role in ("embedding", "head", "queries", "keys"))


def open_checkpoint(folder: str | Path) -> Opened:
    """Returns the checkpoint in `folder`, its weights not yet read.

    Raises ValueError if a file is missing, is damaged or holds anything except tensors, if
    params.json describes a model that is not built here, or if the tensors do not fit the model
    exactly.
    """
    folder = Path(folder)
    params = text_params(read_json(folder / "params.json"), where=folder / "params.json")
    files = meta_shards.files_of(folder)
    shards = [open_shard(file) for file in files]
    is_seeing, is_whole = meta_vision.is_seeing(params), meta_params.is_whole(params)
    of_text = [_of_text(shard) for shard in shards] if is_seeing else shards
    config = _config(params, of_text, where=folder / "params.json")
    are_repeated = params.get("n_kv_heads") == len(shards)
    n_copies = meta_shards.n_copies_in(of_text, keys=_KEYS) if are_repeated else 1
    config = dataclasses.replace(config, n_kv_heads=config.n_kv_heads // n_copies)
    if is_seeing:
        config = meta_vision.config_from(params, config, where=folder / "params.json",
                                         max_layers=len(shards[0]))
    if is_whole:
        config = meta_fusion.config_from(params, config, where=folder / "params.json",
                                         max_layers=len(shards[0]))
    n_values = sum(tensor.numel() for shard in shards for tensor in shard.values())
    refuse_impossible_sizes(config, n_values=n_values, where=folder / "params.json")
    how = translation(META, config)
    cut = Cut(n_shards=len(files), n_copies=n_copies,
              is_by_column=_is_cut_by_column(of_text[0], config.dim))
    of_each = shard_translation(config, how, cut)
    needed = dict(of_each.theirs)
    if config.is_tied and _HEAD in of_text[0]:
        needed[f"{meta_vision.TEXT if is_seeing else ''}{_HEAD}"] = tuple(of_text[0][_HEAD].shape)
    fit = partial(meta_vision.fitted, how=how) if is_seeing else _unchanged
    for file, shard in zip(files, shards, strict=True):
        refuse_differences({name: tuple(fit(name, tensor).shape) for name, tensor in shard.items()},
                           needed, where=str(file))
    dtypes = {tensor.dtype for shard in shards for tensor in shard.values()}
    return Opened(format="Meta", where=folder, files=tuple(files), config=config,
                  kinds=kinds_of(dtypes),
                  dtype=common_dtype(dtypes),
                  tensors=partial(meta_shards.tensors, Shards(
                      files=tuple(files), how=how, how_each=of_each, cut=cut), fit),
                  tiling=_tiling(config),
                  read_tokenizer=partial(tokenizer_files.read_meta, folder, config))


def write(folder: str | Path, model: Llama, *, tokenizer: Any, n_shards: int = 1) -> None:
    """Writes `model` and `tokenizer` to `folder`, which must be new or empty; all or nothing.

    `n_shards`: the number of .pth files. With more shards than key/value heads, each head is stored
    several times, as in Meta's files. If Meta's rules would give another context length or scaling
    factor, params.json gets the keys `max_seq_len` and `rope_scaling_factor` in addition; an
    encoder of another size than Meta's gets the key `vision_encoder`.
    Raises ValueError if the model is not what its config describes, if the shards cannot have
    equal sizes, if params.json cannot describe the layers or the scaling, or if the tokenizer has
    ids without a row in the embedding.
    """
    refuse_undescribed(model)
    config = model.config
    tokenizer_files.refuse_what_ranks_cannot_say(tokenizer, config, where=str(folder))
    n_copies = meta_shards.n_copies_for(config, n_shards)
    params = meta_llama4.params_of(config) if has_experts(config) else params_of(config)
    if isinstance(model, FusionLlama):
        params |= meta_fusion.params_of(config)
        meta_fusion.refuse_other_tiling(model.tiling)
        meta_vision.refuse_unequal_heads(config, n_shards)
    if n_copies > 1 and has_experts(config):
        raise ValueError("in a Llama 4's files each key/value head is stored once, so n_shards "
                         f"must divide {config.n_kv_heads}; got {n_shards}. Choose another number")
    if isinstance(model, VisionLlama):
        meta_vision.refuse_other_colors(model.tiling)
        meta_vision.refuse_unequal_heads(config, n_shards)
    if n_copies > 1:
        params["n_kv_heads"] = n_shards
    how, weights = translation(META, config), dict(model.named_parameters())
    cut = Cut(n_shards=n_shards, n_copies=n_copies, is_by_column=is_old(config))
    of_each = shard_translation(config, how, cut)  # refuses unequal shards before a file is written
    with creating_folder(folder) as unfinished:
        (unfinished / "params.json").write_text(json.dumps(params) + "\n", encoding="utf-8")
        tokenizer.save(unfinished / "tokenizer.model")
        for i in range(n_shards):
            shard = meta_shards.shard_of(of_each, weights, i, cut=cut)
            if config.is_tied and not is_old(config):
                shard[_HEAD] = shard[_EMBEDDING]
            torch.save(shard, unfinished / f"consolidated.{i:02}.pth")


def _tiling(config: LlamaConfig) -> Tiling | GridTiling | None:
    """Returns how images are cut, which is in Meta's code; None for a text model."""
    if isinstance(config, VisionLlamaConfig):
        return Tiling(size_px=config.vision.tile_px, max_tiles=config.vision.max_tiles)
    return meta_fusion.tiling_of(config) if isinstance(config, FusionLlamaConfig) else None


def _of_text(shard: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the text model's tensors of a model that sees, under the names of a text model."""
    return {name.removeprefix(meta_vision.TEXT): tensor for name, tensor in shard.items()
            if name.startswith(meta_vision.TEXT)}


def _unchanged(_name: str, tensor: Tensor) -> Tensor:
    return tensor


def _config(
    params: Mapping[str, Any], shards: Sequence[Mapping[str, Tensor]], *, where: Path
) -> LlamaConfig:
    """Returns the config as stored: a key/value head that shards repeat counts several times."""
    problems = [f"{key} is missing" for key in NEEDED if key not in params]
    n_layers = params.get("n_layers")
    if type(n_layers) is not int or n_layers > len(shards[0]):
        problems.append(f"n_layers is {shown(n_layers)}, and a file holds {len(shards[0])} "
                        "tensors in all")
    if _EMBEDDING not in shards[0] or shards[0][_EMBEDDING].ndim != 2:
        problems.append(f"the files hold no matrix called {_EMBEDDING}")
    if problems:
        raise ValueError(f"{where} describes no model of this version: {'; '.join(problems)}. "
                         "Download it again")
    wq, dim = shards[0].get(_QUERIES), params["dim"]
    if wq is not None and wq.ndim == 2 and type(dim) is int and wq.shape[0] > dim:
        raise ValueError("heads share dim equally in Meta's layout, so wq must have at most "
                         f"{dim} rows; in {where.parent} it has {wq.shape[0]}. Load another format "
                         "of this model")
    if (wq is not None and wq.ndim == 2 and type(dim) is int
        and 0 < wq.shape[0] != dim / len(shards)):
        raise ValueError(f"wq has {dim} rows in all and {wq.shape[0]} in each file, so there must "
                         f"be {dim / wq.shape[0]:g} files consolidated.*.pth in the folder of "
                         f"{where}; there are {len(shards)}. Download the missing files, or remove "
                         "files of another model")
    n_parts = 1 if _is_cut_by_column(shards[0], dim) else len(shards)
    vocab_size = shards[0][_EMBEDDING].shape[0] * n_parts
    if params.get("vocab_size", -1) not in (-1, vocab_size):
        raise ValueError("vocab_size must be the number of rows of the embedding; "
                         f"{where} has {shown(params['vocab_size'])}, but the embedding in the "
                         f"{len(shards)} files has {vocab_size} rows. Check that all files are "
                         "there and are of the same model")
    read = meta_llama4.config_from if meta_params.has_experts(params) else config_from
    return read(params, vocab_size=vocab_size, is_tied=_is_tied(shards), where=where)


def _is_cut_by_column(shard: Mapping[str, Tensor], dim: int) -> bool:
    """Returns whether each shard holds some columns of the embedding, as in Llama 1 and 2.

    Otherwise it holds whole rows, as in Llama 3, which are `dim` wide.
    """
    return shard[_EMBEDDING].shape[1] != dim


def _is_tied(shards: Sequence[Mapping[str, Tensor]]) -> bool:
    """Returns whether the head is the embedding.

    params.json does not say so. The files then hold the embedding twice, or have no head.
    """
    return all(_HEAD not in shard for shard in shards) or all(
        _HEAD in shard and are_same(shard[_HEAD], shard[_EMBEDDING]) for shard in shards)
