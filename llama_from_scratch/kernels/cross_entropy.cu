// The loss of each row of logits, and its gradient in the place of the logits.
//
// A row holds the logits of one token, a number per word of the vocabulary. With m the largest of
// them, z the sum of exp(x - m), and t the target's logit:
//     loss     = m - t + log(z)   plus z_loss * (m + log(z))^2, which keeps logits small
//     gradient = scale * ((1 + 2 z_loss (m + log(z))) * exp(x - m) / z - [x is the target's])
// A row whose target is `ignored` has loss 0 and gradient 0. m keeps exp from overflowing.
//
// A row of 128256 numbers of bf16 is 257 KB: more than a block's registers and shared memory hold.
// So it is read twice, the second time from the L2 cache. That works if the rows in progress fit
// there. An H200 has 132 processors and 50 MB: one row per processor is 34 MB, two are too many.
//
// Rows begin `row_stride` numbers apart, a multiple of 16 bytes. What is between the end of a row
// and the beginning of the next is never used; the vectors of rung 3 leave zeros there.
#include "common.cuh"

constexpr int THREADS = 1024;
constexpr int LOADS = 4;            // vectors on their way per thread
constexpr float LOWEST = -3e38f;    // below all logits. From -inf, exp(x - m) would be NaN.

// e^x as a power of 2, for which there is an instruction. The multiplication is rounded, so the
// error grows with |x|; but here x <= 0, and e^x becomes small much faster.
__device__ inline accum power(accum x) { return exp2(x * (accum)1.4426950408889634); }

// The largest number of a block, in every thread. As `block_sum`.
__device__ inline accum block_max(accum x, accum* per_warp) {
    for (int distance = 16; distance; distance /= 2)
        x = max(x, __shfl_xor_sync(ALL_LANES, x, distance));
    __syncthreads();   // another result may still be being read from per_warp
    if (threadIdx.x % 32 == 0) per_warp[threadIdx.x / 32] = x;
    __syncthreads();
    for (int warp = 0; warp < blockDim.x / 32; warp++) x = max(x, per_warp[warp]);
    return x;
}

// What follows from a row's largest number and its sum.
struct Row {
    accum loss, slope, shift;   // the gradient is slope * exp(x - shift), minus scale at the target

    __device__ Row(accum largest, accum sum, accum target, accum z_loss, accum scale)
        : shift(largest)
    {
        accum log_sum = log(sum), size = largest + log_sum;
        // largest - target first: both may be far from 0, and their difference is not.
        loss = (largest - target) + log_sum + z_loss * size * size;
        slope = scale * (1 + 2 * z_loss * size) / sum;
    }
};

// A label that is not a word ends the launch with an error, before anything is read from outside
// the row. PyTorch does the same. A check on the CPU would have to wait for the GPU.
__device__ inline void require_word(long long label, int n_columns) {
    if (label < 0 || label >= n_columns) __trap();
}

// ---- rung 1: three passes -----------------------------------------------------------------------
// As the formula says: the largest number, then the sum, then the gradient. One block per row, 2
// bytes (bf16) per thread and access.
extern "C" __global__ void __launch_bounds__(THREADS) cross_entropy_1(
    real* logits, const long long* targets, const accum* scale_or_null, accum* loss, int n_columns,
    long long row_stride, long long ignored, accum z_loss, int is_gradient)
{
    __shared__ accum per_warp[32];
    real* x = logits + (size_t)blockIdx.x * row_stride;
    long long label = targets[blockIdx.x];
    if (label == ignored) {
        for (int c = threadIdx.x; is_gradient && c < n_columns; c += blockDim.x) x[c] = narrow(0);
        if (threadIdx.x == 0) loss[blockIdx.x] = 0;
        return;
    }
    require_word(label, n_columns);
    accum target = widen(x[label]), largest = LOWEST, sum = 0;
    for (int c = threadIdx.x; c < n_columns; c += blockDim.x) largest = max(largest, widen(x[c]));
    largest = block_max(largest, per_warp);
    for (int c = threadIdx.x; c < n_columns; c += blockDim.x) sum += power(widen(x[c]) - largest);
    sum = block_sum(sum, per_warp);
    accum scale = scale_or_null ? scale_or_null[blockIdx.x] : 1;
    Row row(largest, sum, target, z_loss, scale);
    if (threadIdx.x == 0) loss[blockIdx.x] = row.loss;
    for (int c = threadIdx.x; is_gradient && c < n_columns; c += blockDim.x)
        x[c] = narrow(row.slope * power(widen(x[c]) - row.shift) - (c == label ? scale : 0));
}

// ---- rung 2: the largest number and the sum in one pass -----------------------------------------
// A thread keeps the largest number so far and the sum relative to it. When a larger one comes, the
// sum is multiplied by exp(old - new), as if it had been relative to the new one all along. Threads
// agree in the same way at the end. So a row is read twice instead of three times.
struct Online {
    accum largest = LOWEST, sum = 0;

    template <int N> __device__ void add(const accum (&x)[N]) {
        accum before = largest;
        #pragma unroll
        for (int i = 0; i < N; i++) largest = max(largest, x[i]);
        sum *= power(before - largest);   // once for all N
        #pragma unroll
        for (int i = 0; i < N; i++) sum += power(x[i] - largest);
    }

    __device__ void agree(accum* per_warp) {
        accum before = largest;
        largest = block_max(largest, per_warp);
        sum = block_sum(sum * power(before - largest), per_warp);
    }
};

extern "C" __global__ void __launch_bounds__(THREADS) cross_entropy_2(
    real* logits, const long long* targets, const accum* scale_or_null, accum* loss, int n_columns,
    long long row_stride, long long ignored, accum z_loss, int is_gradient)
{
    __shared__ accum per_warp[32];
    real* x = logits + (size_t)blockIdx.x * row_stride;
    long long label = targets[blockIdx.x];
    if (label == ignored) {
        for (int c = threadIdx.x; is_gradient && c < n_columns; c += blockDim.x) x[c] = narrow(0);
        if (threadIdx.x == 0) loss[blockIdx.x] = 0;
        return;
    }
    require_word(label, n_columns);
    accum target = widen(x[label]), scale = scale_or_null ? scale_or_null[blockIdx.x] : 1;
    Online online;
    for (int c = threadIdx.x; c < n_columns; c += blockDim.x) online.add<1>({widen(x[c])});
    online.agree(per_warp);
    Row row(online.largest, online.sum, target, z_loss, scale);
    if (threadIdx.x == 0) loss[blockIdx.x] = row.loss;
    for (int c = threadIdx.x; is_gradient && c < n_columns; c += blockDim.x)
        x[c] = narrow(row.slope * power(widen(x[c]) - row.shift) - (c == label ? scale : 0));
}

// ---- rung 3: 16 bytes at a time -----------------------------------------------------------------
// A thread asks for LOADS vectors before it uses the first. The grid is one full block per
// processor, and each visits row after row: that is what keeps the rows in progress in the L2 cache
// until their second pass. What is used for the last time (`load_once`, `store_once`) leaves it
// first.

// The numbers of the vector at column c; -inf, whose exponential is 0, past the end of the row.
__device__ inline void numbers(const Vector& v, int c, int n_columns, accum (&x)[VECTOR]) {
    widen(v, x);
    if (c + VECTOR <= n_columns) return;
    #pragma unroll
    for (int i = 0; i < VECTOR; i++)
        if (c + i >= n_columns) x[i] = -__uint_as_float(0x7f800000u);
}

extern "C" __global__ void __launch_bounds__(THREADS) cross_entropy(
    real* logits, const long long* targets, const accum* scale_or_null, accum* loss,
    long long n_rows, int n_columns, long long row_stride, long long ignored, accum z_loss,
    int is_gradient)
{
    __shared__ accum per_warp[32];
    int step = blockDim.x * VECTOR;
    for (size_t at = blockIdx.x; at < (size_t)n_rows; at += gridDim.x) {
        real* x = logits + at * row_stride;
        long long label = targets[at];
        if (label == ignored) {
            for (int c = threadIdx.x * VECTOR; is_gradient && c < n_columns; c += step)
                store_once(x + c, Vector{});
            if (threadIdx.x == 0) loss[at] = 0;
            continue;
        }
        require_word(label, n_columns);
        accum target = widen(x[label]), scale = scale_or_null ? scale_or_null[at] : 1;
        Online online;
        for (int c = threadIdx.x * VECTOR; c < n_columns; c += LOADS * step) {
            Vector v[LOADS] = {};
            #pragma unroll
            for (int j = 0; j < LOADS; j++)
                if (c + j * step < n_columns) v[j] = load(x + c + j * step);
            #pragma unroll
            for (int j = 0; j < LOADS; j++) if (c + j * step < n_columns) {
                accum number[VECTOR];
                numbers(v[j], c + j * step, n_columns, number);
                online.add(number);
            }
        }
        online.agree(per_warp);
        Row row(online.largest, online.sum, target, z_loss, scale);
        if (threadIdx.x == 0) loss[at] = row.loss;
        for (int c = threadIdx.x * VECTOR; is_gradient && c < n_columns; c += LOADS * step) {
            Vector v[LOADS] = {};
            #pragma unroll
            for (int j = 0; j < LOADS; j++)
                if (c + j * step < n_columns) v[j] = load_once(x + c + j * step);
            #pragma unroll
            for (int j = 0; j < LOADS; j++) if (c + j * step < n_columns) {
                accum number[VECTOR];
                numbers(v[j], c + j * step, n_columns, number);
                int place = (int)label - (c + j * step);   // of the target in this vector
                #pragma unroll
                for (int i = 0; i < VECTOR; i++) {
                    number[i] = row.slope * power(number[i] - row.shift);
                    if (i == place) number[i] -= scale;
                }
                store_once(x + c + j * step, narrow(number));
            }
        }
    }
}
