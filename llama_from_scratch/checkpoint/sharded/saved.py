"""Reads any part of any tensor of a checkpoint in parts.

A reader asks for the region that it holds. Only files that overlap it are opened, and only what
overlaps is read from them. Who wrote the checkpoint, and how many ranks they were, makes no
difference.

Notebook 47.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from jaxtyping import Shaped
from torch import Tensor

from llama_from_scratch.checkpoint import checksums, safetensors_file
from llama_from_scratch.checkpoint.safetensors_file import TensorEntry
from llama_from_scratch.checkpoint.sharded import manifest
from llama_from_scratch.checkpoint.sharded.manifest import SavedTensor
from llama_from_scratch.checkpoint.sharded.region import Region, copy
from llama_from_scratch.checkpoint.strict import listed


class SavedPieces:
    """The tensors of the checkpoint in parts in `folder`, whose sizes are checked at once.

    `tensors`: what the manifest says of each, by name. `known`: the checksums of the folder's
    files. Raises ValueError as `manifest.read` does.
    """

    def __init__(self, folder: Path, *, known: Mapping[str, str] | None) -> None:
        self.where, self._known = folder, known
        checksums.refuse_damage(folder / manifest.NAME, known)
        found = manifest.read(folder)
        self.tensors: Mapping[str, SavedTensor] = found.tensors
        self.files = tuple(found.files)
        self._entries: dict[str, dict[str, TensorEntry]] = {}

    def refuse_damage(self, files: Iterable[str] | None = None) -> None:
        """Raises ValueError if a file is damaged. It reads all of them, or these files."""
        for file in self.files if files is None else files:
            checksums.refuse_damage(self.where / file, self._known)

    def refuse_others(self, needed: Mapping[str, tuple[int, ...]], *, what: str) -> None:
        """Raises ValueError for tensors of `what`, a prefix, that are missing, extra or different.

        `needed`: name -> shape.
        """
        found = {name: saved.shape for name, saved in self.tensors.items()
                 if name.startswith(what)}
        problems = [f"{name} is missing" for name in needed if name not in found]
        problems += [f"{name} is in the checkpoint only" for name in found if name not in needed]
        problems += [f"{name} is {found[name]} there and {tuple(shape)} here"
                     for name, shape in needed.items()
                     if name in found and found[name] != tuple(shape)]
        if problems:
            raise ValueError(f"the checkpoint in {self.where} must hold exactly what this run "
                             f"holds; {listed(problems)}. Resume with the model and the settings "
                             "of that run")

    def read(self, name: str, region: Region) -> Shaped[Tensor, " n"]:
        """Returns the elements of a region in one row, as a new tensor on the CPU."""
        saved = self.tensors[name]
        found = torch.empty(region.n, dtype=saved.dtype)
        n_copied = 0
        for file, given in saved.pieces:
            if given.n and region.box.overlap(given.box):
                entry = self._entry(file, name, given, saved.dtype)
                # A mapping of its own for each piece: the pages that were read are given back.
                piece = safetensors_file.view(entry, safetensors_file.mapped(entry.file))
                n_copied += copy(found, region, piece, given)
        if n_copied != region.n:
            raise ValueError("the pieces of a tensor hold all of its elements; in "
                             f"{self.where} those for {name} overlap or have gaps. Save it again")
        return found

    def whole(self, name: str) -> Shaped[Tensor, "..."]:
        """Returns all of a tensor."""
        shape = self.tensors[name].shape
        return self.read(name, Region.whole(shape)).view(shape)

    def _entry(self, file: str, name: str, given: Region, dtype: torch.dtype) -> TensorEntry:
        if file not in self._entries:
            self._entries[file] = safetensors_file.entries(self.where / file)
        entry = self._entries[file].get(name)
        if entry is None or (entry.dtype, entry.shape) != (dtype, (given.n,)):
            about = "nothing" if entry is None else f"{entry.shape} in {entry.dtype}"
            raise ValueError(f"the files hold what {manifest.NAME} says; for {name} that is "
                             f"{given.n} elements in {dtype}, and {self.where / file} has {about}. "
                             "Take all files from the same save")
        return entry


class StateInPieces(Mapping[str, Tensor]):
    """What the optimizer kept, by its own names; each tensor is read, whole, when it is asked for.
    """

    def __init__(self, saved: SavedPieces) -> None:
        self.saved = saved
        self._names = [name.removeprefix(manifest.OPTIMIZER) for name in saved.tensors
                       if name.startswith(manifest.OPTIMIZER)]

    def __getitem__(self, name: str) -> Tensor:
        if manifest.OPTIMIZER + name not in self.saved.tensors:
            raise KeyError(name)
        return self.saved.whole(manifest.OPTIMIZER + name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
