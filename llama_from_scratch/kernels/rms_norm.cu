// RMSNorm: y = x / sqrt(mean(x^2) + eps) * weight for every row, after adding a residual, if any.
//
// A row is a token. Forward reads and writes one row; backward reads two (three with a residual)
// and writes one. The arithmetic costs little: the ladder is about moving every byte once, with
// enough of them on their way. Memory answers after most of a microsecond; an H200 that copies 4.3
// TB/s has 2 MB of reads on their way, 16 KB per processor: a 16-byte load of each of 1024 threads.
//
// Rounding, as in model/norm.py: x + residual before its size is taken; x * inverse before it is
// multiplied by the weight. Backward rounds where PyTorch's autograd would write to memory.
#include "common.cuh"

constexpr int THREADS = 256;
constexpr int NARROW = 4 * 32 * VECTOR;   // the widest row of one warp, in a block of several rows
__device__ inline accum inverse_of(accum sum_of_squares, int n_columns, accum eps) {
    return inverse_root(sum_of_squares / n_columns + eps);
}
__device__ inline real normed(real x, accum inverse, real weight) {
    return narrow(rounded(widen(x) * inverse) * widen(weight));
}

// ==== forward ====================================================================================
// Rung 1. One thread per row, as one would write it for a CPU. Neighboring threads read a whole row
// apart, so every 2 bytes of bf16 that a warp asks for come in a 32-byte sector of their own.
extern "C" __global__ void __launch_bounds__(THREADS) rms_norm_forward_1(
    const real* x, const real* weight, real* y, accum* inverse_size, long long n_rows,
    int n_columns, accum eps)
{
    size_t row = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= (size_t)n_rows) return;
    accum sum = 0;
    for (int c = 0; c < n_columns; c++) {
        accum value = widen(x[row * n_columns + c]);
        sum += value * value;
    }
    accum inverse = inverse_of(sum, n_columns, eps);
    for (int c = 0; c < n_columns; c++)
        y[row * n_columns + c] = normed(x[row * n_columns + c], inverse, weight[c]);
    inverse_size[row] = inverse;
}

// Rung 2. One block per row: neighboring threads read neighboring numbers. Sums meet in shared
// memory, half as many in each round, with a barrier after each, at which the whole block waits.
extern "C" __global__ void __launch_bounds__(THREADS) rms_norm_forward_2(
    const real* x, const real* weight, real* y, accum* inverse_size, int n_columns, accum eps)
{
    __shared__ accum sums[THREADS];
    size_t begin = (size_t)blockIdx.x * n_columns;
    accum sum = 0;
    for (int c = threadIdx.x; c < n_columns; c += THREADS) {
        accum value = widen(x[begin + c]);
        sum += value * value;
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int half = THREADS / 2; half; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    accum inverse = inverse_of(sums[0], n_columns, eps);
    for (int c = threadIdx.x; c < n_columns; c += THREADS)
        y[begin + c] = normed(x[begin + c], inverse, weight[c]);
    if (threadIdx.x == 0) inverse_size[blockIdx.x] = inverse;
}

// Rung 3. A warp's lanes add by shuffles; only 8 numbers go through shared memory. The residual
// joins here: the sum is written and measured in one pass. Rows of any width (odd ones leave the
// 16-byte grid), but 2 bytes at a time and every row twice, the second time from the cache.
extern "C" __global__ void __launch_bounds__(THREADS) rms_norm_forward(
    const real* x, const real* residual_or_null, const real* weight, real* y, real* sum_or_null,
    accum* inverse_size, int n_columns, accum eps)
{
    __shared__ accum per_warp[THREADS / 32];
    size_t begin = (size_t)blockIdx.x * n_columns;
    accum sum = 0;
    for (int c = threadIdx.x; c < n_columns; c += blockDim.x) {
        accum value = widen(x[begin + c]);
        if (residual_or_null) {
            value = rounded(value + widen(residual_or_null[begin + c]));
            sum_or_null[begin + c] = narrow(value);
        }
        sum += value * value;
    }
    accum inverse = inverse_of(block_sum(sum, per_warp), n_columns, eps);
    const real* h = residual_or_null ? sum_or_null : x;   // what this thread wrote: no barrier
    for (int c = threadIdx.x; c < n_columns; c += blockDim.x)
        y[begin + c] = normed(h[begin + c], inverse, weight[c]);
    if (threadIdx.x == 0) inverse_size[blockIdx.x] = inverse;
}

// Rung 4. 16 bytes per load, VECTORS of them asked for before the first is needed. The row stays in
// registers, for which VECTORS must be known to the compiler: every byte moves once. blockDim.x
// threads share a row, vector j of thread t at column (j * blockDim.x + t) * VECTOR; if a warp is
// enough for a row, a block takes blockDim.y rows. The weight is asked for before the reduction, so
// that it is there when the sum is; for later rows the L1 cache has it, as `load_once` leaves room.
__device__ inline int column_of(int j) { return (j * blockDim.x + threadIdx.x) * VECTOR; }

template <int VECTORS>
__device__ inline void forward(
    const real* x, const real* residual, const real* weight, real* y, real* sum, accum* inverse_size,
    long long n_rows, int n_columns, accum eps, accum* per_warp)
{
    size_t row = (size_t)blockIdx.x * blockDim.y + threadIdx.y, begin = row * n_columns;
    if (row >= (size_t)n_rows) return;   // only where a warp is a row: it leaves whole
    Vector h[VECTORS] = {}, r[VECTORS] = {}, w[VECTORS] = {};
    #pragma unroll
    for (int j = 0; j < VECTORS; j++) {
        if (column_of(j) < n_columns) h[j] = load_once(x + begin + column_of(j));
        if (column_of(j) < n_columns && residual) r[j] = load_once(residual + begin + column_of(j));
    }
    #pragma unroll
    for (int j = 0; j < VECTORS; j++) if (column_of(j) < n_columns) w[j] = load(weight + column_of(j));

    accum squares = 0;
    #pragma unroll
    for (int j = 0; j < VECTORS; j++) {
        accum value[VECTOR], added[VECTOR];
        widen(h[j], value);
        if (residual) {
            widen(r[j], added);
            for (int i = 0; i < VECTOR; i++) value[i] += added[i];
            h[j] = narrow(value);
            widen(h[j], value);
            if (column_of(j) < n_columns) store(sum + begin + column_of(j), h[j]);
        }
        for (int i = 0; i < VECTOR; i++) squares += value[i] * value[i];
    }
    accum inverse = inverse_of(row_sum(squares, per_warp), n_columns, eps);
    #pragma unroll
    for (int j = 0; j < VECTORS; j++) {
        accum value[VECTOR], scale[VECTOR];
        widen(h[j], value), widen(w[j], scale);
        for (int i = 0; i < VECTOR; i++) value[i] *= inverse;
        as_stored(value);
        for (int i = 0; i < VECTOR; i++) value[i] *= scale[i];
        if (column_of(j) < n_columns) store(y + begin + column_of(j), narrow(value));
    }
    if (threadIdx.x == 0) inverse_size[row] = inverse;
}

extern "C" __global__ void __launch_bounds__(THREADS) rms_norm_forward_by1(
    const real* x, const real* residual_or_null, const real* weight, real* y, real* sum_or_null,
    accum* inverse_size, long long n_rows, int n_columns, accum eps)
{
    __shared__ accum per_warp[32];
    forward<1>(x, residual_or_null, weight, y, sum_or_null, inverse_size, n_rows, n_columns, eps,
               per_warp);
}

extern "C" __global__ void __launch_bounds__(THREADS) rms_norm_forward_by2(
    const real* x, const real* residual_or_null, const real* weight, real* y, real* sum_or_null,
    accum* inverse_size, long long n_rows, int n_columns, accum eps)
{
    __shared__ accum per_warp[32];
    forward<2>(x, residual_or_null, weight, y, sum_or_null, inverse_size, n_rows, n_columns, eps,
               per_warp);
}

extern "C" __global__ void __launch_bounds__(THREADS, 3) rms_norm_forward_by4(
    const real* x, const real* residual_or_null, const real* weight, real* y, real* sum_or_null,
    accum* inverse_size, long long n_rows, int n_columns, accum eps)
{
    __shared__ accum per_warp[32];
    forward<4>(x, residual_or_null, weight, y, sum_or_null, inverse_size, n_rows, n_columns, eps,
               per_warp);
}

extern "C" __global__ void __launch_bounds__(512) rms_norm_forward_by8(
    const real* x, const real* residual_or_null, const real* weight, real* y, real* sum_or_null,
    accum* inverse_size, long long n_rows, int n_columns, accum eps)
{
    __shared__ accum per_warp[32];
    forward<8>(x, residual_or_null, weight, y, sum_or_null, inverse_size, n_rows, n_columns, eps,
               per_warp);
}

// ==== backward ===================================================================================
//
// With n = x * inverse and g = dy * weight:
//     dx      = inverse * (g - n * mean(g * n))   the mean over the row, whose size every x shares
//     dweight = sum of dy * n over all rows
// dx needs a sum along rows, and dweight a sum down the columns. The difficulty is to get both from
// one read of dy and x.

// Rung 1. Two kernels: a block per row for dx, a thread per column for dweight. dy and x are read
// twice from memory, and one thread per column is far too few to keep memory busy.
extern "C" __global__ void __launch_bounds__(THREADS) rms_norm_backward_1(
    const real* dy, const real* x, const real* weight, const accum* inverse_size, real* dx,
    int n_columns)
{
    __shared__ accum per_warp[THREADS / 32];
    size_t begin = (size_t)blockIdx.x * n_columns;
    accum inverse = inverse_size[blockIdx.x], dot = 0;
    for (int c = threadIdx.x; c < n_columns; c += blockDim.x)
        dot += rounded(widen(dy[begin + c]) * widen(weight[c])) * widen(x[begin + c]) * inverse;
    accum mean = block_sum(dot, per_warp) / n_columns;
    for (int c = threadIdx.x; c < n_columns; c += blockDim.x) {
        accum g = rounded(widen(dy[begin + c]) * widen(weight[c]));
        dx[begin + c] = narrow(inverse * (g - widen(x[begin + c]) * inverse * mean));
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) rms_norm_weight_gradient_1(
    const real* dy, const real* x, const accum* inverse_size, real* dweight, long long n_rows,
    int n_columns)
{
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= n_columns) return;
    accum sum = 0;
    for (size_t row = 0; row < (size_t)n_rows; row++)
        sum += widen(dy[row * n_columns + c])
             * rounded(widen(x[row * n_columns + c]) * inverse_size[row]);
    dweight[c] = narrow(sum);
}

// Rung 2. A few blocks that stay and visit row after row. A thread meets the same columns in every
// row, so it alone adds up their part of dweight: no atomics, so the bits never change. The
// parts of a block are one row of `partial`, kept in the cache; `rms_norm_column_sum` adds the
// blocks. Rows of any width. The incoming gradient of x + residual joins in passing.
extern "C" __global__ void __launch_bounds__(THREADS) rms_norm_backward(
    const real* dy, const real* dsum_or_null, const real* x, const real* weight,
    const accum* inverse_size, real* dx, accum* partial, long long n_rows, int n_columns)
{
    __shared__ accum per_warp[THREADS / 32];
    accum* part = partial + (size_t)blockIdx.x * n_columns;
    for (size_t row = blockIdx.x; row < (size_t)n_rows; row += gridDim.x) {
        size_t begin = row * n_columns;
        accum inverse = inverse_size[row], dot = 0;
        for (int c = threadIdx.x; c < n_columns; c += blockDim.x) {
            accum d = widen(dy[begin + c]), n = widen(x[begin + c]) * inverse;
            part[c] = (row == blockIdx.x ? 0 : part[c]) + d * rounded(n);
            dot += rounded(d * widen(weight[c])) * n;
        }
        accum mean = block_sum(dot, per_warp) / n_columns;
        for (int c = threadIdx.x; c < n_columns; c += blockDim.x) {
            accum g = rounded(widen(dy[begin + c]) * widen(weight[c]));
            accum d = inverse * (g - widen(x[begin + c]) * inverse * mean);
            dx[begin + c] = narrow(dsum_or_null ? rounded(d) + widen(dsum_or_null[begin + c]) : d);
        }
    }
}

// Rung 3. The parts of dweight live in registers, the row moves once and in vectors, and the next
// row's loads leave before the current row is reduced: memory works while the block waits at its
// barrier. That is what one row per block cannot do.
//
// Registers are the limit. Per 8 columns of bf16 a thread holds 8 for dweight, 8 for the row (x and
// dy) and 8 for the next row, and some 30 for the rest. To save 4 each, the weight is read again
// from the L1 cache for each row, and dsum is asked for only when the widened numbers of the first
// half have left theirs; it has the time of the reduction to arrive.
template <int VECTORS>
__device__ inline void backward(
    const real* dy, const real* dsum, const real* x, const real* weight, const accum* inverse_size,
    real* dx, accum* partial, long long n_rows, int n_columns, accum* shared)
{
    accum part[VECTORS][VECTOR] = {};
    Vector next_x[VECTORS] = {}, next_dy[VECTORS] = {};
    accum next_inverse = 0;
    size_t row = (size_t)blockIdx.x * blockDim.y + threadIdx.y;
    size_t step = (size_t)gridDim.x * blockDim.y;
    auto fetch = [&](size_t row) {
        if (row >= (size_t)n_rows) return;
        next_inverse = inverse_size[row];
        #pragma unroll
        for (int j = 0; j < VECTORS; j++) if (column_of(j) < n_columns) {
            next_x[j] = load_once(x + row * n_columns + column_of(j));
            next_dy[j] = load_once(dy + row * n_columns + column_of(j));
        }
    };

    fetch(row);
    for (; row < (size_t)n_rows; row += step) {
        size_t begin = row * n_columns;
        Vector h[VECTORS], g[VECTORS], more[VECTORS] = {};
        #pragma unroll
        for (int j = 0; j < VECTORS; j++) h[j] = next_x[j], g[j] = next_dy[j];
        accum inverse = next_inverse, dot = 0;
        fetch(row + step);
        #pragma unroll
        for (int j = 0; j < VECTORS; j++) if (column_of(j) < n_columns) {
            accum n[VECTOR], d[VECTOR], scale[VECTOR];
            widen(h[j], n), widen(g[j], d), widen(load(weight + column_of(j)), scale);
            for (int i = 0; i < VECTOR; i++) scale[i] *= d[i], n[i] *= inverse;
            g[j] = narrow(scale);
            widen(g[j], scale);
            for (int i = 0; i < VECTOR; i++) dot += scale[i] * n[i];
            as_stored(n);
            for (int i = 0; i < VECTOR; i++) part[j][i] += d[i] * n[i];
        }
        #pragma unroll
        for (int j = 0; j < VECTORS; j++)
            if (dsum && column_of(j) < n_columns) more[j] = load_once(dsum + begin + column_of(j));
        accum mean = row_sum(dot, shared) / n_columns * inverse;
        #pragma unroll
        for (int j = 0; j < VECTORS; j++) if (column_of(j) < n_columns) {
            accum value[VECTOR], d[VECTOR];
            widen(h[j], value), widen(g[j], d);
            for (int i = 0; i < VECTOR; i++) d[i] = inverse * (d[i] - value[i] * mean);
            if (dsum) {
                as_stored(d);
                widen(more[j], value);
                for (int i = 0; i < VECTOR; i++) d[i] += value[i];
            }
            store(dx + begin + column_of(j), narrow(d));
        }
    }

    // The rows of a block add up one after the other, so that the order is always the same.
    for (int turn = 0; turn < blockDim.y; turn++) {
        for (int j = 0; j < VECTORS; j++) if (turn == threadIdx.y && column_of(j) < n_columns) {
            for (int i = 0; i < VECTOR; i++) {
                if (turn > 0) part[j][i] += shared[column_of(j) + i];
                if (turn + 1 < blockDim.y) shared[column_of(j) + i] = part[j][i];
            }
        }
        if (blockDim.y > 1) __syncthreads();
    }
    constexpr int WIDE = 16 / sizeof(accum);   // fp32 numbers per 16-byte store
    accum* out = partial + (size_t)blockIdx.x * n_columns;
    #pragma unroll
    for (int j = 0; j < VECTORS; j++) {
        if (threadIdx.y + 1 < blockDim.y || column_of(j) >= n_columns) continue;
        for (int i = 0; i < VECTOR; i += WIDE) {
            VectorOf<accum> four;
            for (int k = 0; k < WIDE; k++) four.at[k] = part[j][i + k];
            store(out + column_of(j) + i, four);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 4) rms_norm_backward_by1(
    const real* dy, const real* dsum_or_null, const real* x, const real* weight,
    const accum* inverse_size, real* dx, accum* partial, long long n_rows, int n_columns)
{
    __shared__ accum shared[NARROW];
    backward<1>(dy, dsum_or_null, x, weight, inverse_size, dx, partial, n_rows, n_columns, shared);
}

extern "C" __global__ void __launch_bounds__(THREADS, 3) rms_norm_backward_by2(
    const real* dy, const real* dsum_or_null, const real* x, const real* weight,
    const accum* inverse_size, real* dx, accum* partial, long long n_rows, int n_columns)
{
    __shared__ accum shared[NARROW];
    backward<2>(dy, dsum_or_null, x, weight, inverse_size, dx, partial, n_rows, n_columns, shared);
}

extern "C" __global__ void __launch_bounds__(THREADS) rms_norm_backward_by4(
    const real* dy, const real* dsum_or_null, const real* x, const real* weight,
    const accum* inverse_size, real* dx, accum* partial, long long n_rows, int n_columns)
{
    __shared__ accum shared[NARROW];
    backward<4>(dy, dsum_or_null, x, weight, inverse_size, dx, partial, n_rows, n_columns, shared);
}

extern "C" __global__ void __launch_bounds__(THREADS) rms_norm_backward_by8(
    const real* dy, const real* dsum_or_null, const real* x, const real* weight,
    const accum* inverse_size, real* dx, accum* partial, long long n_rows, int n_columns)
{
    __shared__ accum shared[NARROW];
    backward<8>(dy, dsum_or_null, x, weight, inverse_size, dx, partial, n_rows, n_columns, shared);
}

// dweight from the blocks' parts. A thread per column would wait for hundreds of loads one after
// the other: 32 threads share a column, each every 32nd part, and their sums meet in shared memory,
// added by one thread in a fixed order.
extern "C" __global__ void __launch_bounds__(1024) rms_norm_column_sum(
    const accum* partial, real* dweight, int n_parts, int n_columns)
{
    __shared__ accum sums[32][32];
    int c = blockIdx.x * 32 + threadIdx.x;
    accum sum = 0;
    #pragma unroll 4
    for (int part = threadIdx.y; part < n_parts; part += 32)
        if (c < n_columns) sum += partial[(size_t)part * n_columns + c];
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || c >= n_columns) return;
    for (int y = 1; y < 32; y++) sum += sums[y][threadIdx.x];
    dweight[c] = narrow(sum);
}
