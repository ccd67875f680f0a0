"""What every format's `open_checkpoint` returns: a config, and weights that are not read yet.

A model is built from it without holding all weights in memory twice. First the model has only
shapes, without memory. Then the tensors are put into it one by one. A model that does not fit into
memory is refused before the first tensor is read.

Notebook 18.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llama_from_scratch.checkpoint.machine import refuse_absent_device, refuse_what_does_not_fit
from llama_from_scratch.checkpoint.names import shapes
from llama_from_scratch.checkpoint.strict import refuse_differences
from llama_from_scratch.config import LlamaConfig, record
from llama_from_scratch.foreign import naming
from llama_from_scratch.model.rope import Rope
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.model.unwritten import unwritten
from llama_from_scratch.tokenizer.prompting import NOTHING_SAID, Prompting
from llama_from_scratch.vision.adapter import VisionLlama
from llama_from_scratch.vision.early_fusion import FusionLlama
from llama_from_scratch.vision.fusion_encoder import TileRope
from llama_from_scratch.vision.tiles import GridTiling, Tiling

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
OnTensor = Callable[[int, int], object]


@record
class Opened:
    """A checkpoint of any format, opened.

    `where`: the file or folder. `files`: the files of the weights. `kinds`: how the tensors are
    stored, such as ("bfloat16",) or ("F32", "Q4_K"). `dtype`: of all tensors in the files; None if
    they differ. `tensors(dtype)`: yields each parameter once, with our name and in our layout, and
    reads it only then; None means the dtype of the file. The tensors may be views of a mapped file.
    `read_tokenizer()`: reads the tokenizer. `prompting`: what the files say about texts, such as
    the ids that end a text; the tokenizer gets a copy. `tiling`: how images are cut, None for a
    model that does not see; the model gets it.
    """

    format: str
    where: Path
    files: tuple[Path, ...]
    config: LlamaConfig
    kinds: tuple[str, ...]
    dtype: torch.dtype | None
    tensors: Callable[[torch.dtype | None], Iterator[tuple[str, Tensor]]]
    read_tokenizer: Callable[[], Any]
    prompting: Prompting = NOTHING_SAID
    tiling: Tiling | GridTiling | None = None

    @property
    def n_bytes(self) -> int:
        """The bytes of all files of the weights together."""
        return sum(file.stat().st_size for file in self.files)

    def tokenizer(self) -> Any:
        """Returns the tokenizer; the first call reads it."""
        return self._tokenizer

    @functools.cached_property
    def _tokenizer(self) -> Any:
        with naming(self.where):
            tokenizer = self.read_tokenizer()
        said = self.prompting
        if said.adds_bos is None:  # the tokenizer's own file decides
            said = replace(said, adds_bos=tokenizer.prompting.adds_bos)
        tokenizer.prompting = said
        return tokenizer

    @property
    def stop_ids(self) -> frozenset[int]:
        """The ids after which generation ends: from the files, or otherwise the tokenizer's."""
        return self.tokenizer().stop_ids


def common_dtype(dtypes: set[torch.dtype]) -> torch.dtype | None:
    """Returns the dtype of all tensors of a checkpoint, or None if there are several dtypes.

    Raises ValueError for a quantized dtype.
    """
    if odd := sorted(str(d) for d in dtypes if not d.is_floating_point or d.itemsize < 2):
        raise ValueError("weights must be float64, float32, float16 or bfloat16; got "
                         f"{', '.join(odd)}, as in a quantized checkpoint. Use the checkpoint that "
                         "it was made from")
    return next(iter(dtypes)) if len(dtypes) == 1 else None


def kinds_of(dtypes: set[torch.dtype]) -> tuple[str, ...]:
    """Returns the names of dtypes, such as ("bfloat16", "float32")."""
    return tuple(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))


def refuse_what_cannot_be_built(
    opened: Opened, *, dtype: torch.dtype | None, device: torch.device | str,
    memory_bytes: int | None
) -> torch.dtype:
    """Returns the dtype that the model of a checkpoint will have: `dtype`, or the files' dtype.

    It reads no tensor. Raises ValueError if there is no such device, if `dtype` is None and the
    files have several dtypes, or if the model would not fit into memory.
    """
    refuse_absent_device(device)
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"a model can compute in {', '.join(map(str, DTYPES))}; got "
                         f"dtype={dtype!r}. Choose one of those (on the command line --dtype), or "
                         "leave it out to use the dtype of the files")
    dtype = dtype or opened.dtype
    if dtype is None:
        raise ValueError("a model computes in one dtype; the tensors in "
                         f"{opened.where} have several dtypes. Choose dtype=torch.bfloat16, or "
                         "torch.float32 for the exact values, in load(path, dtype=...) (on the "
                         "command line --dtype bfloat16, or --dtype float32)")
    refuse_what_does_not_fit(opened.config, where=opened.where, dtype=dtype, device=device,
                             memory_bytes=memory_bytes)
    return dtype


def build(
    opened: Opened, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu",
    memory_bytes: int | None = None, on_tensor: OnTensor | None = None,
) -> Llama:
    """Returns the model of a checkpoint, in `dtype` or the dtype of its files, on `device`.

    `memory_bytes`: the most that it may need, by default what is free.
    `on_tensor(n_bytes_done, n_bytes)` is called after each tensor. Raises ValueError as
    `refuse_what_cannot_be_built` does, or if the tensors do not fit the config exactly.
    """
    dtype = refuse_what_cannot_be_built(opened, dtype=dtype, device=device,
                                        memory_bytes=memory_bytes)
    model = unwritten(opened.config)
    owners = dict(model.named_modules())
    needed, done, n_done = shapes(opened.config), {}, 0
    for name, tensor in opened.tensors(dtype):
        if name in done:
            raise AssertionError(f"{opened.format} yielded {name} twice")
        done[name] = tuple(tensor.shape)
        if needed.get(name) == done[name]:
            owner, _, leaf = name.rpartition(".")
            setattr(owners[owner], leaf, nn.Parameter(tensor.to(device=device, dtype=dtype)))
        n_done += tensor.numel() * dtype.itemsize
        if on_tensor:
            on_tensor(n_done, opened.config.n_params * dtype.itemsize)
    refuse_differences(done, needed, where=str(opened.where))
    if opened.config.is_tied:
        model.output.weight = model.tok_embeddings.weight
    with torch.device(device):
        model.rope = Rope(opened.config)
    if isinstance(model, VisionLlama):
        model.tiling = opened.tiling
        encoder = model.vision.encoder
        encoder.n_tiles = encoder.n_tiles.to(device)
    elif isinstance(model, FusionLlama):
        model.tiling = opened.tiling
        with torch.device(device):
            model.vision.encoder.rope = TileRope(opened.config.vision)
    return model
