"""The owners of fragments, found by running instructions, against the formulas of the PTX ISA."""

import numpy as np
import pytest

from llama_from_scratch.kernels.emulator.fragments import FRAGMENTS, fragment


def listed(shape, of_lane, n_lanes=32):
    """The owners that a formula lists: `of_lane(lane)` yields (register, half, row, column)."""
    owners = {name: np.full(shape, -1) for name in ("lane", "register", "half")}
    for lane in range(n_lanes):
        for register, half, *at in of_lane(lane):
            for name, value in zip(owners, (lane, register, half), strict=True):
                owners[name][tuple(at)] = value
    return owners


def of_a(lane):
    g, t = divmod(lane, 4)
    return [(r, i, g + 8 * (r % 2), 2 * t + 8 * (r // 2) + i) for r in range(4) for i in range(2)]


def of_b(lane):
    g, t = divmod(lane, 4)
    return [(r, i, 2 * t + 8 * r + i, g) for r in range(2) for i in range(2)]


def of_c(lane):
    g, t = divmod(lane, 4)
    return [(r, 0, g + r // 2 * 8, 2 * t + r % 2) for r in range(4)]


def of_transposed(lane):
    return [(r, i, column % 8 + 8 * (r % 2), row + 8 * (r // 2))
            for r, i, row, column in [(r, i, lane // 4, 2 * (lane % 4) + i)
                                      for r in range(4) for i in range(2)]]


def of_warps(of_warp, n_pieces):
    """Four warps, 16 rows each, and pieces of 8 columns with four registers each."""
    def of_thread(thread):
        warp, lane = divmod(thread, 32)
        return [(4 * piece + r, half, 16 * warp + row, 8 * piece + column)
                for piece in range(n_pieces) for r, half, row, column in of_warp(lane)]
    return of_thread


EXPECTED = {
    "ldmatrix": listed((16, 16), of_a),
    "ldmatrix.trans": listed((16, 16), of_transposed),
    "mma A": listed((16, 16), of_a),
    "mma B": listed((16, 8), of_b),
    "mma C": listed((16, 8), of_c),
    "wgmma A": listed((64, 16), of_warps(of_a, 1), 128),
    "wgmma D": listed((64, 64), of_warps(of_c, 8), 128),
}


@pytest.mark.parametrize("name", FRAGMENTS)
def test_the_instruction_places_each_number_where_the_ptx_isa_lists_it(name):
    found = fragment(name)
    for what, owners in EXPECTED[name].items():
        assert np.array_equal(getattr(found, what), owners), what
    assert found.shape == EXPECTED[name]["lane"].shape


def test_two_pieces_of_c_are_number_for_number_the_fragment_of_a():
    a, c = fragment("mma A"), fragment("mma C")
    for column in range(16):
        assert np.array_equal(a.lane[:, column], c.lane[:, column % 8])
    # register pairs of C become one register of A
    for lane in range(32):
        of_c = [(8 * piece, row, column) for piece in range(2)
                for _, _, row, column in c.held_by(lane)]
        of_a = [(row, column) for _, _, row, column in a.held_by(lane)]
        assert of_a == [(row, column + first) for first, row, column in of_c]


@pytest.mark.parametrize("name", FRAGMENTS)
def test_every_lane_holds_equally_many_numbers_and_none_is_left_out(name):
    found = fragment(name)
    n_each = found.lane.size // found.n_lanes
    held = [found.held_by(lane) for lane in range(found.n_lanes)]
    assert {len(each) for each in held} == {n_each}
    places = {(row, column) for each in held for _, _, row, column in each}
    assert len(places) == found.lane.size


def test_a_lane_s_numbers_come_in_the_order_of_its_registers():
    assert fragment("mma A").held_by(5) == [
        (0, 0, 1, 2), (0, 1, 1, 3), (1, 0, 9, 2), (1, 1, 9, 3), (2, 0, 1, 10), (2, 1, 1, 11),
        (3, 0, 9, 10), (3, 1, 9, 11)]
    with pytest.raises(ValueError, match="a lane of mma A must be from 0 to 31; got 32"):
        fragment("mma A").held_by(32)


def test_an_unknown_fragment_names_those_there_are():
    with pytest.raises(ValueError, match="one of ldmatrix, .*, wgmma D; got 'mma D'"):
        fragment("mma D")
