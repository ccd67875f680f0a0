// Attention of a few new tokens over a long cache of keys and values, for decoding.
//
// Each number of the cache is read once and multiplied once per query head: memory is the limit.
// Two things waste it. A kernel with one block per head has 8 blocks at batch 1, and most of a GPU
// waits; so the keys of a sequence are split among blocks (split-K), and a second kernel combines
// their results. And the query heads of a group share their keys: they must read them together.
//
// decode.cuh has the rest: lengths that only the device knows, and the parts of a split.
#include "decode.cuh"

constexpr int THREADS = 128;
constexpr int WARPS = THREADS / 32;

// Rung 1. A block per query: all threads multiply one key, add up, and wait for each other at every
// key. Nothing is split, and every head of a group reads the keys again.
extern "C" __global__ void __launch_bounds__(THREADS) decode_attention_1(
    const real* q, const real* keys, const real* values, const int* lengths,
    const int* starts_or_null, real* out,
    int n_queries, int n_keys, int n_heads, int n_kv_heads, int head_dim,
    long long kv_batch, long long kv_token, long long kv_head, int chunk, accum scale)
{
    __shared__ accum per_warp[WARPS];
    DYNAMIC_SHARED(accum, sum);   // [head_dim]
    int head = blockIdx.x % n_heads, token = blockIdx.x / n_heads;
    size_t query = ((size_t)blockIdx.z * n_queries + token) * n_heads + head;
    size_t base = blockIdx.z * kv_batch + head / (n_heads / n_kv_heads) * kv_head;
    Range mine = seen_by(token, sequence_of(lengths, starts_or_null, n_keys), n_queries, chunk);
    for (int c = threadIdx.x; c < head_dim; c += THREADS) sum[c] = 0;
    accum m = NOTHING, l = 0;
    for (int j = mine.begin; j < mine.end; j++) {
        accum dot = 0;
        for (int c = threadIdx.x; c < head_dim; c += THREADS)
            dot += widen(q[query * head_dim + c]) * widen(keys[base + j * kv_token + c]);
        accum score = block_sum(dot, per_warp) * scale, next_m = max(m, score);
        accum shrink = exponential(m - next_m), weight = exponential(score - next_m);
        m = next_m, l = l * shrink + weight;
        for (int c = threadIdx.x; c < head_dim; c += THREADS)
            sum[c] = sum[c] * shrink + weight * widen(values[base + j * kv_token + c]);
    }
    for (int c = threadIdx.x; c < head_dim; c += THREADS)
        out[query * head_dim + c] = narrow(l == 0 ? 0 : quotient(sum[c], l));
}

// Rung 2. Split among blockIdx.y, and among the warps of a block, which do not wait for each other
// until the end. Lanes read neighboring channels, one number at a time; heads of any width.
extern "C" __global__ void __launch_bounds__(THREADS, 8) decode_attention_2(
    const real* q, const real* keys, const real* values, const int* lengths,
    const int* starts_or_null, real* out,
    accum* part_or_null, accum* largest_and_sum_or_null,
    int n_queries, int n_keys, int n_heads, int n_kv_heads, int head_dim, int n_splits, int tile,
    long long kv_batch, long long kv_token, long long kv_head, int chunk, accum scale)
{
    __shared__ accum largest[WARPS], sums_of_weights[WARPS];
    DYNAMIC_SHARED(accum, sums);   // [WARPS][head_dim]
    int head = blockIdx.x % n_heads, token = blockIdx.x / n_heads;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    size_t query = ((size_t)blockIdx.z * n_queries + token) * n_heads + head;
    size_t base = blockIdx.z * kv_batch + head / (n_heads / n_kv_heads) * kv_head;
    Range all = seen_by(token, sequence_of(lengths, starts_or_null, n_keys), n_queries, chunk);
    Range mine = part_of(all, n_splits, tile);
    Result result = {out, part_or_null, largest_and_sum_or_null, n_splits, head_dim};
    if (mine.begin == mine.end && n_splits > 1) {   // the whole block
        if (threadIdx.x == 0) result.write_nothing(query);
        return;
    }
    accum* sum = sums + warp * head_dim;
    for (int c = lane; c < head_dim; c += 32) sum[c] = 0;
    accum m = NOTHING, l = 0;
    for (int j = mine.begin + warp; j < mine.end; j += WARPS) {
        accum dot = 0;
        for (int c = lane; c < head_dim; c += 32)
            dot += widen(q[query * head_dim + c]) * widen(keys[base + j * kv_token + c]);
        accum score = warp_sum(dot) * scale, next_m = max(m, score);
        accum shrink = exponential(m - next_m), weight = exponential(score - next_m);
        m = next_m, l = l * shrink + weight;
        for (int c = lane; c < head_dim; c += 32)
            sum[c] = sum[c] * shrink + weight * widen(values[base + j * kv_token + c]);
    }
    if (lane == 0) largest[warp] = m, sums_of_weights[warp] = l;
    __syncthreads();
    m = NOTHING, l = 0;
    for (int w = 0; w < WARPS; w++) m = max(m, largest[w]);
    for (int w = 0; w < WARPS; w++) l += sums_of_weights[w] * exponential(largest[w] - m);
    for (int c = threadIdx.x; c < head_dim; c += THREADS) {
        accum total = 0;
        for (int w = 0; w < WARPS; w++)
            total += sums[w * head_dim + c] * exponential(largest[w] - m);
        result.write(query, c, total, m, l);
    }
}

// ==== rung 3 =====================================================================================
//
// - 16 bytes per load: a few lanes hold a key, a warp several keys at once. A lane asks for KEYS
//   keys and their values before it uses the first: 8 loads are on their way.
// - The queries that share a key/value head, of a whole group and all new tokens, are ROWS rows of
//   a block: each key is read for all of them.
// - Scores are in base 2, whose power is one instruction.
//
// Lane i of a key's LANES holds vectors i, i + LANES, ... of it. WIDTH is the width of a head.
constexpr int KEYS = 4;
__device__ inline float power_of_two(float x) { return exp2f(x); }
__device__ inline double power_of_two(double x) { return exp2(x); }

template <int WIDTH, int ROWS>
__device__ inline void attend(
    const real* q, const real* keys, const real* values, const Result& result, Range sequence,
    int n_queries, int n_heads, int n_kv_heads, int tile, long long kv_batch, long long kv_token,
    long long kv_head, int chunk, accum scale)
{
    constexpr int LANES = WIDTH / VECTOR < 32 ? WIDTH / VECTOR : 32;
    constexpr int VECTORS = WIDTH / VECTOR / LANES;
    constexpr int TEAMS = 32 / LANES;   // keys that a warp holds at once
    __shared__ accum sums[WARPS][ROWS][WIDTH], largest[WARPS][ROWS], sums_of_weights[WARPS][ROWS];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, column = lane % LANES;
    int group = n_heads / n_kv_heads, kv = blockIdx.x % n_kv_heads;
    // Row i is query i / group and head i % group of this key/value head.
    int first_row = blockIdx.x / n_kv_heads * ROWS;
    int n_rows = min(ROWS, n_queries * group - first_row);   // of this block

    // For all rows: from the first token's first key to the last token's last one. Each row's own
    // limits are checked key by key.
    Range all = {seen_by(0, sequence, n_queries, chunk).begin, sequence.end};
    Range mine = part_of(all, result.n_splits, tile);
    auto query_of = [&](int row) {
        return ((size_t)blockIdx.z * n_queries + row / group) * n_heads + kv * group + row % group;
    };
    if (mine.begin == mine.end && result.n_splits > 1) {   // the whole block
        if (threadIdx.x < n_rows) result.write_nothing(query_of(first_row + threadIdx.x));
        return;
    }
    Range sees[ROWS];
    Vector query[ROWS][VECTORS];
    #pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int row = first_row + min(r, n_rows - 1);
        sees[r] = seen_by(row / group, sequence, n_queries, chunk);
        const real* at = q + query_of(row) * WIDTH;
        #pragma unroll
        for (int v = 0; v < VECTORS; v++) query[r][v] = load(at + (v * LANES + column) * VECTOR);
    }

    accum m[ROWS], l[ROWS] = {}, sum[ROWS][VECTORS * VECTOR] = {};
    #pragma unroll
    for (int r = 0; r < ROWS; r++) m[r] = NOTHING;
    size_t base = blockIdx.z * kv_batch + kv * kv_head + column * VECTOR;
    constexpr int STEP = WARPS * TEAMS * KEYS;
    for (int begin = mine.begin + warp * TEAMS + lane / LANES; begin - lane / LANES < mine.end;
         begin += STEP) {
        Vector k[KEYS][VECTORS] = {}, v[KEYS][VECTORS] = {};
        #pragma unroll
        for (int i = 0; i < KEYS; i++) {
            int j = begin + i * WARPS * TEAMS;
            #pragma unroll
            for (int part = 0; part < VECTORS; part++) if (j < mine.end) {
                size_t at = base + j * kv_token + part * LANES * VECTOR;
                k[i][part] = load_once(keys + at), v[i][part] = load_once(values + at);
            }
        }
        accum score[ROWS][KEYS] = {};
        #pragma unroll
        for (int part = 0; part < VECTORS; part++)
            #pragma unroll
            for (int i = 0; i < KEYS; i++) {
                accum key[VECTOR];
                widen(k[i][part], key);
                #pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    accum wide[VECTOR];
                    widen(query[r][part], wide);
                    #pragma unroll
                    for (int e = 0; e < VECTOR; e++) score[r][i] += wide[e] * key[e];
                }
            }
        #pragma unroll
        for (int r = 0; r < ROWS; r++) {
            accum next_m = m[r];
            #pragma unroll
            for (int i = 0; i < KEYS; i++) {
                #pragma unroll
                for (int distance = LANES / 2; distance; distance /= 2)
                    score[r][i] += __shfl_xor_sync(ALL_LANES, score[r][i], distance);
                int j = begin + i * WARPS * TEAMS;
                bool is_seen = j >= sees[r].begin && j < min(sees[r].end, mine.end);
                score[r][i] = is_seen ? score[r][i] * scale * LOG2_E : 2 * NOTHING;
                next_m = max(next_m, score[r][i]);
            }
            accum shrink = power_of_two(m[r] - next_m);
            m[r] = next_m, l[r] *= shrink;
            #pragma unroll
            for (int i = 0; i < KEYS; i++)
                score[r][i] = power_of_two(score[r][i] - next_m), l[r] += score[r][i];
            #pragma unroll
            for (int e = 0; e < VECTORS * VECTOR; e++) sum[r][e] *= shrink;
        }
        #pragma unroll
        for (int part = 0; part < VECTORS; part++)
            #pragma unroll
            for (int i = 0; i < KEYS; i++) {
                accum value[VECTOR];
                widen(v[i][part], value);
                #pragma unroll
                for (int r = 0; r < ROWS; r++)
                    #pragma unroll
                    for (int e = 0; e < VECTOR; e++)
                        sum[r][part * VECTOR + e] += score[r][i] * value[e];
            }
    }

    // The teams of a warp by shuffles, the warps through shared memory.
    #pragma unroll
    for (int r = 0; r < ROWS; r++) {
        #pragma unroll
        for (int distance = LANES; distance < 32; distance *= 2) {
            accum other = __shfl_xor_sync(ALL_LANES, m[r], distance), both = max(m[r], other);
            accum shrink = power_of_two(m[r] - both);
            m[r] = both, l[r] *= shrink;
            l[r] += __shfl_xor_sync(ALL_LANES, l[r], distance);
            #pragma unroll
            for (int e = 0; e < VECTORS * VECTOR; e++) {
                sum[r][e] *= shrink;
                sum[r][e] += __shfl_xor_sync(ALL_LANES, sum[r][e], distance);
            }
        }
        if (lane < LANES) {
            #pragma unroll
            for (int e = 0; e < VECTORS * VECTOR; e++)
                sums[warp][r][(e / VECTOR * LANES + column) * VECTOR + e % VECTOR] = sum[r][e];
            if (lane == 0) largest[warp][r] = m[r], sums_of_weights[warp][r] = l[r];
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n_rows * WIDTH; i += THREADS) {
        int r = i / WIDTH, channel = i % WIDTH;
        accum most = NOTHING, weights = 0, total = 0;
        for (int w = 0; w < WARPS; w++) most = max(most, largest[w][r]);
        for (int w = 0; w < WARPS; w++) {
            accum shrink = power_of_two(largest[w][r] - most);
            weights += sums_of_weights[w][r] * shrink, total += sums[w][r][channel] * shrink;
        }
        result.write(query_of(first_row + r), channel, total, most / LOG2_E, weights);
    }
}

// One entry point for each width and number of rows that registers are made for.
extern "C" __global__ void __launch_bounds__(THREADS) decode_attention_64_by1(
    const real* q, const real* keys, const real* values, const int* lengths,
    const int* starts_or_null, real* out,
    accum* part_or_null, accum* largest_and_sum_or_null,
    int n_queries, int n_keys, int n_heads, int n_kv_heads, int head_dim, int n_splits, int tile,
    long long kv_batch, long long kv_token, long long kv_head, int chunk, accum scale)
{
    Result result = {out, part_or_null, largest_and_sum_or_null, n_splits, head_dim};
    Range sequence = sequence_of(lengths, starts_or_null, n_keys);
    attend<64, 1>(q, keys, values, result, sequence, n_queries, n_heads, n_kv_heads, tile,
                  kv_batch, kv_token, kv_head, chunk, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS) decode_attention_64_by4(
    const real* q, const real* keys, const real* values, const int* lengths,
    const int* starts_or_null, real* out,
    accum* part_or_null, accum* largest_and_sum_or_null,
    int n_queries, int n_keys, int n_heads, int n_kv_heads, int head_dim, int n_splits, int tile,
    long long kv_batch, long long kv_token, long long kv_head, int chunk, accum scale)
{
    Result result = {out, part_or_null, largest_and_sum_or_null, n_splits, head_dim};
    Range sequence = sequence_of(lengths, starts_or_null, n_keys);
    attend<64, 4>(q, keys, values, result, sequence, n_queries, n_heads, n_kv_heads, tile,
                  kv_batch, kv_token, kv_head, chunk, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS) decode_attention_64_by8(
    const real* q, const real* keys, const real* values, const int* lengths,
    const int* starts_or_null, real* out,
    accum* part_or_null, accum* largest_and_sum_or_null,
    int n_queries, int n_keys, int n_heads, int n_kv_heads, int head_dim, int n_splits, int tile,
    long long kv_batch, long long kv_token, long long kv_head, int chunk, accum scale)
{
    Result result = {out, part_or_null, largest_and_sum_or_null, n_splits, head_dim};
    Range sequence = sequence_of(lengths, starts_or_null, n_keys);
    attend<64, 8>(q, keys, values, result, sequence, n_queries, n_heads, n_kv_heads, tile,
                  kv_batch, kv_token, kv_head, chunk, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS) decode_attention_128_by1(
    const real* q, const real* keys, const real* values, const int* lengths,
    const int* starts_or_null, real* out,
    accum* part_or_null, accum* largest_and_sum_or_null,
    int n_queries, int n_keys, int n_heads, int n_kv_heads, int head_dim, int n_splits, int tile,
    long long kv_batch, long long kv_token, long long kv_head, int chunk, accum scale)
{
    Result result = {out, part_or_null, largest_and_sum_or_null, n_splits, head_dim};
    Range sequence = sequence_of(lengths, starts_or_null, n_keys);
    attend<128, 1>(q, keys, values, result, sequence, n_queries, n_heads, n_kv_heads, tile,
                  kv_batch, kv_token, kv_head, chunk, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS) decode_attention_128_by4(
    const real* q, const real* keys, const real* values, const int* lengths,
    const int* starts_or_null, real* out,
    accum* part_or_null, accum* largest_and_sum_or_null,
    int n_queries, int n_keys, int n_heads, int n_kv_heads, int head_dim, int n_splits, int tile,
    long long kv_batch, long long kv_token, long long kv_head, int chunk, accum scale)
{
    Result result = {out, part_or_null, largest_and_sum_or_null, n_splits, head_dim};
    Range sequence = sequence_of(lengths, starts_or_null, n_keys);
    attend<128, 4>(q, keys, values, result, sequence, n_queries, n_heads, n_kv_heads, tile,
                  kv_batch, kv_token, kv_head, chunk, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS) decode_attention_128_by8(
    const real* q, const real* keys, const real* values, const int* lengths,
    const int* starts_or_null, real* out,
    accum* part_or_null, accum* largest_and_sum_or_null,
    int n_queries, int n_keys, int n_heads, int n_kv_heads, int head_dim, int n_splits, int tile,
    long long kv_batch, long long kv_token, long long kv_head, int chunk, accum scale)
{
    Result result = {out, part_or_null, largest_and_sum_or_null, n_splits, head_dim};
    Range sequence = sequence_of(lengths, starts_or_null, n_keys);
    attend<128, 8>(q, keys, values, result, sequence, n_queries, n_heads, n_kv_heads, tile,
                  kv_batch, kv_token, kv_head, chunk, scale);
}

// The splits of each query, put together: one block per query. A split without keys has sums of 0,
// and its part was not written.
extern "C" __global__ void __launch_bounds__(THREADS) decode_combine(
    const accum* part, const accum* largest_and_sum, real* out, int n_splits, int head_dim)
{
    size_t query = blockIdx.x, first = query * n_splits;
    accum m = NOTHING, l = 0;
    for (int s = 0; s < n_splits; s++) m = max(m, largest_and_sum[2 * (first + s)]);
    for (int s = 0; s < n_splits; s++)
        l += largest_and_sum[2 * (first + s) + 1]
           * exponential(largest_and_sum[2 * (first + s)] - m);
    for (int c = threadIdx.x; c < head_dim; c += THREADS) {
        accum sum = 0;
        for (int s = 0; s < n_splits; s++) if (largest_and_sum[2 * (first + s) + 1] != 0)
            sum += part[(first + s) * head_dim + c]
                 * exponential(largest_and_sum[2 * (first + s)] - m);
        out[query * head_dim + c] = narrow(l == 0 ? 0 : quotient(sum, l));
    }
}
