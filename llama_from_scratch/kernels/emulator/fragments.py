"""Which lane of a warp holds which number of a matrix, found by running the instructions.

A tensor core multiplies matrices that no thread has whole. Each of the 32 lanes holds a few numbers
in its registers, and the instruction fixes which: the lane's *fragment*. Here no formula says so.
Each matrix is multiplied or loaded by the emulated instruction with numbers that tell where they
are, and what arrives in the registers is read back.

Notebook 37. Source of the layouts that the emulator has: NVIDIA, "PTX ISA", sections "Matrix
fragments for mma.m16n8k16", "ldmatrix" and "Register Fragments and Shared Memory Matrix Layouts".
"""

import functools

import numpy as np
import torch
from torch import Tensor

from llama_from_scratch.config import record
from llama_from_scratch.kernels.emulator.machine import load
from llama_from_scratch.kernels.machinery.source import FOLDER, Program, Source

LANES, WARPGROUP = 32, 128
_N = 64   # columns of the wgmma that is run; other widths have more or fewer of the same pieces

TEXT = r"""
#include "hopper.cuh"

// Block i loads the 16x16 matrix i, row by row, as ldmatrix_x4 is used for A.
extern "C" __global__ void load_matrix(const real* x, unsigned* y, int is_transposed) {
    DYNAMIC_SHARED(real, tile);
    int lane = threadIdx.x, row = lane % 16, chunk = lane / 16;
    store(tile + lane * 8, load(x + blockIdx.x * 256 + lane * 8));
    __syncwarp();
    unsigned r[4];
    if (is_transposed) ldmatrix_x4_trans(r, tile + row * 16 + chunk * 8);
    else ldmatrix_x4(r, tile + row * 16 + chunk * 8);
    for (int i = 0; i < 4; i++) y[(blockIdx.x * 32 + lane) * 4 + i] = r[i];
}

// Block i multiplies the fragments i: a (n, 32, 4), b (n, 32, 2), c (n, 32, 4).
extern "C" __global__ void multiply(const unsigned* a, const unsigned* b, float* c) {
    int at = blockIdx.x * 32 + threadIdx.x;
    unsigned of_a[4] = {a[at * 4], a[at * 4 + 1], a[at * 4 + 2], a[at * 4 + 3]};
    float of_c[4] = {0, 0, 0, 0};
    mma_m16n8k16(of_c, of_a, b[at * 2], b[at * 2 + 1]);
    for (int i = 0; i < 4; i++) c[at * 4 + i] = of_c[i];
}

// Block i multiplies by a warpgroup: A and B are 64x64 in shared memory, of which 16 columns count;
// or A is in registers, (n, 128, 4).
extern "C" __global__ void multiply_by_warpgroup(const real* a, const real* b,
                                                 const unsigned* a_or_null, float* d) {
    DYNAMIC_SHARED(real, a_tile);
    real* b_tile = a_tile + 64 * 64;
    for (int i = threadIdx.x; i < 64 * 8; i += WARPGROUP) {
        store(a_tile + swizzled<64>(i / 8, i % 8), load(a + i * 8));
        store(b_tile + swizzled<64>(i / 8, i % 8), load(b + i * 8));
    }
    fence_proxy_async();
    __syncthreads();
    float sums[32];
    int at = blockIdx.x * WARPGROUP + threadIdx.x;
    wgmma_fence();
    if (a_or_null) {
        unsigned of_a[4];
        for (int i = 0; i < 4; i++) of_a[i] = a_or_null[at * 4 + i];
        wgmma_rs<false>(sums, of_a, along_k(b_tile), false);
        wgmma_commit();
        wgmma_wait<0>();
    } else {
        wgmma_ss<false, false>(sums, along_k(a_tile), along_k(b_tile), false);
        wgmma_commit();
        wgmma_wait<0>();
    }
    for (int i = 0; i < 32; i++) d[at * 32 + i] = sums[i];
}
"""


@record
class Fragment:
    """Who holds each number of a matrix: arrays of the matrix's shape.

    lane: of the warp, or the thread of the warpgroup. register: the number of the lane's register.
    half: 0 or 1, for the lower or upper 16 bits of it; always 0 for fp32, which fills a register.
    """

    name: str
    lane: np.ndarray
    register: np.ndarray
    half: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return self.lane.shape

    @property
    def n_lanes(self) -> int:
        """Of a warp, 32, or a warpgroup, 128."""
        return WARPGROUP if self.name.startswith("wgmma") else LANES

    def held_by(self, lane: int) -> list[tuple[int, int, int, int]]:
        """Returns what a lane holds: (register, half, row, column), in the order of registers.

        Raises ValueError for a lane that does not exist.
        """
        if not 0 <= lane < self.n_lanes:
            raise ValueError(f"a lane of {self.name} must be from 0 to {self.n_lanes - 1}; got "
                             f"{lane}")
        rows, columns = np.nonzero(self.lane == lane)
        return sorted((int(self.register[at]), int(self.half[at]), int(at[0]), int(at[1]))
                      for at in zip(rows, columns, strict=True))


@functools.cache
def fragment(name: str) -> Fragment:
    """Returns who holds which number, by running the instruction on the emulator.

    name: one of `FRAGMENTS`. Raises ValueError for another one.
    """
    if name not in FRAGMENTS:
        raise ValueError(f"a fragment must be one of {', '.join(FRAGMENTS)}; got {name!r}")
    return Fragment(name=name, **FRAGMENTS[name]())


def _run(entry: str, args: list, *, n: int, threads: int, shared_bytes: int = 0) -> None:
    headers = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.cuh"))}
    source = Source(name="fragments", text=TEXT, headers=headers)
    load(Program(source=source, real=torch.bfloat16)).launch(
        entry, args, grid=n, block=threads, shared_bytes=shared_bytes)


def _loaded(matrices: Tensor, *, is_transposed: bool = False) -> Tensor:
    """The registers of ldmatrix_x4 for matrices (n, 16, 16): (n, 32, 4) in int32."""
    n = len(matrices)
    registers = torch.zeros(n, LANES, 4, dtype=torch.int32)
    _run("load_matrix", [matrices.bfloat16().contiguous(), registers.view(torch.uint32),
                         int(is_transposed)], n=n, threads=LANES, shared_bytes=512)
    return registers


def _multiplied(a: Tensor, b: Tensor) -> Tensor:
    """The registers of C, (n, 32, 4), for the registers of A and B."""
    c = torch.zeros(len(a), LANES, 4)
    _run("multiply", [a.contiguous().view(torch.uint32), b.contiguous().view(torch.uint32), c],
         n=len(a), threads=LANES)
    return c


def _as_b(matrices: Tensor) -> Tensor:
    """The registers of B for matrices (n, 16, 8): ldmatrix of their transpose, rows along k."""
    rows = torch.nn.functional.pad(matrices.mT, (0, 0, 0, 8))
    return _loaded(rows)[..., [0, 2]]


def _placed(codes: np.ndarray, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Lane, register and half of each number, where codes[lane, register, half] says which it is.

    A number's code is its place in the matrix, counted row by row.
    """
    places = {name: np.full(shape, -1) for name in ("lane", "register", "half")}
    for at, code in np.ndenumerate(codes):
        for name, index in zip(places, at, strict=True):
            places[name].flat[int(code)] = index
    return places


def _of_ldmatrix(*, is_transposed: bool) -> dict[str, np.ndarray]:
    places = torch.arange(256).reshape(1, 16, 16)   # exact in bf16, as every whole number to 256
    registers = _loaded(places, is_transposed=is_transposed)
    codes = registers.view(torch.bfloat16).reshape(LANES, 4, 2)
    return _placed(codes.float().numpy(), (16, 16))


def _of_c() -> dict[str, np.ndarray]:
    a, b = torch.zeros(1, 16, 16), torch.zeros(1, 16, 8)
    a[0, :, 0], a[0, :, 1], b[0, 0], b[0, 1] = 8 * torch.arange(16), 1, 1, torch.arange(8)
    codes = _multiplied(_loaded(a), _as_b(b))[0, :, :, None]   # 8 row + column
    return _placed(codes.numpy(), (16, 8))


def _one_at_a_time(n_lanes: int, n_registers: int) -> Tensor:
    """Registers (register, half) one after the other filled with 1 + lane, all others 0."""
    n = 2 * n_registers
    registers = torch.zeros(n, n_lanes, n_registers, 2, dtype=torch.bfloat16)
    for i in range(n):
        registers[i, :, i // 2, i % 2] = 1 + torch.arange(n_lanes)
    return registers.view(torch.int32).reshape(n, n_lanes, n_registers)


def _owners(products: np.ndarray) -> dict[str, np.ndarray]:
    """The owners from products (2 registers, rows, columns) in which a number is 1 + its lane."""
    which = products.argmax(0)
    return {"lane": products.max(0).astype(int) - 1, "register": which // 2, "half": which % 2}


def _matrix_of(c: Tensor, found: dict[str, np.ndarray]) -> np.ndarray:
    """C's registers (n, lanes, registers) as matrices (n, rows, columns)."""
    return c.numpy()[:, found["lane"], found["register"]]


def _of_a() -> dict[str, np.ndarray]:
    probes, found = _one_at_a_time(LANES, 4), _of_c()
    halves = []
    for first in (0, 8):   # A times eight columns of the identity is eight columns of A
        b = torch.eye(16)[:, first:first + 8].expand(len(probes), 16, 8)
        halves.append(_matrix_of(_multiplied(probes, _as_b(b)), found))
    return _owners(np.concatenate(halves, axis=2))


def _of_b() -> dict[str, np.ndarray]:
    probes = _one_at_a_time(LANES, 2)
    a = _loaded(torch.eye(16).expand(len(probes), 16, 16))
    return _owners(_matrix_of(_multiplied(a, probes), _of_c()))


def _by_warpgroup(a: Tensor, b: Tensor, registers: Tensor | None, *, n: int = 1) -> Tensor:
    """D's registers (n, 128, 32) for A and B^T (64, at most 16), or A in registers."""
    wide = [torch.nn.functional.pad(x, (0, 64 - x.shape[1], 0, 64 - x.shape[0])).bfloat16()
            for x in (a, b)]
    d = torch.zeros(n, WARPGROUP, _N // 2)
    given = None if registers is None else registers.contiguous().view(torch.uint32)
    _run("multiply_by_warpgroup", [*wide, given, d], n=n, threads=WARPGROUP,
         shared_bytes=2 * 64 * 64 * 2)
    return d


def _of_d() -> dict[str, np.ndarray]:
    a = torch.stack([torch.arange(64.0), torch.ones(64)], 1)
    b = torch.stack([torch.full((_N,), float(_N)), torch.arange(float(_N))], 1)
    codes = _by_warpgroup(a, b, None)[0, :, :, None]   # 64 row + column
    return _placed(codes.numpy(), (64, _N))


def _of_a_of_warpgroup() -> dict[str, np.ndarray]:
    probes = _one_at_a_time(WARPGROUP, 4)
    d = _by_warpgroup(torch.zeros(64, 16), torch.eye(16), probes, n=len(probes))
    return _owners(_matrix_of(d, _of_d())[:, :, :16])


FRAGMENTS = {
    "ldmatrix": functools.partial(_of_ldmatrix, is_transposed=False),
    "ldmatrix.trans": functools.partial(_of_ldmatrix, is_transposed=True),
    "mma A": _of_a, "mma B": _of_b, "mma C": _of_c,
    "wgmma A": _of_a_of_warpgroup, "wgmma D": _of_d,
}
"""What `fragment` takes. "wgmma D" is 64 columns wide."""
