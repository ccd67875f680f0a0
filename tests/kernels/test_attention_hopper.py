"""The attention kernels with TMA and wgmma: right in every order for every shape, and each of the
planted bugs is caught by the orders that it is listed with.

One kind of bug is invisible here: a missing fence_proxy_async, because the emulator has one memory
for threads and wgmma.
"""

import pytest
import torch
from changed_kernels import build_all
from tensor_core_attention import (
    EVERY_ORDER,
    Bug,
    Size,
    caught_by,
    complaint,
    planted,
    problem,
    run_hopper,
)

from llama_from_scratch.kernels.emulator.machine import ORDERS
from llama_from_scratch.kernels.machinery.source import Program, Source

HOPPER = Source.read("attention_hopper")
ENTRIES = ("forward", "backward")

LONG = Size(T=130, S=390)                     # four tiles of keys, the last one ragged
ALL_KEYS = Size(T=50, S=70, H=2, G=2, is_causal=False)
DOCUMENTS = Size(B=2, T=20, S=200, H=4, G=2, n_documents=3)
BLIND = Size(T=100, S=60, H=2)                # the first 40 queries see nothing
GROUP = Size(T=150, S=150, H=2)               # three tiles of queries for each of two heads
WIDE = Size(T=70, S=150, K=128)

BUGS = {
    # ---- forward: who waits for what
    "no wait for the queries": Bug(
        "forward_64", LONG, "        mbarrier_wait(&b.q_full, 0);\n", "", "forward random"),
    "no wait for the first keys": Bug(
        "forward_64", LONG, "        mbarrier_wait(&k_full[0], 0);\n", "", "forward random"),
    "no wait for the keys": Bug(
        "forward_64", LONG, "            mbarrier_wait(&k_full[at.stage], at.parity);\n", "",
        "forward random"),
    "no wait for the values": Bug(
        "forward_64", LONG, "            mbarrier_wait(&v_full[before.stage], before.parity);\n",
        "", "forward random"),
    "no wait for the last values": Bug(
        "forward_64", LONG, "        mbarrier_wait(&v_full[at.stage], at.parity);\n        "
                            "wgmma_fence();", "        wgmma_fence();", EVERY_ORDER),
    "no wait for an empty place": Bug(
        "forward_64", LONG, "            mbarrier_wait(&v_empty[at.stage], !at.parity);\n", "",
        EVERY_ORDER),
    "parity of the other phase": Bug(
        "forward_64", LONG, "mbarrier_wait(&k_empty[at.stage], !at.parity);",
        "mbarrier_wait(&k_empty[at.stage], at.parity);", EVERY_ORDER, "deadlock"),
    "parity that never turns": Bug(
        "forward_64", LONG, "parity(i / STAGES % 2)", "parity(0)", EVERY_ORDER),
    "half of the bytes expected": Bug(
        "forward_64", LONG, "mbarrier_arrive_expect_tx(&k_full[at.stage], TILE * 2);",
        "mbarrier_arrive_expect_tx(&k_full[at.stage], TILE);", EVERY_ORDER,
        "delivers more bytes than its mbarrier expects"),
    "twice the bytes expected": Bug(
        "forward_64", LONG, "mbarrier_arrive_expect_tx(&b.q_full, ROWS * WIDTH * 2);",
        "mbarrier_arrive_expect_tx(&b.q_full, ROWS * WIDTH * 4);", EVERY_ORDER, "deadlock"),
    "barrier for one warp where eight arrive": Bug(
        "forward_64", LONG, "mbarrier_init(&v_empty[i], CONSUMER_WARPS);",
        "mbarrier_init(&v_empty[i], 1);", "reverse random"),
    "keys released before they were multiplied": Bug(
        "forward_64", LONG, "        wgmma_wait<0>();\n        release(&k_empty[0]);",
        "        release(&k_empty[0]);\n        wgmma_wait<0>();", "reverse random"),
    "values released before they were multiplied": Bug(
        "forward_64", LONG, "            wgmma_wait<0>();\n"
                            "            release(&v_empty[before.stage]);",
        "            release(&v_empty[before.stage]);\n            wgmma_wait<0>();",
        "reverse random"),
    # ---- forward: products and turns
    "scores used while they are computed": Bug(
        "forward_64", LONG, "wgmma_wait<1>();   // the scores; P V may go on",
        "wgmma_wait<2>();", EVERY_ORDER),
    "no fence before the first product": Bug(
        "forward_64", LONG, "        await_turn();\n        wgmma_fence();\n        multiply_rows",
        "        await_turn();\n        multiply_rows", EVERY_ORDER, "wgmma.fence must come first"),
    "turn that is not passed on": Bug(
        "forward_64", LONG, "        wgmma_commit();\n        pass_turn();\n        "
                            "wgmma_wait<0>();", "        wgmma_commit();\n        wgmma_wait<0>();",
        EVERY_ORDER, "deadlock"),
    "first turn that nothing gives": Bug(
        "forward_64", LONG, "        if (consumer == 1) pass_turn();\n", "", EVERY_ORDER,
        "deadlock"),
    "more registers than a processor has": Bug(
        "forward_64", LONG, "CONSUMER_REGISTERS = 240;", "CONSUMER_REGISTERS = 248;", EVERY_ORDER,
        "ask for 66560 registers"),
    "descriptor with the stride of half a piece": Bug(
        "forward_64", LONG, "return matrix_descriptor(tile, 16, 1024);",
        "return matrix_descriptor(tile, 16, 512);", EVERY_ORDER),
    "descriptor without the swizzle": Bug(
        "forward_64", LONG, "| 1ull << 62;   // the 128-byte swizzle", ";", EVERY_ORDER,
        "only the 128-byte swizzle"),
    "second half of wide heads read from the first": Bug(
        "forward_128", WIDE, "across_k(across(b, kk), N * SWIZZLED_WIDTH * 2), true);",
        "across_k(across(b, kk), 0), true);", EVERY_ORDER),
    # ---- forward: mathematics
    "output scaled by the other row's factor": Bug(
        "forward_64", LONG, "o[j] *= down[j / 2 % 2];", "o[j] *= down[j % 2];", EVERY_ORDER),
    "mask that hides the present": Bug(
        "forward_64", LONG, "(key <= position + half * 8 || !shape.is_causal)",
        "(key < position + half * 8 || !shape.is_causal)", EVERY_ORDER),
    "keys after the last one that count as zeros": Bug(
        "forward_64", ALL_KEYS, "bool sees = key < shape.n_keys && (key <= position + half",
        "bool sees = (key <= position + half", EVERY_ORDER),
    "documents that see each other": Bug(
        "forward_64", DOCUMENTS, "sees = groups_or_null[key] == row_group[half];",
        "sees = groups_or_null[key] <= row_group[half];", EVERY_ORDER),
    "infinity minus infinity in rows that see nothing": Bug(
        "forward_64", BLIND, "top == -INFINITY ? 0 : top * log2_scale", "top * log2_scale",
        EVERY_ORDER),
    # ---- backward
    "backward: no wait for keys and values": Bug(
        "backward_64", GROUP, "    if (n_tiles > 0) mbarrier_wait(&b.kv_full, 0);\n", "",
        "forward random"),
    "backward: no wait for the queries": Bug(
        "backward_64", GROUP, "        mbarrier_wait(&full[at.stage], at.parity);\n", "",
        "forward random"),
    "backward: barrier that does not count lse and delta": Bug(
        "backward_64", GROUP, "mbarrier_init(&full[i], 1 + 32)", "mbarrier_init(&full[i], 1)",
        "forward random"),
    "backward: dP used while it is computed": Bug(
        "backward_64", GROUP, "        wgmma_wait<1>();   // dP; the sum for dV may go on\n", "",
        EVERY_ORDER),
    "backward: dV's weights overwritten while they are multiplied": Bug(
        "backward_64", GROUP, "        unsigned ds[QUERIES / 16][4];\n        as_a(ds, dp);\n",
        "        auto& ds = p;\n        as_a(ds, dp);\n", EVERY_ORDER),
    "backward: one dS for all turns": Bug(
        "backward_64", GROUP, "real* ds_now = ds_tile + i % 2 * DS_TILE;",
        "real* ds_now = ds_tile;", "reverse random"),
    "backward: no barrier between the writers of dS and its readers": Bug(
        "backward_64", GROUP, "        named_barrier_sync(1, CONSUMERS);\n", "", EVERY_ORDER),
    "backward: queries released before they were multiplied": Bug(
        "backward_64", GROUP, "        wgmma_wait<1>();\n        release(&empty[at.stage]);   // Q "
                              "and dO were read\n",
        "        release(&empty[at.stage]);\n        wgmma_wait<1>();\n", "reverse random"),
    "backward: dS without the swizzle": Bug(
        "backward_64", GROUP, "ds_now + swizzled<QUERIES>(row_of_tile + j % 2 * 8, 2 * kk + j / 2)",
        "ds_now + (row_of_tile + j % 2 * 8) * QUERIES + (2 * kk + j / 2) * 8", EVERY_ORDER),
    "backward: both consumers compute the same columns of dQ": Bug(
        "backward_128", WIDE, "(WIDTH == 128 ? consumer * KEYS * SWIZZLED_WIDTH",
        "(WIDTH == 128 ? 0", EVERY_ORDER),
    "backward: gradient of the softmax without delta": Bug(
        "backward_64", GROUP, "(dp[j] - b.row_delta[at.stage][row])", "dp[j]", EVERY_ORDER),
    "backward: only the first head of a group is summed": Bug(
        "backward_64", GROUP, "int head = kv_head * group + i / tiles.n, row =",
        "int head = kv_head * group, row =", EVERY_ORDER),
    "backward: a lane's second key masked as its first": Bug(
        "backward_64", GROUP, "my_key = key + j / 2 % 2 * 8;", "my_key = key;", EVERY_ORDER),
}


PLANTED = planted(HOPPER, BUGS)


@pytest.fixture(scope="module", autouse=True)
def built():
    build_all([*(Program(source=HOPPER, real=real) for real in HOPPER.reals),
               *(program for program, _ in PLANTED.values())])


@pytest.mark.parametrize("name", BUGS)
def test_planted_bug_is_caught(name):
    bug = BUGS[name]
    found = caught_by(run_hopper, PLANTED[name], bug)
    assert {order for order, message in found.items() if message} == set(bug.by.split()), found
    assert bug.says in "\n".join(found.values())


# ---- the kernels as they are ---------------------------------------------------------------------


def wrong(size, entry, *, real=torch.bfloat16, orders=ORDERS):
    """What the entry point gets wrong in the given orders, by order."""
    given = problem(size, real)
    found = {order: complaint(given, run_hopper(HOPPER, f"attention_hopper_{entry}", given,
                                                order=order, seed=1)) for order in orders}
    return {order: message for order, message in found.items() if message}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("size", [
    LONG, ALL_KEYS, DOCUMENTS, BLIND, GROUP, WIDE, Size(T=1, S=65, H=2), Size(T=90, S=40, K=128)],
                         ids=str)
def test_every_entry_point_is_right_in_every_order(entry, size):
    assert wrong(size, f"{entry}_{size.K}") == {}


def test_every_entry_point_is_right_in_fp16():
    size = Size(T=35, S=140, H=2, n_documents=2)
    for entry in ENTRIES:
        assert wrong(size, f"{entry}_64", real=torch.float16, orders=["random"]) == {}


@pytest.mark.parametrize("group", range(1, 9))
def test_every_number_of_query_heads_may_share_a_key_value_head(group):
    size = Size(T=17, S=33, H=group)
    for entry in ENTRIES:
        assert wrong(size, f"{entry}_64", orders=[ORDERS[group % 3]]) == {}


def test_rows_that_see_nothing_give_zeros_and_zero_gradients():
    given = problem(BLIND)
    out = run_hopper(HOPPER, "attention_hopper_forward_64", given)
    assert out["out"][:, :40].count_nonzero() == 0
    assert (out["lse"][..., :40] == -torch.inf).all() and out["lse"][..., 40:].isfinite().all()
    d_q = run_hopper(HOPPER, "attention_hopper_backward_64", given)["d_q"]
    assert d_q[:, :40].count_nonzero() == 0 and d_q[:, 41:].any()


def test_fifty_repeats_in_random_orders_give_the_same_bits():
    given = problem(Size(T=20, S=150))
    first = run_hopper(HOPPER, "attention_hopper_forward_64", given)
    for seed in range(50):
        again = run_hopper(HOPPER, "attention_hopper_forward_64", given, order="random", seed=seed)
        assert all(torch.equal(again[name], first[name]) for name in first)
    # Of backward, only d_q is added up in another order.
    given = problem(Size(T=20, S=20))
    first = run_hopper(HOPPER, "attention_hopper_backward_64", given)
    for seed in range(10):
        again = run_hopper(HOPPER, "attention_hopper_backward_64", given, order="random", seed=seed)
        assert all(torch.equal(again[name], first[name]) for name in ("d_k", "d_v"))


def test_the_kernel_has_the_entry_points_that_are_tested_here():
    assert {name.removeprefix("attention_hopper_") for name in HOPPER.entries} == {
        f"{entry}_{width}" for entry in ENTRIES for width in (64, 128)}
