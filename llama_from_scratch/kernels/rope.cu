// RoPE: every pair of channels of every query and key head is turned by its token's angle.
//
// A pair (a, b) is the complex number a + ib; the table holds one unit number cos + i sin per token
// and pair, in fp32:
//     a' = a cos - b sin        b' = a sin + b cos
// Backward: a turn is an orthogonal matrix, so its transpose, which carries gradients back, is the
// turn by minus the angle. The same kernel does it with direction = -1, which changes the sign of
// every sin.
//
// Layout: a pair is two neighbors (2r, 2r+1) as in Meta's files and our model, or, with is_half,
// (r, r + K/2) as in Hugging Face's. Heads are numbered in one row, first q's, then k's:
// both are turned in one launch.
//
// All rungs share one geometry. blockIdx.x and threadIdx.y count tokens, blockIdx.y heads,
// blockIdx.z and threadIdx.x pairs (or vectors of them) of a head. The table has n_rows rows: one
// per token, or one per position if the sequences share them.
#include "common.cuh"

constexpr int THREADS = 256;
constexpr int HEADS = 2;   // in flight per thread of the last rung: with 2 vectors each, 4 loads

__device__ inline void turn(real& a, real& b, accum cosine, accum sine) {
    accum x = widen(a), y = widen(b);
    a = narrow(x * cosine - y * sine);
    b = narrow(x * sine + y * cosine);
}

// Where head `head` of this token begins, in q or k. Products of sizes are size_t: they pass 2^31
// in one long batch.
template <class Pointer>
__device__ inline Pointer head_of(Pointer q, Pointer k, size_t token, int head, int n_q_heads,
                                  int n_k_heads, int head_dim) {
    if (head < n_q_heads) return q + (token * n_q_heads + head) * head_dim;
    return k + (token * n_k_heads + (head - n_q_heads)) * head_dim;
}

// Rung 1. One thread per pair and head. Each fetches 8 bytes of table to turn 4 bytes of bf16: the
// table is read once per head, so all heads together ask for more angles than channels.
extern "C" __global__ void __launch_bounds__(THREADS) rope_1(
    const real* q, const real* k, const float* rotation, real* q_out, real* k_out,
    int n_tokens, int n_rows, int n_q_heads, int n_k_heads, int head_dim, int is_half,
    float direction)
{
    int pair = blockIdx.z * blockDim.x + threadIdx.x, head = blockIdx.y, n_pairs = head_dim / 2;
    unsigned token = blockIdx.x * blockDim.y + threadIdx.y;
    if (token >= (unsigned)n_tokens || pair >= n_pairs) return;
    const float* angle = rotation + ((size_t)(token % n_rows) * n_pairs + pair) * 2;
    const real* x = head_of(q, k, token, head, n_q_heads, n_k_heads, head_dim);
    real* out = head_of(q_out, k_out, token, head, n_q_heads, n_k_heads, head_dim);
    int first = is_half ? pair : 2 * pair, second = is_half ? pair + n_pairs : 2 * pair + 1;
    real a = x[first], b = x[second];
    turn(a, b, angle[0], angle[1] * direction);
    out[first] = a, out[second] = b;
}

// Rung 2. All heads of a token turn by the same angles. A thread keeps its pair's cos and sin in
// registers and visits the heads one after another, so the table is read once. The rung also serves
// where K/2 is no multiple of a vector.
extern "C" __global__ void __launch_bounds__(THREADS) rope_2(
    const real* q, const real* k, const float* rotation, real* q_out, real* k_out,
    int n_tokens, int n_rows, int n_q_heads, int n_k_heads, int head_dim, int is_half,
    float direction)
{
    int pair = blockIdx.z * blockDim.x + threadIdx.x, n_pairs = head_dim / 2;
    unsigned token = blockIdx.x * blockDim.y + threadIdx.y;
    if (token >= (unsigned)n_tokens || pair >= n_pairs) return;
    const float* angle = rotation + ((size_t)(token % n_rows) * n_pairs + pair) * 2;
    accum cosine = angle[0], sine = angle[1] * direction;
    int first = is_half ? pair : 2 * pair, second = is_half ? pair + n_pairs : 2 * pair + 1;
    for (int head = blockIdx.y; head < n_q_heads + n_k_heads; head += gridDim.y) {
        const real* x = head_of(q, k, token, head, n_q_heads, n_k_heads, head_dim);
        real* out = head_of(q_out, k_out, token, head, n_q_heads, n_k_heads, head_dim);
        real a = x[first], b = x[second];
        turn(a, b, cosine, sine);
        out[first] = a, out[second] = b;
    }
}

// Pairs per access to the table: two are 16 bytes. The double program has one.
constexpr int TOGETHER = VECTOR > 2 ? 2 : 1;
struct alignas(8 * TOGETHER) Angles { float at[2 * TOGETHER]; };

__device__ inline void turn_halves(Vector& low, Vector& high, const accum* cosine,
                                   const accum* sine) {
    #pragma unroll
    for (int i = 0; i < VECTOR; i++) turn(low.at[i], high.at[i], cosine[i], sine[i]);
}

__device__ inline void turn_neighbors(Vector& low, Vector& high, const accum* cosine,
                                      const accum* sine) {
    #pragma unroll
    for (int i = 0; i < VECTOR / 2; i++) {
        turn(low.at[2 * i], low.at[2 * i + 1], cosine[i], sine[i]);
        turn(high.at[2 * i], high.at[2 * i + 1], cosine[i + VECTOR / 2], sine[i + VECTOR / 2]);
    }
}

// Rung 3. 16 bytes per access, and several accesses on their way. A thread holds one vector in the
// lower half of the head and one in the upper: with is_half these are the two ends of its VECTOR
// pairs, otherwise VECTOR/2 whole pairs each. So the addresses are the same in both layouts, and
// only the partner of a channel differs. Needs K/2 to be a multiple of VECTOR.
extern "C" __global__ void __launch_bounds__(THREADS) rope(
    const real* q, const real* k, const float* rotation, real* q_out, real* k_out,
    int n_tokens, int n_rows, int n_q_heads, int n_k_heads, int head_dim, int is_half,
    float direction)
{
    int n_pairs = head_dim / 2, n_heads = n_q_heads + n_k_heads;
    int low_at = (blockIdx.z * blockDim.x + threadIdx.x) * VECTOR, high_at = low_at + n_pairs;
    unsigned token = blockIdx.x * blockDim.y + threadIdx.y;
    if (token >= (unsigned)n_tokens || low_at >= n_pairs) return;

    accum cosine[VECTOR], sine[VECTOR];
    const float* row = rotation + (size_t)(token % n_rows) * n_pairs * 2;
    #pragma unroll
    for (int i = 0; i < VECTOR; i += TOGETHER) {
        int pair = is_half        ? low_at + i
                 : i < VECTOR / 2 ? low_at / 2 + i
                                  : high_at / 2 + i - VECTOR / 2;
        Angles angles = *(const Angles*)(row + 2 * pair);
        for (int j = 0; j < TOGETHER; j++)
            cosine[i + j] = angles.at[2 * j], sine[i + j] = angles.at[2 * j + 1] * direction;
    }

    for (int head = blockIdx.y * HEADS; head < n_heads; head += gridDim.y * HEADS) {
        Vector low[HEADS], high[HEADS];
        #pragma unroll
        for (int h = 0; h < HEADS; h++) if (head + h < n_heads) {
            const real* x = head_of(q, k, token, head + h, n_q_heads, n_k_heads, head_dim);
            low[h] = load_once(x + low_at), high[h] = load_once(x + high_at);
        }
        #pragma unroll
        for (int h = 0; h < HEADS; h++) if (head + h < n_heads) {
            if (is_half) turn_halves(low[h], high[h], cosine, sine);
            else turn_neighbors(low[h], high[h], cosine, sine);
            real* out = head_of(q_out, k_out, token, head + h, n_q_heads, n_k_heads, head_dim);
            store(out + low_at, low[h]), store(out + high_at, high[h]);
        }
    }
}
