// What every kernel of this folder shares: number types, 16-byte memory accesses, and sums over
// warps and blocks.
//
// The dtype of a program is a compile flag: -DREAL=float, bf16, fp16 or double. Tensors hold
// `real`; sums and everything that rounding could hurt run in `accum`, which is fp32, or fp64 in
// the double program (it exists so that gradients can be checked by finite differences). This
// file, tensor_cores.cuh and hopper.cuh are the only ones that know whether they are compiled for a
// GPU or for a CPU.
#pragma once

#ifdef CUDA_ON_CPU
#include "cuda_on_cpu.h"
#elif !defined(INFINITY)   // NVRTC has no math.h
#define INFINITY __int_as_float(0x7f800000)
#endif

struct bf16 { unsigned short bits; };   // half of an fp32: 8 bits of exponent, 7 of fraction
struct fp16 { unsigned short bits; };   // IEEE half: 5 bits of exponent, 10 of fraction

#ifndef REAL
#define REAL float
#endif
typedef REAL real;

template <class T> struct AccumOf { typedef float type; };
template <> struct AccumOf<double> { typedef double type; };
typedef AccumOf<real>::type accum;
constexpr accum LOG2_E = 1.4426950408889634, LN_2 = 0.69314718055994531;

// ---- conversions: widen is exact, narrow rounds to nearest, ties to even ------------------------

__device__ inline double widen(double x) { return x; }
__device__ inline float widen(float x) { return x; }
__device__ inline float widen(bf16 x) { return __uint_as_float((unsigned)x.bits << 16); }

__device__ inline void round_to(double x, double& y) { y = x; }
__device__ inline void round_to(float x, float& y) { y = x; }

// Without an instruction for it: a carry out of the lower half, by hand.
#if defined(CUDA_ON_CPU) || __CUDA_ARCH__ < 800
__device__ inline void round_to(float x, bf16& y) {
    unsigned bits = __float_as_uint(x);
    bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    y.bits = is_nan ? 0x7fff : (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
#else
__device__ inline void round_to(float x, bf16& y) {
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
}
#endif

#ifdef CUDA_ON_CPU
__device__ inline float widen(fp16 x) { return emu::float_from_half(x.bits); }
__device__ inline void round_to(float x, fp16& y) { y.bits = emu::half_from_float(x); }
#else
__device__ inline float widen(fp16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}
__device__ inline void round_to(float x, fp16& y) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
}
#endif

__device__ inline real narrow(accum x) { real y; round_to(x, y); return y; }
// x as it would come back from memory.
__device__ inline accum rounded(accum x) { return widen(narrow(x)); }

__device__ inline float inverse_root(float x) { return rsqrtf(x); }
__device__ inline double inverse_root(double x) { return 1.0 / sqrt(x); }
// The exactly rounded root and quotient of fp32 are subroutine calls on a GPU; these are one
// instruction each, off by at most two units in the last place.
#ifdef CUDA_ON_CPU
__device__ inline float root(float x) { return sqrtf(x); }
#else
__device__ inline float root(float x) {
    float y;
    asm("sqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#endif
__device__ inline double root(double x) { return sqrt(x); }
// 0 for |y| over 2^126.
__device__ inline float quotient(float x, float y) { return __fdividef(x, y); }
__device__ inline double quotient(double x, double y) { return x / y; }
__device__ inline float exponential(float x) { return expf(x); }
__device__ inline double exponential(double x) { return exp(x); }

// (x & mask) | bits: one `lop3`, which computes any function of three bits, here by the table 0xea.
#ifdef CUDA_ON_CPU
__device__ inline unsigned mask_and_set(unsigned x, unsigned mask, unsigned bits) {
    return (x & mask) | bits;
}
#else
__device__ inline unsigned mask_and_set(unsigned x, unsigned mask, unsigned bits) {
    unsigned y;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(y) : "r"(x), "r"(mask), "r"(bits));
    return y;
}
#endif

// ---- memory: 16 bytes are the most that one thread can move with one instruction ----------------

template <class T> struct alignas(16) VectorOf {
    union {
        // First, so that vectors are moved as words; numbers of 2 bytes would take a register each.
        unsigned word[4];
        T at[16 / sizeof(T)];
    };
};
typedef VectorOf<real> Vector;
constexpr int VECTOR = 16 / sizeof(real);

#ifdef CUDA_ON_CPU   // to the emulator's eyes, too, this must be one access, not VECTOR of them
template <class T> EMU_NO_TRACE inline VectorOf<T> load(const T* p, EMU_HERE) {
    VectorOf<T> v;
    emu::access16(p, false, at);
    __builtin_memcpy(&v, p, 16);
    return v;
}
template <class T> EMU_NO_TRACE inline void store(T* p, VectorOf<T> v, EMU_HERE) {
    emu::access16(p, true, at);
    __builtin_memcpy(p, &v, 16);
}
template <class T> EMU_NO_TRACE inline VectorOf<T> load_once(const T* p, EMU_HERE) {
    return load(p, at);
}
template <class T> EMU_NO_TRACE inline void store_once(T* p, VectorOf<T> v, EMU_HERE) {
    store(p, v, at);
}
#define DYNAMIC_SHARED(type, name) type* name = (type*)emu::dynamic_shared()
#else
template <class T> __device__ inline VectorOf<T> load(const T* p) { return *(const VectorOf<T>*)p; }
template <class T> __device__ inline void store(T* p, VectorOf<T> v) { *(VectorOf<T>*)p = v; }

// For what is not read a second time: it is the first to leave the cache, so that what is needed
// again can stay.
template <class T> __device__ inline VectorOf<T> load_once(const T* p) {
    int4 bits = __ldcs((const int4*)p);
    return *(VectorOf<T>*)&bits;
}
template <class T> __device__ inline void store_once(T* p, VectorOf<T> v) {
    __stcs((int4*)p, *(int4*)&v);
}
#define DYNAMIC_SHARED(type, name) \
    extern __shared__ __align__(1024) unsigned char name##_bytes[]; \
    type* name = (type*)name##_bytes
#endif

// ---- whole vectors: to accum and back, two numbers of 2 bytes at a time -------------------------
//
// A vector of bf16 waits in 4 registers as it came from memory; its elements, one by one, would
// take one register each, twice that when widened. So a vector that has to wait is not touched by
// element: it is widened into an array where it is needed and narrowed back as a whole, by half as
// many instructions. The empty asm keeps the compiler from holding on to the array of an earlier
// widening instead, which it would do as an optimization.

__device__ inline unsigned narrow_pair(float low, float high, bf16*) {
#if defined(CUDA_ON_CPU) || __CUDA_ARCH__ < 800
    bf16 a, b;
    round_to(low, a), round_to(high, b);
    return a.bits | (unsigned)b.bits << 16;
#else
    unsigned word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
#endif
}
__device__ inline unsigned narrow_pair(float low, float high, fp16*) {
#if defined(CUDA_ON_CPU) || __CUDA_ARCH__ < 800
    fp16 a, b;
    round_to(low, a), round_to(high, b);
    return a.bits | (unsigned)b.bits << 16;
#else
    unsigned word;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
#endif
}
__device__ inline void widen_pair(unsigned word, float* x, bf16*) {
    x[0] = __uint_as_float(word << 16), x[1] = __uint_as_float(word & 0xffff0000u);
}
__device__ inline void widen_pair(unsigned word, float* x, fp16*) {
    x[0] = widen(fp16{(unsigned short)word}), x[1] = widen(fp16{(unsigned short)(word >> 16)});
}

template <class T> __device__ inline void widen(VectorOf<T> v, float (&x)[8]) {
    #pragma unroll
    for (int i = 0; i < 4; i++) {
        asm volatile("" : "+r"(v.word[i]));
        widen_pair(v.word[i], x + 2 * i, (T*)0);
    }
}
// For float and double.
template <class T> __device__ inline void widen(VectorOf<T> v, T (&x)[16 / sizeof(T)]) {
    #pragma unroll
    for (int i = 0; i < 16 / sizeof(T); i++) x[i] = v.at[i];
}
template <class T> __device__ inline void round_to(const float (&x)[8], VectorOf<T>& v) {
    #pragma unroll
    for (int i = 0; i < 4; i++) v.word[i] = narrow_pair(x[2 * i], x[2 * i + 1], (T*)0);
}
template <class T> __device__ inline void round_to(const T (&x)[16 / sizeof(T)], VectorOf<T>& v) {
    #pragma unroll
    for (int i = 0; i < 16 / sizeof(T); i++) v.at[i] = x[i];
}
__device__ inline Vector narrow(const accum (&x)[VECTOR]) { Vector v; round_to(x, v); return v; }
// x as it would come back from memory.
__device__ inline void as_stored(accum (&x)[VECTOR]) { widen(narrow(x), x); }

// ---- sums: 32 lanes of a warp by shuffles, the warps of a block through shared memory -----------

constexpr unsigned ALL_LANES = 0xffffffffu;

__device__ inline accum warp_sum(accum x) {   // every lane receives the sum
    for (int distance = 16; distance; distance /= 2) x += __shfl_xor_sync(ALL_LANES, x, distance);
    return x;
}

// The least, or greatest, of numbers[from ... to - 1]. Each warp finds it for itself.
__device__ inline int least(const int* numbers, int from, int to) {
    int found = 0x7fffffff;
    for (int n = from + (int)(threadIdx.x % 32); n < to; n += 32) found = min(found, numbers[n]);
    for (int distance = 16; distance; distance /= 2)
        found = min(found, __shfl_xor_sync(ALL_LANES, found, distance));
    return found;
}
__device__ inline int greatest(const int* numbers, int from, int to) {
    int found = -1;
    for (int n = from + (int)(threadIdx.x % 32); n < to; n += 32) found = max(found, numbers[n]);
    for (int distance = 16; distance; distance /= 2)
        found = max(found, __shfl_xor_sync(ALL_LANES, found, distance));
    return found;
}

// The sum over a block of whole warps; every thread receives it. `per_warp` is shared memory for
// one number per warp. The order of the additions is fixed, so the result is the same bits every
// time.
__device__ inline accum block_sum(accum x, accum* per_warp) {
    x = warp_sum(x);
    __syncthreads();   // another sum may still be being read from per_warp
    if (threadIdx.x % 32 == 0) per_warp[threadIdx.x / 32] = x;
    __syncthreads();
    accum total = 0;
    for (int warp = 0; warp < blockDim.x / 32; warp++) total += per_warp[warp];
    return total;
}

// The sum over the threads of a row, blockDim.x of them: a warp, or all warps of a block.
__device__ inline accum row_sum(accum x, accum* per_warp) {
    return blockDim.x == 32 ? warp_sum(x) : block_sum(x, per_warp);
}
