"""Mistakes that readers make in chapter 30."""

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


# --- 1: sectors of a copy -------------------------------------------------------------------------


@listed("30.1", of="n_sectors")
def elements_not_bytes(stride: int, offset: int) -> int:
    """floats are counted as if they were bytes: each float has four"""
    return len({(lane * stride + offset) // 32 for lane in range(32)})


@listed("30.1", of="n_sectors")
def offset_forgotten(stride: int, offset: int) -> int:
    """the offset is left out, which can push the last lane into one more sector"""
    return len({4 * lane * stride // 32 for lane in range(32)})


@listed("30.1", of="n_sectors")
def whole_rows(stride: int, offset: int) -> int:
    """pieces of 128 bytes are counted: a sector has 32"""
    return len({4 * (lane * stride + offset) // 128 for lane in range(32)})


@listed("30.1", of="n_sectors")
def four_for_each_step(stride: int, offset: int) -> int:
    """every sector between the first lane and the last is counted: large strides skip some"""
    return 4 * (31 * stride + offset) // 32 - 4 * offset // 32 + 1


@listed("30.1", of="n_sectors")
def one_lane_missing(stride: int, offset: int) -> int:
    """lanes 0 to 30 are counted: a warp has 32"""
    return len({4 * (lane * stride + offset) // 32 for lane in range(31)})


# --- 2: any grid, in CUDA -------------------------------------------------------------------------

_LEAP = "for (int i = first; i < n; i += gridDim.x * blockDim.x) y[i] = factor * x[i];"


@listed("30.2", of="scale_lines")
def one_element_each() -> str:
    """each thread takes one element and stops: with 192 threads, the others stay as they were"""
    return "if (first < n) y[first] = factor * x[first];"


@listed("30.2", of="scale_lines")
def leap_of_a_block() -> str:
    """a thread leaps by the threads of its block and meets the elements of other blocks"""
    return _LEAP.replace("gridDim.x * blockDim.x", "blockDim.x")


@listed("30.2", of="scale_lines")
def no_end() -> str:
    """the loop compares with `<=`: the last element has number n - 1"""
    return _LEAP.replace("i < n", "i <= n")


@listed("30.2", of="scale_lines")
def stretches() -> str:
    """each thread takes a stretch of neighbors: right, but then the lanes of a warp read far apart,
    and more bytes move than needed"""
    return """int each = (n + gridDim.x * blockDim.x - 1) / (gridDim.x * blockDim.x);
    for (int i = first * each; i < n && i < (first + 1) * each; i++) y[i] = factor * x[i];"""


@listed("30.2", of="scale_lines")
def factor_forgotten() -> str:
    """`x` is copied without the factor"""
    return _LEAP.replace("factor * ", "")


# --- 3: two blocks, one sum, in CUDA --------------------------------------------------------------


@listed("30.3", of="atomic_line")
def plain_addition() -> str:
    """`+=` is no atomic addition: both blocks may read before either one writes"""
    return "if (t == 0) sums[0] += part[0];"


@listed("30.3", of="atomic_line")
def written_over() -> str:
    """each block writes its sum over the other's: they are to be added"""
    return "if (t == 0) sums[0] = part[0];"


@listed("30.3", of="atomic_line")
def every_thread_adds() -> str:
    """all 64 threads of a block add the block's sum: one of them is enough"""
    return "atomicAdd(&sums[0], part[0]);"


@listed("30.3", of="atomic_line")
def place_of_the_block() -> str:
    """each block adds to a place of its own: there is one result, `sums[0]`"""
    return "if (t == 0) atomicAdd(&sums[blockIdx.x], part[0]);"


@listed("30.3", of="atomic_line")
def first_block_only() -> str:
    """only block 0 adds its sum"""
    return "if (t == 0 && blockIdx.x == 0) atomicAdd(&sums[0], part[0]);"


# --- 4: a swizzle, in CUDA ------------------------------------------------------------------------


@listed("30.4", of="swizzled_columns")
def as_before() -> tuple[str, str]:
    """nothing is swizzled: the column of a tile 32 wide is in one bank, 32 passes"""
    return "t", "row"


@listed("30.4", of="swizzled_columns")
def only_stored() -> tuple[str, str]:
    """numbers are stored in swizzled columns, but looked for where they would be without"""
    return "t ^ row", "row"


@listed("30.4", of="swizzled_columns")
def only_read() -> tuple[str, str]:
    """numbers are looked for in swizzled columns, but stored as they come"""
    return "t", "row ^ t"


@listed("30.4", of="swizzled_columns")
def thread_for_row() -> tuple[str, str]:
    """`threadIdx.y` takes the place of the tile's row: a thread visits four rows"""
    return "t ^ threadIdx.y", "row ^ threadIdx.y"


@listed("30.4", of="swizzled_columns")
def or_for_xor() -> tuple[str, str]:
    """`|` takes the place of `^`: then several columns share one place"""
    return "t | row", "row | t"


# --- 5: one barrier, in CUDA ----------------------------------------------------------------------

_SHUFFLES = """for (int distance = 16; distance > 0; distance /= 2)
        value += __shfl_xor_sync(0xffffffff, value, distance);
"""
_WRITE = "    if (threadIdx.x % 32 == 0) per_warp[threadIdx.x / 32] = value;\n"
_BARRIER = "    __syncthreads();\n"
_END = "    if (threadIdx.x == 0) sum[0] = per_warp[0] + per_warp[1];"


@listed("30.5", of="two_warps_lines")
def no_barrier() -> str:
    """there is no barrier: thread 0 may read before the second warp has written"""
    return _SHUFFLES + _WRITE + _END


@listed("30.5", of="two_warps_lines")
def second_warp_forgotten() -> str:
    """only the sum of the first warp is taken"""
    return _SHUFFLES + _WRITE + _BARRIER + _END.replace(" + per_warp[1]", "")


@listed("30.5", of="two_warps_lines")
def lane_for_warp() -> str:
    """both warps write to the same place: the warp is `threadIdx.x / 32`, the lane `% 32`"""
    return _SHUFFLES + _WRITE.replace("[threadIdx.x / 32]", "[threadIdx.x % 32]") + _BARRIER + _END


@listed("30.5", of="two_warps_lines")
def every_lane_writes() -> str:
    """all 32 lanes of a warp write its sum to one place, which is a race: one of them is enough"""
    return _SHUFFLES + _WRITE.replace("if (threadIdx.x % 32 == 0) ", "") + _BARRIER + _END


@listed("30.5", of="two_warps_lines")
def barrier_under_if() -> str:
    """the barrier is under an `if`, so not all threads of the block reach it"""
    write = "if (threadIdx.x % 32 == 0) { per_warp[threadIdx.x / 32] = value; __syncthreads(); }\n"
    return _SHUFFLES + write + _END


@listed("30.5", of="two_warps_lines")
def barrier_in_each_round() -> str:
    """there is a barrier in each round: lanes of a warp hand values over without one"""
    return """for (int distance = 16; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(0xffffffff, value, distance);
        __syncthreads();
    }
""" + _WRITE + _BARRIER + _END
