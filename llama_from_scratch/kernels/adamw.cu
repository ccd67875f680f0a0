// AdamW for all parameters of a model at once. Notebook 36.
//
// A step reads and writes the fp32 weights and both averages and reads the gradient: 28 bytes per
// bf16 parameter, a dozen additions. Written with PyTorch's functions it is a handful of passes per
// tensor, each of them over memory; here every number is touched once, by one launch, whatever the
// number of tensors.
//
// `tensors` has one row of FIELDS numbers per parameter: the addresses of the fp32 weights, of the
// two averages, of the gradient, of the copy that the model computes with (0 where that is the fp32
// weights themselves), and its size. A chunk is CHUNK elements of one tensor: the unit of work of
// one block.
//
// `plan` is what one step needs to know. The device writes it and the device reads it: neither the
// length of the gradient nor the decision to skip a step ever travels to the CPU, so the CPU never
// waits and a CUDA graph can hold the whole step.
#include "common.cuh"

constexpr int THREADS = 256;
constexpr int CHUNK = 16384;
enum Field { MASTER, MEAN, SQUARE, GRADIENT, COPY, SIZE, FIELDS };
enum Plan { NORM, SCALE, LENGTH, EPS, LR, GO };

// The formula, for one element. The plan is read into registers first. Otherwise it would be read
// from memory again for every element, because the compiler cannot know that the stores leave it
// unchanged.
struct Rule {
    accum scale, length, eps, lr, beta1, beta2;

    __device__ Rule(const accum* plan, accum beta1, accum beta2)
        : scale(plan[SCALE]), length(plan[LENGTH]), eps(plan[EPS]), lr(plan[LR]),
          beta1(beta1), beta2(beta2) {}

    __device__ void apply(real gradient, accum& weight, accum& mean, accum& square,
                          accum decay) const {
        accum g = widen(gradient) * scale;
        mean += (1 - beta1) * (g - mean);
        square = beta2 * square + (1 - beta2) * g * g;
        weight = weight * (1 - lr * decay) - quotient(length * mean, root(square) + eps);
    }
};

// ---- rung 1: one thread per element, one launch per tensor --------------------------------------
// The right bytes, once each. But a model has hundreds of tensors, most of them small: each launch
// costs microseconds in which a GPU could have moved megabytes, and a norm of 4,096 weights cannot
// fill 132 multiprocessors.
extern "C" __global__ void __launch_bounds__(THREADS) adamw_1(
    accum* master, accum* mean, accum* square, const real* gradient, real* copy_or_null,
    long long size, const accum* plan, accum beta1, accum beta2, accum decay)
{
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size || plan[GO] == 0) return;
    Rule(plan, beta1, beta2).apply(gradient[i], master[i], mean[i], square[i], decay);
    if (copy_or_null) copy_or_null[i] = narrow(master[i]);
}

// ---- rung 2: one launch for all tensors ---------------------------------------------------------
// A block takes chunk after chunk, of any tensor. Still one element per thread: a
// warp's access to bf16 moves only 64 bytes, and each thread waits for four loads where it could
// wait for many.
struct Chunk {
    accum *master, *mean, *square, *end;
    const real* gradient;
    real* copy;
    accum decay;

    __device__ Chunk(const long long* tensors, const accum* decays, int tensor, long long start) {
        const long long* row = tensors + (size_t)tensor * FIELDS;
        long long left = row[SIZE] - start;
        master = (accum*)row[MASTER] + start;
        mean = (accum*)row[MEAN] + start;
        square = (accum*)row[SQUARE] + start;
        gradient = (const real*)row[GRADIENT] + start;
        copy = row[COPY] ? (real*)row[COPY] + start : nullptr;
        end = master + (left < CHUNK ? left : CHUNK);
        decay = decays[tensor];
    }

    // Chunks begin at multiples of CHUNK, so they are aligned where their tensor is.
    __device__ bool is_aligned() const {
        return (((size_t)master | (size_t)mean | (size_t)square | (size_t)gradient
                 | (size_t)copy) & 15) == 0;
    }

    __device__ void step(int i, Rule rule) const {
        rule.apply(gradient[i], master[i], mean[i], square[i], decay);
        if (copy) copy[i] = narrow(master[i]);
    }
};

extern "C" __global__ void __launch_bounds__(THREADS) adamw_2(
    const long long* tensors, const accum* decays, const int* chunk_tensor,
    const long long* chunk_start, int n_chunks, const accum* plan, accum beta1, accum beta2)
{
    if (plan[GO] == 0) return;
    Rule rule(plan, beta1, beta2);
    for (int c = blockIdx.x; c < n_chunks; c += gridDim.x) {
        Chunk chunk(tensors, decays, chunk_tensor[c], chunk_start[c]);
        for (int i = threadIdx.x; i < chunk.end - chunk.master; i += THREADS) chunk.step(i, rule);
    }
}

// ---- rung 3: 16 bytes at a time -----------------------------------------------------------------
// VECTOR elements per thread: for bf16 one 16-byte load of gradients and two each of weights and
// averages, seven that do not wait for one another. The last few elements of a tensor, or a tensor
// that a view has put off the 16-byte grid, go one by one.
constexpr int WIDE = sizeof(accum) / sizeof(real);   // 16-byte loads of accum for one of real
constexpr int BLOCKS = sizeof(real) == 8 ? 2 : 4;    // per processor, so that nothing spills

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) adamw(
    const long long* tensors, const accum* decays, const int* chunk_tensor,
    const long long* chunk_start, int n_chunks, const accum* plan, accum beta1, accum beta2)
{
    if (plan[GO] == 0) return;
    Rule rule(plan, beta1, beta2);
    for (int c = blockIdx.x; c < n_chunks; c += gridDim.x) {
        Chunk chunk(tensors, decays, chunk_tensor[c], chunk_start[c]);
        int size = chunk.end - chunk.master;
        int vectorised = chunk.is_aligned() ? size / VECTOR * VECTOR : 0;
        for (int i = threadIdx.x * VECTOR; i < vectorised; i += THREADS * VECTOR) {
            Vector gradient = load_once(chunk.gradient + i), copy;
            VectorOf<accum> master[WIDE], mean[WIDE], square[WIDE];
            #pragma unroll
            for (int w = 0; w < WIDE; w++) {
                int at = i + w * VECTOR / WIDE;
                master[w] = load_once(chunk.master + at);
                mean[w] = load_once(chunk.mean + at);
                square[w] = load_once(chunk.square + at);
            }
            #pragma unroll
            for (int j = 0; j < VECTOR; j++) {
                int w = j / (VECTOR / WIDE), k = j % (VECTOR / WIDE);
                rule.apply(gradient.at[j], master[w].at[k], mean[w].at[k], square[w].at[k],
                           chunk.decay);
                copy.at[j] = narrow(master[w].at[k]);
            }
            #pragma unroll
            for (int w = 0; w < WIDE; w++) {
                int at = i + w * VECTOR / WIDE;
                store_once(chunk.master + at, master[w]);
                store_once(chunk.mean + at, mean[w]);
                store_once(chunk.square + at, square[w]);
            }
            if (chunk.copy) store_once(chunk.copy + i, copy);
        }
        for (int i = vectorised + threadIdx.x; i < size; i += THREADS) chunk.step(i, rule);
    }
}

// ---- the length of the gradient, and the plan ---------------------------------------------------
// Two levels, both in a fixed order, so the same gradients give the same bits: one sum of squares
// per chunk, then one block adds the chunks. Atomic additions would save the second launch and cost
// that.
extern "C" __global__ void __launch_bounds__(THREADS) gradient_squares(
    const long long* tensors, const accum* decays, const int* chunk_tensor,
    const long long* chunk_start, int n_chunks, accum* squares)
{
    __shared__ accum per_warp[THREADS / 32];
    for (int c = blockIdx.x; c < n_chunks; c += gridDim.x) {
        Chunk chunk(tensors, decays, chunk_tensor[c], chunk_start[c]);
        int size = chunk.end - chunk.master;
        int vectorised = ((size_t)chunk.gradient & 15) == 0 ? size / VECTOR * VECTOR : 0;
        accum sum = 0;
        for (int i = threadIdx.x * VECTOR; i < vectorised; i += THREADS * VECTOR) {
            Vector gradient = load_once(chunk.gradient + i);
            #pragma unroll
            for (int j = 0; j < VECTOR; j++) sum += widen(gradient.at[j]) * widen(gradient.at[j]);
        }
        for (int i = vectorised + threadIdx.x; i < size; i += THREADS)
            sum += widen(chunk.gradient[i]) * widen(chunk.gradient[i]);
        sum = block_sum(sum, per_warp);
        if (threadIdx.x == 0) squares[c] = sum;
    }
}

// One block. Without clipping n_chunks is 0, and the step goes ahead whatever the gradients are. A
// norm that is not finite sets GO to 0: no weight, no average and no step count changes.
extern "C" __global__ void __launch_bounds__(THREADS) make_plan(
    const accum* squares, int n_chunks, accum max_norm, const double* lr, double beta1,
    double beta2, double eps, long long* n_steps, accum* plan)
{
    __shared__ accum per_warp[THREADS / 32];
    accum sum = 0;
    for (int c = threadIdx.x; c < n_chunks; c += THREADS) sum += squares[c];
    sum = block_sum(sum, per_warp);
    if (threadIdx.x) return;
    accum norm = sqrt(sum);
    bool is_finite = norm - norm == 0;   // of infinity and of NaN this is NaN
    if (is_finite) n_steps[0]++;
    double root = sqrt(1 - pow(beta2, (double)n_steps[0]));   // as both averages started at 0
    plan[NORM] = norm;
    plan[SCALE] = norm > max_norm ? max_norm / norm : 1;
    plan[LENGTH] = (accum)(lr[0] * root / (1 - pow(beta1, (double)n_steps[0])));
    plan[EPS] = (accum)(eps * root);
    plan[LR] = (accum)lr[0];
    plan[GO] = is_finite ? 1 : 0;
}
