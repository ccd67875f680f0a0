// Products y = x W^T of a few rows x with weights of 8 or 4 bits, for decoding.
//
// Decoding one token reads every weight once and multiplies it once: memory is the limit, and a
// weight of 4 bits takes a quarter of the time of bf16. Only if nothing else becomes the limit: an
// H200 that reads 4.3 TB/s delivers 37 weights of 4 bits per processor and clock, which leaves
// three or four instructions for each. The ladder is about spending no more than that on a weight;
// its last rung is in quantized_mma.cu.
//
// 8 bits: weight = scale[row] * number. The scale is taken once per row, after the sum.
// 4 bits: weight = scale[row, group] * (number - 8), or scale * number + minimum. A word of 32 bits
// holds eight numbers: number 2i from bit 4i on, 2i + 1 from bit 16 + 4i on (model/quantized.py).
#include "common.cuh"

constexpr int THREADS = 256;
constexpr int ZERO = 8;

// Number j of a word, from -8 to 7: less 8, also where that is not 0, because the sums of small
// numbers are more exact.
__device__ inline int centered(unsigned word, int j) {
    return (int)(word >> (j % 2 * 16 + j / 2 * 4) & 15) - ZERO;
}

// The weight of a centered number 0. A group's part of a result is
// scale * sum(centered * x) + middle * sum(x).
__device__ inline accum middle_of(accum scale, const real* minimum_or_null, size_t group) {
    return minimum_or_null ? widen(minimum_or_null[group]) + ZERO * scale : 0;
}

// Rung 1. One thread per result. Neighboring threads read a whole row apart, so each byte that a
// warp asks for comes in a 32-byte sector of its own.
extern "C" __global__ void __launch_bounds__(THREADS) int8_linear_1(
    const real* x, const signed char* weight, const real* scale, real* out,
    int n_x, int n_rows, int n_columns)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)n_x * n_rows) return;
    size_t m = i / n_rows, row = i % n_rows;
    accum sum = 0;
    for (int c = 0; c < n_columns; c++)
        sum += widen(x[m * n_columns + c]) * weight[row * n_columns + c];
    out[i] = narrow(sum * widen(scale[row]));
}

extern "C" __global__ void __launch_bounds__(THREADS) int4_linear_1(
    const real* x, const int* words, const real* scale, const real* minimum_or_null, real* out,
    int n_x, int n_rows, int n_columns, int group)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)n_x * n_rows) return;
    size_t m = i / n_rows, row = i % n_rows;
    accum total = 0;
    for (int begin = 0; begin < n_columns; begin += group) {
        accum dot = 0, sum = 0;
        for (int c = begin; c < begin + group; c++) {
            accum value = widen(x[m * n_columns + c]);
            dot += value * centered(words[(row * n_columns + c) / 8], c % 8);
            sum += value;
        }
        size_t at = row * (n_columns / group) + begin / group;
        accum each = widen(scale[at]);
        total += each * dot + middle_of(each, minimum_or_null, at) * sum;
    }
    out[i] = narrow(total);
}

// Rung 2. One warp per result: neighboring lanes read neighboring numbers, so every byte that is
// fetched is used. But a lane asks for one or four bytes at a time, and x comes from the cache
// again for every row. 8-bit rows of any width are multiplied here. blockIdx.y counts x's rows.
extern "C" __global__ void __launch_bounds__(THREADS) int8_linear_2(
    const real* x, const signed char* weight, const real* scale, real* out,
    int n_rows, int n_columns)
{
    size_t row = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, m = blockIdx.y;
    if (row >= (size_t)n_rows) return;   // the whole warp
    accum sum = 0;
    for (int c = threadIdx.x % 32; c < n_columns; c += 32)
        sum += widen(x[m * n_columns + c]) * weight[row * n_columns + c];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) out[m * n_rows + row] = narrow(sum * widen(scale[row]));
}

extern "C" __global__ void __launch_bounds__(THREADS) int4_linear_2(
    const real* x, const int* words, const real* scale, const real* minimum_or_null, real* out,
    int n_rows, int n_columns, int group)
{
    size_t row = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, m = blockIdx.y;
    if (row >= (size_t)n_rows) return;
    accum total = 0;
    for (int c = threadIdx.x % 32 * 8; c < n_columns; c += 32 * 8) {
        unsigned word = words[(row * n_columns + c) / 8];
        size_t at = row * (n_columns / group) + c / group;
        accum dot = 0, sum = 0, each = widen(scale[at]);
        for (int j = 0; j < 8; j++) {
            accum value = widen(x[m * n_columns + c + j]);
            dot += value * centered(word, j);
            sum += value;
        }
        total += each * dot + middle_of(each, minimum_or_null, at) * sum;
    }
    total = warp_sum(total);
    if (threadIdx.x % 32 == 0) out[m * n_rows + row] = narrow(total);
}

// ==== rung 3 =====================================================================================
//
// - A lane loads 16 bytes of each of ROWS rows, and asks for the next 16 bytes of each before it
//   uses these: 8 loads are on their way, and x is read once for all ROWS rows.
// - Weights are used once, so they are the first to leave the cache; x stays in shared memory.
// - Several weights that share x (wq, wk and wv; w_gate and w_up) are one launch: small matrices
//   alone have too few rows to occupy the GPU.
// - Integers become floating-point numbers without a conversion, which few lanes can do per clock.
//   The bits of a number are put into the fraction of a known power of two:
//   0x43 as the upper byte of a bf16 is 128, and 128 + n has n in its last bits; for fp16, 0x64 is
//   1024. One `lop3` masks two numbers and adds both powers. What each number has too much, BIAS,
//   is subtracted once per group, as BIAS * sum(x).

template <class T> struct BiasOf { static constexpr int VALUE = 0; };
template <> struct BiasOf<bf16> { static constexpr int VALUE = 128 + ZERO; };
template <> struct BiasOf<fp16> { static constexpr int VALUE = 1024 + ZERO; };
constexpr int BIAS = BiasOf<real>::VALUE;

__device__ inline void unpack(unsigned word, float (&w)[8], bf16*) {
    #pragma unroll
    for (int i = 0; i < 4; i++)
        widen_pair(mask_and_set(word >> 4 * i, 0x000f000fu, 0x43004300u), w + 2 * i, (bf16*)0);
}
__device__ inline void unpack(unsigned word, float (&w)[8], fp16*) {
    #pragma unroll
    for (int i = 0; i < 4; i++)
        widen_pair(mask_and_set(word >> 4 * i, 0x000f000fu, 0x64006400u), w + 2 * i, (fp16*)0);
}
template <class T> __device__ inline void unpack(unsigned word, accum (&w)[8], T*) {
    #pragma unroll
    for (int j = 0; j < 8; j++) w[j] = centered(word, j);
}

// With the sign bit flipped, a byte is its number + 128. As the last byte of the fp32 number 2^23,
// whose last bit counts as 1, it is added to 2^23.
__device__ inline accum number_of_bytes(unsigned flipped, int j) {
    return __uint_as_float(__byte_perm(flipped, 0x4b000000u, 0x7440 | j)) - (8388608.0f + 128.0f);
}

struct Int8 {
    typedef signed char Stored;
    static constexpr int PER_STORED = 1, CHUNK = 16;   // numbers in one access of 16 bytes
    static constexpr bool HAS_GROUPS = false;
    __device__ static void piece(const VectorOf<Stored>& v, int i, accum (&w)[8]) {
        #pragma unroll
        for (int j = 0; j < 8; j++)
            w[j] = number_of_bytes(v.word[2 * i + j / 4] ^ 0x80808080u, j % 4);
    }
};
struct Int4 {
    typedef int Stored;
    static constexpr int PER_STORED = 8, CHUNK = 32;
    static constexpr bool HAS_GROUPS = true;
    __device__ static void piece(const VectorOf<Stored>& v, int i, accum (&w)[8]) {
        unpack(v.word[i], w, (real*)0);
    }
};

template <class Format> struct Matrix {
    const typename Format::Stored* weight;
    const real* scale;
    const real* minimum;
    real* out;
    int n_rows;
};

// Copies the columns of x from `begin` on into shared memory. A lane reads its own CHUNK columns
// vector by vector; vector j of all 32 lanes is in one place, so that they read different banks.
template <int CHUNK>
__device__ inline void stage(const real* x, real* slice, int begin, int n_slice, int n_x,
                             int n_columns) {
    constexpr int EACH = CHUNK / VECTOR;
    int n_vectors = min(n_slice, n_columns - begin) / VECTOR;
    __syncthreads();   // the last slice may still be being read
    for (int m = 0; m < n_x; m++)
        for (int i = threadIdx.x; i < n_vectors; i += blockDim.x) {
            int lane = i / EACH % 32, at = i / (32 * EACH) * 32 * EACH + i % EACH * 32 + lane;
            store(slice + (size_t)m * n_slice + at * VECTOR,
                  load(x + (size_t)m * n_columns + begin + i * VECTOR));
        }
    __syncthreads();
}

template <class Format, int MOST_X, int ROWS>
__device__ inline void multiply(const Matrix<Format>& matrix, int first_row, const real* x,
                                int n_x, int n_columns, int group, int n_slice) {
    typedef typename Format::Stored Stored;
    constexpr int CHUNK = Format::CHUNK, STEP = 32 * CHUNK;
    DYNAMIC_SHARED(real, slice);
    int lane = threadIdx.x % 32;
    // Where this lane's next numbers and their groups are. Rows beyond the last are the last again.
    const Stored* weight_at[ROWS];
    size_t group_at[ROWS];
    int n_groups = Format::HAS_GROUPS ? n_columns / group : 0;
    int groups_per_step = Format::HAS_GROUPS ? STEP / group : 0;
    #pragma unroll
    for (int r = 0; r < ROWS; r++) {
        size_t row = min(first_row + r, matrix.n_rows - 1);
        weight_at[r] = matrix.weight + (row * n_columns + lane * CHUNK) / Format::PER_STORED;
        group_at[r] = Format::HAS_GROUPS ? row * n_groups + lane * CHUNK / group : 0;
    }

    int n_mine = first_row < matrix.n_rows ? n_columns - lane * CHUNK : 0;   // columns to come
    VectorOf<Stored> next[ROWS] = {};
    real next_scale[ROWS] = {}, next_minimum[ROWS] = {};
    auto fetch = [&](int begin) {
        if (begin >= n_mine) return;
        #pragma unroll
        for (int r = 0; r < ROWS; r++) {
            next[r] = load_once(weight_at[r]);
            weight_at[r] += STEP / Format::PER_STORED;
            if (Format::HAS_GROUPS) {
                next_scale[r] = matrix.scale[group_at[r]];
                if (matrix.minimum) next_minimum[r] = matrix.minimum[group_at[r]];
                group_at[r] += groups_per_step;
            }
        }
    };

    accum total[MOST_X][ROWS] = {};
    fetch(0);
    for (int begin = 0, at = n_slice; begin < n_columns; begin += STEP, at += STEP) {
        if (at == n_slice) stage<CHUNK>(x, slice, begin, n_slice, n_x, n_columns), at = 0;
        VectorOf<Stored> now[ROWS];
        accum scale[ROWS], middle[ROWS];
        #pragma unroll
        for (int r = 0; r < ROWS; r++) {
            now[r] = next[r], scale[r] = widen(next_scale[r]);
            middle[r] = matrix.minimum ? widen(next_minimum[r]) + ZERO * scale[r] : 0;
        }
        fetch(begin + STEP);
        if (begin >= n_mine) continue;

        const real* mine = slice + at + lane * VECTOR;
        accum dot[MOST_X][ROWS] = {}, sum[MOST_X] = {};
        #pragma unroll
        for (int i = 0; i < CHUNK / 8; i++) {
            accum w[ROWS][8];
            #pragma unroll
            for (int r = 0; r < ROWS; r++) Format::piece(now[r], i, w[r]);
            #pragma unroll
            for (int m = 0; m < MOST_X; m++) if (m <= MOST_X / 2 || m < n_x) {
                #pragma unroll
                for (int part = 0; part < 8 / VECTOR; part++) {
                    accum value[VECTOR];
                    int j = i * (8 / VECTOR) + part;
                    widen(load(mine + (size_t)m * n_slice + j * 32 * VECTOR), value);
                    #pragma unroll
                    for (int e = 0; e < VECTOR; e++) {
                        if (Format::HAS_GROUPS) sum[m] += value[e];
                        #pragma unroll
                        for (int r = 0; r < ROWS; r++)
                            dot[m][r] += w[r][part * VECTOR + e] * value[e];
                    }
                }
            }
        }
        #pragma unroll
        for (int m = 0; m < MOST_X; m++)
            #pragma unroll
            for (int r = 0; r < ROWS; r++)
                total[m][r] += Format::HAS_GROUPS
                    ? scale[r] * (dot[m][r] - BIAS * sum[m]) + middle[r] * sum[m] : dot[m][r];
    }

    #pragma unroll
    for (int m = 0; m < MOST_X; m++)
        #pragma unroll
        for (int r = 0; r < ROWS; r++) {
            accum all = warp_sum(total[m][r]);
            int row = first_row + r;
            if (lane == 0 && m < n_x && row < matrix.n_rows)
                matrix.out[(size_t)m * matrix.n_rows + row] =
                    narrow(Format::HAS_GROUPS ? all : all * widen(matrix.scale[row]));
        }
}

// Each warp has ROWS rows of one of up to three matrices.
template <class Format, int MOST_X, int ROWS>
__device__ inline void multiply_one_of(const Matrix<Format>& first, const Matrix<Format>& second,
                                       const Matrix<Format>& third, const real* x, int n_x,
                                       int n_columns, int group, int n_slice) {
    int warp = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    int n_first = (first.n_rows + ROWS - 1) / ROWS, n_second = (second.n_rows + ROWS - 1) / ROWS;
    int place = warp < n_first ? 0 : warp < n_first + n_second ? 1 : 2;
    Matrix<Format> mine = place == 0 ? first : place == 1 ? second : third;
    int before = place == 0 ? 0 : place == 1 ? n_first : n_first + n_second;
    multiply<Format, MOST_X, ROWS>(mine, (warp - before) * ROWS, x, n_x, n_columns, group, n_slice);
}

// One entry point for 1, 2, 3 to 4, and 5 to 8 rows of x, because sums in registers need a number
// that the compiler knows. With more rows of x, a lane has fewer rows of the weight. A step of a
// warp must be whole groups. n_slice is the number of x's columns in shared memory, in whole steps.

extern "C" __global__ void __launch_bounds__(THREADS, 2) int8_linear_by1(
    const real* x,
    const signed char* weight, const real* scale,
    real* out, int n_rows,
    const signed char* weight_2_or_null, const real* scale_2_or_null,
    real* out_2_or_null, int n_rows_2,
    const signed char* weight_3_or_null, const real* scale_3_or_null,
    real* out_3_or_null, int n_rows_3,
    int n_x, int n_columns, int n_slice)
{
    multiply_one_of<Int8, 1, 4>(
        {weight, scale, nullptr, out, n_rows},
        {weight_2_or_null, scale_2_or_null, nullptr, out_2_or_null, n_rows_2},
        {weight_3_or_null, scale_3_or_null, nullptr, out_3_or_null, n_rows_3},
        x, n_x, n_columns, 0, n_slice);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) int8_linear_by2(
    const real* x,
    const signed char* weight, const real* scale,
    real* out, int n_rows,
    const signed char* weight_2_or_null, const real* scale_2_or_null,
    real* out_2_or_null, int n_rows_2,
    const signed char* weight_3_or_null, const real* scale_3_or_null,
    real* out_3_or_null, int n_rows_3,
    int n_x, int n_columns, int n_slice)
{
    multiply_one_of<Int8, 2, 4>(
        {weight, scale, nullptr, out, n_rows},
        {weight_2_or_null, scale_2_or_null, nullptr, out_2_or_null, n_rows_2},
        {weight_3_or_null, scale_3_or_null, nullptr, out_3_or_null, n_rows_3},
        x, n_x, n_columns, 0, n_slice);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) int8_linear_by4(
    const real* x,
    const signed char* weight, const real* scale,
    real* out, int n_rows,
    const signed char* weight_2_or_null, const real* scale_2_or_null,
    real* out_2_or_null, int n_rows_2,
    const signed char* weight_3_or_null, const real* scale_3_or_null,
    real* out_3_or_null, int n_rows_3,
    int n_x, int n_columns, int n_slice)
{
    multiply_one_of<Int8, 4, 2>(
        {weight, scale, nullptr, out, n_rows},
        {weight_2_or_null, scale_2_or_null, nullptr, out_2_or_null, n_rows_2},
        {weight_3_or_null, scale_3_or_null, nullptr, out_3_or_null, n_rows_3},
        x, n_x, n_columns, 0, n_slice);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) int8_linear_by8(
    const real* x,
    const signed char* weight, const real* scale,
    real* out, int n_rows,
    const signed char* weight_2_or_null, const real* scale_2_or_null,
    real* out_2_or_null, int n_rows_2,
    const signed char* weight_3_or_null, const real* scale_3_or_null,
    real* out_3_or_null, int n_rows_3,
    int n_x, int n_columns, int n_slice)
{
    multiply_one_of<Int8, 8, 2>(
        {weight, scale, nullptr, out, n_rows},
        {weight_2_or_null, scale_2_or_null, nullptr, out_2_or_null, n_rows_2},
        {weight_3_or_null, scale_3_or_null, nullptr, out_3_or_null, n_rows_3},
        x, n_x, n_columns, 0, n_slice);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) int4_linear_by1(
    const real* x,
    const int* weight, const real* scale, const real* minimum_or_null,
    real* out, int n_rows,
    const int* weight_2_or_null, const real* scale_2_or_null, const real* minimum_2_or_null,
    real* out_2_or_null, int n_rows_2,
    const int* weight_3_or_null, const real* scale_3_or_null, const real* minimum_3_or_null,
    real* out_3_or_null, int n_rows_3,
    int n_x, int n_columns, int group, int n_slice)
{
    multiply_one_of<Int4, 1, 4>(
        {weight, scale, minimum_or_null, out, n_rows},
        {weight_2_or_null, scale_2_or_null, minimum_2_or_null, out_2_or_null, n_rows_2},
        {weight_3_or_null, scale_3_or_null, minimum_3_or_null, out_3_or_null, n_rows_3},
        x, n_x, n_columns, group, n_slice);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) int4_linear_by2(
    const real* x,
    const int* weight, const real* scale, const real* minimum_or_null,
    real* out, int n_rows,
    const int* weight_2_or_null, const real* scale_2_or_null, const real* minimum_2_or_null,
    real* out_2_or_null, int n_rows_2,
    const int* weight_3_or_null, const real* scale_3_or_null, const real* minimum_3_or_null,
    real* out_3_or_null, int n_rows_3,
    int n_x, int n_columns, int group, int n_slice)
{
    multiply_one_of<Int4, 2, 2>(
        {weight, scale, minimum_or_null, out, n_rows},
        {weight_2_or_null, scale_2_or_null, minimum_2_or_null, out_2_or_null, n_rows_2},
        {weight_3_or_null, scale_3_or_null, minimum_3_or_null, out_3_or_null, n_rows_3},
        x, n_x, n_columns, group, n_slice);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) int4_linear_by4(
    const real* x,
    const int* weight, const real* scale, const real* minimum_or_null,
    real* out, int n_rows,
    const int* weight_2_or_null, const real* scale_2_or_null, const real* minimum_2_or_null,
    real* out_2_or_null, int n_rows_2,
    const int* weight_3_or_null, const real* scale_3_or_null, const real* minimum_3_or_null,
    real* out_3_or_null, int n_rows_3,
    int n_x, int n_columns, int group, int n_slice)
{
    multiply_one_of<Int4, 4, 2>(
        {weight, scale, minimum_or_null, out, n_rows},
        {weight_2_or_null, scale_2_or_null, minimum_2_or_null, out_2_or_null, n_rows_2},
        {weight_3_or_null, scale_3_or_null, minimum_3_or_null, out_3_or_null, n_rows_3},
        x, n_x, n_columns, group, n_slice);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) int4_linear_by8(
    const real* x,
    const int* weight, const real* scale, const real* minimum_or_null,
    real* out, int n_rows,
    const int* weight_2_or_null, const real* scale_2_or_null, const real* minimum_2_or_null,
    real* out_2_or_null, int n_rows_2,
    const int* weight_3_or_null, const real* scale_3_or_null, const real* minimum_3_or_null,
    real* out_3_or_null, int n_rows_3,
    int n_x, int n_columns, int group, int n_slice)
{
    multiply_one_of<Int4, 8, 2>(
        {weight, scale, minimum_or_null, out, n_rows},
        {weight_2_or_null, scale_2_or_null, minimum_2_or_null, out_2_or_null, n_rows_2},
        {weight_3_or_null, scale_3_or_null, minimum_3_or_null, out_3_or_null, n_rows_3},
        x, n_x, n_columns, group, n_slice);
}
