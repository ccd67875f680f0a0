// What runs while the threads of a block go on: copies and products that start now and complete
// later, and the barriers by which threads learn of it. Part of the emulator; tensor_cores.h and
// hopper.h build on it.
//
// A GPU may complete such an operation at once, or only when some thread waits for it. A kernel that
// is right does not notice. So the order of a launch decides: "forward" completes everything as
// late as legal, which finds a missing wait; "reverse" completes copies at once, which finds a
// buffer that is filled again too early; "random" draws for each operation. As late as legal means
// for tiles and products: when no thread can go on without them.
#pragma once

namespace emu {

EMU_NO_TRACE static bool copies_at_once() {
    int order = machine->launch->order;
    return order == REVERSE || (order == RANDOM && random_below(2));
}
EMU_NO_TRACE static bool multiplies_at_once() {
    return machine->launch->order == RANDOM && random_below(2);
}

// A list of items without constructors, in memory that is kept from block to block.
template <class T> struct List {
    T* at;
    unsigned n, room;
    EMU_NO_TRACE void add(const T& item) {
        if (n == room) {
            room = room ? 2 * room : 16;
            at = (T*)__builtin_realloc(at, room * sizeof(T));
        }
        __builtin_memcpy((void*)(at + n++), &item, sizeof item);
    }
    EMU_NO_TRACE T take(unsigned i) {   // out of the list; the order of the others stays
        T item = at[i];
        __builtin_memmove((void*)(at + i), at + i + 1, (--n - i) * sizeof(T));
        return item;
    }
};

// Operations that one thread started, in groups that it closes with `commit`. `finish` is called
// for each of them when its group is waited for.
template <class T> struct Groups {
    struct Entry { T item; unsigned group; };
    List<Entry> pending;
    unsigned n_closed;
    EMU_NO_TRACE void add(const T& item) { pending.add({item, n_closed}); }
    EMU_NO_TRACE void commit() { n_closed++; }
    EMU_NO_TRACE bool is_complete(unsigned n_left) const {
        return !pending.n || pending.at[0].group + n_left >= n_closed;
    }
    // Completes all groups but the last `n_left` that were closed.
    template <class Finish> EMU_NO_TRACE void wait(unsigned n_left, Finish finish) {
        unsigned kept = 0;
        for (unsigned i = 0; i < pending.n; i++) {
            Entry& entry = pending.at[i];
            if (entry.group + n_left < n_closed) finish(entry.item);
            else pending.at[kept++] = entry;
        }
        pending.n = kept;
    }
    EMU_NO_TRACE void clear() { pending.n = n_closed = 0; }
};

EMU_NO_TRACE static size_t shared_offset(const void* p) {   // within dynamic shared memory
    return (size_t)((char*)p - dynamic_shared());
}
// Whether p may be static shared memory. That of a template has no place among the block's other
// static arrays, but is in this file. In the fast build, it is one of the OS thread's own variables.
EMU_NO_TRACE static bool is_static(const void* p) {
#if defined(EMU_CHECKED) || defined(EMU_TRACE)
    Dl_info mine, found;
    return dladdr((void*)is_local, &mine) && dladdr(p, &found)
           && found.dli_fbase == mine.dli_fbase;
#else
    return !is_local(p);
#endif
}
EMU_NO_TRACE static bool is_in_shared(const void* p, size_t bytes) {
    bool is_dynamic = (char*)p >= dynamic_shared()
                      && shared_offset(p) + bytes <= dynamic_shared_bytes();
    return is_dynamic || is_static(p);
}

// Wakes every thread that waits for `object`.
EMU_NO_TRACE static void wake(Wait kind, const void* object) {
    Machine& m = *machine;
    for (unsigned i = 0; i < m.n_threads; i++) {
        Thread& t = m.threads[i];
        if (t.waits_for == kind && t.object == object) {
            t.waits_for = NOTHING;
            make_ready(i / 32, 1u << i % 32);
        }
    }
}

// ---- cp.async: a thread copies 16 bytes to shared memory, past its registers --------------------

struct Copy { char* to; const char* from; unsigned bytes, number; Place at; };
static EMU_PER_WORKER Groups<Copy>* copies;   // of each thread
static EMU_PER_WORKER unsigned n_copies;      // in this block so far

EMU_NO_TRACE static void finish(const Copy& copy) {
    machine->busy_with = copy.at;
    if (copy.bytes) access16(copy.from, false, copy.at);
    access16(copy.to, true, copy.at);
    char data[16] = {};
    __builtin_memcpy(data, copy.from, copy.bytes);
    __builtin_memcpy(copy.to, data, 16);
    machine->busy_with = {};
    EMU_TELL(happened(trace::COPY_ENDS, copy.number, copy.at));
}

// The first `bytes` of 16 are copied, and the rest is 0.
EMU_NO_TRACE static void copy_async(void* to, const void* from, unsigned bytes, Place at) {
    if (!is_in_shared(to, 16) || (size_t)to % 16)
        fault("cp.async at %s:%d: the target must be 16 bytes of shared memory at a multiple of 16",
              at.file, at.line);
    if (bytes > 16 || (bytes && (size_t)from % 16))
        fault("cp.async at %s:%d: the source must be 0 to 16 bytes at a multiple of 16", at.file,
              at.line);
    Copy copy = {(char*)to, (const char*)from, bytes, n_copies++, at};
    EMU_TELL(happened(trace::COPY_BEGINS, copy.number, at));
#ifdef EMU_TSAN   // it may be written from now on, not only when it is waited for
    __tsan_write16(to);
#endif
    if (copies_at_once()) finish(copy);
    else copies[current_thread()].add(copy);
}
EMU_NO_TRACE static void commit_copies() { copies[current_thread()].commit(); }
EMU_NO_TRACE static void wait_for_copies(unsigned n_left) {
    copies[current_thread()].wait(n_left, [](const Copy& copy) { finish(copy); });
}

// ---- the engine: begins each block, and is extended by hopper.h ---------------------------------

static void (*begin_more)();          // what hopper.h forgets at the beginning of a block
static bool (*progress_more)();       // and what it can complete when all threads wait

EMU_NO_TRACE static void begin_async_block() {
    if (!copies) copies = (Groups<Copy>*)__builtin_calloc(MAX_THREADS, sizeof *copies);
    for (unsigned i = 0; i < MAX_THREADS; i++) copies[i].clear();
    n_copies = 0;
    if (begin_more) begin_more();
}
EMU_NO_TRACE static bool progress_async() { return progress_more && progress_more(); }
static const Engine async_engine = {begin_async_block, progress_async};
static const bool has_engine = (engine = &async_engine, true);

}  // namespace emu
