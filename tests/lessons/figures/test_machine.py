import matplotlib.pyplot as plt
import pytest
import torch
from drawings import faults, noted

from llama_from_scratch.kernels.emulator.trace import trace
from llama_from_scratch.lessons.figures import machine
from llama_from_scratch.lessons.figures.look import TINTS
from llama_from_scratch.lessons.views.gpu import program

COPY = """
extern "C" __global__ void copy(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i];
}
"""


@pytest.fixture(scope="module")
def found():
    return trace(program(COPY), "copy", [torch.randn(100), torch.empty(100), 100], grid=2, block=64)


@pytest.fixture
def made(monkeypatch):
    yield noted(monkeypatch)
    plt.close("all")


def test_each_thread_is_colored_if_it_reads_and_its_element_is_named(found, made):
    machine.threads(found, "x")
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    lanes = [node for node in drawing.nodes if node.height == 0.24]
    assert [lane.color == TINTS[0] for lane in lanes] == [i < 100 for i in range(128)]
    words = [note.text for note in drawing.notes]
    assert [w for w in words if w.startswith("x[")] == [
        "x[0] … [31]", "x[32] … [63]", "x[64] … [95]", "x[96] … [99]"]
    assert drawing.title == "grid = 2, block = 64: 128 threads, one program"
    assert [name for name, _ in drawing.frames] == ["block 0", "block 1"]
    assert "28 of 128 threads have no number" in figure.get_label()


def test_first_reads_are_those_of_the_trace(found):
    assert machine.first_reads(found, "x") == {(i // 64, i % 64): i for i in range(100)}
    with pytest.raises(ValueError, match="x, y; got z"):
        machine.first_reads(found, "z")


def test_a_launch_too_large_for_a_page_is_refused(found):
    large = trace(program(COPY), "copy", [torch.randn(9), torch.empty(9), 9], grid=6, block=64)
    with pytest.raises(ValueError, match="room for 10 warps; got 6 blocks of 2"):
        machine.threads(large, "x")


def test_memory_has_the_sizes_of_the_library_and_of_its_sources(made):
    machine.memory()
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    words = [note.text for note in drawing.notes]
    assert [w for w in words if w.endswith(("KB", "MB", "GB"))] == [
        "1 KB", "227 KB", "50 MB", "141 GB"]
    assert [w for w in words if "TB/s" in w] == ["33.5 TB/s", "4.8 TB/s"]
    assert words.count("not published") == 2
