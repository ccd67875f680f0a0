// What kernels on tensor cores share: copies that do not wait, matrices loaded as fragments, and
// the product of two fragments. Each function is one instruction of a GPU from sm_80 on; on the CPU
// the emulator does the same (emulator/tensor_cores.h).
//
// Source: NVIDIA, "PTX ISA", sections on cp.async, ldmatrix and mma.
#pragma once

#include "common.cuh"

// ---- cp.async: 16 bytes to shared memory, while the thread goes on ------------------------------

#ifdef CUDA_ON_CPU
// Writes 16 zeros if the source is not there; it is not read then.
EMU_NO_TRACE inline void cp_async16(void* to, const void* from, bool is_there, EMU_HERE) {
    emu::copy_async(to, from, is_there ? 16 : 0, at);
}
EMU_NO_TRACE inline void cp_async_commit() { emu::commit_copies(); }
template <int N> EMU_NO_TRACE inline void cp_async_wait() { emu::wait_for_copies(N); }
#else
__device__ inline unsigned shared_address(const void* p) {
    return (unsigned)__cvta_generic_to_shared(p);
}
__device__ inline void cp_async16(void* to, const void* from, bool is_there) {
    int n_bytes = is_there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(shared_address(to)), "l"(from), "r"(n_bytes) : "memory");
}
// Closes a group: all copies of this thread since the last one.
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most the newest N groups of this thread are still on their way. What other threads
// copied is only there after a barrier.
template <int N> __device__ inline void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory");
}
#endif

// ---- ldmatrix: four 8x8 matrices from shared memory, as fragments -------------------------------
// Lanes 8m to 8m+7 each point to one row of matrix m; a row is 16 bytes. Register m receives the
// neighbors (l/4, 2(l%4)) and (l/4, 2(l%4)+1) of matrix m, for lane l; transposed, the numbers that
// have these places in the transposed matrix.

#ifdef CUDA_ON_CPU
EMU_NO_TRACE inline void ldmatrix_x4(unsigned (&r)[4], const real* row, EMU_HERE) {
    emu::ldmatrix(r, row, false, at);
}
EMU_NO_TRACE inline void ldmatrix_x4_trans(unsigned (&r)[4], const real* row, EMU_HERE) {
    emu::ldmatrix(r, row, true, at);
}
#else
__device__ inline void ldmatrix_x4(unsigned (&r)[4], const real* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row)) : "memory");
}
__device__ inline void ldmatrix_x4_trans(unsigned (&r)[4], const real* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row)) : "memory");
}
#endif

// ---- mma: C (16x8, fp32) += A (16x16) B (16x8), by a warp ---------------------------------------
// With g = lane/4 and t = lane%4, two neighbors in k per register:
//     a[0]: row g, k 2t      a[1]: row g+8, k 2t      a[2]: row g, k 2t+8    a[3]: row g+8, k 2t+8
//     b0:   column g, k 2t   b1:   column g, k 2t+8
//     c[0], c[1]: row g, columns 2t and 2t+1          c[2], c[3]: row g+8, the same columns

#ifdef CUDA_ON_CPU
inline emu::Widen widen_of(bf16*) { return emu::widen_bf16; }
inline emu::Widen widen_of(fp16*) { return emu::widen_fp16; }
EMU_NO_TRACE inline void mma_m16n8k16(float (&c)[4], const unsigned (&a)[4], unsigned b0,
                                      unsigned b1, EMU_HERE) {
    emu::mma(c, a, b0, b1, widen_of((real*)0), at);
}
#else
#define MMA(type) \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 " \
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
__device__ inline void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, bf16*) {
    MMA("bf16");
}
__device__ inline void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, fp16*) {
    MMA("f16");
}
#undef MMA
__device__ inline void mma_m16n8k16(float (&c)[4], const unsigned (&a)[4], unsigned b0,
                                    unsigned b1) {
    mma(c, a, b0, b1, (real*)0);
}
#endif

// ---- between two products -----------------------------------------------------------

// 2^x; one instruction. Exactly 0 for -infinity.
#ifdef CUDA_ON_CPU
__device__ inline float exp2_approx(float x) { return exp2f(x); }
#else
__device__ inline float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#endif

// Two neighbors as one register of a fragment.
__device__ inline unsigned pack(float low, float high) {
    return narrow_pair(low, high, (real*)0);
}

// The sums of two pairs of neighbors, each rounded to `real`.
#ifdef CUDA_ON_CPU
__device__ inline unsigned add_pairs(unsigned x, unsigned y) {
    float a[2], b[2];
    widen_pair(x, a, (real*)0), widen_pair(y, b, (real*)0);
    return pack(a[0] + b[0], a[1] + b[1]);
}
#else
__device__ inline unsigned add_pairs(unsigned x, unsigned y, bf16*) {
    unsigned sum;   // before sm_90, bf16 has no addition of its own: x * 1 + y
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(x), "r"(0x3f803f80u), "r"(y));
    return sum;
}
__device__ inline unsigned add_pairs(unsigned x, unsigned y, fp16*) {
    unsigned sum;
    asm("add.rn.f16x2 %0, %1, %2;" : "=r"(sum) : "r"(x), "r"(y));
    return sum;
}
__device__ inline unsigned add_pairs(unsigned x, unsigned y) { return add_pairs(x, y, (real*)0); }
#endif

// Where the 16-byte chunk `chunk` of row `row` is in a tile with rows of WIDTH numbers. Eight
// rows of one chunk, which is what ldmatrix reads at once, would be in the same banks; moved to
// chunk ^ (row % 8), they are in eight different groups of four.
template <int WIDTH> __device__ inline int swizzled(int row, int chunk) {
    return row * WIDTH + ((chunk ^ (row & 7)) << 3);
}

// Adds two neighbors to sums in global memory that other blocks add to. The order of the additions,
// and with it the last bit of the sums, is another one every time.
#if defined(CUDA_ON_CPU) || __CUDA_ARCH__ < 900
__device__ inline void add_pair(float* to, float low, float high) {
    atomicAdd(to, low), atomicAdd(to + 1, high);
}
#else
__device__ inline void add_pair(float* to, float low, float high) {
    asm volatile("red.global.add.v2.f32 [%0], {%1, %2};"
                 :: "l"(to), "f"(low), "f"(high) : "memory");
}
#endif
