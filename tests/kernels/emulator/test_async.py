"""What runs while the threads go on: copies, tensor cores, mbarriers, the TMA and wgmma. Each is
compared with a plain formula in PyTorch, with the latest and the earliest completion that a GPU
allows."""

import re

import pytest
import torch

from llama_from_scratch.kernels.emulator import build, machine
from llama_from_scratch.kernels.emulator.machine import ORDERS, KernelFault
from llama_from_scratch.kernels.emulator.trace import trace
from llama_from_scratch.kernels.machinery.source import FOLDER, Program, Source
from llama_from_scratch.kernels.machinery.tensor_map import TensorMap

HEADERS = {path.name: path.read_text() for path in FOLDER.glob("*.cuh")}
HALVES = pytest.mark.parametrize("real", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
IN_EVERY_ORDER = pytest.mark.parametrize("order", ORDERS)

CORES = Source(name="cores", headers=HEADERS, text=r"""
#include "tensor_cores.cuh"

// Three groups of copies, one after the other waited for. From thread n_there on, zeros are copied:
// half of these threads have nothing to point to.
extern "C" __global__ void copy_groups(const real* x, real* y, int n_there) {
    DYNAMIC_SHARED(real, tile);
    int n = blockDim.x * 8, at = threadIdx.x * 8;
    for (int group = 0; group < 3; group++) {
        bool is_there = threadIdx.x < n_there;
        const real* from = is_there || threadIdx.x % 2 ? x + group * n + at : 0;
        cp_async16(tile + group * n + at, from, is_there);
        cp_async_commit();
    }
    cp_async_wait<2>();
    store(y + at, load(tile + at));
    cp_async_wait<1>();
    store(y + n + at, load(tile + n + at));
    cp_async_wait<0>();
    store(y + 2 * n + at, load(tile + 2 * n + at));
}

// Each thread waits for one of its two copies and reads both.
extern "C" __global__ void wait_for_one_of_two(const real* x, real* y) {
    DYNAMIC_SHARED(real, tile);
    int n = blockDim.x * 8, at = threadIdx.x * 8;
    cp_async16(tile + at, x + at, true);
    cp_async_commit();
    cp_async16(tile + n + at, x + n + at, true);
    cp_async_commit();
    cp_async_wait<1>();
    store(y + at, load(tile + at));
    store(y + n + at, load(tile + n + at));
    cp_async_wait<0>();
}

// The number in shared memory that the copy replaces is read after the copy was issued.
extern "C" __global__ void overwrite_too_early(const real* x, real* y) {
    DYNAMIC_SHARED(real, tile);
    int at = threadIdx.x * 8;
    store(tile + at, load(x + at));
    cp_async16(tile + at, x + blockDim.x * 8 + at, true);
    store(y + at, load(tile + at));
    cp_async_commit();
    cp_async_wait<0>();
}

// Four 8x8 matrices, (4, 8, 8), plain and transposed; y is (2, lane, register, 2).
extern "C" __global__ void load_matrices(const real* x, unsigned* y) {
    DYNAMIC_SHARED(real, tile);
    store(tile + threadIdx.x * 8, load(x + threadIdx.x * 8));
    __syncwarp();
    unsigned plain[4], turned[4];
    ldmatrix_x4(plain, tile + threadIdx.x * 8);
    ldmatrix_x4_trans(turned, tile + threadIdx.x * 8);
    for (int i = 0; i < 4; i++) {
        y[threadIdx.x * 4 + i] = plain[i];
        y[128 + threadIdx.x * 4 + i] = turned[i];
    }
}

// C (16x8) += A (16x16) B^T, B (8x16): fragments taken from memory number by number, as the PTX ISA
// lists them.
extern "C" __global__ void multiply(const real* a, const real* b, float* c) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    const unsigned *a2 = (const unsigned*)a, *b2 = (const unsigned*)b;
    unsigned of_a[4] = {a2[g * 8 + t], a2[(g + 8) * 8 + t], a2[g * 8 + t + 4],
                        a2[(g + 8) * 8 + t + 4]};
    float of_c[4] = {c[g * 8 + 2 * t], c[g * 8 + 2 * t + 1], c[(g + 8) * 8 + 2 * t],
                     c[(g + 8) * 8 + 2 * t + 1]};
    mma_m16n8k16(of_c, of_a, b2[g * 8 + t], b2[g * 8 + t + 4]);
    c[g * 8 + 2 * t] = of_c[0], c[g * 8 + 2 * t + 1] = of_c[1];
    c[(g + 8) * 8 + 2 * t] = of_c[2], c[(g + 8) * 8 + 2 * t + 1] = of_c[3];
}

// A row of 64 numbers each, with the swizzle and without: 16 rows of one chunk, and of the next.
extern "C" __global__ void load_column(const real* x, unsigned* y, int is_swizzled) {
    DYNAMIC_SHARED(real, tile);
    int row = threadIdx.x % 16, chunk = threadIdx.x / 16;
    for (int i = threadIdx.x; i < 16 * 8; i += 32)
        cp_async16(tile + (is_swizzled ? swizzled<64>(i / 8, i % 8) : i * 8), x + i * 8, true);
    cp_async_commit();
    cp_async_wait<0>();
    __syncwarp();
    unsigned r[4];
    const real* from = tile + (is_swizzled ? swizzled<64>(row, chunk) : row * 64 + chunk * 8);
    ldmatrix_x4(r, from);   // the measured access
    for (int i = 0; i < 4; i++) y[threadIdx.x * 4 + i] = r[i];
}

extern "C" __global__ void misuse(const real* x, real* y, int what) {
    DYNAMIC_SHARED(real, tile);
    unsigned r[4] = {0, 0, 0, 0};
    float c[4] = {0, 0, 0, 0};
    if (what == 0) cp_async16(tile + 1, x, true);
    if (what == 1) cp_async16(y, x, true);
    if (what == 2) cp_async16(tile, x + 1, true);
    if (what == 3) cp_async16(tile, x + 1024, true);
    if (what == 4) ldmatrix_x4(r, tile + 4);
    if (what == 5) ldmatrix_x4_trans(r, x);
    if (what == 6 && threadIdx.x < 16) mma_m16n8k16(c, r, 0, 0);
    if (what == 7 && threadIdx.x != 3) ldmatrix_x4(r, tile);
    cp_async_commit();
    cp_async_wait<0>();
    y[threadIdx.x] = narrow(c[0] + r[0]);
}
""")

HOPPER = Source(name="hopper_cores", headers=HEADERS, text=r"""
#include "hopper.cuh"

// One box, copied from shared memory without a change.
extern "C" __global__ void fetch(const __grid_constant__ TensorMap x, real* y, int a, int b, int c,
                                 int d, int n_bytes) {
    DYNAMIC_SHARED(real, tile);
    __shared__ Mbarrier full;
    if (threadIdx.x == 0) {
        mbarrier_init(&full, 1);
        fence_mbarrier_init();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        mbarrier_arrive_expect_tx(&full, n_bytes);
        tma_load(tile, &x, &full, a, b, c, d);
    }
    mbarrier_wait(&full, 0);
    for (int i = threadIdx.x; i < n_bytes / 2; i += blockDim.x) y[i] = tile[i];
}

// Two tiles with a barrier each; the thread waits for one and reads both.
extern "C" __global__ void wait_for_one_tile(const __grid_constant__ TensorMap x, real* y,
                                             int which) {
    DYNAMIC_SHARED(real, tile);
    __shared__ Mbarrier full[2];
    if (threadIdx.x == 0)
        for (int i = 0; i < 2; i++) {
            mbarrier_init(&full[i], 1);
            mbarrier_arrive_expect_tx(&full[i], 1024);
            tma_load(tile + i * 512, &x, &full[i], 0, 0, 8 * i, 0);
        }
    __syncthreads();
    mbarrier_wait(&full[which], 0);
    for (int i = threadIdx.x; i < 1024; i += blockDim.x) y[i] = tile[i];
    mbarrier_wait(&full[!which], 0);
}

// A ring of two tiles: the producer's thread fills, the others read and release. `slip`: it does
// not wait for the release.
extern "C" __global__ void ring(const __grid_constant__ TensorMap x, real* y, int n, int slip) {
    DYNAMIC_SHARED(real, tile);
    __shared__ Mbarrier full[2], empty[2];
    if (threadIdx.x == 0)
        for (int i = 0; i < 2; i++) mbarrier_init(&full[i], 1), mbarrier_init(&empty[i], 32);
    __syncthreads();
    if (threadIdx.x >= 32) {
        if (threadIdx.x > 32) return;
        for (int i = 0; i < n; i++) {
            if (!slip) mbarrier_wait(&empty[i % 2], (i / 2 + 1) % 2);
            mbarrier_arrive_expect_tx(&full[i % 2], 1024);
            tma_load(tile + i % 2 * 512, &x, &full[i % 2], 0, 0, 8 * i, 0);
        }
        return;
    }
    for (int i = 0; i < n; i++) {
        mbarrier_wait(&full[i % 2], i / 2 % 2);
        for (int j = threadIdx.x; j < 512; j += 32) y[i * 512 + j] = tile[i % 2 * 512 + j];
        mbarrier_arrive(&empty[i % 2]);
    }
}

// All threads write, arrive, wait, and read their neighbor's number, round after round.
extern "C" __global__ void rounds(int* y, int n) {
    __shared__ Mbarrier written, read;
    __shared__ int numbers[64];
    int t = threadIdx.x;
    if (t == 0) mbarrier_init(&written, 64), mbarrier_init(&read, 64);
    __syncthreads();
    for (int i = 0; i < n; i++) {
        numbers[t] = 100 * i + t;
        mbarrier_arrive(&written);
        mbarrier_wait(&written, i % 2);
        y[i * 64 + t] = numbers[(t + 33) % 64];
        mbarrier_arrive(&read);
        mbarrier_wait(&read, i % 2);
    }
}

// Warp 0 fills a slot and arrives; warp 1 waits, reads, and lets it go on. Warp 2 takes no part.
extern "C" __global__ void hand_over(int* y, int n) {
    __shared__ int slot[32];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int i = 0; i < n; i++) {
        if (warp == 0) {
            slot[lane] = 10 * i + lane;
            named_barrier_arrive(1, 64);
            named_barrier_sync(2, 64);
        } else if (warp == 1) {
            named_barrier_sync(1, 64);
            y[i * 32 + lane] = slot[31 - lane];
            named_barrier_arrive(2, 64);
        }
    }
}

// Each of two warps lets the other go on before it waits itself.
extern "C" __global__ void let_each_other_go_on(int* y) {
    int warp = threadIdx.x / 32;
    named_barrier_arrive(1 + warp, 64);
    y[threadIdx.x] = 1;
    named_barrier_sync(2 - warp, 64);
    y[threadIdx.x] += y[(threadIdx.x + 32) % 64];
}

// `image`: what shared memory holds, 64 numbers of k. Every product of N columns, (128, N / 2): the
// registers of each thread, which begin as `d`.
template <bool A_ACROSS, bool B_ACROSS, int R>
__device__ inline void products(const real* image, const unsigned* fragments, float* out, int b_at,
                                int a_leading, int b_leading, int from_registers, int adds) {
    DYNAMIC_SHARED(real, tile);
    for (int i = threadIdx.x * 8; i < 192 * 64; i += WARPGROUP * 8)
        store(tile + i, load(image + i));
    fence_proxy_async();
    __syncthreads();
    float d[R];
    for (int i = 0; i < R; i++) d[i] = out[threadIdx.x * R + i];
    unsigned a_registers[4][4];   // as D, they must not change before the wait
    for (int i = 0; i < 16; i++)
        a_registers[i / 4][i % 4] = fragments[(i / 4 * WARPGROUP + threadIdx.x) * 4 + i % 4];
    wgmma_fence();
    for (int kk = 0; kk < 4; kk++) {
        const real* b_now = tile + b_at + (B_ACROSS ? kk * 16 * 64 : kk * 16);
        const real* a_now = tile + (A_ACROSS ? kk * 16 * 64 : kk * 16);
        unsigned long long b = B_ACROSS ? across_k(b_now, b_leading) : along_k(b_now);
        if (from_registers) {
            wgmma_rs<B_ACROSS>(d, a_registers[kk], b, adds || kk > 0);
        } else {
            unsigned long long a = A_ACROSS ? across_k(a_now, a_leading) : along_k(a_now);
            wgmma_ss<A_ACROSS, B_ACROSS>(d, a, b, adds || kk > 0);
        }
    }
    wgmma_commit();
    wgmma_wait<0>();
    for (int i = 0; i < R; i++) out[threadIdx.x * R + i] = d[i];
}
#define PRODUCTS(n) \
    if (a_across && b_across) products<true, true, n / 2>(GIVEN); \
    if (a_across && !b_across) products<true, false, n / 2>(GIVEN); \
    if (!a_across && b_across) products<false, true, n / 2>(GIVEN); \
    if (!a_across && !b_across) products<false, false, n / 2>(GIVEN);
#define GIVEN image, fragments, out, 64 * 64, 8192, 8192, from_registers, adds
extern "C" __global__ void products_32(const real* image, const unsigned* fragments, float* out,
                                       int a_across, int b_across, int from_registers, int adds) {
    PRODUCTS(32)
}
extern "C" __global__ void products_64(const real* image, const unsigned* fragments, float* out,
                                       int a_across, int b_across, int from_registers, int adds) {
    PRODUCTS(64)
}
extern "C" __global__ void products_128(const real* image, const unsigned* fragments, float* out,
                                        int a_across, int b_across, int from_registers, int adds) {
    PRODUCTS(128)
}

// D is read before the wait, or after; the tile is overwritten before the wait, or after.
extern "C" __global__ void touch_early(const real* image, float* out, int reads, int overwrites) {
    DYNAMIC_SHARED(real, tile);
    for (int i = threadIdx.x * 8; i < 96 * 64; i += WARPGROUP * 8) store(tile + i, load(image + i));
    fence_proxy_async();
    __syncthreads();
    float d[16];
    for (int i = 0; i < 16; i++) d[i] = 0.5f;
    wgmma_fence();
    for (int kk = 0; kk < 4; kk++)
        wgmma_ss<false, false>(d, along_k(tile + kk * 16), along_k(tile + 4096 + kk * 16), kk > 0);
    wgmma_commit();
    volatile float* seen = d;
    if (reads) for (int i = 0; i < 16; i++) out[threadIdx.x * 16 + i] = seen[i];
    if (overwrites) tile[threadIdx.x * 8] = narrow(99.f);
    wgmma_wait<0>();
    if (!reads) for (int i = 0; i < 16; i++) out[threadIdx.x * 16 + i] = d[i];
}

// One set of registers for all steps: it is overwritten before the wait, or, in time, after it.
extern "C" __global__ void reuse_registers(const real* image, float* out, int is_early) {
    DYNAMIC_SHARED(real, tile);
    for (int i = threadIdx.x * 8; i < 32 * 64; i += WARPGROUP * 8) store(tile + i, load(image + i));
    fence_proxy_async();
    __syncthreads();
    float d[16];
    unsigned one = pack(1, 1), a[4] = {one, one, one, one};
    wgmma_fence();
    wgmma_rs<false>(d, a, along_k(tile), false);
    wgmma_commit();
    if (is_early) a[0] = a[1] = a[2] = a[3] = 0;
    wgmma_wait<0>();
    for (int i = 0; i < 16; i++) out[threadIdx.x * 16 + i] = d[i];
}

// The second warpgroup multiplies and lets the first overwrite the tile, before or after its wait.
extern "C" __global__ void release(const real* image, float* out, int is_early) {
    DYNAMIC_SHARED(real, tile);
    __shared__ Mbarrier empty;
    int t = threadIdx.x % WARPGROUP;
    if (threadIdx.x == 0) mbarrier_init(&empty, 4);
    for (int i = threadIdx.x * 8; i < 96 * 64; i += blockDim.x * 8)
        store(tile + i, load(image + i));
    fence_proxy_async();
    __syncthreads();
    if (threadIdx.x < WARPGROUP) {
        mbarrier_wait(&empty, 0);
        for (int i = 0; i < 32; i++) tile[t * 32 + i] = narrow(99.f);
        return;
    }
    float d[16];
    wgmma_fence();
    for (int kk = 0; kk < 4; kk++)
        wgmma_ss<false, false>(d, along_k(tile + kk * 16), along_k(tile + 4096 + kk * 16), kk > 0);
    wgmma_commit();
    if (is_early && t % 32 == 0) mbarrier_arrive(&empty);
    wgmma_wait<0>();
    if (!is_early && t % 32 == 0) mbarrier_arrive(&empty);
    for (int i = 0; i < 16; i++) out[t * 16 + i] = d[i];
}

extern "C" __global__ void __launch_bounds__(384) share_registers(int* y, int n) {
    if (threadIdx.x < 128) setmaxnreg_dec<24>();
    else if (n == 240) setmaxnreg_inc<240>();
    else if (n == 248) setmaxnreg_inc<248>();
    else setmaxnreg_inc<236>();
    y[threadIdx.x] = 1;
}

extern "C" __global__ void misuse(const __grid_constant__ TensorMap x, real* y, float* z,
                                  int what) {
    DYNAMIC_SHARED(real, tile);
    __shared__ Mbarrier full, other;
    int t = threadIdx.x;
    if (t == 0 && what != 0) mbarrier_init(&full, 1);
    __syncthreads();
    if (what == 0) mbarrier_wait(&full, 0);
    if (what == 1 && t == 0) mbarrier_init((Mbarrier*)z, 1);
    if (what == 2 && t == 0) mbarrier_init((Mbarrier*)(tile + 2), 1);
    if (what == 3 && t == 0) mbarrier_init(&other, 0);
    if (what == 4 && t == 0) mbarrier_arrive_expect_tx(&full, 16), mbarrier_arrive(&full);
    if (what == 5 && t == 0) tma_load(tile + 8, &x, &full, 0, 0, 0, 0);
    if (what == 6 && t == 0) tma_load(tile, &x, &other, 0, 0, 0, 0);
    if (what == 7) {
        if (t == 0) mbarrier_arrive_expect_tx(&full, 512);
        if (t == 0) tma_load(tile, &x, &full, 0, 0, 0, 0);
        mbarrier_wait(&full, 0);
    }
    if (what == 8) {
        if (t == 0) mbarrier_arrive_expect_tx(&full, 2048), tma_load(tile, &x, &full, 0, 0, 0, 0);
        mbarrier_wait(&full, 0);
    }
    if (what == 9) {
        if (t == 0) tma_load(tile, &x, &full, 0, 0, 0, 0);
        if (t == 0) mbarrier_wait(&full, 0);
    }
    if (what == 10) named_barrier_sync(0, 128);
    if (what == 11) named_barrier_sync(1, 100);
    if (what == 12) t < 64 ? named_barrier_sync(1, 128) : named_barrier_sync(1, 64);
    if (what == 13) named_barrier_sync(16, 128);
    float d[16];
    for (int i = 0; i < 16; i++) d[i] = 0;
    unsigned long long at = along_k(tile);
    if (what == 14) wgmma_ss<false, false>(d, at, at, false);
    if (what >= 15) wgmma_fence();
    if (what == 15) wgmma_ss<false, false>(d, at, at & ~(3ull << 62), false);
    if (what == 16) wgmma_ss<false, false>(d, at, along_k(tile + 30 * 64), false);
    if (what == 17 && t % 32 < 8) wgmma_ss<false, false>(d, at, at, false);
    if (what == 18) {
        wgmma_ss<false, false>(d, at, at, false);
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_ss<false, false>(d, at, at, true);
    }
    if (what == 19) tma_load(tile + 8192, &x, &full, 0, 0, 0, 0);
    if (what >= 14) wgmma_commit(), wgmma_wait<0>();
    y[t] = narrow(d[0]);
}
""")


def cores(real=torch.bfloat16, kind="checked"):
    return machine.load(Program(source=CORES, real=real), kind=kind)


def hopper(real=torch.bfloat16, kind="checked"):
    return machine.load(Program(source=HOPPER, real=real), kind=kind)


def nan(*shape, real=torch.bfloat16):
    return torch.full(shape, float("nan"), dtype=real)


def drawn(*shape, real=torch.bfloat16, seed=0):
    """Small whole numbers, whose products and sums are exact in every dtype and order."""
    numbers = torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(seed))
    return numbers.to(real)


# ---- cp.async ------------------------------------------------------------------------------------


@IN_EVERY_ORDER
@HALVES
def test_copies_arrive_group_by_group_and_what_is_not_there_arrives_as_zeros(real, order):
    x, y = drawn(3, 64 * 8, real=real), nan(3, 64 * 8, real=real)
    cores(real).launch("copy_groups", [x, y, 50], grid=1, block=64, shared_bytes=3 * 64 * 16,
                       order=order)
    x[:, 50 * 8:] = 0
    assert torch.equal(y, x)


def test_a_wait_completes_the_oldest_groups_and_no_more_than_it_must():
    x, y = drawn(2, 256), nan(2, 256)
    launch = lambda order, seed=0: cores().launch(
        "wait_for_one_of_two", [x, y], grid=1, block=32, shared_bytes=1024, order=order, seed=seed)
    launch("forward")
    assert torch.equal(y[0], x[0]) and y[1].isnan().all(), "as late as legal"
    launch("reverse")
    assert torch.equal(y, x), "at once"
    launch("random", seed=3)
    assert torch.equal(y[0], x[0]) and 0 < y[1].isnan().sum() < 256, "some of each"


def test_a_copy_over_what_is_still_read_is_found_by_the_copies_that_complete_at_once():
    x, y = drawn(2, 256), nan(256)
    for order, row in (("forward", 0), ("reverse", 1)):
        cores().launch("overwrite_too_early", [x, y], grid=1, block=32, shared_bytes=512,
                       order=order)
        assert torch.equal(y, x[row])


# ---- ldmatrix and mma ----------------------------------------------------------------------------


@IN_EVERY_ORDER
@HALVES
def test_ldmatrix_gives_each_lane_two_neighbors_of_a_row_or_of_a_column(real, order):
    x, y = torch.arange(256).to(real).reshape(4, 8, 8), torch.zeros(2, 32, 4, dtype=torch.int32)
    cores(real).launch("load_matrices", [x, y.view(torch.uint32)], grid=1, block=32,
                       shared_bytes=512, order=order)
    found = y.view(real).reshape(2, 32, 4, 2)
    for way, matrices in enumerate((x, x.mT)):
        # lane 4g + t holds (g, 2t) and (g, 2t + 1) of each matrix
        expected = matrices.reshape(4, 8, 4, 2).permute(1, 2, 0, 3).reshape(32, 4, 2)
        assert torch.equal(found[way], expected)


@IN_EVERY_ORDER
@HALVES
def test_mma_multiplies_fragments_laid_out_as_the_ptx_isa_lists_them(real, order):
    a, b = drawn(16, 16, real=real, seed=1), drawn(8, 16, real=real, seed=2)
    c = torch.randn(16, 8)
    expected = c.double() + a.double() @ b.double().T
    cores(real).launch("multiply", [a, b, c], grid=1, block=32, order=order)
    torch.testing.assert_close(c.double(), expected, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("is_swizzled, passes", [(1, 4), (0, 32)])
def test_the_swizzle_takes_four_passes_over_the_banks_for_four_matrices(is_swizzled, passes):
    x, y = drawn(16, 64), torch.zeros(32, 4, dtype=torch.int32).view(torch.uint32)
    found = trace(Program(source=CORES, real=torch.bfloat16), "load_column", [x, y, is_swizzled],
                  grid=1, block=32, shared_bytes=2048)
    read = found.at("the measured access", "tile")
    assert (read.warp_accesses, read.moved, read.ideal) == (1, passes, 4)
    assert found.races == () and found.out_of_bounds is None


# ---- mbarriers and named barriers ----------------------------------------------------------------


@IN_EVERY_ORDER
def test_an_mbarrier_ends_a_phase_when_all_threads_have_arrived_and_then_begins_the_next(order):
    y = torch.full((5, 64), -1, dtype=torch.int32)
    hopper().launch("rounds", [y, 5], grid=1, block=64, order=order)
    assert torch.equal(y, 100 * torch.arange(5)[:, None] + (torch.arange(64) + 33) % 64)


@IN_EVERY_ORDER
def test_a_named_barrier_is_for_the_warps_that_name_it_and_arriving_does_not_wait(order):
    y = torch.full((4, 32), -1, dtype=torch.int32)
    hopper().launch("hand_over", [y, 4], grid=1, block=96, order=order)
    assert torch.equal(y, 10 * torch.arange(4)[:, None] + 31 - torch.arange(32))
    y = torch.zeros(64, dtype=torch.int32)
    hopper().launch("let_each_other_go_on", [y], grid=1, block=64, order=order)
    assert y.min() > 0


# ---- the TMA -------------------------------------------------------------------------------------


def swizzled(tile):
    """A tile (rows, 64) in the order of shared memory: chunk c of row r is in place c ^ (r % 8)."""
    chunks = tile.reshape(-1, 8, 8)
    rows = torch.arange(len(chunks))[:, None]
    return chunks[rows, torch.arange(8) ^ rows % 8].reshape(tile.shape)


@pytest.mark.parametrize("at", [(0, 0, 0, 0), (1, 2, 1, 0), (0, -3, 0, 0), (1, 5, 1, 32),
                                (-1, 0, 0, 0), (0, 30, 0, 0), (0, 0, 0, -16), (0, 0, 2, 72)],
                         ids=str)
@HALVES
def test_a_box_arrives_swizzled_and_what_is_outside_of_the_tensor_as_zeros(real, at):
    storage = drawn(2, 9, 3, 96, real=real)
    x, box = storage[:, :7, :, :77], (2, 4, 1, 64)
    order = ORDERS[sum(at) % 3]
    y = nan(8, 64, real=real)
    b, t, h, k = at
    hopper(real).launch("fetch", [TensorMap(tensor=x, box=box), y, k, h, t, b, 1024], grid=1,
                        block=32, shared_bytes=1024, order=order)
    room = torch.zeros(40, 80, 40, 400, dtype=real)
    room[8:10, 16:23, 8:11, 128:205] = x
    expected = room[8 + b:10 + b, 16 + t:20 + t, 8 + h, 128 + k:192 + k].reshape(8, 64)
    assert torch.equal(y, swizzled(expected))


def test_a_tile_arrives_when_nothing_else_can_go_on_and_only_the_one_that_is_awaited():
    x = drawn(1, 16, 1, 64)
    image = torch.cat([swizzled(x[0, :8, 0]), swizzled(x[0, 8:, 0])])

    def missing(which, order):
        y = nan(16, 64)
        hopper().launch("wait_for_one_tile", [TensorMap(tensor=x, box=(1, 8, 1, 64)), y, which],
                        grid=1, block=32, shared_bytes=2048, order=order)
        there = ~y.isnan()
        assert torch.equal(y[there], image[there])
        return [half.isnan().all().item() for half in (y[:8], y[8:])]

    assert missing(1, "forward") == [True, False], "the wait for one is no wait for the other"
    assert missing(0, "forward") == [False, True]
    assert missing(0, "reverse") == missing(1, "reverse") == [False, False]


@IN_EVERY_ORDER
def test_a_ring_of_two_tiles_hands_every_tile_over_in_every_order(order):
    x, y = drawn(1, 56, 1, 64), nan(56, 64)
    args = [TensorMap(tensor=x, box=(1, 8, 1, 64)), y, 7]
    hopper().launch("ring", [*args, 0], grid=1, block=64, shared_bytes=2048, order=order)
    assert torch.equal(y, torch.cat([swizzled(tile) for tile in x[0, :, 0].split(8)]))


def test_a_producer_that_does_not_wait_for_the_release_is_found():
    x, y = drawn(1, 56, 1, 64), nan(56, 64)
    args = [TensorMap(tensor=x, box=(1, 8, 1, 64)), y, 7, 1]
    for order in ORDERS:
        with pytest.raises(KernelFault, match="more threads arrive|more bytes|deadlock"):
            hopper().launch("ring", args, grid=1, block=64, shared_bytes=2048, order=order)


# ---- wgmma ---------------------------------------------------------------------------------------


def image_of(matrix, *, is_across):
    """A matrix (rows, 64 numbers of k) as wgmma wants it: its rows along k, or rows across, in
    columns of 64."""
    if not is_across:
        return swizzled(matrix).flatten()
    columns = matrix.T.split(64, dim=1)
    wide = [torch.nn.functional.pad(each, (0, 64 - each.shape[1])) for each in columns]
    return torch.cat([swizzled(each).flatten() for each in wide])


def fragments_of(a):
    """A (64, 64) as the registers of 128 threads, (4 steps, 128, 4 registers)."""
    # of row 16w + 8h + g and k 16s + 8j + 2t + i: thread 32w + 4g + t, register 2j + h, half i
    pairs = a.reshape(4, 2, 8, 4, 2, 4, 2).permute(3, 0, 2, 5, 4, 1, 6)
    return pairs.reshape(4, 128, 8).contiguous().view(torch.int32).view(torch.uint32)


def registers_of(d):
    """D (64, N) as the registers of 128 threads, (128, N / 2), and back by its own inverse."""
    return d.reshape(4, 2, 8, -1, 4, 2).permute(0, 2, 4, 3, 1, 5).reshape(128, -1)


@IN_EVERY_ORDER
@pytest.mark.parametrize("n", [32, 64, 128])
@HALVES
def test_wgmma_multiplies_from_shared_memory_and_registers_along_and_across_k(real, n, order):
    a, b = drawn(64, 64, real=real, seed=1), drawn(n, 64, real=real, seed=2)
    before = torch.randn(64, n)
    product = a.double() @ b.double().T
    for from_registers, a_across, b_across, adds in [
        (0, 0, 0, 0), (0, 0, 1, 1), (0, 1, 0, 1), (0, 1, 1, 0), (1, 0, 0, 1), (1, 0, 1, 0)]:
        image = torch.cat([image_of(a, is_across=a_across), image_of(b, is_across=b_across)])
        image = torch.nn.functional.pad(image, (0, 64 * 192 - len(image)))
        out = registers_of(before).contiguous()
        hopper(real).launch(f"products_{n}", [image, fragments_of(a), out, a_across, b_across,
                                              from_registers, adds],
                            grid=1, block=128, shared_bytes=64 * 192 * 2, order=order)
        expected = registers_of(product + before.double() * adds)
        torch.testing.assert_close(out.double(), expected, atol=1e-4, rtol=0)


def test_sums_are_there_after_the_wait_and_tiles_are_read_until_then():
    a, b = drawn(64, 64, seed=1), drawn(32, 64, seed=2)
    image = torch.cat([swizzled(a).flatten(), swizzled(b).flatten()])
    product = registers_of((a.double() @ b.double().T).float())

    def run(*, reads, overwrites, order="forward", seed=0):
        out = torch.zeros(128, 16)
        hopper().launch("touch_early", [image, out, reads, overwrites], grid=1, block=128,
                        shared_bytes=96 * 128, order=order, seed=seed)
        return out

    assert torch.equal(run(reads=0, overwrites=0), product)
    assert torch.equal(run(reads=1, overwrites=0), torch.full((128, 16), 0.5)), "not before"
    assert not torch.equal(run(reads=0, overwrites=1), product)
    early = run(reads=1, overwrites=0, order="random", seed=1)
    assert 0 < (early == product).sum() < early.numel(), "some products complete at once"


def test_registers_of_a_are_read_until_the_wait():
    b, out = drawn(32, 64, seed=2), torch.zeros(128, 16)
    sums = registers_of(b[:, :16].double().sum(1).float().expand(64, 32).contiguous())
    args = [swizzled(b).flatten(), out]
    for is_early in (0, 1):
        hopper().launch("reuse_registers", [*args, is_early], grid=1, block=128,
                        shared_bytes=32 * 128)
        assert torch.equal(out, sums) is not bool(is_early)


@IN_EVERY_ORDER
def test_a_tile_that_is_released_before_the_wait_may_be_overwritten_while_it_is_multiplied(order):
    a, b = drawn(64, 64, seed=1), drawn(32, 64, seed=2)
    image = torch.cat([swizzled(a).flatten(), swizzled(b).flatten()])
    product = registers_of((a.double() @ b.double().T).float())
    for is_early in (0, 1):
        out = torch.zeros(128, 16)
        hopper().launch("release", [image, out, is_early], grid=1, block=256, order=order, seed=1,
                        shared_bytes=96 * 128)
        assert torch.equal(out, product) is not bool(is_early)


def test_registers_that_warpgroups_pass_to_each_other_must_be_there():
    y = torch.zeros(384, dtype=torch.int32)
    hopper().launch("share_registers", [y, 240], grid=1, block=384)
    assert y.all()
    with pytest.raises(KernelFault, match=r"setmaxnreg at hopper_cores.cu:\d+: .* ask for 66560 "
                                          r"registers; a processor has 65536"):
        hopper().launch("share_registers", [y, 248], grid=1, block=384)
    with pytest.raises(KernelFault, match="needs a multiple of 8 from 24 to 256; got 236"):
        hopper().launch("share_registers", [y, 236], grid=1, block=384)


# ---- misuse --------------------------------------------------------------------------------------


def line_of(source, text):
    """The number of the one line of a source that contains these words."""
    (line,) = [n for n, each in enumerate(source.text.splitlines(), 1) if text in each]
    return line


@pytest.mark.parametrize("what, message", [
    (0, "cp.async at LINE: the target must be 16 bytes of shared memory at a multiple of 16"),
    (1, "cp.async at LINE: the target must be 16 bytes of shared memory"),
    (2, "cp.async at LINE: the source must be 0 to 16 bytes at a multiple of 16"),
    (3, "the copy issued at LINE touches byte 2048 of x, which has 2048 bytes"),
    (4, "ldmatrix at LINE: a row must be 16 bytes of shared memory at a multiple of 16"),
    (5, "ldmatrix at LINE: a row must be 16 bytes of shared memory"),
    (6, "mma.sync.* at LINE"),
    (7, "ldmatrix.* at LINE")])
def test_misuse_of_copies_and_tensor_cores_is_a_fault_at_its_line(what, message):
    line = line_of(CORES, f"what == {what})") if what < 6 else line_of(CORES, f"what == {what} ")
    with pytest.raises(KernelFault, match=message.replace("LINE", rf"cores\.cu:{line}")):
        cores().launch("misuse", [drawn(1024), nan(1024), what], grid=1, block=32,
                       shared_bytes=1024)


@pytest.mark.parametrize("what, message", [
    (0, "mbarrier.try_wait at LINE: this mbarrier was not initialized"),
    (1, "mbarrier.init at LINE: needs 8 bytes of shared memory"),
    (2, "mbarrier.init at LINE: needs 8 bytes of shared memory at a multiple of 8"),
    (3, "mbarrier.init at LINE: .* at least one thread"),
    (4, "mbarrier.arrive at LINE: more threads arrive in a phase than the 1 that it was init"),
    (5, "the TMA at LINE: a tile of 1024 bytes must be in dynamic shared memory, at a multiple "
        "of 1024"),
    (6, "the TMA at LINE: this mbarrier was not initialized"),
    (7, "the TMA at LINE delivers more bytes than its mbarrier expects"),
    (8, "deadlock: thread .* and all others that have not returned wait in mbarrier.try_wait"),
    (9, "the TMA at LINE delivers more bytes than its mbarrier expects"),
    (10, "bar.sync at LINE: needs a number from 1 to 15 .* got number 0 and 128 threads"),
    (11, "bar.sync at LINE: .* whole warps; got number 1 and 100 threads"),
    (12, "bar.sync at LINE: barrier 1 counts (64|128) threads, but others arrived at it with "
         "(64|128)"),
    (13, "bar.sync at LINE: .* got number 16"),
    (14, "wgmma at LINE: its registers may still be in use; wgmma.fence must come first"),
    (15, "wgmma at LINE: only the 128-byte swizzle is emulated"),
    (16, "wgmma at LINE reads byte .* of the block's dynamic shared memory, which has 4096"),
    (17, "wgmma.* at LINE"),
    (19, "the TMA at LINE: a tile of 1024 bytes must be in dynamic shared memory")])
def test_misuse_of_hoppers_machine_is_a_fault_at_its_line(what, message):
    first = rf"what == {what}\b.*" if what not in (7, 8, 9) else rf"what == {what}\b"
    line = next(n for n, each in enumerate(HOPPER.text.splitlines(), 1) if re.search(first, each)
                and "!=" not in each) + {7: 2, 9: 1}.get(what, 0)
    x = TensorMap(tensor=drawn(1, 16, 1, 64), box=(1, 8, 1, 64))
    with pytest.raises(KernelFault, match=message.replace("LINE", rf"hopper_cores\.cu:{line}")):
        hopper().launch("misuse", [x, nan(128), torch.zeros(4), what], grid=1, block=128,
                        shared_bytes=4096)


def test_a_product_after_a_wait_needs_a_fence_of_its_own_and_later_launches_run():
    x = TensorMap(tensor=drawn(1, 16, 1, 64), box=(1, 8, 1, 64))
    args = [x, nan(128), torch.zeros(4)]
    launch = lambda what: hopper().launch("misuse", [*args, what], grid=1, block=128,
                                          shared_bytes=16384)
    line = line_of(HOPPER, "wgmma_ss<false, false>(d, at, at, true);")
    with pytest.raises(KernelFault, match=rf"wgmma at hopper_cores\.cu:{line}: its registers"):
        launch(18)
    launch(20)


# ---- what the trace tells ------------------------------------------------------------------------


def events(found, *, thread=None):
    return [each.event for each in found.happenings if thread in (None, each.thread)]


def test_the_trace_tells_copies_in_the_order_in_which_they_begin_and_end():
    program = Program(source=CORES, real=torch.bfloat16)
    args = [drawn(3, 256), nan(3, 256), 32]
    how = dict(grid=1, block=32, shared_bytes=1536)
    late = trace(program, "copy_groups", args, **how)
    assert events(late, thread=5) == ["copy begins"] * 3 + ["copy ends"] * 3
    early = trace(program, "copy_groups", args, order="reverse", **how)
    assert events(early, thread=5) == ["copy begins", "copy ends"] * 3
    numbers = [each.number for each in late.happenings if each.event == "copy ends"]
    assert sorted(numbers) == [*range(96)], "each copy has a number"
    assert {each.line.text.strip()[:11] for each in late.happenings} == {"cp_async16("}


def test_the_trace_tells_tiles_phases_and_products_in_order():
    program = Program(source=HOPPER, real=torch.bfloat16)
    x = TensorMap(tensor=drawn(1, 24, 1, 64), box=(1, 8, 1, 64))
    found = trace(program, "ring", [x, nan(24, 64), 3, 0], grid=1, block=64, shared_bytes=2048)
    tiles = [(each.event, each.number) for each in found.happenings if "tile" in each.event]
    assert [n for event, n in tiles if event == "tile ordered"] == [0, 1, 2]
    assert sorted(n for event, n in tiles if event == "tile arrives") == [0, 1, 2]
    third = tiles.index(("tile ordered", 2))
    assert third > min(tiles.index(("tile arrives", n)) for n in (0, 1)), "two fit, not three"
    producer = events(found, thread=32)
    assert producer[:4] == ["waits", "goes on", "arrives", "tile ordered"]
    assert [each for each in producer if each == "tile ordered"] == ["tile ordered"] * 3
    with pytest.raises(ValueError, match="also orders its threads by mbarriers"):
        _ = found.races
    image, out = drawn(64 * 192), torch.zeros(128, 16)
    for from_registers in (0, 1):
        found = trace(program, "products_32", [image, torch.zeros(4, 128, 4, dtype=torch.uint32),
                                               out, 0, 0, from_registers, 0], grid=1, block=128,
                      shared_bytes=64 * 192 * 2)
        assert events(found) == ["product begins"] * 4 + ["product ends"] * 4
        assert [each.number for each in found.happenings] == [0, 1, 2, 3] * 2
        assert found.out_of_bounds is None


def test_the_numbers_of_tiles_begin_again_with_every_launch():
    program = Program(source=HOPPER, real=torch.bfloat16)
    x = TensorMap(tensor=drawn(1, 24, 1, 64), box=(1, 8, 1, 64))
    for _ in range(2):
        found = trace(program, "ring", [x, nan(24, 64), 3, 0], grid=1, block=64, shared_bytes=2048)
        assert [each.number for each in found.happenings if each.event == "tile ordered"] == [
            0, 1, 2]


def test_the_emulated_headers_are_those_that_a_source_includes():
    plain = Source(name="plain", headers=HEADERS, text='#include "common.cuh"\n'
                                                       'extern "C" __global__ void f(real* x) {}')
    included = [[name for name in ("tensor_cores.h", "hopper.h")
                 if f'#include "{name}"' in build.wrapper(
                     Program(source=source, real=torch.bfloat16), is_executable=False)]
                for source in (plain, CORES, HOPPER)]
    assert included == [[], ["tensor_cores.h"], ["hopper.h"]]
