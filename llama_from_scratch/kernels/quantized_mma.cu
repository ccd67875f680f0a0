// The last rung of quantized.cu: products with weights of 8 or 4 bits on tensor cores.
//
// What is left to do for a weight of 4 bits is to unpack it: the multiplication, the addition and
// the sum over lanes are done for 16 rows of the weight and 8 rows of x at once. So up to 8 rows of
// x take the time of one.
//
// A block has 16 rows of the weight, and its warps divide the columns: otherwise a small matrix
// would have too few warps to keep memory busy. Lane 4g + t of a warp holds rows g and g + 8, 16
// bytes of each. Its numbers meet the same columns of x, so that their order does not matter, and
// weights are stored as for the other rungs. A lane asks for AHEAD steps before it needs the first.
//
// Groups of 4-bit weights must be a step, which is 128 columns: the product adds up the four lanes
// of a row, which therefore share a scale.
//
// real: bf16 fp16
// architectures: sm_80 and newer
#include "tensor_cores.cuh"

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;
constexpr int ROWS = 16;    // of the weight
constexpr int MOST_X = 8;   // rows of x

// The powers of two, and what they are too much with 8 less for centered numbers; see quantized.cu.
template <class T> struct Bits;
template <> struct Bits<bf16> {   // 128; -136; 1
    static constexpr unsigned POWER = 0x43004300u, TOO_MUCH = 0xc308c308u, ONE = 0x3f803f80u;
};
template <> struct Bits<fp16> {   // 1024; -1032; 1
    static constexpr unsigned POWER = 0x64006400u, TOO_MUCH = 0xe408e408u, ONE = 0x3c003c00u;
};

struct Int8 {
    typedef signed char Stored;
    static constexpr int PER_STORED = 1, CHUNK = 16, AHEAD = 4;
    static constexpr bool HAS_GROUPS = false;
    // Numbers 8i to 8i + 7 of an access, as four pairs; quantized.cu explains the bytes.
    __device__ static void pairs(const VectorOf<Stored>& v, int i, unsigned (&pair)[4]) {
        #pragma unroll
        for (int j = 0; j < 4; j++) {
            unsigned flipped = v.word[2 * i + j / 2] ^ 0x80808080u;
            float low = __uint_as_float(__byte_perm(flipped, 0x4b000000u, 0x7440 | j % 2 * 2));
            float high = __uint_as_float(__byte_perm(flipped, 0x4b000000u, 0x7441 | j % 2 * 2));
            pair[j] = pack(low - (8388608.0f + 128.0f), high - (8388608.0f + 128.0f));
        }
    }
};
struct Int4 {
    typedef int Stored;
    static constexpr int PER_STORED = 8, CHUNK = 32, AHEAD = 3;
    static constexpr bool HAS_GROUPS = true;
    __device__ static void pairs(const VectorOf<Stored>& v, int i, unsigned (&pair)[4]) {
        #pragma unroll
        for (int j = 0; j < 4; j++)
            pair[j] = add_pairs(mask_and_set(v.word[i] >> 4 * j, 0x000f000fu, Bits<real>::POWER),
                                Bits<real>::TOO_MUCH);
    }
};

template <class Format> struct Matrix {
    const typename Format::Stored* weight;
    const real* scale;
    const real* minimum;
    real* out;
    int n_rows;
};

template <class Format>
__device__ inline void multiply(const Matrix<Format>& matrix, int first_row, const real* x, int n_x,
                                int n_columns) {
    typedef typename Format::Stored Stored;
    constexpr int CHUNK = Format::CHUNK, STEP = 4 * CHUNK;   // columns
    constexpr int AHEAD = Format::AHEAD;
    __shared__ float sums[WARPS][ROWS][MOST_X];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    // Where this lane's next numbers and their groups are. Rows beyond the last are the last again.
    const Stored* weight_at[2];
    size_t group_at[2];
    #pragma unroll
    for (int half = 0; half < 2; half++) {
        size_t row = min(first_row + g + 8 * half, matrix.n_rows - 1);
        weight_at[half] = matrix.weight
            + (row * n_columns + warp * STEP + t * CHUNK) / Format::PER_STORED;
        group_at[half] = row * (n_columns / STEP) + warp;
    }

    int n_mine = n_columns - t * CHUNK, fetched = warp * STEP;
    VectorOf<Stored> next[AHEAD][2];
    real next_scale[AHEAD][2] = {}, next_minimum[AHEAD][2] = {};
    auto fetch = [&](int slot) {
        #pragma unroll
        for (int half = 0; half < 2; half++) {
            next[slot][half] = VectorOf<Stored>();
            if (fetched < n_mine) next[slot][half] = load_once(weight_at[half]);
            weight_at[half] += WARPS * STEP / Format::PER_STORED;
            if (Format::HAS_GROUPS && fetched < n_mine) {
                next_scale[slot][half] = matrix.scale[group_at[half]];
                if (matrix.minimum) next_minimum[slot][half] = matrix.minimum[group_at[half]];
                group_at[half] += WARPS;
            }
        }
        fetched += WARPS * STEP;
    };

    // Rows g and g + 8 of the weight, and rows 2t and 2t + 1 of x, as in the result of a product.
    float total[4] = {};
    #pragma unroll
    for (int slot = 0; slot < AHEAD; slot++) fetch(slot);
    for (int first = warp * STEP; first < n_columns; first += AHEAD * WARPS * STEP) {
        #pragma unroll
        for (int slot = 0; slot < AHEAD; slot++) {
            int begin = first + slot * WARPS * STEP;
            VectorOf<Stored> now[2] = {next[slot][0], next[slot][1]};
            float scale[2] = {widen(next_scale[slot][0]), widen(next_scale[slot][1])};
            float minimum[2] = {widen(next_minimum[slot][0]), widen(next_minimum[slot][1])};
            fetch(slot);
            if (begin >= n_columns) break;   // the whole warp
            float dot[4] = {}, sum[4] = {};
            int column = begin + t * CHUNK;
            bool is_there = g < n_x && begin < n_mine;
            #pragma unroll
            for (int i = 0; i < CHUNK / 8; i++) {
                Vector value = {};
                if (is_there) value = load(x + (size_t)g * n_columns + column + 8 * i);
                unsigned low[4], high[4];
                Format::pairs(now[0], i, low), Format::pairs(now[1], i, high);
                #pragma unroll
                for (int j = 0; j < 4; j += 2) {
                    unsigned a[4] = {low[j], high[j], low[j + 1], high[j + 1]};
                    mma_m16n8k16(dot, a, value.word[j], value.word[j + 1]);
                    if (Format::HAS_GROUPS && matrix.minimum) {
                        unsigned one = Bits<real>::ONE, ones[4] = {one, one, one, one};
                        mma_m16n8k16(sum, ones, value.word[j], value.word[j + 1]);
                    }
                }
            }
            #pragma unroll
            for (int e = 0; e < 4; e++) {
                float middle = minimum[e / 2] + 8 * scale[e / 2];   // the weight of a centered 0
                total[e] += Format::HAS_GROUPS ? scale[e / 2] * dot[e] + middle * sum[e] : dot[e];
            }
        }
    }

    #pragma unroll
    for (int e = 0; e < 4; e++) sums[warp][g + e / 2 * 8][2 * t + e % 2] = total[e];
    __syncthreads();
    if (threadIdx.x >= ROWS * MOST_X) return;
    int r = threadIdx.x % ROWS, m = threadIdx.x / ROWS, at = first_row + r;
    if (at >= matrix.n_rows || m >= n_x) return;
    float all = 0;
    for (int w = 0; w < WARPS; w++) all += sums[w][r][m];
    if (!Format::HAS_GROUPS) all *= widen(matrix.scale[at]);
    matrix.out[(size_t)m * matrix.n_rows + at] = narrow(all);
}

// Each block has ROWS rows of one of up to three matrices.
template <class Format>
__device__ inline void multiply_one_of(const Matrix<Format>& first, const Matrix<Format>& second,
                                       const Matrix<Format>& third, const real* x, int n_x,
                                       int n_columns) {
    int n_first = (first.n_rows + ROWS - 1) / ROWS, n_second = (second.n_rows + ROWS - 1) / ROWS;
    int block = blockIdx.x, place = block < n_first ? 0 : block < n_first + n_second ? 1 : 2;
    Matrix<Format> mine = place == 0 ? first : place == 1 ? second : third;
    int before = place == 0 ? 0 : place == 1 ? n_first : n_first + n_second;
    multiply<Format>(mine, (block - before) * ROWS, x, n_x, n_columns);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) int8_linear_mma(
    const real* x,
    const signed char* weight, const real* scale,
    real* out, int n_rows,
    const signed char* weight_2_or_null, const real* scale_2_or_null,
    real* out_2_or_null, int n_rows_2,
    const signed char* weight_3_or_null, const real* scale_3_or_null,
    real* out_3_or_null, int n_rows_3,
    int n_x, int n_columns)
{
    multiply_one_of<Int8>(
        {weight, scale, nullptr, out, n_rows},
        {weight_2_or_null, scale_2_or_null, nullptr, out_2_or_null, n_rows_2},
        {weight_3_or_null, scale_3_or_null, nullptr, out_3_or_null, n_rows_3},
        x, n_x, n_columns);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) int4_linear_mma(
    const real* x,
    const int* weight, const real* scale, const real* minimum_or_null,
    real* out, int n_rows,
    const int* weight_2_or_null, const real* scale_2_or_null, const real* minimum_2_or_null,
    real* out_2_or_null, int n_rows_2,
    const int* weight_3_or_null, const real* scale_3_or_null, const real* minimum_3_or_null,
    real* out_3_or_null, int n_rows_3,
    int n_x, int n_columns)
{
    multiply_one_of<Int4>(
        {weight, scale, minimum_or_null, out, n_rows},
        {weight_2_or_null, scale_2_or_null, minimum_2_or_null, out_2_or_null, n_rows_2},
        {weight_3_or_null, scale_3_or_null, minimum_3_or_null, out_3_or_null, n_rows_3},
        x, n_x, n_columns);
}
