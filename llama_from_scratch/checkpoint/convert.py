"""Converts a checkpoint from any format to any other, or refuses what the other cannot describe.

Nothing is rounded unless you ask for a dtype. Numbers that a format cannot hold exactly are written
in float32, or the conversion is refused. The target appears as a whole or not at all, and never
replaces anything.

Notebook 18.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from llama_from_scratch.checkpoint import gguf, hugging_face, inspect, llama2c, meta, native
from llama_from_scratch.checkpoint.folders import creating_folder, held
from llama_from_scratch.checkpoint.load import open_checkpoint
from llama_from_scratch.checkpoint.opened import OnTensor, build
from llama_from_scratch.config import nearest
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.chat_format import FORMATS as CHAT_FORMATS
from llama_from_scratch.tokenizer.chat_format import prompting_for
from llama_from_scratch.tokenizer.hugging_face import plainly

FORMATS = ("hugging-face", "meta", "gguf", "llama2c", "native")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
NO_CHATS = ("meta", "llama2c")
"""Formats that cannot store end ids and chat templates."""
PACKED = "q8_0"
"""8 bits per weight and one scale per 32 weights, which only GGUF has."""
_GGUF_KINDS = {torch.float32: "F32", torch.bfloat16: "F32", torch.float16: "F16"}


def convert(
    source: str | Path, target: str | Path, *, format: str, dtype: str | None = None,
    n_shards: int = 1, tokenizer: str | Path | None = None, chat_format: str | None = None,
    on_tensor: OnTensor | None = None,
) -> None:
    """Writes the checkpoint at `source`, in any format that can be read, to a new `target`.

    `target`: a file for "gguf", a folder for all other formats. `dtype`: "float32", "bfloat16",
    "float16", and for "gguf" also "q8_0"; by default the source's dtype, or float32 if the format
    does not have that. `n_shards`: the number of weight files, see `write`. `tokenizer`: a file
    with the tokenizer, by default the source's. `chat_format`: a name in
    tokenizer.chat_format.FORMATS, for a model made for chats whose files do not say so; the target
    then says it, except in the formats `NO_CHATS`. `on_tensor(n_bytes_done, n_bytes)` is called
    after each tensor is read.

    Raises ValueError if something is at `target`, if it cannot be written or another process is
    writing it, if nothing is recognized at `source`, or if the format cannot describe this model,
    its dtype or its tokenizer. Raises OSError if the disk fails. After an error nothing is left at
    `target`.
    """
    refuse_what_cannot_be(target, format=format, dtype=dtype, n_shards=n_shards)
    if chat_format is not None and chat_format not in CHAT_FORMATS:
        raise ValueError(f"a chat format must be one of {', '.join(CHAT_FORMATS)}; got "
                         f"{chat_format!r}; "
                         f"{nearest(chat_format, CHAT_FORMATS)}")
    with held(target):  # already while reading, so that no other process writes there
        opened = open_checkpoint(source, tokenizer=tokenizer)
        found = opened.tokenizer()
        chats = CHAT_FORMATS.get(chat_format or "") or inspect.chat_format(opened.config, found)
        if chat_format is not None or (chats is not None and not found.prompting.templates):
            found.prompting = prompting_for(chats, found)
        # float32 holds every other dtype of a checkpoint exactly, except float64
        wanted = opened.dtype or torch.float32
        model = build(opened, dtype=DTYPES.get(dtype or "", wanted), on_tensor=on_tensor)
        write(target, model, tokenizer=found, format=format, is_packed=dtype == PACKED,
              n_shards=n_shards)


def write(
    target: str | Path, model: Llama, *, tokenizer: Any, format: str, is_packed: bool = False,
    n_shards: int = 1
) -> None:
    """Writes `model` in its own dtype, and `tokenizer`, to `target`, which must be new.

    It writes everything or nothing. `n_shards`: Meta's layout gets exactly this many weight files,
    Hugging Face's at most this many, because it does not cut tensors. `is_packed`: writes matrices
    in q8_0. Raises ValueError as `convert` does.
    """
    dtype = model.dtype
    if format in ("meta", "gguf", "llama2c"):
        tokenizer = plainly(tokenizer)
    refuse_what_cannot_be(target, format=format, dtype=PACKED if is_packed else None,
                          n_shards=n_shards)
    Path(target).absolute().parent.mkdir(parents=True, exist_ok=True)
    if format == "hugging-face":
        shard_bytes = _shard_bytes([weight.nbytes for weight in model.parameters()], n_shards)
        hugging_face.write(target, model, tokenizer=tokenizer, shard_bytes=shard_bytes)
    elif format == "meta":
        meta.write(target, model, tokenizer=tokenizer, n_shards=n_shards)
    elif format == "gguf":
        if dtype not in _GGUF_KINDS:
            raise ValueError("GGUF can be written from float32, bfloat16 and float16; got "
                             f"{dtype}. Choose one of those")
        gguf.write(target, model, tokenizer=tokenizer,
                   kind="Q8_0" if is_packed else _GGUF_KINDS[dtype])
    elif format == "llama2c":
        llama2c.write(target, model, tokenizer=tokenizer)
    else:
        with creating_folder(target) as unfinished:
            native.write(unfinished, model, tokenizer=tokenizer)


def refuse_what_cannot_be(
    target: str | Path, *, format: str, dtype: str | None, n_shards: int
) -> None:
    """Raises ValueError for a target that exists or for settings that do not go together.

    It reads no file.
    """
    if format not in FORMATS:
        raise ValueError(f"formats that can be written are {', '.join(FORMATS)}; got {format!r}; "
                         f"{nearest(format, FORMATS)}")
    if dtype is not None and dtype not in (*DTYPES, PACKED):
        raise ValueError(f"dtypes that can be written are {', '.join(DTYPES)}, and {PACKED} in "
                         f"gguf; got {dtype!r}")
    cannot = {"gguf": ("bfloat16",),
              "llama2c": ("bfloat16", "float16", PACKED)}.get(format, (PACKED,))
    if dtype in cannot:
        others = [name for name in (*DTYPES, PACKED) if name not in cannot]
        raise ValueError(f"{format} can be written in {', '.join(others)}; got {dtype}. Choose one "
                         "of those, or leave it out")
    if n_shards < 1 or (n_shards > 1 and format not in ("hugging-face", "meta")):
        raise ValueError("hugging-face and meta have one or more weight files, other formats have "
                         f"one; got {n_shards} for {format}")
    if os.path.lexists(target):
        raise ValueError("a checkpoint must be written to a new place; there is something at "
                         f"{target}. Choose another name, or remove it first")


def _shard_bytes(sizes: Sequence[int], n_shards: int) -> int:
    """Returns a file size limit with which tensors of these sizes fill at most `n_shards` files.

    The limit is the smallest one within 1%. The files are filled one after the other.
    """
    limit = max(*sizes, -(-sum(sizes) // n_shards))
    while True:
        n_files, room = 1, limit
        for size in sizes:
            if size > room:
                n_files, room = n_files + 1, limit
            room -= size
        if n_files <= n_shards:
            return limit
        limit += -(-limit // 100)
