// Tensor cores on the CPU: `ldmatrix` and `mma.sync`, as warp operations. Part of the emulator;
// kernels reach it through tensor_cores.cuh.
//
// A fragment is the part of a matrix that one lane holds in its registers. Which lane holds which
// element is fixed by the hardware (PTX ISA, sections "Matrix fragments for mma.m16n8k16" and
// "ldmatrix"). Sums are fp32, added in the order of k; a GPU adds all products of an instruction
// with fewer bits and truncates, so no tolerance may depend on the last bits.
#pragma once

#include "async.h"

namespace emu {

typedef float (*Widen)(unsigned short bits);
EMU_NO_TRACE static float widen_bf16(unsigned short bits) {
    return __uint_as_float((unsigned)bits << 16);
}
EMU_NO_TRACE static float widen_fp16(unsigned short bits) { return float_from_half(bits); }

// What the lanes of each warp give to an operation and receive from it. A lane overwrites its place
// only in its next operation, which needs all lanes.
struct Fragments {
    const char* row[32];
    unsigned a[32][4], b[32][2];
    float c[32][4];
    unsigned loaded[32][4];
    const char* registers[32];   // of a wgmma: where each lane's A is
    Widen widen;
};
static EMU_PER_WORKER Fragments fragments[MAX_WARPS];
EMU_NO_TRACE static Fragments& fragments_here() { return fragments[current_thread() / 32]; }

// ---- ldmatrix: four 8x8 matrices of 2-byte numbers, one row of 16 bytes from each lane ----------
// Lanes 8m to 8m+7 point to the rows of matrix m. Lane l receives the two neighbors (l/4, 2(l%4))
// and (l/4, 2(l%4)+1) of each matrix; transposed, it receives (2(l%4), l/4) and (2(l%4)+1, l/4).

template <bool IS_TRANSPOSED>
EMU_NO_TRACE static void finish_ldmatrix(Warp& warp, unsigned, const Call&) {
    Fragments& f = fragments[&warp - machine->warps];
    for (unsigned lane = 0; lane < 32; lane++)
        for (unsigned m = 0; m < 4; m++) {
            unsigned short pair[2];
            for (unsigned i = 0; i < 2; i++) {
                unsigned along = lane / 4, across = 2 * (lane % 4) + i;
                unsigned row = IS_TRANSPOSED ? across : along;
                unsigned column = IS_TRANSPOSED ? along : across;
                __builtin_memcpy(&pair[i], f.row[8 * m + row] + 2 * column, 2);
            }
            f.loaded[lane][m] = pair[0] | (unsigned)pair[1] << 16;
        }
}

EMU_NO_TRACE static void ldmatrix(unsigned (&r)[4], const void* row, bool is_transposed, Place at) {
    if (!is_in_shared(row, 16) || (size_t)row % 16)
        fault("ldmatrix at %s:%d: a row must be 16 bytes of shared memory at a multiple of 16",
              at.file, at.line);
    access16(row, false, at);
    Fragments& f = fragments_here();
    unsigned lane = current_thread() % 32;
    f.row[lane] = (const char*)row;
    meet(~0u, {"ldmatrix", at}, is_transposed ? finish_ldmatrix<true> : finish_ldmatrix<false>,
         false);
    __builtin_memcpy(r, f.loaded[lane], sizeof r);
}

// ---- mma.m16n8k16: C (16x8, fp32) += A (16x16) B (16x8) -----------------------------------------
// With g = lane/4 and t = lane%4, and two neighbors in k per register:
//     a[0]: row g,   k 2t     a[1]: row g+8, k 2t     a[2]: row g,   k 2t+8   a[3]: row g+8, k 2t+8
//     b[0]: column g, k 2t    b[1]: column g, k 2t+8
//     c[0], c[1]: row g, columns 2t, 2t+1             c[2], c[3]: row g+8, the same columns

EMU_NO_TRACE static void finish_mma(Warp& warp, unsigned, const Call&) {
    Fragments& f = fragments[&warp - machine->warps];
    float a[16][16], b[16][8];
    for (unsigned lane = 0; lane < 32; lane++) {
        unsigned g = lane / 4, t = lane % 4;
        for (unsigned half = 0; half < 2; half++)
            for (unsigned i = 0; i < 2; i++) {
                unsigned k = 2 * t + 8 * half + i, shift = 16 * i;
                a[g][k] = f.widen((unsigned short)(f.a[lane][2 * half] >> shift));
                a[g + 8][k] = f.widen((unsigned short)(f.a[lane][2 * half + 1] >> shift));
                b[k][g] = f.widen((unsigned short)(f.b[lane][half] >> shift));
            }
    }
    for (unsigned lane = 0; lane < 32; lane++)
        for (unsigned i = 0; i < 4; i++) {
            unsigned row = lane / 4 + i / 2 * 8, column = 2 * (lane % 4) + i % 2;
            float sum = f.c[lane][i];
            for (unsigned k = 0; k < 16; k++) sum += a[row][k] * b[k][column];
            f.c[lane][i] = sum;
        }
}

EMU_NO_TRACE static void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                             Widen widen, Place at) {
    Fragments& f = fragments_here();
    unsigned lane = current_thread() % 32;
    f.widen = widen;
    __builtin_memcpy(f.a[lane], a, sizeof a);
    f.b[lane][0] = b0, f.b[lane][1] = b1;
    __builtin_memcpy(f.c[lane], c, sizeof c);
    meet(~0u, {"mma.sync", at}, finish_mma, false);
    __builtin_memcpy(c, f.c[lane], sizeof c);
    if (!lane) EMU_TELL(happened(trace::MULTIPLIES, current_thread() / 32, at));
}

}  // namespace emu
