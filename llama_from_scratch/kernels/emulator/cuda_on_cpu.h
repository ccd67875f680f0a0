// A CUDA machine on the CPU: a .cu file that includes this header instead of CUDA's runs on a
// laptop, unchanged.
//
// Every CUDA thread is a fiber: a function call with a stack of its own, which the scheduler below
// leaves and re-enters by swapping the stack pointer. 32 fibers are a warp, and a block's fibers
// share the memory that the kernel calls __shared__. Only one fiber of a block runs at a time,
// until it has to wait for others. So a barrier is a counter, a shuffle is a table with 32 places,
// and every mistake in their use is found when it is made, and reported with block, thread and
// source line.
//
// What is not modeled: time, caches, occupancy, the weak ordering of memory, clusters. The
// approximate functions of a GPU (__expf, rsqrtf, ...) are the accurate ones here, so no tolerance
// may depend on their last bits.
//
// build.py compiles it with one of:
//   (nothing)       "fast":     several OS threads, each running whole blocks
//   EMU_CHECKED     "checked":  one OS thread; poisoned shared memory; wild addresses reported
//   EMU_TRACE       "traced":   as checked, and trace.h sees every memory access
//   -fsanitize=...  "address", "thread": an executable (standalone.h) with the compiler's checks
//
// It includes no C++ library header, because those cost a second of every build.
#pragma once

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>

// ---- what the build is --------------------------------------------------------------------------

// the traced build instruments as TSan does, but has its own hooks
#if defined(__SANITIZE_THREAD__) && !defined(EMU_TRACE)
#define EMU_TSAN
extern "C" void* __tsan_create_fiber(unsigned);
extern "C" void* __tsan_get_current_fiber();
extern "C" void __tsan_switch_to_fiber(void*, unsigned);
extern "C" void __tsan_acquire(void*);
extern "C" void __tsan_release(void*);
extern "C" void __tsan_read16(void*);
extern "C" void __tsan_write16(void*);
#endif
#ifdef __SANITIZE_ADDRESS__
#define EMU_ASAN
extern "C" void __sanitizer_start_switch_fiber(void**, const void*, size_t);
extern "C" void __sanitizer_finish_switch_fiber(void*, const void**, size_t*);
#endif

// The emulator's own functions must not be instrumented or inlined into instrumented kernels.
#if !(defined(EMU_TSAN) || defined(EMU_TRACE))
#define EMU_NO_TRACE __attribute__((unused))
#elif defined(__clang__)   // its no_sanitize leaves atomics instrumented
#define EMU_NO_TRACE __attribute__((disable_sanitizer_instrumentation, noinline, unused))
#else
#define EMU_NO_TRACE __attribute__((no_sanitize("thread"), noinline, unused))
#endif
// the trace records an atomic as one event; TSan must see the machine's atomic instruction
// instead
#if defined(EMU_TRACE)
#define EMU_ATOMIC EMU_NO_TRACE
#else
#define EMU_ATOMIC __attribute__((unused))
#endif

// A worker is an OS thread that runs blocks. What exists once per worker, above all a block's
// shared memory, is thread-local if there can be several workers. Otherwise shared memory is in one
// section of the file, which can be found and poisoned.
#if defined(EMU_CHECKED) || defined(EMU_TRACE)
#define EMU_PER_WORKER
#ifdef __APPLE__
#define __shared__ static __attribute__((section("__DATA,emu_shared")))
extern char emu_shared_begin[] __asm("section$start$__DATA$emu_shared");
extern char emu_shared_end[] __asm("section$end$__DATA$emu_shared");
#else
#define __shared__ static __attribute__((section("emu_shared")))
extern "C" char __start_emu_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_emu_shared[] __attribute__((weak, visibility("hidden")));
#define emu_shared_begin __start_emu_shared
#define emu_shared_end __stop_emu_shared
#endif
// ASan guards a variable with red zones only if it has no section of its own
#elif defined(EMU_ASAN)
#define EMU_PER_WORKER
#define __shared__ static
#else
#define EMU_PER_WORKER thread_local
#define __shared__ static thread_local
#endif

// ---- the words CUDA adds to C++ -----------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) double2 { double x, y; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}

static EMU_PER_WORKER uint3 threadIdx, blockIdx;
static EMU_PER_WORKER dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace emu {

struct Place { const char* file; int line; };       // in the kernel's source
// of a function by which threads wait for each other
struct Call { const char* function; Place at; };
#define EMU_HERE emu::Place at = {__builtin_FILE(), __builtin_LINE()}
EMU_NO_TRACE static bool is_same(const char* a, const char* b) {
    return a == b || !__builtin_strcmp(a, b);
}
EMU_NO_TRACE static bool is_same(const Call& a, const Call& b) {
    return a.at.line == b.at.line && is_same(a.at.file, b.at.file)
           && is_same(a.function, b.function);
}

constexpr unsigned MAX_THREADS = 1024, MAX_WARPS = MAX_THREADS / 32, MAX_WORKERS = 64;
// no machine's pages are larger, except some Linux on ARM
constexpr size_t PAGE_BYTES = 16 * 1024;
constexpr unsigned MAX_SHARED_BYTES = 227 * 1024;   // what a block may ask for on a Hopper GPU
#if defined(EMU_TSAN) || defined(EMU_ASAN)
constexpr size_t STACK_BYTES = 256 * 1024;          // instrumented code keeps more on the stack
#else
constexpr size_t STACK_BYTES = 64 * 1024;
#endif

}  // namespace emu

#include "fiber.h"

namespace emu {

// ---- the machine: threads, warps, a block -------------------------------------------------------

// what a thread waits for: the block's barrier, lanes of its warp, or, in hopper.h, a numbered
// barrier, the next phase of an mbarrier, or the products of its warp
enum Wait : unsigned char { NOTHING, BARRIER, LANES, NUMBERED, PHASE, PRODUCTS };

struct Thread {
    Context context;
    uint3 index;          // threadIdx
    unsigned linear;      // its number in the block
    Wait waits_for;
    unsigned mask;        // LANES: the lanes that it waits for
    const void* object;   // NUMBERED, PHASE, PRODUCTS: what it waits for
    Call call;            // it waits in
#ifdef EMU_TSAN
    void* fiber;
    unsigned n_synced;    // of __syncwarp
    size_t news[2];       // what it did before the last of them, and before the one before that
#endif
};

struct Warp {
    unsigned exists, exited;      // sets of lanes, one bit each
    unsigned ready;               // may run, but another thread does
    unsigned met;                 // waiting in a warp operation
    unsigned long long given[32], received[32];
    int source[32];               // the lane that each lane reads from
};

struct Launch {
    void (*kernel)(void** args);
    void** args;
    dim3 grid, block;
    size_t shared_bytes, n_blocks;
    int order;                    // FORWARD, REVERSE or RANDOM
    unsigned seed;
    size_t next_block;            // workers draw numbers from it
    int n_faults;
    char* message;                // the first fault's
};
enum Order { FORWARD, REVERSE, RANDOM };
constexpr size_t MESSAGE_BYTES = 1024;

struct Machine {                  // one worker's
    Thread threads[MAX_THREADS];
    Warp warps[MAX_WARPS];
    Thread outside;               // the code that launched the block
    Thread* current;
    Launch* launch;
    unsigned n_threads, n_exited, n_at_barrier, n_barriers, ready_warps, random, n_guarded;
    size_t block_number;
    Place busy_with;      // where the copy was issued that is being done now; line 0: none
    // one mapping for all, so that an address is known to be a local variable's
    char* stacks;
    // dynamic shared memory ends here, at a page that must not be touched
    char* shared_end;
    char signal_stack[64 * 1024];
};
static EMU_PER_WORKER Machine* machine;

// What runs while threads go on, such as copies that complete later (async.h): `begin_block` forgets
// what an earlier block left, and `progress` completes one pending operation; false: there is none.
struct Engine { void (*begin_block)(); bool (*progress)(); };
static const Engine* engine;

EMU_NO_TRACE static unsigned current_thread() { return machine->current->linear; }
EMU_NO_TRACE static size_t current_block() { return machine->block_number; }
EMU_NO_TRACE static size_t dynamic_shared_bytes() { return machine->launch->shared_bytes; }
EMU_NO_TRACE static char* dynamic_shared() {
    return machine->shared_end - (dynamic_shared_bytes() + 15) / 16 * 16;
}
EMU_NO_TRACE static bool is_local(const void* p) {
    return (size_t)((char*)p - machine->stacks) < MAX_THREADS * STACK_BYTES;
}

// Leaves the block for good; its other threads never run again. Only the first fault of a launch is
// reported.
[[noreturn]] __attribute__((format(printf, 1, 2)))
EMU_NO_TRACE static void fault(const char* format, ...);

}  // namespace emu

// The traced build reports to trace.h, which defines the functions named here. Every address in
// shared memory is between emu_shared_begin and emu_shared_end or within emu::dynamic_shared();
// addresses for which emu::is_local() holds are local variables; `grid` and `block` of the launch
// are gridDim and blockDim.
//   trace::begin_launch()                      before the first block
//   trace::end_launch()                        after the last, or after a fault
//   trace::begin_block(size_t), end_block()    one block after another; no end_block() on a fault
//   trace::barrier_released(emu::Place)        called once, by the last thread of the block to come
//   trace::warp_synced(unsigned warp, unsigned mask, emu::Place)
//                                              as for __syncwarp; shuffles do not order memory
//   trace::atomic(void*, size_t bytes, emu::Place)
//                                              by the current thread, not as a read and a write
//   trace::access16(const void*, bool is_write, emu::Place)
//                                              16 bytes as one access: load and store of common.cuh
//   trace::happened(Event, unsigned long long number, emu::Place)
//                                              what async.h does, by the current thread
#ifdef EMU_TRACE
#include "trace.h"
#define EMU_TELL(call) trace::call
#else
#define EMU_TELL(call) ((void)0)
#endif

namespace emu {

EMU_NO_TRACE static void access16(const void* p, bool is_write, Place at) {
    EMU_TELL(access16(p, is_write, at));
#ifdef EMU_TSAN   // the caller is not instrumented
    is_write ? __tsan_write16((void*)p) : __tsan_read16((void*)p);
#endif
}

// ---- faults: reported, never fatal to the process -----------------------------------------------

EMU_NO_TRACE static void go(Thread& from, Thread& to);

EMU_NO_TRACE static void fault(const char* format, ...) {
    Machine& m = *machine;
    if (__atomic_fetch_add(&m.launch->n_faults, 1, __ATOMIC_SEQ_CST) == 0) {
        char text[MESSAGE_BYTES - 128];
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
        uint3 t = m.current->index;
        snprintf(m.launch->message, MESSAGE_BYTES, "block (%u, %u, %u), thread (%u, %u, %u): %s",
                 blockIdx.x, blockIdx.y, blockIdx.z, t.x, t.y, t.z, text);
    }
    go(*m.current, m.outside);
    __builtin_unreachable();
}

#define EMU_CALL "%s at %s:%d"   // for these, a message takes:
#define EMU_CALL_OF(call) (call).function, (call).at.file, (call).at.line
#define EMU_THREAD "thread (%u, %u, %u)"
#define EMU_THREAD_OF(t) (t).index.x, (t).index.y, (t).index.z

// ---- the scheduler: a warp runs as far as it can before another one moves -----------------------
// Taking turns would be fairer, and would hide races between warps: each would see what the others
// wrote a moment ago.

EMU_NO_TRACE static unsigned random_below(unsigned n) {
    machine->random = machine->random * 1664525u + 1013904223u;
    return (unsigned)((unsigned long long)machine->random * n >> 32);
}

// One of a set of at most 32, which must not be empty: the next one after `last` in the launch's
// order.
EMU_NO_TRACE static unsigned pick(unsigned set, unsigned last) {
    switch (machine->launch->order) {
        case FORWARD: {
            unsigned above = set & ~((2u << last) - 1);
            return __builtin_ctz(above ? above : set);
        }
        case REVERSE: {
            unsigned below = set & ((1u << last) - 1);
            return 31 - __builtin_clz(below ? below : set);
        }
        default: {
            for (unsigned n = random_below(__builtin_popcount(set)); n; n--) set &= set - 1;
            return __builtin_ctz(set);
        }
    }
}

// The thread to run now, or nullptr if all of them wait.
EMU_NO_TRACE static Thread* next_thread() {
    Machine& m = *machine;
    unsigned warp = m.current->linear / 32, lane = m.current->linear % 32;
    if (m.current == &m.outside || !m.warps[warp].ready) {
        if (!m.ready_warps) return nullptr;
        unsigned before_first = m.launch->order == REVERSE ? 0 : 31;
        warp = pick(m.ready_warps, m.current == &m.outside ? before_first : warp);
        lane = before_first;
    }
    Warp& w = m.warps[warp];
    lane = pick(w.ready, lane);
    w.ready &= ~(1u << lane);
    if (!w.ready) m.ready_warps &= ~(1u << warp);
    return &m.threads[warp * 32 + lane];
}

EMU_NO_TRACE static void make_ready(unsigned warp, unsigned lanes) {
    if (!lanes) return;
    machine->warps[warp].ready |= lanes;
    machine->ready_warps |= 1u << warp;
}

EMU_NO_TRACE static void go(Thread& from, Thread& to) {
    machine->current = &to;
    threadIdx = to.index;
#ifdef EMU_TSAN
    // 1: a switch orders nothing, so fibers race as real threads would
    __tsan_switch_to_fiber(to.fiber, 1);
#endif
#ifdef EMU_ASAN
    void* fake_stack = nullptr;
    bool is_outside = &to == &machine->outside;
    __sanitizer_start_switch_fiber(&fake_stack,
                                   is_outside ? nullptr : machine->stacks + to.linear * STACK_BYTES,
                                   is_outside ? 0 : STACK_BYTES);
#endif
    switch_context(from.context, to.context);
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

// All threads that have not returned wait, and nothing is pending that could wake one.
[[noreturn]] EMU_NO_TRACE static void report_deadlock() {
    Machine& m = *machine;
    Thread *first = m.current, *other = m.threads;
    for (Thread* t = m.threads; first->waits_for == NOTHING; t++) first = t;
    Thread* end = m.threads + m.n_threads;
    while (other < end && (other->waits_for == NOTHING || is_same(other->call, first->call)))
        other++;
    if (other == end)
        fault("deadlock: " EMU_THREAD " and all others that have not returned wait in " EMU_CALL,
              EMU_THREAD_OF(*first), EMU_CALL_OF(first->call));
    fault("deadlock: " EMU_THREAD " waits in " EMU_CALL ", while " EMU_THREAD " waits in " EMU_CALL,
          EMU_THREAD_OF(*first), EMU_CALL_OF(first->call),
          EMU_THREAD_OF(*other), EMU_CALL_OF(other->call));
}

// The thread to run now. Only if all of them wait does the engine complete something: as late as
// any GPU may.
EMU_NO_TRACE static Thread* next_thread_or_progress() {
    for (;;) {
        if (Thread* next = next_thread()) return next;
        if (!engine || !engine->progress()) return nullptr;
    }
}

EMU_NO_TRACE static void wait_for(Wait kind, const Call& call) {
    Thread& me = *machine->current;
    me.waits_for = kind;
    me.call = call;
    Thread* next = next_thread_or_progress();
    if (!next) report_deadlock();
    if (next != &me) go(me, *next);   // what the engine completed may have woken this very thread
    me.waits_for = NOTHING;
}

// ---- __syncthreads: all threads of the block ----------------------------------------------------

[[noreturn]] EMU_NO_TRACE static void report_missing(const Thread& returned, const Thread& waiting,
                                                     const Call& barrier) {
    fault(EMU_THREAD " has returned, but " EMU_THREAD " waits in " EMU_CALL
          ": all threads of a block must reach every barrier",
          EMU_THREAD_OF(returned), EMU_THREAD_OF(waiting), EMU_CALL_OF(barrier));
}

EMU_NO_TRACE static void barrier(const Call& call) {
    Machine& m = *machine;
    Thread& me = *m.current;
    for (unsigned i = 0; m.n_exited && i < m.n_threads; i++)
        if (m.warps[i / 32].exited >> i % 32 & 1) report_missing(m.threads[i], me, call);
// two, used alternately, because some threads reach the next barrier before others have left this
// one
#ifdef EMU_TSAN
    static size_t news[2];
    size_t* all_news = &news[m.n_barriers % 2];
    __tsan_release(all_news);
#endif
    if (++m.n_at_barrier < m.n_threads) {
        wait_for(BARRIER, call);
    } else {
        for (unsigned i = 0; i < m.n_threads; i++) {
            Thread& other = m.threads[i];
            if (&other != &me && !is_same(other.call, call))
                fault("reached " EMU_CALL ", while " EMU_THREAD " waits in " EMU_CALL
                      ": all threads of a block must reach the same barrier",
                      EMU_CALL_OF(call), EMU_THREAD_OF(other), EMU_CALL_OF(other.call));
        }
        m.n_at_barrier = 0;
        m.n_barriers++;
        EMU_TELL(barrier_released(call.at));
        for (unsigned warp = 0; warp * 32 < m.n_threads; warp++)
            make_ready(warp,
                       m.warps[warp].exists & ~(warp == me.linear / 32 ? 1u << me.linear % 32 : 0));
    }
#ifdef EMU_TSAN
    __tsan_acquire(all_news);
#endif
}


// ---- warp operations: the lanes named in a mask -------------------------------------------------

typedef void (*Finish)(Warp& warp, unsigned lanes, const Call& call);

// Waits until every lane of `mask` is here; the last of them runs `finish` for all, which fills
// their `received`.
EMU_NO_TRACE static void meet(unsigned mask, const Call& call, Finish finish, bool orders_memory) {
    Machine& m = *machine;
    Thread& me = *m.current;
    unsigned number = me.linear / 32, lane = me.linear % 32;
    Warp& warp = m.warps[number];
    // the last warp of a block may be incomplete
    unsigned lanes = mask & warp.exists, returned = lanes & warp.exited;
    if (!(lanes >> lane & 1))
        fault(EMU_CALL ": the mask 0x%08x leaves out the caller, lane %u", EMU_CALL_OF(call), mask,
              lane);
    if (returned)
        fault(EMU_CALL ": the mask 0x%08x names lane %d, which has returned", EMU_CALL_OF(call),
              mask, __builtin_ctz(returned));
    me.mask = mask;
#ifdef EMU_TSAN
    if (orders_memory) __tsan_release(&me.news[++me.n_synced % 2]);
#endif
    warp.met |= 1u << lane;
    if ((warp.met & lanes) != lanes) {
        wait_for(LANES, call);
    } else {
        for (unsigned rest = lanes & ~(1u << lane); rest; rest &= rest - 1) {
            Thread& other = m.threads[number * 32 + __builtin_ctz(rest)];
            if (!is_same(other.call, call))
                fault(EMU_CALL ": lane %u of the same warp waits in " EMU_CALL, EMU_CALL_OF(call),
                      other.linear % 32,
                      EMU_CALL_OF(other.call));
            if (other.mask != mask)
                fault(EMU_CALL ": lane %u gives the mask 0x%08x, lane %u gives 0x%08x",
                      EMU_CALL_OF(call), lane, mask,
                      other.linear % 32, other.mask);
        }
        warp.met &= ~lanes;
        finish(warp, lanes, call);
        make_ready(number, lanes & ~(1u << lane));
    }
#ifdef EMU_TSAN
    unsigned odd = warp.received[lane];
    for (unsigned rest = orders_memory ? lanes : 0; rest; rest &= rest - 1) {
        unsigned other = __builtin_ctz(rest);
        __tsan_acquire(&m.threads[number * 32 + other].news[odd >> other & 1]);
    }
#endif
}

EMU_NO_TRACE static void finish_sync([[maybe_unused]] Warp& warp, [[maybe_unused]] unsigned lanes,
                                     const Call& call) {
    EMU_TELL(warp_synced(&warp - machine->warps, lanes, call.at));
    (void)call;
#ifdef EMU_TSAN   // which of their news to read
    unsigned odd = 0, first = (&warp - machine->warps) * 32;
    for (unsigned lane = 0; lane < 32; lane++)
        odd |= machine->threads[first + lane].n_synced % 2 << lane;
    for (unsigned rest = lanes; rest; rest &= rest - 1) warp.received[__builtin_ctz(rest)] = odd;
#endif
}

EMU_NO_TRACE static void finish_shuffle(Warp& warp, unsigned lanes, const Call& call) {
    for (unsigned rest = lanes; rest; rest &= rest - 1) {
        unsigned lane = __builtin_ctz(rest), source = warp.source[lane];
        if (!(lanes >> source & 1))
            fault(EMU_CALL ": lane %u reads lane %u, which %s", EMU_CALL_OF(call), lane, source,
                  warp.exists >> source & 1 ? "is not in the mask"
                                            : "does not exist in this block");
        warp.received[lane] = warp.given[source];
    }
}

EMU_NO_TRACE static void finish_ballot(Warp& warp, unsigned lanes, const Call&) {
    unsigned votes = 0;
    for (unsigned rest = lanes; rest; rest &= rest - 1)
        if (warp.given[__builtin_ctz(rest)]) votes |= rest & -rest;
    for (unsigned rest = lanes; rest; rest &= rest - 1) warp.received[__builtin_ctz(rest)] = votes;
}

enum Direction { FROM_LANE, UP, DOWN, XOR };

template <class T>
EMU_NO_TRACE static T shuffle(unsigned mask, T value, int n, int width, Direction direction,
                              const Call& call) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes per lane");
    if (width < 1 || width > 32 || width & (width - 1))
        fault(EMU_CALL ": width must be a power of two, at most 32; got %d", EMU_CALL_OF(call),
              width);
    Warp& warp = machine->warps[machine->current->linear / 32];
    int lane = machine->current->linear % 32, first = lane & ~(width - 1), last = first + width - 1;
    int source = direction == FROM_LANE ? first | (n & (width - 1))
               : direction == UP        ? (lane - n >= first ? lane - n : lane)
               : direction == DOWN      ? (lane + n <= last ? lane + n : lane)
                                        // reaches earlier groups, not later
                                        : ((lane ^ n) <= last ? lane ^ n : lane);
    warp.source[lane] = source & 31;
    warp.given[lane] = 0;
    __builtin_memcpy(&warp.given[lane], &value, sizeof value);
    meet(mask, call, finish_shuffle, false);
    __builtin_memcpy(&value, &warp.received[lane], sizeof value);
    return value;
}

EMU_NO_TRACE static unsigned ballot(unsigned mask, bool vote, const Call& call) {
    Warp& warp = machine->warps[machine->current->linear / 32];
    unsigned lane = machine->current->linear % 32;
    warp.given[lane] = vote;
    meet(mask, call, finish_ballot, false);
    return (unsigned)warp.received[lane];
}

// ---- running a block ----------------------------------------------------------------------------

EMU_NO_TRACE static void leave_block() {
    Machine& m = *machine;
    Thread& me = *m.current;
    unsigned number = me.linear / 32, lane = me.linear % 32;
    Warp& warp = m.warps[number];
    warp.exited |= 1u << lane;
    m.n_exited++;
    for (unsigned i = 0; m.n_at_barrier && i < m.n_threads; i++)
        if (m.threads[i].waits_for == BARRIER) report_missing(me, m.threads[i], m.threads[i].call);
    for (unsigned rest = warp.met; rest; rest &= rest - 1) {
        Thread& other = m.threads[number * 32 + __builtin_ctz(rest)];
        if (other.mask >> lane & 1)
            fault("lane %u has returned, but lane %u waits for it in " EMU_CALL, lane,
                  other.linear % 32,
                  EMU_CALL_OF(other.call));
    }
    Thread* next = m.n_exited < m.n_threads ? next_thread_or_progress() : nullptr;
    if (!next && m.n_exited < m.n_threads) report_deadlock();
    go(me, next ? *next : m.outside);
    __builtin_unreachable();
}

EMU_NO_TRACE static void run_thread() {
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
#ifdef EMU_TSAN
    __tsan_acquire(&machine->outside);
#endif
    machine->launch->kernel(machine->launch->args);
#ifdef EMU_TSAN
    __tsan_release(&machine->outside);
#endif
    leave_block();
}

EMU_NO_TRACE static void prepare_threads() {
    Machine& m = *machine;
    m.n_threads = blockDim.x * blockDim.y * blockDim.z;
    m.n_exited = m.n_at_barrier = m.ready_warps = 0;
// a page that must not be touched, so that too deep a recursion is reported
#if !defined(EMU_ASAN) && !defined(EMU_TSAN)
    for (; m.n_guarded < m.n_threads; m.n_guarded++)
        mprotect(m.stacks + m.n_guarded * STACK_BYTES, PAGE_BYTES, PROT_NONE);
#endif
    uint3 index = {0, 0, 0};
    for (unsigned i = 0; i < m.n_threads; i++) {
        Thread& t = m.threads[i];
        t.index = index;
        t.linear = i;
        t.waits_for = NOTHING;
        // Stacks a power of two apart would compete for the same few places of the cache, so they
        // are shifted by i % 61.
        make_context(t.context, m.stacks + i * STACK_BYTES, STACK_BYTES - i % 61 * 192, run_thread);
#ifdef EMU_TSAN
        if (!t.fiber) t.fiber = __tsan_create_fiber(0);
#endif
        if (++index.x == blockDim.x) index.x = 0, index.y++;
        if (index.y == blockDim.y) index.y = 0, index.z++;
    }
    for (unsigned i = 0; i * 32 < m.n_threads; i++) {
        unsigned n_lanes = m.n_threads - i * 32;
        m.warps[i].exists = n_lanes >= 32 ? ~0u : (1u << n_lanes) - 1;
        m.warps[i].exited = m.warps[i].met = m.warps[i].ready = 0;
        make_ready(i, m.warps[i].exists);
    }
}

EMU_NO_TRACE static void run_block(size_t number) {
    Machine& m = *machine;
    m.block_number = number;
    m.random = m.launch->seed ^ (unsigned)number * 0x9e3779b9u;
    size_t row = number / gridDim.x;
    blockIdx = {(unsigned)(number % gridDim.x), (unsigned)(row % gridDim.y),
                (unsigned)(row / gridDim.y)};
// 0xff...: a NaN in every float type, -1 in every integer
#if defined(EMU_CHECKED) || defined(EMU_TRACE)
    __builtin_memset(dynamic_shared(), 0xff, dynamic_shared_bytes());
    __builtin_memset(emu_shared_begin, 0xff, emu_shared_end - emu_shared_begin);
#endif
    EMU_TELL(begin_block(number));
    m.busy_with = {};
    if (engine) engine->begin_block();
    prepare_threads();
    m.current = &m.outside;
#ifdef EMU_TSAN
    m.outside.fiber = __tsan_get_current_fiber();
    __tsan_release(&m.outside);
#endif
    go(m.outside, *next_thread());
#ifdef EMU_TSAN
    __tsan_acquire(&m.outside);
#endif
    if (!m.launch->n_faults) EMU_TELL(end_block());
}

// ---- wild addresses: a signal becomes a fault like any other ------------------------------------

static thread_local bool is_worker;   // does this OS thread run blocks at the moment?

#if !defined(EMU_ASAN) && !defined(EMU_TSAN)   // these report more
#define EMU_SIGNALS
static const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE};
static struct sigaction outer_actions[3];

// where in this file the program was; 0 if unknown
EMU_NO_TRACE static size_t code_offset(void* signal_context) {
    [[maybe_unused]] mcontext_t& registers = ((ucontext_t*)signal_context)->uc_mcontext;
    size_t counter = 0;
#if defined(__linux__) && defined(__x86_64__)
    counter = registers.gregs[REG_RIP];
#elif defined(__linux__) && defined(__aarch64__)
    counter = registers.pc;
#endif
    Dl_info file;
    return counter && dladdr((void*)counter, &file) ? counter - (size_t)file.dli_fbase : 0;
}

EMU_NO_TRACE static void on_signal(int number, siginfo_t* info, void* context) {
    if (is_worker && machine->current != &machine->outside) {
        size_t offset = code_offset(context);
        if (number == SIGFPE) fault("<code %#zx>: integer division by zero", offset);
        size_t address = (size_t)info->si_addr;
        if (machine->busy_with.line)
            fault("the copy issued at %s:%d touches <address %#zx>", machine->busy_with.file,
                  machine->busy_with.line, address);
        if (is_local(info->si_addr))
            fault("<code %#zx>: the thread's stack of %zu bytes is full", offset, STACK_BYTES);
        if (address - (size_t)machine->shared_end < PAGE_BYTES)
            fault("<code %#zx>: touches byte %zu of the block's dynamic shared memory, "
                  "which has %zu bytes", offset,
                  address - (size_t)dynamic_shared(), dynamic_shared_bytes());
        fault("<code %#zx>: touches <address %#zx>", offset, address);
    }
    // not ours: let the previous handler see it when it happens again
    for (int i = 0; i < 3; i++)
        if (SIGNALS[i] == number) sigaction(number, &outer_actions[i], nullptr);
}

EMU_NO_TRACE static void catch_signals() {
    struct sigaction action = {};
    action.sa_sigaction = on_signal;
    // a fault leaves the handler without returning from it
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (int i = 0; i < 3; i++) {
        sigaction(SIGNALS[i], &action, &outer_actions[i]);
        if (outer_actions[i].sa_sigaction == on_signal) outer_actions[i].sa_handler = SIG_DFL;
    }
}

EMU_NO_TRACE static void release_signals() {
    for (int i = 0; i < 3; i++) sigaction(SIGNALS[i], &outer_actions[i], nullptr);
}
#endif

// ---- launching a grid ---------------------------------------------------------------------------

// memory that costs nothing before it is touched
EMU_NO_TRACE static char* reserve(size_t bytes) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON | MAP_NORESERVE,
                   -1, 0);
    return p == MAP_FAILED ? nullptr : (char*)p;
}

EMU_NO_TRACE static Machine* make_machine() {
    constexpr size_t SHARED = (MAX_SHARED_BYTES + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    Machine* m = (Machine*)reserve(sizeof(Machine));
    char* stacks = reserve(MAX_THREADS * STACK_BYTES);
    char* shared = reserve(SHARED + PAGE_BYTES);
    if (!m || !stacks || !shared) return nullptr;
    m->stacks = stacks;
    m->shared_end = shared + SHARED;
    mprotect(m->shared_end, PAGE_BYTES, PROT_NONE);
    return m;
}

static Machine* machines[MAX_WORKERS];
struct Worker { Launch* launch; Machine* machine; };

// A step by which (step i + start) mod n visits every block once: it has no divisor in common
// with n.
EMU_NO_TRACE static size_t random_step(size_t n, unsigned seed) {
    for (size_t step = seed * 2654435761ull % n | 1;; step += 2) {
        size_t a = step, b = n;
        while (b) { size_t rest = a % b; a = b; b = rest; }
        if (a == 1) return step % n;
    }
}

EMU_NO_TRACE static void* work(void* argument) {
    Worker& worker = *(Worker*)argument;
    Launch& launch = *worker.launch;
    machine = worker.machine;
    machine->launch = &launch;
    machine->current = &machine->outside;
    gridDim = launch.grid;
    blockDim = launch.block;
#ifdef EMU_SIGNALS
    // a handler needs a stack of its own: the fault may be that the thread's is full
    stack_t mine = {}, outer;
    mine.ss_sp = machine->signal_stack;
    mine.ss_size = sizeof machine->signal_stack;
    sigaltstack(&mine, &outer);
#endif
    is_worker = true;
    size_t n = launch.n_blocks, step = launch.order == RANDOM ? random_step(n, launch.seed) : 1;
    for (;;) {
        size_t i = __atomic_fetch_add(&launch.next_block, 1, __ATOMIC_RELAXED);
        if (i >= n || __atomic_load_n(&launch.n_faults, __ATOMIC_RELAXED)) break;
        run_block(launch.order == FORWARD   ? i
                  : launch.order == REVERSE ? n - 1 - i
                                            : (i * step + launch.seed) % n);
    }
    is_worker = false;
#if !defined(EMU_ASAN) && !defined(EMU_TSAN)
    // Each guard cuts the stacks' memory into two more pieces, of which a process may have some
    // 65,000 in all: the guards of a hundred kernels would use them up. Without guards it is one
    // piece again.
    mprotect(machine->stacks, MAX_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE);
    machine->n_guarded = 0;
#endif
#ifdef EMU_SIGNALS
    sigaltstack(&outer, nullptr);
#endif
    return nullptr;
}

// Runs a grid; returns nullptr or what went wrong. build.py adds one function for each entry point
// that calls it.
EMU_NO_TRACE static const char* launch(void (*kernel)(void**), void** args, const unsigned grid[3],
                                       const unsigned block[3], size_t shared_bytes, int n_workers,
                                       int order, unsigned seed) {
    static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
    static thread_local char message[MESSAGE_BYTES];
    pthread_mutex_lock(&one_at_a_time);
    Launch launch = {};
    launch.kernel = kernel;
    launch.args = args;
    launch.grid = {grid[0], grid[1], grid[2]};
    launch.block = {block[0], block[1], block[2]};
    launch.shared_bytes = shared_bytes;
    launch.n_blocks = (size_t)grid[0] * grid[1] * grid[2];
    launch.order = order;
    launch.seed = seed;
    launch.message = message;
    Worker workers[MAX_WORKERS];
    pthread_t threads[MAX_WORKERS];
    for (int i = 0; i < n_workers; i++) {
        if (!machines[i]) machines[i] = make_machine();
        if (!machines[i]) {
            launch.n_faults = 1;
            snprintf(message, sizeof message, "no memory for the threads' stacks");
        }
        workers[i] = {&launch, machines[i]};
    }
    if (!launch.n_faults) {
#ifdef EMU_SIGNALS
        catch_signals();
#endif
        EMU_TELL(begin_launch());
        int n_started = 1;   // this thread is the first worker; fewer than asked for will do
        while (n_started < n_workers
               && !pthread_create(&threads[n_started], nullptr, work, &workers[n_started]))
            n_started++;
        work(&workers[0]);
        for (int i = 1; i < n_started; i++) pthread_join(threads[i], nullptr);
        EMU_TELL(end_launch());
#ifdef EMU_SIGNALS
        release_signals();
#endif
    }
    pthread_mutex_unlock(&one_at_a_time);
    return launch.n_faults ? message : nullptr;
}

}  // namespace emu

#include "intrinsics.h"
