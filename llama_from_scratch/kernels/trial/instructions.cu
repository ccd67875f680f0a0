// Single instructions of the tensor cores, each in the smallest kernel that shows all of it: load
// what the instruction reads, execute it once, store every register or byte that it wrote. A GPU
// and the emulator must store the same.
//
// real: bf16 fp16
// architectures: sm_80 and newer
#include "tensor_cores.cuh"

constexpr int LANES = 32;

// ---- mma: each block multiplies one pair of fragments -------------------------------------------
// Registers lie as (block, lane, register); two numbers of A or B are one int.

extern "C" __global__ void __launch_bounds__(LANES) try_mma(
    const int* a, const int* b, const float* c, float* d) {
    size_t lane = (size_t)blockIdx.x * LANES + threadIdx.x;
    unsigned fragment[4];
    float sums[4];
    for (int i = 0; i < 4; i++) fragment[i] = a[4 * lane + i], sums[i] = c[4 * lane + i];
    mma_m16n8k16(sums, fragment, b[2 * lane], b[2 * lane + 1]);
    for (int i = 0; i < 4; i++) d[4 * lane + i] = sums[i];
}

// ---- ldmatrix: lane l points to row `row[l]` of 32 rows of 8 numbers ----------------------------

extern "C" __global__ void __launch_bounds__(LANES) try_ldmatrix(
    const real* rows, const int* row, int* plain, int* transposed) {
    DYNAMIC_SHARED(real, tile);
    size_t lane = (size_t)blockIdx.x * LANES + threadIdx.x;
    store(tile + 8 * threadIdx.x, load(rows + 8 * lane));
    __syncthreads();
    unsigned r[4], t[4];
    ldmatrix_x4(r, tile + 8 * row[lane]);
    ldmatrix_x4_trans(t, tile + 8 * row[lane]);
    for (int i = 0; i < 4; i++) plain[4 * lane + i] = r[i], transposed[4 * lane + i] = t[i];
}

// ---- cp.async: lane l copies 16 bytes from place `from[l]`, or writes zeros ---------------------
// Shared memory holds `before`, so that a zero must have been written. The second group overwrites
// what the first one has brought.

extern "C" __global__ void __launch_bounds__(LANES) try_cp_async(
    const real* x, const real* before, const int* from, const int* is_there, real* after) {
    DYNAMIC_SHARED(real, tile);
    size_t lane = (size_t)blockIdx.x * LANES + threadIdx.x;
    int mine = 8 * threadIdx.x;
    store(tile + mine, load(before + 8 * lane));
    __syncthreads();
    cp_async16(tile + mine, x + 8 * from[lane], is_there[lane]);
    cp_async_commit();
    cp_async_wait<0>();
    store(after + 16 * lane, load(tile + mine));
    cp_async16(tile + mine, x + 8 * from[lane ^ 1], is_there[lane ^ 1]);
    cp_async_commit();
    cp_async_wait<0>();
    store(after + 16 * lane + 8, load(tile + mine));
}
