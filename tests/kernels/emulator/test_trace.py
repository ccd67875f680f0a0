"""The traced emulator against numbers worked out by hand."""

import subprocess

import numpy as np
import pytest
import torch

from llama_from_scratch.kernels.emulator import debug_info, machine, rules
from llama_from_scratch.kernels.emulator.trace import trace
from llama_from_scratch.kernels.machinery.source import FOLDER, Program, Source

COMMON = {"common.cuh": (FOLDER / "common.cuh").read_text()}

TEXT = """\
#include "common.cuh"
constexpr int N = 64, TILE = 32;
__constant__ float table[4] = {1, 2, 3, 4};

extern "C" __global__ void copy(const real* x, real* y, int stride, int offset, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i * stride + offset];
}
extern "C" __global__ void copy_vectors(const real* x, real* y) {
    int i = (blockIdx.x * blockDim.x + threadIdx.x) * VECTOR;
    store(y + i, load(x + i));
}
extern "C" __global__ void broadcast(const real* x, real* y) {
    y[threadIdx.x] = narrow(widen(x[0]) + table[threadIdx.x % 4]);
}
extern "C" __global__ void add_up(const float* x, float* y) {
    __shared__ float red[N];
    int t = threadIdx.x;
    red[t] = x[blockIdx.x * N + t];
    __syncthreads();  // all written
    for (int half = N / 2; half > 0; half /= 2) {
        if (t < half) red[t] += red[t + half];
        __syncthreads();  // round over
    }
    if (t == 0) y[blockIdx.x] = red[0];
}
extern "C" __global__ void transpose(const float* x, float* y) {
    __shared__ float tile[TILE][TILE];
    __shared__ float padded[TILE][TILE + 1];
    __shared__ float turned[TILE][TILE];
    int column = threadIdx.x;
    for (int row = threadIdx.y; row < TILE; row += blockDim.y) {
        tile[row][column] = x[row * TILE + column];
        padded[row][column] = x[row * TILE + column];
        turned[row][column ^ row] = x[row * TILE + column];
    }
    __syncthreads();
    for (int row = threadIdx.y; row < TILE; row += blockDim.y) {
        y[0 * TILE * TILE + column * TILE + row] = tile[row][column];
        y[1 * TILE * TILE + row * TILE + column] = tile[column][row];
        y[2 * TILE * TILE + row * TILE + column] = padded[column][row];
        y[3 * TILE * TILE + row * TILE + column] = turned[column][row ^ column];
    }
}
extern "C" __global__ void through_shared(const real* x, real* y) {
    __shared__ real reals[32];
    reals[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = reals[threadIdx.x];
}
extern "C" __global__ void wide(const float* x, double* y) {
    __shared__ double pairs[64];
    __shared__ float quads[128];
    __shared__ double strided[64];
    int t = threadIdx.x;
    pairs[t] = x[t];
    strided[t * 2] = x[t];
    store(quads + 4 * t, load(x + 4 * t));
    y[t] = pairs[t];
}
extern "C" __global__ void dynamic(const float* x, float* y) {
    DYNAMIC_SHARED(float, slots);
    slots[threadIdx.x] = 10 * x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = slots[threadIdx.x ^ 1];
}
"""


def program(text=TEXT, real=torch.float32):
    return Program(source=Source(name="text", text=text, headers=COMMON), real=real)


def number_of(line_start, text=TEXT):
    """The number of the one line that begins with these words."""
    found = [n for n, line in enumerate(text.split("\n"), start=1)
             if line.strip().startswith(line_start)]
    assert len(found) == 1, found
    return found[0]


def traffic(found, line, array, kind="reads"):
    (row,) = [t for t in found.traffic if (t.line.number, t.array, t.kind) == (line, array, kind)]
    return row


# Bodies of kernels `float* x, float* y` that get one line and one entry point each in one program,
# as a build takes a second.
RACES = [
    ("red[t] = 1; y[t] = red[t ^ 1];", 1),
    ("red[t] = 1; __syncwarp(); y[t] = red[t ^ 1];", 0),
    # another warp
    ("red[t] = 1; __syncwarp(); y[t] = red[t ^ 32];", 1),
    # shuffles order nothing
    ("red[t] = 1; float s = __shfl_xor_sync(~0u, 1.f, 1); y[t] = red[t ^ 1] + s;", 1),
    # the two lanes that met
    ("red[t] = 1; __syncwarp(3u << (t & 30)); y[t] = red[t ^ 1];", 0),
    ("red[t] = 1; __syncwarp(3u << (t & 30)); y[t] = red[t ^ 2];", 1),
    ("red[t] = 1; __syncwarp(3u << (t & 30)); __syncwarp(); y[t] = red[t ^ 2];", 0),
    ("red[t] = 1; __syncthreads(); y[t] = red[t ^ 33];", 0),
    # one's own
    ("red[t] = 1; y[t] = red[t];", 0),
    ("if (t % 2) red[t] = 1; y[t] = 0; __syncthreads(); if (t % 2 == 0) y[t] = red[t + 1];", 0),
    # all write one place
    ("red[0] = 1;", 1), ("if (t == 0) red[0] = 0; __syncthreads(); atomicAdd(&red[0], 1.f);", 0),
    ("if (t == 0) red[0] = 0; __syncthreads(); atomicAdd(&red[0], 1.f); if (t == 9) y[0] = red[0];",
     1),
    ("if (t == 0) red[0] = 0; atomicAdd(&red[0], 1.f);", 1),
    # global memory, one block
    ("y[t] = 1; if (t) x[t] = y[t - 1];", 1),
    ("y[t] = 1; __syncthreads(); if (t) x[t] = y[t - 1];", 0),
]
BLOCK_RACES = [
    ("y[t] = 1;", 1),
    ("y[t + 64 * blockIdx.x] = 1;", 0),
    ("atomicAdd(&y[t], 1.f);", 0),
    ("red[t] = 1; y[t + 64 * blockIdx.x] = red[t];", 0),
    ("if (blockIdx.x == 0) y[t] = 1; else x[t] = y[t];", 1),
    ("y[t + 64 * blockIdx.x] = 1; __syncthreads(); x[t] = y[t];", 2),
]
STRAYS = [
    ("y[t + 1] = 1;", "thread 63 writes y[64] in LINE, but y has 64 elements."),
    ("y[t] = x[t - 1];", "thread 0 reads x[-1] in LINE, but x has 64 elements."),
    ("red[t + 5] = 1;", "thread 59 writes red[64] in LINE, but red has 64 elements."),
    ("red[t] = 1; y[t] = red[t - 3];", "thread 0 reads red[-3] in LINE, but red has 64 elements."),
    ("red[t * 20] = 1;", "thread 4 writes red[80] in LINE, but red has 64 elements."),
    # An array of its own.
    ("red[t + 1] = 1; pair[0][0] = 0;",
     "thread 63 writes red[64] in LINE, but red has 64 elements."),
    ("red[0] = 0; pair[0][t + 1] = 1;", "thread 63 writes pair[64] in LINE, but pair has 64 "
                                        "elements."),   # on either side
    # where another kernel has an array
    ("red[t * 96] = 1;", "thread 1 writes red[96] in LINE, but red has 64 elements."),
    ("atomicAdd(&y[64 + t], 1.f);", "thread 0 changes by an atomic y[64] in LINE, but y has 64 "
                                    "elements."),
    ("store(y + 4 * t, load(x));", "thread 16 writes y[64] in LINE, but y has 64 elements."),
    ("y[1 << 30] = 1;", "in LINE, far from every tensor and shared array."),
    ("float* nowhere = nullptr; nowhere[t] = 1;", "writes address 0x0 in LINE, far from every "
                                                  "tensor and shared array."),
]
STRIDES = [0, 1, 2, 3, 4, 8, 16, 31, 32, 33]
strided = "big[t * {0} % 1024] = x[t]; __syncthreads(); y[t] = big[t * {0} % 1024];".format
PLAIN = "y[t] = x[t];"
MORE = [PLAIN, "if (t < 3) __syncthreads();", "if (t < 3) tile[1][t] = t; y[t] = 0;",
        "pair[threadIdx.y][t] = 1; y[t] = pair[1 - threadIdx.y][t];"]
BODIES = list(dict.fromkeys([*(body for body, _ in [*RACES, *BLOCK_RACES, *STRAYS]),
                             *map(strided, STRIDES), *MORE]))
DECLARED = {"red": "__shared__ float red[64];", "big": "__shared__ float big[1024];",
            "tile": "__shared__ float tile[2][5];",
            "pair": "__shared__ float pair[2][32];"}
KERNELS = program('#include "common.cuh"\n' + "\n".join(
    f'extern "C" __global__ void k{k}(float* x, float* y) {{ '
    f'{" ".join(text for name, text in DECLARED.items() if name + "[" in body)} int t = '
    f'threadIdx.x; {body} }}'
    for k, body in enumerate(BODIES)))


def run(body, *, block=64, grid=1, n=64, args=None, **settings):
    args = args or [torch.arange(n, dtype=torch.float32), torch.zeros(n)]
    return trace(KERNELS, f"k{BODIES.index(body)}", args, grid=grid, block=block, **settings)


def line_of(body):
    return KERNELS.source.entries[f"k{BODIES.index(body)}"].line


# --- sectors --------------------------------------------------------------------------------------

LINE = number_of("if (i < n)")


@pytest.mark.parametrize(("stride", "n_sectors"),
                         [(1, 4), (2, 8), (3, 12), (4, 16), (8, 32), (32, 32)])
def test_warp_that_reads_fp32_with_a_stride_touches_one_sector_per_32_bytes_of_its_span(
    stride, n_sectors
):
    x, y = torch.randn(256 * stride), torch.zeros(256)
    found = trace(program(), "copy", [x, y, stride, 0, 256], grid=2, block=128)
    row = traffic(found, LINE, "x")
    assert (row.per_access, row.moved, row.ideal, row.warp_accesses) == (
        n_sectors, 8 * n_sectors, 8 * 4, 8)
    assert row.asked_bytes == 1024 and row.efficiency == 4 / n_sectors
    assert found.moved_bytes == {"x": (8 * n_sectors * 32, 0), "y": (0, 1024)}
    assert torch.equal(y, x[::stride])


def test_warp_that_starts_one_element_late_touches_a_fifth_sector():
    found = trace(program(), "copy", [torch.randn(256), torch.zeros(64), 1, 1, 64], grid=1,
                  block=64)
    assert (traffic(found, LINE, "x").per_access, traffic(found, LINE, "x").ideal) == (5, 2 * 4)


@pytest.mark.parametrize(("real", "scalar", "vector"), [
    (torch.float32, 4, 16), (torch.bfloat16, 2, 16), (torch.float64, 8, 16)])
def test_vectors_of_16_bytes_move_16_sectors_at_once(real, scalar, vector):
    x, y = torch.randn(512).to(real), torch.zeros(512, dtype=real)
    found = trace(program(real=real), "copy", [x, y, 1, 0, 512], grid=4, block=128)
    assert traffic(found, LINE, "x").per_access == scalar
    per_thread = 16 // x.element_size()
    found = trace(program(real=real), "copy_vectors", [x, y], grid=1, block=512 // per_thread)
    line = number_of("store(y + i")
    for row in (traffic(found, line, "x"), traffic(found, line, "y", "writes")):
        assert (row.per_access, row.efficiency, row.asked_bytes) == (vector, 1, x.nbytes)
    assert torch.equal(x, y)


def test_element_that_all_lanes_read_is_one_sector_and_a_constant_is_no_tensors_traffic():
    found = trace(program(), "broadcast", [torch.ones(8), y := torch.zeros(32)], grid=1, block=32)
    assert traffic(found, number_of("y[threadIdx.x] = narrow"), "x").moved == 1
    assert {t.array for t in found.traffic} == {"x", "y"} and y[:5].tolist() == [2, 3, 4, 5, 2]


def test_ragged_last_block_counts_only_the_lanes_that_read():
    found = trace(program(), "copy", [torch.randn(100), torch.zeros(100), 1, 0, 100], grid=1,
                  block=128)
    row = traffic(found, LINE, "x")
    assert (row.warp_accesses, row.moved, row.asked_bytes) == (4, 13, 400)


def test_access_across_sectors_touches_all_of_them():
    """As a copied struct does: 64 bytes from 16 bytes behind the start of a sector."""
    row = np.zeros(1, rules.ACCESS)
    row["address"], row["bytes"] = 1024 + 16, 64
    touched, ideal = rules.sectors(row, np.zeros(1, int))
    assert (touched.tolist(), ideal.tolist()) == ([3], [2])


# --- banks ----------------------------------------------------------------------------------------


def test_column_of_a_tile_conflicts_32_times_and_padding_or_a_swizzle_cures_it():
    x, y = torch.randn(32, 32), torch.zeros(4, 32, 32)
    found = trace(program(), "transpose", [x, y], grid=1, block=(32, 8))
    expected = [("tile", 1, 32), ("tile", 32, 4), ("padded", 1, 4), ("turned", 1, 4)]
    for number, (array, n_passes, n_sectors) in enumerate(expected):
        line = number_of(f"y[{number} * TILE")
        row = traffic(found, line, array)
        assert (row.per_access, row.ideal, row.warp_accesses) == (n_passes, 32, 32), number
        assert traffic(found, line, "y", "writes").per_access == n_sectors, number
    assert torch.equal(y, x.T.expand_as(y)) and not found.races
    assert all(found.steps[0].written[name].sum() == 1024 for name in ("tile", "padded", "turned"))


@pytest.mark.parametrize("stride", STRIDES)
def test_stride_through_shared_memory_conflicts_by_its_common_divisor_with_32(stride):
    found = run(strided(stride), block=32)
    # at stride 0 all lanes read one word: a broadcast
    expected = np.gcd(stride, 32) if stride else 1
    assert traffic(found, line_of(strided(stride)), "big").per_access == expected


def test_accesses_of_8_and_16_bytes_take_two_and_four_passes_without_a_conflict():
    found = trace(program(), "wide", [torch.ones(128), torch.zeros(32, dtype=torch.float64)],
                  grid=1, block=32)
    expected = [("pairs[t]", "pairs", 2, 2), ("strided[t", "strided", 4, 2),
                ("store(quads", "quads", 4, 4)]
    for start, array, n_passes, ideal in expected:
        row = traffic(found, number_of(start), array, "writes")
        assert (row.per_access, row.ideal) == (n_passes, ideal), array


# --- steps ----------------------------------------------------------------------------------------


def test_steps_show_shared_memory_at_each_barrier_of_the_watched_block():
    x = torch.arange(128.0)
    found = trace(program(), "add_up", [x, y := torch.zeros(2)], grid=2, block=64, watch=1)
    value = np.arange(64.0, 128.0)
    assert len(found.steps) == 8
    for number, step in enumerate(found.steps):
        half = 64 >> number
        if 0 < number < 7:
            value[:half] += value[half:2 * half]
            assert step.written["red"].tolist() == [1] * half + [0] * (64 - half)
            assert step.read["red"].tolist() == [1] * 2 * half + [0] * (64 - 2 * half)
        assert np.array_equal(step.arrays["red"], value)
        assert step.number == number
    first, last = found.steps[0], found.steps[-1]
    assert [line.number for line in first.lines] == [number_of("red[t] = x")]
    assert first.barrier.text == "__syncthreads();  // all written"
    assert first.written["red"].sum() == 64 and first.read["red"].sum() == 0
    assert last.barrier is None and [line.number
                                     for line in last.lines] == [number_of("if (t == 0)")]
    assert y.tolist() == [x[:64].sum(), x[64:].sum()]


def test_what_nobody_wrote_is_nan_and_arrays_have_their_declared_shape():
    found = run("if (t < 3) tile[1][t] = t; y[t] = 0;")
    (step,) = found.steps
    assert np.array_equal(step.arrays["tile"], [[np.nan] * 5, [0, 1, 2, np.nan, np.nan]],
                          equal_nan=True)


def test_dynamic_shared_memory_is_traced_by_its_name():
    found = trace(program(), "dynamic", [torch.arange(32.0), y := torch.zeros(32)], grid=1,
                  block=32, shared_bytes=128)
    assert np.array_equal(found.steps[0].arrays["slots"],
                          10 * np.arange(32)) and y[:2].tolist() == [10, 0]
    assert traffic(found, number_of("y[threadIdx.x] = slots"),
                   "slots").per_access == 1 and not found.races


def test_shared_bf16_is_shown_as_numbers():
    x = torch.linspace(-1, 1, 32).bfloat16()
    found = trace(program(real=torch.bfloat16), "through_shared", [x, y := torch.zeros_like(x)],
                  grid=1, block=32)
    assert np.array_equal(found.steps[0].arrays["reals"], x.float().numpy()) and torch.equal(x, y)


# --- races ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", machine.ORDERS)
def test_missing_barrier_is_a_race_between_two_named_lines_in_every_order(order):
    text = TEXT.replace("    __syncthreads();  // all written\n", "\n")
    x = torch.arange(64.0)
    found = trace(program(text), "add_up", [x, torch.zeros(1)], grid=1, block=64, order=order,
                  seed=3)
    (race,) = found.races
    assert (race.first.kind, race.first.line.number) == ("writes", number_of("red[t] = x", text))
    assert (race.second.kind, race.second.line.number) == (
        "reads", number_of("if (t < half)", text))
    assert race.array == "red" and race.n_places == 32 and race.cure == "__syncthreads()"
    assert race.first.thread[0] // 32 == 1 and race.second.thread[0] == race.first.thread[0] - 32
    index = race.first.thread[0]
    assert str(race).startswith(
        f"Race: thread {index} writes red[{index}] in line {race.first.line.number} (`red[t] = "
        f"x[blockIdx.x * N + t];`), and thread {index - 32} reads it in line "
        f"{race.second.line.number} (`if (t < half) red[t] += red[t + half];`). No __syncthreads() "
        "orders the two. The same happens with 31 more of its elements.")


def test_barrier_missing_at_the_end_of_a_loop_races_within_one_line_and_with_the_last_reader():
    text = TEXT.replace("        __syncthreads();  // round over\n", "\n")
    found = trace(program(text), "add_up", [torch.arange(64.0), torch.zeros(1)], grid=1, block=64)
    loop = number_of("if (t < half)", text)
    assert {(race.first.line.number, race.second.line.number)
            for race in found.races} == {(loop, loop)}
    assert all(race.cure == "__syncwarp()"
               for race in found.races), "only the first warp works after the first round"


def test_kernel_with_all_its_barriers_has_no_race():
    for entry, args, shape in (("add_up", [torch.ones(128), torch.zeros(2)],
                                {"grid": 2, "block": 64}),
                               ("transpose", [torch.ones(1024), torch.zeros(4096)],
                                {"grid": 1, "block": (32, 8)})):
        found = trace(program(), entry, args, **shape)
        assert found.races == () and found.out_of_bounds is None
        assert str(found).startswith("No race, nothing out of bounds.\n")


@pytest.mark.parametrize(("body", "n_races"), RACES)
def test_race_is_found_exactly_where_nothing_orders_two_accesses(body, n_races):
    assert len(run(body).races) == n_races


@pytest.mark.parametrize(("body", "n_races"), BLOCK_RACES)
def test_blocks_of_a_launch_race_for_tensors_but_each_has_its_own_shared_memory(body, n_races):
    found = run(body, grid=2, n=128)
    assert len(found.races) == n_races
    assert all(race.first.block != race.second.block and "nothing orders two blocks" in str(race)
               for race in found.races)


def test_race_in_a_two_dimensional_block_names_threads_and_elements_by_their_coordinates():
    found = run("pair[threadIdx.y][t] = 1; y[t] = pair[1 - threadIdx.y][t];", block=(32, 2))
    race = next(race for race in found.races if race.array == "pair")
    assert race.element in ("pair[0][0]",
                            "pair[1][0]") and race.first.thread[1] == 1 - race.second.thread[1]


# --- out of bounds --------------------------------------------------------------------------------


@pytest.mark.parametrize(("body", "words"), STRAYS)
def test_first_access_out_of_bounds_ends_the_launch_and_is_told(body, words):
    found = run(body)
    number = line_of(body)
    text = KERNELS.source.text.split("\n")[number - 1]
    assert str(found.out_of_bounds).endswith(words.replace("LINE", f"line {number} (`{text}`)"))
    assert run(PLAIN).out_of_bounds is None, "the process goes on"


def test_loop_that_a_compiler_may_turn_into_vectors_is_traced_element_by_element():
    text = 'extern "C" __global__ void each(\n' \
           "    const float* __restrict__ x, float* __restrict__ y, int n) {\n" \
           "    for (int i = 0; i < n; i++) y[i] = 2 * x[i];\n}\n"
    found = trace(program(text), "each", [torch.ones(256), torch.zeros(256), 256], grid=1, block=1)
    assert [(t.array, t.warp_accesses, t.asked_bytes) for t in found.traffic] == [
        ("x", 256, 1024), ("y", 256, 1024)]


# --- the rest -------------------------------------------------------------------------------------


def test_accesses_in_a_header_are_told_with_the_headers_line():
    text = '#include "common.cuh"\nextern "C" __global__ void k(const float* x, float* y) {\n' \
           "    __shared__ accum slots[2];\n" \
           "    y[threadIdx.x] = block_sum(x[threadIdx.x], slots);\n}\n"
    for barriers, n_races in ((True, 0), (False, 1)):
        headers = dict(COMMON)
        if not barriers:
            old = "per_warp[threadIdx.x / 32] = x;\n    __syncthreads();"
            assert old in headers["common.cuh"]
            headers["common.cuh"] = headers["common.cuh"].replace(old, "per_warp[threadIdx.x / 32] "
                                                                       "= x;")
        source = Source(name="text", text=text, headers=headers)
        found = trace(Program(source=source, real=torch.float32), "k",
                      [torch.ones(64), torch.zeros(64)], grid=1, block=64)
        assert len(found.races) == n_races
    (race,) = found.races
    assert "common.cuh, line" in str(race)
    assert race.first.line.text.endswith("per_warp[threadIdx.x / 32] = x;")


def test_fault_that_no_gpu_survives_is_raised_and_leaves_the_tracer_usable():
    with pytest.raises(machine.KernelFault, match="__syncthreads"):
        run("if (t < 3) __syncthreads();")
    assert run(PLAIN).races == ()


def test_lines_and_symbols_need_no_program_of_the_machine(monkeypatch):
    whole = program()
    machine.load(whole, kind="traced")
    debug_info.read_debug_info.cache_clear()
    monkeypatch.setattr(subprocess, "Popen", None)
    found = trace(whole, "copy", [torch.randn(64), torch.zeros(64), 1, 0, 64], grid=1, block=64)
    assert {t.line.number for t in found.traffic} == {LINE}


def test_traced_run_computes_what_the_checked_run_does():
    x = torch.randn(128)
    results = [torch.zeros(2), torch.zeros(2)]
    trace(program(), "add_up", [x, results[0]], grid=2, block=64)
    machine.load(program(), kind="checked").launch("add_up", [x, results[1]], grid=2, block=64)
    assert torch.equal(*results)
