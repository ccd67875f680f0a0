"""The correctness sweep itself: it passes the kernels, and it fails a kernel with a mistake in
it."""

import pytest
import torch

from llama_from_scratch.kernels.trial import compare
from llama_from_scratch.kernels.trial.operation import Operation
from llama_from_scratch.kernels.trial.pointwise import POINTWISE

CPU = torch.device("cpu")


@pytest.mark.parametrize("operation", POINTWISE, ids=lambda operation: operation.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_operation_passes_at_its_awkward_sizes(operation, dtype):
    for size in operation.sizes[:-1]:
        comparisons = compare.compare(operation, size, dtype=dtype, device=CPU)
        assert len(comparisons) > len(operation.gradient_names)
        for comparison in comparisons:
            assert comparison.verdict.is_ok, str(comparison)


@pytest.mark.parametrize("operation", POINTWISE, ids=lambda operation: operation.name)
def test_a_result_that_is_half_a_percent_off_is_found(operation):
    def off(*args, emulate):
        return tuple(1.005 * y for y in operation.fused(*args, emulate=emulate))

    wrong = Operation(**{**vars(operation), "fused": off})
    comparisons = compare.compare(wrong, operation.sizes[2], dtype=torch.float32, device=CPU)
    passed = [str(comparison) for comparison in comparisons if comparison.verdict.is_ok]
    assert comparisons and not passed


def test_a_gradient_that_goes_missing_is_found():
    rope = next(operation for operation in POINTWISE if operation.name == "rope")
    cut = Operation(**{**vars(rope), "fused": lambda q, k, rotation, emulate: rope.fused(
        q.detach() + 0 * q, k, rotation, emulate=emulate)})
    comparisons = {f.part: f.verdict.is_ok
                   for f in compare.compare(cut, (1, 2, 2, 1, 4), dtype=torch.float32, device=CPU)}
    assert comparisons == {"output 0": True, "output 1": True, "gradient of q": False,
                           "gradient of k": True}


def test_runs_that_differ_in_one_bit_are_found():
    operation = POINTWISE[0]
    calls = []

    def restless(*args, emulate):
        calls.append(1)
        return tuple(y + (len(calls) == 3) * 2.0**-6
                     for y in operation.fused(*args, emulate=emulate))

    unsteady = Operation(**{**vars(operation), "fused": restless})
    (comparison,) = compare.compare_repeats(unsteady, device=CPU, n_repeats=4)
    assert str(comparison).endswith("1 of 4 runs gave other bits than the first: largest error 1, "
                                    "eager's 0; "
                                 "relative error of the tensor 0") and not comparison.verdict.is_ok


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_loss_passes_at_its_awkward_sizes(reduction, dtype):
    for size in compare.LOSS_SIZES:
        for comparison in compare.compare_loss(size, reduction=reduction, dtype=dtype, device=CPU):
            assert comparison.verdict.is_ok, str(comparison)


def test_a_loss_that_gives_all_tokens_the_same_gradient_is_found(monkeypatch):
    right = compare.linear_cross_entropy

    def wrong(*args, reduction, **settings):
        loss = right(*args, reduction=reduction, **settings)
        return loss.detach() + (loss - loss.detach()).mean()

    monkeypatch.setattr(compare, "linear_cross_entropy", wrong)
    found = compare.compare_loss((37, 24, 1031), reduction="none", dtype=torch.float32, device=CPU)
    assert [each.verdict.is_ok for each in found] == [True, False, False]


def test_the_emulator_is_compared_like_a_gpu():
    for comparison in compare.compare_with_emulator(
        POINTWISE[3], (7, 33), dtype=torch.bfloat16, device=CPU):
        assert comparison.verdict.is_ok and comparison.verdict.error == 0


def test_every_step_passes_on_the_emulator(monkeypatch):
    monkeypatch.setattr(compare, "OPERATIONS", POINTWISE)
    n_comparisons = 0
    for step in compare.steps(CPU):
        found = step.run(lambda text: None)
        assert not found.wrong and not found.why_not
        n_comparisons += found.data["n_comparisons"]
    assert n_comparisons > 300


def test_a_step_names_what_is_wrong(monkeypatch):
    broken = {**vars(POINTWISE[3]), "sizes": ((3, 5),),
              "fused": lambda gate, up, emulate: (gate * up,)}
    monkeypatch.setattr(compare, "OPERATIONS", (Operation(**broken),))
    said = []
    step = compare.steps(CPU)[0]
    wrong = step.run(said.append).wrong
    assert step.name == "swiglu float32" and said == ["swiglu float32: 3 comparisons, 3 wrong"]
    assert wrong[0].startswith("swiglu (3, 5) float32 output 0: element")


def test_an_operation_that_the_gpu_cannot_run_is_left_out_of_the_sweep(monkeypatch):
    never = Operation(**{**vars(POINTWISE[3]), "why_not": lambda device: "it needs sm_90a"})
    monkeypatch.setattr(compare, "OPERATIONS", (POINTWISE[2], never))
    names = " ".join(step.name for step in compare.steps(CPU) if "emulated" not in step.name)
    assert "rope repeats" in names and "swiglu" not in names


def test_a_mean_is_judged_by_its_size_and_not_by_the_luck_of_eager():
    exact = torch.tensor(10.0, dtype=torch.float64)
    lucky = torch.tensor(10.0)
    assert compare._judge_mean(torch.tensor(10.005), exact, lucky).is_ok
    for wrong in (10.02, 9.98, float("nan")):
        verdict = compare._judge_mean(torch.tensor(wrong), exact, lucky)
        assert not verdict.is_ok and "must be 10 within" in str(verdict)
    assert compare._judge_mean(torch.tensor(10.02), exact, torch.tensor(10.015)).is_ok


def test_without_a_compiler_the_emulator_is_not_compared_and_the_reason_is_given(monkeypatch):
    def none():
        raise RuntimeError("the CUDA emulator needs a C++ compiler")

    monkeypatch.setattr(compare, "find_compiler", none)
    emulated = [step for step in compare.steps(CPU) if "emulated" in step.name]
    assert len(emulated) == sum(bool(each.sizes) for each in compare.OPERATIONS)
    assert emulated[0].run(print).why_not == "the CUDA emulator needs a C++ compiler"
