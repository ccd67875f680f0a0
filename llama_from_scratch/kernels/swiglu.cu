// SwiGLU's gate: y = silu(gate) * up, number by number, and its backward pass.
//
// With s = 1 / (1 + exp(-gate)):   silu(gate) = gate s,   silu'(gate) = s (1 + gate (1 - s)).
// Only memory is slow here: forward reads two numbers and writes one, backward reads three and
// writes two. So all that counts is that every byte moves once, in accesses of 16 bytes, with
// enough of them on their way at any time.
//
// Rounding: PyTorch writes silu(gate) to memory before it multiplies, which rounds it. We multiply
// at once, but round in the same place, so that a model gives the same numbers with this kernel as
// without. The gradients have no such intermediate results that anyone could see: they are computed
// in fp32 and rounded once.
#include "common.cuh"

constexpr int THREADS = 256;
constexpr int VECTORS = 2;                           // of each tensor, per thread and step
constexpr size_t TILE = (size_t)THREADS * VECTORS;   // vectors that a block moves in one step

// exp overflows to infinity for gates below -88, and the quotient is then 0, as it should be.
__device__ inline accum sigmoid(accum x) { return quotient(1, 1 + exponential(-x)); }

__device__ inline real gated(real gate, real up) {
    accum x = widen(gate);
    return narrow(rounded(x * sigmoid(x)) * widen(up));
}

// The gradients of y by gate and up, times the gradient of the loss by y. `up` was multiplied by
// the rounded silu, so that is its gradient; through the rounding itself the gradient passes
// unchanged.
__device__ inline void gradients(real d_y, real gate, real up, real& d_gate, real& d_up) {
    accum d = widen(d_y), x = widen(gate), s = sigmoid(x);
    d_gate = narrow(d * widen(up) * s * (1 + x * (1 - s)));
    d_up = narrow(d * rounded(x * s));
}

// Rung 1. One thread per number. Neighbors in a warp read neighbors in memory, so no byte is
// fetched in vain; but a warp asks for 64 bytes at a time (bf16), and the processor reaches its
// limit of requests before memory reaches its own.
extern "C" __global__ void __launch_bounds__(THREADS) swiglu_forward_1(
    const real* gate, const real* up, real* y, long long n)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < (size_t)n) y[i] = gated(gate[i], up[i]);
}

__device__ inline void forward_vector(const real* gate, const real* up, real* y, size_t at) {
    Vector g = load(gate + at), u = load(up + at), out;
    for (int i = 0; i < VECTOR; i++) out.at[i] = gated(g.at[i], u.at[i]);
    store(y + at, out);
}

// Rung 2. 16 bytes per access: an eighth of the requests for the same bytes. The numbers after the
// last whole vector, fewer than VECTOR, go one each to the first threads of the grid.
extern "C" __global__ void __launch_bounds__(THREADS) swiglu_forward_2(
    const real* gate, const real* up, real* y, long long n)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    size_t n_vectors = n / VECTOR, rest = n_vectors * VECTOR + i;
    if (i < n_vectors) forward_vector(gate, up, y, i * VECTOR);
    if (rest < (size_t)n) y[rest] = gated(gate[rest], up[rest]);
}

// Rung 3. A thread that has asked for its bytes waits most of a microsecond. It asks for VECTORS
// vectors of each tensor before it uses the first; together, the threads then keep memory busy
// without a break. The loop lets any grid do any size.
extern "C" __global__ void __launch_bounds__(THREADS) swiglu_forward(
    const real* gate, const real* up, real* y, long long n)
{
    size_t n_vectors = n / VECTOR, rest = n_vectors * VECTOR + (size_t)blockIdx.x * THREADS + threadIdx.x;
    for (size_t tile = blockIdx.x * TILE; tile < n_vectors; tile += gridDim.x * TILE) {
        Vector g[VECTORS], u[VECTORS];
        for (int j = 0; j < VECTORS; j++) {
            size_t i = tile + j * THREADS + threadIdx.x;
            if (i < n_vectors) g[j] = load_once(gate + i * VECTOR), u[j] = load_once(up + i * VECTOR);
        }
        for (int j = 0; j < VECTORS; j++) {
            size_t i = tile + j * THREADS + threadIdx.x;
            Vector out;
            for (int e = 0; e < VECTOR; e++) out.at[e] = gated(g[j].at[e], u[j].at[e]);
            if (i < n_vectors) store(y + i * VECTOR, out);
        }
    }
    if (rest < (size_t)n) y[rest] = gated(gate[rest], up[rest]);
}

// Backward keeps no result of the forward pass: exp is cheaper to compute again than to fetch.
extern "C" __global__ void __launch_bounds__(THREADS) swiglu_backward_1(
    const real* d_y, const real* gate, const real* up, real* d_gate, real* d_up, long long n)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < (size_t)n) gradients(d_y[i], gate[i], up[i], d_gate[i], d_up[i]);
}

// Three loads on their way per thread are enough here: more would need more registers, and the
// processor would then hold fewer threads.
extern "C" __global__ void __launch_bounds__(THREADS) swiglu_backward(
    const real* d_y, const real* gate, const real* up, real* d_gate, real* d_up, long long n)
{
    size_t n_vectors = n / VECTOR, first = (size_t)blockIdx.x * THREADS + threadIdx.x;
    size_t rest = n_vectors * VECTOR + first;
    for (size_t i = first; i < n_vectors; i += (size_t)gridDim.x * THREADS) {
        Vector d = load_once(d_y + i * VECTOR);
        Vector g = load_once(gate + i * VECTOR), u = load_once(up + i * VECTOR);
        #pragma unroll
        for (int e = 0; e < VECTOR; e++) gradients(d.at[e], g.at[e], u.at[e], g.at[e], u.at[e]);
        store(d_gate + i * VECTOR, g), store(d_up + i * VECTOR, u);
    }
    if (rest < (size_t)n) gradients(d_y[rest], gate[rest], up[rest], d_gate[rest], d_up[rest]);
}
