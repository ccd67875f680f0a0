// Single instructions that only Hopper has, each in the smallest kernel that shows all of it: the
// TMA, mbarriers, and wgmma with A in registers or in shared memory and both orders of A and B.
// wgmma gets its tiles by plain stores and not by the TMA, so that a difference has one cause.
//
// real: bf16 fp16
// architectures: sm_90a
#include "hopper.cuh"

constexpr int LANES = 32;
constexpr int TWO_WARPS = 64;
constexpr int THREADS = 128;   // a warpgroup
constexpr int K = 64;          // of a product: four steps of 16
constexpr int WIDTH = 128;     // of D, and so of B
constexpr int A_NUMBERS = 64 * K, B_NUMBERS = WIDTH * K;

// ---- TMA: one box, and then all bytes of the tile as shared memory has them ------------------

extern "C" __global__ void __launch_bounds__(LANES) try_tma(
    const __grid_constant__ TensorMap map, const real* before, real* after, int n_numbers, int x,
    int y, int z, int w) {
    DYNAMIC_SHARED(real, tile);
    Mbarrier* arrived = (Mbarrier*)(tile + n_numbers);
    for (int i = threadIdx.x; i < n_numbers; i += LANES) tile[i] = before[i];
    if (threadIdx.x == 0) mbarrier_init(arrived, 1);
    fence_mbarrier_init();
    fence_proxy_async();
    __syncthreads();
    if (threadIdx.x == 0) {
        mbarrier_arrive_expect_tx(arrived, n_numbers * (int)sizeof(real));
        tma_load(tile, &map, arrived, x, y, z, w);
    }
    mbarrier_wait(arrived, 0);
    for (int i = threadIdx.x; i < n_numbers; i += LANES) after[i] = tile[i];
}

// ---- mbarrier: a warp fills one place over and over, and the next warp empties it ---------------
// Each round waits for both parities. A phase that ends too early, or a parity taken for the other,
// gives the numbers of another round.

extern "C" __global__ void __launch_bounds__(TWO_WARPS) try_mbarrier(
    const int* given, int* taken, int n_rounds) {
    DYNAMIC_SHARED(int, place);
    Mbarrier *full = (Mbarrier*)(place + LANES), *empty = full + 1;
    int lane = threadIdx.x % LANES;
    if (threadIdx.x == 0) mbarrier_init(full, LANES), mbarrier_init(empty, LANES);
    fence_mbarrier_init();
    __syncthreads();
    for (int round = 0; round < n_rounds; round++) {
        int parity = round & 1;
        if (threadIdx.x < LANES) {
            mbarrier_wait(empty, parity ^ 1);   // at once in the first round
            place[lane] = given[round * LANES + lane];
            mbarrier_arrive(full);
        } else {
            mbarrier_wait(full, parity);
            taken[round * LANES + lane] = place[LANES - 1 - lane];   // of another thread
            mbarrier_arrive(empty);
        }
    }
}

// ---- wgmma --------------------------------------------------------------------------------------

// Copies rows of 128 bytes to where the 128-byte swizzle has them.
__device__ inline void put_swizzled(real* tile, const real* from, int n_numbers) {
    for (int i = 8 * threadIdx.x; i < n_numbers; i += 8 * WARPGROUP)
        store(tile + swizzled<SWIZZLED_WIDTH>(i / 64, i % 64 / 8), load(from + i));
}

template <bool IS_ACROSS>
__device__ inline unsigned long long step_of(const real* tile, int step, int column_bytes) {
    return IS_ACROSS ? across_k(tile + step * 16 * 64, column_bytes) : along_k(tile + step * 16);
}

__device__ inline void load_sums(float (&sums)[WIDTH / 2], const float* c, size_t thread) {
    #pragma unroll
    for (int i = 0; i < WIDTH / 2; i++) sums[i] = c[thread * (WIDTH / 2) + i];
}
__device__ inline void store_sums(float* d, const float (&sums)[WIDTH / 2], size_t thread) {
    #pragma unroll
    for (int i = 0; i < WIDTH / 2; i++) d[thread * (WIDTH / 2) + i] = sums[i];
}

template <bool A_ACROSS, bool B_ACROSS>
__device__ inline void try_ss(const real* a, const real* b, const float* c, float* d, bool adds) {
    DYNAMIC_SHARED(real, matrices);
    real* b_tile = matrices + A_NUMBERS;
    size_t thread = (size_t)blockIdx.x * WARPGROUP + threadIdx.x;
    put_swizzled(matrices, a + (size_t)blockIdx.x * A_NUMBERS, A_NUMBERS);
    put_swizzled(b_tile, b + (size_t)blockIdx.x * B_NUMBERS, B_NUMBERS);
    fence_proxy_async();
    __syncthreads();
    float sums[WIDTH / 2];
    load_sums(sums, c, thread);
    wgmma_fence();
    #pragma unroll
    for (int step = 0; step < K / 16; step++)
        wgmma_ss<A_ACROSS, B_ACROSS>(sums, step_of<A_ACROSS>(matrices, step, K * 128),
                                     step_of<B_ACROSS>(b_tile, step, K * 128), adds || step > 0);
    wgmma_commit();
    wgmma_wait<0>();
    store_sums(d, sums, thread);
}

template <bool B_ACROSS>
__device__ inline void try_rs(const int* a, const real* b, const float* c, float* d, bool adds) {
    DYNAMIC_SHARED(real, matrices);
    size_t thread = (size_t)blockIdx.x * WARPGROUP + threadIdx.x;
    put_swizzled(matrices, b + (size_t)blockIdx.x * B_NUMBERS, B_NUMBERS);
    fence_proxy_async();
    __syncthreads();
    float sums[WIDTH / 2];
    unsigned fragment[K / 16][4];
    load_sums(sums, c, thread);
    #pragma unroll
    for (int i = 0; i < K / 4; i++) fragment[i / 4][i % 4] = a[thread * (K / 4) + i];
    wgmma_fence();
    #pragma unroll
    for (int step = 0; step < K / 16; step++)
        wgmma_rs<B_ACROSS>(sums, fragment[step], step_of<B_ACROSS>(matrices, step, K * 128),
                           adds || step > 0);
    wgmma_commit();
    wgmma_wait<0>();
    store_sums(d, sums, thread);
}

extern "C" __global__ void __launch_bounds__(THREADS) try_wgmma_ss(
    const real* a, const real* b, const float* c, float* d, int adds) {
    try_ss<false, false>(a, b, c, d, adds);
}
extern "C" __global__ void __launch_bounds__(THREADS) try_wgmma_ss_a_across(
    const real* a, const real* b, const float* c, float* d, int adds) {
    try_ss<true, false>(a, b, c, d, adds);
}
extern "C" __global__ void __launch_bounds__(THREADS) try_wgmma_ss_b_across(
    const real* a, const real* b, const float* c, float* d, int adds) {
    try_ss<false, true>(a, b, c, d, adds);
}
extern "C" __global__ void __launch_bounds__(THREADS) try_wgmma_ss_across(
    const real* a, const real* b, const float* c, float* d, int adds) {
    try_ss<true, true>(a, b, c, d, adds);
}
extern "C" __global__ void __launch_bounds__(THREADS) try_wgmma_rs(
    const int* a, const real* b, const float* c, float* d, int adds) {
    try_rs<false>(a, b, c, d, adds);
}
extern "C" __global__ void __launch_bounds__(THREADS) try_wgmma_rs_b_across(
    const int* a, const real* b, const float* c, float* d, int adds) {
    try_rs<true>(a, b, c, d, adds);
}
