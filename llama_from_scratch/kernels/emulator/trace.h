// What the traced build sees: every access to memory, every barrier, and shared memory as each
// barrier found it.
//
// The compiler does the watching. With -fsanitize=thread it calls a function before each read and
// each write of the kernel; these functions are normally ThreadSanitizer's, but the traced build
// does not link that library and defines them here. So a kernel is traced without a change to its
// text. The return address gives the instruction, and with it the source line.
//
// Everything is written onto a Tape, in memory that Python has allocated (tape.py), and judged in
// trace.py. A full tape, or an access to memory that is neither a tensor's nor the block's, ends
// the launch with a fault.
#pragma once

// A guard after each __shared__ array, so that the element after the last belongs to none; and each
// array begins at bank 0. It is `used`, so that the compiler keeps even an array that is not read.
#undef __shared__
#define EMU_GUARD_NAMED(n) \
    static unsigned char emu_guard_##n[128] \
        __attribute__((section("emu_shared"), aligned(128), used));
#define EMU_GUARD(n) EMU_GUARD_NAMED(n)
#define __shared__ \
    EMU_GUARD(__COUNTER__) static __attribute__((section("emu_shared"), aligned(128), used))

// where this file begins in memory
extern "C" char __ehdr_start[] __attribute__((visibility("hidden")));

namespace trace {

typedef unsigned long long u64;
enum Kind : unsigned char { READ, WRITE, ATOMIC };
// What async.h and what builds on it tell; `number` is a copy's, a tile's, a product's or a warp's,
// or, for phases, the mbarrier's place in dynamic shared memory.
enum Event : unsigned {
    COPY_BEGINS, COPY_ENDS, MULTIPLIES, TILE_ORDERED, TILE_ARRIVES, ARRIVES, PHASE_ENDS, WAITS,
    GOES_ON, PRODUCT_BEGINS, PRODUCT_ENDS
};

struct Access {
    u64 address;
    // the instruction; or, where `line` is not 0, the name of the source file as a C string
    u64 place;
    unsigned line, block;
    unsigned interval;      // how many barriers the block had passed
    unsigned epoch;         // how many __syncwarp the warp had passed
    unsigned short thread, bytes;
    Kind kind;
};
struct Sync { unsigned block, warp, epoch, mask; };        // the epoch it ended
// the barrier that ended an interval; line 0: the end of the block
struct Moment { u64 file; unsigned line, interval; };
struct Happening { u64 file, number; unsigned line, block, thread; Event event; };
// a tensor or a __shared__ array; or a constant, threadIdx and so on
struct Region { u64 begin, end, is_recorded; };

template <class T> struct Room {
    T* at;
    u64 n, most;
    EMU_NO_TRACE void add(const T* items, u64 count, const char* what) {
        if (n + count > most)
            emu::fault("the trace is full: it holds %llu %s. Trace fewer blocks or smaller tensors",
                       most, what);
        __builtin_memcpy((void*)(at + n), items, count * sizeof(T));
        n += count;
    }
};

struct Tape {
    // filled in for Python: where this file and shared memory are
    u64 file_begin, shared_begin, shared_end, dynamic_begin;
    Room<Access> accesses;
    Room<Sync> syncs;
    Room<Moment> moments;        // of the watched block
    Room<char> pictures;         // of its shared memory at each step, static then dynamic
    Room<const Region> regions;
    Room<Happening> happenings;  // in the order of the emulation
    u64 watched_block, has_stray;
    Access stray;                // the access outside every array
};

static Tape* tape;
static unsigned interval, epochs[emu::MAX_WARPS];

EMU_NO_TRACE static void begin_launch() {}
EMU_NO_TRACE static void end_launch() {}

EMU_NO_TRACE static void begin_block(size_t) {
    if (tape) tape->dynamic_begin = (u64)emu::dynamic_shared();
    interval = 0;
    __builtin_memset(epochs, 0, sizeof epochs);
}

EMU_NO_TRACE static void take_picture(emu::Place at) {
    if (!tape || emu::current_block() != tape->watched_block) return;
    Moment moment = {(u64)at.file, (unsigned)at.line, interval};
    tape->moments.add(&moment, 1, "moments");
    tape->pictures.add(emu_shared_begin, emu_shared_end - emu_shared_begin,
                       "bytes of pictures of shared memory");
    tape->pictures.add(emu::dynamic_shared(), emu::dynamic_shared_bytes(),
                       "bytes of pictures of shared memory");
}

EMU_NO_TRACE static void barrier_released(emu::Place at) {
    take_picture(at);
    interval++;
}

EMU_NO_TRACE static void end_block() { take_picture({"", 0}); }

EMU_NO_TRACE static void warp_synced(unsigned warp, unsigned mask, emu::Place) {
    Sync sync = {(unsigned)emu::current_block(), warp, epochs[warp]++, mask};
    if (tape) tape->syncs.add(&sync, 1, "__syncwarp");
}

// The region that holds all of these bytes; nullptr if none does.
EMU_NO_TRACE static const Region* find(u64 begin, u64 end) {
    const Region* end_of_all = tape->regions.at + tape->regions.n;
    for (const Region* region = tape->regions.at; region < end_of_all; region++)
        if (begin >= region->begin && end <= region->end) return region;
    static Region dynamic;
    dynamic = {tape->dynamic_begin, tape->dynamic_begin + emu::dynamic_shared_bytes(), 1};
    return begin >= dynamic.begin && end <= dynamic.end ? &dynamic : nullptr;
}

EMU_NO_TRACE static void record(const void* p, size_t bytes, Kind kind, u64 place, int line) {
    if (!tape || !emu::machine || emu::is_local(p)) return;
    unsigned thread = emu::current_thread();
    Access access = {(u64)p, place, (unsigned)line, (unsigned)emu::current_block(), interval,
                     epochs[thread / 32],
                     (unsigned short)thread, (unsigned short)bytes, kind};
    const Region* region = find(access.address, access.address + bytes);
    if (!region) {
        tape->stray = access;
        tape->has_stray = 1;
        emu::fault("touches memory that is neither a tensor's nor the block's");
    }
    if (region->is_recorded) tape->accesses.add(&access, 1, "memory accesses");
}

EMU_NO_TRACE static void atomic(const void* p, size_t bytes, emu::Place at) {
    record(p, bytes, ATOMIC, (u64)at.file, at.line);
}
EMU_NO_TRACE static void happened(Event event, u64 number, emu::Place at) {
    Happening one = {(u64)at.file, number, (unsigned)at.line, (unsigned)emu::current_block(),
                     emu::current_thread(), event};
    if (tape) tape->happenings.add(&one, 1, "events");
}
EMU_NO_TRACE static void access16(const void* p, bool is_write, emu::Place at) {
    record(p, 16, is_write ? WRITE : READ, (u64)at.file, at.line);
}

}  // namespace trace

extern "C" {
// nullptr: stop recording
__attribute__((visibility("default"))) EMU_NO_TRACE void emulate_onto_tape(trace::Tape* tape) {
    trace::tape = tape;
    if (!tape) return;
    tape->file_begin = (trace::u64)__ehdr_start;
    tape->shared_begin = (trace::u64)emu_shared_begin;
    tape->shared_end = (trace::u64)emu_shared_end;
}

// The names by which gcc and clang call. A size in the name, "unaligned" or not, a range for the
// copy of a struct.
#define EMU_HOOK __attribute__((visibility("hidden"))) EMU_NO_TRACE
#define EMU_HOOKS(name, kind, bytes) \
    EMU_HOOK void __tsan_##name(void* p) { \
        trace::record(p, bytes, kind, (trace::u64)__builtin_return_address(0), 0); \
    }
#define EMU_SIZE(n) \
    EMU_HOOKS(read##n, trace::READ, n) EMU_HOOKS(write##n, trace::WRITE, n) \
    EMU_HOOKS(unaligned_read##n, trace::READ, n) EMU_HOOKS(unaligned_write##n, trace::WRITE, n)
EMU_SIZE(1) EMU_SIZE(2) EMU_SIZE(4) EMU_SIZE(8) EMU_SIZE(16)
EMU_HOOK void __tsan_read_range(void* p, size_t n) {
    trace::record(p, n, trace::READ, (trace::u64)__builtin_return_address(0), 0);
}
EMU_HOOK void __tsan_write_range(void* p, size_t n) {
    trace::record(p, n, trace::WRITE, (trace::u64)__builtin_return_address(0), 0);
}
// clang's, for the copy of a struct
EMU_HOOK void* __tsan_memcpy(void* to, const void* from, size_t n) {
    trace::record(from, n, trace::READ, (trace::u64)__builtin_return_address(0), 0);
    trace::record(to, n, trace::WRITE, (trace::u64)__builtin_return_address(0), 0);
    return __builtin_memcpy(to, from, n);
}
EMU_HOOK void* __tsan_memset(void* to, int byte, size_t n) {
    trace::record(to, n, trace::WRITE, (trace::u64)__builtin_return_address(0), 0);
    return __builtin_memset(to, byte, n);
}
EMU_HOOK void __tsan_atomic_thread_fence(int) { __sync_synchronize(); }
EMU_HOOK void __tsan_init() {}
EMU_HOOK void __tsan_func_entry(void*) {}
EMU_HOOK void __tsan_func_exit() {}
}
