// Attention: out = softmax(q k^T * scale) v for every query, over the keys that it may see.
//
// The scores of one head are T x S numbers: at 8,192 tokens and 32 heads, 4 GB of bf16 that plain
// code writes and reads several times. The ladder never stores them. A softmax can be summed in
// passing: keep the largest score so far, the sum of exp(score - largest) and the sum of
// exp(score - largest) * v. When a larger score comes, both sums shrink by exp(old - new), and
// nothing else changes. At the end, the second sum divided by the first is the answer.
//
// Layout: q is (B, T, H, K), k and v are (B, S, G, K), with strides in elements, because a KV cache
// is a view of longer memory. Query head h reads key/value head h / (H / G). The queries are the
// last T of the S tokens: query i is token i + S - T. It sees key j if
//     j <= i + S - T, unless everything is visible (is_causal = 0),
//     both have the same number in `groups`, if given: the same document and chunk,
//     mask[i][j] is not 0, if given.
// `group_batch` is the distance between two sequences' groups (or masks), 0 if they share them.
// A query that sees nothing gets 0. `lse`, (B, H, T), is the logarithm of the sum of exp(score),
// from which backward computes every probability again; -infinity for a query that sees nothing.
constexpr int THREADS = 128;
#include "attention.cuh"

constexpr int NAIVE = 32;   // threads of a block of rung 1

// ==== forward ====================================================================================
// Rung 1. One thread per query and head, key after key, as in the proof. Each of the block's
// queries reads all keys and values from memory again, two bytes at a time, and the growing sum of
// values goes through shared memory for every key.
extern "C" __global__ void __launch_bounds__(NAIVE) attention_forward_1(
    const real* q, const real* k, const real* v, real* out, accum* lse,
    const long long* groups_or_null, const int* first_or_null, const unsigned char* mask_or_null,
    int n_queries, int n_keys, int n_heads, int n_kv_heads, int head_dim,
    long long q_batch, long long q_token, long long q_head,
    long long kv_batch, long long kv_token, long long kv_head, long long group_batch,
    int is_causal, accum scale)
{
    DYNAMIC_SHARED(accum, sums);   // (head_dim, NAIVE)
    int query = blockIdx.x * NAIVE + threadIdx.x, head = blockIdx.y;
    size_t batch = blockIdx.z;
    if (query >= n_queries) return;
    Rule rule(groups_or_null, mask_or_null, batch * group_batch, n_queries, n_keys, is_causal);
    q += batch * q_batch + query * q_token + head * q_head;
    size_t kv = batch * kv_batch + head / (n_heads / n_kv_heads) * kv_head;
    accum* sum = sums + threadIdx.x;
    for (int c = 0; c < head_dim; c++) sum[c * NAIVE] = 0;

    accum largest = -INFINITY, total = 0;
    int start = first_or_null ? first_or_null[batch * group_batch + rule.token(query)] : 0;
    for (int key = start; key < n_keys; key++) {
        if (!rule.sees(query, key)) continue;
        size_t row = kv + key * kv_token;
        accum score = 0;
        for (int c = 0; c < head_dim; c++) score += widen(q[c]) * widen(k[row + c]);
        score *= scale;
        accum next = max(largest, score);
        accum shrink = exponential(largest - next), weight = exponential(score - next);
        for (int c = 0; c < head_dim; c++)
            sum[c * NAIVE] = sum[c * NAIVE] * shrink + weight * widen(v[row + c]);
        total = total * shrink + weight;
        largest = next;
    }
    out += ((batch * n_queries + query) * n_heads + head) * head_dim;
    for (int c = 0; c < head_dim; c++) out[c] = narrow(total != 0 ? sum[c * NAIVE] / total : 0);
    lse[(batch * n_heads + head) * n_queries + query] = largest + log(total);
}

// Rung 2. Tiles, as described in attention.cuh. A block takes a tile of queries, and the keys and
// values pass through shared memory tile by tile, so that each number fetched serves all of the
// block's queries. The LANES threads that share a query find its largest score by shuffles. Its
// weights go through shared memory only from these lanes to these lanes.
//
// q, k, v, out, lse, first: of one head of one sequence. A power of 2 is one instruction, so exp(x)
// is 2^(x * log2(e)). The factor could join the scale, but then the largest score, converted back
// for lse, would not be the number that backward finds again, and its probability not 1.
template <int WIDTH, int I, int J>
__device__ inline void forward(
    const real* q, long long q_token, const real* k, const real* v, long long kv_token, real* out,
    long long out_token, accum* lse, const int* first, const Rule& rule, int head_dim, accum scale)
{
    constexpr int QUERIES = STRIPES * I, KEYS = LANES * J;
    DYNAMIC_SHARED(accum, queries);                  // (QUERIES, WIDTH)
    accum* tile = queries + QUERIES * STRIDE<WIDTH>; // (KEYS, WIDTH): keys, then values
    accum* weights = tile + KEYS * STRIDE<WIDTH>;    // (QUERIES, KEYS)
    // The last queries see the most keys, so they begin first.
    int from = (gridDim.x - 1 - blockIdx.x) * QUERIES;
    Span seen = rule.keys_of(from, from + QUERIES, first);

    load_tile<WIDTH, QUERIES>(queries, q, q_token, from, rule.n_queries, head_dim);
    accum sum[I][VECTORS<WIDTH>][WIDE] = {}, total[I] = {}, largest[I];
    #pragma unroll
    for (int i = 0; i < I; i++) largest[i] = -INFINITY;
    for (int key = seen.begin; key < seen.end; key += KEYS) {
        accum score[I][J];
        __syncthreads();   // the values of the tile before have been used
        load_tile<WIDTH, KEYS>(tile, k, kv_token, key, rule.n_keys, head_dim);
        __syncthreads();
        multiply<WIDTH>(queries, tile, head_dim, score);
        unsigned pairs = seen_pairs<false, I, J>(rule, from, key);
        #pragma unroll
        for (int i = 0; i < I; i++) {
            accum most = -INFINITY;
            #pragma unroll
            for (int j = 0; j < J; j++) {
                score[i][j] *= scale;
                if (!(pairs >> (i * J + j) & 1)) score[i][j] = -INFINITY;
                most = max(most, score[i][j]);
            }
            accum next = max(largest[i], row_max(most));
            // With nothing seen yet, -infinity - -infinity would be NaN.
            accum shift = next == -INFINITY ? 0 : next;
            accum shrink = exp2((largest[i] - shift) * LOG2_E);
            largest[i] = next;
            total[i] *= shrink;   // of this thread's own keys
            #pragma unroll
            for (int j = 0; j < J; j++) {
                score[i][j] = exp2((score[i][j] - shift) * LOG2_E);
                total[i] += score[i][j];
            }
            #pragma unroll
            for (int n = 0; n < VECTORS<WIDTH>; n++)
                for (int c = 0; c < WIDE; c++) sum[i][n][c] *= shrink;
        }
        put_weights(weights, score);
        __syncthreads();   // the keys have been used, and the weights are there
        load_tile<WIDTH, KEYS>(tile, v, kv_token, key, rule.n_keys, head_dim);
        __syncthreads();
        add_weighted<WIDTH, I, J>(weights, tile, head_dim, sum);
    }
    #pragma unroll
    for (int i = 0; i < I; i++) {
        int query = from + row_of(i);
        accum all = row_total(total[i]);
        if (query >= rule.n_queries) continue;
        write_row<WIDTH>(out + query * out_token, sum, i, all != 0 ? 1 / all : 0, head_dim);
        if (lane() == 0) lse[query] = largest[i] + log2(all) * LN_2;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 3) attention_forward(
    const real* q, const real* k, const real* v, real* out, accum* lse,
    const long long* groups_or_null, const int* first_or_null, const unsigned char* mask_or_null,
    int n_queries, int n_keys, int n_heads, int n_kv_heads, int head_dim,
    long long q_batch, long long q_token, long long q_head,
    long long kv_batch, long long kv_token, long long kv_head, long long group_batch,
    int is_causal, accum scale)
{
    int head = blockIdx.y;
    size_t batch = blockIdx.z, kv = batch * kv_batch + head / (n_heads / n_kv_heads) * kv_head;
    Rule rule(groups_or_null, mask_or_null, batch * group_batch, n_queries, n_keys, is_causal);
    const int* first = first_or_null ? first_or_null + batch * group_batch : nullptr;
    long long out_token = (long long)n_heads * head_dim;
    q += batch * q_batch + head * q_head, k += kv, v += kv;
    out += batch * n_queries * out_token + (size_t)head * head_dim;
    lse += (batch * n_heads + head) * n_queries;
    if (head_dim <= 64)
        forward<64, 4, 4>(q, q_token, k, v, kv_token, out, out_token, lse, first, rule, head_dim,
                          scale);
    else if (head_dim <= 128)
        forward<128, 4, 4>(q, q_token, k, v, kv_token, out, out_token, lse, first, rule, head_dim,
                           scale);
    else
        forward<256, 2, 2>(q, q_token, k, v, kv_token, out, out_token, lse, first, rule, head_dim,
                           scale);
}
