"""The attention kernels with mma.sync and cp.async: right in every order for every shape, and each
of the planted bugs is caught by the orders that it is listed with."""

import pytest
import torch
from changed_kernels import build_all, only
from tensor_core_attention import (
    EVERY_ORDER,
    Bug,
    Size,
    caught_by,
    complaint,
    planted,
    problem,
    run_mma,
)

from llama_from_scratch.kernels.emulator.machine import ORDERS
from llama_from_scratch.kernels.machinery.source import Program, Source

MMA = Source.read("attention_mma")
ENTRIES = ("forward", "backward", "backward_q", "backward_kv")

DOCUMENTS = Size(B=2, T=33, S=150, H=4, G=2, n_documents=3)
LONG = Size(T=40, S=200)                      # four tiles of keys, the last one ragged
ALL_KEYS = Size(T=50, S=70, H=2, G=2, is_causal=False)
BLIND = Size(T=100, S=60, H=2)                # the first 40 queries see nothing
GROUP = Size(T=70, S=70, H=3)

BUGS = {
    # ---- forward: copies and barriers
    "no barrier before the keys are read": Bug(
        "forward_64", LONG, "// K of this tile, and Q, are there; V and the next tile need not be\n"
                            "        __syncthreads();", "", EVERY_ORDER),
    "wait that leaves one group too many before the keys are read": Bug(
        "forward_64", LONG, "cp_async_wait<3>();", "cp_async_wait<4>();", "forward random"),
    "wait that leaves one group too many before the values are read": Bug(
        "forward_64", LONG, "cp_async_wait<2>();   // V", "cp_async_wait<3>();",
        "forward random"),
    "no barrier before the values are read": Bug(
        "forward_64", LONG, "cp_async_wait<2>();   // V\n        __syncthreads();",
        "cp_async_wait<2>();", "forward random"),
    "no barrier before a tile's memory is filled again": Bug(
        "forward_64", LONG, "        __syncthreads();   // the next turn fills this tile's memory "
                            "again\n", "", "reverse random"),
    "a group that is not closed when there is no next tile": Bug(
        "forward_64", LONG, "if (!is_last) fetch_keys(k_tile + next, k, tile + 1);\n"
                            "        cp_async_commit();",
        "if (!is_last) fetch_keys(k_tile + next, k, tile + 1), cp_async_commit();",
        "forward random"),
    "ragged tile that is read past the last key": Bug(
        "forward_64", ALL_KEYS, "bool is_there = first + row < n;", "bool is_there = true;",
        EVERY_ORDER, "the copy issued at"),
    "reader without the swizzle": Bug(
        "forward_64", LONG, "tile + swizzled<WIDTH>(first_row + at.row, kk * 2 + at.chunk)",
        "tile + (first_row + at.row) * WIDTH + (kk * 2 + at.chunk) * 8", EVERY_ORDER),
    # ---- forward: mathematics
    "mask that hides the present": Bug(
        "forward_64", LONG, "(key <= position + i / 2 * 8 || !shape.is_causal)",
        "(key < position + i / 2 * 8 || !shape.is_causal)", EVERY_ORDER),
    "mask without the second row of a lane": Bug(
        "forward_64", LONG, "(key <= position + i / 2 * 8 || !shape.is_causal)",
        "(key <= position || !shape.is_causal)", EVERY_ORDER),
    "keys after the last one that count as zeros": Bug(
        "forward_64", ALL_KEYS, "bool sees = key < shape.n_keys && (key <= position + i",
        "bool sees = (key <= position + i", EVERY_ORDER),
    "documents that see each other": Bug(
        "forward_64", DOCUMENTS, "sees = groups_or_null[key] == (i < 2 ? low_group : high_group);",
        "sees = groups_or_null[key] <= (i < 2 ? low_group : high_group);", EVERY_ORDER),
    "first tile of a document left out": Bug(
        "forward_64", DOCUMENTS, "    begin /= tile;\n", "    begin = (begin + tile - 1) / tile;\n",
        EVERY_ORDER),
    "key/value head tiled instead of shared by neighbors": Bug(
        "forward_64", DOCUMENTS, "return head / (n_heads / n_kv_heads);",
        "return head % n_kv_heads;", EVERY_ORDER),
    "output that is not scaled to the new maximum": Bug(
        "forward_64", LONG, "o[n][2 * half] *= down, o[n][2 * half + 1] *= down;", ";",
        EVERY_ORDER),
    "sum that is not scaled to the new maximum": Bug(
        "forward_64", LONG, "sum[half] = sum[half] * down + added;", "sum[half] += added;",
        EVERY_ORDER),
    "maximum of two lanes where four share a row": Bug(
        "forward_64", LONG, "return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));", "return x;",
        EVERY_ORDER),
    "sum of two lanes where four share a row": Bug(
        "forward_64", LONG, "return x + __shfl_xor_sync(ALL_LANES, x, 2);", "return x;",
        EVERY_ORDER),
    "powers of two without log2(e)": Bug(
        "forward_64", LONG, "float log2_scale = scale * LOG2_E;\n    int warp_row",
        "float log2_scale = scale;\n    int warp_row", EVERY_ORDER),
    "infinity minus infinity in rows that see nothing": Bug(
        "forward_64", BLIND, "top == -INFINITY ? 0 : top * log2_scale", "top * log2_scale",
        EVERY_ORDER),
    "division by the sum of a row that sees nothing": Bug(
        "forward_64", BLIND, "total > 0 ? 1 / total : 0", "1 / total", EVERY_ORDER),
    # ---- backward
    "backward: no barrier before a tile is read": Bug(
        "backward_64", GROUP, "cp_async_wait<0>();\n        __syncthreads();   // this tile is "
                              "there, and the one before it is no longer read\n        if (tile + "
                              "1 < n_tiles) fetch_queries(tile + 1);",
        "cp_async_wait<0>();\n        if (tile + 1 < n_tiles) fetch_queries(tile + 1);",
        EVERY_ORDER),
    "backward: wait that leaves the newest group": Bug(
        "backward_64", GROUP, "cp_async_wait<0>();\n        __syncthreads();   // this tile is "
                              "there, and the one before it is no longer read\n        if (tile + "
                              "1 < n_tiles) fetch_queries",
        "cp_async_wait<1>();\n        __syncthreads();\n        if (tile + 1 < n_tiles) "
        "fetch_queries", "forward random"),
    "backward: memory that is filled again before all have read it": Bug(
        "backward_kv_64", GROUP, "        __syncthreads();   // this tile is there, and the one "
                                 "before it is no longer read\n        if (tile + 1 < n_tiles) "
                                 "fetch_queries(tile + 1);",
        "        if (tile + 1 < n_tiles) fetch_queries(tile + 1);\n        __syncthreads();",
        EVERY_ORDER),
    "backward: no barrier before dS is read by other warps": Bug(
        "backward_64", GROUP, "        __syncthreads();   // all of dS^T is in shared memory\n", "",
        EVERY_ORDER),
    "backward: gradient of the softmax without delta": Bug(
        "backward_64", GROUP, "(dp[0][n][i] - row_delta[half + row])", "dp[0][n][i]", EVERY_ORDER),
    "backward: only the first head of a group is summed": Bug(
        "backward_64", GROUP, "int head = kv_head * group + tile / tiles.n,",
        "int head = kv_head * group,", EVERY_ORDER),
    "backward: a tile's lse taken from the other tile": Bug(
        "backward_64", GROUP, "exp2_approx(s[0][n][i] * log2_scale - row_lse[half + row])",
        "exp2_approx(s[0][n][i] * log2_scale - row_lse[row])", EVERY_ORDER),
    "backward: mask that hides the present": Bug(
        "backward_64", GROUP, "(key <= position || !shape.is_causal)",
        "(key < position || !shape.is_causal)", EVERY_ORDER),
    "backward: last query of a document left out": Bug(
        "backward_64", Size(T=130, S=130, n_documents=2), "end = min(end, 1 - shape.first_",
        "end = min(end, -shape.first_", EVERY_ORDER),
    "backward: queries from one tile after the diagonal on": Bug(
        "backward_64", Size(T=150, S=150), "max(first_key - shape.first_position(), 0) / tile",
        "max(first_key - shape.first_position() + 1, 0) / tile + (blockIdx.x > 0)", EVERY_ORDER),
    "backward: dK without the scale of the scores": Bug(
        "backward_64", GROUP, "pack(dk[0][n][2 * half] * scale,", "pack(dk[0][n][2 * half],",
        EVERY_ORDER),
    "backward: dQ written for rows after the last": Bug(
        "backward_64", Size(T=50, S=50), "if (row < shape.n_queries)\n                    add_pair",
        "add_pair", EVERY_ORDER),
    "backward: registers of dS^T in the order of rows": Bug(
        "backward_64", GROUP, "*(unsigned*)to = ds[0][0], *(unsigned*)(to + 8 * (N_Q + PAD)) = "
                              "ds[0][1];", "*(unsigned*)to = ds[0][0], *(unsigned*)(to + 8 * (N_Q "
                                           "+ PAD)) = ds[0][2];", EVERY_ORDER),
    "backward: weights of rows that see nothing": Bug(
        "backward_q_64", BLIND, "return lse == -INFINITY ? INFINITY : lse * LOG2_E;",
        "return lse * LOG2_E;", EVERY_ORDER),
    "backward: a tile of keys filled again before all have read it": Bug(
        "backward_q_64", LONG, "        __syncthreads();   // this tile is there, and the one "
                               "before it is no longer read\n        if (i + 1 < tiles.n) "
                               "fetch_keys(i + 1);",
        "        if (i + 1 < tiles.n) fetch_keys(i + 1);\n        __syncthreads();",
        "reverse random"),
}


PLANTED = planted(MMA, BUGS)


@pytest.fixture(scope="module", autouse=True)
def built():
    build_all([*(Program(source=MMA, real=real) for real in MMA.reals),
               *(program for program, _ in PLANTED.values())])


@pytest.mark.parametrize("name", BUGS)
def test_planted_bug_is_caught(name):
    bug = BUGS[name]
    found = caught_by(run_mma, PLANTED[name], bug)
    assert {order for order, message in found.items() if message} == set(bug.by.split()), found
    assert bug.says in "\n".join(found.values())


# ---- the kernels as they are ---------------------------------------------------------------------


def wrong(size, entry, *, real=torch.bfloat16, orders=ORDERS):
    """What the entry point gets wrong in the given orders, by order."""
    given = problem(size, real)
    found = {order: complaint(given, run_mma(MMA, f"attention_mma_{entry}", given, order=order,
                                             seed=1)) for order in orders}
    return {order: message for order, message in found.items() if message}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("size", [
    DOCUMENTS, LONG, ALL_KEYS, BLIND, GROUP, Size(T=130, S=130, n_documents=2),
    Size(T=1, S=65, H=2), Size(B=2, T=77, S=77, K=128),
    Size(T=70, S=140, H=2, K=128, n_documents=4), Size(T=90, S=40, K=128)], ids=str)
def test_every_entry_point_is_right_in_every_order(entry, size):
    assert wrong(size, f"{entry}_{size.K}") == {}


@pytest.mark.parametrize("size", [DOCUMENTS, Size(T=35, S=70, K=128)], ids=str)
def test_every_entry_point_is_right_in_fp16(size):
    for entry in ENTRIES:
        assert wrong(size, f"{entry}_{size.K}", real=torch.float16, orders=["random"]) == {}


@pytest.mark.parametrize("group", range(1, 9))
def test_every_number_of_query_heads_may_share_a_key_value_head(group):
    size = Size(T=17, S=33, H=2 * group, G=2)
    for entry in ENTRIES:
        assert wrong(size, f"{entry}_64", orders=[ORDERS[group % 3]]) == {}


def test_one_token_attends_to_itself_alone():
    given = problem(Size(T=1, S=1))
    assert wrong(given.size, "forward_64") == {}
    found = run_mma(MMA, "attention_mma_backward_64", given)
    assert torch.equal(found["d_v"], given.inputs["d_out"])
    # dP - delta is the difference of two equal sums, each rounded to fp32.
    assert found["d_q"].abs().max() < 1e-6 and found["d_k"].abs().max() < 1e-6


def test_rows_that_see_nothing_give_zeros_and_zero_gradients():
    given = problem(BLIND)
    out = run_mma(MMA, "attention_mma_forward_64", given)
    assert out["out"][:, :40].count_nonzero() == 0
    assert (out["lse"][..., :40] == -torch.inf).all() and out["lse"][..., 40:].isfinite().all()
    for entry in ("backward", "backward_q"):
        d_q = run_mma(MMA, f"attention_mma_{entry}_64", given)["d_q"]
        assert d_q[:, :40].count_nonzero() == 0 and d_q[:, 41:].any()


@pytest.mark.parametrize("entry", ["forward", "backward_q", "backward_kv"])
def test_fifty_repeats_in_random_orders_give_the_same_bits(entry):
    given = problem(Size(T=40, S=70, H=2))
    first = run_mma(MMA, f"attention_mma_{entry}_64", given)
    for seed in range(50):
        again = run_mma(MMA, f"attention_mma_{entry}_64", given, order="random", seed=seed)
        assert all(torch.equal(again[name], first[name]) for name in first)


def test_the_atomic_sums_of_d_q_may_differ_in_their_last_bits_and_only_these():
    given = problem(Size(T=40, S=200, H=2))
    sums = [run_mma(MMA, "attention_mma_backward_64", given, order=order)["d_q"]
            for order in ("forward", "reverse")]
    assert not torch.equal(*sums), "else nothing here needs a deterministic kernel"
    torch.testing.assert_close(*sums, atol=1e-5, rtol=1e-5)


def test_the_kernel_has_the_entry_points_that_are_tested_here():
    assert {name.removeprefix("attention_mma_") for name in MMA.entries} == {
        f"{entry}_{width}" for entry in ENTRIES for width in (64, 128)}
    assert only(MMA, "attention_mma_forward_64").entries.keys() == {"attention_mma_forward_64"}
