// What kernels for Hopper (sm_90a) share: mbarriers, the TMA, which copies whole tiles, and wgmma,
// the products of a warpgroup of 128 threads. Each function is one instruction; on the CPU the
// emulator does the same (emulator/hopper.h).
//
// Tiles in shared memory have rows of 128 bytes, 64 numbers, with the 128-byte swizzle: the TMA
// writes them so and wgmma reads them so, without bank conflicts. Wider tiles are several such
// columns, one after the other.
//
// Source: NVIDIA, "PTX ISA", sections on mbarrier, cp.async.bulk.tensor and wgmma.
#pragma once

#include "tensor_cores.cuh"

constexpr int WARPGROUP = 128;
constexpr int SWIZZLED_WIDTH = 64;   // numbers in a row of 128 bytes

#ifdef CUDA_ON_CPU
#define __grid_constant__
#else
struct alignas(64) TensorMap { unsigned long long opaque[16]; };   // the driver encodes it
typedef unsigned long long Mbarrier;
#endif

// ---- mbarriers: count arriving threads and bytes, and wake who waits ----------------------------
// A barrier is in phase 0, 1, 2, ...; a phase ends when all threads it was initialized for have
// arrived, and all bytes that they announced. Waiting for parity 0 waits for the end of phases 0,
// 2, ...; waiting for parity 1 on a fresh barrier does not wait.

#ifdef CUDA_ON_CPU
EMU_NO_TRACE inline void mbarrier_init(Mbarrier* b, int n_threads, EMU_HERE) {
    emu::init_barrier(b, n_threads, at);
}
inline void fence_mbarrier_init() {}
EMU_NO_TRACE inline void mbarrier_arrive(Mbarrier* b, EMU_HERE) { emu::arrive(b, 0, at); }
EMU_NO_TRACE inline void mbarrier_arrive_expect_tx(Mbarrier* b, int n_bytes, EMU_HERE) {
    emu::arrive(b, n_bytes, at);
}
EMU_NO_TRACE inline void mbarrier_wait(Mbarrier* b, int parity, EMU_HERE) {
    emu::wait_for_phase(b, parity, at);
}
#else
__device__ inline void mbarrier_init(Mbarrier* b, int n_threads) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
                 :: "r"(shared_address(b)), "r"(n_threads) : "memory");
}
// Before the first __syncthreads after mbarrier_init, so that the TMA sees the barriers too.
__device__ inline void fence_mbarrier_init() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void mbarrier_arrive(Mbarrier* b) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(shared_address(b)) : "memory");
}
__device__ inline void mbarrier_arrive_expect_tx(Mbarrier* b, int n_bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                 :: "r"(shared_address(b)), "r"(n_bytes) : "memory");
}
__device__ inline void mbarrier_wait(Mbarrier* b, int parity) {
    asm volatile("{\n"
                 ".reg .pred is_over;\n"
                 "again%=: mbarrier.try_wait.parity.shared::cta.b64 is_over, [%0], %1;\n"
                 "@!is_over bra again%=;\n"
                 "}" :: "r"(shared_address(b)), "r"(parity) : "memory");
}
#endif

// ---- TMA: one thread orders a box of a tensor, with four coordinates ----------------------------
// Elements outside of the tensor arrive as 0, and count among the bytes.

#ifdef CUDA_ON_CPU
EMU_NO_TRACE inline void tma_load(void* to, const TensorMap* map, Mbarrier* b, int x, int y, int z,
                                  int w, EMU_HERE) {
    emu::order_tile(to, map, b, x, y, z, w, at);
}
inline void fence_proxy_async() {}
#else
__device__ inline void tma_load(void* to, const TensorMap* map, Mbarrier* b, int x, int y, int z,
                                int w) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5, %6}], [%2];"
                 :: "r"(shared_address(to)), "l"(map), "r"(shared_address(b)), "r"(x), "r"(y),
                    "r"(z), "r"(w) : "memory");
}
// Between plain stores to shared memory and a wgmma that reads them.
__device__ inline void fence_proxy_async() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
#endif

// ---- barriers for some warps, and registers passed from one warpgroup to another ----------------

#ifdef CUDA_ON_CPU
EMU_NO_TRACE inline void named_barrier_sync(int number, int n_threads, EMU_HERE) {
    emu::numbered_barrier(number, n_threads, true, {"bar.sync", at});
}
EMU_NO_TRACE inline void named_barrier_arrive(int number, int n_threads, EMU_HERE) {
    emu::numbered_barrier(number, n_threads, false, {"bar.arrive", at});
}
template <int N> EMU_NO_TRACE inline void setmaxnreg_inc(EMU_HERE) { emu::set_registers(N, at); }
template <int N> EMU_NO_TRACE inline void setmaxnreg_dec(EMU_HERE) { emu::set_registers(N, at); }
#else
__device__ inline void named_barrier_sync(int number, int n_threads) {
    asm volatile("bar.sync %0, %1;" :: "r"(number), "r"(n_threads) : "memory");
}
__device__ inline void named_barrier_arrive(int number, int n_threads) {
    asm volatile("bar.arrive %0, %1;" :: "r"(number), "r"(n_threads) : "memory");
}
template <int N> __device__ inline void setmaxnreg_inc() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" :: "n"(N));
}
template <int N> __device__ inline void setmaxnreg_dec() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" :: "n"(N));
}
#endif

// ---- wgmma: D (64 x N, fp32) (+)= A (64 x 16) B (16 x N), by a warpgroup ------------------------
// Of D, thread t of the warpgroup, in warp w = t/32 with g = t%32/4 and p = t%4, holds the rows
// 16w + g and 16w + g + 8: d[4i] and d[4i+1] are the columns 8i + 2p and the next of the first row,
// d[4i+2] and d[4i+3] of the second. B, and A if it is not in registers, are in shared memory, as
// rows along k, or "mn-major", as rows across.
//
// The order is: wgmma_fence, some products, wgmma_commit, and wgmma_wait before anybody touches D,
// A's registers or the tiles.

#ifdef CUDA_ON_CPU
EMU_NO_TRACE inline unsigned long long matrix_descriptor(const void* tile, int leading_bytes,
                                                         int stride_bytes) {
    unsigned address = (unsigned)emu::shared_offset(tile);
#else
__device__ inline unsigned long long matrix_descriptor(const void* tile, int leading_bytes,
                                                       int stride_bytes) {
    unsigned address = shared_address(tile);
#endif
    return (unsigned long long)((address & 0x3ffff) >> 4)
         | (unsigned long long)(leading_bytes >> 4) << 16
         | (unsigned long long)(stride_bytes >> 4) << 32 | 1ull << 62;   // the 128-byte swizzle
}
// Rows along k: the next 8 rows begin 1024 bytes later. 16 steps of k are 32 bytes.
__device__ inline unsigned long long along_k(const void* tile) {
    return matrix_descriptor(tile, 16, 1024);
}
// Rows across: the next 8 steps of k begin 1024 bytes later, the next 64 columns `column_bytes`.
__device__ inline unsigned long long across_k(const void* tile, int column_bytes) {
    return matrix_descriptor(tile, column_bytes, 1024);
}

#ifdef CUDA_ON_CPU
EMU_NO_TRACE inline void wgmma_fence(EMU_HERE) { emu::fence_products(at); }
EMU_NO_TRACE inline void wgmma_commit(EMU_HERE) { emu::commit_products(at); }
template <int N> EMU_NO_TRACE inline void wgmma_wait(EMU_HERE) { emu::wait_for_products(N, at); }

template <bool A_ACROSS, bool B_ACROSS, int R>
EMU_NO_TRACE inline void wgmma_ss(float (&d)[R], unsigned long long a, unsigned long long b,
                                  bool adds, EMU_HERE) {
    emu::multiply_shared(d, a, b, adds, A_ACROSS, B_ACROSS, widen_of((real*)0), at);
}
template <bool B_ACROSS, int R>
EMU_NO_TRACE inline void wgmma_rs(float (&d)[R], const unsigned (&a)[4], unsigned long long b,
                                  bool adds, EMU_HERE) {
    emu::multiply_registers(d, a, b, adds, B_ACROSS, widen_of((real*)0), at);
}
#else
__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int N> __device__ inline void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(N) : "memory");
}

// The instruction names every register, so there is one text for each N.
#define D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define D16(i) D4(i), D4(i + 4), D4(i + 8), D4(i + 12)
#define NAMES_16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define NAMES_32 NAMES_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, " \
    "%29, %30, %31"
#define NAMES_64 NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, " \
    "%45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define REGISTERS_16 D16(0)
#define REGISTERS_32 D16(0), D16(16)
#define REGISTERS_64 D16(0), D16(16), D16(32), D16(48)
// n: the width of D; r: its registers per thread; the numbers of the operands that follow them
#define WGMMA(n, r, type, a0, a1, a2, a3, a4, a5)                                                \
    template <bool A_ACROSS, bool B_ACROSS>                                                      \
    __device__ inline void wgmma_ss_of(float (&d)[r], unsigned long long a, unsigned long long b, \
                                       int adds, type*) {                                        \
        asm volatile("{\n.reg .pred adds;\nsetp.ne.b32 adds, %" #a2 ", 0;\n"                     \
                     "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." NAME_OF_##type "."        \
                     NAME_OF_##type " {" NAMES_##r "}, %" #a0 ", %" #a1 ", adds, 1, 1, %" #a3    \
                     ", %" #a4 ";\n}"                                                            \
                     : REGISTERS_##r                                                             \
                     : "l"(a), "l"(b), "r"(adds), "n"((int)A_ACROSS), "n"((int)B_ACROSS));       \
    }                                                                                            \
    template <bool B_ACROSS>                                                                     \
    __device__ inline void wgmma_rs_of(float (&d)[r], const unsigned (&a)[4],                    \
                                       unsigned long long b, int adds, type*) {                  \
        asm volatile("{\n.reg .pred adds;\nsetp.ne.b32 adds, %" #a5 ", 0;\n"                     \
                     "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." NAME_OF_##type "."        \
                     NAME_OF_##type " {" NAMES_##r "}, {%" #a0 ", %" #a1 ", %" #a2 ", %" #a3     \
                     "}, %" #a4 ", adds, 1, 1, %" NEXT_##a5 ";\n}"                               \
                     : REGISTERS_##r                                                             \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(adds),            \
                       "n"((int)B_ACROSS));                                                      \
    }
#define NAME_OF_bf16 "bf16"
#define NAME_OF_fp16 "f16"
#define NEXT_21 "22"
#define NEXT_37 "38"
#define NEXT_69 "70"
WGMMA(32, 16, bf16, 16, 17, 18, 19, 20, 21)
WGMMA(32, 16, fp16, 16, 17, 18, 19, 20, 21)
WGMMA(64, 32, bf16, 32, 33, 34, 35, 36, 37)
WGMMA(64, 32, fp16, 32, 33, 34, 35, 36, 37)
WGMMA(128, 64, bf16, 64, 65, 66, 67, 68, 69)
WGMMA(128, 64, fp16, 64, 65, 66, 67, 68, 69)

template <bool A_ACROSS, bool B_ACROSS, int R>
__device__ inline void wgmma_ss(float (&d)[R], unsigned long long a, unsigned long long b,
                                bool adds) {
    wgmma_ss_of<A_ACROSS, B_ACROSS>(d, a, b, adds, (real*)0);
}
template <bool B_ACROSS, int R>
__device__ inline void wgmma_rs(float (&d)[R], const unsigned (&a)[4], unsigned long long b,
                                bool adds) {
    wgmma_rs_of<B_ACROSS>(d, a, b, adds, (real*)0);
}
#endif
