"""What every format's `read` gives: a checkpoint whose config is known and whose weights have not been touched yet.

A model is built from it without ever being there twice: first its shape alone, without memory, then one tensor after the
other takes its place. What does not fit into memory is refused before the first of them is read.

Notebook 18.
"""

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from llama_from_scratch.checkpoint import tokenizer_files
from llama_from_scratch.checkpoint.names import refuse_differences, shapes
from llama_from_scratch.config import LlamaConfig, record
from llama_from_scratch.model.rope import Rope
from llama_from_scratch.model.transformer import Llama

OnTensor = Callable[[int, int], object]


@record
class Opened:
    """A checkpoint of any format, opened.

    `where`: the file or folder. `files`: those of the weights. `kinds`: how the tensors are stored there, such as
    ("bfloat16",) or ("F32", "Q4_K"). `dtype`: that of all tensors in the files, None if they differ. `tensors(dtype)`: each
    parameter once, under our name and in our layout, the next one read when it is asked for; with None in the dtype it
    was saved in. They may be views of a mapped file. `read_tokenizer()` reads the tokenizer. `end_ids`: the ids that end a
    text by what the files say, none where they leave it to the tokenizer.
    """

    format: str
    where: Path
    files: tuple[Path, ...]
    config: LlamaConfig
    kinds: tuple[str, ...]
    dtype: torch.dtype | None
    tensors: Callable[[torch.dtype | None], Iterator[tuple[str, Tensor]]]
    read_tokenizer: Callable[[], Any]
    end_ids: frozenset[int] = frozenset()

    @property
    def n_bytes(self) -> int:
        """How long the files of the weights are, together."""
        return sum(file.stat().st_size for file in self.files)

    def tokenizer(self) -> Any:
        """The tokenizer, read when it is first asked for."""
        return self._tokenizer

    @functools.cached_property
    def _tokenizer(self) -> Any:
        return self.read_tokenizer()

    @property
    def stop_ids(self) -> frozenset[int]:
        """The ids after which there is nothing more to generate: what the files say or else the tokenizer's own ends."""
        return self.end_ids or tokenizer_files.ends(self.tokenizer())


def common_dtype(dtypes: set[torch.dtype]) -> torch.dtype | None:
    """The one dtype of a checkpoint's tensors, or None if there are several. Raises ValueError for one that is quantized."""
    if odd := sorted(str(d) for d in dtypes if not d.is_floating_point or d.itemsize < 2):
        raise ValueError(f"weights are read as float64, float32, float16 or bfloat16; these hold {', '.join(odd)}, as a "
                         "quantized checkpoint does. Take the checkpoint it was made from")
    return next(iter(dtypes)) if len(dtypes) == 1 else None


def kinds_of(dtypes: set[torch.dtype]) -> tuple[str, ...]:
    """Dtypes by their names, such as ("bfloat16", "float32")."""
    return tuple(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))


def build(
    opened: Opened, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu",
    memory_bytes: int | None = None, on_tensor: OnTensor | None = None,
) -> Llama:
    """The model of a checkpoint, in `dtype` or that of its files, on `device`.

    `memory_bytes`: what it may take, by default what is free. `on_tensor(n_bytes_done, n_bytes)` hears of each tensor.
    Raises ValueError if it would not fit, or if the tensors are not exactly those of the config.
    """
    dtype = dtype or opened.dtype
    if dtype is None:
        raise ValueError(f"the tensors in {opened.where} have several dtypes, of which a model computes in one; "
                         "choose it: dtype=torch.bfloat16, or torch.float32 for the exact values")
    refuse_what_does_not_fit(opened, dtype=dtype, device=device, memory_bytes=memory_bytes)
    with _Unwritten():
        model = Llama(opened.config)
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
    return model


class _Unwritten(TorchFunctionMode):
    """Under it modules are made whose parameters have a shape and no memory, and nothing is drawn for them.

    `torch.device("meta")` would do the same and take 50 ms, and two seconds the first time: there PyTorch runs `normal_`
    and `arange` in Python, and imports sympy for it.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.empty:
            return func(*args, **kwargs | {"device": "meta"})
        if func.__name__ in ("normal_", "uniform_", "fill_", "kaiming_uniform_"):
            target = args[0] if args else kwargs["tensor"]
            if target.is_meta:
                return target
        return func(*args, **kwargs)


def refuse_what_does_not_fit(
    opened: Opened, *, dtype: torch.dtype, device: torch.device | str, memory_bytes: int | None = None
) -> None:
    """Raises ValueError if the model of a checkpoint needs more memory than there is; reads none of its tensors."""
    room = free_bytes(torch.device(device)) if memory_bytes is None else memory_bytes
    need = opened.config.n_params * dtype.itemsize
    if room is None or need <= room:
        return
    smaller = " Ask for dtype=torch.bfloat16, which needs half, or take" if dtype.itemsize > 2 else " Take"
    raise ValueError("a model must fit into memory: the "
                     f"{opened.config.n_params / 1e9:.2f} billion parameters of {opened.where} need "
                     f"{need / 1e9:.2f} GB in {str(dtype).removeprefix('torch.')}, and {room / 1e9:.2f} GB are free on "
                     f"{device}.{smaller} a smaller model, close other programs, or use a larger machine")


def free_bytes(device: torch.device) -> int | None:
    """Memory that a new model could take, in bytes; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    try:
        machine = next(int(line.split()[1]) << 10 for line in Path("/proc/meminfo").read_text().splitlines()
                       if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):
            return None
    return min(machine, _container_free_bytes(Path("/sys/fs/cgroup"), machine))


def _container_free_bytes(group: Path, otherwise: int) -> int:
    """What the container around us leaves free; files it keeps cached give way when memory is needed."""
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return limit - used + int(stat["active_file"]) + int(stat["inactive_file"])
    except (OSError, ValueError, KeyError):
        return otherwise
