"""Our own checkpoint: a folder with a config, the weights and the tokenizer, which is either the old one or the new one.

A save writes a sibling folder to the end, forces it to the disk and only then lets it take the old one's place, so a kill
or a full disk at any moment costs the new checkpoint and never the old. Loading is strict: a tensor that is missing, left
over or of another shape is named.

config.json      {"format": ..., "model": the LlamaConfig, "tokenizer": what tokenizer.model does not say}
model.safetensors    the parameters under their names in `Llama`, in their own dtype; a tied head is stored once
tokenizer.model      ranks in the tiktoken format, with {"special_tokens": [...], "pattern": ...} in config.json; or
                     SentencePiece's pieces, with {"prefix": ..., "bos": ..., "eos": ...}

Notebook 17. The weight format: https://github.com/huggingface/safetensors.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from llama_from_scratch.checkpoint import safetensors_file
from llama_from_scratch.checkpoint.names import shapes
from llama_from_scratch.checkpoint.opened import Opened, build, common_dtype, kinds_of
from llama_from_scratch.checkpoint.safetensors_file import Entry
from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import Tokenizer
from llama_from_scratch.tokenizer.sentencepiece import Prefix, SentencePiece

FORMAT = "llama_from_scratch 1"
FILES = ("config.json", "model.safetensors", "tokenizer.model")
TRAINING_FILES = ("training.json", "optimizer.safetensors")
"""What a checkpoint in the middle of training holds besides; `train.resume` writes and reads them."""
_OF_RANKS, _OF_PIECES = {"special_tokens", "pattern"}, {"prefix", "bos", "eos"}


def save(folder: str | Path, model: Llama, tokenizer: Tokenizer | SentencePiece) -> None:
    """Writes model and tokenizer to `folder`, in place of the checkpoint that may be there, all or nothing.

    Raises ValueError if the tokenizer has ids the model does not know, or if `folder` holds anything but a checkpoint;
    OSError, as for a full disk, leaves the checkpoint that was there.
    """
    with replacing(folder) as unfinished:
        write(unfinished, model, tokenizer=tokenizer)


def load(folder: str | Path) -> tuple[Llama, Tokenizer | SentencePiece]:
    """The model, on the CPU and in the dtype it was saved in, and its tokenizer.

    Raises ValueError if `folder` is no checkpoint of ours, a file of it is damaged or does not fit the config, or the model
    does not fit into memory.
    """
    opened = read(folder)
    return build(opened), opened.tokenizer()


def read(folder: str | Path) -> Opened:
    """The checkpoint in `folder`, its weights not yet read. Raises ValueError as `load` does."""
    path, about = _describe(folder)
    config = _config(path, about)
    entries = safetensors_file.entries(path / "model.safetensors")
    _refuse_others({name: (entry.dtype, entry.shape) for name, entry in entries.items()}, shapes(config), path)
    dtypes = {entry.dtype for entry in entries.values()}
    return Opened(format="llama_from_scratch", where=path, files=(path / "model.safetensors",), config=config,
                  kinds=kinds_of(dtypes), dtype=common_dtype(dtypes),
                  tensors=partial(_tensors, {name: entries[name] for name in shapes(config)}),
                  read_tokenizer=partial(_tokenizer, path, about))


def load_weights(folder: str | Path, model: Llama) -> None:
    """Overwrites the weights of `model` with those saved in `folder`; their device stays, their dtype becomes the file's.

    Raises ValueError naming the keys whose values differ if the checkpoint is of another configuration.
    """
    path, about = _describe(folder)
    if found := differences(_config(path, about).to_dict(), model.config.to_dict()):
        raise ValueError(f"the checkpoint in {folder} is of another configuration than the model: {'; '.join(found)}. "
                         "Build the model from the checkpoint's config, or choose another folder")
    _fill(model, path)


def load_tokenizer(folder: str | Path) -> Tokenizer | SentencePiece:
    """The tokenizer of a checkpoint, without reading the weights."""
    return _tokenizer(*_describe(folder))


def differences(saved: Any, current: Any, *, where: str = "") -> list[str]:
    """One line per key at which two JSON values differ: `{"dim": 64}, {"dim": 128}` -> `["dim is 64 there and 128 here"]`."""
    if isinstance(saved, Mapping) and isinstance(current, Mapping):
        keys = dict.fromkeys([*saved, *current])
        pairs = [(f"{where}.{key}" if where else key, saved.get(key), current.get(key)) for key in keys]
    elif isinstance(saved, list) and isinstance(current, list) and len(saved) == len(current):
        pairs = [(f"{where}[{i}]", a, b) for i, (a, b) in enumerate(zip(saved, current))]
    elif isinstance(saved, list) and isinstance(current, list):
        return [f"{where} has {len(saved)} entries there and {len(current)} here"]
    else:
        return [] if saved == current else [f"{where} is {saved!r} there and {current!r} here"]
    return [line for name, a, b in pairs for line in differences(a, b, where=name)]


@contextlib.contextmanager
def replacing(folder: str | Path) -> Iterator[Path]:
    """An empty folder to write to; when the block ends well it takes the place of `folder`, and on an error it is removed.

    Two renames do it: the old folder aside, the new one in. A kill between them leaves the old one aside, where the next
    load or save finds it. Raises ValueError if `folder` holds files that are not a checkpoint's, which would be lost.
    """
    folder = Path(folder).absolute()
    unfinished, aside = folder.with_name(f".{folder.name}.unfinished"), _aside(folder)
    if aside.exists() and not folder.exists():
        os.rename(aside, folder)
    _refuse_foreign(folder)
    _remove(unfinished)
    _remove(aside)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        _force_to_disk(unfinished)
        if folder.exists():
            os.rename(folder, aside)
        try:
            os.rename(unfinished, folder)
        except BaseException:
            if aside.exists():
                os.rename(aside, folder)
            raise
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _sync_folder(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def creating(folder: str | Path) -> Iterator[Path]:
    """An empty folder to write to, which becomes `folder` when the block ends well; on an error nothing is left.

    Raises ValueError if `folder` is there and holds anything.
    """
    if Path(folder).is_dir() and any(Path(folder).iterdir()):
        raise ValueError(f"this checkpoint is written to a new folder, and {folder} holds files; choose another name")
    with replacing(folder) as unfinished:
        yield unfinished


def write(folder: Path, model: Llama, *, tokenizer: Tokenizer | SentencePiece) -> None:
    """Writes the three files of a checkpoint into an existing folder, one after the other: not atomic by itself."""
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(f"every id of the tokenizer needs a row in the model's embedding; got {tokenizer.vocab_size} ids and "
                         f"vocab_size={model.config.vocab_size}. Train the tokenizer and the model with the same vocab_size")
    if isinstance(tokenizer, SentencePiece):
        beside = {"prefix": tokenizer.prefix, "bos": tokenizer.bos, "eos": tokenizer.eos}
    else:
        beside = {"special_tokens": list(tokenizer.special_ids), "pattern": tokenizer.pattern}
    about = {"format": FORMAT, "model": model.config.to_dict(), "tokenizer": beside}
    (folder / "config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    if isinstance(tokenizer, SentencePiece):  # a tokenizer.model has words for two of the prefixes, config.json for all
        SentencePiece(tokenizer.pieces, bos=tokenizer.bos, eos=tokenizer.eos).save(folder / "tokenizer.model")
    else:
        tokenizer.save(folder / "tokenizer.model")
    write_tensors(folder / "model.safetensors", {n: p.detach() for n, p in model.named_parameters()})


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file, made by PyTorch as transformers wants it said. Raises OSError where the disk refuses."""
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"could not write {path}: {error}") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. Raises ValueError if the file is missing, cut short or damaged."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"a checkpoint needs a whole safetensors file at {path}; it cannot be read ({error}). "
                         "Copy or save the checkpoint again") from error


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises ValueError if the file is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"a checkpoint needs a JSON file at {path}; it cannot be read ({error}). "
                         "Copy or save the checkpoint again") from error


def find(folder: str | Path) -> Path | None:
    """Where the checkpoint of `folder` lies: there, or aside if a save was killed while it took its place, or None."""
    folder = Path(folder).absolute()
    return next((path for path in (folder, _aside(folder)) if (path / "config.json").is_file()), None)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def _refuse_foreign(folder: Path) -> None:
    """A save removes the old folder whole, so a folder with anything else in it is not ours to replace."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"a checkpoint is a folder, and {folder} is a file; choose another name")
    foreign = sorted(entry.name for entry in folder.iterdir() if entry.name not in FILES + TRAINING_FILES)
    if not foreign and (folder / "config.json").exists() and FORMAT not in (folder / "config.json").read_text(errors="replace"):
        foreign = ["a config.json of another program"]
    if foreign:
        raise ValueError(f"saving replaces the whole folder, so it may hold a checkpoint and nothing else; {folder} also "
                         f"holds {', '.join(foreign[:4])}. Choose an empty or a new folder")


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _force_to_disk(folder: Path) -> None:
    """A rename may reach the disk before the bytes do; after a power cut that would be a complete folder of empty files."""
    for path in folder.iterdir():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _describe(folder: str | Path) -> tuple[Path, dict[str, Any]]:
    path = find(folder)
    if path is None:
        state = "is not there" if not Path(folder).exists() else "has no config.json"
        raise ValueError(f"a checkpoint is a folder with {', '.join(FILES)}; {folder} {state}. "
                         "Write one with llama_from_scratch.checkpoint.native.save or `llama train`")
    about = read_json(path / "config.json")
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ValueError(f"config.json of our checkpoints says \"format\": {FORMAT!r}; the one in {folder} does not"
                         + (", it is a Hugging Face model" if isinstance(about, dict) and "model_type" in about else "")
                         + ". Give a folder that native.save or `llama train` wrote")
    if missing := [key for key in ("model", "tokenizer") if not isinstance(about.get(key), dict)]:
        raise ValueError(f"config.json needs the objects \"model\" and \"tokenizer\"; in {folder} there is no "
                         f"{' and no '.join(missing)}. Copy or save the checkpoint again")
    return path, about


def _config(path: Path, about: Mapping[str, Any]) -> LlamaConfig:
    try:
        return LlamaConfig.from_dict(about["model"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path / 'config.json'} describes no model of this version: {error}") from error


def _tokenizer(path: Path, about: Mapping[str, Any]) -> Tokenizer | SentencePiece:
    keys, file = about["tokenizer"], path / "tokenizer.model"
    if keys.keys() not in (_OF_RANKS, _OF_PIECES):
        raise ValueError(f"the \"tokenizer\" of config.json has {' and '.join(sorted(_OF_RANKS))}, or for SentencePiece "
                         f"{', '.join(sorted(_OF_PIECES))}; in {path} it has {', '.join(sorted(keys)) or 'nothing'}. "
                         "Copy or save the checkpoint again")
    if not file.is_file():
        raise ValueError(f"a checkpoint is a folder with {', '.join(FILES)}; {path} has no tokenizer.model. "
                         "Copy or save the checkpoint again")
    if keys.keys() == _OF_PIECES:
        if keys["prefix"] not in get_args(Prefix) or not isinstance(keys["bos"], str) or not isinstance(keys["eos"], str):
            raise ValueError(f"the prefix of SentencePiece is one of {', '.join(get_args(Prefix))}, bos and eos are names; "
                             f"{path} has {keys}. Copy or save the checkpoint again")
        return SentencePiece(SentencePiece.load(file).pieces, **keys)
    return Tokenizer.load(file, special_tokens=tuple(keys["special_tokens"]), pattern=keys["pattern"])


def _tensors(entries: Mapping[str, Entry], dtype: torch.dtype | None = None) -> Iterator[tuple[str, Tensor]]:
    """Copies, so that the file is not held open: training goes on to write the next one in its place."""
    for name, entry in entries.items():
        yield name, safetensors_file.read(entry, dtype=dtype)


@torch.no_grad()
def _fill(model: Llama, path: Path) -> None:
    tensors, weights = read_tensors(path / "model.safetensors"), dict(model.named_parameters())
    _refuse_others({n: (t.dtype, tuple(t.shape)) for n, t in tensors.items()},
                   {n: tuple(w.shape) for n, w in weights.items()}, path)
    for name, weight in weights.items():
        # Through .data, so that a tied head stays the same parameter; copied, so that the file is not held open.
        weight.data = tensors[name].to(weight.device, copy=True)


def _refuse_others(found: Mapping[str, tuple[torch.dtype, tuple]], needed: Mapping[str, tuple], path: Path) -> None:
    problems = [f"{name} is missing" for name in needed if name not in found]
    problems += [f"{name} is not of this model" for name in found if name not in needed]
    problems += [f"{name} is {dtype} {shape}, not floating-point {needed[name]}" for name, (dtype, shape) in found.items()
                 if name in needed and (shape != needed[name] or not dtype.is_floating_point)]
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError(f"the tensors in {path / 'model.safetensors'} must be those of its config; "
                         f"{'; '.join(sorted(problems)[:8])}{more}. Copy or save the checkpoint again")
