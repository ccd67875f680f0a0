"""Checkpoints of PyTorch itself (torch.distributed.checkpoint, DCP), read and written.

DCP has the same idea: tensors under global names, in pieces that any mesh can read. Other programs
that train with PyTorch read and write such folders. A conversion needs one process and no mesh.

    ours                          DCP
    model.norm.weight             model.norm.weight
    optimizer.mean.norm.weight    optimizer.mean.norm.weight
    config.json, tokenizer, ...   nothing; we put them into the folder `llama_from_scratch`

Notebook 47. Source: the documentation of torch.distributed.checkpoint.
"""

import contextlib
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from llama_from_scratch.checkpoint import checksums, native
from llama_from_scratch.checkpoint.folders import creating_folder, find
from llama_from_scratch.checkpoint.names import shapes
from llama_from_scratch.checkpoint.safetensors_file import read_tensors
from llama_from_scratch.checkpoint.sharded import manifest, shard_file
from llama_from_scratch.checkpoint.sharded.saved import StateInPieces
from llama_from_scratch.checkpoint.sharded.shard_file import About
from llama_from_scratch.checkpoint.strict import refuse_differences
from llama_from_scratch.foreign import is_there

SIDE = "llama_from_scratch"
"""The folder inside of a DCP folder for what DCP has no place for."""
_WEIGHTS, _STATE = "model.safetensors", "optimizer.safetensors"


def to_dcp(source: str | Path, target: str | Path) -> None:
    """Writes our checkpoint `source`, of one process or of many, to a new DCP folder.

    The tensors are whole in memory meanwhile. Raises ValueError if `source` is not a checkpoint of
    ours, or if there is something at `target`.
    """
    opened, pieces = native.open_checkpoint(source), native.open_pieces(source)
    state: dict[str, dict[str, Tensor]] = {"model": dict(opened.tensors(None))}
    if pieces is not None and (of_optimizer := dict(StateInPieces(pieces))):
        state["optimizer"] = of_optimizer
    elif is_there(opened.where / _STATE):
        state["optimizer"] = read_tensors(opened.where / _STATE)
    with creating_folder(target) as unfinished:
        with _in_one_process():
            dcp.save(state, checkpoint_id=str(unfinished), no_dist=True)
        _copy_description(opened.where, unfinished / SIDE)


def from_dcp(
    source: str | Path, target: str | Path, *, like: str | Path | None = None,
    prefix: str = manifest.MODEL,
) -> None:
    """Writes the weights of a DCP folder, of any number of ranks, to a new checkpoint of ours.

    One tensor at a time is in memory. `like`: a checkpoint of ours of the same model, whose config
    and tokenizer it gets; by default what `to_dcp` has put there. `prefix`: before the names of the
    weights. If there is also a state of our optimizer, and `like` is a run, the run can be resumed.
    Raises ValueError if there is no such folder, or if the model has other tensors.
    """
    found = _tensors_in(Path(source))
    described = Path(source) / SIDE if like is None else find(like)
    if described is None or not is_there(described / "config.json"):
        raise ValueError("a DCP folder has no config and no tokenizer; give a checkpoint of the "
                         f"same model with `like`, because {source} has no folder {SIDE} and like "
                         f"is {like}")
    config = native.load_config(described)
    weights = {name: about for key, about in found.items() if key.startswith(prefix)
               for name in [key.removeprefix(prefix)] if name in shapes(config)}
    if config.is_tied:
        weights.pop("output.weight", None)
    refuse_differences({name: about.shape for name, about in weights.items()}, shapes(config),
                       where=str(source))
    state = {key.removeprefix(manifest.OPTIMIZER): about for key, about in found.items()
             if key.startswith(manifest.OPTIMIZER)}
    is_run = is_there(described / "training.json") and state
    with creating_folder(target) as unfinished:
        _copy_description(described, unfinished, is_run=bool(is_run))
        shard_file.write(unfinished / _WEIGHTS, _ReadLate(source, weights, prefix), about=weights)
        if is_run:
            shard_file.write(unfinished / _STATE, _ReadLate(source, state, manifest.OPTIMIZER),
                             about=state)
        checksums.write(unfinished)


class _ReadLate(Mapping[str, Tensor]):
    """Tensors of a DCP folder, each read when it is asked for."""

    def __init__(self, source: str | Path, about: Mapping[str, About], prefix: str) -> None:
        self._source, self._about, self._prefix = source, about, prefix

    def __getitem__(self, name: str) -> Tensor:
        about = self._about[name]
        x = torch.empty(about.shape, dtype=about.dtype)
        with _in_one_process():
            dcp.load({self._prefix + name: x}, checkpoint_id=str(self._source), no_dist=True)
        return x

    def __iter__(self) -> Iterator[str]:
        return iter(self._about)

    def __len__(self) -> int:
        return len(self._about)


@contextlib.contextmanager
def _in_one_process() -> Iterator[None]:
    """A context without PyTorch's warning that this is one process, which `no_dist` has said."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _tensors_in(source: Path) -> dict[str, About]:
    if not is_there(source / ".metadata"):
        raise ValueError(f"a DCP folder has a file .metadata; {source} has none. Check the path, "
                         "or save it with torch.distributed.checkpoint")
    found = dcp.FileSystemReader(str(source)).read_metadata().state_dict_metadata
    return {name: About(shape=tuple(saved.size), dtype=saved.properties.dtype)
            for name, saved in found.items() if isinstance(saved, TensorStorageMetadata)}


def _copy_description(source: Path, target: Path, *, is_run: bool = True) -> None:
    """Copies all files without tensors, except the checksums."""
    target.mkdir(exist_ok=True)
    names = [*native.FILES, native.JSON_FILE, *(["training.json"] if is_run else [])]
    for name in names:
        if name != _WEIGHTS and is_there(source / name):
            shutil.copyfile(source / name, target / name)
