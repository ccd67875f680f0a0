"""Our own checkpoint: a folder with a config, the weights and the tokenizer.

Saving replaces the folder as a whole (`folders`). Loading is strict: a tensor that is missing, left
over or of another shape is named.

config.json          {"format": ..., "model": the LlamaConfig,
                      "tokenizer": what tokenizer.model does not say}
model.safetensors    the parameters under their names in `Llama`, in their own dtype;
                     a tied head is stored once
tokenizer.model      ranks in the tiktoken format, with {"special_tokens": [...], "pattern": ...}
                     in config.json; or SentencePiece's pieces, with {"prefix": ..., "bos": ...,
                     "eos": ...}

Notebook 17. The weight format: https://github.com/huggingface/safetensors.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from llama_from_scratch.checkpoint import safetensors_file
from llama_from_scratch.checkpoint.described import refuse_undescribed
from llama_from_scratch.checkpoint.folders import find, replacing_folder
from llama_from_scratch.checkpoint.json_file import differences, read_json, write_json
from llama_from_scratch.checkpoint.names import shapes
from llama_from_scratch.checkpoint.opened import Opened, build, common_dtype, kinds_of
from llama_from_scratch.checkpoint.safetensors_file import (
    TensorEntry,
    read_tensor,
    read_tensors,
    write_tensors,
)
from llama_from_scratch.checkpoint.strict import listed, refuse_impossible_sizes
from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.foreign import shown
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.sentencepiece import Prefix, SentencePiece

FORMAT = "llama_from_scratch 1"
FILES = ("config.json", "model.safetensors", "tokenizer.model")
TRAINING_FILES = ("training.json", "optimizer.safetensors")
"""What a checkpoint in the middle of training also holds; `train.resume` writes and reads it."""
_OF_RANKS, _OF_PIECES = {"special_tokens", "pattern"}, {"prefix", "bos", "eos"}


def save(folder: str | Path, model: Llama, tokenizer: Tokenizer | SentencePiece) -> None:
    """Writes model and tokenizer to `folder`, in place of a checkpoint there; all or nothing.

    Raises ValueError if the model is not what its config describes, the tokenizer has ids the model
    does not know, or `folder` holds anything but a checkpoint; OSError, as for a full disk, leaves
    the checkpoint that was there.
    """
    refuse_what_cannot_be_saved(model, tokenizer)
    with replacing(folder) as unfinished:
        write(unfinished, model, tokenizer=tokenizer)


def load(folder: str | Path) -> tuple[Llama, Tokenizer | SentencePiece]:
    """The model, on the CPU and in the dtype it was saved in, and its tokenizer.

    Raises ValueError if `folder` is no checkpoint of ours, a file of it is damaged or does not fit
    the config, or the model does not fit into memory.
    """
    opened = open_checkpoint(folder)
    return build(opened), opened.tokenizer()


def open_checkpoint(folder: str | Path) -> Opened:
    """The checkpoint in `folder`, its weights not yet read. Raises ValueError as `load` does."""
    path, about = _describe(folder)
    config = _config(path, about)
    entries = safetensors_file.entries(path / "model.safetensors")
    n_values = sum(math.prod(entry.shape) for entry in entries.values())
    refuse_impossible_sizes(config, n_values=n_values, where=path / "config.json")
    _refuse_others({name: (entry.dtype, entry.shape) for name, entry in entries.items()},
                   shapes(config), path)
    dtypes = {entry.dtype for entry in entries.values()}
    return Opened(format="llama_from_scratch", where=path, files=(path / "model.safetensors",),
                  config=config,
                  kinds=kinds_of(dtypes), dtype=common_dtype(dtypes),
                  tensors=partial(_tensors, {name: entries[name] for name in shapes(config)}),
                  read_tokenizer=partial(_tokenizer, path, about))


def load_weights(folder: str | Path, model: Llama) -> None:
    """Overwrites the weights of `model` with those saved in `folder`.

    Their device stays, their dtype becomes the file's. Raises ValueError naming the keys whose
    values differ if the checkpoint is of another configuration.
    """
    path, about = _describe(folder)
    if found := differences(_config(path, about).to_dict(), model.config.to_dict()):
        raise ValueError(f"the checkpoint in {folder} is of another configuration than the model: "
                         f"{'; '.join(found)}. Build the model from the checkpoint's config, or "
                         "choose another folder")
    _fill(model, path)


def load_tokenizer(folder: str | Path) -> Tokenizer | SentencePiece:
    """The tokenizer of a checkpoint, without reading the weights."""
    return _tokenizer(*_describe(folder))


@contextlib.contextmanager
def replacing(folder: str | Path) -> Iterator[Path]:
    """An empty folder to write to, which takes the place of the checkpoint `folder`.

    That happens when the block ends well. Raises ValueError if `folder` holds files that are not a
    checkpoint's, which would be lost.
    """
    with replacing_folder(folder, refuse=_refuse_foreign) as unfinished:
        yield unfinished


def write(folder: Path, model: Llama, *, tokenizer: Tokenizer | SentencePiece) -> None:
    """Writes the three files of a checkpoint into an existing folder, one after the other.

    Not atomic by itself.
    """
    refuse_what_cannot_be_saved(model, tokenizer)
    if isinstance(tokenizer, SentencePiece):
        beside = {"prefix": tokenizer.prefix, "bos": tokenizer.bos, "eos": tokenizer.eos}
    else:
        beside = {"special_tokens": list(tokenizer.special_ids), "pattern": tokenizer.pattern}
    write_json(folder / "config.json",
               {"format": FORMAT, "model": model.config.to_dict(), "tokenizer": beside})
    # A tokenizer.model has words for two of the prefixes, config.json for all
    if isinstance(tokenizer, SentencePiece):
        plain = SentencePiece(tokenizer.pieces, bos=tokenizer.bos, eos=tokenizer.eos)
        plain.save(folder / "tokenizer.model")
    else:
        tokenizer.save(folder / "tokenizer.model")
    write_tensors(folder / "model.safetensors",
                  {n: p.detach() for n, p in model.named_parameters()})


def refuse_what_cannot_be_saved(model: Llama, tokenizer: Tokenizer | SentencePiece) -> None:
    """Raises ValueError unless the model is what its config says and knows all ids.

    That is, its embedding has a row for each id of the tokenizer.
    """
    refuse_undescribed(model)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError("every id of the tokenizer needs a row in the model's embedding; got "
                         f"{tokenizer.vocab_size} ids and vocab_size={model.config.vocab_size}. "
                         "Train the tokenizer and the model with the same vocab_size")


def _refuse_foreign(folder: Path) -> None:
    """Raises ValueError if anything but a checkpoint of ours is in `folder`.

    A save removes the old folder whole.
    """
    foreign = sorted(entry.name for entry in folder.iterdir()
                     if entry.name not in FILES + TRAINING_FILES)
    config = folder / "config.json"
    if not foreign and config.exists() and FORMAT not in config.read_text(errors="replace"):
        foreign = ["a config.json of another program"]
    if foreign:
        raise ValueError("saving replaces the whole folder, so it may hold a checkpoint and "
                         f"nothing else; {folder} also holds {', '.join(foreign[:4])}. Choose an "
                         "empty or a new folder")


def _describe(folder: str | Path) -> tuple[Path, dict[str, Any]]:
    path = find(folder)
    if path is None:
        state = "is not there" if not Path(folder).exists() else "has no config.json"
        raise ValueError(f"a checkpoint is a folder with {', '.join(FILES)}; {folder} {state}. "
                         "Write one with llama_from_scratch.checkpoint.native.save or `llama "
                         "train`")
    about = read_json(path / "config.json")
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ValueError(f"config.json of our checkpoints says \"format\": {FORMAT!r}; the one in "
                         f"{folder} does not"
                         + (", it is a Hugging Face model" if isinstance(about, dict)
                            and "model_type" in about else "")
                         + ". Give a folder that native.save or `llama train` wrote")
    if missing := [key for key in ("model", "tokenizer") if not isinstance(about.get(key), dict)]:
        raise ValueError(f"config.json needs the objects \"model\" and \"tokenizer\"; in {folder} "
                         f"there is no {' and no '.join(missing)}. Copy or save the checkpoint "
                         "again")
    return path, about


def _config(path: Path, about: Mapping[str, Any]) -> LlamaConfig:
    try:
        return LlamaConfig.from_dict(about["model"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path / 'config.json'} describes no model of this version: "
                         f"{error}") from error


def _tokenizer(path: Path, about: Mapping[str, Any]) -> Tokenizer | SentencePiece:
    keys, file = about["tokenizer"], path / "tokenizer.model"
    if keys.keys() not in (_OF_RANKS, _OF_PIECES):
        raise ValueError(f"the \"tokenizer\" of config.json has {' and '.join(sorted(_OF_RANKS))}, "
                         f"or for SentencePiece {', '.join(sorted(_OF_PIECES))}; in {path} it has "
                         f"{', '.join(sorted(keys)) or 'nothing'}. Copy or save the checkpoint "
                         "again")
    if not file.is_file():
        raise ValueError(f"a checkpoint is a folder with {', '.join(FILES)}; {path} has no "
                         "tokenizer.model. Copy or save the checkpoint again")
    if keys.keys() == _OF_PIECES:
        is_known = isinstance(keys["prefix"], str) and keys["prefix"] in get_args(Prefix)
        if not is_known or not isinstance(keys["bos"], str) or not isinstance(keys["eos"], str):
            raise ValueError("the prefix of SentencePiece is one of "
                             f"{', '.join(get_args(Prefix))}, bos and eos are names; {path} has "
                             f"{shown(keys)}. Copy or save the checkpoint again")
        return _known(path, about, SentencePiece(SentencePiece.load(file).pieces, **keys))
    names = keys["special_tokens"]
    are_names = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not are_names or not isinstance(keys["pattern"], str):
        raise ValueError("special_tokens is a list of names and pattern a text; "
                         f"{path / 'config.json'} has {shown(keys)}. Copy or save the checkpoint "
                         "again")
    return _known(path, about, Tokenizer.load(file, special_tokens=tuple(names),
                                              pattern=keys["pattern"]))


def _known(
    path: Path, about: Mapping[str, Any], tokenizer: Tokenizer | SentencePiece
) -> Tokenizer | SentencePiece:
    """The tokenizer itself. Raises ValueError if it has ids that the model does not know."""
    if tokenizer.vocab_size > (n_rows := _config(path, about).vocab_size):
        raise ValueError("every id of the tokenizer needs a row in the model's embedding; "
                         f"{path / 'tokenizer.model'} has {tokenizer.vocab_size} ids and "
                         f"{path / 'config.json'} vocab_size={n_rows}. Take both from the same "
                         "save")
    return tokenizer


def _tensors(
    entries: Mapping[str, TensorEntry], dtype: torch.dtype | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Copies, so that the file is not held open.

    Training goes on to write the next file in its place.
    """
    for name, entry in entries.items():
        yield name, read_tensor(entry, dtype=dtype)


@torch.no_grad()
def _fill(model: Llama, path: Path) -> None:
    tensors, weights = read_tensors(path / "model.safetensors"), dict(model.named_parameters())
    _refuse_others({n: (t.dtype, tuple(t.shape)) for n, t in tensors.items()},
                   {n: tuple(w.shape) for n, w in weights.items()}, path)
    for name, weight in weights.items():
        # Through .data, so that a tied head stays the same parameter; copied, so that the file is
        # not held open.
        weight.data = tensors[name].to(weight.device, copy=True)


def _refuse_others(
    found: Mapping[str, tuple[torch.dtype, tuple]], needed: Mapping[str, tuple], path: Path
) -> None:
    problems = [f"{name} is missing" for name in needed if name not in found]
    problems += [f"{name} is not of this model" for name in found if name not in needed]
    problems += [f"{name} is {dtype} {shape}, not floating-point {needed[name]}"
                 for name, (dtype, shape) in found.items()
                 if name in needed and (shape != needed[name] or not dtype.is_floating_point)]
    if problems:
        raise ValueError(f"the tensors in {path / 'model.safetensors'} must be those of its "
                         f"config; {listed(problems)}. Copy or save the checkpoint again")
