"""Source from a notebook, with the numbers of its lines, and what is wrong with its launch."""

import pytest
import torch

from llama_from_scratch.lessons import gpu
from llama_from_scratch.lessons.check import CheckFailed

SUM = """
extern "C" __global__ void sum(const float* x, float* y) {
    __shared__ float part[64];
    part[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    if (threadIdx.x == 0) for (int i = 0; i < 64; i++) y[0] += part[i];
}
"""


def test_listing_numbers_lines_as_traces_do(program, summed):
    line = summed.traffic[0].line
    assert gpu.listing(program).split("\n")[line.number - 1] == f"{line.number:3}     {line.text}"


@pytest.mark.parametrize(("old", "new", "words"), [
    ("__syncthreads();", "", "Race: thread 1 writes part[1]"),
    ("part[i];", "part[i + 1];", "Out of bounds: thread 0 reads part[64]"),
    ("__syncthreads();", "if (threadIdx.x < 32) __syncthreads();",
     "all threads of a block must reach every barrier"),
    ("part[i];", "part[i]", "notebook.cu does not compile for float"),
])
def test_unsound_launch_is_told_in_words(old, new, words):
    with pytest.raises(CheckFailed) as told:
        _summed(SUM.replace(old, new))
    assert words in str(told.value)


def test_sound_launch_is_traced():
    assert _summed(SUM).moved_bytes["x"] == (256, 0)


def _summed(text):
    return gpu.checked_trace(gpu.program(text), "sum", [torch.ones(64), torch.zeros(1)], grid=1,
                             block=64)


def test_a_program_gets_the_headers_that_it_includes_and_those_that_they_include():
    named = lambda name: sorted(gpu.program(f'#include "{name}"\n' + SUM).source.headers)
    assert sorted(gpu.program(SUM).source.headers) == named("common.cuh") == ["common.cuh"]
    assert named("tensor_cores.cuh") == ["common.cuh", "tensor_cores.cuh"]
    assert named("hopper.cuh") == ["common.cuh", "hopper.cuh", "tensor_cores.cuh"]
