import matplotlib.pyplot as plt
import pytest
import torch
from drawings import faults, noted
from torch.nn import functional as F

from llama_from_scratch import family
from llama_from_scratch.lessons.figures import logits


def test_memory_is_recorded_after_each_operation_and_falls_when_a_tensor_is_gone():
    def run():
        x = torch.empty(1000, device="meta")
        y = x * 2
        del x
        y.view(10, 100).add_(1)
        return y.half()

    assert logits.record(run) == [("empty", 4000), ("mul", 8000), ("view", 4000), ("add", 4000),
                                  ("to_copy", 6000)]
    assert logits.peak(logits.record(run)) == 8000
    before = torch.empty(10, 20, device="meta")
    assert logits.peak(logits.record(lambda: before.t().add_(1))) == 0, "made before the start"


def test_the_backward_pass_is_recorded_too():
    weight = torch.empty(50, 8, device="meta", requires_grad=True)
    x = torch.empty(6, 8, device="meta")
    targets = torch.empty(6, dtype=torch.int64, device="meta")
    moments = logits.record(lambda: F.cross_entropy(x @ weight.t(), targets).backward())
    names = [moment.operation for moment in moments]
    assert "log_softmax_backward_data" in names and names.count("mm") == 2
    assert logits.peak(moments) >= 3 * 6 * 50 * 4


def test_the_picture_has_a_step_for_each_operation_and_names_each_peak():
    runs = {"a": [logits.MemoryAfter("x", 10**9), logits.MemoryAfter("y", 3 * 10**9)],
            "b": [logits.MemoryAfter("x", 2 * 10**9)]}
    figure = logits.over_time(runs, limit=("a small GPU", 2 * 10**9))
    (ax,) = figure.axes
    assert [line.get_label() for line in ax.lines] == ["a: at most 3 GB", "b: at most 2 GB",
                                                       "a small GPU"]
    assert ax.lines[0].get_ydata().tolist() == [0, 1, 3]
    assert ax.lines[0].get_xdata().tolist() == [0, 0.5, 1]
    assert figure.get_label() == "The most memory at one time: a 3 GB; b 2 GB."
    plt.close(figure)


@pytest.mark.parametrize("n", [0, 5])
def test_more_runs_than_colors_are_refused(n):
    with pytest.raises(ValueError, match=f"1 to 4 runs; got {n}"):
        logits.over_time({str(i): [logits.MemoryAfter("x", 1)] for i in range(n)})


@pytest.mark.parametrize(("generation", "row"), [("llama-3.1-8b", "257 KB"),
                                                 ("llama-2-7b", "64 KB")])
def test_each_way_reads_and_writes_whole_rows(generation, row, monkeypatch):
    made = noted(monkeypatch)
    logits.passes(family.config(generation))
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    assert [arrow.label for arrow in drawing.arrows] == [row] * (4 + 3 + 3)
    assert [note.text for note in drawing.notes] == [
        f"three passes: 4 × {row} through memory", f"two passes: 3 × {row} through memory",
        f"two passes, the second from the cache: 2 × {row} through memory"]
    assert [node.name for node in drawing.nodes].count("L2 cache") == 1
    plt.close(figure)


def test_numbers_of_4_bytes_make_a_row_twice_as_long():
    assert "takes 513 KB" in logits.passes(family.config("llama-3.1-8b"),
                                           dtype=torch.float32).get_label()
    plt.close("all")
