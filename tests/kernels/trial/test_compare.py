"""The correctness sweep itself: it passes the kernels, and it fails a kernel with a mistake in
it."""

import pytest
import torch

from llama_from_scratch.kernels.trial import compare

CPU = torch.device("cpu")


@pytest.mark.parametrize("operation", compare.OPERATIONS, ids=lambda operation: operation.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_operation_passes_at_its_awkward_sizes(operation, dtype):
    for size in operation.sizes[:-1]:
        comparisons = compare.compare(operation, size, dtype=dtype, device=CPU)
        assert len(comparisons) > len(operation.gradient_names)
        for comparison in comparisons:
            assert comparison.verdict.is_ok, str(comparison)


@pytest.mark.parametrize("operation", compare.OPERATIONS, ids=lambda operation: operation.name)
def test_a_result_that_is_half_a_percent_off_is_found(operation):
    def off(*args, emulate):
        return tuple(1.005 * y for y in operation.fused(*args, emulate=emulate))

    wrong = compare.Operation(**{**vars(operation), "fused": off})
    comparisons = compare.compare(wrong, operation.sizes[2], dtype=torch.float32, device=CPU)
    passed = [str(comparison) for comparison in comparisons if comparison.verdict.is_ok]
    assert comparisons and not passed


def test_a_gradient_that_goes_missing_is_found():
    rope = next(operation for operation in compare.OPERATIONS if operation.name == "rope")
    cut = compare.Operation(**{**vars(rope), "fused": lambda q, k, rotation, emulate: rope.fused(
        q.detach() + 0 * q, k, rotation, emulate=emulate)})
    comparisons = {f.part: f.verdict.is_ok
                   for f in compare.compare(cut, (1, 2, 2, 1, 4), dtype=torch.float32, device=CPU)}
    assert comparisons == {"output 0": True, "output 1": True, "gradient of q": False,
                           "gradient of k": True}


def test_runs_that_differ_in_one_bit_are_found():
    operation = compare.OPERATIONS[0]
    calls = []

    def restless(*args, emulate):
        calls.append(1)
        return tuple(y + (len(calls) == 3) * 2.0**-6
                     for y in operation.fused(*args, emulate=emulate))

    unsteady = compare.Operation(**{**vars(operation), "fused": restless})
    (comparison,) = compare.compare_repeats(unsteady, device=CPU, n_repeats=4)
    assert str(comparison).endswith("1 of 4 runs gave other bits than the first: largest error 1, "
                                    "eager's 0; "
                                 "relative error of the tensor 0") and not comparison.verdict.is_ok


def test_the_emulator_is_compared_like_a_gpu():
    for comparison in compare.compare_with_emulator(
        compare.OPERATIONS[3], (7, 33), dtype=torch.bfloat16, device=CPU):
        assert comparison.verdict.is_ok and comparison.verdict.error == 0


def test_traffic_counts_each_tensor_once():
    traffic = {operation.name: operation.traffic(operation.large)
               for operation in compare.OPERATIONS}
    tokens, D, F = 16384, 4096, 14336
    assert traffic["rms_norm"] == (2 * tokens * D * 2, 3 * tokens * D * 2)
    assert traffic["add_rms_norm"][0] == 4 * tokens * D * 2
    assert traffic["swiglu"] == (3 * tokens * F * 2, 5 * tokens * F * 2)
    assert traffic["rope"][0] == tokens * (2 * 40 * 128 * 2 + 64 * 8)
