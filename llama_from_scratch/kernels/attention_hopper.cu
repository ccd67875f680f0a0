// Causal grouped-query attention for Hopper: flash attention with a producer and two consumers.
//
// One thread of the first warpgroup, the producer, orders tiles from the TMA, as far ahead as there
// is room in shared memory. The two other warpgroups, the consumers, own 64 rows each and multiply
// with wgmma, straight from shared memory. They meet only at mbarriers: a tile is full, a tile is
// empty. The producer gives most of its registers away.
//
// Products and softmax overlap in two ways. A consumer starts the scores of the next tile before it
// multiplies the weights of this one, so that tensor cores work while it computes exponentials. And
// the two consumers take turns: while one multiplies, the other softens.
//
// real: bf16 fp16
// architectures: sm_90a
// instructions: HGMMA UTMALDG
//
// Source: Shah et al. (FlashAttention-3), arXiv:2407.08608, algorithms 1 and 2, section 3.
#include "hopper.cuh"
#include "attention_rows.cuh"

constexpr int THREADS = 384;             // three warpgroups
constexpr int CONSUMERS = 2 * WARPGROUP;
constexpr int CONSUMER_WARPS = CONSUMERS / 32;
constexpr int ROWS = 128;                // queries of a forward block: 64 per consumer
constexpr int KEYS = 128;                // in a tile
constexpr int STAGES = 2;                // tiles of keys, or of values, in shared memory
constexpr int QUERIES = 64;              // in a tile of the backward pass
constexpr int PRODUCER_REGISTERS = 24, CONSUMER_REGISTERS = 240;

// ---- what both directions share -----------------------------------------------------------------

// Tile number i, and how often its place has been used: the parity to wait for.
struct Place {
    int stage, parity;
    __device__ explicit Place(int i) : stage(i % STAGES), parity(i / STAGES % 2) {}
};

// A tile of N rows, WIDTH wide: columns of 64 numbers, one after the other. WIDTH * N * 2 bytes.
template <int WIDTH, int N>
__device__ inline void order(real* tile, const TensorMap* map, Mbarrier* full, int head, int row,
                             int batch) {
    #pragma unroll
    for (int column = 0; column < WIDTH / SWIZZLED_WIDTH; column++)
        tma_load(tile + column * N * SWIZZLED_WIDTH, map, full, column * SWIZZLED_WIDTH, head, row,
                 batch);
}

// Of a tile with N rows: step kk of 16 numbers along the rows, and of 16 rows.
template <int N> __device__ inline const real* along(const real* tile, int kk) {
    return tile + kk / 4 * N * SWIZZLED_WIDTH + kk % 4 * 16;
}
__device__ inline const real* across(const real* tile, int kk) {
    return tile + kk * 16 * SWIZZLED_WIDTH;
}

// D (64 x n) = A B^T: 64 rows of a tile of N_A, all rows of a tile of N_B.
template <int WIDTH, int N_A, int N_B, int R>
__device__ inline void multiply_rows(float (&d)[R], const real* a, const real* b) {
    #pragma unroll
    for (int kk = 0; kk < WIDTH / 16; kk++)
        wgmma_ss<false, false>(d, along_k(along<N_A>(a, kk)), along_k(along<N_B>(b, kk)), kk > 0);
}
// D (64 x n) += A B: A in registers, N steps of k, which are the rows of the tile B.
template <int N, int R>
__device__ inline void multiply_columns(float (&d)[R], const unsigned (&a)[N / 16][4],
                                        const real* b) {
    #pragma unroll
    for (int kk = 0; kk < N / 16; kk++)
        wgmma_rs<true>(d, a[kk], across_k(across(b, kk), N * SWIZZLED_WIDTH * 2), true);
}

template <int R> __device__ inline void set_zero(float (&d)[R]) {
    #pragma unroll
    for (int i = 0; i < R; i++) d[i] = 0;
}
// A sum's registers, rounded, are the A fragments of a product over its columns.
template <int R> __device__ inline void as_a(unsigned (&a)[R / 8][4], const float (&d)[R]) {
    #pragma unroll
    for (int kk = 0; kk < R / 8; kk++)
        #pragma unroll
        for (int i = 0; i < 4; i++) a[kk][i] = pack(d[8 * kk + 2 * i], d[8 * kk + 2 * i + 1]);
}

// One arrival for each warp of a consumer.
__device__ inline void release(Mbarrier* empty) {
    if (threadIdx.x % 32 == 0) mbarrier_arrive(empty);
}

// ---- forward ------------------------------------------------------------------------------------

// Hides the scores of keys that the lane's rows, at `position` and 8 later, cannot see.
__device__ inline void mask(float (&s)[KEYS / 2], const Shape& shape, int position, int first_key,
                            const long long* groups_or_null, const long long (&row_group)[2]) {
    #pragma unroll
    for (int i = 0; i < KEYS / 2; i++) {
        int key = first_key + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2, half = i / 2 % 2;
        bool sees = key < shape.n_keys && (key <= position + half * 8 || !shape.is_causal);
        if (sees && groups_or_null) sees = groups_or_null[key] == row_group[half];
        if (!sees) s[i] = -INFINITY;
    }
}

// The running softmax: scores become weights; `down` is what earlier sums are scaled by.
__device__ inline void soften(float (&s)[KEYS / 2], float (&most)[2], float (&sum)[2],
                              float (&down)[2], float log2_scale) {
    #pragma unroll
    for (int half = 0; half < 2; half++) {
        float top = most[half];
        #pragma unroll
        for (int i = 2 * half; i < KEYS / 2; i += 4) top = fmaxf(top, fmaxf(s[i], s[i + 1]));
        top = quad_max(top);
        float base = top == -INFINITY ? 0 : top * log2_scale, added = 0;
        down[half] = exp2_approx(most[half] * log2_scale - base);
        most[half] = top;
        #pragma unroll
        for (int i = 2 * half; i < KEYS / 2; i += 4) {
            s[i] = exp2_approx(s[i] * log2_scale - base);
            s[i + 1] = exp2_approx(s[i + 1] * log2_scale - base);
            added += s[i] + s[i + 1];
        }
        sum[half] = sum[half] * down[half] + added;
    }
}

// What a block keeps in shared memory in addition to its tiles.
struct ForwardBlock {
    Tiles tiles;
    Mbarrier q_full, k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
};

template <int WIDTH>
__device__ inline void forward(const TensorMap* q, const TensorMap* k, const TensorMap* v,
                               real* out, float* lse, const long long* groups_or_null,
                               const int* first_or_null, const Shape& shape, float scale,
                               ForwardBlock& b) {
    constexpr int TILE = KEYS * WIDTH;
    DYNAMIC_SHARED(real, q_tile);
    real *k_tile = q_tile + ROWS * WIDTH, *v_tile = k_tile + STAGES * TILE;
    Mbarrier *k_full = b.k_full, *k_empty = b.k_empty, *v_full = b.v_full, *v_empty = b.v_empty;
    int first_row = (gridDim.x - 1 - blockIdx.x) * ROWS, head = blockIdx.y, batch = blockIdx.z;
    int offset = shape.first_position(), kv_head = shape.kv_head_of(head);

    Tiles found = tiles_of_keys(first_or_null, shape, batch, first_row, ROWS, KEYS);
    if (threadIdx.x == 0) {
        b.tiles = found;   // the roles have no registers to keep it in
        mbarrier_init(&b.q_full, 1);
        for (int i = 0; i < STAGES; i++) {
            mbarrier_init(&k_full[i], 1), mbarrier_init(&k_empty[i], CONSUMER_WARPS);
            mbarrier_init(&v_full[i], 1), mbarrier_init(&v_empty[i], CONSUMER_WARPS);
        }
        fence_mbarrier_init();
    }
    __syncthreads();
    const Tiles tiles = b.tiles;

    if (threadIdx.x < WARPGROUP) {   // the producer
        setmaxnreg_dec<PRODUCER_REGISTERS>();
        if (threadIdx.x > 0 || tiles.n == 0) return;
        mbarrier_arrive_expect_tx(&b.q_full, ROWS * WIDTH * 2);
        order<WIDTH, ROWS>(q_tile, q, &b.q_full, head, first_row, batch);
        for (int i = 0; i < tiles.n; i++) {
            Place at(i);
            int key = (tiles.begin + i) * KEYS;
            mbarrier_wait(&k_empty[at.stage], !at.parity);
            mbarrier_arrive_expect_tx(&k_full[at.stage], TILE * 2);
            order<WIDTH, KEYS>(k_tile + at.stage * TILE, k, &k_full[at.stage], kv_head, key, batch);
            mbarrier_wait(&v_empty[at.stage], !at.parity);
            mbarrier_arrive_expect_tx(&v_full[at.stage], TILE * 2);
            order<WIDTH, KEYS>(v_tile + at.stage * TILE, v, &v_full[at.stage], kv_head, key, batch);
        }
        return;
    }

    setmaxnreg_inc<CONSUMER_REGISTERS>();
    int consumer = threadIdx.x / WARPGROUP - 1, lane = threadIdx.x % 32;
    int first_of_warp = first_row + consumer * 64 + threadIdx.x / 32 % 4 * 16;
    int row = first_of_warp + lane / 4, position = row + offset;   // of this lane's first row
    const real* my_q = q_tile + consumer * 64 * SWIZZLED_WIDTH;
    const long long* groups = groups_or_null ? groups_or_null + batch * shape.group_batch : 0;
    long long row_group[2] = {0, 0};
    #pragma unroll
    for (int half = 0; half < 2; half++)
        if (groups && position + half * 8 >= 0)
            row_group[half] = groups[min(position + half * 8, shape.n_keys - 1)];
    float o[WIDTH / 2], s[KEYS / 2], most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, down[2];
    float log2_scale = scale * LOG2_E;
    unsigned p[KEYS / 16][4];
    set_zero(o);

    auto hide = [&](int i) {   // only tiles at the diagonal, the end or a border need the mask
        int key = (tiles.begin + i) * KEYS;
        bool is_whole = key + KEYS <= shape.n_keys && !groups
                     && (key + KEYS <= first_of_warp + offset + 1 || !shape.is_causal);
        if (!is_whole) mask(s, shape, position, key, groups, row_group);
    };
    // The turns: barrier 1 + c lets consumer c multiply. Consumer 1 lets consumer 0 begin.
    auto await_turn = [&] { named_barrier_sync(1 + consumer, CONSUMERS); };
    auto pass_turn = [&] { named_barrier_arrive(2 - consumer, CONSUMERS); };

    if (tiles.n > 0) {
        if (consumer == 1) pass_turn();
        mbarrier_wait(&b.q_full, 0);
        mbarrier_wait(&k_full[0], 0);
        await_turn();
        wgmma_fence();
        multiply_rows<WIDTH, ROWS, KEYS>(s, my_q, k_tile);
        wgmma_commit();
        pass_turn();
        wgmma_wait<0>();
        release(&k_empty[0]);
        hide(0);
        soften(s, most, sum, down, log2_scale);
        as_a(p, s);
        for (int i = 1; i < tiles.n; i++) {
            Place at(i), before(i - 1);
            mbarrier_wait(&k_full[at.stage], at.parity);
            await_turn();
            wgmma_fence();
            multiply_rows<WIDTH, ROWS, KEYS>(s, my_q, k_tile + at.stage * TILE);
            wgmma_commit();
            mbarrier_wait(&v_full[before.stage], before.parity);
            wgmma_fence();
            multiply_columns<KEYS>(o, p, v_tile + before.stage * TILE);
            wgmma_commit();
            pass_turn();
            wgmma_wait<1>();   // the scores; P V may go on
            release(&k_empty[at.stage]);
            hide(i);
            soften(s, most, sum, down, log2_scale);
            wgmma_wait<0>();
            release(&v_empty[before.stage]);
            #pragma unroll
            for (int j = 0; j < WIDTH / 2; j++) o[j] *= down[j / 2 % 2];
            as_a(p, s);
        }
        Place at(tiles.n - 1);
        mbarrier_wait(&v_full[at.stage], at.parity);
        wgmma_fence();
        multiply_columns<KEYS>(o, p, v_tile + at.stage * TILE);
        wgmma_commit();
        wgmma_wait<0>();
    }

    out += shape.out_row(batch, head) * WIDTH;
    lse += shape.score_row(batch, head);
    #pragma unroll
    for (int half = 0; half < 2; half++) {
        float total = quad_sum(sum[half]), inverse = total > 0 ? 1 / total : 0;
        int at = row + half * 8;
        if (at >= shape.n_queries) continue;
        real* to = out + (size_t)at * shape.n_heads * WIDTH + lane % 4 * 2;
        #pragma unroll
        for (int i = 0; i < WIDTH / 8; i++)
            *(unsigned*)(to + i * 8) = pack(o[4 * i + 2 * half] * inverse,
                                            o[4 * i + 2 * half + 1] * inverse);
        if (lane % 4 == 0) lse[at] = total > 0 ? most[half] * scale + logf(total) : -INFINITY;
    }
}

// ---- backward -----------------------------------------------------------------------------------
// A block owns 128 keys of one key/value head, a consumer 64 of them. As in attention_mma.cu, the
// scores are computed transposed, so that P^T and dS^T come out as A fragments of the products
// dV += P^T dO and dK += dS^T Q. For dQ += dS K, both consumers put their dS^T into shared memory;
// then each multiplies all 128 keys for half of dQ's columns.
//
// The producer's first warp orders the tiles of Q and dO; its second brings lse and delta, which
// wait in shared memory too.

struct BackwardBlock {
    Tiles tiles;
    Mbarrier kv_full, full[STAGES], empty[STAGES];
    float row_lse[STAGES][QUERIES], row_delta[STAGES][QUERIES];
};

template <int WIDTH>
__device__ inline void backward(const TensorMap* q, const TensorMap* k, const TensorMap* v,
                                const TensorMap* d_out, const float* lse, const float* delta,
                                float* d_q, real* d_k, real* d_v, const long long* groups_or_null,
                                const int* last_or_null, const Shape& shape, float scale,
                                BackwardBlock& b) {
    constexpr int TILE = QUERIES * WIDTH, DS_TILE = KEYS * QUERIES;
    DYNAMIC_SHARED(real, k_tile);
    real *v_tile = k_tile + KEYS * WIDTH, *q_tile = v_tile + KEYS * WIDTH;
    real *do_tile = q_tile + STAGES * TILE, *ds_tile = do_tile + STAGES * TILE;
    Mbarrier *full = b.full, *empty = b.empty;
    int first_key = blockIdx.x * KEYS, kv_head = blockIdx.y, batch = blockIdx.z;
    int offset = shape.first_position(), group = shape.n_heads / shape.n_kv_heads;

    Tiles found = tiles_of_queries(last_or_null, shape, batch, first_key, KEYS, QUERIES);
    if (threadIdx.x == 0) {
        b.tiles = found;
        mbarrier_init(&b.kv_full, 1);
        for (int i = 0; i < STAGES; i++)
            mbarrier_init(&full[i], 1 + 32), mbarrier_init(&empty[i], CONSUMER_WARPS);
        fence_mbarrier_init();
    }
    __syncthreads();
    const Tiles tiles = b.tiles;
    int n_tiles = tiles.n * group;   // of all heads of the group

    if (threadIdx.x < WARPGROUP) {   // the producer
        setmaxnreg_dec<PRODUCER_REGISTERS>();
        int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        if (warp > 1 || (warp == 0 && lane > 0) || n_tiles == 0) return;
        if (warp == 0) {
            mbarrier_arrive_expect_tx(&b.kv_full, 2 * KEYS * WIDTH * 2);
            order<WIDTH, KEYS>(k_tile, k, &b.kv_full, kv_head, first_key, batch);
            order<WIDTH, KEYS>(v_tile, v, &b.kv_full, kv_head, first_key, batch);
        }
        for (int i = 0; i < n_tiles; i++) {
            Place at(i);
            int head = kv_head * group + i / tiles.n, row = (tiles.begin + i % tiles.n) * QUERIES;
            mbarrier_wait(&empty[at.stage], !at.parity);
            if (warp == 0) {
                mbarrier_arrive_expect_tx(&full[at.stage], 2 * TILE * 2);
                real *to_q = q_tile + at.stage * TILE, *to_do = do_tile + at.stage * TILE;
                order<WIDTH, QUERIES>(to_q, q, &full[at.stage], head, row, batch);
                order<WIDTH, QUERIES>(to_do, d_out, &full[at.stage], head, row, batch);
            } else {
                for (int j = lane; j < QUERIES; j += 32) {
                    bool is_there = row + j < shape.n_queries;
                    size_t from = shape.score_row(batch, head) + row + j;
                    b.row_lse[at.stage][j] = is_there ? as_log2(lse[from]) : INFINITY;
                    b.row_delta[at.stage][j] = is_there ? delta[from] : 0;
                }
                mbarrier_arrive(&full[at.stage]);
            }
        }
        return;
    }

    setmaxnreg_inc<CONSUMER_REGISTERS>();
    int consumer = threadIdx.x / WARPGROUP - 1, lane = threadIdx.x % 32;
    int row_of_tile = consumer * 64 + threadIdx.x / 32 % 4 * 16 + lane / 4;   // this lane's keys:
    int key = first_key + row_of_tile, most_key = shape.n_keys - 1;           // this one and + 8
    const real* my_k = k_tile + consumer * 64 * SWIZZLED_WIDTH;
    const real* my_v = v_tile + consumer * 64 * SWIZZLED_WIDTH;
    const long long* groups = groups_or_null ? groups_or_null + batch * shape.group_batch : 0;
    float dk[WIDTH / 2], dv[WIDTH / 2], log2_scale = scale * LOG2_E;
    set_zero(dk), set_zero(dv);
    if (n_tiles > 0) mbarrier_wait(&b.kv_full, 0);

    for (int i = 0; i < n_tiles; i++) {
        Place at(i);
        int head = kv_head * group + i / tiles.n, first_row = (tiles.begin + i % tiles.n) * QUERIES;
        const real *q_now = q_tile + at.stage * TILE, *do_now = do_tile + at.stage * TILE;
        real* ds_now = ds_tile + i % 2 * DS_TILE;
        mbarrier_wait(&full[at.stage], at.parity);
        float s[QUERIES / 2], dp[QUERIES / 2];
        wgmma_fence();
        multiply_rows<WIDTH, KEYS, QUERIES>(s, my_k, q_now);
        wgmma_commit();
        multiply_rows<WIDTH, KEYS, QUERIES>(dp, my_v, do_now);
        wgmma_commit();
        wgmma_wait<1>();
        bool is_whole = first_key + KEYS <= shape.n_keys && !groups
                     && (first_key + KEYS <= first_row + offset + 1 || !shape.is_causal);
        #pragma unroll
        for (int j = 0; j < QUERIES / 2; j++) {
            int row = j / 4 * 8 + lane % 4 * 2 + j % 2, my_key = key + j / 2 % 2 * 8;
            s[j] = exp2_approx(s[j] * log2_scale - b.row_lse[at.stage][row]);
            if (is_whole) continue;
            int position = first_row + row + offset;
            bool sees = my_key <= most_key && (my_key <= position || !shape.is_causal);
            if (sees && groups && position <= most_key)
                sees = position >= 0 && groups[position] == groups[my_key];
            if (!sees) s[j] = 0;
        }
        unsigned p[QUERIES / 16][4];
        as_a(p, s);
        wgmma_fence();
        multiply_columns<QUERIES>(dv, p, do_now);
        wgmma_commit();
        wgmma_wait<1>();   // dP; the sum for dV may go on
        #pragma unroll
        for (int j = 0; j < QUERIES / 2; j++) {
            int row = j / 4 * 8 + lane % 4 * 2 + j % 2;
            dp[j] = s[j] * (dp[j] - b.row_delta[at.stage][row]);
        }
        unsigned ds[QUERIES / 16][4];
        as_a(ds, dp);
        wgmma_fence();
        multiply_columns<QUERIES>(dk, ds, q_now);
        wgmma_commit();
        // dS^T, rows of 64 queries, swizzled as the TMA would. Register j of step kk holds, from
        // query 16 kk + 8 (j / 2) on, two numbers of the lane's key or of the one 8 later.
        #pragma unroll
        for (int kk = 0; kk < QUERIES / 16; kk++)
            #pragma unroll
            for (int j = 0; j < 4; j++)
                *(unsigned*)(ds_now + swizzled<QUERIES>(row_of_tile + j % 2 * 8, 2 * kk + j / 2)
                             + lane % 4 * 2) = ds[kk][j];
        fence_proxy_async();
        // Both are here, and so neither still reads what the next dS^T but one will overwrite.
        named_barrier_sync(1, CONSUMERS);
        constexpr int HALF = WIDTH / 2;   // of dQ's columns, for each consumer
        float dq[HALF / 2];
        const real* k_half = k_tile + (WIDTH == 128 ? consumer * KEYS * SWIZZLED_WIDTH
                                                    : consumer * HALF);
        wgmma_fence();
        #pragma unroll
        for (int kk = 0; kk < KEYS / 16; kk++)
            wgmma_ss<true, true>(dq, across_k(across(ds_now, kk), 0),
                                 across_k(across(k_half, kk), 0), kk > 0);
        wgmma_commit();
        wgmma_wait<1>();
        release(&empty[at.stage]);   // Q and dO were read
        wgmma_wait<0>();
        float* to = d_q + shape.out_row(batch, head) * WIDTH + consumer * HALF + lane % 4 * 2;
        #pragma unroll
        for (int j = 0; j < HALF / 2; j += 2) {
            int row = first_row + threadIdx.x / 32 % 4 * 16 + lane / 4 + j / 2 % 2 * 8;
            if (row < shape.n_queries)
                add_pair(to + (size_t)row * shape.n_heads * WIDTH + j / 4 * 8, dq[j] * scale,
                         dq[j + 1] * scale);
        }
    }

    #pragma unroll
    for (int half = 0; half < 2; half++) {
        if (key + half * 8 > most_key) continue;
        size_t to = (((size_t)batch * shape.n_keys + key + half * 8) * shape.n_kv_heads + kv_head)
                  * WIDTH + lane % 4 * 2;
        #pragma unroll
        for (int j = 0; j < WIDTH / 8; j++) {
            *(unsigned*)(d_k + to + j * 8) = pack(dk[4 * j + 2 * half] * scale,
                                                  dk[4 * j + 2 * half + 1] * scale);
            *(unsigned*)(d_v + to + j * 8) = pack(dv[4 * j + 2 * half], dv[4 * j + 2 * half + 1]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) attention_hopper_forward_64(
    const __grid_constant__ TensorMap q, const __grid_constant__ TensorMap k,
    const __grid_constant__ TensorMap v, real* out, float* lse, const long long* groups_or_null,
    const int* first_or_null, int n_queries, int n_keys, int n_heads, int n_kv_heads,
    long long group_batch, int is_causal, float scale)
{
    Shape shape = {n_queries, n_keys, n_heads, n_kv_heads, group_batch, is_causal};
    __shared__ ForwardBlock block;
    forward<64>(&q, &k, &v, out, lse, groups_or_null, first_or_null, shape, scale, block);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) attention_hopper_forward_128(
    const __grid_constant__ TensorMap q, const __grid_constant__ TensorMap k,
    const __grid_constant__ TensorMap v, real* out, float* lse, const long long* groups_or_null,
    const int* first_or_null, int n_queries, int n_keys, int n_heads, int n_kv_heads,
    long long group_batch, int is_causal, float scale)
{
    Shape shape = {n_queries, n_keys, n_heads, n_kv_heads, group_batch, is_causal};
    __shared__ ForwardBlock block;
    forward<128>(&q, &k, &v, out, lse, groups_or_null, first_or_null, shape, scale, block);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) attention_hopper_backward_64(
    const __grid_constant__ TensorMap q, const __grid_constant__ TensorMap k,
    const __grid_constant__ TensorMap v, const __grid_constant__ TensorMap d_out, const float* lse,
    const float* delta, float* d_q, real* d_k, real* d_v, const long long* groups_or_null,
    const int* last_or_null, int n_queries, int n_keys, int n_heads, int n_kv_heads,
    long long group_batch, int is_causal, float scale)
{
    Shape shape = {n_queries, n_keys, n_heads, n_kv_heads, group_batch, is_causal};
    __shared__ BackwardBlock block;
    backward<64>(&q, &k, &v, &d_out, lse, delta, d_q, d_k, d_v, groups_or_null, last_or_null,
                 shape, scale, block);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) attention_hopper_backward_128(
    const __grid_constant__ TensorMap q, const __grid_constant__ TensorMap k,
    const __grid_constant__ TensorMap v, const __grid_constant__ TensorMap d_out, const float* lse,
    const float* delta, float* d_q, real* d_k, real* d_v, const long long* groups_or_null,
    const int* last_or_null, int n_queries, int n_keys, int n_heads, int n_kv_heads,
    long long group_batch, int is_causal, float scale)
{
    Shape shape = {n_queries, n_keys, n_heads, n_kv_heads, group_batch, is_causal};
    __shared__ BackwardBlock block;
    backward<128>(&q, &k, &v, &d_out, lse, delta, d_q, d_k, d_v, groups_or_null, last_or_null,
                 shape, scale, block);
}
