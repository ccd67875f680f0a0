"""Where a traced launch keeps its tensors, and where each array ends."""

import pytest
import torch

from llama_from_scratch.kernels.emulator.machine import KernelFault
from llama_from_scratch.kernels.emulator.trace import trace
from llama_from_scratch.kernels.machinery.source import FOLDER, Program, Source

TEXT = """#include "common.cuh"
extern "C" __global__ void copy(const float* x, float* y, int offset) {
    int t = threadIdx.x;
    y[t] = x[t + offset];
}
extern "C" __global__ void doubled(const float* x, float* y) {
    y[threadIdx.x] = 2 * x[threadIdx.x];
}
extern "C" __global__ void dynamic(const float* x, float* y) {
    DYNAMIC_SHARED(float, slots);
    slots[threadIdx.x] = 10 * x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = slots[threadIdx.x ^ 1];
}
"""


def program(text=TEXT):
    headers = {"common.cuh": (FOLDER / "common.cuh").read_text()}
    return Program(source=Source(name="text", text=text, headers=headers), real=torch.float32)


def test_array_that_lies_last_in_shared_memory_ends_where_it_was_declared():
    text = 'extern "C" __global__ void only(float* y) {\n    __shared__ float part[64];\n' \
           "    part[threadIdx.x + 1] = 1;\n    y[threadIdx.x] = part[threadIdx.x];\n}\n"
    found = trace(program(text), "only", [torch.zeros(64)], grid=1, block=64)
    assert "thread 63 writes part[64]" in str(found.out_of_bounds)


def test_two_tensors_that_lie_side_by_side_are_still_apart_when_traced():
    both = torch.arange(64.0)
    x, y = both[:32], both[32:]
    found = trace(program(), "copy", [x, y, 1], grid=1, block=32)
    assert "reads x[32]" in str(found.out_of_bounds)
    assert torch.equal(both[:32], torch.arange(32.0)) and both[32] == 1


def test_tensors_that_fill_whole_pages_are_still_apart_when_traced():
    for offset in (1024, -1):  # whichever of the two lies first
        found = trace(program(), "copy", [torch.zeros(1024), torch.zeros(1024), offset], grid=1,
                      block=64)
        assert f"reads x[{offset}]" in str(found.out_of_bounds)


def test_dynamic_shared_memory_ends_where_the_launch_said():
    found = trace(program(), "dynamic", [torch.zeros(40), torch.zeros(40)], grid=1, block=40,
                  shared_bytes=128)
    assert "thread 32 writes slots[32]" in str(found.out_of_bounds)
    assert found.out_of_bounds.n_elements == 32


def test_tensor_that_is_read_and_written_in_place_has_both_names():
    x = torch.arange(64.0)
    found = trace(program(), "doubled", [x, x], grid=1, block=64)
    assert {t.array for t in found.traffic} == {"x/y"} and torch.equal(x, 2 * torch.arange(64.0))


def test_full_tape_is_refused_in_words():
    args = [torch.zeros(64), torch.zeros(64)]
    with pytest.raises(KernelFault, match="the trace is full: it holds 100 memory accesses"):
        trace(program(), "doubled", args, grid=1, block=64, max_accesses=100)
    assert trace(program(), "doubled", args, grid=1, block=64, max_accesses=128).races == ()
