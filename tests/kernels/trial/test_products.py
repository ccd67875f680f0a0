"""The loss and the quantized products as operations, and PyTorch's rivals."""

import pytest
import torch
from torch.nn import functional as F

from llama_from_scratch.kernels.trial import compare, products
from llama_from_scratch.kernels.trial.products import INT4, INT8, LOSS, PRODUCTS

CPU = torch.device("cpu")


def test_the_loss_counts_six_operations_per_token_width_and_word():
    assert sum(LOSS.operations((8192, 4096, 128256))) == 6.0 * 8192 * 4096 * 128256


def test_the_traffic_of_quantized_weights_is_their_bytes():
    assert INT8.traffic((1, 14336, 4096))[0] == pytest.approx(58.7e6, rel=2e-3)
    assert INT4.traffic((1, 14336, 4096))[0] == pytest.approx(30.3e6, rel=2e-3)


@pytest.mark.parametrize("operation", PRODUCTS, ids=lambda each: each.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_kernel_passes_at_awkward_sizes(operation, dtype):
    for size in operation.sizes:
        for comparison in compare.compare(operation, size, dtype=dtype, device=CPU):
            assert comparison.verdict.is_ok, str(comparison)


def test_the_rivals_that_run_here_compute_the_same():
    """PyTorch's int4 product has another layout on a CPU, so its packing is tested below."""
    for operation in PRODUCTS:
        known = compare.reference(operation, operation.sizes[2], dtype=torch.bfloat16, device=CPU)
        for rival in operation.rivals:
            if rival.name != "_weight_int4pack_mm":
                for each in known.judged(lambda *x, rival=rival: rival.way(*rival.prepare(*x))):
                    assert each.verdict.relative_error < 0.02, f"{rival.name}: {each}"


def test_packed_weights_give_pytorch_the_same_numbers(monkeypatch):
    taken = []
    monkeypatch.setattr(torch.ops.aten, "_convert_weight_to_int4pack",
                        lambda pairs, tiles: taken.append(pairs) or pairs)
    generator = torch.Generator().manual_seed(0)
    x, words, scale = INT4.inputs((2, 8, 256), lambda *shape: torch.randn(
        shape, generator=generator))
    _, _, scales = products._packed_int4(x, words, scale)
    numbers = torch.stack([taken[0] >> 4, taken[0] & 15], dim=-1).flatten(1).float()
    # As documented for PyTorch's kernel: (number - 8) * scale + zero, for each group of a row.
    per_number = scales.repeat_interleave(products.GROUP, dim=0).transpose(0, 1)
    weight = (numbers - 8) * per_number[..., 0] + per_number[..., 1]
    torch.testing.assert_close(F.linear(x, weight), INT4.exact(x, words, scale)[0])
