"""Makes a program that can be launched and traced from CUDA source in a notebook."""

import torch

from llama_from_scratch.kernels.machinery.source import FOLDER, Program, Source


def program(text: str, *, real: torch.dtype = torch.float32) -> Program:
    """Returns a program that can be launched and traced; its source may include "common.cuh"."""
    headers = {"common.cuh": (FOLDER / "common.cuh").read_text()}
    return Program(source=Source(name="notebook", text=text.strip("\n") + "\n", headers=headers),
                   real=real)


def listing(program: Program) -> str:
    """Returns the source with the line numbers that traces use."""
    lines = program.source.text.rstrip("\n").split("\n")
    return "\n".join(f"{n:3} {line}" for n, line in enumerate(lines, start=1))
