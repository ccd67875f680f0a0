"""The RMSNorm kernels, their source executed by the emulator, against float64 and against the plain
model's code."""

import importlib
import inspect

import pytest
import torch
from emulated_launch import Vast, checked_launch, layouts_of

from llama_from_scratch.kernels.emulator.machine import load
from llama_from_scratch.kernels.emulator.trace import trace
from llama_from_scratch.kernels.machinery.launch import program
from llama_from_scratch.kernels.machinery.source import Program, Source
from llama_from_scratch.kernels.rms_norm import (
    BACKWARD_RUNGS,
    FORWARD_RUNGS,
    add_rms_norm,
    rms_norm,
    run_backward,
    run_forward,
    shape_for,
)
from llama_from_scratch.kernels.trial.tolerance import judge
from llama_from_scratch.model.norm import RMSNorm

# the package has a function of that name
module = importlib.import_module("llama_from_scratch.kernels.rms_norm")

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
WIDTHS = (1, 2, 7, 8, 33, 64, 77, 128, 1000, 1024, 4096, 4097)
EPS = 1e-5
ops = torch.ops.llama_from_scratch


def draw(*shape, dtype, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def inputs(*shape, dtype, seed=0):
    """x, residual, weight, and gradients of the two outputs: no two tensors alike, no gradient
    uniform."""
    x, residual, dy, dsum = (draw(*shape, dtype=dtype, seed=10 * seed + i) for i in range(4))
    return x, residual, (1 + 0.3 * draw(shape[-1], dtype=torch.float32,
                                        seed=10 * seed + 4)).to(dtype), dy, dsum


def plain(x, weight):
    """The model's own module in x's dtype; of a float64 x the exact formula."""
    if x.dtype == torch.float64:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * weight
    return torch.func.functional_call(RMSNorm(x.shape[-1], eps=EPS), {"weight": weight}, (x,))


def plain_add(x, residual, weight):
    return plain(x + residual, weight), x + residual


def fused(x, weight):
    return rms_norm(x, weight, eps=EPS, emulate=True)


def fused_add(x, residual, weight):
    return add_rms_norm(x, residual, weight=weight, eps=EPS, emulate=True)


def results(function, tensors, upstream):
    """Outputs and gradients by every input."""
    leaves = [x.detach().clone().requires_grad_() for x in tensors]
    outputs = function(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return outputs, torch.autograd.grad(outputs, leaves, upstream[:len(outputs)])


def complaints(fused, plain, *cases):
    """What the tolerance policy says against the outputs and gradients of `fused`, by name.

    A case is a pair: inputs, and gradients of the outputs. The results of several cases are judged
    as one tensor: of a single number, eager's error may be nil by luck.
    """
    def joined(function, cases):
        found = [results(function, *case) for case in cases]
        return {(part, i): torch.cat([pair[k][i].flatten() for pair in found])
                for k, part in enumerate(("output", "gradient")) for i in range(len(found[0][k]))}

    ours, eager = joined(fused, cases), joined(plain, cases)
    exact = joined(plain, [tuple([x.double() for x in tensors] for tensors in case)
                           for case in cases])
    verdicts = {(part, i): judge(ours[part, i], exact=exact[part, i], eager=eager[part, i],
                                 is_gradient=part == "gradient")
                for part, i in ours}
    return {name: str(verdict) for name, verdict in verdicts.items() if not verdict.is_ok}


def few_and_many(n_rows, width, *, dtype):
    """One set of inputs, or several if one would hold but a few numbers.

    A row of a single number has almost no gradient: two equal terms cancel, and leave their
    rounding errors times 1 / |x|. With numbers near zero, the smallest would decide alone; these
    keep away from it.
    """
    for seed in range(max(1, 20 // (n_rows * width))):
        x, residual, weight, dy, dsum = inputs(n_rows, width, dtype=dtype, seed=seed)
        yield (x + 3 * x.sign(), residual / 4, weight, dy,
               dsum) if width == 1 else (x, residual, weight, dy, dsum)


@pytest.fixture
def checked(monkeypatch):
    """Launches end at the first byte touched beside a tensor; shared memory and outputs hold NaN
    before."""
    monkeypatch.setattr(module, "launch", checked_launch)


# --- the numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n_rows", [1, 11])
def test_rms_norm_and_its_gradients_are_as_exact_as_the_plain_modules_at_any_width(
    n_rows, dtype, checked
):
    for width in WIDTHS:
        cases = [((x, weight), (dy,))
                 for x, _, weight, dy, _ in few_and_many(n_rows, width, dtype=dtype)]
        assert not complaints(fused, plain, *cases), width


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n_rows", [1, 5])
def test_add_rms_norm_and_its_gradients_are_as_exact_as_the_plain_codes_at_any_width(
    n_rows, dtype, checked
):
    for width in WIDTHS:
        cases = [(case[:3], case[3:]) for case in few_and_many(n_rows, width, dtype=dtype)]
        assert not complaints(fused_add, plain_add, *cases), width


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rms_norm_rounds_where_the_plain_module_does(dtype, checked):
    """Small whole numbers add up exactly in any order, so both have the same size of a row, and
    every bit must agree."""
    integers = torch.randint(-4, 5, (9, 1024), generator=torch.Generator().manual_seed(0)).to(dtype)
    _, residual, weight, *_ = inputs(9, 1024, dtype=dtype)
    assert torch.equal(fused(integers, weight), plain(integers, weight))
    weight_first = (integers.float()
                    * torch.rsqrt(integers.float().square().mean(-1, keepdim=True) + EPS)
                    * weight).to(dtype)
    assert (weight_first
            != plain(integers,
                     weight)).float().mean() > 0.1, "one rounding instead of two must show"

    normed, total = fused_add(integers, residual, weight)
    assert torch.equal(total, integers + residual)
    # the order of the sum, which seldom survives the rounding
    assert (normed != plain(total, weight)).float().mean() < 1e-3
    unrounded = plain(integers.float() + residual.float(), weight.float()).to(dtype)
    assert (normed != unrounded).float().mean() > 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rms_norm_gradients_round_where_the_plain_autograd_does(dtype, checked):
    x, residual, weight, dy, dsum = inputs(3, 1024, dtype=dtype)
    (_, ours), (_, eager) = (results(f, (x, residual, weight), (dy, dsum))
                             for f in (fused_add, plain_add))
    assert (ours[0] != eager[0]).float().mean() < 2e-3
    assert torch.equal(ours[0], ours[1])
    one_row = (x[:1], weight), (dy[:1],)   # so that eager rounds the sum over rows once, as we do
    (_, (_, ours)), (_, (_, eager)) = (results(f, *one_row) for f in (fused, plain))
    assert (ours != eager).float().mean() < 2e-3


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
def test_every_rung_of_the_forward_ladder_gives_the_same_bits(dtype, checked):
    for n_vectors in (1, 125, 256):
        width = n_vectors * 16 // dtype.itemsize
        x = torch.randint(-4, 5, (11, width), generator=torch.Generator().manual_seed(0)).to(dtype)
        _, residual, weight, *_ = inputs(11, width, dtype=dtype)
        residual = residual.round()
        naive, *others = FORWARD_RUNGS
        first, _, inverse = run_forward(x, weight, eps=EPS, rung=naive)
        for rung in others:
            y, same, its_inverse = run_forward(x, weight, eps=EPS, rung=rung)
            assert same is x and torch.equal(y, first) and torch.equal(its_inverse, inverse), rung
        with_residual = [run_forward(x, weight, eps=EPS, residual=residual, rung=name)
                         for name, rung in FORWARD_RUNGS.items() if rung.takes_residual]
        alone = run_forward(x + residual, weight, eps=EPS)
        for found in with_residual:
            assert all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
def test_every_rung_of_the_backward_ladder_gives_the_same_bits(dtype, checked):
    """Rows of +-2 have size 2 and whole numbers as gradients, so no sum rounds and the order of
    additions leaves no trace."""
    for n_vectors in (1, 16, 256):
        width = n_vectors * 16 // dtype.itemsize
        x = 4.0 * torch.randint(0, 2, (13, width),
                                generator=torch.Generator().manual_seed(0)).to(dtype) - 2
        dy, dsum = (torch.randint(-3, 4, x.shape,
                                  generator=torch.Generator().manual_seed(s)).to(dtype)
                    for s in (1, 2))
        weight = torch.randint(-2, 3, (width,),
                               generator=torch.Generator().manual_seed(3)).to(dtype)
        _, _, inverse_size = run_forward(x, weight, eps=0.0)
        assert (inverse_size == 0.5).all()
        with_residual = [name for name, rung in BACKWARD_RUNGS.items() if rung.takes_residual]
        for extra, rungs in ((None, BACKWARD_RUNGS), (dsum, with_residual)):
            pairs = [run_backward(dy, x, weight=weight, inverse_size=inverse_size, dsum=extra,
                                  rung=rung, n_blocks=n_blocks)
                     for rung in rungs for n_blocks in (None, 3)]
            assert all(torch.equal(a, b)
                       for pair in pairs for a, b in zip(pair, pairs[0], strict=True))
            assert torch.equal(pairs[0][1], (dy * x / 2).sum(0))


@pytest.mark.parametrize("rung", BACKWARD_RUNGS)
def test_every_rung_of_the_backward_ladder_is_as_exact_as_the_plain_autograd(rung, checked):
    x, _, weight, dy, _ = inputs(7, 1024, dtype=torch.bfloat16)
    inverse_size = run_forward(x, weight, eps=EPS)[2]
    ours = run_backward(dy, x, weight=weight, inverse_size=inverse_size, rung=rung)
    _, eager = results(plain, (x, weight), (dy,))
    _, exact = results(plain, (x.double(), weight.double()), (dy.double(),))
    for a, b, c in zip(ours, exact, eager, strict=True):
        verdict = judge(a, exact=b, eager=c, is_gradient=True)
        assert verdict.is_ok, verdict


@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
def test_rms_norm_is_the_same_bits_in_every_order_of_threads_and_on_every_run(
    order, checked, monkeypatch
):
    cases = [inputs(19, width, dtype=torch.bfloat16) for width in (77, 256, 2048)]
    first = [results(fused_add, case[:3], case[3:]) for case in cases]
    monkeypatch.setattr(module, "launch",
                        lambda *args, **shape: checked_launch(*args, **shape, order=order, seed=4))
    for case, once in zip(cases, first, strict=True):
        again = results(fused_add, case[:3], case[3:])
        assert all(torch.equal(a, b) for pair in zip(again, once, strict=True)
                   for a, b in zip(*pair, strict=True))


def test_the_ladder_moves_as_many_bytes_as_its_comments_say_and_races_nowhere():
    """Of 32 bytes that move for rung 1, 2 are used; rungs 2 and 3 read x twice, rung 4 once;
    likewise backward."""
    real, n_rows, width, n_blocks = torch.bfloat16, 8, 256, 3
    x, residual, weight, dy, dsum = inputs(n_rows, width, dtype=real)
    y, total, dx = (torch.empty_like(x) for _ in range(3))
    inverse_size, partial, n_bytes = torch.ones(n_rows), torch.empty(n_blocks, width), x.nbytes

    def passes(entry, args, **shape):
        """How often each tensor of x's size is (read, written)."""
        found = trace(program("rms_norm", real), entry, args, **shape)
        assert not found.races and not found.out_of_bounds, str(found)
        parameters = found.program.entry(entry).parameters
        of_size = {parameter.name for parameter, arg in zip(parameters, args, strict=True)
                   if torch.is_tensor(arg) and arg.shape == x.shape}
        return {name: (read / n_bytes, written / n_bytes)
                for name, (read, written) in found.moved_bytes.items()
                if name in of_size}

    reads, writes = (1, 0), (0, 1)
    row_by_row, one_warp = {"grid": n_rows, "block": 256}, {"grid": 1, "block": (32, 8)}
    assert passes("rms_norm_forward_1", [x, weight, y, inverse_size, n_rows, width, EPS], grid=1,
                  block=32) == {
        "x": (2 * 16, 0), "y": (0, 16)}
    assert passes("rms_norm_forward_2", [x, weight, y, inverse_size, width, EPS],
                  **row_by_row) == {"x": (2, 0), "y": writes}
    assert passes("rms_norm_forward", [x, None, weight, y, None, inverse_size, width, EPS],
                  **row_by_row) == {
        "x": (2, 0), "y": writes}
    arguments = [x, residual, weight, y, total, inverse_size, n_rows, width, EPS]
    assert passes("rms_norm_forward_by1", arguments, **one_warp) == {
        "x": reads, "residual_or_null": reads, "y": writes, "sum_or_null": writes}
    assert passes("rms_norm_backward_1", [dy, x, weight, inverse_size, dx, width],
                  **row_by_row) == {
        "dy": (2, 0), "x": (2, 0), "dx": writes}
    arguments = [dy, dsum, x, weight, inverse_size, dx, partial, n_rows, width]
    assert passes("rms_norm_backward", arguments, grid=n_blocks, block=256) == {
        "dy": (2, 0), "dsum_or_null": reads, "x": (2, 0), "dx": writes}
    assert passes("rms_norm_backward_by1", arguments, grid=n_blocks, block=32) == {
        "dy": reads, "dsum_or_null": reads, "x": reads, "dx": writes}


def test_gradcheck_passes_through_the_kernels_source():
    for width in (1, 6, 7):
        x, residual, weight, *_ = (t.requires_grad_()
                                   for t in inputs(5, width, dtype=torch.float64))
        assert torch.autograd.gradcheck(fused, (x, weight))
        assert torch.autograd.gradcheck(fused_add, (x, residual, weight))


@pytest.mark.parametrize("width", [128, 514, 1026, 2050, 4098])
def test_gradcheck_passes_through_every_vector_rung(width):
    """Widths for which each of by1, by2, by4 and by8 is the fastest in fp64, and one beyond them
    all."""
    x, residual, weight, *_ = (t.requires_grad_() for t in inputs(3, width, dtype=torch.float64))
    assert torch.autograd.gradcheck(fused_add, (x, residual, weight), fast_mode=True)


def test_the_fastest_rung_is_chosen_by_the_width_of_a_row():
    def chosen(direction, width, dtype, n_rows=100):
        s = shape_for(direction, n_columns=width, n_rows=n_rows, dtype=dtype)
        return s.entry.removeprefix(f"rms_norm_{direction}"), s.threads, s.rows

    bf16 = torch.bfloat16
    assert chosen("forward", 64, bf16) == chosen("backward", 64, bf16) == ("_by1", 32, 8)
    assert chosen("forward", 1024, bf16) == ("_by4", 32, 8)
    assert chosen("forward", 1024, bf16, n_rows=3) == ("_by4", 32, 3)
    assert chosen("forward", 4096, bf16) == chosen("backward", 4096, bf16) == ("_by2", 256, 1)
    assert chosen("forward", 5120, bf16) == ("_by4", 160, 1)
    assert chosen("forward", 4096, torch.float32) == ("_by4", 256, 1)
    assert chosen("forward", 16384, bf16) == chosen("backward", 16384, bf16) == ("_by8", 256, 1)
    assert chosen("forward", 32768, bf16) == ("_by8", 512, 1)
    assert chosen("backward", 32768, bf16) == chosen("forward", 4097, bf16) == ("", 256, 1)
    assert chosen("forward", 3, bf16) == ("", 32, 1)


def test_a_rung_refuses_rows_it_cannot_hold():
    for width in (4097, 8 * 256 * 2 + 8):
        with pytest.raises(ValueError, match=r"rms_norm_forward_by2 takes rows of whole 16-byte "
                                             rf"vectors.*got {width} columns"):
            shape_for("forward", n_columns=width, n_rows=1, dtype=torch.bfloat16,
                      rung="rms_norm_forward_by2")


# --- bugs that users of kernel libraries reported -------------------------------------------------


def test_a_strided_or_misaligned_tensor_or_gradient_is_not_read_at_wrong_offsets(checked):
    for name, odd in layouts_of(draw(4, 72, dtype=torch.bfloat16, seed=9)):
        for place in range(5):
            pairs = []
            for layout in (odd, odd.clone(memory_format=torch.contiguous_format)):
                case = list(inputs(*odd.shape, dtype=torch.bfloat16))
                case[place] = layout[0] if place == 2 else layout
                # not cloned: the layout is the question
                leaves = [leaf.detach().requires_grad_() for leaf in case[:3]]
                outputs = fused_add(*leaves)
                pairs.append([*outputs, *torch.autograd.grad(outputs, leaves, case[3:])])
            assert all(torch.equal(a, b) for a, b in zip(*pairs, strict=True)), (name, place)


def test_the_gradient_of_the_norm_weight_is_not_silently_none():
    for wanted in ((True, True), (True, False), (False, True)):
        x, _, weight, dy, _ = inputs(3, 8, dtype=torch.float64)
        x, weight = x.requires_grad_(wanted[0]), weight.requires_grad_(wanted[1])
        fused(x, weight).backward(dy)
        assert (x.grad is not None, weight.grad is not None) == wanted
        assert weight.grad is None or weight.grad.abs().min() > 0


def test_no_rows_part_of_the_weight_gradient_is_lost_when_rows_do_not_divide_among_blocks(checked):
    """Others counted the blocks' parts rounded down and the blocks rounded up: the last block wrote
    past the end."""
    for width in (5, 16, 2048):
        for n_rows in (1, 2, 7, 8, 9, 17):
            x = torch.full((n_rows, width), 2.0, dtype=torch.bfloat16)
            weight, dy = x[0].clone(), (torch.arange(n_rows)
                                        + 1).bfloat16()[:, None].expand(n_rows, width)
            _, _, inverse_size = run_forward(x, weight, eps=0.0)
            for n_blocks in (1, 2, 3, 8, 50):
                _, dweight = run_backward(dy, x, weight=weight, inverse_size=inverse_size,
                                          n_blocks=n_blocks)
                assert (dweight == n_rows * (n_rows + 1) // 2).all(), (width, n_rows, n_blocks)


@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_a_block_of_several_rows_stops_at_the_last_row(order, monkeypatch):
    """`row > n` for `row >= n`: the row behind the last runs, too. In forward order a later block
    might repair the damage."""
    monkeypatch.setattr(module, "launch",
                        lambda *args, **shape: checked_launch(*args, **shape, order=order))
    for n_rows in (1, 7, 9, 15):
        x, residual, weight, dy, dsum = inputs(n_rows, 64, dtype=torch.float32)
        assert not complaints(fused_add, plain_add, ((x, residual, weight), (dy, dsum)))


def test_the_backward_pass_takes_its_width_from_the_tensor_at_any_rank(checked):
    for shape in ((8,), (3, 8), (2, 3, 8), (2, 1, 3, 8), (2, 3, 7)):
        x, residual, weight, dy, dsum = inputs(*shape, dtype=torch.float32)
        assert not complaints(fused_add, plain_add, ((x, residual, weight), (dy, dsum))), shape
        (normed, total), (dx, _, dweight) = results(fused_add, (x, residual, weight), (dy, dsum))
        assert normed.shape == total.shape == dx.shape == shape and dweight.shape == shape[-1:]


def test_the_weight_gradient_of_thousands_of_bf16_rows_keeps_its_digits(checked):
    """A sum in bf16 stops growing at 256 times its terms; ours is fp32 until the end."""
    x = torch.full((4000, 8), 2.0, dtype=torch.bfloat16)
    dweight = run_backward(x / 2, x, weight=x[0].clone(), inverse_size=torch.full((4000,), 0.5))[1]
    assert (dweight == torch.tensor(4000.0).bfloat16()).all()


def vast(n_rows, width, last):
    """Rows without memory of their own, but for the last few, which are given."""
    tensor = Vast(n_rows * width, last.dtype).tensor.view(n_rows, width)
    tensor[-len(last):] = last
    return tensor


@pytest.mark.parametrize(
    ("rung", "width", "threads", "rows"),
    [("", 4097, 256, 1), ("_by2", 4096, 256, 1), ("_by4", 512, 32, 8)])
def test_rms_norm_reaches_elements_beyond_two_to_the_31st(rung, width, threads, rows):
    """The grid starts at the row that holds the 2^31st element; an index of 32 bits would wrap to
    memory far below."""
    first, real, n_last = 2**31 // 4096 + 1, torch.bfloat16, 11
    shifted = f"struct Far {{ unsigned x; }};\n#define blockIdx Far{{blockIdx.x + {first}u}}"
    source = Source.read("rms_norm").replace('#include "common.cuh"',
                                             f'#include "common.cuh"\n{shifted}')
    emulated = load(Program(source=source, real=real))
    x, residual, weight, dy, dsum = inputs(n_last, width, dtype=real)
    y, total, inverse_size = run_forward(x, weight, eps=EPS, residual=residual)
    dx, dweight = run_backward(dy, total, weight=weight, inverse_size=inverse_size, dsum=dsum)

    n_rows, n_blocks = first * rows + n_last, -(-n_last // rows)
    assert first * rows * width >= 2**31
    far_x, far_residual, far_dy, far_dsum = (vast(n_rows, width, last)
                                             for last in (x, residual, dy, dsum))
    far_y, far_total, far_dx = (vast(n_rows, width, torch.full_like(x, torch.nan))
                                for _ in range(3))
    far_inverse = vast(n_rows, 1, torch.full((n_last, 1), torch.nan))
    partial = vast(first + n_blocks, width, torch.full((n_blocks, width), torch.nan))
    forward = [far_x, far_residual, weight, far_y, far_total, far_inverse,
               *([n_rows] if rung else []), width, EPS]
    backward = [far_dy, far_dsum, far_total, weight, far_inverse, far_dx, partial, n_rows, width]
    emulated.launch(f"rms_norm_forward{rung}", forward, grid=n_blocks, block=(threads, rows))
    emulated.launch(f"rms_norm_backward{rung}", backward, grid=n_blocks, block=(threads, rows))
    for ours, near in ((far_y, y), (far_total, total), (far_inverse[:, 0], inverse_size),
                       (far_dx, dx)):
        assert torch.equal(ours[-n_last:], near)
    verdict = judge(partial[-n_blocks:].sum(0).to(real), exact=dweight.double(), eager=dweight)
    assert verdict.is_ok, verdict


# --- refusals and torch ---------------------------------------------------------------------------


def test_tensors_without_elements_give_tensors_without_elements():
    for shape in ((0, 8), (2, 0, 8), (3, 0)):
        x, residual, weight, dy, dsum = inputs(*shape, dtype=torch.bfloat16)
        (normed, total), (dx, _, dweight) = results(fused_add, (x, residual, weight), (dy, dsum))
        assert normed.shape == total.shape == dx.shape == shape
        assert torch.equal(dweight, torch.zeros_like(weight))


def test_infinities_and_nans_stay_in_their_row(checked):
    x, _, weight, *_ = inputs(4, 64, dtype=torch.bfloat16)
    x[1, 3], x[2, 5] = torch.inf, torch.nan
    torch.testing.assert_close(fused(x, weight), plain(x, weight), equal_nan=True)
    assert fused(x, weight)[[0, 3]].isfinite().all()


def test_a_row_of_zeros_has_no_direction_and_no_nan(checked):
    x, _, weight, dy, _ = inputs(3, 33, dtype=torch.float32)
    x[1] = 0
    assert not complaints(fused, plain, ((x, weight), (dy,)))
    assert (fused(x, weight)[1] == 0).all()


def test_the_gradient_of_the_sum_alone_needs_no_kernel(monkeypatch):
    x, residual, weight, _, dsum = inputs(3, 8, dtype=torch.float32)
    leaves = [t.requires_grad_() for t in (x, residual, weight)]
    total = fused_add(*leaves)[1]
    monkeypatch.setattr(module, "launch", None)
    dx, dresidual, dweight = torch.autograd.grad(total, leaves, dsum, allow_unused=True)
    assert torch.equal(dx, dsum) and torch.equal(dresidual, dsum) and dweight is None


def test_a_second_derivative_is_refused():
    x, _, weight, dy, _ = inputs(3, 8, dtype=torch.float64)
    dx, = torch.autograd.grad(fused(x.requires_grad_(), weight), x, dy, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"no second derivative.*model\.norm\.RMSNorm"):
        dx.sum().backward()


def test_rms_norm_leaves_its_inputs_as_they_are(checked):
    tensors = inputs(9, 64, dtype=torch.bfloat16)
    before = [t.clone() for t in tensors]
    results(fused_add, tensors[:3], tensors[3:])
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


def test_rms_norm_refuses_a_cpu_tensor_unless_it_may_emulate():
    x, residual, weight, *_ = inputs(2, 8, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"^rms_norm runs on a CUDA device; the tensor is on "
                                         r"cpu.*emulate=True"):
        rms_norm(x, weight, eps=EPS)
    with pytest.raises(ValueError, match=r"^add_rms_norm runs on a CUDA device"):
        add_rms_norm(x, residual, weight=weight, eps=EPS)


@pytest.mark.parametrize("weight",
                         [torch.ones(4), torch.ones(1, 3), torch.ones(3).bfloat16(),
                          torch.ones(3).to("meta")])
def test_a_weight_that_does_not_match_is_refused(weight):
    with pytest.raises(ValueError, match=r"one number per column of x, in x's dtype and on its "
                                         r"device; got x \(2, 3\)"):
        ops.rms_norm(torch.ones(2, 3), weight, EPS)


def test_a_residual_or_gradient_that_does_not_match_is_refused():
    x, weight = torch.ones(2, 3), torch.ones(3)
    for other in (torch.ones(3), torch.ones(2, 3).half()):
        with pytest.raises(ValueError, match=r"have x's shape.*; got x \(2, 3\)"):
            ops.add_rms_norm(x, other, weight, EPS)
        with pytest.raises(ValueError, match=r"have x's shape.*; got x \(2, 3\)"):
            ops.rms_norm_backward(other, None, x, weight, torch.ones(2))


def test_rms_norm_refuses_a_dtype_that_no_program_computes_in():
    with pytest.raises(ValueError, match="the kernels compute in .*; got torch.int64"):
        ops.rms_norm(torch.ones(2, 3, dtype=torch.int64), torch.ones(3, dtype=torch.int64), EPS)


def test_torch_accepts_the_registration_of_the_norms():
    x, residual, weight, dy, dsum = inputs(2, 3, 5, dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (x, residual, weight)]
    torch.library.opcheck(ops.rms_norm.default, (leaves[0], leaves[2], EPS))
    torch.library.opcheck(ops.add_rms_norm.default, (*leaves, EPS))
    inverse_size = ops.rms_norm(x, weight, EPS)[1].detach()
    torch.library.opcheck(ops.rms_norm_backward.default,
                          (dy, dsum, x.detach(), weight.detach(), inverse_size))
    strided = x.detach().mT.contiguous().mT
    torch.library.opcheck(ops.rms_norm_backward.default,
                          (dy, None, strided, weight.detach(), inverse_size),
                          test_utils="test_faketensor")


def test_torch_compile_takes_the_norms_into_one_graph():
    # the compiler cannot trace the tests' shape checks, which users do not have
    unchecked = inspect.unwrap(add_rms_norm)
    function = torch.compile(lambda x, residual, weight: unchecked(
        x + 1, residual, weight=weight, eps=EPS, emulate=True),
                             fullgraph=True, backend="aot_eager")
    *three, dy, dsum = inputs(3, 5, dtype=torch.float64)
    ours = results(function, three, (dy, dsum))
    exact = results(lambda x, residual, weight: plain_add(x + 1, residual, weight), three,
                    (dy, dsum))
    for a, b in zip((*ours[0], *ours[1]), (*exact[0], *exact[1]), strict=True):
        torch.testing.assert_close(a, b)
