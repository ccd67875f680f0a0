"""The products with weights of 8 and 4 bits, their source executed by the emulator, against float64
and against the plain modules of `model.quantized`."""

import importlib
import inspect

import pytest
import torch
from changed_kernels import build_all, together
from emulated_launch import Vast, checked_launch
from torch import nn

from llama_from_scratch import family
from llama_from_scratch.generate.generate import generate
from llama_from_scratch.kernels.emulator.machine import ORDERS, KernelFault, load
from llama_from_scratch.kernels.emulator.trace import trace
from llama_from_scratch.kernels.fuse import FusedInt4Linear, FusedInt8Linear, fuse, unfuse
from llama_from_scratch.kernels.machinery.source import Program, Source
from llama_from_scratch.kernels.quantized import (
    INT4_RUNGS,
    INT8_RUNGS,
    Weight,
    int4_linear,
    int4_linears,
    int8_linear,
    int8_linears,
    run,
)
from llama_from_scratch.kernels.trial.tolerance import judge
from llama_from_scratch.model.quantized import Int4Linear, Int8Linear, quantize_int4, quantize_int8
from llama_from_scratch.model.transformer import Llama

# the package has functions of these names
module = importlib.import_module("llama_from_scratch.kernels.quantized")

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# (rows of x, outputs, inputs, group): one row, ragged rows, steps that end early, most rows of x
SIZES = ((1, 1, 32, 32), (1, 37, 640, 128), (2, 21, 1056, 32), (3, 9, 2304, 128), (5, 18, 1024, 32),
         (8, 11, 1184, 32))
KINDS = ("int8", "int4", "int4 with minimums")
op8, op4 = torch.ops.llama_from_scratch.int8_linear, torch.ops.llama_from_scratch.int4_linear


def draw(*shape, dtype, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def weight_of(kind, n_rows, n_columns, *, group=32, dtype, seed=1):
    weight = draw(n_rows, n_columns, dtype=dtype, seed=seed)
    if kind == "int8":
        numbers, scale = quantize_int8(weight)
        return Weight(stored=numbers, scale=scale)
    words, scale, minimum = quantize_int4(weight, group=group, is_symmetric=kind == "int4")
    return Weight(stored=words, scale=scale, minimum=minimum)


def wide(weight):
    minimum = None if weight.minimum is None else weight.minimum.double()
    return Weight(stored=weight.stored, scale=weight.scale.double(), minimum=minimum)


def verdict_on(y, x, weight):
    return judge(y, exact=x.double() @ wide(weight).dequantized().T,
                 eager=x @ weight.dequantized().T)


def rungs_of(kind):
    return INT8_RUNGS if kind == "int8" else INT4_RUNGS


@pytest.fixture
def checked(monkeypatch):
    """Launches end at the first byte touched outside a tensor."""
    monkeypatch.setattr(module, "launch", checked_launch)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_products_are_as_exact_as_the_plain_layers_at_any_size(dtype, kind, checked):
    for n_x, n_rows, n_columns, group in SIZES:
        x = draw(n_x, n_columns, dtype=dtype)
        weight = weight_of(kind, n_rows, n_columns, group=group, dtype=dtype)
        verdict = verdict_on(run(x, [weight])[0], x, weight)
        assert verdict.is_ok, ((n_x, n_rows, n_columns, group), verdict)


@pytest.mark.parametrize("kind", KINDS)
def test_every_rung_gives_the_same_product(kind, checked):
    for n_x, n_rows, n_columns, group in ((1, 37, 640, 128), (2, 21, 1056, 32)):
        x = draw(n_x, n_columns, dtype=torch.bfloat16)
        weight = weight_of(kind, n_rows, n_columns, group=group, dtype=x.dtype)
        for rung in rungs_of(kind).values():
            if rung.least_x <= n_x <= rung.most_x and not (rung.is_mma and weight.group == 32):
                verdict = verdict_on(run(x, [weight], rung=rung.entry)[0], x, weight)
                assert verdict.is_ok, (rung.entry, verdict)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_tensor_cores_multiply_any_number_of_rows(kind, dtype, checked):
    """Columns that end within a step of a warp, ragged rows of the weight, all rows of x."""
    for n_x, n_rows, n_columns in ((1, 17, 128), (3, 5, 2304), (8, 33, 1408)):
        n_columns -= 48 * (kind == "int8")
        x = draw(n_x, n_columns, dtype=dtype)
        weights = [weight_of(kind, n, n_columns, group=128, dtype=dtype, seed=n)
                   for n in (n_rows, 4)]
        rung = f"{kind[:4]}_linear_mma"
        for y, weight in zip(run(x, weights, rung=rung), weights, strict=True):
            assert (verdict := verdict_on(y, x, weight)).is_ok, ((n_x, n_rows, n_columns), verdict)


@pytest.mark.parametrize("n_columns", [1, 7, 33, 255])
def test_8_bit_rows_may_have_any_width(n_columns, checked):
    x, weight = draw(3, n_columns, dtype=torch.bfloat16), weight_of("int8", 9, n_columns,
                                                                    dtype=torch.bfloat16)
    assert (verdict := verdict_on(run(x, [weight])[0], x, weight)).is_ok, verdict


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_products_are_the_same_bits_in_every_order_of_threads(kind, order, monkeypatch):
    x = draw(3, 2304, dtype=torch.bfloat16)
    weights = [weight_of(kind, n, 2304, dtype=x.dtype, seed=n) for n in (5, 9)]
    expected = run(x, weights)
    found = run(x, weights, n_slice=1024, n_warps=4, launcher=lambda *args, **shape: checked_launch(
        *args, **shape, order=order, seed=4))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_share_x_give_what_they_give_alone(kind, checked):
    """Ragged numbers of rows, and one more weight than a launch takes."""
    x = draw(2, 640, dtype=torch.bfloat16)
    weights = [weight_of(kind, n, 640, dtype=x.dtype, seed=n) for n in (9, 1, 6, 3)]
    entries = []

    def launcher(program, entry, *args, **shape):
        entries.append(entry)
        checked_launch(program, entry, *args, **shape)

    together = run(x, weights, launcher=launcher)
    assert len(entries) == 2
    for weight, found in zip(weights, together, strict=True):
        assert torch.equal(found, run(x, [weight])[0])


@pytest.mark.parametrize("group", [32, 64, 96, 128, 384])
def test_groups_may_be_any_multiple_of_32(group, checked):
    x, weight = draw(1, 384, dtype=torch.bfloat16), weight_of(
        "int4 with minimums", 5, 384, group=group, dtype=torch.bfloat16)
    for rung in (None, "int4_linear_1", "int4_linear_2"):
        verdict = verdict_on(run(x, [weight], rung=rung)[0], x, weight)
        assert verdict.is_ok, verdict


def test_every_8_bit_and_4_bit_number_is_unpacked_exactly(checked):
    """One input is 1 and the others are 0, so that the results are the weights."""
    for dtype in DTYPES:
        numbers = torch.arange(-128, 128, dtype=torch.int8)[:, None].expand(-1, 16).contiguous()
        x = torch.zeros(1, 16, dtype=dtype)
        for column in range(16):
            found = int8_linear(x.index_fill(1, torch.tensor(column), 1), numbers,
                                scale=torch.ones(256, dtype=dtype), emulate=True)
            assert torch.equal(found[0], numbers[:, column].to(dtype))
        weight = weight_of("int4", 16, 32, dtype=dtype)
        words = module.Weight(stored=torch.randint(-2**31, 2**31, (16, 4), dtype=torch.int32,
                                                   generator=torch.Generator().manual_seed(3)),
                              scale=torch.ones_like(weight.scale))
        for column in range(32):
            one = torch.zeros(1, 32, dtype=dtype).index_fill(1, torch.tensor(column), 1)
            found = int4_linear(one, words.stored, scale=words.scale, emulate=True)
            assert torch.equal(found[0], words.dequantized()[:, column])


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_the_fast_rung_reads_each_weight_once_in_full_accesses(kind, monkeypatch):
    x = draw(1, 2048, dtype=torch.bfloat16)
    weight = weight_of(kind, 16, 2048, group=128, dtype=x.dtype)
    traces = {}
    for entry in (f"{kind}_linear_1", f"{kind}_linear_2", f"{kind}_linear_by1"):
        run(x, [weight], rung=entry, launcher=lambda *args, **shape: traces.update(
            {args[1]: trace(*args, **shape)}))
    name = "weight" if kind == "int8" else "words"
    n_bytes = weight.stored.nbytes
    naive, warps, fast = traces.values()
    assert fast.moved_bytes["weight"] == (n_bytes, 0)
    assert warps.moved_bytes[name] == (n_bytes, 0)
    # a sector of 32 bytes for each number, which has one byte, or half of one
    assert naive.moved_bytes[name] == (n_bytes * (32 if kind == "int8" else 64), 0)
    requests = [sum(line.warp_accesses for line in found.traffic
                    if line.array == tensor) for found, tensor in
                ((warps, name), (fast, "weight"))]
    assert requests[0] == (16 if kind == "int8" else 4) * requests[1]
    # x is laid out in shared memory so that lanes read different banks
    reads = [line for line in fast.traffic if line.is_shared and line.kind == "reads"]
    assert reads and all(line.efficiency == 1 for line in reads)
    assert not any(found.races or found.out_of_bounds for found in traces.values())


@pytest.mark.parametrize("kind", KINDS)
def test_more_rows_of_x_are_multiplied_by_a_dequantized_weight_in_slices(kind, monkeypatch):
    monkeypatch.setattr(module, "launch", None)   # nothing is launched
    monkeypatch.setattr(module, "SLICE_BYTES", 3 * 64 * 4)
    x, weight = draw(3, 3, 64, dtype=torch.float32), weight_of(kind, 10, 64, dtype=torch.float32)
    found = call(kind, x, weight)
    torch.testing.assert_close(found, x @ weight.dequantized().T)


def call(kind, x, weight):
    if kind == "int8":
        return int8_linear(x, weight.stored, scale=weight.scale, emulate=True)
    return int4_linear(x, weight.stored, scale=weight.scale, minimum=weight.minimum, emulate=True)


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[2]])
def test_products_pass_gradcheck_in_x(kind):
    weight = weight_of(kind, 3, 32, dtype=torch.float64)
    for shape in ((2, 1, 32), (9, 32)):   # by the kernel, and by a dequantized weight
        x = draw(*shape, dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: call(kind, x, weight), (x,))


# --- in a model -----------------------------------------------------------------------------------


def quantized_model(make):
    torch.manual_seed(0)
    model = Llama(family.tiny("llama-3.1"))
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and child.in_features % 32 == 0:
                setattr(parent, name, make(child))
    return model


@pytest.mark.parametrize("make, fused", [
    (Int8Linear.from_linear, FusedInt8Linear),
    (lambda linear: Int4Linear.from_linear(linear, group=32, is_symmetric=False), FusedInt4Linear)])
def test_a_fused_quantized_model_writes_what_the_plain_one_writes(make, fused):
    model = quantized_model(make)
    ids, state = [[1, 2, 3]], model.state_dict()
    logits = model(torch.tensor([[1, 2, 3, 4]]))
    written = generate(model, ids, max_tokens=4)
    report = fuse(model, emulate=True)
    assert any(change.fused == fused.__name__ for change in report.changes)
    torch.testing.assert_close(model(torch.tensor([[1, 2, 3, 4]])), logits, rtol=1e-4, atol=1e-4)
    assert generate(model, ids, max_tokens=4) == written
    assert model.state_dict().keys() == state.keys()
    unfuse(model)
    assert torch.equal(model(torch.tensor([[1, 2, 3, 4]])), logits)
    assert model.state_dict().keys() == state.keys()


def test_a_bias_is_added_and_a_fused_layer_follows_its_model_to_another_dtype():
    torch.manual_seed(0)
    for make in (Int8Linear.from_linear,
                 lambda linear: Int4Linear.from_linear(linear, group=32, is_symmetric=False)):
        plain = nn.Sequential(make(nn.Linear(64, 5)))
        x = draw(2, 64, dtype=torch.float32)
        expected = plain(x)
        fused = nn.Sequential(*plain)
        model = nn.ModuleList([nn.SiLU(), fused, nn.Linear(1, 1)])   # fuse wants a parameter
        fuse(model, emulate=True)
        torch.testing.assert_close(fused(x), expected)
        assert fused[0].out_features == 5
        model.to(torch.bfloat16)
        assert fused(x.bfloat16()).dtype == torch.bfloat16
        unfuse(model)
        assert fused(x.bfloat16()).dtype == torch.bfloat16


# --- bugs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_weight_of_more_than_two_to_the_31_numbers_is_read_where_it_is(kind):
    """Only the block of the last rows is launched; an index of 32 bits would wrap around."""
    n_columns, real = 2**22, torch.bfloat16
    n_rows = 2**31 // n_columns + 3
    source = Source.read("quantized").replace(
        "int warp = blockIdx.x", f"int warp = {n_rows // 4} + blockIdx.x")
    each = 1 if kind == "int8" else 8
    stored = Vast(n_rows * n_columns // each, torch.int8 if kind == "int8" else torch.int32).tensor
    stored = stored.view(n_rows, -1)
    stored[-3:, -4:] = torch.arange(12, dtype=stored.dtype).view(3, 4)
    n_groups = 1 if kind == "int8" else 8
    scale, out = torch.ones(n_rows * n_groups, dtype=real), torch.zeros(n_rows, dtype=real)
    x = Vast(n_columns, real).tensor
    x[-4 * each:] = 1
    sizes = [1, n_columns, *([n_columns // 8] if kind == "int4" else []), 1024]
    mine = [stored, scale, *([None] if kind == "int4" else []), out, n_rows]
    nothing = [None] * len(mine[:-1]) + [0]
    load(Program(source=source, real=real)).launch(
        f"{kind}_linear_by1", [x, *mine, *nothing, *nothing, *sizes], grid=1, block=32,
        shared_bytes=2 * 1024)
    numbers = Weight(stored=stored[-3:, -4:], scale=torch.ones(3, 1) if kind == "int4"
                     else torch.ones(3)).dequantized().sum(1)
    assert torch.equal(out[-3:].float(), numbers) and numbers[0] != numbers[1]


def test_strided_and_misaligned_tensors_are_not_read_at_wrong_offsets(checked):
    weight = weight_of("int8", 6, 64, dtype=torch.bfloat16)
    x = draw(4, 64, dtype=torch.bfloat16)
    layouts = [x.t().contiguous().t(), torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape),
               x[:1].expand(4, -1)]
    for each in layouts:
        assert torch.equal(call("int8", each, weight), call("int8", each.clone(), weight))
    shifted = torch.cat([weight.stored.new_zeros(1), weight.stored.flatten()])[1:].view(6, 64)
    for stored in (weight.stored.t().contiguous().t(), shifted):
        assert torch.equal(int8_linear(x, stored, scale=weight.scale, emulate=True),
                           call("int8", x, weight))


def test_no_row_no_output_and_no_input_are_no_launch(checked):
    weight = weight_of("int8", 6, 64, dtype=torch.bfloat16)
    assert call("int8", draw(0, 64, dtype=torch.bfloat16), weight).shape == (0, 6)
    nothing = Weight(stored=weight.stored[:0], scale=weight.scale[:0])
    assert call("int8", draw(2, 64, dtype=torch.bfloat16), nothing).shape == (2, 0)
    empty = Weight(stored=weight.stored[:, :0], scale=weight.scale)
    assert torch.equal(call("int8", draw(2, 0, dtype=torch.bfloat16), empty),
                       torch.zeros(2, 6, dtype=torch.bfloat16))


PLANTED = {   # what is changed, and into what
    "no barrier after x is copied": (
        "    __syncthreads();\n}\n\ntemplate <class Format, int MOST_X",
        "}\n\ntemplate <class Format, int MOST_X"),
    "no barrier before x is overwritten": (
        "    __syncthreads();   // the last slice may still be being read\n", ""),
    "the same groups in every step": ("group_at[r] += groups_per_step;", ""),
    "what is added too much stays": ("VALUE = 128 + ZERO", "VALUE = 128"),
    "lanes beyond the row multiply what they had": (
        "if (begin >= n_mine) continue;", ""),
    "matrices divided by rounding down": (
        "int n_first = (first.n_rows + ROWS - 1) / ROWS", "int n_first = first.n_rows / ROWS"),
    "vectors of x in the order of columns": (
        "at = i / (32 * EACH) * 32 * EACH + i % EACH * 32 + lane", "at = i"),
    "the second row of x read as the first": ("load(mine + (size_t)m * n_slice", "load(mine"),
}
PLANTED_MMA = {
    "no barrier before the warps' sums are read": (
        "    __syncthreads();\n    if (threadIdx.x >= ROWS", "    if (threadIdx.x >= ROWS"),
    "the parts of a fragment exchanged": (
        "{low[j], high[j], low[j + 1], high[j + 1]}", "{low[j], low[j + 1], high[j], high[j + 1]}"),
    "the same groups in every step": ("group_at[half] += WARPS;", ""),
    "steps counted as if one warp had all columns": (
        "begin = first + slot * WARPS * STEP", "begin = first + slot * STEP"),
    "rows of x beyond the last are multiplied": ("g < n_x && begin", "begin"),
    "sums of the first warp only": ("for (int w = 0; w < WARPS; w++) all", "for (int w = 0; w < 1; "
                                                                          "w++) all"),
}


CHANGED = together(
    {name: (Source.read("quantized").replace(*change), "int4_linear_by2")
     for name, change in PLANTED.items()}
    | {("mma", name): (Source.read("quantized_mma").replace(*change), "int4_linear_mma")
       for name, change in PLANTED_MMA.items()})


@pytest.fixture(scope="module")
def built():
    build_all([program for program, _ in CHANGED.values()])


@pytest.mark.parametrize("name", CHANGED, ids=str)
def test_a_planted_bug_is_caught(name, built):
    program, entry = CHANGED[name]
    rung, group = ("int4_linear_mma", 128) if "mma" in name else ("int4_linear_by2", 32)
    x = draw(2, 2048 + 3 * group, dtype=torch.bfloat16)
    weights = [weight_of("int4", n, x.shape[1], group=group, dtype=x.dtype, seed=n)
               for n in (5, 7)]
    try:
        found = run(x, weights, rung=rung, n_slice=1024, n_warps=4,
                    launcher=lambda _, __, *args, **shape: checked_launch(program, entry, *args,
                                                                          **shape))
    except KernelFault:
        return
    assert not all(verdict_on(y, x, w).is_ok for y, w in zip(found, weights, strict=True))


# --- refusals and torch ---------------------------------------------------------------------------


def test_products_refuse_a_cpu_tensor_unless_they_may_emulate():
    weight = weight_of("int8", 3, 32, dtype=torch.float32)
    with pytest.raises(ValueError, match="int8_linear runs on a CUDA device; the tensor is on cpu"):
        int8_linear(draw(1, 32, dtype=torch.float32), weight.stored, scale=weight.scale)


@pytest.mark.parametrize("change, message", [
    (lambda x, w, s: (x, w[:, :32], s), r"needs a weight of int8 \(D, F\).*got x \(2, 64\).*and "
                                        r"\(3, 32\) torch.int8"),
    (lambda x, w, s: (x, w.int(), s), r"and \(3, 64\) torch.int32"),
    (lambda x, w, s: (x, w.float(), s), r"and \(3, 64\) torch.float32"),
    (lambda x, w, s: (x, w, s.bfloat16()), "scales and minimums must have x's dtype.*bfloat16"),
    (lambda x, w, s: (x, w, s.to("meta")), r"everything its device.*on meta"),
    (lambda x, w, s: (x, w, s[:2]), r"one scale per row, \(D,\); got \(2,\).*for 3 rows"),
    (lambda x, w, s: (x.long(), w, s), "the kernels compute in .*; got torch.int64"),
    (lambda x, w, s: (x, w, s.requires_grad_()), "gradients for x only"),
])
def test_8_bit_products_refuse_what_does_not_fit(change, message):
    weight = weight_of("int8", 3, 64, dtype=torch.float32)
    x, w, s = change(draw(2, 64, dtype=torch.float32), weight.stored, weight.scale)
    with pytest.raises(ValueError, match=message):
        op8(x, [w], [s])


@pytest.mark.parametrize("change, message", [
    (lambda w, s, m: (w, s[:, 0], m), r"one scale per row and group, \(D, F / group\); got \(3,\)"),
    (lambda w, s, m: (w, s[:2], m), r"got \(2, 2\).*for 3 rows of 64"),
    (lambda w, s, m: (w, s.repeat(1, 2), m), "a group of 4-bit weights must be a multiple of 32.*"
                                             "got a group of 16 and rows of 64"),
    (lambda w, s, m: (w, s.repeat(1, 2)[:, :3], m), "rows must be whole groups; got a group of 22"),
    (lambda w, s, m: (w, s, m[:, :1]), r"minimums must have the shape of the scales; got \(3, 1\)"),
])
def test_4_bit_products_refuse_what_does_not_fit(change, message):
    weight = weight_of("int4 with minimums", 3, 64, dtype=torch.float32)
    w, s, m = change(weight.stored, weight.scale, weight.minimum)
    with pytest.raises(ValueError, match=message):
        op4(draw(2, 64, dtype=torch.float32), [w], [s], [m])


def test_weights_of_which_only_some_have_minimums_are_refused_together():
    x = draw(1, 64, dtype=torch.float32)
    first, second = (weight_of(kind, 3, 64, dtype=x.dtype) for kind in KINDS[1:])
    with pytest.raises(ValueError, match="must all have minimums, or none; got 1 minimums for 2"):
        int4_linears(x, [(w.stored, w.scale, w.minimum) for w in (first, second)], emulate=True)


def test_a_rung_that_would_cut_rows_is_refused():
    x, weight = draw(3, 40, dtype=torch.float32), weight_of("int8", 3, 40, dtype=torch.float32)
    with pytest.raises(ValueError, match="takes 3 to 4 rows of x, of a multiple of 16 numbers"):
        run(x, [weight], rung="int8_linear_by4")
    with pytest.raises(ValueError, match="takes 2 to 2 rows of x"):
        run(x, [weight_of("int8", 3, 64, dtype=torch.float32)], rung="int8_linear_by2")


@pytest.mark.parametrize("kind", KINDS)
def test_torch_accepts_the_registration_of_the_products(kind):
    x, weight = draw(2, 64, dtype=torch.float64), weight_of(kind, 3, 64, dtype=torch.float64)
    minimums = [] if weight.minimum is None else [weight.minimum]
    args = [x.requires_grad_(), [weight.stored], [weight.scale]]
    torch.library.opcheck(op8.default if kind == "int8" else op4.default,
                          [*args, minimums] if kind != "int8" else args)


def test_torch_compile_takes_the_products_into_one_graph():
    unchecked = inspect.unwrap(int8_linears)   # the compiler cannot trace the tests' shape checks
    weights = [weight_of("int8", n, 64, dtype=torch.float64, seed=n) for n in (3, 5)]
    pairs = [(weight.stored, weight.scale) for weight in weights]

    def total(x):
        return sum(y.sum() for y in unchecked(2 * x, pairs, emulate=True))

    x = draw(2, 64, dtype=torch.float64).requires_grad_()
    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    assert torch.equal(*(torch.autograd.grad(way(x), x)[0] for way in (compiled, total)))
