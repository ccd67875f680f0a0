"""Attention as an operation: the formula, what is counted, and PyTorch's rivals."""

import pytest
import torch
from torch.nn import functional as F

from llama_from_scratch.kernels.trial import attending, compare
from llama_from_scratch.kernels.trial.attending import ATTENTION, DECODE

CPU = torch.device("cpu")


def inputs_of(operation, size):
    generator = torch.Generator().manual_seed(0)
    return operation.inputs(size, lambda *shape: torch.randn(
        shape, generator=generator, dtype=torch.float64))


def test_the_formula_is_softmax_attention_with_the_last_query_at_the_last_key():
    q, k, v = inputs_of(ATTENTION, (2, 5, 9, 6, 2, 16))
    (found,) = ATTENTION.exact(q, k, v)
    mask = torch.ones(5, 9, dtype=torch.bool).tril(4)
    expected = F.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (q, k, v)), attn_mask=mask, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(found, expected)


def test_a_sequence_is_decoded_as_if_its_cache_ended_at_its_length():
    q, keys, values, lengths = inputs_of(DECODE, (3, 70, 6, 2, 16))
    assert lengths.tolist() == [70, 63, 56]
    (found,) = DECODE.exact(q, keys, values, lengths)
    for b, n in enumerate(lengths):
        alone = ATTENTION.exact(q[b:b + 1], keys[b:b + 1, :n], values[b:b + 1, :n])[0]
        torch.testing.assert_close(found[b:b + 1], alone)
    assert inputs_of(DECODE, (2, 2048, 1, 1, 4))[3].tolist() == [2048, 2048]


def test_half_of_the_scores_are_counted_and_a_cache_is_read_once():
    forward, backward = ATTENTION.operations((2, 8192, 8192, 32, 8, 128))
    assert forward == pytest.approx(1.1e12, rel=1e-2) and backward == 2.5 * forward
    n_bytes, none = DECODE.traffic((32, 8192, 32, 8, 128))
    assert n_bytes == pytest.approx(1.07e9, rel=1e-2) and none == 0


@pytest.mark.parametrize(("operation", "size"), [
    (ATTENTION, (1, 8, 8, 4, 2, 16)), (DECODE, (2, 1024, 4, 2, 16))],
    ids=lambda each: getattr(each, "name", ""))
def test_every_backend_that_runs_here_computes_the_same(operation, size, monkeypatch):
    known = compare.reference(operation, size, dtype=torch.bfloat16, device=CPU)
    flash, cudnn, efficient = operation.rivals
    for each in known.judged(flash.way):
        assert each.verdict.relative_error < 0.02, str(each)
    # The CPU has no other backend, and must not take one silently.
    for rival in (cudnn, efficient):
        with pytest.raises(RuntimeError, match="No viable backend"):
            known.judged(rival.way)
    monkeypatch.setattr(attending, "sdpa_kernel", lambda backends: torch.no_grad())
    q, keys, values, *_ = known.inputs
    widened = F.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (q, keys, values)), is_causal=operation is ATTENTION,
        enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(efficient.way(*known.inputs)[0], widened)


def test_every_rung_is_timed_by_itself_with_its_own_gradients(monkeypatch):
    ran = []
    plain = attending.run_backward

    def counted(*args, rung, **how):
        ran.append(rung)
        return plain(*args, rung=rung, **how)

    monkeypatch.setattr(attending, "run_backward", counted)
    names = [name for name in attending.FORWARD_RUNGS if name in attending.BACKWARD_RUNGS]
    assert len(attending.BY_RUNG) == len(names) > 0
    for operation, name in zip(attending.BY_RUNG, names, strict=True):
        assert name in operation.name and not operation.why_not(CPU)
        for comparison in compare.compare(operation, (1, 9, 9, 2, 1, 64), dtype=torch.bfloat16,
                                          device=CPU):
            assert comparison.verdict.is_ok, str(comparison)
    assert ran == names


def test_a_gpu_that_is_too_old_for_a_rung_is_told_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    reasons = [operation.why_not(torch.device("cuda")) for operation in attending.BY_RUNG]
    assert not reasons[0], "the scalar rung runs on any GPU"
    assert all("needs compute capability" in reason for reason in reasons[1:])


@pytest.mark.parametrize("operation", [ATTENTION, DECODE], ids=lambda each: each.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_kernel_passes_at_awkward_sizes(operation, dtype):
    for size in operation.sizes[:3]:
        for comparison in compare.compare(operation, size, dtype=dtype, device=CPU):
            assert comparison.verdict.is_ok, str(comparison)
