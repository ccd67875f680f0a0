"""Each bug here is one small change to a kernel that is right. It must be caught, and by the means
that it is listed with.

"forward", "reverse", "random": the checked build, in that order of threads and blocks, gives a
wrong number or a fault; shared memory is poisoned there, and every tensor lies between guarded
pages. "trace": the traced build reports a race, or an access out of bounds.
"""

from dataclasses import dataclass

import pytest
import torch
from changed_kernels import build_all, only, together

from llama_from_scratch.kernels.emulator import build, machine
from llama_from_scratch.kernels.emulator.machine import KernelFault
from llama_from_scratch.kernels.emulator.trace import trace
from llama_from_scratch.kernels.machinery.source import FOLDER, Program, Source

# --- kernels of our own, for what the library's do not need ---------------------------------------

OWN = Source(name="own", headers={"common.cuh": (FOLDER / "common.cuh").read_text()}, text=r"""
#include "common.cuh"

// A square matrix turned, tile by tile, with ragged tiles at the edges.
extern "C" __global__ void transpose(const float* x, float* y, int n) {
    __shared__ float tile[16][17];
    int row = blockIdx.y * 16 + threadIdx.y, column = blockIdx.x * 16 + threadIdx.x;
    if (row < n && column < n) tile[threadIdx.y][threadIdx.x] = x[row * n + column];
    __syncthreads();
    row = blockIdx.x * 16 + threadIdx.y, column = blockIdx.y * 16 + threadIdx.x;
    if (row < n && column < n) y[row * n + column] = tile[threadIdx.x][threadIdx.y];
}

// Each row back to front, one block per row.
extern "C" __global__ void flip(const float* x, float* y, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        y[blockIdx.x * n + i] = x[blockIdx.x * n + n - 1 - i];
}

// y[i] = mean of x[0..i]: each warp lays its row out in shared memory, for all its lanes to read.
extern "C" __global__ void causal_mean(const float* x, float* y) {
    __shared__ float rows[4][32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float* row = rows[warp];
    row[lane] = x[threadIdx.x];
    int last = __shfl_sync(ALL_LANES, lane, 31);
    __syncwarp();
    float sum = 0;
    for (int j = 0; j <= last; j++) if (j <= lane) sum += row[j];
    y[threadIdx.x] = sum / (lane + 1);
}

// The sum over the first n lanes; the others have nothing to add and leave.
extern "C" __global__ void sum_of_first(const float* x, float* y, int n) {
    if (threadIdx.x >= n) return;
    unsigned mask = (1u << n) - 1;
    float sum = 0;
    for (int lane = 0; lane < n; lane++) sum += __shfl_sync(mask, x[threadIdx.x], lane);
    y[threadIdx.x] = sum;
}

extern "C" __global__ void histogram(const int* x, int* counts, int n) {
    __shared__ int bins[16];
    if (threadIdx.x < 16) bins[threadIdx.x] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        atomicAdd(&bins[x[i]], 1);
    __syncthreads();
    if (threadIdx.x < 16) atomicAdd(&counts[threadIdx.x], bins[threadIdx.x]);
}

// Sorts four numbers of its own in a local array.
extern "C" __global__ void sort_four(const float* x, float* y) {
    float own[4];
    for (int k = 0; k < 4; k++) own[k] = x[threadIdx.x * 4 + k];
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 3 - i; k++)
            if (own[k] > own[k + 1]) {
                float other = own[k];
                own[k] = own[k + 1], own[k + 1] = other;
            }
    for (int k = 0; k < 4; k++) y[threadIdx.x * 4 + k] = own[k];
}
""")

# --- launches with known results ------------------------------------------------------------------


def nan(*shape):
    return torch.full(shape, float("nan"))


@dataclass
class Launch:
    """One launch and what it must leave in its outputs, as {position among the arguments: the first
    rows of the tensor}."""

    source: Source
    entry: str
    args: list
    expected: dict
    grid: object
    block: object
    # tensors that only their addresses lead to: as they are before, themselves, as they must become
    by_address: tuple = ()


def rms(
    entry, grid, block, *, n_rows=5, n_columns, has_residual=False, has_n_rows=False, has_slots=True
):
    x, weight = torch.randn(n_rows, n_columns), torch.randn(n_columns)
    residual = torch.randn(n_rows, n_columns)
    h = x + residual if has_residual else x
    inverse = (h.double().square().mean(1) + 1e-5).rsqrt()
    y = (h * inverse[:, None] * weight).float()
    slots = ([residual, weight, nan(*x.shape), nan(*x.shape)] if has_residual
             else [None, weight, nan(*x.shape), None])
    args = [x, *(slots if has_slots else [weight, nan(*x.shape)]), nan(n_rows),
            *[n_rows] * has_n_rows, n_columns, 1e-5]
    expected = {3: y, 5: inverse.float()} if has_slots else {2: y, 3: inverse.float()}
    expected |= {4: h} if has_residual else {}
    return Launch(Source.read("rms_norm"), entry, args, expected, grid, block)


def rms_backward(entry, block, *, n_rows=5, n_columns, n_blocks=2):
    x, weight, dy = (torch.randn(n_rows, n_columns), torch.randn(n_columns),
                     torch.randn(n_rows, n_columns))
    x64, w64 = x.double().requires_grad_(), weight.double().requires_grad_()
    inverse = (x64.square().mean(1, keepdim=True) + 1e-5).rsqrt()
    (x64 * inverse * w64 * dy).sum().backward()
    rows_per_block = block[1] if isinstance(block, tuple) else 1
    normed = dy * (x64 * inverse).detach()
    owner = (torch.arange(n_rows) // rows_per_block) % n_blocks
    partial = torch.stack([normed[owner == b].sum(0) for b in range(n_blocks)]).float()
    args = [dy, None, x, weight, inverse.detach().float().flatten(), nan(n_rows, n_columns),
            nan(n_blocks, n_columns), n_rows, n_columns]
    return Launch(Source.read("rms_norm"), entry, args, {5: x64.grad.float(), 6: partial}, n_blocks,
                  block)


def column_sum(n_parts=70, n_columns=45):
    partial = torch.randn(n_parts, n_columns)
    return Launch(Source.read("rms_norm"), "rms_norm_column_sum",
                  [partial, nan(n_columns), n_parts, n_columns],
                  {1: partial.double().sum(0).float()}, 2, (32, 32))


def rope(n_tokens=3, n_q_heads=4, n_k_heads=2, head_dim=16):
    q, k = torch.randn(n_tokens, n_q_heads, head_dim), torch.randn(n_tokens, n_k_heads, head_dim)
    rotation = torch.polar(torch.ones(n_tokens, head_dim // 2),
                           torch.randn(n_tokens, head_dim // 2))
    turn = lambda x: torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2)))
                                        * rotation[:, None]).flatten(-2)
    args = [q, k, torch.view_as_real(rotation).contiguous(), nan(*q.shape), nan(*k.shape), n_tokens,
            n_tokens, n_q_heads, n_k_heads, head_dim, 0, 1.0]
    return Launch(Source.read("rope"), "rope_2", args, {3: turn(q), 4: turn(k)}, (1, 2, 1), (8, 4))


def swiglu(n=2 * 2 * 256 * 4 + 800 + 3, n_blocks=2):
    gate, up = torch.randn(n), torch.randn(n)
    y = (gate.double() * gate.double().sigmoid() * up).float()
    return Launch(Source.read("swiglu"), "swiglu_forward", [gate, up, nan(n), n], {2: y}, n_blocks,
                  256)


def adamw(sizes=(16384 + 50, 7)):
    """Tensors whose addresses stand in a table, each in a storage that goes on behind it: the
    emulator cannot guard these."""
    before = {name: [torch.randn(size + 20000).abs() for size in sizes]
              for name in ("master", "mean", "square", "gradient")}
    tensors = {name: [each.clone() for each in group] for name, group in before.items()}
    norm, scale, length, eps, lr, go = 1.0, 0.5, 1e-3, 1e-8, 1e-2, 1.0
    beta1, beta2, decay = 0.9, 0.95, 0.1
    expected = []
    for master, mean, square, gradient, size in zip(*before.values(), sizes, strict=True):
        m, a, s, g = (each.double().clone() for each in (master, mean, square, gradient * scale))
        a[:size] += (1 - beta1) * (g - a)[:size]
        s[:size] = (beta2 * s + (1 - beta2) * g * g)[:size]
        m[:size] = (m * (1 - lr * decay) - length * a / (s.sqrt() + eps))[:size]
        expected += [m, a, s]
    table = [[*(group[i].data_ptr() for group in tensors.values()), 0, size]
             for i, size in enumerate(sizes)]
    chunks = torch.tensor([(i, start) for i, size in enumerate(sizes)
                           for start in range(0, size, 16384)])
    args = [torch.tensor(table), torch.full((len(sizes),), decay), chunks[:, 0].int(),
            chunks[:, 1].clone(), len(chunks),
            torch.tensor([norm, scale, length, eps, lr, go]), beta1, beta2]
    return Launch(Source.read("adamw"), "adamw_2", args, {}, 2, 256,
                  by_address=(before, tensors, expected))


def own(entry):
    if entry == "transpose":
        x = torch.randn(45, 45)
        return Launch(OWN, entry, [x, nan(45, 45), 45], {1: x.T}, (3, 3), (16, 16))
    # one row more than there are blocks: what the last block does beyond its row harms nobody here
    if entry == "flip":
        x = torch.randn(6, 40)
        return Launch(OWN, entry, [x, nan(6, 40), 40], {1: x[:5].flip(1)}, 5, 32)
    if entry == "causal_mean":
        x = torch.randn(128)
        mean = x.reshape(4, 32).cumsum(1) / torch.arange(1, 33)
        return Launch(OWN, entry, [x, nan(128)], {1: mean.flatten()}, 1, 128)
    if entry == "sum_of_first":
        x = torch.randn(32)
        return Launch(OWN, entry, [x, nan(32), 20],
                      {1: torch.cat([x[:20].sum().repeat(20), nan(12)])}, 1, 32)
    if entry == "histogram":
        x = torch.randint(0, 16, (1000,), dtype=torch.int32)
        counts = torch.bincount(x, minlength=16).int()
        return Launch(OWN, entry, [x, torch.zeros(16, dtype=torch.int32), 1000], {1: counts}, 3, 64)
    x = torch.randn(64, 4)
    return Launch(OWN, "sort_four", [x, nan(64, 4)], {1: x.sort(1).values}, 1, 64)


LAUNCHES = {
    "forward_1": lambda: rms("rms_norm_forward_1", 1, 8, n_columns=70, has_n_rows=True,
                             has_slots=False),
    "forward_2": lambda: rms("rms_norm_forward_2", 5, 256, n_columns=300, has_slots=False),
    "forward": lambda: rms("rms_norm_forward", 5, 256, n_columns=300, has_residual=True),
    "forward_by2": lambda: rms("rms_norm_forward_by2", 2, (32, 4), n_columns=200, has_n_rows=True),
    "backward": lambda: rms_backward("rms_norm_backward", 256, n_columns=300),
    "backward_by1": lambda: rms_backward("rms_norm_backward_by1", (32, 2), n_columns=100),
    "column_sum": column_sum,
    "rope": rope,
    "swiglu": swiglu,
    "adamw": adamw,
    **{entry: (lambda entry=entry: own(entry)) for entry in OWN.entries},
}

# --- the bugs -------------------------------------------------------------------------------------


@dataclass
class Bug:
    launch: str
    old: str
    new: str
    by: str          # "forward", "reverse", "random", "trace": each of those named must find it
    says: str = ""     # a part of the fault's message, or of the trace's
    not_by: str = ""   # each of these is blind to it: why there is more than one means

    @property
    def kinds(self):
        means = f"{self.by} {self.not_by}"
        return ["checked"] * any(order in means
                                 for order in machine.ORDERS) + ["traced"] * ("trace" in means)

    def changed(self):
        """The changed source, and the entry point that is launched."""
        launch = LAUNCHES[self.launch]()
        return launch.source.replace(self.old, self.new), launch.entry


def program(source, entry):
    """The source for fp32, with one entry point only: the compiler skips what is never called."""
    return Program(source=only(source, entry), real=torch.float32)


EVERY_ORDER = "forward reverse random"
BUGS = {
    "no barrier between the writers of partial sums and their readers": Bug(
        "forward_2", "sums[threadIdx.x] = sum;\n    __syncthreads();", "sums[threadIdx.x] = sum;",
        "forward trace", "sums"),
    "no barrier between the rounds of a tree": Bug(
        "forward_2", "sums[threadIdx.x + half];\n        __syncthreads();",
        "sums[threadIdx.x + half];", EVERY_ORDER + " trace", "sums"),
    "barrier under a branch that not all threads take": Bug(
        "forward_2", "if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];\n "
                     "       __syncthreads();",
        "if (threadIdx.x < half) { sums[threadIdx.x] += sums[threadIdx.x + half]; __syncthreads(); "
        "}", EVERY_ORDER,
        "all threads of a block must reach"),
    "tree that leaves out half of the sums": Bug(
        "forward_2", "int half = THREADS / 2", "int half = THREADS / 4", EVERY_ORDER),
    "index past the end of a shared array": Bug(
        "forward_2", "+= sums[threadIdx.x + half]", "+= sums[threadIdx.x + half + 1]",
        EVERY_ORDER + " trace", "sums[256]"),
    "no barrier before a buffer of the last sum is written again": Bug(
        "backward", "    __syncthreads();   // another sum may still be being read from per_warp\n",
        "", EVERY_ORDER + " trace", "per_warp"),
    "no barrier before the warps' sums are read": Bug(
        "forward", "per_warp[threadIdx.x / 32] = x;\n    __syncthreads();",
        "per_warp[threadIdx.x / 32] = x;", EVERY_ORDER + " trace", "per_warp"),
    "reduction one step too short": Bug(
        "forward", "int distance = 16; distance; distance /= 2) x +=",
        "int distance = 8; distance; distance /= 2) x +=", EVERY_ORDER),
    "shuffle under a branch that half of the lanes take": Bug(
        "forward", "    x = warp_sum(x);\n", "    if (threadIdx.x % 32 < 16) x = warp_sum(x);\n",
        EVERY_ORDER, "deadlock"),
    "mean over the wrong number of columns": Bug(
        "forward", "inverse_root(sum_of_squares / n_columns + eps)", "inverse_root(sum_of_squares "
                                                                     "/ (n_columns + 1) + eps)",
        EVERY_ORDER),
    "off-by-one guard of the last row": Bug(
        "forward_1", "if (row >= (size_t)n_rows) return;\n    accum", "if (row > (size_t)n_rows) "
                                                                      "return;\n "
                                                                      "   accum",
        EVERY_ORDER + " trace", "x"),
    "lanes without a column leave before the warp adds": Bug(
        "forward_by2", "if (row >= (size_t)n_rows) return;   // only",
        "if (row >= (size_t)n_rows || column_of(1) >= n_columns) return;   // only", EVERY_ORDER,
        "returned"),
    "sum that starts with what memory happened to hold": Bug(
        "backward", "(row == blockIdx.x ? 0 : part[c])", "part[c]", EVERY_ORDER),
    "no barrier between the rows of a block that add up": Bug(
        "backward_by1", "if (blockDim.y > 1) __syncthreads();", "", "reverse trace", "shared"),
    "row of a shared array one element too short": Bug(
        "column_sum", "sums[32][32]", "sums[32][31]", EVERY_ORDER + " trace", "sums"),
    "stride of another tensor": Bug(
        "rope", "k + (token * n_k_heads + (head - n_q_heads)) * head_dim",
        "k + (token * n_q_heads + (head - n_q_heads)) * head_dim", EVERY_ORDER + " trace", "k"),
    "result used where the input was meant": Bug(
        "rope", "b = narrow(x * sine + y * cosine)", "b = narrow(widen(a) * sine + y * cosine)",
        EVERY_ORDER),
    "rest of the numbers off by one": Bug(
        "swiglu", "rest = n_vectors * VECTOR + (size_t)blockIdx.x * THREADS + threadIdx.x;",
        "rest = n_vectors * VECTOR + (size_t)blockIdx.x * THREADS + threadIdx.x + 1;", EVERY_ORDER),
    "two blocks that do the same work": Bug("swiglu", "tile += gridDim.x * TILE", "tile += TILE",
                                            "trace", "y", EVERY_ORDER),
    "last chunk of a tensor taken for a whole one": Bug(
        "adamw", "end = master + (left < CHUNK ? left : CHUNK);", "end = master + CHUNK;",
        EVERY_ORDER),
    "row overrun that the next block repairs": Bug(
        "flip",
        "i < n; i += blockDim.x)\n        y[blockIdx.x * n + i] = x[blockIdx.x * n + n - 1 - i]",
        "i <= n; i += blockDim.x)\n        "
        "y[blockIdx.x * n + i] = x[blockIdx.x * n + abs(n - 1 - i)]",
        "reverse trace", "y", "forward"),
    "ragged tile that is not guarded": Bug(
        "transpose", "if (row < n && column < n) y[", "if (row < n) y[", EVERY_ORDER + " trace",
        "y"),
    "no barrier between filling a tile and turning it": Bug(
        "transpose", "    __syncthreads();\n    row = ", "    row = ", EVERY_ORDER + " trace",
        "tile"),
    "no __syncwarp, hidden by a shuffle nearby": Bug(
        "causal_mean", "    __syncwarp();\n", "", "trace", "rows", EVERY_ORDER),
    "mask of the past that leaves out the present": Bug(
        "causal_mean", "if (j <= lane)", "if (j < lane)", EVERY_ORDER),
    "mask of lanes one too short": Bug(
        "sum_of_first", "(1u << n) - 1", "(1u << n - 1) - 1", EVERY_ORDER, "leaves out the caller"),
    "counts that are not set to 0": Bug(
        "histogram", "    if (threadIdx.x < 16) bins[threadIdx.x] = 0;\n", "", EVERY_ORDER),
    "addition that is not atomic": Bug("histogram", "atomicAdd(&bins[x[i]], 1)", "bins[x[i]]++",
                                       "trace", "bins", EVERY_ORDER),
}


PLANTED = together({name: bug.changed() for name, bug in BUGS.items()}, real=torch.float32)


@pytest.fixture(scope="module", autouse=True)
def built():
    """Every program of this file, two at a time."""
    torch.manual_seed(0)
    right = [Program(source=source, real=torch.float32) for source in (
        *(Source.read(name) for name in ("rms_norm", "rope", "swiglu", "adamw")), OWN)]
    for kind in ("checked", "traced"):
        build_all([*right, *(PLANTED[name][0] for name, bug in BUGS.items() if kind in bug.kinds)],
                  kind=kind)


def _every(groups):
    return [tensor for group in groups.values() for tensor in group]


def run(launch, program, order, *, entry=None, kind="checked"):
    """What is wrong with the results of one launch, or "": the message of a fault, or which output
    is off."""
    args = [arg.clone() if isinstance(arg, torch.Tensor) else arg for arg in launch.args]
    for before, tensor in zip(*map(_every, launch.by_address[:2]), strict=True):
        tensor.copy_(before)
    try:
        machine.load(program, kind=kind).launch(
            entry or launch.entry, args, grid=launch.grid, block=launch.block, order=order, seed=1)
    except KernelFault as fault:
        return str(fault)
    pairs = [(args[i][:len(tensor)], tensor) for i, tensor in launch.expected.items()]
    if launch.by_address:
        _, tensors, expected = launch.by_address
        changed = [group[i] for i in range(2) for group in list(tensors.values())[:3]]
        pairs += zip(changed, expected, strict=True)
    is_right = [torch.allclose(got.double(), right.double(), rtol=1e-4, atol=1e-5, equal_nan=True)
                for got, right in pairs]
    return "" if all(is_right) else f"outputs right: {is_right}"


def look(launch, program, *, entry=None):
    """What the traced build reports: races and accesses out of bounds, or ""."""
    args = [arg.clone() if isinstance(arg, torch.Tensor) else arg for arg in launch.args]
    found = trace(program, entry or launch.entry, args, grid=launch.grid, block=launch.block)
    return "\n".join([str(found.out_of_bounds)] * (found.out_of_bounds is not None)
                     + [str(race) for race in found.races])


@pytest.mark.parametrize("name", LAUNCHES)
def test_kernel_without_a_planted_bug_is_clean(name):
    launch = LAUNCHES[name]()
    whole = Program(source=launch.source, real=torch.float32)
    assert [run(launch, whole, order) for order in machine.ORDERS] == ["", "", ""]
    if not launch.by_address:   # to the trace, memory that it was not told of is nobody's
        assert look(launch, whole) == ""


@pytest.mark.parametrize("name", BUGS)
def test_planted_bug_is_caught(name):
    bug = BUGS[name]
    launch, (planted, entry) = LAUNCHES[bug.launch](), PLANTED[name]
    found = {means: look(launch, planted, entry=entry) if means == "trace"
             else run(launch, planted, means, entry=entry)
             for means in f"{bug.by} {bug.not_by}".split()}
    assert {means for means, message in found.items() if message} == set(bug.by.split())
    assert bug.says in "\n".join(found.values())


# --- slow: the compiler's own finders of memory errors and races ----------------------------------

BUGS_FOR_SANITIZERS = {
    "local array": ("address", "stack-buffer-overflow",
                    Bug("sort_four", "k < 3 - i", "k < 4 - i", "")),
    "shared array": ("address", "global-buffer-overflow", BUGS[
        "row of a shared array one element too short"]),
    "tensor": ("address", "heap-buffer-overflow", BUGS["off-by-one guard of the last row"]),
    "no barrier": ("thread", "data race", BUGS["no barrier between the writers of partial sums and "
                                               "their readers"]),
    "no barrier in a loop": ("thread", "data race",
                             BUGS["no barrier between the rounds of a tree"]),
    "no barrier before reuse": ("thread", "data race", BUGS[
        "no barrier before a buffer of the last sum is written again"]),
    "no __syncwarp": ("thread", "data race", BUGS["no __syncwarp, hidden by a shuffle nearby"]),
    "not atomic": ("thread", "data race", BUGS["addition that is not atomic"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BUGS_FOR_SANITIZERS)
def test_planted_bug_is_caught_by_a_sanitizer(name):
    kind, says, bug = BUGS_FOR_SANITIZERS[name]
    message = run(LAUNCHES[bug.launch](), program(*bug.changed()), "forward", kind=kind)
    assert says in message and f"{LAUNCHES[bug.launch]().source.name}.cu:" in message


@pytest.mark.slow
@pytest.mark.parametrize("kind", build.EXECUTABLES)
# its table holds addresses of this process
@pytest.mark.parametrize("name", [name for name in LAUNCHES if name != "adamw"])
def test_kernel_without_a_planted_bug_is_clean_under_a_sanitizer(name, kind):
    launch = LAUNCHES[name]()
    assert run(launch, program(launch.source, launch.entry), "forward", kind=kind) == ""
