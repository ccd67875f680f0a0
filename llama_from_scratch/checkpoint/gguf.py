"""Checkpoints for llama.cpp in one GGUF file or its parts: config, tokenizer and weights.

The numbers of a matrix may be packed into 2 to 8 bits; norms and routers are fp32. Reading unpacks
one tensor at a time.

Notebook 18. Llama 1 to 3.3, and the text of Llama 4. Sources: ggml, docs/gguf.md; gguf-py,
constants.py; llama.cpp, convert_hf_to_gguf.py.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llama_from_scratch.checkpoint import (
    gguf_file,
    gguf_prompting,
    gguf_split,
    gguf_tokenizer,
    safetensors_file,
    tokenizer_files,
)
from llama_from_scratch.checkpoint.described import refuse_undescribed
from llama_from_scratch.checkpoint.gguf_blocks import KINDS
from llama_from_scratch.checkpoint.gguf_config import (
    DIVISORS,
    architecture_of,
    config_from,
    config_to,
    divisors_of,
)
from llama_from_scratch.checkpoint.gguf_file import DTYPES, PackedEntry
from llama_from_scratch.checkpoint.names import GGUF
from llama_from_scratch.checkpoint.opened import Opened
from llama_from_scratch.checkpoint.strict import refuse_differences, refuse_impossible_sizes
from llama_from_scratch.checkpoint.translation import Translation, to_ours, to_theirs, translation
from llama_from_scratch.model.transformer import Llama

_ROUTER = "ffn_gate_inp.weight"
"""The end of the name of a matrix that llama.cpp never packs."""
_FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7}


def open_checkpoint(file: str | Path) -> Opened:
    """Returns the checkpoint in `file`, its weights not yet read.

    `file`: a whole file, or any part of a split file; the other parts must be in the same folder.
    The dtype is the matrices' dtype, or float32 if they are packed. Raises ValueError if a file is
    missing or damaged, if this library does not build this kind of model, or if the tensors are not
    exactly the model's.
    """
    file = Path(file)
    header, files = gguf_split.whole(file)
    tensors = dict(header.tensors)
    divisors = tensors.pop(DIVISORS, None)
    config = config_from(header.facts, tensors, divisors, where=file)
    n_values = sum(math.prod(entry.shape) for entry in tensors.values())
    refuse_impossible_sizes(config, n_values=n_values, where=file)
    how = translation(GGUF, config)
    refuse_differences({name: entry.shape for name, entry in tensors.items()}, how.theirs,
                       where=str(file))
    kinds = {entry.kind.name for entry in tensors.values() if len(entry.shape) > 1}
    return Opened(format="GGUF", where=file, files=files, config=config,
                  kinds=tuple(sorted({entry.kind.name for entry in tensors.values()})),
                  dtype=DTYPES.get(kinds.pop(), torch.float32) if len(kinds) == 1
                  else torch.float32,
                  tensors=partial(_tensors, how, files, tensors),
                  read_tokenizer=partial(gguf_tokenizer.read_tokenizer, header.facts, config,
                                         where=file),
                  prompting=gguf_prompting.read_prompting(header.facts, config, where=file))


def write(file: str | Path, model: Llama, *, tokenizer: Any, kind: str = "F32") -> None:
    """Writes `model` and `tokenizer` to `file`, all or nothing.

    `kind`: of the matrices, "F32", "F16" or "Q8_0".
    Raises ValueError if the model is not what its config describes, if the config would be read
    back differently, if numbers are too large for F16, if rows are not multiples of 32 in Q8_0, or
    if the tokenizer has ids without a row in the embedding.
    """
    if kind not in _FILE_TYPES:
        raise ValueError(f"kinds that can be written are {', '.join(_FILE_TYPES)}; got {kind!r}")
    refuse_undescribed(model)
    file, config = Path(file), model.config
    tokenizer_files.refuse_other_vocabulary(tokenizer, config, where=str(file))
    facts = {"general.architecture": ("str", architecture_of(config)),
             "general.file_type": ("u32", _FILE_TYPES[kind])}
    facts |= {"general.quantization_version": ("u32", 2)} if kind == "Q8_0" else {}
    facts |= config_to(config) | gguf_tokenizer.facts_of(tokenizer, config)
    facts |= gguf_prompting.facts_of(tokenizer)
    how, weights = translation(GGUF, config), dict(model.named_parameters())
    by_name = {kind.name: kind for kind in KINDS.values()}
    tensors = [(name, by_name["F32" if len(shape) == 1 or name.endswith(_ROUTER) else kind],
                to_theirs(how, weights, name)) for name, shape in how.theirs.items()]
    if config.rope_scaling is not None:
        tensors.append((DIVISORS, by_name["F32"], divisors_of(config)))
    gguf_file.write(file, facts, tensors)


def _tensors(
    how: Translation, files: Sequence[Path], entries: Mapping[str, PackedEntry],
    dtype: torch.dtype | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Returns each tensor: a view of its mapped file if nothing changes, or else a new tensor.

    The parts of a mapped file that were read count as our memory until the mapping is closed. So a
    tensor that is unpacked gets its own mapping.
    """
    whole = {file: safetensors_file.mapped(file) for file in files}
    dtypes = {name: DTYPES.get(entry.kind.name, torch.float32) for name, entry in entries.items()}

    def read(name: str, *, dtype: torch.dtype | None, is_kept: bool) -> Tensor:
        entry = entries[name]
        is_view = is_kept and entry.kind.unpack is None and dtype in (None, dtypes[name])
        data = whole[entry.file] if is_view else safetensors_file.mapped(entry.file)
        return gguf_file.read_tensor(entry, data, dtype=dtype)

    return to_ours(how, read, dtypes=dtypes, dtype=dtype)
