"""A GGUF file that was split into parts: NAME-00001-of-00003.gguf and so on.

Each part is a GGUF file with some of the tensors. The first part has the facts of the model. Every
part has its own number, the number of parts, and the number of tensors in all parts.

Notebook 18. Source: llama.cpp, tools/gguf-split.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llama_from_scratch.checkpoint import gguf_file
from llama_from_scratch.checkpoint.gguf_file import Header
from llama_from_scratch.checkpoint.strict import N_NAMED

_NAME = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})(?P<end>\.gguf)",
                   re.IGNORECASE | re.DOTALL)
_MAX_PARTS = 99_999
_NUMBER, _COUNT, _N_TENSORS = "split.no", "split.count", "split.tensors.count"
_ONE_CURE = "Download all parts again, from one place"


def whole(file: Path) -> tuple[Header, tuple[Path, ...]]:
    """Returns the header of a model, as if it were in one file, and its files in order.

    `file`: the only file or any part. Raises ValueError if a part is missing, damaged, or of
    another model.
    """
    header = gguf_file.header(file)
    n_parts = _whole_number(header.facts, _COUNT, file, otherwise=1, most=_MAX_PARTS)
    if n_parts <= 1:
        return header, (file,)
    files = _parts(file, n_parts)
    headers = [header if path == file else gguf_file.header(path) for path in files]
    facts, tensors, first_with = {}, {}, {}
    for i, (path, part) in enumerate(zip(files, headers, strict=True)):
        said = (_whole_number(part.facts, _NUMBER, path, otherwise=0, most=_MAX_PARTS) + 1,
                _whole_number(part.facts, _COUNT, path, otherwise=1, most=_MAX_PARTS))
        if said != (i + 1, n_parts):
            raise ValueError("the name and the content of a part must give the same number; "
                             f"{path} is part {said[0]} of {said[1]} by its content. {_ONE_CURE}")
        for key, value in part.facts.items():
            if key in (_NUMBER, "general.alignment"):
                continue
            if key in facts and not _are_same(facts[key], value):
                raise ValueError(f"all parts must belong to one model; {key} is "
                                 f"{facts[key]!r:.80} in {first_with[key]} and {value!r:.80} in "
                                 f"{path}. {_ONE_CURE}")
            facts[key] = value
            first_with.setdefault(key, path)
        if double := part.tensors.keys() & tensors.keys():
            name = min(double)
            raise ValueError(f"each tensor must be in one part; {name!r:.80} is in "
                             f"{tensors[name].file} and in {path}. {_ONE_CURE}")
        tensors |= part.tensors
    n_tensors = _whole_number(facts, _N_TENSORS, file, otherwise=len(tensors))
    if n_tensors != len(tensors):
        raise ValueError(f"the parts of a model must hold its {n_tensors} tensors together; the "
                         f"parts of {file} hold {len(tensors)}. {_ONE_CURE}")
    return Header(facts=facts, tensors=tensors), files


def only_one_in(folder: Path) -> Path | None:
    """Returns the only GGUF file of a folder, or its first part if it is split; else None.

    Raises ValueError if there are several, or if the only ones are git-lfs pointers or cannot be
    read. Such files are ignored if there is also one that can be read.
    """
    found: dict[str, Path] = {}
    refused: list[ValueError] = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() != ".gguf":
            continue
        try:
            is_one = gguf_file.is_one(path)
        except ValueError as error:
            refused.append(error)
            continue
        if is_one:
            match = _NAME.fullmatch(path.name)
            found.setdefault(f"{match['stem']}, {match['count']} parts" if match else path.name,
                             path)
    if len(found) > 1:
        names = ", ".join(path.name for path in list(found.values())[:N_NAMED])
        raise ValueError(f"a folder must have only one GGUF file; {folder} has "
                         f"{len(found)}: {names}{', ...' if len(found) > N_NAMED else ''}. Give "
                         "the path of one of them")
    if refused and not found:
        raise refused[0]
    return next(iter(found.values()), None)


def _parts(file: Path, n_parts: int) -> tuple[Path, ...]:
    match = _NAME.fullmatch(file.name)
    if match is None or int(match["count"]) != n_parts:
        raise ValueError(f"{file} is one of {n_parts} parts, which must have the names "
                         f"NAME-00001-of-{n_parts:05}.gguf to "
                         f"NAME-{n_parts:05}-of-{n_parts:05}.gguf. Give them those names again, in "
                         "one folder, or join them: llama-gguf-split --merge FIRST.gguf WHOLE.gguf")
    files = tuple(file.with_name(f"{match['stem']}-{i:05}-of-{match['count']}{match['end']}")
                  for i in range(1, n_parts + 1))
    if missing := [path.name for path in files if not path.is_file()]:
        more = f" and {len(missing) - N_NAMED} more" if len(missing) > N_NAMED else ""
        raise ValueError(f"a model in {n_parts} parts needs all of them; {file.parent} lacks "
                         f"{', '.join(missing[:N_NAMED])}{more}. Download the missing parts to "
                         "this folder")
    return files


def _whole_number(
    facts: Mapping[str, Any], key: str, file: Path, *, otherwise: int, most: int | None = None
) -> int:
    value = facts.get(key, otherwise)
    if type(value) is not int or value < 0 or (most is not None and value > most):
        limit = "" if most is None else f" up to {most}"
        raise ValueError(f"{key} must be a whole number{limit}; {file} has {value!r:.80}. Download "
                         "it again")
    return value


def _are_same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return type(a) is type(b) and np.array_equal(a, b)
    return a == b
