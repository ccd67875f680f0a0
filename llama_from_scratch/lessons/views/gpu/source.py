"""CUDA source that a reader wrote in a notebook, as a program that can be launched and traced."""

import torch

from llama_from_scratch.kernels.machinery.source import FOLDER, Program, Source


def program(text: str, *, real: torch.dtype = torch.float32) -> Program:
    """Returns CUDA source that was written in a notebook, ready to be launched and traced.

    It may include "common.cuh".
    """
    headers = {"common.cuh": (FOLDER / "common.cuh").read_text()}
    return Program(source=Source(name="notebook", text=text.strip("\n") + "\n", headers=headers),
                   real=real)


def listing(program: Program) -> str:
    """The source with line numbers, as traces name them."""
    lines = program.source.text.rstrip("\n").split("\n")
    return "\n".join(f"{n:3} {line}" for n, line in enumerate(lines, start=1))
