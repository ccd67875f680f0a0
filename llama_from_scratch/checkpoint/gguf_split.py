"""A GGUF file that was split into parts: NAME-00001-of-00003.gguf and so on.

Each part is a GGUF file with some of the tensors. The first has the facts of the model; all say
which part of how many they are, and how many tensors there are in all.

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
    """Returns the header of a model, as if it were in one file, and its files in their order.

    `file`: the only one or any part. Raises ValueError if a part is missing, damaged, or of another
    model.
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
            raise ValueError(f"a part's name and content must say the same, and {path} is part "
                             f"{said[0]} of {said[1]} by its content. {_ONE_CURE}")
        for key, value in part.facts.items():
            if key in (_NUMBER, "general.alignment"):
                continue
            if key in facts and not _are_same(facts[key], value):
                raise ValueError(f"all parts must be of one model, and {key} is "
                                 f"{facts[key]!r:.80} in {first_with[key]} and {value!r:.80} in "
                                 f"{path}. {_ONE_CURE}")
            facts[key] = value
            first_with.setdefault(key, path)
        if double := part.tensors.keys() & tensors.keys():
            name = min(double)
            raise ValueError(f"each tensor is in one part, and {name!r:.80} is in "
                             f"{tensors[name].file} and in {path}. {_ONE_CURE}")
        tensors |= part.tensors
    n_tensors = _whole_number(facts, _N_TENSORS, file, otherwise=len(tensors))
    if n_tensors != len(tensors):
        raise ValueError(f"the parts of a model hold its {n_tensors} tensors together, and those "
                         f"of {file} hold {len(tensors)}. {_ONE_CURE}")
    return Header(facts=facts, tensors=tensors), files


def only_one_in(folder: Path) -> Path | None:
    """Returns the one GGUF file of a folder, or the first part of the one that is there in parts.

    None if there is none. Raises ValueError if there are several, or if the only ones are pointers
    of git-lfs or may not be read; beside a whole one these are passed over.
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
        raise ValueError(f"a folder is read for the one GGUF file in it, and {folder} has "
                         f"{len(found)}: {names}{', ...' if len(found) > N_NAMED else ''}. Give "
                         "the path of one of them")
    if refused and not found:
        raise refused[0]
    return next(iter(found.values()), None)


def _parts(file: Path, n_parts: int) -> tuple[Path, ...]:
    match = _NAME.fullmatch(file.name)
    if match is None or int(match["count"]) != n_parts:
        raise ValueError(f"{file} is one of {n_parts} parts, which are found by their names: "
                         f"NAME-00001-of-{n_parts:05}.gguf to "
                         f"NAME-{n_parts:05}-of-{n_parts:05}.gguf. Give them those names again, in "
                         "one folder, or join them: llama-gguf-split --merge FIRST.gguf WHOLE.gguf")
    files = tuple(file.with_name(f"{match['stem']}-{i:05}-of-{match['count']}{match['end']}")
                  for i in range(1, n_parts + 1))
    if missing := [path.name for path in files if not path.is_file()]:
        more = f" and {len(missing) - N_NAMED} more" if len(missing) > N_NAMED else ""
        raise ValueError(f"a model in {n_parts} parts needs all of them, and {file.parent} lacks "
                         f"{', '.join(missing[:N_NAMED])}{more}. Download what is missing to this "
                         "folder")
    return files


def _whole_number(
    facts: Mapping[str, Any], key: str, file: Path, *, otherwise: int, most: int | None = None
) -> int:
    value = facts.get(key, otherwise)
    if type(value) is not int or value < 0 or (most is not None and value > most):
        limit = "" if most is None else f" up to {most}"
        raise ValueError(f"{key} is a whole number{limit}; {file} has {value!r:.80}. Download it "
                         "again")
    return value


def _are_same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return type(a) is type(b) and np.array_equal(a, b)
    return a == b
