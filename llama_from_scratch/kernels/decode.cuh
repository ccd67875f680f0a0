// What both decode kernels share: which keys a query sees, which of them are a block's own, and
// where its result goes.
//
// How long each sequence is, only the device knows. The grid is made for the whole cache, and a
// block without keys leaves at once; so one launch, in a CUDA graph, serves every step.
//
// A sequence has the keys from `start` to `length`; what comes before is padding. The last
// n_queries of them are the queries. Each sees itself and the keys before it; with a chunk, only
// its own chunk, counted from the start. A query that sees nothing gets zeros.
//
// A block keeps, of every query: m, the largest score so far; l, the sum of exp(score - m); and the
// sum of exp(score - m) * value. When m grows, both sums shrink by exp(old m - new m). Two such
// triples combine in the same way, so any division of the keys gives the same result.
#pragma once

#include "common.cuh"

constexpr accum NOTHING = -1e30;   // less than any score; a difference of two is 0 and not NaN

struct Range { int begin, end; };   // without the end

// The keys of this block's sequence. A length that exceeds the cache would be read from what is not
// there: it ends the program, as an index beyond a table does in PyTorch.
__device__ inline Range sequence_of(const int* lengths, const int* starts_or_null, int n_keys) {
    int length = lengths[blockIdx.z], start = starts_or_null ? starts_or_null[blockIdx.z] : 0;
    if (length < 0 || length > n_keys || start < 0) __trap();
    return {min(start, length), length};
}

// The keys that query `token` sees.
__device__ inline Range seen_by(int token, Range sequence, int n_queries, int chunk) {
    int begin = sequence.begin, end = sequence.end - (n_queries - 1 - token);
    if (end <= begin) return {begin, begin};
    return {chunk ? begin + (end - 1 - begin) / chunk * chunk : begin, end};
}

// The keys of this block's split: equal parts of what the sequence's queries see, in whole tiles.
__device__ inline Range part_of(Range all, int n_splits, int tile) {
    int n_tiles = (all.end - all.begin + tile - 1) / tile;
    int each = (n_tiles + n_splits - 1) / n_splits;
    int begin = all.begin + (int)blockIdx.y * each * tile;
    return {min(begin, all.end), min(begin + each * tile, all.end)};
}

// Where a query's result goes: to `out` if it is complete, otherwise to its split's part.
struct Result {
    real* out;
    accum* part;
    accum* largest_and_sum;
    int n_splits, head_dim;
    __device__ void write(size_t query, int channel, accum sum, accum m, accum l) const {
        if (n_splits == 1) {
            out[query * head_dim + channel] = narrow(l == 0 ? 0 : quotient(sum, l));
            return;
        }
        size_t at = query * n_splits + blockIdx.y;
        part[at * head_dim + channel] = sum;
        if (channel == 0) largest_and_sum[2 * at] = m, largest_and_sum[2 * at + 1] = l;
    }
    // For a split without keys, whose sums nothing reads.
    __device__ void write_nothing(size_t query) const {
        size_t at = query * n_splits + blockIdx.y;
        largest_and_sum[2 * at] = NOTHING, largest_and_sum[2 * at + 1] = 0;
    }
};
