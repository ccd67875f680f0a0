"""The correctness sweep itself: it passes the kernels, and it fails a kernel with a mistake in it."""

import pytest
import torch

from llama_from_scratch.kernels import check

CPU = torch.device("cpu")


@pytest.mark.parametrize("operation", check.OPERATIONS, ids=lambda operation: operation.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_operation_passes_at_its_awkward_sizes(operation, dtype):
    for size in operation.sizes[:-1]:
        findings = check.check(operation, size, dtype=dtype, device=CPU)
        assert len(findings) > len(operation.gradient_names)
        for finding in findings:
            assert finding.verdict.is_ok, str(finding)


@pytest.mark.parametrize("operation", check.OPERATIONS, ids=lambda operation: operation.name)
def test_a_result_that_is_half_a_percent_off_is_found(operation):
    def off(*args, emulate):
        return tuple(1.005 * y for y in operation.fused(*args, emulate=emulate))

    wrong = check.Operation(**{**vars(operation), "fused": off})
    findings = check.check(wrong, operation.sizes[2], dtype=torch.float32, device=CPU)
    assert not any(finding.verdict.is_ok for finding in findings), [str(f) for f in findings]


def test_a_gradient_that_goes_missing_is_found():
    rope = next(operation for operation in check.OPERATIONS if operation.name == "rope")
    cut = check.Operation(**{**vars(rope), "fused": lambda q, k, rotation, emulate: rope.fused(
        q.detach() + 0 * q, k, rotation, emulate=emulate)})
    findings = {f.part: f.verdict.is_ok for f in check.check(cut, (1, 2, 2, 1, 4), dtype=torch.float32, device=CPU)}
    assert findings == {"output 0": True, "output 1": True, "gradient of q": False, "gradient of k": True}


def test_runs_that_differ_in_one_bit_are_found():
    operation = check.OPERATIONS[0]
    calls = []

    def restless(*args, emulate):
        calls.append(1)
        return tuple(y + (len(calls) == 3) * 2.0**-6 for y in operation.fused(*args, emulate=emulate))

    (finding,) = check.check_repeats(check.Operation(**{**vars(operation), "fused": restless}), device=CPU, n_repeats=4)
    assert str(finding).endswith("1 of 4 runs gave other bits than the first: largest error 1, eager's 0; "
                                 "relative error of the tensor 0") and not finding.verdict.is_ok


def test_the_emulator_is_compared_like_a_gpu():
    for finding in check.compare_with_emulator(check.OPERATIONS[3], (7, 33), dtype=torch.bfloat16, device=CPU):
        assert finding.verdict.is_ok and finding.verdict.error == 0


def test_traffic_counts_each_tensor_once():
    traffic = {operation.name: operation.traffic(operation.large) for operation in check.OPERATIONS}
    tokens, D, F = 16384, 4096, 14336
    assert traffic["rms_norm"] == (2 * tokens * D * 2, 3 * tokens * D * 2)
    assert traffic["add_rms_norm"][0] == 4 * tokens * D * 2
    assert traffic["swiglu"] == (3 * tokens * F * 2, 5 * tokens * F * 2)
    assert traffic["rope"][0] == tokens * (2 * 40 * 128 * 2 + 64 * 8)
