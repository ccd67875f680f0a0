"""The list of all pieces of a checkpoint: which file holds which elements of which tensor.

manifest.json   {"files": {"rank-0.safetensors": its number of bytes, ...},
                 "tensors": {"model.norm.weight": {"dtype": "F32", "shape": [16], "pieces": [
                    {"file": "rank-0.safetensors", "starts": [0], "sizes": [16], "span": [0, 8]},
                    ...]}, ...}}

Weights are named "model." and their name in `Llama`. What the optimizer keeps is named "optimizer."
and its name in `state_dict`. Every element is in exactly one piece. In its file a piece is one row
of numbers, under the name of the tensor. Because names and places belong to the tensors, and not to
the ranks that wrote them, any other number of ranks can read them.

Notebook 47.
"""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from llama_from_scratch.checkpoint.json_file import read_json, write_json
from llama_from_scratch.checkpoint.safetensors_file import DTYPES
from llama_from_scratch.checkpoint.sharded.region import Region, do_overlap
from llama_from_scratch.config import record
from llama_from_scratch.foreign import is_there, shown

NAME = "manifest.json"
FILE = re.compile(r"rank-[0-9]{1,9}\.safetensors")
"""The names of the files with pieces."""
MODEL, OPTIMIZER = "model.", "optimizer."
_CURE = "Copy or save the checkpoint again"


@record
class SavedTensor:
    """One tensor in pieces. `pieces`: pairs of a file's name and the region that it holds."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    pieces: tuple[tuple[str, Region], ...]


@record
class Manifest:
    """All tensors of a checkpoint by name, and the number of bytes of each file."""

    files: Mapping[str, int]
    tensors: Mapping[str, SavedTensor]


def file_of(rank: int) -> str:
    """Returns the name of the file that a rank writes."""
    return f"rank-{rank}.safetensors"


def is_in(folder: Path) -> bool:
    """Returns whether a folder holds a checkpoint in parts."""
    return is_there(folder / NAME)


def refuse_gaps(name: str, shape: tuple[int, ...], regions: Iterable[Region]) -> None:
    """Raises ValueError unless every element of a tensor is in exactly one of the regions."""
    regions, n = list(regions), math.prod(shape)
    found = sum(region.n for region in regions)
    is_twice = any(do_overlap(a, b) for i, a in enumerate(regions) for b in regions[:i])
    if is_twice or found != n or any(region.shape != shape for region in regions):
        problem = ("two pieces share elements" if is_twice else "pieces have different shapes"
                   if found == n else f"the pieces have {found} of its {n} elements")
        raise ValueError(f"every element of a saved tensor is in one piece; of {name}, "
                         f"{problem}. Let each rank describe all that it holds")


def write(folder: Path, manifest: Manifest) -> None:
    """Writes manifest.json into a folder."""
    kinds = {dtype: name for name, dtype in DTYPES.items()}
    write_json(folder / NAME, {"files": dict(manifest.files), "tensors": {
        name: {"dtype": kinds[saved.dtype], "shape": list(saved.shape), "pieces": [
            {"file": file, "starts": list(region.starts), "sizes": list(region.sizes),
             "span": [region.first, region.n]} for file, region in saved.pieces]}
        for name, saved in manifest.tensors.items()}})


def read(folder: Path) -> Manifest:
    """Returns the manifest of a folder.

    Raises ValueError if it is damaged, if a file that it names is missing or has another size, or
    if the pieces of a tensor do not add up.
    """
    path = folder / NAME
    found = read_json(path)
    try:
        made = _manifest(found)
    except ValueError as error:
        raise ValueError(f"{path} is no list of pieces: {error}. {_CURE}") from error
    for file, n_bytes in made.files.items():
        _refuse_other_size(folder / file, n_bytes)
    return made


def _refuse_other_size(path: Path, n_bytes: int) -> None:
    if not is_there(path):
        raise ValueError(f"a checkpoint in parts needs all its files; {path} of {n_bytes} bytes is "
                         "missing. Copy the folder again, or resume from an earlier checkpoint")
    if (found := path.stat().st_size) != n_bytes:
        raise ValueError(f"a file of a checkpoint has the size from when it was saved; {path} "
                         f"should have {n_bytes} bytes and has {found}, so it was cut or replaced. "
                         "Copy the folder again, or resume from an earlier checkpoint")


def _manifest(found: Any) -> Manifest:
    _refuse_other_keys("the file", found, {"files", "tensors"})
    files, tensors = found["files"], found["tensors"]
    if not isinstance(files, dict) or not isinstance(tensors, dict):
        raise ValueError("\"files\" and \"tensors\" are objects")
    for file, n_bytes in files.items():
        if not FILE.fullmatch(file) or type(n_bytes) is not int or n_bytes < 0:
            raise ValueError(f"a file has a name such as {file_of(0)} and a number of bytes; got "
                             f"{shown(file)} with {shown(n_bytes)}")
    return Manifest(files=files, tensors={name: _tensor(name, about, files)
                                          for name, about in tensors.items()})


def _tensor(name: str, about: Any, files: Mapping[str, int]) -> SavedTensor:
    _refuse_other_keys(shown(name), about, {"dtype", "shape", "pieces"})
    shape, dtype = _sizes(name, about["shape"]), about["dtype"]
    if not isinstance(dtype, str) or dtype not in DTYPES or not isinstance(about["pieces"], list):
        raise ValueError(f"a tensor has a dtype of {', '.join(DTYPES)} and a list of pieces; "
                         f"{shown(name)} has {shown(dtype)}")
    pieces = []
    for piece in about["pieces"]:
        _refuse_other_keys(f"a piece of {shown(name)}", piece, {"file", "starts", "sizes", "span"})
        if not isinstance(piece["file"], str) or piece["file"] not in files:
            raise ValueError(f"a piece of {shown(name)} is in the file {shown(piece['file'])}, "
                             "which \"files\" does not name")
        span = _sizes(name, piece["span"])
        if len(span) != 2:
            raise ValueError(f"a span is the first element and how many; a piece of {shown(name)} "
                             f"has {shown(list(span))}")
        pieces.append((piece["file"], Region(
            shape=shape, starts=_sizes(name, piece["starts"]), sizes=_sizes(name, piece["sizes"]),
            first=span[0], n=span[1])))
    if len({file for file, _ in pieces}) != len(pieces):
        raise ValueError(f"a file has at most one piece of a tensor; of {shown(name)} it has more")
    if sum(region.n for _, region in pieces) != math.prod(shape):
        raise ValueError(f"the pieces of {shown(name)} do not have as many elements as its shape")
    return SavedTensor(dtype=DTYPES[dtype], shape=shape, pieces=tuple(pieces))


def _sizes(name: str, values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or len(values) > 8 or not all(
            type(v) is int and 0 <= v < 2**63 for v in values):
        raise ValueError(f"shapes, places and spans are lists of sizes; {shown(name)} has "
                         f"{shown(values)}")
    return tuple(values)


def _refuse_other_keys(what: str, found: Any, keys: set[str]) -> None:
    if not isinstance(found, dict) or found.keys() != keys:
        raise ValueError(f"{what} has the keys {', '.join(sorted(keys))}; got {shown(found)}")
