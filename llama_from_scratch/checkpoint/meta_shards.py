"""The .pth files of Meta's layout: cuts matrices into shards, and joins them again.

Every file holds a part of every matrix. The whole matrix is the concatenation of its parts along an
axis that the table of names gives. Norms are whole in each file. A .pth file is a pickle, which
could run code. So files are opened without running code, and only tensors are accepted from them.

Notebook 18. Sources: llama-models, models/checkpoint.py; transformers,
models/llama/convert_llama_weights_to_hf.py.
"""

import io
import itertools
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from llama_from_scratch.checkpoint.names import META, TABLE, Row
from llama_from_scratch.checkpoint.translation import (
    Translation,
    to_ours,
    to_theirs,
    translation,
)
from llama_from_scratch.config import LlamaConfig, record
from llama_from_scratch.foreign import is_there, opened, plain, shown

# What a damaged pickle or zip archive may raise on its way through torch.load.
_DAMAGE = (ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError,
           MemoryError, OSError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError,
           struct.error, zipfile.BadZipFile, zlib.error)
_NEED = "a checkpoint needs a whole .pth file"
_UNREAD = ("_extra_state", "freq_cis", "global_gate_stats_3E", "expert_activation_DE")
_EMBEDDING, _HEAD = (TABLE.name_of(role, META) for role in ("embedding", "head"))


@record
class Cut:
    """How a model is divided into `n_shards` files.

    `n_copies`: with more shards than key/value heads, this many neighboring shards hold the same
    head. `is_by_column`: each shard has some columns of the embedding, as in Llama 1 and 2, instead
    of some rows.
    """

    n_shards: int
    n_copies: int
    is_by_column: bool

    def axis(self, row: Row) -> int | None:
        """Returns the axis along which shards divide our parameter; None if each holds all of it.
        """
        return 1 if self.is_by_column and row.role == "embedding" else row.cut

    def n_parts(self, row: Row) -> int:
        """Returns the number of different parts of a divided parameter."""
        return self.n_shards // self.n_copies if row.heads == "n_kv_heads" else self.n_shards

    def part(self, whole: Tensor, row: Row, shard: int) -> Tensor:
        """Returns the part of our parameter in one shard, as a view."""
        axis, n_parts = self.axis(row), self.n_parts(row)
        if axis is None:
            return whole
        length = whole.shape[axis] // n_parts
        return whole.narrow(axis, shard // (self.n_shards // n_parts) * length, length)


def open_shard(file: Path) -> dict[str, Tensor]:
    """Returns the tensors of a .pth file, as views of the mapped file.

    Raises ValueError if the file is not a whole archive, or if its pickle is anything except a flat
    dict of tensors.
    """
    with opened(file, need=_NEED) as source:
        size = os.fstat(source.fileno()).st_size
        try:
            _refuse_forged_lengths(source)
            # Meta's programs add entries of bytes under names that nothing reads.
            with torch.serialization.safe_globals([io.BytesIO]):
                content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except _DAMAGE as error:
            reason = plain(str(error).split("\n")[0], max_chars=300)
            if isinstance(error, pickle.UnpicklingError):
                raise ValueError("a .pth file must hold only tensors, and nothing that runs; "
                                 f"{plain(file)} holds more ({reason}). Do not open it in another "
                                 "way unless you trust its maker") from error
            raise ValueError(f"{_NEED} at {plain(file)}; it cannot be read ({reason}). Copy or "
                             "download the checkpoint again") from error
    if not isinstance(content, dict):
        raise ValueError("a .pth file of a Llama must hold tensors by name; "
                         f"{plain(file)} holds a {type(content).__name__}. Download it again")
    content = {name: tensor for name, tensor in content.items() if not _is_unread(name)}
    for name, tensor in content.items():
        if odd := _oddness(name, tensor, size):
            raise ValueError("a .pth file of a Llama must hold plain tensors by name; "
                             f"{plain(name)} in {plain(file)} is {odd}. Download it again, or save "
                             "it with torch.save({name: tensor.contiguous(), ...})")
    _refuse_overlaps(content, file)
    return {name: tensor.detach() for name, tensor in content.items()}


def _is_unread(name: object) -> bool:
    """Returns whether an entry only repeats the config, or is a record of the training."""
    return isinstance(name, str) and (name in META.ignored or name.endswith(_UNREAD))


def _oddness(name: object, tensor: object, file_bytes: int) -> str | None:
    """Returns what is wrong with an entry of a .pth file; None for a plain tensor with a name.

    The order of the checks matters: some kinds of tensors do not have what later checks read.
    """
    if not isinstance(name, str):
        return f"stored under a {type(name).__name__} and not under a name"
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        return f"a {type(tensor).__name__}"
    if tensor.layout != torch.strided:
        return f"a sparse tensor ({str(tensor.layout).removeprefix('torch.')})"
    if tensor.is_quantized or tensor.is_nested:
        return "a quantized tensor" if tensor.is_quantized else "a nested tensor"
    if tensor.device.type != "cpu":
        return f"on the device {tensor.device.type!r}, without values in the file"
    if tensor.nbytes > file_bytes:
        return f"claimed to have {tensor.nbytes} bytes, and the file has {file_bytes}"
    if not tensor.is_contiguous() or tensor.is_conj() or tensor.is_neg():
        return f"a view with the steps {tensor.stride()} for the shape {tuple(tensor.shape)}"
    return None


def _refuse_overlaps(content: Mapping[str, Tensor], file: Path) -> None:
    """Raises ValueError for tensors that share memory, because many names could then fill memory.

    Only the head and the embedding may be the same.
    """
    last, end = "", 0
    for name, tensor in sorted(content.items(), key=lambda item: item[1].data_ptr()):
        if not tensor.nbytes:
            continue
        may_be_same = {last, name} == {_EMBEDDING, _HEAD}
        if tensor.data_ptr() < end and not may_be_same:
            raise ValueError("each tensor of a .pth file must have its own bytes; in "
                             f"{plain(file)} {shown(name)} shares bytes with {shown(last)}. Save "
                             "the file with a copy of each: torch.save({name: tensor.clone(), "
                             "...})")
        last, end = name, max(end, tensor.data_ptr() + tensor.nbytes)


def files_of(folder: Path) -> list[Path]:
    """Returns the .pth files of a checkpoint, in order.

    Raises ValueError if there are no files, or if one in between is missing.
    """
    files = sorted(folder.glob("consolidated.*.pth"))
    if is_there(folder / "consolidated.pth"):
        files.append(folder / "consolidated.pth")
    if not files:
        raise ValueError("a checkpoint in Meta's layout needs consolidated.00.pth and so on; "
                         f"{folder} has none. Download it again")
    expected = [f"consolidated.{i:02}.pth" for i in range(len(files))]
    if [file.name for file in files] not in (expected, ["consolidated.pth"]):
        raise ValueError(f"the shards of a checkpoint must be {', '.join(expected[:3])} and so on "
                         f"without a gap; {folder} has "
                         f"{', '.join(file.name for file in files[:12])}. Download the missing "
                         "files, or remove files that do not belong")
    return files


def n_copies_for(config: LlamaConfig, n_shards: int) -> int:
    """Returns how many of `n_shards` shards store each key/value head.

    Raises ValueError if the shards would hold unequal numbers of heads.
    """
    n_copies = max(1, n_shards // config.n_kv_heads)
    if n_shards < 1 or config.n_heads % n_shards or (config.n_kv_heads * n_copies) % n_shards:
        raise ValueError("each shard must hold the same number of heads, so n_shards must divide "
                         "n_heads, and must divide n_kv_heads or be a multiple of it; got "
                         f"n_shards={n_shards}, n_heads={config.n_heads} and "
                         f"n_kv_heads={config.n_kv_heads}. Choose another number")
    return n_copies


def n_copies_in(shards: Sequence[Mapping[str, Tensor]], *, keys: str) -> int:
    """Returns how many neighboring shards hold the same heads, by the tensor named `keys`."""
    if any(keys not in shard for shard in shards):
        return 1
    n = len(list(itertools.takewhile(lambda shard: are_same(shard[keys], shards[0][keys]), shards)))
    return n if len(shards) % n == 0 else 1


def shard_translation(config: LlamaConfig, how: Translation, cut: Cut) -> Translation:
    """Returns how Meta's layout stores the parts of the parameters that one shard holds.

    A shard is like a whole file of a narrower model: where several parameters share a tensor, each
    shard has its part of each, one after the other. `how`: stores the whole model. Raises
    ValueError if the shards would be unequal.
    """
    parts = {}
    for ours, shape in how.ours.items():
        row = how.by_ours[ours][0].row
        axis, n_parts = cut.axis(row), cut.n_parts(row)
        if axis is not None and shape[axis] % n_parts:
            raise ValueError("all shards must have the same size, so their number must divide axis "
                             f"{axis} of {ours}, {shape}; got {cut.n_shards} shards. Choose "
                             "another number")
        parts[ours] = tuple(n // n_parts if i == axis else n for i, n in enumerate(shape))
    return translation(META, config, params=parts)


def shard_of(
    how: Translation, weights: Mapping[str, Tensor], i: int, *, cut: Cut
) -> dict[str, Tensor]:
    """Returns copies of the tensors of shard `i`; of a view, torch.save would write all memory.

    `how`: stores one shard.
    """
    parts = {ours: cut.part(weights[ours].detach(), how.by_ours[ours][0].row, i)
             for ours in how.ours}
    return {name: to_theirs(how, parts, name).clone(memory_format=torch.contiguous_format)
            for name in how.names_for(parts)}


@record
class Shards:
    """The files of a model: `how` stores the whole model in one file, `how_each` one of `files`."""

    files: tuple[Path, ...]
    how: Translation
    how_each: Translation
    cut: Cut


def tensors(
    stored: Shards, fit: Callable[[str, Tensor], Tensor], dtype: torch.dtype | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """Yields (name, tensor): views of the mapped file if it is the only one and nothing changes.

    Otherwise each is a new tensor, made one at a time. The parts of a mapped file that were read
    count as our memory until the mapping is closed. So the files are opened again for each layer.
    `fit(name, tensor)`: returns a tensor of a file with the shape that `how_each` needs.
    """
    files, how = stored.files, stored.how
    first = open_shard(files[0])
    dtypes = {name: tensor.dtype for name, tensor in first.items()}
    is_unchanged = len(files) == 1 and all(dtype in (None, each) for each in dtypes.values())
    groups = [tuple(how.ours)] if is_unchanged else how.groups
    del first
    for group in groups:
        shards = [open_shard(file) for file in files]

        def parts(names: Iterable[str], dtype: torch.dtype | None, i: int = 0, shards=shards
                  ) -> Iterator[tuple[str, Tensor]]:
            """Yields our parameters, or their parts in shard `i`."""
            def read(name: str, *, dtype: torch.dtype | None, is_kept: bool) -> Tensor:
                found = fit(name, shards[i][name]).contiguous()
                return found if dtype is None else found.to(dtype)

            return to_ours(stored.how_each, read, dtypes=dtypes, dtype=dtype, names=names)

        if is_unchanged:
            yield from parts(group, dtype)
        else:
            for ours in group:
                yield ours, _joined(parts, stored, ours, dtype)
        del shards, parts


def are_same(a: Tensor, b: Tensor) -> bool:
    """Returns whether two tensors have the same dtype, shape and values.

    It compares piece by piece, because different weights differ in the first piece.
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return all(torch.equal(x, y) for x, y in zip(a.split(1024), b.split(1024), strict=True))


def _joined(
    parts: Callable[..., Iterator[tuple[str, Tensor]]], stored: Shards, ours: str,
    dtype: torch.dtype | None,
) -> Tensor:
    """Returns one of our parameters, joined from its parts to a new tensor.

    If every shard holds the whole parameter, it is copied from the first shard.
    """
    cut, piece = stored.cut, stored.how.by_ours[ours][0]
    axis, n_each = cut.axis(piece.row), cut.n_shards // cut.n_parts(piece.row)
    if piece.grid is not None:
        (_, whole), = parts([ours], dtype)
        return whole
    shards = range(1 if axis is None else cut.n_shards)
    if axis is not None and n_each > 1:
        _refuse_unequal_copies([part for i in shards for _, part in parts([ours], None, i)],
                               n_each, ours)
        shards = shards[::n_each]
    whole = None
    for k, i in enumerate(shards):
        (_, part), = parts([ours], None, i)
        if whole is None:
            whole = torch.empty(stored.how.ours[ours], dtype=dtype or part.dtype)
            places = [whole] if axis is None else whole.split(part.shape[axis], dim=axis)
        places[k].copy_(part)
        del part
    return whole


def _refuse_unequal_copies(parts: Sequence[Tensor], n_copies: int, name: str) -> None:
    for i, part in enumerate(parts):
        if not are_same(part, parts[i - i % n_copies]):
            raise ValueError("with more shards than key/value heads, "
                             f"{n_copies} neighboring shards must hold the same head; shards "
                             f"{i - i % n_copies} and {i} differ in {name}. Check that all files "
                             "are of the same model")


def _refuse_forged_lengths(file: io.BufferedReader) -> None:
    """Raises ValueError for an archive whose entries claim to be longer than the file.

    PyTorch writes its archives uncompressed, and allocates as much memory as an entry claims.
    """
    if not zipfile.is_zipfile(file):
        is_old = file.seek(0) == 0 and file.read(2) == b"\x80\x02"
        raise ValueError("it is not a zip archive, which torch.save writes since PyTorch 1.6"
                         + (", and seems older: read it with torch.load(..., weights_only=True) "
                            "and save it again with torch.save" if is_old else ""))
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise ValueError(f"its entry {shown(entry.filename)} is compressed, which PyTorch "
                                 "never does")
            if entry.header_offset + entry.file_size > os.fstat(file.fileno()).st_size:
                raise ValueError(f"its entry {shown(entry.filename)} is claimed to be "
                                 f"{entry.file_size} bytes long, longer than the file")
