import matplotlib.pyplot as plt
import pytest
import torch
from drawings import faults, noted

from llama_from_scratch.kernels.trial.pointwise import POINTWISE
from llama_from_scratch.lessons.figures import moving


@pytest.mark.parametrize("kernel", moving.SIZES)
def test_the_bytes_are_counted_and_the_kernels_are_those_of_its_benchmark(kernel, monkeypatch):
    made = noted(monkeypatch)
    moving.plain_and_fused(kernel)
    ((drawing, figure),) = made
    assert faults(figure, drawing) == []
    plain, fused = moving.passes(kernel)
    steps = [node.name for node in drawing.nodes if node.kind in ("plain", "focus")]
    assert steps == [*(each.name for each in plain), kernel]
    total = sum(each.read + each.written for each in plain)
    assert f"moves {total:.3g} bytes" in figure.get_label()
    labels = [arrow.label for arrow in drawing.arrows]
    assert labels[::2] == [moving._short(each.read) for each in (*plain, fused)]
    assert labels[1::2] == [moving._short(each.written) for each in (*plain, fused)]
    plt.close("all")


@pytest.mark.parametrize(("kernel", "plain", "fused"), [
    ("swiglu", 10, 6), ("rms_norm", 36, 4), ("adamw", 72, 28)])
def test_known_counts(kernel, plain, fused):
    counted, one = moving.passes(kernel)
    assert sum(each.read + each.written for each in counted) == pytest.approx(plain, abs=0.1)
    assert one.read + one.written == fused


def test_the_kernels_bytes_are_its_traffic():
    for operation in POINTWISE:
        size = moving.SIZES[operation.name]
        _, fused = moving.passes(operation.name)
        n = size[0] * size[1]
        if operation.name == "rope":
            B, T, H, G, K = size
            n = B * T * (H + G) * K
        assert (fused.read + fused.written) * n == pytest.approx(operation.traffic(size)[0])


def test_a_view_moves_nothing_and_a_tensor_read_twice_moves_once():
    x = torch.ones(10)
    rows, _ = moving.count(lambda: (x.view(2, 5) * x.view(2, 5),))
    assert rows == [("mul", 80, 40)]
    rows, _ = moving.count(lambda: (x * x,))
    assert rows == [("mul", 40, 40)]


def test_an_unknown_kernel_is_refused():
    with pytest.raises(ValueError, match="swiglu, adamw; got 'softmax'"):
        moving.plain_and_fused("softmax")
