// What the scalar attention kernels share: which keys a query sees, and products of tiles.
//
// A block of THREADS threads works on tiles in shared memory: rows of queries, keys, values or
// gradients of one head, widened to `accum`. Thread (stripe, lane) owns rows stripe + 16 i of one
// tile and rows lane + 8 j of the other, i < I and j < J. Per 16 bytes of each row it does 4 I J
// multiplications for I + J loads from shared memory; with one score per thread, those loads would
// be the limit. Rows are WIDTH + 4 numbers apart, which puts 8 neighboring rows in different banks.
//
// WIDTH is the head's width, rounded up to 64, 128 or 256: the sums of a thread are in registers,
// so their number must be known to the compiler. Wider heads take smaller tiles.
#pragma once
#include "common.cuh"

constexpr int LANES = 8;               // neighboring threads that share a row of a tile
constexpr int STRIPES = THREADS / LANES;   // THREADS is the including file's

struct Span { int begin, end; };

// Which keys a query of one sequence sees.
struct Rule {
    const long long* groups;
    const unsigned char* mask;
    int n_queries, n_keys, is_causal;

    __device__ Rule(const long long* groups, const unsigned char* mask, size_t offset,
                    int n_queries, int n_keys, int is_causal)
        : groups(groups ? groups + offset : nullptr), mask(mask ? mask + offset : nullptr),
          n_queries(n_queries), n_keys(n_keys), is_causal(is_causal) {}

    __device__ int token(int query) const { return query + (n_keys - n_queries); }
    __device__ int query(int token) const { return token - (n_keys - n_queries); }

    __device__ bool sees(int query, int key) const {
        return query < n_queries && key < n_keys && (!is_causal || key <= token(query))
            && (!groups || groups[key] == groups[token(query)])
            && (!mask || mask[(size_t)query * n_keys + key]);
    }
    // Whether all these queries see all these keys, without asking for each pair.
    __device__ bool sees_all(int last_query, int query, int last_key) const {
        return !groups && !mask && last_query < n_queries && last_key < n_keys
            && (!is_causal || last_key <= token(query));
    }

    // The keys outside this span are seen by none of the queries from `query` to `end` - 1. `first`
    // has the first token of each token's group.
    __device__ Span keys_of(int query, int end, const int* first) const {
        int stop = min(n_keys, token(end));
        return {first ? least(first, token(query), stop) : 0, is_causal ? stop : n_keys};
    }
    // The queries outside this span see none of the keys from `key` to `end` - 1. `last` has the
    // last token of each token's group.
    __device__ Span queries_of(int key, int end, const int* last) const {
        int stop = last ? min(n_keys, greatest(last, key, min(n_keys, end)) + 1) : n_keys;
        return {is_causal ? max(0, query(key)) : 0, query(stop)};
    }
};

typedef VectorOf<accum> Wide;
constexpr int WIDE = 16 / sizeof(accum);
template <int WIDTH> constexpr int STRIDE = WIDTH + 4;
template <int J> constexpr int WEIGHT_STRIDE = LANES * J + 4;
template <int WIDTH> constexpr int VECTORS = WIDTH / (LANES * WIDE);   // of a row, per thread

__device__ inline int stripe() { return threadIdx.x / LANES; }
__device__ inline int lane() { return threadIdx.x % LANES; }
// As the threads own them: a row of the tile, a column of the weights, a column of a row.
__device__ inline int row_of(int i) { return stripe() + STRIPES * i; }
__device__ inline int column_of(int j) { return lane() + LANES * j; }
__device__ inline int channel_of(int n) { return (lane() + LANES * n) * WIDE; }

// Which of a thread's I x J pairs of a query and a key see each other: bit i * J + j. The queries
// are the tile's rows, or, with HAS_KEY_ROWS, its columns. As one word, the answers for 16 pairs
// take one register, and what decided them is out of the registers before the scores need them.
template <bool HAS_KEY_ROWS, int I, int J>
__device__ inline unsigned seen_pairs(const Rule& rule, int query, int key) {
    constexpr int QUERIES = HAS_KEY_ROWS ? LANES * J : STRIPES * I;
    constexpr int KEYS = HAS_KEY_ROWS ? STRIPES * I : LANES * J;
    if (rule.sees_all(query + QUERIES - 1, query, key + KEYS - 1)) return ~0u;
    unsigned seen = 0;
    #pragma unroll 1
    for (int i = 0; i < I; i++)
        #pragma unroll
        for (int j = 0; j < J; j++) {
            bool sees = HAS_KEY_ROWS ? rule.sees(query + column_of(j), key + row_of(i))
                                     : rule.sees(query + row_of(i), key + column_of(j));
            seen |= (unsigned)sees << (i * J + j);
        }
    return seen;
}

// Rows first ... first + ROWS - 1 of n_rows, widened; zeros outside, so that sums need no guard.
template <int WIDTH, int ROWS>
__device__ inline void load_tile(accum* tile, const real* from, long long stride, int first,
                                 int n_rows, int head_dim) {
    if (head_dim % VECTOR == 0) {
        constexpr int PER_ROW = WIDTH / VECTOR;
        #pragma unroll 2
        for (int n = threadIdx.x; n < ROWS * PER_ROW; n += THREADS) {
            int row = n / PER_ROW, column = n % PER_ROW * VECTOR;
            accum x[VECTOR] = {};
            if (first + row < n_rows && column < head_dim)
                widen(load(from + (first + row) * stride + column), x);
            #pragma unroll
            for (int part = 0; part < VECTOR; part += WIDE) {
                Wide wide;
                for (int e = 0; e < WIDE; e++) wide.at[e] = x[part + e];
                store(tile + row * STRIDE<WIDTH> + column + part, wide);
            }
        }
        return;
    }
    for (int n = threadIdx.x; n < ROWS * WIDTH; n += THREADS) {
        int row = n / WIDTH, column = n % WIDTH;
        bool exists = first + row < n_rows && column < head_dim;
        tile[row * STRIDE<WIDTH> + column] =
            exists ? widen(from[(first + row) * stride + column]) : 0;
    }
}

// product[i][j] = row_of(i) of one tile times row column_of(j) of the other. An addition more per 4
// numbers makes the chain of roundings 4 times shorter: an exponential multiplies what it leaves.
template <int WIDTH, int I, int J>
__device__ inline void multiply(const accum* a, const accum* b, int head_dim,
                                accum (&product)[I][J]) {
    #pragma unroll
    for (int i = 0; i < I; i++) for (int j = 0; j < J; j++) product[i][j] = 0;
    #pragma unroll 1
    for (int c = 0; c < head_dim; c += WIDE) {
        Wide x[I], y[J];
        #pragma unroll
        for (int i = 0; i < I; i++) x[i] = load(a + row_of(i) * STRIDE<WIDTH> + c);
        #pragma unroll
        for (int j = 0; j < J; j++) y[j] = load(b + column_of(j) * STRIDE<WIDTH> + c);
        #pragma unroll
        for (int i = 0; i < I; i++)
            #pragma unroll
            for (int j = 0; j < J; j++) {
                accum part = x[i].at[0] * y[j].at[0];
                #pragma unroll
                for (int e = 1; e < WIDE; e++) part += x[i].at[e] * y[j].at[e];
                product[i][j] += part;
            }
    }
}

// sum[i] += weights of row_of(i) times the rows of a tile; a thread has the columns channel_of(n).
template <int WIDTH, int I, int J>
__device__ inline void add_weighted(const accum* weights, const accum* rows, int head_dim,
                                    accum (&sum)[I][VECTORS<WIDTH>][WIDE]) {
    #pragma unroll 2
    for (int row = 0; row < LANES * J; row++) {
        accum weight[I];
        #pragma unroll
        for (int i = 0; i < I; i++) weight[i] = weights[row_of(i) * WEIGHT_STRIDE<J> + row];
        #pragma unroll
        for (int n = 0; n < VECTORS<WIDTH>; n++) {
            if (n * LANES * WIDE >= head_dim) break;
            Wide x = load(rows + row * STRIDE<WIDTH> + channel_of(n));
            #pragma unroll
            for (int i = 0; i < I; i++)
                #pragma unroll
                for (int c = 0; c < WIDE; c++) sum[i][n][c] += weight[i] * x.at[c];
        }
    }
}

template <int I, int J>
__device__ inline void put_weights(accum* weights, const accum (&x)[I][J]) {
    #pragma unroll
    for (int i = 0; i < I; i++)
        #pragma unroll
        for (int j = 0; j < J; j++) weights[row_of(i) * WEIGHT_STRIDE<J> + column_of(j)] = x[i][j];
}

// Over the lanes that share a row.
__device__ inline accum row_max(accum x) {
    for (int distance = LANES / 2; distance; distance /= 2)
        x = max(x, __shfl_xor_sync(ALL_LANES, x, distance));
    return x;
}
__device__ inline accum row_total(accum x) {
    for (int distance = LANES / 2; distance; distance /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, distance);
    return x;
}

template <int WIDTH, int I>
__device__ inline void write_row(real* to, const accum (&sum)[I][VECTORS<WIDTH>][WIDE], int i,
                                 accum factor, int head_dim) {
    #pragma unroll
    for (int n = 0; n < VECTORS<WIDTH>; n++)
        #pragma unroll
        for (int c = 0; c < WIDE; c++)
            if (channel_of(n) + c < head_dim) to[channel_of(n) + c] = narrow(sum[i][n][c] * factor);
}
