"""Several changed versions of a kernel source in one program, which compiles in half of the time.

A compiler reads the headers once for all of them, and each version is in a namespace of its own.
"""

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import torch

from llama_from_scratch.kernels.emulator import build
from llama_from_scratch.kernels.machinery.source import Program, Source

MOST = 8   # versions in one program, so that two compilers have work for the same time

_ENTRY = re.compile(r'extern "C" (?=__global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\()')
_INCLUDE = re.compile(r'^#include "\w+\.cuh"\n', re.MULTILINE)


def only(source: Source, entry: str) -> Source:
    """A source with one entry point: the compiler skips what is never called."""
    text = _ENTRY.sub(lambda match: match[0] if match[1] == entry else "", source.text)
    return Source(name=source.name, text=text, headers=source.headers)


def together(
    changed: Mapping[object, tuple[Source, str]], *, real: torch.dtype = torch.bfloat16
) -> dict[object, tuple[Program, str]]:
    """Returns for each changed source the program that has it, and its entry point's name there.

    `changed`: sources, each with the one entry point that is launched. Those that have a name and
    all headers in common share programs, so a change in a header is a program of its own.
    """
    groups: dict[tuple, list[object]] = {}
    for key, (source, _) in changed.items():
        groups.setdefault((source.name, *source.headers.items()), []).append(key)
    found = {}
    for keys in groups.values():
        for first in range(0, len(keys), MOST):
            names, text = {}, ""
            for number, key in enumerate(keys[first:first + MOST]):
                source, entry = changed[key]
                if entry not in source.entries:
                    raise ValueError(f"{source.name}.cu has no entry point {entry}")
                names[key] = f"{entry}_version_{number}"
                body = re.sub(rf"\b{entry}\b", names[key], only(source, entry).text)
                includes = "".join(_INCLUDE.findall(body))
                text += (f"{'' if text else includes}namespace version_{number} {{\n"
                         f"{_INCLUDE.sub('', body)}\n}}\nusing version_{number}::{names[key]};\n")
            whole = Source(name=source.name, text=text, headers=source.headers)
            found |= {key: (Program(source=whole, real=real), name) for key, name in names.items()}
    return found


def build_all(programs: list[Program], *, kind: str = "checked") -> None:
    """Builds programs, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda program: build.build(program, kind=kind),
                      {program.key: program for program in programs}.values()))
