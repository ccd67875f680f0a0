"""The race rule against a slow definition of happens-before."""

import numpy as np
import pytest

from llama_from_scratch.kernels.emulator import rules


def happens_before(rows, syncs):
    """The closure of the order that the threads' own programs, barriers and __syncwarp give, pair
    by pair."""
    reach = np.eye(len(rows), dtype=bool)
    for b in range(len(rows)):
        for a in range(b):
            first, second = rows[a], rows[b]
            if first["block"] != second["block"]:
                continue
            if first["thread"] == second["thread"] or first["interval"] < second["interval"]:
                reach[a, b] = True
            elif first["thread"] // 32 == second["thread"] // 32:
                told = {first["thread"] % 32}
                for sync in syncs:
                    lanes = {lane for lane in range(32) if sync["mask"] >> lane & 1}
                    if (sync["block"], sync["warp"]) == (first["block"], first["thread"] // 32) \
                            and first["epoch"] <= sync["epoch"] < second["epoch"] and lanes & told:
                        told |= lanes
                reach[a, b] = second["thread"] % 32 in told
    return reach


@pytest.mark.parametrize("seed", range(30))
def test_race_rule_agrees_with_happens_before_on_random_programs(seed):
    """Random accesses of a few threads of two warps and two blocks, between random barriers and
    warp barriers."""
    draw = np.random.default_rng(seed)
    rows, syncs = [], []
    for block in range(2):
        interval, epochs = 0, [0, 0]
        for _ in range(14):
            thread = int(draw.choice([0, 1, 2, 33, 34]))
            event = draw.random()
            if event < 0.1:
                interval += 1
            elif event < 0.3:
                warp = int(draw.integers(2))
                syncs.append((block, warp, epochs[warp], int(draw.choice([3, 5, 6, 7]))))
                epochs[warp] += 1
            else:
                size = int(draw.choice([4, 8]))
                address = 1024 + int(draw.integers(3)) * 4 // size * size
                place, kind, array = map(int, draw.integers([4, 3, 2]))
                rows.append((address, place, 0, block, interval, epochs[thread // 32], thread, size,
                             kind, array))
    rows, syncs = np.array(rows, rules.ACCESS), np.array(syncs, rules.SYNC)
    reach = happens_before(rows, syncs)
    expected = set()
    for b in range(len(rows)):
        for a in range(b):
            first, second = rows[a], rows[b]
            kinds = {int(first["kind"]), int(second["kind"])}
            low, high = sorted((first, second), key=lambda row: row["address"])
            overlap = high["address"] < low["address"] + low["bytes"]
            is_one_place = first["array"] == second["array"] and (
                first["array"] == 1 or first["block"] == second["block"])
            if is_one_place and overlap and kinds not in (
                {rules.READ}, {rules.ATOMIC}) and not reach[a, b]:
                expected.add((int(first["array"]),
                              *sorted((int(row["place"]), int(row["kind"]))
                                      for row in (first, second))))
    found = rules.clashes(rows, syncs, shared={0})
    assert {(int(rows[c.first]["array"]),
             *sorted((int(rows[k]["place"]), int(rows[k]["kind"])) for k in (c.first, c.second)))
            for c in found} == expected
