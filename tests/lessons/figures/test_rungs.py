import matplotlib.pyplot as plt
import pytest
import torch
from drawings import faults, noted

from llama_from_scratch.kernels.emulator.trace import trace
from llama_from_scratch.lessons.figures import rungs
from llama_from_scratch.lessons.figures.look import BLUE
from llama_from_scratch.lessons.views.gpu import program

COPY = """
extern "C" __global__ void copy(const float* x, float* y, int stride) {
    y[threadIdx.x] = x[threadIdx.x * stride];
}
"""


@pytest.fixture(scope="module")
def traces():
    kernel = program(COPY)
    return {name: trace(kernel, entry, [torch.randn(512), torch.empty(128), stride], grid=1,
                        block=32)
            for name, entry, stride in (("apart", "copy", 16), ("beside", "copy", 1))}


def test_sectors_are_those_of_the_trace(traces, monkeypatch):
    made = noted(monkeypatch)
    rungs.first_access(traces, "x")
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    for trace_of, n_sectors, n_asked in ((traces["apart"], 32, 4), (traces["beside"], 4, 32)):
        lanes, sectors = rungs.access(trace_of, "x")
        assert len(lanes) == 32 and sorted(sectors.values()) == [n_asked] * n_sectors
        assert trace_of.at("x[threadIdx.x", "x").moved == n_sectors
    heights = [node.height for node in drawing.nodes if node.color == BLUE and not node.has_edge]
    assert heights == pytest.approx([0.42 / 8] * 32 + [0.42] * 4), "4 of 32 bytes, then all"
    notes = [note.text for note in drawing.notes]
    assert "lane 0 [0], lane 1 [16], …: 128 bytes asked for, 1,024 moved" in notes
    assert "lane 0 [0], lane 1 [1], …: 128 bytes asked for, 128 moved" in notes
    assert "asks for 128 bytes and moves 1,024" in figure.get_label()
    plt.close("all")


def test_where_nothing_is_wasted_the_sentence_says_so(traces, monkeypatch):
    made = noted(monkeypatch)
    rungs.first_access({"beside": traces["beside"]}, "x")
    ((_, figure),) = made
    assert figure.get_label().startswith("Every access uses all bytes that it moves.")
    plt.close("all")


def test_an_array_that_is_not_read_is_refused(traces):
    with pytest.raises(ValueError, match="copy reads x; got y"):
        rungs.access(traces["apart"], "y")


def test_owners_are_the_threads_that_read(traces, monkeypatch):
    made = noted(monkeypatch)
    rungs.owners(traces, "x")
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    assert rungs.first_owners(traces["apart"], "x") == {16 * i: (0, i) for i in range(4)}
    assert rungs.first_owners(traces["beside"], "x") == {i: (0, i) for i in range(32)}
    tops = sorted({node.y for node in drawing.nodes})
    apart, beside = ([n for n in drawing.nodes if n.y == top] for top in tops)
    assert sum(node.color != "white" for node in apart) == 4
    assert sum(node.color != "white" for node in beside) == 32
    assert sum(node.width for node in apart) == pytest.approx(64 * 0.104)
    notes = [note.text for note in drawing.notes]
    assert notes.count("thread 0 reads [0], once") == 2
    plt.close("all")


def test_all_reads_of_a_thread_are_given_as_ranges():
    looped = program("""
extern "C" __global__ void twice(const float* x, float* y) {
    for (int again = 0; again < 2; again++)
        for (int i = threadIdx.x * 2; i < 512; i += 64) y[i] = x[i] + x[i + 1];
}
""")
    found = trace(looped, "twice", [torch.randn(512), torch.empty(512)], grid=1, block=32)
    reads = rungs.reads_of(found, "x", block=0, thread=1)
    assert reads == {64 * k + 2 + i: 2 for k in range(8) for i in range(2)}
    assert rungs._ranges(reads) == "[2…3], [66…67], [130…131] and 5 more ranges, twice"
    with pytest.raises(ValueError, match="does not read y"):
        rungs.owners({"one": found}, "y")
