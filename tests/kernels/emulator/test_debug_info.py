"""Lines and symbols of compiled files, against the source and against binutils, an independent
reader of the same bytes."""

import re
import shutil
import subprocess
import sys

import pytest
import torch

from llama_from_scratch.kernels.emulator import build, debug_info
from llama_from_scratch.kernels.machinery.source import FOLDER, Program, Source

HEADERS = {"common.cuh": (FOLDER / "common.cuh").read_text()}
TEXT = """\
#include "common.cuh"
__constant__ float table[4] = {1, 2, 3, 4};
__device__ __forceinline__ float inner(const float* x) {
    return x[threadIdx.x];
}
__device__ __forceinline__ float outer(const float* x) {
    return 2 * inner(x);
}
extern "C" __global__ void scale(const float* x, float* y) {
    __shared__ float tile[8];
    tile[threadIdx.x] = outer(x);
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x ^ 1] + table[threadIdx.x % 4];
}
"""


def built(name, text, kind):
    source = Source(name=name, text=text, headers=HEADERS)
    return build.build(Program(source=source, real=torch.float32), kind=kind)


def answers(path, begin, end):
    return [debug_info.read_debug_info(path).lines(address) for address in range(begin, end)]


def test_inlined_code_is_told_with_every_call_around_it():
    path = built("scaled", TEXT, "traced")
    end = debug_info.read_debug_info(path)._starts[-1]
    first_three = {tuple(lines[:3]) for lines in answers(path, 0, end)}
    assert (("scaled.cu", 4), ("scaled.cu", 7), ("scaled.cu", 11)) in first_three


def test_variables_have_their_names_sizes_and_kinds():
    found = {variable.name: variable
             for variable in debug_info.read_debug_info(built("scaled", TEXT, "traced")).variables}
    tile, table = found["scale::tile"], found["(anonymous namespace)::table"]
    assert (tile.n_bytes, tile.is_shared, tile.is_read_only) == (32, True, False)
    assert (table.n_bytes, table.is_shared) == (16, False)
    assert sum(variable.n_bytes
               for variable in found.values() if variable.name == "threadIdx") == 12


def test_address_without_a_source_has_no_line():
    path = built("scaled", TEXT, "traced")
    info = debug_info.read_debug_info(path)
    assert info.lines(0) == [] == info.lines(2**40)


@pytest.mark.skipif(not shutil.which("addr2line"), reason="compares with addr2line, which is not "
                                                          "here (package binutils)")
def test_every_instruction_has_the_lines_that_addr2line_gives_it():
    # In the traced build only: of DWARF 5, which g++ writes into the others, binutils 2.40 names
    # some files wrongly.
    path = built("swiglu", (FOLDER / "swiglu.cu").read_text(), "traced")
    info = debug_info.read_debug_info(path)
    asked = info._starts[::3]
    said = subprocess.run(["addr2line", "-a", "-i", "-e", str(path), *map(hex, asked)],
                          capture_output=True, text=True).stdout
    expected = [[(each.rpartition("/")[2], int(line))
                 for each, line in re.findall(r"(.+):([1-9]\d*)", frames)]
                for frames in re.split(r"^0x[0-9a-f]+\n", said, flags=re.M)[1:]]
    assert len(expected) == len(asked) > 100
    assert [[frame for frame in info.lines(address) if frame[1]] for address in asked] == expected


def test_missing_pyelftools_is_named_with_its_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "elftools.elf.elffile", None)
    with pytest.raises(ValueError, match="tracing needs the package pyelftools.*-m pip install "
                                         "pyelftools"):
        debug_info.read_debug_info.__wrapped__(built("scaled", TEXT, "traced"))
