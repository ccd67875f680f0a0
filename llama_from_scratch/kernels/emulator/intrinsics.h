// The functions that a kernel calls: warp operations, atomics, mathematics. Part of cuda_on_cpu.h,
// which is the machine.
#pragma once

// ---- barriers and warp operations ---------------------------------------------------------------

static inline void __syncthreads(EMU_HERE) { emu::barrier({"__syncthreads", at}); }
static inline void __syncwarp(unsigned mask = ~0u, EMU_HERE) {
    emu::meet(mask, {"__syncwarp", at}, emu::finish_sync, true);
}

template <class T> static inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32,
                                               EMU_HERE) {
    return emu::shuffle(mask, value, lane, width, emu::FROM_LANE, {"__shfl_sync", at});
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T value, unsigned distance,
                                                  int width = 32, EMU_HERE) {
    return emu::shuffle(mask, value, (int)distance, width, emu::UP, {"__shfl_up_sync", at});
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T value, unsigned distance,
                                                    int width = 32, EMU_HERE) {
    return emu::shuffle(mask, value, (int)distance, width, emu::DOWN, {"__shfl_down_sync", at});
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32,
                                                   EMU_HERE) {
    return emu::shuffle(mask, value, bits, width, emu::XOR, {"__shfl_xor_sync", at});
}
static inline unsigned __ballot_sync(unsigned mask, int vote, EMU_HERE) {
    return emu::ballot(mask, vote, {"__ballot_sync", at});
}
static inline int __any_sync(unsigned mask, int vote, EMU_HERE) {
    return emu::ballot(mask, vote, {"__any_sync", at}) != 0;
}
static inline int __all_sync(unsigned mask, int vote, EMU_HERE) {
    return emu::ballot(mask, !vote, {"__all_sync", at}) == 0;
}

static inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
[[noreturn]] static inline void __trap(EMU_HERE) {
    emu::fault("__trap at %s:%d", at.file, at.line);
    __builtin_unreachable();
}
template <class T> static inline T __ldg(const T* p) { return *p; }

// Atomics: read, compute, and write back unless another worker wrote in between. `Bits` is the
// integer of T's size.
#define EMU_ATOMIC_OPERATION(name, T, Bits, result)                                            \
    EMU_ATOMIC static T name(T* p, T value, EMU_HERE) {                                        \
        EMU_TELL(atomic(p, sizeof(T), at));                                                    \
        (void)at;                                                                              \
        Bits seen = __atomic_load_n((Bits*)p, __ATOMIC_RELAXED);                               \
        for (;;) {                                                                             \
            T old, next;                                                                       \
            __builtin_memcpy(&old, &seen, sizeof old);                                         \
            next = result;                                                                     \
            Bits wanted;                                                                       \
            __builtin_memcpy(&wanted, &next, sizeof next);                                     \
            if (__atomic_compare_exchange_n((Bits*)p, &seen, wanted, false, __ATOMIC_RELAXED,  \
                                            __ATOMIC_RELAXED)) return old;                     \
        }                                                                                      \
    }
#define EMU_ATOMIC_INTEGER(T)                                                     \
    EMU_ATOMIC_OPERATION(atomicAdd, T, T, old + value)                            \
    EMU_ATOMIC_OPERATION(atomicMax, T, T, old > value ? old : value)              \
    EMU_ATOMIC_OPERATION(atomicMin, T, T, old < value ? old : value)              \
    EMU_ATOMIC_OPERATION(atomicExch, T, T, ((void)old, value))                    \
    EMU_ATOMIC_OPERATION(atomicOr, T, T, old | value)                             \
    EMU_ATOMIC_OPERATION(atomicAnd, T, T, old & value)                            \
    EMU_ATOMIC static T atomicCAS(T* p, T compare, T value, EMU_HERE) {           \
        EMU_TELL(atomic(p, sizeof(T), at));                                       \
        (void)at;                                                                 \
        __atomic_compare_exchange_n(p, &compare, value, false, __ATOMIC_RELAXED,  \
                                    __ATOMIC_RELAXED);                            \
        return compare;                                                           \
    }
EMU_ATOMIC_INTEGER(int)
EMU_ATOMIC_INTEGER(unsigned)
EMU_ATOMIC_INTEGER(unsigned long long)
EMU_ATOMIC_OPERATION(atomicAdd, float, unsigned, old + value)
EMU_ATOMIC_OPERATION(atomicAdd, double, unsigned long long, old + value)
EMU_ATOMIC_OPERATION(atomicExch, float, unsigned, ((void)old, value))

// ---- mathematics --------------------------------------------------------------------------------

extern "C" void* memcpy(void* to, const void* from, size_t bytes) noexcept;
extern "C" void* memset(void* to, int byte, size_t bytes) noexcept;

#define EMU_FUNCTION(name)                            \
    extern "C" double name(double) noexcept;          \
    extern "C" float name##f(float) noexcept;         \
    static inline float name(float x) { return name##f(x); }
EMU_FUNCTION(sqrt) EMU_FUNCTION(exp) EMU_FUNCTION(exp2) EMU_FUNCTION(expm1)
EMU_FUNCTION(log) EMU_FUNCTION(log2) EMU_FUNCTION(log1p)
EMU_FUNCTION(sin) EMU_FUNCTION(cos) EMU_FUNCTION(tanh) EMU_FUNCTION(erf) EMU_FUNCTION(fabs)
EMU_FUNCTION(floor) EMU_FUNCTION(ceil) EMU_FUNCTION(rint) EMU_FUNCTION(trunc)
#define EMU_FUNCTION_OF_TWO(name)                     \
    extern "C" double name(double, double) noexcept;  \
    extern "C" float name##f(float, float) noexcept;  \
    static inline float name(float x, float y) { return name##f(x, y); }
EMU_FUNCTION_OF_TWO(pow) EMU_FUNCTION_OF_TWO(fmod)
EMU_FUNCTION_OF_TWO(fmax) EMU_FUNCTION_OF_TWO(fmin)

static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float fmaf(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
static inline double fma(double x, double y, double z) { return __builtin_fma(x, y, z); }
static inline float __fmaf_rn(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __expf(float x) { return expf(x); }
static inline float __exp2f(float x) { return exp2f(x); }
static inline float __logf(float x) { return logf(x); }
static inline float __sinf(float x) { return sinf(x); }
static inline float __cosf(float x) { return cosf(x); }
static inline void sincosf(float x, float* sine, float* cosine) {
    *sine = sinf(x);
    *cosine = cosf(x);
}
static inline float __powf(float x, float y) { return powf(x, y); }
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }
static inline bool isnan(float x) { return __builtin_isnan(x); }
static inline bool isnan(double x) { return __builtin_isnan(x); }
static inline bool isinf(float x) { return __builtin_isinf(x); }
static inline bool isinf(double x) { return __builtin_isinf(x); }
static inline bool isfinite(float x) { return __builtin_isfinite(x); }
static inline bool isfinite(double x) { return __builtin_isfinite(x); }
#define INFINITY __builtin_inff()

#define EMU_MIN_MAX(T)                                              \
    static inline T min(T x, T y) { return x < y ? x : y; }         \
    static inline T max(T x, T y) { return x > y ? x : y; }
static inline int abs(int x) { return x < 0 ? -x : x; }
static inline float abs(float x) { return fabsf(x); }
EMU_MIN_MAX(int) EMU_MIN_MAX(unsigned) EMU_MIN_MAX(size_t)
EMU_MIN_MAX(long long) EMU_MIN_MAX(unsigned long long)
static inline float min(float x, float y) { return fminf(x, y); }
static inline float max(float x, float y) { return fmaxf(x, y); }
static inline double min(double x, double y) { return fmin(x, y); }
static inline double max(double x, double y) { return fmax(x, y); }

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
// Four of the eight bytes of x and y, chosen by the lower bits of each half byte of `selector`.
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    unsigned long long bytes = (unsigned long long)y << 32 | x;
    unsigned chosen = 0;
    for (int i = 0; i < 4; i++)
        chosen |= (unsigned)(bytes >> (selector >> 4 * i & 7) * 8 & 0xff) << 8 * i;
    return chosen;
}
static inline int __ffs(int x) { return __builtin_ffs(x); }
#define EMU_REINTERPRET(name, From, To) \
    static inline To name(From x) { return __builtin_bit_cast(To, x); }
EMU_REINTERPRET(__float_as_uint, float, unsigned) EMU_REINTERPRET(__uint_as_float, unsigned, float)
EMU_REINTERPRET(__float_as_int, float, int) EMU_REINTERPRET(__int_as_float, int, float)
EMU_REINTERPRET(__double_as_longlong, double, long long)
EMU_REINTERPRET(__longlong_as_double, long long, double)

namespace emu {
static inline float float_from_half(unsigned short bits) {
    return (float)__builtin_bit_cast(_Float16, bits);
}
static inline unsigned short half_from_float(float x) {
    return __builtin_bit_cast(unsigned short, (_Float16)x);
}
}  // namespace emu
