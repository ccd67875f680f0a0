// What the attention kernels on tensor cores share: which tiles a block needs, and how the four
// lanes that share a row of a fragment agree on it.
#pragma once
#include "tensor_cores.cuh"

// The queries are the last tokens of the keys' sequence: query i is token i + n_keys - n_queries.
struct Shape {
    int n_queries, n_keys, n_heads, n_kv_heads;
    long long group_batch;   // from one sequence's groups to the next, 0 if they share them
    int is_causal;

    __device__ int first_position() const { return n_keys - n_queries; }
    __device__ int kv_head_of(int head) const { return head / (n_heads / n_kv_heads); }
    // Rows of tensors without gaps: (B, T, H, K), outputs and their gradients; (B, H, T), scores.
    __device__ size_t out_row(int batch, int head) const {
        return (size_t)batch * n_queries * n_heads + head;
    }
    __device__ size_t score_row(int batch, int head) const {
        return ((size_t)batch * n_heads + head) * n_queries;
    }
};

struct Tiles { int begin, n; };

// The tiles of keys that some query of a block sees: from the first token of the queries' groups to
// the diagonal.
__device__ inline Tiles tiles_of_keys(const int* first_or_null, const Shape& shape, int batch,
                                      int first_row, int n_rows, int tile) {
    int position = first_row + shape.first_position();
    int end = shape.is_causal ? min(shape.n_keys, position + n_rows) : shape.n_keys, begin = 0;
    if (first_or_null)
        begin = least(first_or_null + batch * shape.group_batch, max(position, 0),
                      min(position + n_rows, shape.n_keys));
    begin /= tile;
    return {begin, max((end + tile - 1) / tile - begin, 0)};
}
// The tiles of queries that see some key of a block: from the diagonal to the last token of the
// keys' groups.
__device__ inline Tiles tiles_of_queries(const int* last_or_null, const Shape& shape, int batch,
                                         int first_key, int n_keys, int tile) {
    int begin = shape.is_causal ? max(first_key - shape.first_position(), 0) / tile : 0;
    int end = shape.n_queries;
    if (last_or_null)
        end = min(end, 1 - shape.first_position()
                       + greatest(last_or_null + batch * shape.group_batch, first_key,
                                  min(first_key + n_keys, shape.n_keys)));
    return {begin, max((end + tile - 1) / tile - begin, 0)};
}

// Over the four lanes that share a row of a C fragment.
__device__ inline float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}
__device__ inline float quad_sum(float x) {
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}

// What the backward pass subtracts from a score, in base 2. A row that is not there, or that sees
// nothing, adds nothing: exp(score - infinity) = 0.
__device__ inline float as_log2(float lse) { return lse == -INFINITY ? INFINITY : lse * LOG2_E; }
