"""Bars from what a launch told: by hand for small logs, and for the attention kernels."""

import numpy as np
import pytest
import torch
from tensor_core_attention import HOPPER_TILE

from llama_from_scratch.kernels.emulator.rules import ACCESS, SYNC
from llama_from_scratch.kernels.emulator.tape import Line
from llama_from_scratch.kernels.emulator.timeline import COPY, PRODUCT, TILE, WAIT, timeline
from llama_from_scratch.kernels.emulator.trace import Happening, Trace, trace
from llama_from_scratch.kernels.machinery.source import Program, Source
from llama_from_scratch.kernels.machinery.tensor_map import TensorMap

HERE = Line(file="example.cu", number=7, text="tma_load(")


def told(*events, block=0):
    """A trace of nothing except these events: (event, number, thread)."""
    program = Program(source=Source(name="example", text="", headers={}), real=torch.float32)
    return Trace(program=program, entry="", grid=(1,), block=(256,), table=np.empty(0, ACCESS),
                 syncs=np.empty(0, SYNC), known=(), places={}, pictures=(), stray=None,
                 happenings=tuple(Happening(event=event, number=number, thread=thread, block=block,
                                            line=HERE) for event, number, thread in events))


def bars(found):
    return [(bar.row, bar.kind, bar.begin, bar.end, bar.n) for bar in timeline(found).bars]


def test_a_tile_is_in_flight_from_its_order_to_its_arrival_and_one_that_never_comes_to_the_end():
    found = told(("tile ordered", 0, 0), ("tile ordered", 1, 0), ("tile arrives", 1, 40),
                 ("tile arrives", 0, 40), ("tile ordered", 2, 0))
    assert bars(found) == [("TMA", TILE, 0, 3, 1), ("TMA", TILE, 1, 2, 1), ("TMA", TILE, 4, 5, 1)]
    assert [timeline(found).in_flight(TILE, step) for step in range(5)] == [1, 2, 1, 0, 1]


def test_copies_that_a_warp_begins_in_a_row_and_waits_for_together_are_one_bar():
    found = told(("copy begins", 0, 0), ("copy begins", 1, 0), ("copy begins", 2, 1),
                 ("copy begins", 3, 1), ("copy ends", 0, 0), ("copy ends", 2, 1),
                 ("multiplies", 0, 0), ("copy ends", 1, 0), ("copy ends", 3, 1))
    assert [bar for bar in bars(found) if bar[1] == COPY] == [
        ("warp 0", COPY, 0, 2, 2), ("warp 0", COPY, 1, 5, 2)]


def test_copies_that_a_warp_begins_after_something_else_are_another_bar():
    found = told(("copy begins", 0, 0), ("copy begins", 1, 1), ("copy begins", 2, 32),
                 ("multiplies", 0, 0), ("copy begins", 3, 0), ("copy ends", 0, 0),
                 ("copy ends", 1, 1), ("copy ends", 2, 32), ("copy ends", 3, 0))
    assert [bar for bar in bars(found) if bar[1] == COPY] == [
        ("warp 0", COPY, 0, 4, 2), ("warp 0", COPY, 3, 6, 1), ("warp 1", COPY, 1, 5, 1)]


def test_products_of_a_warpgroup_are_one_bar_until_the_last_of_them_ends():
    found = told(("product begins", 0, 128), ("product begins", 1, 128), ("tile ordered", 0, 0),
                 ("product ends", 0, 128), ("product ends", 1, 128), ("product begins", 2, 128),
                 ("tile arrives", 0, 0), ("product ends", 2, 128))
    assert bars(found) == [("TMA", TILE, 1, 4, 1), ("warpgroup 1", PRODUCT, 0, 2, 2),
                           ("warpgroup 1", PRODUCT, 3, 5, 1)]


def test_a_wait_is_shown_if_anything_else_happened_before_the_warp_went_on():
    found = told(("waits", 8, 0), ("waits", 8, 1), ("goes on", 8, 1), ("goes on", 8, 0),
                 ("waits", 8, 0), ("tile ordered", 0, 40), ("goes on", 8, 0),
                 ("tile arrives", 0, 40))
    assert [bar for bar in bars(found) if bar[1] == WAIT] == [("warp 0", WAIT, 0, 2, 1)]


def test_rows_are_the_tma_then_warpgroups_then_warps_by_number():
    found = told(*(("multiplies", warp, 32 * warp) for warp in (10, 2)),
                 ("product begins", 0, 256), ("product ends", 0, 256), ("tile ordered", 0, 0))
    assert timeline(found).rows == ("TMA", "warpgroup 2", "warp 2", "warp 10")


def test_a_block_that_told_of_nothing_is_refused():
    with pytest.raises(ValueError, match="block 1 has no copies, tiles, waits or products"):
        timeline(told(("tile ordered", 0, 0)), block=1)


@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_the_hopper_kernel_keeps_two_tiles_of_keys_and_of_values_on_their_way(order):
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, n, 1, 64).bfloat16() for n in (128, 400, 400))
    out, lse = torch.empty_like(q), torch.empty(1, 1, 128)
    tiles = [TensorMap(tensor=x, box=(1, HOPPER_TILE, 1, 64)) for x in (q, k, v)]
    program = Program(source=Source.read("attention_hopper"), real=torch.bfloat16)
    found = trace(program, "attention_hopper_forward_64",
                  [*tiles, out, lse, None, None, 128, 400, 1, 1, 0, 0, 0.125], grid=1, block=384,
                  shared_bytes=2 * 64 * 5 * HOPPER_TILE, order=order)
    assert found.out_of_bounds is None and out.isfinite().all()
    pipeline = timeline(found)
    count = lambda kind, row: sum(bar.n for bar in pipeline.bars if bar.kind == kind
                                  and bar.row == row)
    assert count(TILE, "TMA") == 1 + 2 * 4, "the queries, and four tiles of keys and of values"
    steps = range(pipeline.n_steps)
    assert max(pipeline.in_flight(TILE, step) for step in steps) == (5 if order == "forward" else 1)
    # 4 tiles of keys: 4 products over 64 numbers of width; 8 over 128 keys
    assert [count(PRODUCT, f"warpgroup {n}") for n in (1, 2)] == [4 * (4 + 8)] * 2
    assert count(WAIT, "warp 0") == 3, "the producer waits for room from the third tile on"
