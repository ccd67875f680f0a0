"""Our own checkpoint: a folder with a config, the weights and the tokenizer.

Saving replaces the folder as a whole (`folders`). Loading is strict: the error names each tensor
that is missing, unknown or of another shape.

config.json          {"format": ..., "model": the LlamaConfig,
                      "tokenizer": what is not in tokenizer.model};
                     of a model that sees, "model" is its VisionLlamaConfig, and there is
                     "tiling": {"mean": ..., "std": ...}, how the colors are normalized; of one
                     that reads images as tokens, "model" is its FusionLlamaConfig, and "tiling"
                     has "fills_canvas" too
model.safetensors    the parameters under their names in `Llama`, in their own dtype;
                     a tied head is stored once
tokenizer.model      ranks in the tiktoken format, with {"special_tokens": [...], "pattern": ...}
                     in config.json; or SentencePiece's pieces, with {"prefix": ..., "bos": ...,
                     "eos": ...}; or instead of it:
tokenizer.json       a vocabulary of another kind, as it was read, with {"bos": ..., "eos": ...}
manifest.json        instead of model.safetensors, and of optimizer.safetensors, when ranks wrote
rank-0.safetensors   the parameters in parts: the list of all pieces, and what each rank wrote
                     (`sharded.manifest`)
checksums.json       {file: CRC-32 of its bytes} for all files of the folder; a checkpoint of an
                     earlier version does not have it and is loaded unchecked

The same object also holds what the original files said about texts (`tokenizer.prompting`).

Notebook 17. The weight format: https://github.com/huggingface/safetensors.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from llama_from_scratch.checkpoint import checksums, safetensors_file
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
from llama_from_scratch.checkpoint.sharded import manifest
from llama_from_scratch.checkpoint.sharded.saved import SavedPieces
from llama_from_scratch.checkpoint.strict import listed, refuse_impossible_sizes
from llama_from_scratch.config import FusionLlamaConfig, LlamaConfig, VisionLlamaConfig
from llama_from_scratch.foreign import is_there, shown
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer import hugging_face as tokenizer_json
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer, JsonTokenizer
from llama_from_scratch.tokenizer.prompting import NOTHING_SAID, Prompting
from llama_from_scratch.tokenizer.sentencepiece import Prefix, SentencePiece
from llama_from_scratch.vision.seeing import SeeingLlama
from llama_from_scratch.vision.tiles import GridTiling, Tiling

FORMAT = "llama_from_scratch 1"
FILES = ("config.json", "model.safetensors", "tokenizer.model")
TRAINING_FILES = ("training.json", "optimizer.safetensors")
"""More files of a checkpoint during training; `train.resume` writes and reads them."""
REWARD_FILE = "reward.safetensors"
"""One more file of a reward model; `tune.reward` writes and reads it."""
_OF_RANKS, _OF_PIECES = {"special_tokens", "pattern"}, {"prefix", "bos", "eos"}
_TILING, _PROMPTING = "tiling", "prompting"
"""The keys of how images are cut, and of what the original files said about texts, if anything."""
_OF_JSON, JSON_FILE = {"bos", "eos"}, "tokenizer.json"


def save(folder: str | Path, model: Llama, tokenizer: AnyTokenizer) -> None:
    """Writes model and tokenizer to `folder`, all or nothing; replaces a checkpoint there.

    Raises ValueError if the model is not what its config describes, if the tokenizer has ids
    without a row in the embedding, or if `folder` holds anything except a checkpoint. After an
    OSError, such as a full disk, the old checkpoint is unchanged.
    """
    refuse_what_cannot_be_saved(model, tokenizer)
    with replacing(folder) as unfinished:
        write(unfinished, model, tokenizer=tokenizer)


def load(folder: str | Path) -> tuple[Llama, AnyTokenizer]:
    """Returns the model, on the CPU and in the dtype it was saved in, and its tokenizer.

    Raises ValueError if `folder` is not a checkpoint in our format, if one of its files is damaged
    or does not fit the config, or if the model does not fit into memory.
    """
    opened = open_checkpoint(folder)
    return build(opened), opened.tokenizer()


def open_checkpoint(folder: str | Path) -> Opened:
    """Returns the checkpoint in `folder`, without reading its weights yet. Errors as in `load`."""
    path, about, known = _describe(folder)
    config, tiling = _config(path, about), _tiling(path, about)
    checksums.refuse_damage(path / "config.json", known)
    if manifest.is_in(path):
        saved = SavedPieces(path, known=known)
        files, entries = tuple(path / file for file in saved.files), _weights_in_pieces(saved)
    else:
        files, saved = (path / "model.safetensors",), None
        entries = safetensors_file.entries(*files)
    n_values = sum(math.prod(entry.shape) for entry in entries.values())
    refuse_impossible_sizes(config, n_values=n_values, where=path / "config.json")
    needed = shapes(config)
    _refuse_others({name: (entry.dtype, entry.shape) for name, entry in entries.items()},
                   needed, path)
    dtypes = {entry.dtype for entry in entries.values()}
    tensors = (partial(_tensors_in_pieces, saved, tuple(needed)) if saved is not None else
               partial(_tensors, {name: entries[name] for name in needed}, *files, known))
    return Opened(format="llama_from_scratch", where=path, files=files, config=config,
                  prompting=_prompting(path, about, config), tiling=tiling,
                  kinds=kinds_of(dtypes), dtype=common_dtype(dtypes), tensors=tensors,
                  read_tokenizer=partial(_tokenizer, path, about, known))


def open_pieces(folder: str | Path) -> SavedPieces | None:
    """Returns the tensors of a checkpoint in parts; None for one with a single weight file."""
    path, _, known = _describe(folder)
    return SavedPieces(path, known=known) if manifest.is_in(path) else None


def load_weights(folder: str | Path, model: Llama) -> None:
    """Overwrites the weights of `model` with those saved in `folder`.

    The weights stay on their device and get the dtype of the file. Raises ValueError, naming the
    keys with other values, if the checkpoint has another configuration.
    """
    path, about, known = _describe(folder)
    if found := differences(_config(path, about).to_dict(), model.config.to_dict()):
        raise ValueError("the checkpoint and the model must have the same configuration; in "
                         f"{folder} {'; '.join(found)}. Build the model from the checkpoint's "
                         "config, or choose another folder")
    checksums.refuse_damage(path / "config.json", known)
    if manifest.is_in(path):
        saved = SavedPieces(path, known=known)
        saved.refuse_damage()
        tensors = {name: saved.whole(manifest.MODEL + name) for name in _weights_in_pieces(saved)}
    else:
        checksums.refuse_damage(path / "model.safetensors", known)
        tensors = read_tensors(path / "model.safetensors")
    _fill(model, tensors, path)


def load_config(folder: str | Path) -> LlamaConfig:
    """Returns the config of a checkpoint, without reading the weights."""
    path, about, known = _describe(folder)
    config = _config(path, about)
    checksums.refuse_damage(path / "config.json", known)
    return config


def load_tokenizer(folder: str | Path) -> AnyTokenizer:
    """Returns the tokenizer of a checkpoint, without reading the weights."""
    return open_checkpoint(folder).tokenizer()


@contextlib.contextmanager
def replacing(folder: str | Path) -> Iterator[Path]:
    """Yields an empty folder to write to, which replaces the checkpoint `folder`.

    The replacement happens when the block ends without an error. Raises ValueError if `folder`
    holds other files than a checkpoint's, because they would be lost.
    """
    with replacing_folder(folder, refuse=refuse_foreign) as unfinished:
        yield unfinished


def write(folder: Path, model: Llama, *, tokenizer: AnyTokenizer) -> None:
    """Writes the files of a checkpoint into an existing folder, one after the other.

    The last file has the checksums of all other files in the folder. This function alone is not
    atomic.
    """
    write_description(folder, model, tokenizer=tokenizer)
    write_tensors(folder / "model.safetensors",
                  {n: p.detach() for n, p in model.named_parameters()})
    checksums.write(folder)


def write_description(folder: Path, model: Llama, *, tokenizer: AnyTokenizer) -> None:
    """Writes all files except the weights and the checksums.

    The weights are not read, so that the model may be without memory.
    """
    refuse_what_cannot_be_saved(model, tokenizer)
    if isinstance(tokenizer, SentencePiece):
        beside = {"prefix": tokenizer.prefix, "bos": tokenizer.bos, "eos": tokenizer.eos}
    elif isinstance(tokenizer, JsonTokenizer):
        beside = {"bos": tokenizer.bos, "eos": tokenizer.eos}
    else:
        beside = {"special_tokens": list(tokenizer.special_ids), "pattern": tokenizer.pattern}
    if tokenizer.prompting != NOTHING_SAID:
        beside[_PROMPTING] = tokenizer.prompting.to_dict()
    of_images = {}
    if isinstance(model, SeeingLlama):
        how = {"mean": list(model.tiling.mean), "std": list(model.tiling.std)}
        if isinstance(model.tiling, GridTiling):
            how["fills_canvas"] = model.tiling.fills_canvas
        of_images = {_TILING: how}
    write_json(folder / "config.json",
               {"format": FORMAT, "model": model.config.to_dict(), "tokenizer": beside} | of_images)
    # A tokenizer.model can describe only two of the prefixes, config.json all of them
    if isinstance(tokenizer, SentencePiece):
        plain = SentencePiece(tokenizer.pieces, bos=tokenizer.bos, eos=tokenizer.eos)
        plain.save(folder / "tokenizer.model")
    elif isinstance(tokenizer, JsonTokenizer):
        tokenizer_json.write(folder / JSON_FILE, tokenizer)
    else:
        tokenizer.save(folder / "tokenizer.model")


def refuse_foreign(folder: Path) -> None:
    """Raises ValueError if `folder` holds anything except a checkpoint in our format.

    Saving removes the whole old folder. A folder that does not exist is accepted.
    """
    if not folder.exists():
        return
    foreign = sorted(entry.name for entry in folder.iterdir()
                     if entry.name not in (*FILES, JSON_FILE, *TRAINING_FILES, REWARD_FILE,
                                           checksums.NAME, manifest.NAME)
                     and not manifest.FILE.fullmatch(entry.name))
    config = folder / "config.json"
    if not foreign and config.exists() and FORMAT not in config.read_text(errors="replace"):
        foreign = ["a config.json of another program"]
    if foreign:
        raise ValueError("saving replaces the whole folder, so it must hold only a checkpoint; "
                         f"{folder} also holds {', '.join(foreign[:4])}. Choose an empty or a new "
                         "folder")


def refuse_what_cannot_be_saved(model: Llama, tokenizer: AnyTokenizer) -> None:
    """Raises ValueError unless the model is what its config describes and has a row for each id."""
    refuse_undescribed(model)
    if tokenizer.vocab_size > (n_rows := model.config.n_ids):
        raise ValueError("every id of the tokenizer needs a row in the model's embedding; got "
                         f"{tokenizer.vocab_size} ids and vocab_size={n_rows}. "
                         "Train the tokenizer and the model with the same vocab_size")


def _describe(folder: str | Path) -> tuple[Path, dict[str, Any], dict[str, str] | None]:
    """Returns the path of the checkpoint, the content of its config.json, and its checksums.

    Errors in the content of config.json are raised here. The caller checks its checksum later.
    """
    path = find(folder)
    if path is None:
        state = "does not exist" if not Path(folder).exists() else "has no config.json"
        raise ValueError(f"a checkpoint must be a folder with {', '.join(FILES)}; {folder} {state}"
                         ". Write one with llama_from_scratch.checkpoint.native.save or `llama "
                         "train`")
    about = read_json(path / "config.json")
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ValueError(f"config.json of our checkpoints must have \"format\": {FORMAT!r}; the "
                         f"one in {folder} does not"
                         + (" and is for a Hugging Face model" if isinstance(about, dict)
                            and "model_type" in about else "")
                         + ". Give a folder that native.save or `llama train` wrote")
    if missing := [key for key in ("model", "tokenizer") if not isinstance(about.get(key), dict)]:
        raise ValueError(f"config.json needs the objects \"model\" and \"tokenizer\"; in {folder} "
                         f"there is no {' and no '.join(missing)}. Copy or save the checkpoint "
                         "again")
    return path, about, checksums.read(path)


def _config(path: Path, about: Mapping[str, Any]) -> LlamaConfig:
    kind = (LlamaConfig if "vision" not in about["model"] else FusionLlamaConfig
            if "image_ids" in about["model"] else VisionLlamaConfig)
    try:
        return kind.from_dict(about["model"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path / 'config.json'} describes no model of this version: "
                         f"{error}") from error


def _tiling(path: Path, about: Mapping[str, Any]) -> Tiling | GridTiling | None:
    """Returns how images are cut for a model that sees, None for any other model."""
    config, how = _config(path, about), about.get(_TILING)
    is_grid = isinstance(config, FusionLlamaConfig)
    if not is_grid and not isinstance(config, VisionLlamaConfig):
        return None
    keys = ["mean", "std"] + ["fills_canvas"] * is_grid
    if not isinstance(how, dict) or how.keys() != set(keys):
        raise ValueError(f"config.json of a model that sees needs \"{_TILING}\" with "
                         f"{' and '.join(keys)}; {path / 'config.json'} has {shown(how)}. Copy or "
                         "save the checkpoint again")
    how = {key: tuple(each) if isinstance(each, list) else each for key, each in how.items()}
    try:
        return (GridTiling if is_grid else Tiling)(
            size_px=config.vision.tile_px, max_tiles=config.vision.max_tiles, **how)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path / 'config.json'} is damaged: {error}. Copy or save the checkpoint "
                         "again") from error


def _prompting(path: Path, about: Mapping[str, Any], config: LlamaConfig) -> Prompting:
    said = about["tokenizer"].get(_PROMPTING, {})
    try:
        return Prompting.from_dict(said, vocab_size=config.vocab_size)
    except ValueError as error:
        raise ValueError(f"{path / 'config.json'} is damaged: {error}. Copy or save the checkpoint "
                         "again") from error


def _tokenizer(
    path: Path, about: Mapping[str, Any], known: Mapping[str, str] | None
) -> AnyTokenizer:
    keys, file = dict(about["tokenizer"]), path / "tokenizer.model"
    keys.pop(_PROMPTING, None)
    if keys.keys() == _OF_JSON and all(isinstance(name, str | None) for name in keys.values()):
        checksums.refuse_damage(path / JSON_FILE, known)
        return tokenizer_json.from_json(read_json(path / JSON_FILE), **keys)
    if keys.keys() not in (_OF_RANKS, _OF_PIECES):
        raise ValueError("the \"tokenizer\" of config.json must have "
                         f"{' and '.join(sorted(_OF_RANKS))}, or for SentencePiece "
                         f"{', '.join(sorted(_OF_PIECES))}; in {path} it has "
                         f"{', '.join(sorted(keys)) or 'nothing'}. Copy or save the checkpoint "
                         "again")
    checksums.refuse_damage(path / "config.json", known)
    if not is_there(file):
        raise ValueError(f"a checkpoint must be a folder with {', '.join(FILES)}; {path} has no "
                         "tokenizer.model. Copy or save the checkpoint again")
    checksums.refuse_damage(file, known)
    if keys.keys() == _OF_PIECES:
        is_known = isinstance(keys["prefix"], str) and keys["prefix"] in get_args(Prefix)
        if not is_known or not isinstance(keys["bos"], str) or not isinstance(keys["eos"], str):
            raise ValueError("the prefix of SentencePiece must be one of "
                             f"{', '.join(get_args(Prefix))}, and bos and eos must be names; "
                             f"{path} has {shown(keys)}. Copy or save the checkpoint again")
        return _known(path, about, SentencePiece(SentencePiece.load(file).pieces, **keys))
    names = keys["special_tokens"]
    are_names = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not are_names or not isinstance(keys["pattern"], str):
        raise ValueError("special_tokens must be a list of names, and pattern a text; "
                         f"{path / 'config.json'} has {shown(keys)}. Copy or save the checkpoint "
                         "again")
    return _known(path, about, Tokenizer.load(file, special_tokens=tuple(names),
                                              pattern=keys["pattern"]))


def _known(
    path: Path, about: Mapping[str, Any], tokenizer: Tokenizer | SentencePiece
) -> Tokenizer | SentencePiece:
    """Returns the tokenizer. Raises ValueError if it has ids without a row in the embedding."""
    if tokenizer.vocab_size > (n_rows := _config(path, about).n_ids):
        raise ValueError("every id of the tokenizer needs a row in the model's embedding; "
                         f"{path / 'tokenizer.model'} has {tokenizer.vocab_size} ids and "
                         f"{path / 'config.json'} vocab_size={n_rows}. Use both files from the "
                         "same save")
    return tokenizer


def _tensors(
    entries: Mapping[str, TensorEntry], file: Path, known: Mapping[str, str] | None,
    dtype: torch.dtype | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """Yields (name, copy of the tensor), so that the file is not held open.

    Training will replace the file later. Meanwhile another thread computes the checksum of the
    file, which costs no time if a second processor is free. The last tensor is yielded only if the
    checksum is right.
    """
    *first, last = entries
    with ThreadPoolExecutor(max_workers=1) as pool:
        checked = pool.submit(checksums.refuse_damage, file, known)
        for name in first:
            yield name, read_tensor(entries[name], dtype=dtype)
        checked.result()
    yield last, read_tensor(entries[last], dtype=dtype)


def _weights_in_pieces(saved: SavedPieces) -> dict[str, manifest.SavedTensor]:
    """Returns the parameters of a checkpoint in parts under their names in the model."""
    return {name.removeprefix(manifest.MODEL): tensor for name, tensor in saved.tensors.items()
            if name.startswith(manifest.MODEL)}


def _tensors_in_pieces(
    saved: SavedPieces, names: Sequence[str], dtype: torch.dtype | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Yields (name, tensor), as `_tensors` does."""
    *first, last = names
    with ThreadPoolExecutor(max_workers=1) as pool:
        checked = pool.submit(saved.refuse_damage)
        for name in first:
            yield name, saved.whole(manifest.MODEL + name).to(dtype)
        checked.result()
    yield last, saved.whole(manifest.MODEL + last).to(dtype)


@torch.no_grad()
def _fill(model: Llama, tensors: Mapping[str, Tensor], path: Path) -> None:
    weights = dict(model.named_parameters())
    _refuse_others({n: (t.dtype, tuple(t.shape)) for n, t in tensors.items()},
                   {n: tuple(w.shape) for n, w in weights.items()}, path)
    for name, weight in weights.items():
        # Assigned to .data, so that a tied head stays the same parameter. Copied, so that the file
        # is not held open.
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
        raise ValueError(f"the tensors in {path / 'model.safetensors'} must fit its config; "
                         f"{listed(problems)}. Copy or save the checkpoint again")
