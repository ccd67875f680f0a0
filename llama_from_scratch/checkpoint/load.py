"""Any checkpoint -> a model that runs, and its tokenizer.

This module finds out which format a path holds, and whether the model fits into memory.

Notebook 18.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import torch

from llama_from_scratch.checkpoint import (
    gguf,
    gguf_file,
    gguf_split,
    hub,
    hugging_face,
    llama2c,
    meta,
    native,
    tokenizer_files,
)
from llama_from_scratch.checkpoint.folders import find
from llama_from_scratch.checkpoint.json_file import read_json
from llama_from_scratch.checkpoint.machine import refuse_absent_device
from llama_from_scratch.checkpoint.opened import (
    OnTensor,
    Opened,
    build,
    refuse_what_cannot_be_built,
)
from llama_from_scratch.checkpoint.tokenizer_file import read_file
from llama_from_scratch.config import LlamaConfig
from llama_from_scratch.foreign import is_there, naming, opened, shown
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer import released
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer

_NEED = "a checkpoint needs a folder or a weight file"


def load(
    path: str | Path, *, revision: str | None = None, tokenizer: str | Path | None = None,
    dtype: torch.dtype | None = None, device: torch.device | str = "cpu",
    memory_bytes: int | None = None, on_tensor: OnTensor | None = None,
) -> tuple[Llama, Any]:
    """Returns the model of a checkpoint in any known format, and its tokenizer.

    `path`: a file or folder, or the name of a model on the Hugging Face Hub, such as
    "meta-llama/Llama-3.2-1B-Instruct"; an existing path comes first. `revision`: a branch, a tag or
    a commit on the Hub, by default the main branch. `tokenizer`: a file or folder with the
    tokenizer, by default the checkpoint's. `dtype`: by default the dtype of the files.
    `memory_bytes`: the most that the weights may need, by default what is free on `device`.
    `on_tensor(n_bytes_done, n_bytes)` is called after each tensor, for a progress bar.

    The weights may be views of the files, which are read only when they are used. So do not change
    the files while the model is in use.

    Raises ValueError if there is no such device, if nothing is recognized at `path`, if a file is
    damaged, if the model does not fit into memory, or if config, tensors and tokenizer do not
    belong together.
    """
    refuse_absent_device(device)  # before a download
    opened = open_checkpoint(path, revision=revision, tokenizer=tokenizer)
    # Before the tokenizer is read, which may take seconds.
    refuse_what_cannot_be_built(opened, dtype=dtype, device=device, memory_bytes=memory_bytes)
    found = opened.tokenizer()
    model = build(
        opened, dtype=dtype, device=device, memory_bytes=memory_bytes, on_tensor=on_tensor)
    return model, found


def open_checkpoint(
    path: str | Path, *, revision: str | None = None, tokenizer: str | Path | None = None
) -> Opened:
    """Returns the checkpoint at `path`, without reading its weights yet.

    The arguments and errors are as in `load`.
    """
    path = _local(path, revision)
    with naming(path):
        found = _opened(path)
    if tokenizer is None:
        return found
    return dataclasses.replace(
        found, read_tokenizer=partial(_named_tokenizer, Path(tokenizer), found.config))


def _named_tokenizer(path: Path, config: LlamaConfig) -> AnyTokenizer:
    """Returns the tokenizer in a file that the caller named, after checking that it fits."""
    generation = tokenizer_files.generation_of(config)
    n_special = len(released.SPECIAL_TOKENS[generation])
    n_ranks = tokenizer_files.n_tokens_of(config) - n_special
    found = read_file(path, n_ranks=n_ranks, generation=generation)
    if found is None:
        raise ValueError("a tokenizer must be a tokenizer.json, tokenizer.model or tokenizer.bin, "
                         f"or a GGUF file with only a vocabulary; {path} is not. Give one of those")
    tokenizer_files.refuse_other_vocabulary(found, config, where=str(path))
    return found


def _opened(path: Path) -> Opened:
    """Returns the checkpoint in a file or folder on this machine."""
    if gguf_file.is_one(path):
        return gguf.open_checkpoint(path)
    if llama2c.is_one(path):
        return llama2c.open_checkpoint(path)
    is_hugging_face, is_meta = is_there(path / "config.json"), is_there(path / "params.json")
    if is_hugging_face and is_meta:
        raise ValueError(f"a folder must hold only one checkpoint; {path} has the config.json of "
                         "one and the params.json of another. Move one of them, or choose one with "
                         "checkpoint.hugging_face.open_checkpoint or "
                         "checkpoint.meta.open_checkpoint")
    if is_meta:
        return meta.open_checkpoint(path)
    # If the only weights are a GGUF file, a config.json describes the model it was made from.
    if (path.is_dir() and not any(path.glob("*.safetensors"))
        and (only_one := gguf_split.only_one_in(path)) is not None):
        return gguf.open_checkpoint(only_one)
    found = path if is_hugging_face else find(path)
    if found is not None and _format_of(found) != native.FORMAT:
        return hugging_face.open_checkpoint(path)
    if found is not None:
        return native.open_checkpoint(path)
    if is_there(path / "adapter_config.json"):
        raise ValueError("a checkpoint holds a model; the folder "
                         f"{path} holds adapters, which belong to one. Load the model that they "
                         "were trained on first, and then: tune.lora.load(model, folder)")
    if is_there(path) and not path.is_dir():
        with opened(path, need=_NEED):
            pass
        raise ValueError("a checkpoint must be a folder with config.json or params.json, or a GGUF "
                         f"file, or a .bin of llama2.c; {path} is another kind of file. Give its "
                         "folder, or download it again")
    state = ("has none of these. Give the folder with the weights" if path.is_dir()
             else "does not exist. Check the path")
    raise ValueError("a checkpoint must be a folder with config.json (our own or Hugging Face's "
                     "layout) or params.json (Meta's), or a GGUF file or a folder with one, or a "
                     f".bin of llama2.c; {path} {state}")


def _local(path: str | Path, revision: str | None) -> Path:
    """Returns the path of a checkpoint, after downloading it if `path` is a name on the Hub."""
    has_path = is_there(path) or find(path) is not None
    if not has_path and isinstance(path, str) and hub.is_id(path):
        return hub.fetch(path, revision=revision)
    if not has_path and isinstance(path, str):
        raise ValueError("a checkpoint must be an existing path or a name on the Hugging Face Hub, "
                         f"owner/name; {shown(path)} is neither. Check the spelling and the folder "
                         "you are in")
    if revision is not None:
        raise ValueError("a revision needs a name on the Hugging Face Hub; "
                         f"{path} is a path, got revision={revision!r}. Leave the revision out")
    return Path(path)


def _format_of(folder: Path) -> Any:
    about = read_json(folder / "config.json")
    return about.get("format") if isinstance(about, dict) else None
