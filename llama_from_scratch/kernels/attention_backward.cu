// Backward of attention, from the probabilities, which it computes again: no score is ever stored.
//
// With p = exp(score - lse), and the gradient d_out that arrives at out:
//     d_v[j]     = sum over queries i of p[i][j] * d_out[i]
//     d_p[i][j]  = d_out[i] . v[j]
//     d_s[i][j]  = p[i][j] * (d_p[i][j] - delta[i])     delta[i] = out[i] . d_out[i] - d_lse[i]
//     d_q[i]     = scale * sum over keys j of d_s[i][j] * k[j]
//     d_k[j]     = scale * sum over queries i of d_s[i][j] * q[i]
// delta is the derivative of the softmax's sum: sum over j of p[i][j] * d_p[i][j], which is
// out[i] . d_out[i] because out[i] is the sum of p[i][j] * v[j]. A gradient that arrives at lse
// adds p[i][j] * d_lse[i] to d_s.
//
// d_k and d_v are sums over queries, d_q over keys. One kernel for all three would have to add one
// of them atomically, in an order that differs from run to run. Two kernels compute the scores and
// d_p twice instead, 7 products of tiles in place of 5, and every bit is the same each time.
// The layout and the meaning of the arguments are attention.cu's. out, d_out and all gradients are
// without gaps.
constexpr int THREADS = 128;
#include "attention.cuh"

// A warp per query and head. Its first argument's rows are (B, T, H), delta's (B, H, T).
extern "C" __global__ void __launch_bounds__(THREADS) attention_delta(
    const real* out, const real* d_out, const accum* d_lse_or_null, accum* delta, long long n_rows,
    int n_queries, int n_heads, int head_dim)
{
    size_t row = (size_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    if (row >= (size_t)n_rows) return;   // the whole warp
    accum sum = 0;
    for (int c = threadIdx.x % 32; c < head_dim; c += 32)
        sum += widen(out[row * head_dim + c]) * widen(d_out[row * head_dim + c]);
    sum = warp_sum(sum);
    size_t head = row % n_heads, token = row / n_heads;
    size_t to = (token / n_queries * n_heads + head) * n_queries + token % n_queries;
    if (threadIdx.x % 32 == 0) delta[to] = sum - (d_lse_or_null ? d_lse_or_null[to] : 0);
}

// Turns a product q . k into p, and a product d_out . v into d_s; 0 where the query does not see.
__device__ inline void to_gradients(accum& score, accum& d_p, bool sees, accum scale, accum lse,
                                    accum delta) {
    score = sees ? exp2((score * scale - lse) * LOG2_E) : 0;
    d_p = sees ? score * (d_p - delta) : 0;
}

// d_k and d_v of a tile of keys of one key/value head. The block visits every query tile that sees
// it, of every query head of the group, so that these are added up here.
template <int WIDTH, int I, int J>
__device__ inline void keys_backward(
    const real* q, long long q_token, long long q_head, const real* k, const real* v,
    long long kv_token, const real* d_out, const accum* lse, const accum* delta, real* d_k,
    real* d_v, const int* last, const Rule& rule, int n_group, size_t out_token, size_t d_token,
    int head_dim, accum scale)
{
    constexpr int KEYS = STRIPES * I, QUERIES = LANES * J;
    DYNAMIC_SHARED(accum, keys);                        // (KEYS, WIDTH)
    accum* values = keys + KEYS * STRIDE<WIDTH>;        // (KEYS, WIDTH)
    accum* queries = values + KEYS * STRIDE<WIDTH>;     // (QUERIES, WIDTH)
    accum* gradients = queries + QUERIES * STRIDE<WIDTH>;
    accum* weights = gradients + QUERIES * STRIDE<WIDTH>;   // (KEYS, QUERIES)
    int n_queries = rule.n_queries, from = blockIdx.x * KEYS;
    Span seeing = rule.queries_of(from, from + KEYS, last);

    load_tile<WIDTH, KEYS>(keys, k, kv_token, from, rule.n_keys, head_dim);
    load_tile<WIDTH, KEYS>(values, v, kv_token, from, rule.n_keys, head_dim);
    accum k_sum[I][VECTORS<WIDTH>][WIDE] = {}, v_sum[I][VECTORS<WIDTH>][WIDE] = {};
    for (int head = 0; head < n_group; head++)
        for (int query = seeing.begin; query < seeing.end; query += QUERIES) {
            accum p[I][J], d_s[I][J];
            const accum* lse_row = lse + (size_t)head * n_queries;
            const accum* delta_row = delta + (size_t)head * n_queries;
            __syncthreads();   // the tiles before have been used
            load_tile<WIDTH, QUERIES>(queries, q + head * q_head, q_token, query, n_queries,
                                      head_dim);
            load_tile<WIDTH, QUERIES>(gradients, d_out + (size_t)head * head_dim, out_token, query,
                                      n_queries, head_dim);
            __syncthreads();
            multiply<WIDTH>(keys, queries, head_dim, p);
            multiply<WIDTH>(values, gradients, head_dim, d_s);
            unsigned pairs = seen_pairs<true, I, J>(rule, query, from);
            #pragma unroll
            for (int j = 0; j < J; j++) {
                int at = query + column_of(j);
                accum l = at < n_queries ? lse_row[at] : 0, d = at < n_queries ? delta_row[at] : 0;
                #pragma unroll
                for (int i = 0; i < I; i++)
                    to_gradients(p[i][j], d_s[i][j], pairs >> (i * J + j) & 1, scale, l, d);
            }
            put_weights(weights, p);
            __syncwarp();   // a row's weights are written and read by its own lanes
            add_weighted<WIDTH, I, J>(weights, gradients, head_dim, v_sum);
            __syncwarp();
            put_weights(weights, d_s);
            __syncwarp();
            add_weighted<WIDTH, I, J>(weights, queries, head_dim, k_sum);
        }
    #pragma unroll
    for (int i = 0; i < I; i++) {
        int key = from + row_of(i);
        if (key >= rule.n_keys) continue;
        write_row<WIDTH>(d_k + key * d_token, k_sum, i, scale, head_dim);
        write_row<WIDTH>(d_v + key * d_token, v_sum, i, 1, head_dim);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 3) attention_backward_keys(
    const real* q, const real* k, const real* v, const real* d_out, const accum* lse,
    const accum* delta, real* d_k, real* d_v,
    const long long* groups_or_null, const int* last_or_null, const unsigned char* mask_or_null,
    int n_queries, int n_keys, int n_heads, int n_kv_heads, int head_dim,
    long long q_batch, long long q_token, long long q_head,
    long long kv_batch, long long kv_token, long long kv_head, long long group_batch,
    int is_causal, accum scale)
{
    int group = blockIdx.y, n_group = n_heads / n_kv_heads, head = group * n_group;
    size_t batch = blockIdx.z, kv = batch * kv_batch + group * kv_head;
    size_t out_token = (size_t)n_heads * head_dim, d_token = (size_t)n_kv_heads * head_dim;
    Rule rule(groups_or_null, mask_or_null, batch * group_batch, n_queries, n_keys, is_causal);
    const int* last = last_or_null ? last_or_null + batch * group_batch : nullptr;
    q += batch * q_batch + head * q_head, k += kv, v += kv;
    d_out += batch * n_queries * out_token + (size_t)head * head_dim;
    d_k += batch * n_keys * d_token + (size_t)group * head_dim;
    d_v += batch * n_keys * d_token + (size_t)group * head_dim;
    lse += (batch * n_heads + head) * n_queries, delta += (batch * n_heads + head) * n_queries;
    if (head_dim <= 64)
        keys_backward<64, 4, 2>(q, q_token, q_head, k, v, kv_token, d_out, lse, delta, d_k, d_v,
                                last, rule, n_group, out_token, d_token, head_dim, scale);
    else if (head_dim <= 128)
        keys_backward<128, 2, 2>(q, q_token, q_head, k, v, kv_token, d_out, lse, delta, d_k, d_v,
                                 last, rule, n_group, out_token, d_token, head_dim, scale);
    else
        keys_backward<256, 1, 1>(q, q_token, q_head, k, v, kv_token, d_out, lse, delta, d_k, d_v,
                                 last, rule, n_group, out_token, d_token, head_dim, scale);
}

// d_q of a tile of queries of one head. The block visits every tile of keys that they see.
template <int WIDTH, int I, int J>
__device__ inline void queries_backward(
    const real* q, long long q_token, const real* k, const real* v, long long kv_token,
    const real* d_out, const accum* lse, const accum* delta, real* d_q, const int* first,
    const Rule& rule, size_t out_token, int head_dim, accum scale)
{
    constexpr int QUERIES = STRIPES * I, KEYS = LANES * J;
    DYNAMIC_SHARED(accum, queries);                       // (QUERIES, WIDTH)
    accum* gradients = queries + QUERIES * STRIDE<WIDTH>; // (QUERIES, WIDTH)
    accum* keys = gradients + QUERIES * STRIDE<WIDTH>;    // (KEYS, WIDTH)
    accum* values = keys + KEYS * STRIDE<WIDTH>;
    accum* weights = values + KEYS * STRIDE<WIDTH>;       // (QUERIES, KEYS)
    int from = (gridDim.x - 1 - blockIdx.x) * QUERIES;
    Span seen = rule.keys_of(from, from + QUERIES, first);

    load_tile<WIDTH, QUERIES>(queries, q, q_token, from, rule.n_queries, head_dim);
    load_tile<WIDTH, QUERIES>(gradients, d_out, out_token, from, rule.n_queries, head_dim);
    accum sum[I][VECTORS<WIDTH>][WIDE] = {};
    for (int key = seen.begin; key < seen.end; key += KEYS) {
        accum p[I][J], d_s[I][J];
        __syncthreads();   // the tiles before have been used
        load_tile<WIDTH, KEYS>(keys, k, kv_token, key, rule.n_keys, head_dim);
        load_tile<WIDTH, KEYS>(values, v, kv_token, key, rule.n_keys, head_dim);
        __syncthreads();
        multiply<WIDTH>(queries, keys, head_dim, p);
        multiply<WIDTH>(gradients, values, head_dim, d_s);
        unsigned pairs = seen_pairs<false, I, J>(rule, from, key);
        #pragma unroll
        for (int i = 0; i < I; i++) {
            int at = from + row_of(i);
            accum l = at < rule.n_queries ? lse[at] : 0, d = at < rule.n_queries ? delta[at] : 0;
            #pragma unroll
            for (int j = 0; j < J; j++)
                to_gradients(p[i][j], d_s[i][j], pairs >> (i * J + j) & 1, scale, l, d);
        }
        put_weights(weights, d_s);
        __syncwarp();   // a row's weights are written and read by its own lanes
        add_weighted<WIDTH, I, J>(weights, keys, head_dim, sum);
    }
    #pragma unroll
    for (int i = 0; i < I; i++)
        if (from + row_of(i) < rule.n_queries)
            write_row<WIDTH>(d_q + (from + row_of(i)) * out_token, sum, i, scale, head_dim);
}

extern "C" __global__ void __launch_bounds__(THREADS, 3) attention_backward_queries(
    const real* q, const real* k, const real* v, const real* d_out, const accum* lse,
    const accum* delta, real* d_q,
    const long long* groups_or_null, const int* first_or_null, const unsigned char* mask_or_null,
    int n_queries, int n_keys, int n_heads, int n_kv_heads, int head_dim,
    long long q_batch, long long q_token, long long q_head,
    long long kv_batch, long long kv_token, long long kv_head, long long group_batch,
    int is_causal, accum scale)
{
    int head = blockIdx.y;
    size_t batch = blockIdx.z, kv = batch * kv_batch + head / (n_heads / n_kv_heads) * kv_head;
    size_t out_token = (size_t)n_heads * head_dim;
    Rule rule(groups_or_null, mask_or_null, batch * group_batch, n_queries, n_keys, is_causal);
    const int* first = first_or_null ? first_or_null + batch * group_batch : nullptr;
    size_t row = batch * n_queries * out_token + (size_t)head * head_dim;
    size_t line = (batch * n_heads + head) * n_queries;
    q += batch * q_batch + head * q_head, k += kv, v += kv, d_out += row, d_q += row;
    lse += line, delta += line;
    if (head_dim <= 64)
        queries_backward<64, 4, 4>(q, q_token, k, v, kv_token, d_out, lse, delta, d_q, first, rule,
                                   out_token, head_dim, scale);
    else if (head_dim <= 128)
        queries_backward<128, 2, 2>(q, q_token, k, v, kv_token, d_out, lse, delta, d_q, first, rule,
                                    out_token, head_dim, scale);
    else
        queries_backward<256, 1, 1>(q, q_token, k, v, kv_token, d_out, lse, delta, d_q, first, rule,
                                    out_token, head_dim, scale);
}
