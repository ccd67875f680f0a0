"""The weight files of Hugging Face's layout: one safetensors file, or several with an index.

The index says which file holds which tensor. It is checked against the files, tensor by tensor, and
may only name files in its own folder.

Notebook 18.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from llama_from_scratch.checkpoint import safetensors_file
from llama_from_scratch.checkpoint.json_file import read_json, write_json
from llama_from_scratch.checkpoint.safetensors_file import TensorEntry
from llama_from_scratch.checkpoint.strict import listed
from llama_from_scratch.foreign import is_there, plain, shown

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def entries(folder: Path) -> dict[str, TensorEntry]:
    """Returns the tensors of all files by name, each from the file that the index names.

    Raises ValueError if a file is missing or damaged, or if the index and the files do not agree.
    """
    has_single, has_index = is_there(folder / SINGLE), is_there(folder / INDEX)
    if has_single and has_index:
        raise ValueError(f"a checkpoint must have only one of {SINGLE} and {INDEX}; {folder} has "
                         "both. Remove the older one")
    if not has_single and not has_index:
        raise ValueError(f"a checkpoint in Hugging Face's layout needs {SINGLE} or {INDEX}; "
                         f"{folder} has neither"
                         + (", but weights as pickles (.bin), which cannot be read. Use its "
                            "safetensors version"
                            if list(folder.glob("pytorch_model*.bin")) else ". Download it again"))
    if has_single:
        return safetensors_file.entries(folder / SINGLE)
    weight_map = _weight_map(folder)
    shards = {file: safetensors_file.entries(folder / file)
              for file in sorted(set(weight_map.values()))}
    if extra := sorted(p.name for p in folder.iterdir()
                       if re.fullmatch(r"model-\d+-of-\d+\.safetensors", p.name)
                       and p.name not in shards):
        raise ValueError(f"{folder / INDEX} must name all shards in its folder; it does not name "
                         f"{', '.join(extra[:4])}, which may be from another checkpoint. Remove "
                         "the files that do not belong, or download the index again")
    problems = [f"{name} is not in {file}" for name, file in weight_map.items()
                if name not in shards[file]]
    for file, found in shards.items():
        for name in found:
            if name not in weight_map:
                problems.append(f"{name} is in {file} and not in the index")
            elif weight_map[name] != file:
                problems.append(f"{name} is in {file} and in {weight_map[name]}")
    if problems:
        raise ValueError(f"the shards of {folder / INDEX} must hold exactly the tensors that it "
                         f"names; {listed(problems)}. Download the checkpoint again")
    return {name: entry for found in shards.values() for name, entry in found.items()}


def cut(sizes: Mapping[str, int], shard_bytes: int | None) -> dict[str, list[str]]:
    """Returns file name -> tensors; each file is filled in order up to `shard_bytes`.

    `sizes`: the bytes of each tensor. A tensor larger than `shard_bytes` gets its own file. If
    `shard_bytes` is not given, there is one file.
    """
    shards: list[list[str]] = [[]]
    room = shard_bytes
    for name, n_bytes in sizes.items():
        if room is not None and n_bytes > room and shards[-1]:
            shards.append([])
            room = shard_bytes
        shards[-1].append(name)
        room = None if room is None else room - n_bytes
    if len(shards) == 1:
        return {SINGLE: shards[0]}
    return {f"model-{i:05}-of-{len(shards):05}.safetensors": names
            for i, names in enumerate(shards, 1)}


def write_index(folder: Path, shards: Mapping[str, Sequence[str]], *, n_bytes: int) -> None:
    """Writes the index of `shards`, whose tensors have `n_bytes` in all."""
    write_json(folder / INDEX, {"metadata": {"total_size": n_bytes},
                                "weight_map": {name: file for file, names in shards.items()
                                               for name in names}})


def _weight_map(folder: Path) -> dict[str, str]:
    """Returns tensor -> file from the index. All the files exist and are in the index's folder."""
    index = read_json(folder / INDEX)
    weight_map = index.get("weight_map") if isinstance(index, Mapping) else None
    is_map = isinstance(weight_map, Mapping) and weight_map
    if not is_map or not all(isinstance(file, str) for file in weight_map.values()):
        raise ValueError(f"\"weight_map\" in {folder / INDEX} must map each tensor to its file; it "
                         "does not. Download it again")
    files = sorted(set(weight_map.values()))
    if outside := [file for file in files if not _is_in_this_folder(file)]:
        raise ValueError(f"the shards of {folder / INDEX} must be in the same folder; it names "
                         f"{shown(outside[0])}, which is not. Do not trust this checkpoint")
    if missing := [file for file in files if not is_there(folder / file)]:
        raise ValueError(f"the files that {folder / INDEX} names must exist; "
                         f"{plain(', '.join(missing[:4]))} do not. Download them")
    return dict(weight_map)


def _is_in_this_folder(file: str) -> bool:
    """Returns whether `file` is a plain name without a folder, on every operating system."""
    return (file not in ("", ".", "..")
            and file == PurePosixPath(file).name == PureWindowsPath(file).name)
