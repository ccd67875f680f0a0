import pytest
import torch
from traced_kernels import SUM

from llama_from_scratch.kernels.emulator.trace import trace
from llama_from_scratch.lessons import gpu


@pytest.fixture(scope="session")
def program():
    return gpu.program(SUM)


@pytest.fixture
def summed(program):
    return trace(program, "block_sum", [torch.arange(64.0), torch.zeros(1)], grid=1, block=64)


@pytest.fixture(scope="session")
def barriers():
    text = SUM[:SUM.index('extern "C" __global__ void copy')]
    return gpu.barriers(gpu.program(text), "block_sum",
                        lambda: [torch.arange(64.0), torch.zeros(1)], grid=1, block=64)
