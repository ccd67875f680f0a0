// Causal grouped-query attention on tensor cores: flash attention with mma.sync, cp.async and a
// swizzle. The algorithm is attention.cu's; what is new is who owns which number.
//
// A warp owns 16 or 32 query rows. Its scores S = Q K^T come out of mma as C fragments: lane l has,
// of the rows l/4 and l/4 + 8 of each 16, two neighbors of every 8 columns. Rounded to 2 bytes, two
// such 8-column pieces are, number for number, the A fragment of 16 steps of k. So the weights P go
// from the first product to the second, P V, without leaving the registers, and the four lanes that
// share a row find its largest score and its sum by two shuffles.
//
// While a tile of keys is multiplied, the next one is on its way to the other half of the memory.
//
// real: bf16 fp16
// architectures: sm_80 and newer
// instructions: HMMA LDSM LDGSTS
//
// Source: Dao et al., arXiv:2205.14135 and arXiv:2307.08691, algorithms 1 and 2.
#include "tensor_cores.cuh"
#include "attention_rows.cuh"

constexpr int KEYS = 64;       // in a tile
constexpr int ROW_TILES = 1;   // of 16 query rows, per warp: how many times each B fragment is used
constexpr int WARPS = 4;
constexpr int ROWS = WARPS * ROW_TILES * 16;
constexpr int THREADS = 128;   // WARPS * 32
static_assert(THREADS == WARPS * 32, "the declaration needs a plain number");

// ---- what all kernels of this file share -------------------------------------------------------

// From one sequence, token or head to the next, in numbers.
struct Strides { long long q_batch, q_token, q_head, kv_batch, kv_token, kv_head; };

// A tile of rows, WIDTH numbers each, to shared memory; rows after the last one become 0.
template <int WIDTH, int N_ROWS>
__device__ inline void fetch(real* tile, const real* x, long long row_stride, int first, int n) {
    constexpr int CHUNKS = WIDTH / 8;
    #pragma unroll
    for (int i = threadIdx.x; i < N_ROWS * CHUNKS; i += THREADS) {
        int row = i / CHUNKS, chunk = i % CHUNKS;
        bool is_there = first + row < n;
        const real* from = x + (is_there ? first + row : 0) * row_stride + chunk * 8;
        cp_async16(tile + swizzled<WIDTH>(row, chunk), from, is_there);
    }
}

// The rows that this lane points to, so that ldmatrix_x4 loads 16x16 numbers of A, or two 8-column
// pieces of B over 16 steps of k, from tiles with rows along k. From tiles with rows across k,
// ldmatrix_x4_trans loads B by A's rows and A by B's.
struct LaneRow { int row, chunk; };
__device__ inline LaneRow lane_of_a() {
    return {(int)threadIdx.x % 16, (int)threadIdx.x % 32 / 16};
}
__device__ inline LaneRow lane_of_b() {
    int lane = threadIdx.x % 32;
    return {lane % 8 + lane / 16 * 8, lane / 8 % 2};
}

template <int WIDTH>
__device__ inline void load_a(unsigned (&a)[4], const real* tile, int first_row, int kk) {
    LaneRow at = lane_of_a();
    ldmatrix_x4(a, tile + swizzled<WIDTH>(first_row + at.row, kk * 2 + at.chunk));
}

// C (16M x 8N) += A (16M x 16) B: the rows of B, 8N of them, lie along k in a tile.
template <int WIDTH, int M, int N>
__device__ inline void multiply_along(float (&c)[M][N][4], const unsigned (&a)[M][4],
                                      const real* tile, int kk) {
    LaneRow at = lane_of_b();
    #pragma unroll
    for (int n = 0; n < N / 2; n++) {
        unsigned b[4];
        ldmatrix_x4(b, tile + swizzled<WIDTH>(n * 16 + at.row, kk * 2 + at.chunk));
        #pragma unroll
        for (int m = 0; m < M; m++) {
            mma_m16n8k16(c[m][2 * n], a[m], b[0], b[1]);
            mma_m16n8k16(c[m][2 * n + 1], a[m], b[2], b[3]);
        }
    }
}
// The same with B's rows across k: row 16 kk + i of the tile is step i.
template <int WIDTH, int M, int N>
__device__ inline void multiply_across(float (&c)[M][N][4], const unsigned (&a)[M][4],
                                       const real* tile, int kk, int first_chunk = 0) {
    LaneRow at = lane_of_a();
    #pragma unroll
    for (int n = 0; n < N / 2; n++) {
        unsigned b[4];
        int chunk = first_chunk + n * 2 + at.chunk;
        ldmatrix_x4_trans(b, tile + swizzled<WIDTH>(kk * 16 + at.row, chunk));
        #pragma unroll
        for (int m = 0; m < M; m++) {
            mma_m16n8k16(c[m][2 * n], a[m], b[0], b[1]);
            mma_m16n8k16(c[m][2 * n + 1], a[m], b[2], b[3]);
        }
    }
}

template <int N> __device__ inline void set_zero(float (&c)[N][4]) {
    #pragma unroll
    for (int i = 0; i < N; i++) c[i][0] = c[i][1] = c[i][2] = c[i][3] = 0;
}
template <int M, int N> __device__ inline void set_zero(float (&c)[M][N][4]) {
    #pragma unroll
    for (int m = 0; m < M; m++) set_zero(c[m]);
}

// Two 8-column pieces of a C fragment, rounded: the A fragment of 16 steps of k.
template <int N> __device__ inline void as_a(unsigned (&a)[4], const float (&c)[N][4], int kk) {
    a[0] = pack(c[2 * kk][0], c[2 * kk][1]), a[1] = pack(c[2 * kk][2], c[2 * kk][3]);
    a[2] = pack(c[2 * kk + 1][0], c[2 * kk + 1][1]);
    a[3] = pack(c[2 * kk + 1][2], c[2 * kk + 1][3]);
}

// ---- forward -----------------------------------------------------------------------------------

// S is masked only where a tile reaches past the diagonal, the last key or a group's border.
template <int N>
__device__ inline void mask(float (&s)[N][4], const Shape& shape, int position, int first_key,
                            const long long* groups_or_null, long long low_group,
                            long long high_group) {
    #pragma unroll
    for (int n = 0; n < N; n++)
        #pragma unroll
        for (int i = 0; i < 4; i++) {
            int key = first_key + n * 8 + threadIdx.x % 4 * 2 + i % 2;
            bool sees = key < shape.n_keys && (key <= position + i / 2 * 8 || !shape.is_causal);
            if (sees && groups_or_null)
                sees = groups_or_null[key] == (i < 2 ? low_group : high_group);
            if (!sees) s[n][i] = -INFINITY;
        }
}

// The running softmax of the two rows that a lane shares: their scores in s become weights, and
// what was summed up before is scaled down to the new maximum.
template <int N, int W>
__device__ inline void soften(float (&s)[N][4], float (&o)[W][4], float (&most)[2], float (&sum)[2],
                              float log2_scale) {
    #pragma unroll
    for (int half = 0; half < 2; half++) {
        float top = most[half];
        #pragma unroll
        for (int n = 0; n < N; n++) top = fmaxf(top, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
        top = quad_max(top);
        // A row that has seen nothing yet has no maximum to subtract.
        float base = top == -INFINITY ? 0 : top * log2_scale;
        float down = exp2_approx(most[half] * log2_scale - base), added = 0;
        most[half] = top;
        #pragma unroll
        for (int n = 0; n < N; n++)
            #pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; i++)
                added += s[n][i] = exp2_approx(s[n][i] * log2_scale - base);
        sum[half] = sum[half] * down + added;
        #pragma unroll
        for (int n = 0; n < W; n++) o[n][2 * half] *= down, o[n][2 * half + 1] *= down;
    }
}

template <int WIDTH>
__device__ inline void forward(const real* q, const real* k, const real* v, real* out, float* lse,
                               const long long* groups_or_null, const int* first_or_null,
                               const Shape& shape, const Strides& strides, float scale) {
    DYNAMIC_SHARED(real, q_tile);
    real *k_tile = q_tile + ROWS * WIDTH, *v_tile = k_tile + 2 * KEYS * WIDTH;
    // The blocks with the most keys first, so that the short ones fill the gaps at the end.
    int first_row = (gridDim.x - 1 - blockIdx.x) * ROWS, head = blockIdx.y, batch = blockIdx.z;
    int offset = shape.first_position(), warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    q += batch * strides.q_batch + head * strides.q_head;
    k += batch * strides.kv_batch + shape.kv_head_of(head) * strides.kv_head;
    v += batch * strides.kv_batch + shape.kv_head_of(head) * strides.kv_head;
    const long long* groups = groups_or_null ? groups_or_null + batch * shape.group_batch : 0;

    Tiles tiles = tiles_of_keys(first_or_null, shape, batch, first_row, ROWS, KEYS);
    auto fetch_keys = [&](real* to, const real* x, int tile) {
        fetch<WIDTH, KEYS>(to, x, strides.kv_token, tile * KEYS, shape.n_keys);
    };
    fetch<WIDTH, ROWS>(q_tile, q, strides.q_token, first_row, shape.n_queries);
    if (tiles.n > 0) fetch_keys(k_tile, k, tiles.begin);
    cp_async_commit();
    if (tiles.n > 0) fetch_keys(v_tile, v, tiles.begin);
    cp_async_commit();

    float o[ROW_TILES][WIDTH / 8][4], most[ROW_TILES][2], sum[ROW_TILES][2];
    set_zero(o);
    #pragma unroll
    for (int m = 0; m < ROW_TILES; m++)
        for (int half = 0; half < 2; half++) most[m][half] = -INFINITY, sum[m][half] = 0;
    float log2_scale = scale * LOG2_E;
    int warp_row = warp * ROW_TILES * 16;

    for (int i = 0; i < tiles.n; i++) {
        int tile = tiles.begin + i, now = i % 2 * KEYS * WIDTH, next = KEYS * WIDTH - now;
        bool is_last = i + 1 == tiles.n;
        if (!is_last) fetch_keys(k_tile + next, k, tile + 1);
        cp_async_commit();
        if (!is_last) fetch_keys(v_tile + next, v, tile + 1);
        cp_async_commit();
        cp_async_wait<3>();   // K of this tile, and Q, are there; V and the next tile need not be
        __syncthreads();
        float s[ROW_TILES][KEYS / 8][4];
        set_zero(s);
        #pragma unroll
        for (int kk = 0; kk < WIDTH / 16; kk++) {
            unsigned a[ROW_TILES][4];
            #pragma unroll
            for (int m = 0; m < ROW_TILES; m++)
                load_a<WIDTH>(a[m], q_tile, warp_row + m * 16, kk);
            multiply_along<WIDTH>(s, a, k_tile + now, kk);
        }
        #pragma unroll
        for (int m = 0; m < ROW_TILES; m++) {
            int position = first_row + warp_row + m * 16 + offset, key = tile * KEYS;
            bool is_whole = key + KEYS <= shape.n_keys
                         && (key + KEYS <= position + 1 || !shape.is_causal) && !groups;
            if (!is_whole) {
                int low = position + lane / 4, most_key = shape.n_keys - 1;
                long long low_group = groups && low >= 0 ? groups[min(low, most_key)] : 0;
                long long high_group = groups && low + 8 >= 0 ? groups[min(low + 8, most_key)] : 0;
                mask(s[m], shape, low, key, groups, low_group, high_group);
            }
            soften(s[m], o[m], most[m], sum[m], log2_scale);
        }
        cp_async_wait<2>();   // V
        __syncthreads();
        #pragma unroll
        for (int kk = 0; kk < KEYS / 16; kk++) {
            unsigned p[ROW_TILES][4];
            #pragma unroll
            for (int m = 0; m < ROW_TILES; m++) as_a(p[m], s[m], kk);
            multiply_across<WIDTH>(o, p, v_tile + now, kk);
        }
        __syncthreads();   // the next turn fills this tile's memory again
    }

    out += shape.out_row(batch, head) * WIDTH;
    lse += shape.score_row(batch, head);
    #pragma unroll
    for (int m = 0; m < ROW_TILES; m++)
        #pragma unroll
        for (int half = 0; half < 2; half++) {
            float total = quad_sum(sum[m][half]), inverse = total > 0 ? 1 / total : 0;
            int row = first_row + warp_row + m * 16 + lane / 4 + half * 8;
            if (row >= shape.n_queries) continue;
            real* to = out + (size_t)row * shape.n_heads * WIDTH + lane % 4 * 2;
            #pragma unroll
            for (int n = 0; n < WIDTH / 8; n++)
                *(unsigned*)(to + n * 8) = pack(o[m][n][2 * half] * inverse,
                                                o[m][n][2 * half + 1] * inverse);
            if (lane % 4 == 0)
                lse[row] = total > 0 ? most[m][half] * scale + logf(total) : -INFINITY;
        }
}

// For one block more per processor, the compiler would spill registers on some GPUs.
extern "C" __global__ void __launch_bounds__(THREADS, 3) attention_mma_forward_64(
    const real* q, const real* k, const real* v, real* out, float* lse,
    const long long* groups_or_null, const int* first_or_null, int n_queries, int n_keys,
    int n_heads, int n_kv_heads, long long q_batch, long long q_token, long long q_head,
    long long kv_batch, long long kv_token, long long kv_head, long long group_batch, int is_causal,
    float scale)
{
    Shape shape = {n_queries, n_keys, n_heads, n_kv_heads, group_batch, is_causal};
    Strides strides = {q_batch, q_token, q_head, kv_batch, kv_token, kv_head};
    forward<64>(q, k, v, out, lse, groups_or_null, first_or_null, shape, strides, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) attention_mma_forward_128(
    const real* q, const real* k, const real* v, real* out, float* lse,
    const long long* groups_or_null, const int* first_or_null, int n_queries, int n_keys,
    int n_heads, int n_kv_heads, long long q_batch, long long q_token, long long q_head,
    long long kv_batch, long long kv_token, long long kv_head, long long group_batch, int is_causal,
    float scale)
{
    Shape shape = {n_queries, n_keys, n_heads, n_kv_heads, group_batch, is_causal};
    Strides strides = {q_batch, q_token, q_head, kv_batch, kv_token, kv_head};
    forward<128>(q, k, v, out, lse, groups_or_null, first_or_null, shape, strides, scale);
}

// ---- backward: dK, dV and dQ in one pass over the queries --------------------------------------
// A block owns 64 keys of one key/value head, and a warp 16 of them. It visits every query tile of
// every head of the group, from the diagonal on, and computes the transposed scores S^T = K Q^T:
// their rows are keys, so P^T and dS^T are again A fragments, of the products
//     dV += P^T dO,   dK += dS^T Q,   with dS = P * (dO V^T - delta),   P = exp(S - lse).
// The sums over queries and over the group stay in registers. dQ += dS K is summed over blocks:
// dS^T goes through shared memory once, so that each warp can read the part of its transpose that
// it multiplies, and the sums are added to fp32 in global memory.

constexpr int PAD = 8;   // after each row of dS^T, so that ldmatrix reads it without bank conflicts

// A smaller tile of queries leaves registers for the sums of wide heads.
template <int WIDTH> constexpr int QUERIES = WIDTH == 64 ? 64 : 32;

template <int WIDTH, bool WITH_DQ>
__device__ inline void backward(const real* q, const real* k, const real* v, const real* d_out,
                                const float* lse, const float* delta, float* d_q, real* d_k,
                                real* d_v, const long long* groups_or_null,
                                const int* last_or_null, const Shape& shape,
                                const Strides& strides, float scale) {
    constexpr int N_Q = QUERIES<WIDTH>;
    DYNAMIC_SHARED(real, k_tile);
    real *v_tile = k_tile + KEYS * WIDTH, *q_tile = v_tile + KEYS * WIDTH;
    real *do_tile = q_tile + 2 * N_Q * WIDTH, *ds_tile = do_tile + 2 * N_Q * WIDTH;
    float *row_lse = (float*)(ds_tile + KEYS * (N_Q + PAD)), *row_delta = row_lse + 2 * N_Q;
    int first_key = blockIdx.x * KEYS, kv_head = blockIdx.y, batch = blockIdx.z;
    int offset = shape.first_position(), group = shape.n_heads / shape.n_kv_heads;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    k += batch * strides.kv_batch + kv_head * strides.kv_head;
    v += batch * strides.kv_batch + kv_head * strides.kv_head;
    const long long* groups = groups_or_null ? groups_or_null + batch * shape.group_batch : 0;

    Tiles tiles = tiles_of_queries(last_or_null, shape, batch, first_key, KEYS, N_Q);
    int n_tiles = tiles.n * group;   // of all heads of the group

    auto fetch_queries = [&](int tile) {
        int head = kv_head * group + tile / tiles.n, row = (tiles.begin + tile % tiles.n) * N_Q;
        int half = tile % 2 * N_Q;
        const real* q_head = q + batch * strides.q_batch + head * strides.q_head;
        fetch<WIDTH, N_Q>(q_tile + half * WIDTH, q_head, strides.q_token, row, shape.n_queries);
        fetch<WIDTH, N_Q>(do_tile + half * WIDTH, d_out + shape.out_row(batch, head) * WIDTH,
                          (long long)shape.n_heads * WIDTH, row, shape.n_queries);
        if (threadIdx.x < N_Q) {
            bool is_there = row + threadIdx.x < shape.n_queries;
            size_t at = shape.score_row(batch, head) + row + threadIdx.x;
            row_lse[half + threadIdx.x] = is_there ? as_log2(lse[at]) : INFINITY;
            row_delta[half + threadIdx.x] = is_there ? delta[at] : 0;
        }
    };
    fetch<WIDTH, KEYS>(k_tile, k, strides.kv_token, first_key, shape.n_keys);
    fetch<WIDTH, KEYS>(v_tile, v, strides.kv_token, first_key, shape.n_keys);
    if (n_tiles) fetch_queries(0);
    cp_async_commit();

    float dk[1][WIDTH / 8][4], dv[1][WIDTH / 8][4];
    set_zero(dk), set_zero(dv);
    float log2_scale = scale * LOG2_E;
    int low_key = first_key + warp * 16 + lane / 4, most_key = shape.n_keys - 1;
    long long low_group = groups ? groups[min(low_key, most_key)] : 0;
    long long high_group = groups ? groups[min(low_key + 8, most_key)] : 0;

    for (int tile = 0; tile < n_tiles; tile++) {
        int first_row = (tiles.begin + tile % tiles.n) * N_Q, half = tile % 2 * N_Q;
        const real *q_now = q_tile + half * WIDTH, *do_now = do_tile + half * WIDTH;
        cp_async_wait<0>();
        __syncthreads();   // this tile is there, and the one before it is no longer read
        if (tile + 1 < n_tiles) fetch_queries(tile + 1);
        cp_async_commit();

        float s[1][N_Q / 8][4], dp[1][N_Q / 8][4];
        set_zero(s), set_zero(dp);
        #pragma unroll
        for (int kk = 0; kk < WIDTH / 16; kk++) {
            unsigned a[1][4];
            load_a<WIDTH>(a[0], k_tile, warp * 16, kk);
            multiply_along<WIDTH>(s, a, q_now, kk);
            load_a<WIDTH>(a[0], v_tile, warp * 16, kk);
            multiply_along<WIDTH>(dp, a, do_now, kk);
        }
        #pragma unroll
        for (int n = 0; n < N_Q / 8; n++)
            #pragma unroll
            for (int i = 0; i < 4; i++) {
                int row = n * 8 + lane % 4 * 2 + i % 2, key = low_key + i / 2 * 8;
                int position = first_row + row + offset;
                bool sees = key <= most_key && (key <= position || !shape.is_causal);
                if (sees && groups && first_row + row < shape.n_queries)
                    sees = position >= 0 && groups[position] == (i < 2 ? low_group : high_group);
                float p = sees ? exp2_approx(s[0][n][i] * log2_scale - row_lse[half + row]) : 0;
                s[0][n][i] = p;
                dp[0][n][i] = p * (dp[0][n][i] - row_delta[half + row]);
            }
        #pragma unroll
        for (int kk = 0; kk < N_Q / 16; kk++) {
            unsigned p[1][4], ds[1][4];
            as_a(p[0], s[0], kk), as_a(ds[0], dp[0], kk);
            multiply_across<WIDTH>(dv, p, do_now, kk);
            multiply_across<WIDTH>(dk, ds, q_now, kk);
            if (WITH_DQ) {
                real* to = ds_tile + (warp * 16 + lane / 4) * (N_Q + PAD) + kk * 16 + lane % 4 * 2;
                *(unsigned*)to = ds[0][0], *(unsigned*)(to + 8 * (N_Q + PAD)) = ds[0][1];
                *(unsigned*)(to + 8) = ds[0][2], *(unsigned*)(to + 8 * (N_Q + PAD) + 8) = ds[0][3];
            }
        }
        if (!WITH_DQ) continue;
        __syncthreads();   // all of dS^T is in shared memory
        // The warps divide dQ (N_Q x WIDTH) among them: by rows, then by columns.
        constexpr int BY_ROWS = N_Q / 16, WARP_WIDTH = WIDTH * BY_ROWS / WARPS;
        int warp_row = warp % BY_ROWS * 16, warp_column = warp / BY_ROWS * WARP_WIDTH;
        float dq[1][WARP_WIDTH / 8][4];
        set_zero(dq);
        #pragma unroll
        for (int kk = 0; kk < KEYS / 16; kk++) {
            unsigned a[1][4];
            LaneRow at = lane_of_b();
            ldmatrix_x4_trans(a[0], ds_tile + (kk * 16 + at.row) * (N_Q + PAD) + warp_row
                                    + at.chunk * 8);
            multiply_across<WIDTH>(dq, a, k_tile, kk, warp_column / 8);
        }
        float* to = d_q + shape.out_row(batch, kv_head * group + tile / tiles.n) * WIDTH;
        #pragma unroll
        for (int n = 0; n < WARP_WIDTH / 8; n++)
            #pragma unroll
            for (int i = 0; i < 4; i += 2) {
                int row = first_row + warp_row + lane / 4 + i / 2 * 8;
                if (row < shape.n_queries)
                    add_pair(to + (size_t)row * shape.n_heads * WIDTH + warp_column + n * 8
                             + lane % 4 * 2, dq[0][n][i] * scale, dq[0][n][i + 1] * scale);
            }
    }
    cp_async_wait<0>();

    #pragma unroll
    for (int half = 0; half < 2; half++) {
        int key = low_key + half * 8;
        if (key >= shape.n_keys) continue;
        size_t to = (((size_t)batch * shape.n_keys + key) * shape.n_kv_heads + kv_head) * WIDTH
                  + lane % 4 * 2;
        #pragma unroll
        for (int n = 0; n < WIDTH / 8; n++) {
            *(unsigned*)(d_k + to + n * 8) = pack(dk[0][n][2 * half] * scale,
                                                  dk[0][n][2 * half + 1] * scale);
            *(unsigned*)(d_v + to + n * 8) = pack(dv[0][n][2 * half], dv[0][n][2 * half + 1]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) attention_mma_backward_64(
    const real* q, const real* k, const real* v, const real* d_out, const float* lse,
    const float* delta, float* d_q, real* d_k, real* d_v, const long long* groups_or_null,
    const int* last_or_null, int n_queries, int n_keys, int n_heads, int n_kv_heads,
    long long q_batch, long long q_token, long long q_head, long long kv_batch, long long kv_token,
    long long kv_head, long long group_batch, int is_causal, float scale)
{
    Shape shape = {n_queries, n_keys, n_heads, n_kv_heads, group_batch, is_causal};
    Strides strides = {q_batch, q_token, q_head, kv_batch, kv_token, kv_head};
    backward<64, true>(q, k, v, d_out, lse, delta, d_q, d_k, d_v, groups_or_null, last_or_null,
                       shape, strides, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS) attention_mma_backward_128(
    const real* q, const real* k, const real* v, const real* d_out, const float* lse,
    const float* delta, float* d_q, real* d_k, real* d_v, const long long* groups_or_null,
    const int* last_or_null, int n_queries, int n_keys, int n_heads, int n_kv_heads,
    long long q_batch, long long q_token, long long q_head, long long kv_batch, long long kv_token,
    long long kv_head, long long group_batch, int is_causal, float scale)
{
    Shape shape = {n_queries, n_keys, n_heads, n_kv_heads, group_batch, is_causal};
    Strides strides = {q_batch, q_token, q_head, kv_batch, kv_token, kv_head};
    backward<128, true>(q, k, v, d_out, lse, delta, d_q, d_k, d_v, groups_or_null, last_or_null,
                        shape, strides, scale);
}

// ---- backward, the same bits every time --------------------------------------------------------
// dQ is computed by blocks of queries, as in the forward pass, so that nothing is added up in
// global memory. The scores and dP are computed twice: seven products instead of five.

template <int WIDTH>
__device__ inline void backward_q(const real* q, const real* k, const real* v, const real* d_out,
                                  const float* lse, const float* delta, real* d_q,
                                  const long long* groups_or_null, const int* first_or_null,
                                  const Shape& shape, const Strides& strides, float scale) {
    constexpr int N_Q = WARPS * 16;
    DYNAMIC_SHARED(real, q_tile);
    real *do_tile = q_tile + N_Q * WIDTH, *k_tile = do_tile + N_Q * WIDTH;
    real* v_tile = k_tile + 2 * KEYS * WIDTH;
    int first_row = (gridDim.x - 1 - blockIdx.x) * N_Q, head = blockIdx.y, batch = blockIdx.z;
    int offset = shape.first_position(), lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * 16;
    q += batch * strides.q_batch + head * strides.q_head;
    d_out += shape.out_row(batch, head) * WIDTH;
    k += batch * strides.kv_batch + shape.kv_head_of(head) * strides.kv_head;
    v += batch * strides.kv_batch + shape.kv_head_of(head) * strides.kv_head;
    const long long* groups = groups_or_null ? groups_or_null + batch * shape.group_batch : 0;

    int position = first_row + offset;
    Tiles tiles = tiles_of_keys(first_or_null, shape, batch, first_row, N_Q, KEYS);
    auto fetch_keys = [&](int i) {
        int half = i % 2 * KEYS * WIDTH, key = (tiles.begin + i) * KEYS;
        fetch<WIDTH, KEYS>(k_tile + half, k, strides.kv_token, key, shape.n_keys);
        fetch<WIDTH, KEYS>(v_tile + half, v, strides.kv_token, key, shape.n_keys);
    };
    fetch<WIDTH, N_Q>(q_tile, q, strides.q_token, first_row, shape.n_queries);
    fetch<WIDTH, N_Q>(do_tile, d_out, (long long)shape.n_heads * WIDTH, first_row, shape.n_queries);
    if (tiles.n > 0) fetch_keys(0);
    cp_async_commit();

    float dq[1][WIDTH / 8][4], row_lse[2], row_delta[2], log2_scale = scale * LOG2_E;
    long long row_group[2];
    set_zero(dq);
    #pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = first_row + warp_row + lane / 4 + half * 8;
        bool is_there = row < shape.n_queries;
        size_t at = shape.score_row(batch, head) + row;
        row_lse[half] = is_there ? as_log2(lse[at]) : INFINITY;
        row_delta[half] = is_there ? delta[at] : 0;
        row_group[half] = groups && is_there && row + offset >= 0 ? groups[row + offset] : 0;
    }
    for (int i = 0; i < tiles.n; i++) {
        int half = i % 2 * KEYS * WIDTH;
        cp_async_wait<0>();
        __syncthreads();   // this tile is there, and the one before it is no longer read
        if (i + 1 < tiles.n) fetch_keys(i + 1);
        cp_async_commit();
        float s[1][KEYS / 8][4], dp[1][KEYS / 8][4];
        set_zero(s), set_zero(dp);
        #pragma unroll
        for (int kk = 0; kk < WIDTH / 16; kk++) {
            unsigned a[1][4];
            load_a<WIDTH>(a[0], q_tile, warp_row, kk);
            multiply_along<WIDTH>(s, a, k_tile + half, kk);
            load_a<WIDTH>(a[0], do_tile, warp_row, kk);
            multiply_along<WIDTH>(dp, a, v_tile + half, kk);
        }
        mask(s[0], shape, position + warp_row + lane / 4, (tiles.begin + i) * KEYS, groups,
             row_group[0], row_group[1]);
        #pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
            #pragma unroll
            for (int i = 0; i < 4; i++) {
                float p = exp2_approx(s[0][n][i] * log2_scale - row_lse[i / 2]);
                dp[0][n][i] = p * (dp[0][n][i] - row_delta[i / 2]);
            }
        #pragma unroll
        for (int kk = 0; kk < KEYS / 16; kk++) {
            unsigned ds[1][4];
            as_a(ds[0], dp[0], kk);
            multiply_across<WIDTH>(dq, ds, k_tile + half, kk);
        }
    }
    cp_async_wait<0>();
    #pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = first_row + warp_row + lane / 4 + half * 8;
        if (row >= shape.n_queries) continue;
        real* to = d_q + (shape.out_row(batch, head) + (size_t)row * shape.n_heads) * WIDTH
                 + lane % 4 * 2;
        #pragma unroll
        for (int n = 0; n < WIDTH / 8; n++)
            *(unsigned*)(to + n * 8) = pack(dq[0][n][2 * half] * scale,
                                            dq[0][n][2 * half + 1] * scale);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) attention_mma_backward_kv_64(
    const real* q, const real* k, const real* v, const real* d_out, const float* lse,
    const float* delta, real* d_k, real* d_v, const long long* groups_or_null,
    const int* last_or_null, int n_queries, int n_keys, int n_heads, int n_kv_heads,
    long long q_batch, long long q_token, long long q_head, long long kv_batch, long long kv_token,
    long long kv_head, long long group_batch, int is_causal, float scale)
{
    Shape shape = {n_queries, n_keys, n_heads, n_kv_heads, group_batch, is_causal};
    Strides strides = {q_batch, q_token, q_head, kv_batch, kv_token, kv_head};
    backward<64, false>(q, k, v, d_out, lse, delta, 0, d_k, d_v, groups_or_null, last_or_null,
                        shape, strides, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS) attention_mma_backward_q_64(
    const real* q, const real* k, const real* v, const real* d_out, const float* lse,
    const float* delta, real* d_q, const long long* groups_or_null,
    const int* first_or_null, int n_queries, int n_keys, int n_heads, int n_kv_heads,
    long long q_batch, long long q_token, long long q_head, long long kv_batch, long long kv_token,
    long long kv_head, long long group_batch, int is_causal, float scale)
{
    Shape shape = {n_queries, n_keys, n_heads, n_kv_heads, group_batch, is_causal};
    Strides strides = {q_batch, q_token, q_head, kv_batch, kv_token, kv_head};
    backward_q<64>(q, k, v, d_out, lse, delta, d_q, groups_or_null, first_or_null, shape, strides,
                   scale);
}

extern "C" __global__ void __launch_bounds__(THREADS) attention_mma_backward_kv_128(
    const real* q, const real* k, const real* v, const real* d_out, const float* lse,
    const float* delta, real* d_k, real* d_v, const long long* groups_or_null,
    const int* last_or_null, int n_queries, int n_keys, int n_heads, int n_kv_heads,
    long long q_batch, long long q_token, long long q_head, long long kv_batch, long long kv_token,
    long long kv_head, long long group_batch, int is_causal, float scale)
{
    Shape shape = {n_queries, n_keys, n_heads, n_kv_heads, group_batch, is_causal};
    Strides strides = {q_batch, q_token, q_head, kv_batch, kv_token, kv_head};
    backward<128, false>(q, k, v, d_out, lse, delta, 0, d_k, d_v, groups_or_null, last_or_null,
                        shape, strides, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS) attention_mma_backward_q_128(
    const real* q, const real* k, const real* v, const real* d_out, const float* lse,
    const float* delta, real* d_q, const long long* groups_or_null,
    const int* first_or_null, int n_queries, int n_keys, int n_heads, int n_kv_heads,
    long long q_batch, long long q_token, long long q_head, long long kv_batch, long long kv_token,
    long long kv_head, long long group_batch, int is_causal, float scale)
{
    Shape shape = {n_queries, n_keys, n_heads, n_kv_heads, group_batch, is_causal};
    Strides strides = {q_batch, q_token, q_head, kv_batch, kv_token, kv_head};
    backward_q<128>(q, k, v, d_out, lse, delta, d_q, groups_or_null, first_or_null, shape, strides,
                   scale);
}
