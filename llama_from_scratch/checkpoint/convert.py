"""From any format of a checkpoint to any other; what the other cannot say is refused.

Nothing is rounded unless a dtype is asked for: what a format cannot hold exactly it gets in
float32, or not at all. The target appears whole or not at all, and never in place of something
else.

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
"""Formats that have no place for end ids and chat templates."""
PACKED = "q8_0"
"""8 bits a weight and a scale for each 32, which GGUF alone has."""
_GGUF_KINDS = {torch.float32: "F32", torch.bfloat16: "F32", torch.float16: "F16"}


def convert(
    source: str | Path, target: str | Path, *, format: str, dtype: str | None = None,
    n_shards: int = 1, tokenizer: str | Path | None = None, chat_format: str | None = None,
    on_tensor: OnTensor | None = None,
) -> None:
    """Writes the checkpoint at `source`, of any format that is read, to a new `target`.

    `target` is a file for "gguf", a folder for all others. `dtype`: "float32", "bfloat16",
    "float16", and for "gguf" also "q8_0"; by default that of the source, or float32 where the
    format has no such dtype. `n_shards`: the number of weight files, see `write`. `tokenizer`: a
    file with the tokenizer, by default that of the source. `chat_format`: a name in
    tokenizer.chat_format.FORMATS, for a model that was made for chats and whose files do not say
    so; the target says it then where its format can (`NO_CHATS`).
    `on_tensor(n_bytes_done, n_bytes)` is called after each tensor is read.

    Raises ValueError if there is something at `target`, if nothing can be written there or another
    process does so now, if nothing is recognized at `source`, or if
    the format has no words for this model, its dtype or its tokenizer; OSError where the disk
    refuses. Either leaves nothing behind.
    """
    refuse_what_cannot_be(target, format=format, dtype=dtype, n_shards=n_shards)
    if chat_format is not None and chat_format not in CHAT_FORMATS:
        raise ValueError(f"chat formats are {', '.join(CHAT_FORMATS)}; got {chat_format!r}; "
                         f"{nearest(chat_format, CHAT_FORMATS)}")
    with held(target):  # from before the weights are read, so that no other process writes there
        opened = open_checkpoint(source, tokenizer=tokenizer)
        found = opened.tokenizer()
        chats = CHAT_FORMATS.get(chat_format or "") or inspect.chat_format(opened.config, found)
        if chat_format is not None or (chats is not None and not found.prompting.templates):
            found.prompting = prompting_for(chats, found)
        # It holds every other dtype of a checkpoint but float64 exactly
        wanted = opened.dtype or torch.float32
        model = build(opened, dtype=DTYPES.get(dtype or "", wanted), on_tensor=on_tensor)
        write(target, model, tokenizer=found, format=format, is_packed=dtype == PACKED,
              n_shards=n_shards)


def write(
    target: str | Path, model: Llama, *, tokenizer: Any, format: str, is_packed: bool = False,
    n_shards: int = 1
) -> None:
    """Writes `model` in its own dtype, and `tokenizer`, to `target`, which must be new.

    All or nothing. `n_shards` weight files, of which Meta's layout has exactly that many, and
    Hugging Face's at most, as no tensor is cut there. `is_packed`: matrices in q8_0. Raises
    ValueError as `convert` does.
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
            raise ValueError(f"GGUF is written from float32, bfloat16 and float16; got {dtype}. "
                             "Ask for one of those")
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

    Reads nothing.
    """
    if format not in FORMATS:
        raise ValueError(f"formats that are written are {', '.join(FORMATS)}; got {format!r}; "
                         f"{nearest(format, FORMATS)}")
    if dtype is not None and dtype not in (*DTYPES, PACKED):
        raise ValueError(f"dtypes that are written are {', '.join(DTYPES)}, and {PACKED} in gguf; "
                         f"got {dtype!r}")
    cannot = {"gguf": ("bfloat16",),
              "llama2c": ("bfloat16", "float16", PACKED)}.get(format, (PACKED,))
    if dtype in cannot:
        others = [name for name in (*DTYPES, PACKED) if name not in cannot]
        raise ValueError(f"{format} is written in {', '.join(others)}; got {dtype}. Choose one of "
                         "those, or leave it out")
    if n_shards < 1 or (n_shards > 1 and format not in ("hugging-face", "meta")):
        raise ValueError("hugging-face and meta have one weight file or more, the others one; got "
                         f"{n_shards} for {format}")
    if os.path.lexists(target):
        raise ValueError("a checkpoint is written to a new place, and there is something at "
                         f"{target}; choose another name, or remove it first")


def _shard_bytes(sizes: Sequence[int], n_shards: int) -> int:
    """Returns the least size limit with which tensors of these sizes fill `n_shards` files at most.

    The files are filled one after the other.
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
