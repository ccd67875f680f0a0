"""The SwiGLU kernel, its source executed by the emulator, against float64 and against the plain
model's code."""

import importlib
import inspect

import pytest
import torch
from emulated_launch import Vast, checked_launch, layouts_of
from torch.nn import functional as F

from llama_from_scratch.kernels.emulator.machine import load
from llama_from_scratch.kernels.emulator.trace import trace
from llama_from_scratch.kernels.machinery.source import Program, Source
from llama_from_scratch.kernels.swiglu import (
    BACKWARD_RUNGS,
    RUNGS,
    run_backward,
    run_forward,
    swiglu,
)
from llama_from_scratch.kernels.trial.tolerance import judge

# the package has a function of that name
module = importlib.import_module("llama_from_scratch.kernels.swiglu")

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SIZES = ((1,), (2,), (33,), (77, 1), (0,), (5, 64), (2, 3, 77), (2, 1, 3, 341), (3, 1024))
op = torch.ops.llama_from_scratch.swiglu


def draw(*shape, dtype, seed=0, scale=1.0):
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def inputs(*shape, dtype):
    return draw(*shape, dtype=dtype, seed=1, scale=3.0), draw(*shape, dtype=dtype, seed=2)


def plain(gate, up):
    return F.silu(gate) * up


def gradients(function, gate, up, upstream):
    gate, up = (x.detach().clone().requires_grad_() for x in (gate, up))
    return torch.autograd.grad(function(gate, up), (gate, up), upstream)


@pytest.fixture
def checked(monkeypatch):
    """Launches end at the first byte touched beside a tensor."""
    monkeypatch.setattr(module, "launch", checked_launch)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_swiglu_is_as_exact_as_the_plain_code_at_any_size(dtype, checked):
    for shape in SIZES:
        gate, up = inputs(*shape, dtype=dtype)
        y = swiglu(gate, up, emulate=True)
        verdict = judge(y, exact=plain(gate.double(), up.double()), eager=plain(gate, up))
        assert verdict.is_ok, (shape, verdict)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_swiglu_gradients_are_as_exact_as_the_plain_codes_at_any_size(dtype, checked):
    for shape in SIZES:
        gate, up = inputs(*shape, dtype=dtype)
        upstream = draw(*shape, dtype=dtype, seed=3)
        ours = gradients(lambda gate, up: swiglu(gate, up, emulate=True), gate, up, upstream)
        eager = gradients(plain, gate, up, upstream)
        exact = gradients(plain, gate.double(), up.double(), upstream.double())
        for name, result, wide, narrow in zip(("gate", "up"), ours, exact, eager, strict=True):
            verdict = judge(result, exact=wide, eager=narrow, is_gradient=True)
            assert verdict.is_ok, (shape, name, verdict)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_swiglu_rounds_silu_where_the_plain_model_does(dtype, checked):
    """Not a question of tolerance: a kernel that rounds once differs from the plain code in a
    quarter of all numbers."""
    gate, up = inputs(20_000, dtype=dtype)
    ours, eager = swiglu(gate, up, emulate=True), plain(gate, up)
    rounded_once = plain(gate.float(), up.float()).to(dtype)
    # exp may differ in its last bit, which seldom survives the rounding
    assert (ours != eager).float().mean() < 1e-3
    assert (rounded_once != eager).float().mean() > 0.2


def test_swiglu_gradients_are_rounded_once_and_so_beat_eager(checked):
    gate, up = inputs(20_000, dtype=torch.bfloat16)
    upstream = draw(20_000, dtype=torch.bfloat16, seed=3)
    ours = gradients(lambda gate, up: swiglu(gate, up, emulate=True), gate, up, upstream)[0]
    eager = gradients(plain, gate, up, upstream)[0]
    exact = gradients(plain, gate.double(), up.double(), upstream.double())[0]
    assert (ours - exact).norm() < 0.8 * (eager - exact).norm()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_swiglu_of_extreme_gates_equals_the_plain_code(dtype, checked):
    gate = torch.tensor([0.0, -0.0, 1e-30, 80.0, -80.0, 95.0, -95.0, 3e4, -3e4, torch.inf,
                         -torch.inf, torch.nan]).to(dtype)
    up = torch.full_like(gate, 2.0)
    torch.testing.assert_close(swiglu(gate, up, emulate=True), plain(gate, up), equal_nan=True)
    d_gate, d_up = gradients(lambda gate, up: swiglu(gate, up, emulate=True), gate[:9], up[:9],
                             up[:9])
    assert d_gate.isfinite().all() and d_up.isfinite().all()


def test_swiglu_passes_gradcheck_through_the_kernels_source():
    gate, up = (x.requires_grad_() for x in inputs(3, 7, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda gate, up: swiglu(gate, up, emulate=True), (gate, up))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
def test_every_rung_of_the_swiglu_ladder_gives_the_same_bits(dtype, checked):
    for n in (1, 7, 512, 4103):
        gate, up = inputs(n, dtype=dtype)
        upstream = draw(n, dtype=dtype, seed=3)
        for n_blocks in (None, 1):
            results = [run_forward(gate, up, rung=rung,
                                   n_blocks=n_blocks if rung == "swiglu_forward" else None)
                       for rung in RUNGS]
            assert all(torch.equal(y, results[0]) for y in results)
            pairs = [run_backward(upstream, gate, up=up, rung=rung,
                                  n_blocks=n_blocks if rung == "swiglu_backward" else None)
                     for rung in BACKWARD_RUNGS]
            assert all(torch.equal(a, b)
                       for pair in pairs for a, b in zip(pair, pairs[0], strict=True))


@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
def test_swiglu_is_the_same_bits_in_every_order_of_threads(order, monkeypatch):
    monkeypatch.setattr(module, "launch",
                        lambda *args, **shape: checked_launch(*args, **shape, order=order, seed=4))
    gate, up = inputs(5, 1031, dtype=torch.bfloat16)
    assert torch.equal(run_forward(gate, up), run_forward(gate, up, rung="swiglu_forward_1"))
    pairs = [run_backward(up, gate, up=up, rung=rung) for rung in BACKWARD_RUNGS]
    assert all(torch.equal(a, b) for a, b in zip(*pairs, strict=True))


def test_every_rung_of_the_swiglu_ladder_moves_every_byte_once_and_the_last_in_full_accesses(
    monkeypatch
):
    gate, up = inputs(10_000, dtype=torch.bfloat16)
    n_bytes, traces = 2 * gate.numel(), []
    monkeypatch.setattr(module, "launch",
                        lambda *args, **shape: traces.append(trace(*args, **shape)))
    for rung in RUNGS:
        run_forward(gate, up, rung=rung)
    run_backward(up, gate, up=up.clone())
    for found in traces:
        assert all(sum(moved) == n_bytes for moved in found.moved_bytes.values()), found.entry
        assert not found.races and not found.out_of_bounds
    requests = [sum(line.warp_accesses for line in found.traffic) for found in traces]
    assert requests[0] > 7 * requests[1] and requests[1] == requests[2]


def test_a_read_past_the_end_of_a_ragged_tensor_would_end_the_launch():
    """The guard that the tests above rely on, seen at work: without the test of i, the last block
    reads beyond the tensors."""
    broken = Source.read("swiglu").replace("if (i < (size_t)n) y[i] = gated", "y[i] = gated")
    gate, up = inputs(77, dtype=torch.bfloat16)
    with pytest.raises(RuntimeError, match=r"swiglu\.cu:\d+"):
        load(Program(source=broken, real=torch.bfloat16), kind="checked").launch(
            "swiglu_forward_1", [gate, up, gate.clone(), 77], grid=1, block=256)


# --- bugs that users of kernel libraries reported -------------------------------------------------


def test_a_strided_or_misaligned_tensor_is_not_read_at_wrong_offsets(checked):
    """A gradient arrives as the next operation left it: expanded after a sum, transposed after a
    matrix product."""
    for name, x in layouts_of(draw(4, 37, dtype=torch.bfloat16)):
        up, upstream = draw(*x.shape, dtype=x.dtype, seed=5), draw(*x.shape, dtype=x.dtype, seed=6)
        assert torch.equal(swiglu(x, up, emulate=True), swiglu(x.clone(), up, emulate=True)), name
        assert torch.equal(swiglu(up, x, emulate=True), swiglu(up, x.clone(), emulate=True)), name
        seen, copied = (gradients(op, up, upstream, each) for each in (x, x.clone()))
        for a, b in zip(seen, copied, strict=True):
            assert torch.equal(a, b), name


def test_the_backward_pass_takes_its_size_from_the_tensor_at_any_rank(checked):
    """Others took the width before flattening and wrote past the end of rank 3."""
    for shape in ((), (5,), (2, 5), (2, 3, 5), (2, 1, 3, 5)):
        gate, up = inputs(*shape, dtype=torch.bfloat16)
        d_gate, d_up = gradients(op, gate, up, up)
        assert d_gate.shape == d_up.shape == shape
        assert d_gate.isfinite().all() and d_up.isfinite().all()


def test_both_inputs_have_a_gradient_and_only_where_one_is_wanted():
    gate, up = inputs(2, 5, dtype=torch.float64)
    for wanted in ((True, True), (True, False), (False, True)):
        leaves = [x.clone().requires_grad_(is_wanted)
                  for x, is_wanted in zip((gate, up), wanted, strict=True)]
        swiglu(*leaves, emulate=True).sum().backward()
        assert [leaf.grad is not None for leaf in leaves] == list(wanted)


def test_swiglu_leaves_its_inputs_as_they_are(checked):
    gate, up = inputs(33, dtype=torch.bfloat16)
    before = gate.clone(), up.clone()
    gradients(lambda gate, up: swiglu(gate, up, emulate=True), gate, up, up)
    assert torch.equal(gate, before[0]) and torch.equal(up, before[1])


def test_swiglu_reaches_elements_beyond_two_to_the_31st():
    """The loops start at the 2^31st element; an index of 32 bits would wrap around to memory far
    below."""
    far, n, real = 2**31, 2**31 + 77, torch.bfloat16
    source = Source.read("swiglu").replace("tile = blockIdx.x * TILE", "tile = blockIdx.x * TILE + "
                                                                       f"{far // 8}ull")
    source = source.replace("size_t i = first", f"size_t i = first + {far // 8}ull")
    emulated = load(Program(source=source, real=real))
    gate, up, first, second = (Vast(n, real).tensor for _ in range(4))
    gate[far:], up[far:] = inputs(77, dtype=real)
    emulated.launch("swiglu_forward", [gate, up, first, n], grid=1, block=256)
    assert torch.equal(first[far:], run_forward(gate[far:], up[far:]))
    emulated.launch("swiglu_backward", [up, gate, up, first, second, n], grid=1, block=256)
    expected = run_backward(up[far:], gate[far:], up=up[far:])
    for wide, narrow in zip((first, second), expected, strict=True):
        assert torch.equal(wide[far:], narrow)


# --- refusals and torch ---------------------------------------------------------------------------


def test_swiglu_refuses_a_cpu_tensor_unless_it_may_emulate():
    with pytest.raises(ValueError, match="swiglu runs on a CUDA device; the tensor is on "
                                         "cpu.*emulate=True"):
        swiglu(*inputs(3, dtype=torch.float32))


@pytest.mark.parametrize("up", [torch.ones(2, 4), torch.ones(2, 3, dtype=torch.bfloat16),
                                torch.ones(3)], ids=str)
def test_swiglu_refuses_tensors_that_do_not_match(up):
    with pytest.raises(ValueError, match=r"must share shape, dtype and device; got \(2, 3\) "
                                         r"torch.float32 on cpu, \("):
        op(torch.ones(2, 3), up)


def test_swiglu_refuses_a_dtype_that_no_program_computes_in():
    with pytest.raises(ValueError, match="the kernels compute in .*; got torch.int64"):
        op(torch.ones(3, dtype=torch.int64), torch.ones(3, dtype=torch.int64))


def test_torch_accepts_the_registration_of_swiglu():
    gate, up = (x.requires_grad_() for x in inputs(3, 5, dtype=torch.float64))
    torch.library.opcheck(op.default, (gate, up))


def test_torch_compile_takes_swiglu_into_one_graph():
    # the compiler cannot trace the tests' shape checks, which users do not have
    unchecked = inspect.unwrap(swiglu)
    function = torch.compile(lambda gate, up: 2 * unchecked(gate + 1, up, emulate=True),
                             fullgraph=True, backend="aot_eager")
    gate, up = inputs(3, 5, dtype=torch.float64)
    ours = gradients(function, gate, up, up)
    exact = gradients(lambda gate, up: 2 * plain(gate + 1, up), gate, up, up)
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a, b)
