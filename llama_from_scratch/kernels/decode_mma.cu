// The last rung of decode.cu: decoding attention on tensor cores.
//
// With 8 query heads per key/value head, each number of the cache is multiplied 8 times, and with
// several new tokens more often: ordinary arithmetic then takes longer than memory. Tensor cores
// multiply 16 rows in the time of one. The rows are the queries that share a key/value head, filled
// up with zeros to 16.
//
// Nothing waits in registers for memory here: `cp.async` writes to shared memory while the warp
// goes on, STAGES - 1 tiles ahead. Each warp has keys and stages of its own, so that no barrier
// holds a warp until the slowest one has its keys; the warps meet once, at the end.
//
// real: bf16 fp16
// architectures: sm_80 and newer
#include "decode.cuh"
#include "tensor_cores.cuh"

constexpr int THREADS = 128;
constexpr int WARPS = THREADS / 32;
constexpr int ROWS = 16;   // of the product, and keys of a warp's tile

// One tile of a warp, 16 keys or values of a stage, has its 16-byte chunks swizzled as in
// tensor_cores.cuh.
template <int WIDTH>
__device__ inline void attend(
    const real* q, const real* keys, const real* values, const Result& result, Range sequence,
    int n_queries, int n_heads, int n_kv_heads, int tile, long long kv_batch, long long kv_token,
    long long kv_head, int chunk, float scale)
{
    constexpr int CHUNKS = WIDTH / 8, STAGES = WIDTH == 64 ? 4 : 3, STAGE = 2 * ROWS * WIDTH;
    DYNAMIC_SHARED(real, shared);   // [WARPS][STAGES][keys, values][ROWS][WIDTH]
    __shared__ float largest[WARPS][ROWS], sums_of_weights[WARPS][ROWS];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    int group = n_heads / n_kv_heads, kv = blockIdx.x % n_kv_heads;
    int first_row = blockIdx.x / n_kv_heads * ROWS;
    int n_rows = min(ROWS, n_queries * group - first_row);
    auto query_of = [&](int row) {
        row += first_row;
        return ((size_t)blockIdx.z * n_queries + row / group) * n_heads + kv * group + row % group;
    };
    Range all = {seen_by(0, sequence, n_queries, chunk).begin, sequence.end};
    Range mine = part_of(all, result.n_splits, tile);
    if (mine.begin == mine.end && result.n_splits > 1) {   // the whole block
        if (threadIdx.x < n_rows) result.write_nothing(query_of(threadIdx.x));
        return;
    }

    // This lane's parts of rows g and g + 8, as fragments; and what these rows see.
    unsigned query[WIDTH / 16][4];
    Range sees[2];
    #pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = g + 8 * half;
        sees[half] = seen_by((first_row + row) / group, sequence, n_queries, chunk);
        sees[half].end = min(sees[half].end, mine.end);
        const unsigned* at = (const unsigned*)(q + query_of(min(row, n_rows - 1)) * WIDTH) + t;
        #pragma unroll
        for (int i = 0; i < WIDTH / 16; i++) {
            query[i][half] = row < n_rows ? at[8 * i] : 0;
            query[i][half + 2] = row < n_rows ? at[8 * i + 4] : 0;
        }
    }

    // Tile i of this warp are 16 keys from `first` + i * WARPS * 16 on.
    real* own = shared + warp * STAGES * STAGE;
    int first = mine.begin + warp * ROWS;
    size_t base = blockIdx.z * kv_batch + kv * kv_head;
    auto fetch = [&](int i) {
        real* stage = own + i % STAGES * STAGE;
        #pragma unroll
        for (int part = 0; part < ROWS * CHUNKS / 32; part++) {
            int row = (part * 32 + lane) / CHUNKS, column = (part * 32 + lane) % CHUNKS;
            int j = first + i * WARPS * ROWS + row, to = swizzled<WIDTH>(row, column);
            size_t from = base + j * kv_token + column * 8;
            cp_async16(stage + to, keys + from, j < mine.end);
            cp_async16(stage + ROWS * WIDTH + to, values + from, j < mine.end);
        }
    };

    float m[2] = {NOTHING, NOTHING}, l[2] = {}, sum[WIDTH / 8][4] = {};
    int n_tiles = (mine.end - first + WARPS * ROWS - 1) / (WARPS * ROWS);   // 0 or less: none
    #pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
        if (i < n_tiles) fetch(i);
        cp_async_commit();   // also an empty group, so that the count below is right
    }
    for (int i = 0; i < n_tiles; i++) {
        cp_async_wait<STAGES - 2>();
        __syncwarp();   // every lane's part of tile i is there, and tile i - 1 is no longer read
        if (i + STAGES - 1 < n_tiles) fetch(i + STAGES - 1);
        cp_async_commit();
        const real* key = own + i % STAGES * STAGE;
        const real* value = key + ROWS * WIDTH;

        // Scores: 16 rows by 16 keys, as two products of 8 keys.
        float score[2][4] = {};
        #pragma unroll
        for (int c = 0; c < CHUNKS; c += 2) {
            unsigned k[4];
            ldmatrix_x4(k, key + swizzled<WIDTH>(lane / 16 * 8 + lane % 8, c + lane / 8 % 2));
            mma_m16n8k16(score[0], query[c / 2], k[0], k[1]);
            mma_m16n8k16(score[1], query[c / 2], k[2], k[3]);
        }
        int j = first + i * WARPS * ROWS + 2 * t;
        #pragma unroll
        for (int half = 0; half < 2; half++) {
            float next_m = m[half];
            #pragma unroll
            for (int n = 0; n < 4; n++) {   // keys j, j + 1, j + 8, j + 9
                float& s = score[n / 2][2 * half + n % 2];
                int at = j + n / 2 * 8 + n % 2;
                bool is_seen = at >= sees[half].begin && at < sees[half].end;
                s = is_seen ? s * scale * LOG2_E : 2 * NOTHING;
                next_m = max(next_m, s);
            }
            next_m = max(next_m, __shfl_xor_sync(ALL_LANES, next_m, 1));
            next_m = max(next_m, __shfl_xor_sync(ALL_LANES, next_m, 2));
            float shrink = exp2_approx(m[half] - next_m);
            m[half] = next_m, l[half] *= shrink;
            #pragma unroll
            for (int n = 0; n < 4; n++) {
                float& s = score[n / 2][2 * half + n % 2];
                s = exp2_approx(s - next_m), l[half] += s;
            }
            #pragma unroll
            for (int c = 0; c < CHUNKS; c++)
                sum[c][2 * half] *= shrink, sum[c][2 * half + 1] *= shrink;
        }
        // A result of one product has the places that the next one wants its left factor in.
        unsigned weight[4] = {pack(score[0][0], score[0][1]), pack(score[0][2], score[0][3]),
                              pack(score[1][0], score[1][1]), pack(score[1][2], score[1][3])};
        #pragma unroll
        for (int c = 0; c < CHUNKS; c += 2) {
            unsigned v[4];
            ldmatrix_x4_trans(v, value + swizzled<WIDTH>(lane % 16, c + lane / 16));
            mma_m16n8k16(sum[c], weight, v[0], v[1]);
            mma_m16n8k16(sum[c + 1], weight, v[2], v[3]);
        }
    }

    // Each warp's sums go to its own stages, and all threads add them up.
    cp_async_wait<0>();
    __syncwarp();
    float* mine_of_all = (float*)own;
    #pragma unroll
    for (int half = 0; half < 2; half++) {
        l[half] += __shfl_xor_sync(ALL_LANES, l[half], 1);
        l[half] += __shfl_xor_sync(ALL_LANES, l[half], 2);
        int row = g + 8 * half;
        if (t == 0) largest[warp][row] = m[half], sums_of_weights[warp][row] = l[half];
        #pragma unroll
        for (int c = 0; c < CHUNKS; c++)
            for (int n = 0; n < 2; n++)
                mine_of_all[row * WIDTH + c * 8 + 2 * t + n] = sum[c][2 * half + n];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n_rows * WIDTH; i += THREADS) {
        int row = i / WIDTH;
        float most = NOTHING, weights = 0, total = 0;
        for (int w = 0; w < WARPS; w++) most = max(most, largest[w][row]);
        for (int w = 0; w < WARPS; w++) {
            float shrink = exp2_approx(largest[w][row] - most);
            weights += sums_of_weights[w][row] * shrink;
            total += ((float*)(shared + w * STAGES * STAGE))[i] * shrink;
        }
        result.write(query_of(row), i % WIDTH, total, most / LOG2_E, weights);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) decode_attention_mma_64(
    const real* q, const real* keys, const real* values, const int* lengths,
    const int* starts_or_null, real* out,
    accum* part_or_null, accum* largest_and_sum_or_null,
    int n_queries, int n_keys, int n_heads, int n_kv_heads, int head_dim, int n_splits, int tile,
    long long kv_batch, long long kv_token, long long kv_head, int chunk, accum scale)
{
    Result result = {out, part_or_null, largest_and_sum_or_null, n_splits, head_dim};
    Range sequence = sequence_of(lengths, starts_or_null, n_keys);
    attend<64>(q, keys, values, result, sequence, n_queries, n_heads, n_kv_heads, tile, kv_batch,
               kv_token, kv_head, chunk, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS) decode_attention_mma_128(
    const real* q, const real* keys, const real* values, const int* lengths,
    const int* starts_or_null, real* out,
    accum* part_or_null, accum* largest_and_sum_or_null,
    int n_queries, int n_keys, int n_heads, int n_kv_heads, int head_dim, int n_splits, int tile,
    long long kv_batch, long long kv_token, long long kv_head, int chunk, accum scale)
{
    Result result = {out, part_or_null, largest_and_sum_or_null, n_splits, head_dim};
    Range sequence = sequence_of(lengths, starts_or_null, n_keys);
    attend<128>(q, keys, values, result, sequence, n_queries, n_heads, n_kv_heads, tile, kv_batch,
               kv_token, kv_head, chunk, scale);
}
