"""What the emulator computes, what it refuses, and how it reports a fault and lives on."""

import ctypes
import itertools
import re
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from llama_from_scratch.kernels.emulator import build, machine
from llama_from_scratch.kernels.emulator.machine import KernelFault
from llama_from_scratch.kernels.machinery.source import FOLDER, Program, Source

HEADERS = {"common.cuh": (FOLDER / "common.cuh").read_text()}


def program(name, text, *, real=torch.float32):
    return Program(source=Source(name=name, text=text, headers=HEADERS), real=real)


# --- kernels, one for each thing that the machine can do ------------------------------------------

FEATURES = program("features", r"""
#include "common.cuh"

extern "C" __global__ void shuffle(const float* x, float* y, int kind, int n, int width) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float v = x[i];
    y[i] = kind == 0   ? __shfl_sync(ALL_LANES, v, n, width)
           : kind == 1 ? __shfl_up_sync(ALL_LANES, v, n, width)
           : kind == 2 ? __shfl_down_sync(ALL_LANES, v, n, width)
                       : __shfl_xor_sync(ALL_LANES, v, n, width);
}

extern "C" __global__ void shuffle_wide(
    const double* x, double* y, const long long* a, long long* b)
{
    int i = threadIdx.x;
    y[i] = __shfl_xor_sync(ALL_LANES, x[i], 5);
    b[i] = __shfl_down_sync(ALL_LANES, a[i], 3);
}

// The two halves of a warp meet among themselves, one of them three times as often as the other.
extern "C" __global__ void halves(const int* x, int* y) {
    int lane = threadIdx.x % 32, sum = 0;
    unsigned mine = lane < 16 ? 0x0000ffffu : 0xffff0000u;
    for (int round = 0; round < (lane < 16 ? 3 : 9); round++)
        sum += __shfl_sync(mine, x[threadIdx.x] + round, round, 16);
    y[threadIdx.x] = sum;
}

extern "C" __global__ void votes(const int* x, unsigned* ballot, int* any, int* all) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned mask = threadIdx.x % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
    ballot[i] = __ballot_sync(ALL_LANES, x[i]);
    any[i] = __any_sync(mask, x[i]);
    all[i] = __all_sync(mask, x[i]);
}

extern "C" __global__ void atomics(
    const int* x, const float* f, int* sum_min_max, unsigned* bits, long long* exchanged,
    float* total, double* wide_total, int* product)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(&sum_min_max[0], x[i]);
    atomicMin(&sum_min_max[1], x[i]);
    atomicMax(&sum_min_max[2], x[i]);
    atomicOr(&bits[0], 1u << x[i] % 32);
    atomicAnd(&bits[1], ~(1u << x[i] % 32));
    atomicMax(&bits[2], (unsigned)x[i]);
    atomicAdd(total, f[i]);
    atomicAdd(wide_total, (double)f[i]);
    atomicAdd((unsigned long long*)exchanged, 1ull << 33);
    int seen = *product, expected;
    do {
        expected = seen;
        seen = atomicCAS(product, expected, expected * 3);
    } while (seen != expected);
}

// Running sums by doubling steps: a barrier twice in every round of a loop.
extern "C" __global__ void scan(const float* x, float* y) {
    __shared__ float sums[1024];
    int t = threadIdx.x, at = blockIdx.x * blockDim.x + t;
    sums[t] = x[at];
    __syncthreads();
    for (int step = 1; step < blockDim.x; step *= 2) {
        float left = t >= step ? sums[t - step] : 0;
        __syncthreads();
        sums[t] += left;
        __syncthreads();
    }
    y[at] = sums[t];
}

extern "C" __global__ void sum_of_living(const float* x, float* y, int n) {
    int lane = threadIdx.x;
    unsigned living = __ballot_sync(ALL_LANES, lane < n);
    if (lane >= n) return;
    float sum = 0;
    for (int other = 0; other < n; other++) sum += __shfl_sync(living, x[lane], other);
    __syncwarp(living);
    y[lane] = sum;
}

extern "C" __global__ void places(int* out) {
    int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    int* mine = out + ((size_t)block * blockDim.x * blockDim.y * blockDim.z + thread) * 6;
    mine[0] = blockIdx.x, mine[1] = blockIdx.y, mine[2] = blockIdx.z;
    mine[3] = threadIdx.x, mine[4] = threadIdx.y, mine[5] = threadIdx.z;
}

extern "C" __global__ void partial_warp(unsigned* ballot, int* y) {
    ballot[threadIdx.x] = __ballot_sync(ALL_LANES, 1);
    y[threadIdx.x] = __shfl_sync(ALL_LANES, (int)threadIdx.x, 0);
}

// A tile turned in static shared memory, then its rows reversed in dynamic shared memory.
extern "C" __global__ void turn(const float* x, float* y, int n) {
    __shared__ float tile[16][17];
    DYNAMIC_SHARED(float, rows);
    int i = blockIdx.y * 16 + threadIdx.y, j = blockIdx.x * 16 + threadIdx.x;
    if (i < n && j < n) tile[threadIdx.y][threadIdx.x] = x[i * n + j];
    __syncthreads();
    rows[(15 - threadIdx.y) * 16 + threadIdx.x] = tile[threadIdx.x][threadIdx.y];
    __syncthreads();
    int to_i = blockIdx.x * 16 + threadIdx.y, to_j = blockIdx.y * 16 + threadIdx.x;
    if (to_i < n && to_j < n) y[to_i * n + to_j] = rows[(15 - threadIdx.y) * 16 + threadIdx.x];
}

extern "C" __global__ void unwritten(float* fixed, float* dynamic) {
    __shared__ float a[64];
    DYNAMIC_SHARED(float, b);
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    fixed[i] = a[threadIdx.x];
    dynamic[i] = b[threadIdx.x];
    __syncthreads();
    a[threadIdx.x] = b[threadIdx.x] = 1;
}

extern "C" __global__ void tickets(int* counter, int* ticket) {
    ticket[blockIdx.x * blockDim.x + threadIdx.x] = atomicAdd(counter, 1);
}

extern "C" __global__ void functions(const float* x, float* y, int n) {
    int i = threadIdx.x;
    float v = x[i];
    float results[] = {rsqrtf(v), sqrtf(v), __expf(v), exp2f(v), __logf(v), log2f(v), sinf(v),
                       __cosf(v), tanhf(v), erff(v), fmaxf(v, 1.f), fminf(v, 1.f), powf(v, 1.5f),
                       floorf(v), ceilf(v), fabsf(-v), __fdividef(v, 3.f),
                       __saturatef(v), max(v, 2.f), (float)min((int)v, 1)};
    for (int k = 0; k < n; k++) y[i * n + k] = results[k];
}

extern "C" __global__ void bits(const int* x, int* y) {
    int v = x[threadIdx.x];
    int* mine = y + threadIdx.x * 4;
    mine[0] = __popc(v), mine[1] = __clz(v), mine[2] = __ffs(v);
    mine[3] = __float_as_int(__int_as_float(v));
}

extern "C" __global__ void fused(const float* x, float* y) { y[0] = x[0] * x[1] + x[2]; }

extern "C" __global__ void maybe(const float* x, float* y_or_null, int* was_null) {
    if (y_or_null) y_or_null[0] = x[0];
    was_null[0] = !y_or_null;
}
""")

ORDERS = [("forward", 0), ("reverse", 0), ("random", 1), ("random", 2)]


@pytest.fixture(scope="module", autouse=True)
def built():
    """All programs of this file, two at a time: compilers wait for the disk as much as for the
    processor."""
    wanted = [(FEATURES, "fast"), (FEATURES, "checked"), (FAULTS, "checked"), (FAULTS, "fast")]
    wanted += [(p, "checked") for p in NUMBERS.values()]
    threads = [threading.Thread(target=lambda part=part: [
        build.build(p, kind=kind) for p, kind in part])
               for part in (wanted[::2], wanted[1::2])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run(entry, args, *, grid, block, kinds=("checked", "fast"), orders=ORDERS, **how):
    """Launches in every kind and order; all outputs must be the same bits, and those of the last
    launch stay."""
    first = None
    before = [arg.clone() if isinstance(arg, torch.Tensor) else arg for arg in args]
    for kind, (order, seed) in itertools.product(kinds, orders):
        for arg, start in zip(args, before, strict=True):
            if isinstance(arg, torch.Tensor):
                arg.copy_(start)
        machine.load(FEATURES, kind=kind).launch(
            entry, args, grid=grid, block=block, order=order, seed=seed, **how)
        after = [arg.numpy().tobytes() for arg in args if isinstance(arg, torch.Tensor)]
        first = first or after
        assert after == first, f"{kind}, {order} {seed}"


# --- what the machine computes --------------------------------------------------------------------


@pytest.mark.parametrize("width", [32, 16, 8, 2, 1])
@pytest.mark.parametrize("kind", range(4), ids=["from_lane", "up", "down", "xor"])
def test_shuffle_moves_values_within_groups_of_lanes(kind, width):
    x, y = torch.randn(128), torch.zeros(128)
    for n in (0, 1, 3, 16, 31):
        run("shuffle", [x, y, kind, n, width], grid=2, block=64, orders=ORDERS[:3],
            kinds=["checked"])
        expected = np.empty(128, np.float32)
        for i in range(128):
            # of lanes; 32 is a multiple of the width
            group = range(i // width * width, (i // width + 1) * width)
            source = [group[n % width], i - n, i + n, i // 32 * 32 + (i % 32 ^ n)][kind]
            if (kind == 1 and source < group[0]) or (kind in (2, 3) and source > group[-1]):
                source = i
            expected[i] = x[source]
        np.testing.assert_array_equal(y, expected)


def test_shuffle_moves_eight_bytes():
    x, a = torch.randn(32, dtype=torch.float64), torch.arange(32) << 40
    y, b = torch.zeros_like(x), torch.zeros_like(a)
    run("shuffle_wide", [x, y, a, b], grid=1, block=32)
    lanes = np.arange(32)
    np.testing.assert_array_equal(y, x[lanes ^ 5])
    np.testing.assert_array_equal(b, a[np.where(lanes + 3 < 32, lanes + 3, lanes)])


def test_two_halves_of_a_warp_meet_independently():
    x, y = torch.randint(0, 1000, (64,), dtype=torch.int32), torch.zeros(64, dtype=torch.int32)
    run("halves", [x, y], grid=1, block=64)
    halves = x.numpy().reshape(4, 16)
    rounds = [3, 9, 3, 9]
    expected = [half[:n].sum() + n * (n - 1) // 2 for half, n in zip(halves, rounds, strict=True)]
    np.testing.assert_array_equal(y.numpy().reshape(4, 16), np.repeat(expected, 16).reshape(4, 16))


def test_votes_count_the_lanes_of_the_mask():
    x = torch.randint(0, 2, (256,), dtype=torch.int32)
    x[:16], x[16:32] = 0, 1
    ballot = torch.zeros(256, dtype=torch.uint32)
    any_, all_ = torch.zeros(256, dtype=torch.int32), torch.zeros(256, dtype=torch.int32)
    run("votes", [x, ballot, any_, all_], grid=2, block=128)
    warps, halves = x.numpy().reshape(8, 32), x.numpy().reshape(16, 16)
    np.testing.assert_array_equal(ballot.numpy().reshape(8, 32),
                                  np.repeat(warps @ (1 << np.arange(32)), 32).reshape(8, 32))
    np.testing.assert_array_equal(any_.numpy(), np.repeat(halves.any(1), 16))
    np.testing.assert_array_equal(all_.numpy(), np.repeat(halves.all(1), 16))


@pytest.mark.parametrize("n_workers", [1, 2])
def test_atomics_lose_no_update(n_workers):
    x = torch.randint(0, 20, (128 * 32,), dtype=torch.int32)
    f = x / 8   # sums of these are exact, whatever the order
    out = [torch.tensor([0, 99, -99], dtype=torch.int32),
           torch.tensor([0, 2**32 - 1, 0], dtype=torch.uint32),
           torch.zeros(1, dtype=torch.int64), torch.zeros(1), torch.zeros(1, dtype=torch.float64),
           torch.ones(1, dtype=torch.int32)]
    kinds = ["checked", "fast"] if n_workers == 1 else ["fast"]
    run("atomics", [x, f, *out], grid=128, block=32, kinds=kinds, n_workers=n_workers)
    sums, bits, exchanged, total, wide_total, product = (tensor.numpy() for tensor in out)
    present = int(np.bitwise_or.reduce(1 << x.numpy()))
    assert sums.tolist() == [x.sum(), x.min(), x.max()]
    assert bits.tolist() == [present, 2**32 - 1 - present, x.max()]
    assert exchanged[0] == len(x) << 33
    assert total[0] == wide_total[0] == f.double().sum()
    assert product[0] == np.array(pow(3, len(x), 2**32), np.uint32).view(np.int32)


@pytest.mark.parametrize("block", [1, 31, 32, 33, 256, 1000, 1024])
def test_barriers_in_a_loop_make_running_sums(block):
    x = torch.randint(-50, 50, (3, block)).float()
    y = torch.zeros_like(x)
    run("scan", [x, y], grid=3, block=block)
    np.testing.assert_array_equal(y, np.cumsum(x.numpy(), 1))


@pytest.mark.parametrize("n", [1, 7, 31, 32])
def test_lanes_that_return_early_are_left_out(n):
    x, y = torch.randint(0, 50, (32,)).float(), torch.full((32,), -1.0)
    run("sum_of_living", [x, y, n], grid=1, block=32)
    np.testing.assert_array_equal(y, [x[:n].sum()] * n + [-1] * (32 - n))


def test_grid_and_block_have_three_dimensions():
    grid, block = (3, 4, 2), (5, 3, 4)
    out = torch.full((24 * 60, 6), -1, dtype=torch.int32)
    run("places", [out], grid=grid, block=block)
    expected = [(*b[::-1], *t[::-1]) for b in np.ndindex(grid[::-1])
                for t in np.ndindex(block[::-1])]
    np.testing.assert_array_equal(out, expected)


def test_last_warp_of_a_block_may_be_incomplete():
    ballot, y = torch.zeros(40, dtype=torch.uint32), torch.zeros(40, dtype=torch.int32)
    run("partial_warp", [ballot, y], grid=1, block=40)
    assert ballot.tolist() == [2**32 - 1] * 32 + [0xFF] * 8
    assert y.tolist() == [0] * 32 + [32] * 8


@pytest.mark.parametrize("n", [1, 16, 45])
def test_static_and_dynamic_shared_memory_are_the_blocks_own(n):
    x, y = torch.randn(n, n), torch.zeros(n, n)
    n_tiles = -(-n // 16)
    run("turn", [x, y, n], grid=(n_tiles, n_tiles), block=(16, 16), shared_bytes=16 * 16 * 4)
    np.testing.assert_array_equal(y, x.T)


def test_shared_memory_is_poisoned_before_every_block():
    fixed, dynamic = torch.zeros(3 * 64), torch.zeros(3 * 64)
    run("unwritten", [fixed, dynamic], grid=3, block=64, shared_bytes=256, kinds=["checked"])
    assert fixed.isnan().all() and dynamic.isnan().all()


def tickets(order, seed):
    ticket = torch.zeros(12 * 64, dtype=torch.int32)
    args = [torch.zeros(1, dtype=torch.int32), ticket]
    machine.load(FEATURES, kind="checked").launch(
        "tickets", args, grid=12, block=64, order=order, seed=seed)
    assert sorted(ticket.tolist()) == list(range(12 * 64))
    return ticket.tolist()


def test_orders_are_forward_reverse_and_random():
    assert tickets("forward", 0) == list(range(12 * 64))
    assert tickets("reverse", 0) == list(range(12 * 64))[::-1]
    random = tickets("random", 1)
    assert random == tickets("random", 1) != tickets("random", 2)
    blocks = np.array(random).reshape(12, 64)
    assert (np.diff(blocks[:, 0]) < 0).any() and (np.diff(blocks[:, :32]) < 0).any()
    warps = np.sort(blocks.reshape(24, 32), 1)
    # a warp runs as far as it can before another one does
    np.testing.assert_array_equal(warps, warps[:, :1] + np.arange(32))


def test_functions_are_those_of_mathematics():
    x = torch.linspace(0.01, 5, 64)
    v = x.double().numpy()
    erf = torch.erf(x.double()).numpy()
    expected = np.stack([v**-0.5, v**0.5, np.exp(v), 2**v, np.log(v), np.log2(v), np.sin(v),
                         np.cos(v), np.tanh(v), erf,
                         np.maximum(v, 1), np.minimum(v, 1), v**1.5, np.floor(v), np.ceil(v), v,
                         v / 3, np.minimum(v, 1), np.maximum(v, 2), np.minimum(np.floor(v), 1)], 1)
    y = torch.zeros(64, expected.shape[1])
    run("functions", [x, y, expected.shape[1]], grid=1, block=64)
    np.testing.assert_allclose(y, expected, rtol=3e-7, atol=1e-7)


def test_integer_functions_count_bits():
    x = torch.tensor([0, 1, 2, 3, 255, 2**30, -1, -(2**31)], dtype=torch.int32)
    y = torch.zeros(8, 4, dtype=torch.int32)
    run("bits", [x, y], grid=1, block=8)
    unsigned = [int(v) % 2**32 for v in x]
    expected = [(bin(v).count("1"), 32 - v.bit_length(), (v & -v).bit_length(), int(s))
                for v, s in zip(unsigned, x, strict=True)]
    assert [tuple(row) for row in y.tolist()] == expected


@pytest.mark.skipif("v3" not in str(build.find_compiler().flags), reason="not every processor of "
                                                                         "the family can fuse")
def test_multiply_and_add_round_once_as_on_a_gpu():
    x, y = torch.tensor([1 + 2**-12, 1 - 2**-12, -1.0]), torch.zeros(1)
    run("fused", [x, y], grid=1, block=1)
    assert y.item() == -(2.0**-24)   # rounding the product first would give 0


def test_null_pointer_is_none():
    x, y, was_null = torch.randn(4), torch.zeros(4), torch.zeros(1, dtype=torch.int32)
    run("maybe", [x, None, was_null], grid=1, block=1)
    assert was_null.item() == 1
    run("maybe", [x, y, was_null], grid=1, block=1)
    assert was_null.item() == 0 and y[0] == x[0]


NUMBERS = {real: program("numbers", r"""
#include "common.cuh"
extern "C" __global__ void __launch_bounds__(256) convert(
    const float* x, real* y, accum* back, long long n)
{
    for (long long i = blockIdx.x * 256 + threadIdx.x; i < n; i += gridDim.x * 256) {
        y[i] = narrow(x[i]);
        back[i] = widen(y[i]);
    }
}
extern "C" __global__ void __launch_bounds__(256) copy_vectors(const real* x, real* y) {
    int i = (blockIdx.x * 256 + threadIdx.x) * VECTOR;
    store(y + i, load(x + i));
}
""", real=real) for real in (torch.bfloat16, torch.float16)}


@pytest.mark.parametrize("real", NUMBERS, ids=str)
def test_half_precision_rounds_as_pytorch_does(real):
    # each value there is,
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(real).float()
    gap = torch.nextafter(every.to(real), torch.tensor(float("inf"), dtype=real)).float() - every
    # Every number, and what is between.
    between = [every + gap * share for share in (0.5, 0.49, 0.51)]
    x = torch.cat([every, *between, torch.randn(999)])
    y, back = torch.zeros(len(x), dtype=real), torch.zeros(len(x))
    machine.load(NUMBERS[real], kind="checked").launch(
        "convert", [x, y, back, len(x)], grid=4, block=256)
    known = ~x.isnan()
    torch.testing.assert_close(y.view(torch.int16)[known], x.to(real).view(torch.int16)[known],
                               rtol=0, atol=0)
    torch.testing.assert_close(back, x.to(real).float(), rtol=0, atol=0, equal_nan=True)


def test_vectors_are_sixteen_bytes_of_any_type():
    x = torch.randn(4096).to(torch.bfloat16)
    y = torch.zeros_like(x)
    machine.load(NUMBERS[torch.bfloat16], kind="checked").launch(
        "copy_vectors", [x, y], grid=2, block=256)
    assert torch.equal(x, y)


def test_thousands_of_blocks_on_two_os_threads_equal_one():
    x = torch.randint(-50, 50, (5000, 64)).float()
    results = []
    for n_workers in (1, 2, 2, 3):
        y = torch.zeros_like(x)
        machine.load(FEATURES, kind="fast").launch(
            "scan", [x, y], grid=5000, block=64, n_workers=n_workers)
        results.append(y)
    np.testing.assert_array_equal(results[0], np.cumsum(x.numpy(), 1))
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_launches_from_several_python_threads_do_not_meet():
    xs = [torch.randint(-50, 50, (200, 96)).float() for _ in range(4)]
    ys = [torch.zeros_like(x) for x in xs]
    threads = [threading.Thread(target=machine.load(FEATURES, kind=kind).launch,
                                args=("scan", [x, y]), kwargs={"grid": 200, "block": 96})
               for x, y, kind in zip(xs, ys, ["checked", "fast"] * 2, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for x, y in zip(xs, ys, strict=True):
        np.testing.assert_array_equal(y, np.cumsum(x.numpy(), 1))


def test_machine_without_our_stack_switch_runs_on_ucontext(monkeypatch, tmp_path):
    assert b"swapcontext" not in build.build(FEATURES, kind="checked").read_bytes()
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-DEMU_UCONTEXT"))
    path = build.build(FEATURES, kind="checked", folder=tmp_path)
    assert b"swapcontext" in path.read_bytes()
    x = torch.randint(-50, 50, (3, 100)).float()
    y = torch.zeros_like(x)
    machine.Emulated(FEATURES, kind="checked", path=path).launch("scan", [x, y], grid=3, block=100)
    np.testing.assert_array_equal(y, np.cumsum(x.numpy(), 1))


# --- faults: told with block, thread and line, and survived ---------------------------------------

FAULTS = program("faults", r"""
#include "common.cuh"

extern "C" __global__ void good(float* y, int n) {
    __shared__ float x[64];
    x[threadIdx.x] = threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = x[n - 1 - threadIdx.x];
}
extern "C" __global__ void two_barriers(float* y, int n) {
    if (threadIdx.x < n) {
        __syncthreads();                                   // two_barriers: first
    } else {
        __syncthreads();                                   // two_barriers: second
    }
}
extern "C" __global__ void early_return(float* y, int n) {
    if (threadIdx.x == n) return;
    __syncthreads();   // early_return
}
extern "C" __global__ void one_barrier_more(float* y, int n) {
    __syncthreads();
    if (threadIdx.x == n) __syncthreads();   // one_barrier_more
}
extern "C" __global__ void returns_before_shuffle(float* y, int n) {
    if (threadIdx.x >= n) return;
    y[threadIdx.x] = warp_sum(1);
}
extern "C" __global__ void returns_while_awaited(float* y, int n) {
    if (threadIdx.x >= n) return;
    y[threadIdx.x] = __shfl_xor_sync(ALL_LANES, 1.f, 1);   // returns_while_awaited
}
extern "C" __global__ void shuffle_against_barrier(float* y, int n) {
    if (threadIdx.x < n)
        y[threadIdx.x] = __shfl_xor_sync(ALL_LANES, 1.f, 1);   // shuffle_against_barrier: shuffle
    else
        __syncthreads();   // shuffle_against_barrier: barrier
}
extern "C" __global__ void two_shuffles(float* y, int n) {
    if (threadIdx.x < n)
        y[threadIdx.x] = __shfl_xor_sync(ALL_LANES, 1.f, 1);   // two_shuffles: first
    else
        y[threadIdx.x] = __shfl_xor_sync(ALL_LANES, 1.f, 1);   // two_shuffles: second
}
extern "C" __global__ void two_operations(float* y, int n) {
    unsigned m = ALL_LANES;
    y[0] = threadIdx.x < n ? __shfl_up_sync(m, 1, 1) : __shfl_down_sync(m, 1, 1);  // two_operations
}
extern "C" __global__ void two_masks(float* y, int n) {
    __syncwarp(threadIdx.x == n ? 0x7fffffffu : ALL_LANES);   // two_masks
}
extern "C" __global__ void not_in_own_mask(float* y, int n) {
    __syncwarp(~(1u << n));   // not_in_own_mask
}
extern "C" __global__ void reads_outside_mask(float* y, int n) {
    if (threadIdx.x >= n) return;
    y[threadIdx.x] = __shfl_down_sync((1u << n) - 1, 1.f, 1);   // reads_outside_mask
}
extern "C" __global__ void reads_lane_that_is_not(float* y, int n) {
    y[threadIdx.x] = __shfl_xor_sync(ALL_LANES, 1.f, n);   // reads_lane_that_is_not
}
extern "C" __global__ void odd_width(float* y, int n) {
    y[threadIdx.x] = __shfl_sync(ALL_LANES, 1.f, 0, n);   // odd_width
}
extern "C" __global__ void traps(float* y, int n) {
    if (blockIdx.x == 1 && threadIdx.x == n) __trap();   // traps
}
extern "C" __global__ void write_at(float* y, int n) {
    if (threadIdx.x == 3) y[n] = 1;   // write_at
}
extern "C" __global__ void read_at(const float* x, float* y, int n) {
    if (threadIdx.x == 3) y[0] = x[n];   // read_at
}
extern "C" __global__ void read_vector_at(const float* x, float* y, int n) {
    store(y, load(x + n));   // read_vector_at
}
extern "C" __global__ void dynamic_at(float* y, int n) {
    DYNAMIC_SHARED(float, a);
    a[n] = y[0];   // dynamic_at
}
extern "C" __global__ void through_null(float* y, float* z_or_null, int n) {
    if (threadIdx.x == n) z_or_null[0] = y[0];   // through_null
}
__device__ __noinline__ float deeper(float* y, int n) {
    volatile float local[256];
    local[n % 256] = y[0];
    return n ? deeper(y, n - 1) + local[n % 256] : 0;   // too_deep
}
extern "C" __global__ void too_deep(float* y, int n) { y[threadIdx.x] = deeper(y, n); }
extern "C" __global__ void divides(float* y, int n) { y[threadIdx.x] = 7 / n; } // divides
""")


def line_of(marker):
    lines = [i for i, line in enumerate(FAULTS.source.text.splitlines(), 1)
             if f"// {marker}" in line]
    assert len(lines) == 1
    return f"faults.cu:{lines[0]}"


def good_launch_works(kind):
    y = torch.zeros(64)
    machine.load(FAULTS, kind=kind).launch("good", [y, 64], grid=2, block=64,
                                           n_workers=2 if kind == "fast" else 1)
    return y.tolist() == list(range(63, -1, -1))


def fault_of(entry, args, *, kind="checked", block=32, **how):
    with pytest.raises(KernelFault) as caught:
        machine.load(FAULTS, kind=kind).launch(entry, args, grid=how.pop("grid", 1), block=block,
                                               **how)
    assert good_launch_works(kind)
    return str(caught.value)


MISUSES = {
    "two_barriers": (10, [r"thread \(\d+, 0, 0\)", "two_barriers: first", "two_barriers: second",
                          "must reach the same"]),
    "early_return": (7, [r"thread \(7, 0, 0\) has returned", "early_return",
                         "all threads of a block must reach every"]),
    "one_barrier_more": (7, ["one_barrier_more", "has returned", r"thread \(7, 0, 0\) waits in "
                                                                 r"__syncthreads"]),
    "returns_while_awaited": (16, ["returns_while_awaited", "has returned", "__shfl_xor_sync"]),
    "shuffle_against_barrier": (16, ["deadlock", "shuffle_against_barrier: shuffle",
                                     "shuffle_against_barrier: barrier"]),
    "two_shuffles": (16, ["two_shuffles: first", "two_shuffles: second", "same warp"]),
    "two_operations": (16, ["two_operations", "__shfl_up_sync", "__shfl_down_sync", "same warp"]),
    "two_masks": (5, ["two_masks", "lane 5 gives the mask 0x7fffffff|lane 5 gives 0x7fffffff"]),
    "not_in_own_mask": (9, ["not_in_own_mask", "mask 0xfffffdff leaves out the caller, lane 9",
                            r"thread \(9, 0, 0\)"]),
    "reads_outside_mask": (5, ["reads_outside_mask",
                               "lane 4 reads lane 5, which is not in the mask"]),
    "odd_width": (12, ["odd_width", "width must be a power of two, at most 32; got 12"]),
}


@pytest.mark.parametrize("order", machine.ORDERS)
@pytest.mark.parametrize("kind", ["checked", "fast"])
@pytest.mark.parametrize("entry", MISUSES)
def test_misuse_of_a_barrier_or_a_warp_operation_is_told(entry, kind, order):
    n, patterns = MISUSES[entry]
    message = fault_of(entry, [torch.zeros(32), n], kind=kind, order=order, seed=3)
    markers = re.findall(r"// (\w+(?:: \w+)?)$", FAULTS.source.text, re.MULTILINE)
    for pattern in patterns:
        assert re.search(line_of(pattern) if pattern in markers else pattern,
                         message), f"{pattern!r} is not in {message!r}"
    assert message.startswith(f"{entry}, block (0, 0, 0), thread (")


def test_return_before_a_warp_operation_names_the_line_in_the_header():
    message = fault_of("returns_before_shuffle", [torch.zeros(32), 16])
    line = next(i for i, text in enumerate(HEADERS["common.cuh"].splitlines(), 1)
                if "x += __shfl_xor_sync" in text)
    assert f"common.cuh:{line}" in message and re.search(
        "which has returned|has returned, but", message)


def test_lane_that_does_not_exist_cannot_be_read():
    message = fault_of("reads_lane_that_is_not", [torch.zeros(40), 16], block=40)
    assert re.search(rf"{line_of('reads_lane_that_is_not')}: lane \d+ reads lane \d+, which does "
                     r"not exist in this", message)


def test_trap_names_block_and_thread():
    message = fault_of("traps", [torch.zeros(32), 5], grid=3, order="reverse")
    assert f"block (1, 0, 0), thread (5, 0, 0): __trap at {line_of('traps')}" in message


@pytest.mark.parametrize("n", [64, 65, 64 + 500, -1])
def test_write_beside_a_tensor_is_told(n):
    # the same memory goes on behind it, and belongs to somebody else
    y = torch.zeros(4096 * 3 + 64)[:64]
    message = fault_of("write_at", [y, n])
    if n > 0:
        told = f"thread (3, 0, 0): {line_of('write_at')}: touches byte {4 * n} of y"
        assert f"{told}, which has 256 bytes" in message
    else:
        assert "write_at writes before the start of y, which has 256 bytes" in message


def test_write_into_the_last_sixteen_bytes_behind_a_tensor_is_told():
    assert "write_at writes after the end of y, which has 20 bytes" in fault_of(
        "write_at", [torch.zeros(5), 5])


def test_faulty_launch_leaves_tensors_as_they_were():
    y = torch.arange(64.0)
    fault_of("write_at", [y, 64])
    assert torch.equal(y, torch.arange(64.0))


def test_read_behind_a_tensor_is_told():
    x, y = torch.zeros(64), torch.zeros(4)
    assert f"{line_of('read_at')}: touches byte 256 of x" in fault_of("read_at", [x, y, 64])
    assert "touches byte 256 of x, which has 256 bytes" in fault_of(
        "read_vector_at", [x, y, 64], block=1)
    assert "in no tensor" in fault_of("read_at", [x, y, 2**30])


def test_tensors_may_overlap_or_be_the_same():
    storage = torch.arange(64.0)
    x, y = storage[8:40], storage[:8]
    checked = machine.load(FAULTS, kind="checked")
    checked.launch("read_at", [x, x, 5], grid=1, block=32)
    assert storage[8] == 13
    checked.launch("read_at", [storage, x, 0], grid=1, block=32)
    assert storage[8] == 0
    checked.launch("read_at", [y, x, 7], grid=1, block=32)
    assert storage[8] == 7
    # neighbours in one storage are two tensors
    assert "touches byte 32 of x" in fault_of("read_at", [y, x, 8])


def test_dynamic_shared_memory_ends_where_it_was_asked_to():
    assert good_launch_works("checked")
    y = torch.zeros(4)
    machine.load(FAULTS, kind="checked").launch(
        "dynamic_at", [y, 11], grid=1, block=1, shared_bytes=48)
    message = fault_of("dynamic_at", [y, 12], block=1, shared_bytes=48)
    assert (f"{line_of('dynamic_at')}: touches byte 48 of the block's dynamic shared memory, "
            "which has 48 bytes") in message


def test_null_pointer_is_told():
    message = fault_of("through_null", [torch.zeros(4), None, 7])
    assert (f"thread (7, 0, 0): {line_of('through_null')}: touches address 0x0, "
            "which is in no tensor (a null p") in message


@pytest.mark.parametrize("n_workers", [1, 2])
def test_fast_build_survives_a_wild_address_too(n_workers):
    x, y = torch.zeros(64), torch.zeros(4)
    for _ in range(5):
        message = fault_of("read_at", [x, y, -(2**30)], kind="fast", grid=9, n_workers=n_workers)
        assert f"thread (3, 0, 0): {line_of('read_at')}: touches address 0x" in message


def test_full_stack_is_told():
    message = fault_of("too_deep", [torch.zeros(32), 1000])
    assert re.search(r"thread \(0, 0, 0\): faults\.cu:\d+: the thread's stack of \d+ bytes is full",
                     message)


def test_division_by_zero_is_told():
    assert f"{line_of('divides')}: integer division by zero" in fault_of(
        "divides", [torch.zeros(32), 0])


def test_fault_in_one_of_many_blocks_on_several_os_threads_is_told():
    for _ in range(20):
        message = fault_of("traps", [torch.zeros(32), 5], kind="fast", grid=500, n_workers=2)
        assert "block (1, 0, 0)" in message


def handlers():
    """The addresses of the functions that are told of wild addresses and of divisions by zero."""
    libc, records = ctypes.CDLL(None), []
    for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE):
        record = ctypes.create_string_buffer(256)
        assert libc.sigaction(int(number), None, record) == 0
        # the rest of the record need not be filled in
        records.append(record.raw[:ctypes.sizeof(ctypes.c_void_p)])
    return records


def test_signal_handlers_are_given_back():
    before = handlers()
    fault_of("write_at", [torch.zeros(64), 64])
    assert handlers() == before


# --- what is refused before anything runs ---------------------------------------------------------


@pytest.mark.parametrize("how, message", [
    ({"grid": 0}, "grid must have 1 to 3 sizes"), ({"grid": (1, 2**16)}, "grid must have"),
    ({"block": (1, 1, 65)}, "block must have"), ({"block": (32, 32, 2)}, "at most 1024 threads"),
    ({"grid": (1, 1, 1, 1)}, "1 to 3 sizes"),
    ({"shared_bytes": -1}, "shared_bytes must be from 0 to"),
    ({"shared_bytes": 2**20}, "shared_bytes must be"),
    ({"order": "sideways"}, "order must be one of forward, reverse, random; got 'sideways'"),
    ({"n_workers": 2}, "1 in every other; got 2 in 'checked'"),
    ({"n_workers": 0}, "n_workers must"),
])
def test_launch_that_a_driver_would_refuse_is_refused(how, message):
    with pytest.raises(ValueError, match=message):
        machine.load(FAULTS, kind="checked").launch(
            "good", [torch.zeros(64), 64], **{"grid": 1, "block": 64, **how})


def test_block_larger_than_its_launch_bounds_is_refused():
    x = torch.zeros(8, dtype=torch.float16)
    with pytest.raises(ValueError, match="a block of copy_vectors may have at most 256 threads"):
        machine.load(NUMBERS[torch.float16], kind="checked").launch(
            "copy_vectors", [x, x], grid=1, block=257)


def test_tensors_of_another_device_are_refused():
    with pytest.raises(ValueError, match="takes tensors on the CPU"):
        machine.load(FAULTS, kind="checked").launch(
            "good", [torch.zeros(64, device="meta"), 64], grid=1, block=64)


# --- what a launch leaves behind ------------------------------------------------------------------


def test_equal_programs_are_loaded_once():
    assert machine.load(FAULTS, kind="fast") is machine.load(
        program("faults", FAULTS.source.text), kind="fast")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="counts what Linux tells in "
                                                                 "/proc/self/maps")
def test_a_launch_leaves_the_process_with_hardly_more_pieces_of_memory():
    """A process may have some 65,000; guards of a block's stacks took a thousand per kernel.

    The least of several launches counts, because other threads may map memory during any of them.
    """
    def n_pieces():
        return len(Path("/proc/self/maps").read_text().splitlines())

    text = ('#include "common.cuh"\n'
            'extern "C" __global__ void f(float* x) { x[threadIdx.x] += FIRST; }\n')
    grown = []
    for first in range(4):
        x, before = torch.zeros(1024), n_pieces()
        machine.load(program("touch", text.replace("FIRST", str(first))),
                     kind="checked").launch("f", [x], grid=2, block=1024)
        assert (x == 2 * first).all()
        grown.append(n_pieces() - before)
    assert min(grown) < 50, grown
