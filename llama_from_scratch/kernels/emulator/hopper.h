// Hopper's asynchronous machine on the CPU: mbarriers, the TMA that copies whole tiles, and
// `wgmma`, the products of a warpgroup. Part of the emulator; kernels reach it through hopper.cuh.
//
// The layouts are in the PTX ISA, sections "Asynchronous Warpgroup Level Matrix Instructions" and
// "Tensor Memory Access (TMA)", with the 128-byte swizzle only: within every 1024 bytes of shared
// memory, the 16-byte chunk number c of the 128-byte row r is stored in place c ^ r. Addresses of
// shared memory count from the beginning of the block's dynamic shared memory.
//
// Not modeled: that plain stores to shared memory need fence.proxy.async before a wgmma reads them,
// and clusters.
#pragma once

#include "tensor_cores.h"

// Where a tensor is and how it is cut into boxes: what the driver encodes for a GPU, readable. Axis
// 0 has no gaps; `stride[i]` is axis i + 1's, in bytes. 128 bytes, as on a GPU.
struct alignas(64) TensorMap {
    char* base;
    unsigned long long size[4], stride[3];
    unsigned box[4], n_axes, item_bytes;
    unsigned unused[10];
};
static_assert(sizeof(TensorMap) == 128, "as on a GPU");

// Threads and bytes that a phase still waits for. When both are 0, the next phase begins.
struct alignas(8) Mbarrier { unsigned short n_expected, n_missing; int bytes_and_phase; };

namespace emu {

constexpr unsigned short NO_BARRIER = 0xffff;   // what poisoned shared memory holds
constexpr unsigned WARPGROUP = 128, N_NUMBERED = 16, SWIZZLE_ROW = 128, SWIZZLE_TILE = 1024;

EMU_NO_TRACE static unsigned swizzled(unsigned offset) {
    return offset ^ (offset / SWIZZLE_ROW % 8 * 16);
}

// ---- mbarriers ----------------------------------------------------------------------------------

EMU_NO_TRACE static int phase_of(const Mbarrier* barrier) { return barrier->bytes_and_phase & 1; }
EMU_NO_TRACE static int missing_bytes(const Mbarrier* barrier) {
    return barrier->bytes_and_phase >> 1;
}
EMU_NO_TRACE static void require_barrier(const Mbarrier* barrier, const char* what, Place at) {
    if (!is_in_shared(barrier, sizeof *barrier) || (size_t)barrier % 8)
        fault("%s at %s:%d: an mbarrier must be 8 bytes of shared memory at a multiple of 8", what,
              at.file, at.line);
    if (barrier->n_expected == NO_BARRIER || !barrier->n_expected)
        fault("%s at %s:%d: this mbarrier was not initialized", what, at.file, at.line);
}
EMU_NO_TRACE static void finish_phase_if_complete(Mbarrier* barrier, Place at) {
    if (barrier->n_missing || missing_bytes(barrier)) return;
    barrier->n_missing = barrier->n_expected;
    barrier->bytes_and_phase ^= 1;
    EMU_TELL(happened(trace::PHASE_ENDS, shared_offset(barrier), at));
    (void)at;
    wake(PHASE, barrier);
}
EMU_NO_TRACE static void init_barrier(Mbarrier* barrier, unsigned n_threads, Place at) {
    if (!is_in_shared(barrier, sizeof *barrier) || (size_t)barrier % 8 || !n_threads)
        fault("mbarrier.init at %s:%d: needs 8 bytes of shared memory at a multiple of 8, and at "
              "least one thread", at.file, at.line);
    *barrier = {(unsigned short)n_threads, (unsigned short)n_threads, 0};
}
EMU_NO_TRACE static void arrive(Mbarrier* barrier, unsigned n_bytes, Place at) {
    require_barrier(barrier, "mbarrier.arrive", at);
    if (!barrier->n_missing)
        fault("mbarrier.arrive at %s:%d: more threads arrive in a phase than the %u that it was "
              "initialized for", at.file, at.line, barrier->n_expected);
    barrier->n_missing--;
    barrier->bytes_and_phase += 2 * (int)n_bytes;
    EMU_TELL(happened(trace::ARRIVES, shared_offset(barrier), at));
    finish_phase_if_complete(barrier, at);
}
// Waits until the phase of this parity has ended.
EMU_NO_TRACE static void wait_for_phase(Mbarrier* barrier, unsigned parity, Place at) {
    require_barrier(barrier, "mbarrier.try_wait", at);
    EMU_TELL(happened(trace::WAITS, shared_offset(barrier), at));
    while (phase_of(barrier) == (int)parity) {
        machine->current->object = barrier;
        wait_for(PHASE, {"mbarrier.try_wait", at});
    }
    EMU_TELL(happened(trace::GOES_ON, shared_offset(barrier), at));
}

// ---- bar.sync with a number: a barrier for some of the warps ------------------------------------

struct Numbered { unsigned n_threads, n_arrived; };
static EMU_PER_WORKER Numbered numbered[N_NUMBERED];

EMU_NO_TRACE static void numbered_barrier(unsigned number, unsigned n_threads, bool waits,
                                          const Call& call) {
    if (!number || number >= N_NUMBERED || n_threads % 32 || !n_threads)
        fault(EMU_CALL ": needs a number from 1 to 15 (0 is __syncthreads) and whole warps; got "
              "number %u and %u threads", EMU_CALL_OF(call), number, n_threads);
    Numbered& barrier = numbered[number];
    if (barrier.n_arrived && barrier.n_threads != n_threads)
        fault(EMU_CALL ": barrier %u counts %u threads, but others arrived at it with %u",
              EMU_CALL_OF(call), number, n_threads, barrier.n_threads);
    barrier.n_threads = n_threads;
    if (++barrier.n_arrived == n_threads) {
        barrier.n_arrived = 0;
        wake(NUMBERED, &barrier);
    } else if (waits) {
        machine->current->object = &barrier;
        wait_for(NUMBERED, call);
    }
}

// ---- TMA: one thread orders the copy of a box, and an mbarrier counts the bytes that arrive -----

// The map is copied: the thread that ordered the tile may have returned when it arrives.
struct Tile {
    char* to;
    TensorMap map;
    Mbarrier* barrier;
    int at[4];
    unsigned number;
    Place from;
};
static EMU_PER_WORKER List<Tile> tiles;   // ordered, and not there yet
static EMU_PER_WORKER unsigned n_tiles;   // ordered in this block so far

EMU_NO_TRACE static unsigned tile_bytes(const TensorMap* map) {
    return map->box[0] * map->box[1] * map->box[2] * map->box[3] * map->item_bytes;
}

// Elements outside of the tensor arrive as 0, and count.
EMU_NO_TRACE static void deliver(const Tile& tile) {
    const TensorMap& map = tile.map;
    unsigned place = 0, per_chunk = 16 / map.item_bytes;
    machine->busy_with = tile.from;
    for (unsigned d = 0; d < map.box[3]; d++)
        for (unsigned c = 0; c < map.box[2]; c++)
            for (unsigned b = 0; b < map.box[1]; b++)
                for (unsigned a = 0; a < map.box[0]; a += per_chunk, place += 16) {
                    // as unsigned, a negative coordinate is outside too
                    unsigned at[4] = {tile.at[0] + a, tile.at[1] + b, tile.at[2] + c,
                                      tile.at[3] + d};
                    bool is_inside = true;
                    for (unsigned i = 0; i < 4; i++) is_inside = is_inside && at[i] < map.size[i];
                    char* to = dynamic_shared() + swizzled(shared_offset(tile.to) + place);
                    const char* from = map.base + at[0] * (size_t)map.item_bytes;
                    for (unsigned i = 1; i < 4; i++) from += at[i] * map.stride[i - 1];
                    unsigned n_bytes = 0;
                    if (is_inside) {
                        unsigned rest = (map.size[0] - at[0]) * map.item_bytes;
                        n_bytes = rest < 16 ? rest : 16;
                        access16(from, false, tile.from);
                    }
                    access16(to, true, tile.from);
                    char data[16] = {};
                    __builtin_memcpy(data, from, n_bytes);
                    __builtin_memcpy(to, data, 16);
                }
    machine->busy_with = {};
    EMU_TELL(happened(trace::TILE_ARRIVES, tile.number, tile.from));
    tile.barrier->bytes_and_phase -= 2 * (int)tile_bytes(&map);
    // All threads have arrived, so none can announce more in this phase; or none has announced any.
    bool is_announced = tile.barrier->n_missing
                     && tile.barrier->n_missing < tile.barrier->n_expected;
    if (missing_bytes(tile.barrier) < 0 && !is_announced)
        fault("the TMA at %s:%d delivers more bytes than its mbarrier expects", tile.from.file,
              tile.from.line);
    finish_phase_if_complete(tile.barrier, tile.from);
}

EMU_NO_TRACE static void order_tile(void* to, const TensorMap* map, Mbarrier* barrier, int a, int b,
                                    int c, int d, Place at) {
    require_barrier(barrier, "the TMA", at);
    if (!is_in_shared(to, tile_bytes(map)) || shared_offset(to) % SWIZZLE_TILE)
        fault("the TMA at %s:%d: a tile of %u bytes must be in dynamic shared memory, at a "
              "multiple of 1024", at.file, at.line, tile_bytes(map));
    Tile tile = {(char*)to, *map, barrier, {a, b, c, d}, n_tiles++, at};
    EMU_TELL(happened(trace::TILE_ORDERED, tile.number, at));
    if (copies_at_once()) deliver(tile);
    else tiles.add(tile);
}

// Tiles may arrive in any order. Here a tile that some thread waits for comes before the others, so
// that a kernel which waits for one tile and reads another is found out.
EMU_NO_TRACE static bool is_awaited(const Tile& tile) {
    for (unsigned i = 0; i < machine->n_threads; i++) {
        Thread& t = machine->threads[i];
        if (t.waits_for == PHASE && t.object == tile.barrier) return true;
    }
    return false;
}
EMU_NO_TRACE static bool deliver_one() {
    if (!tiles.n) return false;
    bool is_drawn = machine->launch->order == RANDOM && random_below(2);
    unsigned chosen = is_drawn ? random_below(tiles.n) : tiles.n - 1;
    for (unsigned i = tiles.n; i-- > 0 && !is_drawn;)
        if (is_awaited(tiles.at[i])) {
            chosen = i;
            break;
        }
    deliver(tiles.take(chosen));
    return true;
}

// ---- wgmma: D (64 x N, fp32, in the registers of 128 threads) += A (64 x 16) B (16 x N) ---------
// Thread t of the warpgroup, in warp w = t/32 with g = t%32/4 and p = t%4, holds of D the rows
// 16w + g and 16w + g + 8: d[4i], d[4i+1] are columns 8i + 2p and the next of the first row,
// d[4i+2], d[4i+3] the same of the second.

// Where a matrix begins in shared memory, and the distances between its pieces. Along its rows
// ("K-major"): 8 rows of 128 bytes are a piece, `stride` bytes apart. Across ("MN-major"): 64
// numbers of a column are 128 bytes, 8 columns are a piece; pieces are `stride` bytes apart along k
// and `leading` bytes apart across.
struct Operand { unsigned start, leading, stride; };
EMU_NO_TRACE static Operand operand_of(unsigned long long descriptor, Place at) {
    if (descriptor >> 62 != 1)
        fault("wgmma at %s:%d: only the 128-byte swizzle is emulated", at.file, at.line);
    return {(unsigned)(descriptor & 0x3fff) << 4, (unsigned)(descriptor >> 16 & 0x3fff) << 4,
            (unsigned)(descriptor >> 32 & 0x3fff) << 4};
}
EMU_NO_TRACE static float element(const Operand& x, unsigned mn, unsigned k, bool is_mn_major,
                                  Widen widen, Place at) {
    unsigned offset = is_mn_major
        ? mn % 64 * 2 + mn / 64 * x.leading + k % 8 * 128 + k / 8 * x.stride
        : mn / 8 * x.stride + mn % 8 * 128 + k * 2;
    offset = swizzled(x.start + offset);
    if (offset + 2 > dynamic_shared_bytes())
        fault("wgmma at %s:%d reads byte %u of the block's dynamic shared memory, which has %zu",
              at.file, at.line, offset, dynamic_shared_bytes());
    unsigned short bits;
    __builtin_memcpy(&bits, dynamic_shared() + offset, 2);
    return widen(bits);
}

struct Product {
    float* d;
    unsigned n;
    Operand a, b;
    bool a_is_in_registers, a_is_mn_major, b_is_mn_major, adds;
    const unsigned* quad[4];      // A's registers in the four lanes that share its rows
    Widen widen;
    Place at;
    unsigned number;
};
static EMU_PER_WORKER Groups<Product>* products;   // of each thread
static EMU_PER_WORKER unsigned n_products;         // of all warpgroups, in this block so far
static EMU_PER_WORKER bool* has_fenced;            // since it last waited for products

EMU_NO_TRACE static void finish(const Product& p) {
    unsigned t = current_thread() % WARPGROUP, row = t / 32 * 16 + t % 32 / 4, pair = t % 4;
    float a[2][16];
    for (unsigned half = 0; half < 2; half++)
        for (unsigned k = 0; k < 16; k++)
            a[half][k] = p.a_is_in_registers
                ? p.widen((unsigned short)(p.quad[k % 8 / 2][k / 8 * 2 + half] >> k % 2 * 16))
                : element(p.a, row + 8 * half, k, p.a_is_mn_major, p.widen, p.at);
    for (unsigned i = 0; i < p.n / 8; i++)
        for (unsigned j = 0; j < 2; j++) {
            float low = p.adds ? p.d[4 * i + j] : 0, high = p.adds ? p.d[4 * i + 2 + j] : 0;
            for (unsigned k = 0; k < 16; k++) {
                float b = element(p.b, 8 * i + 2 * pair + j, k, p.b_is_mn_major, p.widen, p.at);
                low += a[0][k] * b, high += a[1][k] * b;
            }
            p.d[4 * i + j] = low, p.d[4 * i + 2 + j] = high;
        }
    if (!t) EMU_TELL(happened(trace::PRODUCT_ENDS, p.number, p.at));
}

EMU_NO_TRACE static void begin_product(Product& product) {
    unsigned t = current_thread();
    if (!has_fenced[t])
        fault("wgmma at %s:%d: its registers may still be in use; wgmma.fence must come first",
              product.at.file, product.at.line);
    if (t % WARPGROUP == 0) {   // its first thread tells for the warpgroup
        product.number = n_products++;
        EMU_TELL(happened(trace::PRODUCT_BEGINS, product.number, product.at));
    }
    if (multiplies_at_once() && !products[t].pending.n) finish(product);
    else products[t].add(product);
}

EMU_NO_TRACE static void finish_gather(Warp&, unsigned, const Call&) {}

template <int R>
EMU_NO_TRACE static void multiply_shared(float (&d)[R], unsigned long long a, unsigned long long b,
                                         bool adds, bool a_is_mn_major, bool b_is_mn_major,
                                         Widen widen, Place at) {
    meet(~0u, {"wgmma", at}, finish_gather, false);
    Product product = {d, 2 * R, operand_of(a, at), operand_of(b, at), false, a_is_mn_major,
                       b_is_mn_major, adds, {}, widen, at, 0};
    begin_product(product);
}

EMU_NO_TRACE static void finish_sharing(Warp& warp, unsigned, const Call&) {
    Fragments& f = fragments[&warp - machine->warps];
    __builtin_memcpy(f.registers, f.row, sizeof f.row);
}

// A's fragment is laid out as for mma.m16n8k16, in each warp: its 16 rows of the 64. It is read when
// the product completes, as D is.
template <int R>
EMU_NO_TRACE static void multiply_registers(float (&d)[R], const unsigned (&a)[4],
                                            unsigned long long b, bool adds, bool b_is_mn_major,
                                            Widen widen, Place at) {
    Fragments& f = fragments_here();
    unsigned lane = current_thread() % 32;
    f.row[lane] = (const char*)a;
    meet(~0u, {"wgmma", at}, finish_sharing, false);
    Product product = {d, 2 * R, {}, operand_of(b, at), true, false, b_is_mn_major, adds, {}, widen,
                       at, 0};
    for (unsigned i = 0; i < 4; i++)
        product.quad[i] = (const unsigned*)f.registers[lane / 4 * 4 + i];
    begin_product(product);
}

EMU_NO_TRACE static void fence_products(Place at) {
    meet(~0u, {"wgmma.fence", at}, finish_gather, false);
    has_fenced[current_thread()] = true;
}
EMU_NO_TRACE static void commit_products(Place at) {
    meet(~0u, {"wgmma.commit_group", at}, finish_gather, false);
    products[current_thread()].commit();
}
EMU_NO_TRACE static void wait_for_products(unsigned n_left, Place at) {
    meet(~0u, {"wgmma.wait_group", at}, finish_gather, false);
    unsigned t = current_thread();
    if (!products[t].is_complete(n_left)) {   // others go on until nothing but these products can
        machine->current->object = &machine->warps[t / 32];
        wait_for(PRODUCTS, {"wgmma.wait_group", at});
    }
    products[t].wait(n_left, [](const Product& product) { finish(product); });
    has_fenced[t] = false;
    meet(~0u, {"wgmma.wait_group", at}, finish_gather, false);   // no lane goes on before the last
}

// ---- setmaxnreg: warpgroups pass registers to each other ----------------------------------------

// per thread, of each warpgroup; 0: as it was
static EMU_PER_WORKER unsigned registers[MAX_WARPS / 4];

EMU_NO_TRACE static void set_registers(unsigned n, Place at) {
    meet(~0u, {"setmaxnreg", at}, finish_gather, false);
    if (n % 8 || n < 24 || n > 256)
        fault("setmaxnreg at %s:%d: needs a multiple of 8 from 24 to 256; got %u", at.file, at.line,
              n);
    unsigned total = 0, n_groups = (machine->n_threads + WARPGROUP - 1) / WARPGROUP;
    registers[current_thread() / WARPGROUP] = n;
    for (unsigned i = 0; i < n_groups; i++) {
        if (!registers[i]) return;   // not known before every warpgroup has asked
        total += registers[i] * WARPGROUP;
    }
    if (total > 65536)
        fault("setmaxnreg at %s:%d: the warpgroups together ask for %u registers; a processor has "
              "65536", at.file, at.line, total);
}

// A by-value argument, from memory that may be less aligned than its type.
template <class T> static T unaligned(const void* p) {
    T value;
    __builtin_memcpy(&value, p, sizeof value);
    return value;
}

// ---- the engine ---------------------------------------------------------------------------------

EMU_NO_TRACE static void begin_hopper_block() {
    if (!products) products = (Groups<Product>*)__builtin_calloc(MAX_THREADS, sizeof *products);
    if (!has_fenced) has_fenced = (bool*)__builtin_calloc(MAX_THREADS, 1);
    for (unsigned i = 0; i < MAX_THREADS; i++) products[i].clear(), has_fenced[i] = false;
    __builtin_memset(numbered, 0, sizeof numbered);
    __builtin_memset(registers, 0, sizeof registers);
    tiles.n = n_tiles = n_products = 0;
}
// When all threads wait, one thing completes: the products of a warp, or, after all products, a tile.
EMU_NO_TRACE static bool progress_hopper() {
    Machine& m = *machine;
    bool is_random = m.launch->order == RANDOM;
    if (is_random && random_below(2) && deliver_one()) return true;
    unsigned first = is_random ? random_below(m.n_threads) : 0;
    for (unsigned i = 0; i < m.n_threads; i++) {
        Thread& t = m.threads[(first + i) % m.n_threads];
        if (t.waits_for == PRODUCTS) {
            wake(PRODUCTS, t.object);
            return true;
        }
    }
    return deliver_one();
}
static const bool has_hopper = (begin_more = begin_hopper_block, progress_more = progress_hopper,
                                true);

}  // namespace emu
