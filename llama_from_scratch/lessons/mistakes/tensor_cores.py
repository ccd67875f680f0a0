"""Mistakes that readers make in chapter 37."""

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()


# --- 1: who holds C -------------------------------------------------------------------------------


@listed("37.1", of="owner")
def row_of_the_matrix(row: int, column: int) -> tuple[int, int]:
    """the row is not taken modulo 8: the lower eight rows are in registers 2 and 3"""
    return row * 4 + column // 2, row // 8 * 2 + column % 2


@listed("37.1", of="owner")
def neighbors_apart(row: int, column: int) -> tuple[int, int]:
    """column % 4 chooses the lane: two neighbors are in one lane, so it is column // 2"""
    return row % 8 * 4 + column % 4, row // 8 * 2 + column // 4


@listed("37.1", of="owner")
def registers_exchanged(row: int, column: int) -> tuple[int, int]:
    """registers 1 and 2 are exchanged: the second one is the neighbor in the same row"""
    return row % 8 * 4 + column // 2, row // 8 + column % 2 * 2


@listed("37.1", of="owner")
def by_columns(row: int, column: int) -> tuple[int, int]:
    """lanes are counted down the columns: four neighbors among the lanes share a row"""
    return column // 2 * 8 + row % 8, row // 8 * 2 + column % 2


# --- 2: a swizzle of one's own --------------------------------------------------------------------


@listed("37.2", of="my_places")
def no_swizzle() -> list[list[int]]:
    """every row is stored in the order of its chunks, so a chunk is always in the same banks"""
    return [[8 * row + chunk for chunk in range(8)] for row in range(16)]


@listed("37.2", of="my_places")
def padded() -> list[list[int]]:
    """rows are padded by one chunk: four passes, but the tile grows by an eighth"""
    return [[9 * row + chunk for chunk in range(8)] for row in range(16)]


@listed("37.2", of="my_places")
def four_rows() -> list[list[int]]:
    """the rows repeat after four, so that two of eight meet in the same banks"""
    return [[8 * row + (chunk ^ row % 4) for chunk in range(8)] for row in range(16)]


@listed("37.2", of="my_places")
def rotated_by_two() -> list[list[int]]:
    """each row is rotated by two chunks, which meets the first place again after four rows"""
    return [[8 * row + (chunk + 2 * row) % 8 for chunk in range(8)] for row in range(16)]


@listed("37.2", of="my_places")
def row_forgotten() -> list[list[int]]:
    """the place is counted within the row, and the row's own beginning is left out"""
    return [[(chunk + row) % 8 for chunk in range(8)] for row in range(16)]


# --- 3: groups that may be on their way -----------------------------------------------------------


@listed("37.3", of="groups_left")
def tiles_not_groups(n_stages: int) -> tuple[int, int]:
    """tiles are counted: each later tile is two groups, one for K and one for V"""
    return n_stages, n_stages - 1


@listed("37.3", of="groups_left")
def own_values_forgotten(n_stages: int) -> tuple[int, int]:
    """this tile's own V is forgotten: its group is younger than K's, and need not be there yet"""
    return 2 * (n_stages - 1), 2 * (n_stages - 1)


@listed("37.3", of="groups_left")
def stages_not_later_tiles(n_stages: int) -> tuple[int, int]:
    """all stages are counted as later tiles: one of them is the tile that is multiplied"""
    return 2 * n_stages + 1, 2 * n_stages


@listed("37.3", of="groups_left")
def exchanged(n_stages: int) -> tuple[int, int]:
    """the two waits are exchanged: fewer groups are left when V must be there"""
    return 2 * (n_stages - 1), 2 * (n_stages - 1) + 1


# --- 4: places and parities -----------------------------------------------------------------------


@listed("37.4", of="waits")
def tile_s_own_parity(i: int, n_places: int) -> tuple[int, int, int]:
    """the parity of i is taken: a place is used once in n tiles, so it is the parity of i // n"""
    return i % n_places, i % 2, (i + 1) % 2


@listed("37.4", of="waits")
def same_parity(i: int, n_places: int) -> tuple[int, int, int]:
    """both wait for the same parity: the producer would wait forever for its first place"""
    return i % n_places, i // n_places % 2, i // n_places % 2


@listed("37.4", of="waits")
def parities_exchanged(i: int, n_places: int) -> tuple[int, int, int]:
    """the two parities are exchanged: consumers would not wait for the first tile"""
    return i % n_places, (i // n_places + 1) % 2, i // n_places % 2


@listed("37.4", of="waits")
def number_of_uses(i: int, n_places: int) -> tuple[int, int, int]:
    """how often the place was used is returned as it is: a parity is 0 or 1"""
    return i % n_places, i // n_places, i // n_places + 1


# --- 5: the budget --------------------------------------------------------------------------------


@listed("37.5", of="needs")
def values_forgotten(rows: int, keys: int, width: int, n_stages: int) -> tuple[int, int]:
    """only the tiles of K are counted: there are as many of V"""
    return 2 * width * (rows + n_stages * keys), width // 2 + keys // 2 + keys // 4 + 40


@listed("37.5", of="needs")
def numbers_not_bytes(rows: int, keys: int, width: int, n_stages: int) -> tuple[int, int]:
    """numbers are counted in shared memory: bf16 has 2 bytes each"""
    return width * (rows + 2 * n_stages * keys), width // 2 + keys // 2 + keys // 4 + 40


@listed("37.5", of="needs")
def weights_in_fp32(rows: int, keys: int, width: int, n_stages: int) -> tuple[int, int]:
    """P is counted in fp32: packed, two of its numbers share a register"""
    return 2 * width * (rows + 2 * n_stages * keys), width // 2 + keys // 2 + keys // 2 + 40


@listed("37.5", of="needs")
def weights_forgotten(rows: int, keys: int, width: int, n_stages: int) -> tuple[int, int]:
    """P is left out: its registers are in use while the next S is computed"""
    return 2 * width * (rows + 2 * n_stages * keys), width // 2 + keys // 2 + 40


@listed("37.5", of="needs")
def divided_among_a_warp(rows: int, keys: int, width: int, n_stages: int) -> tuple[int, int]:
    """the 64 rows are divided among 32 lanes: a warpgroup has 128 threads"""
    return 2 * width * (rows + 2 * n_stages * keys), 2 * width + 2 * keys + keys + 40


# --- 6: right in one order ------------------------------------------------------------------------


@listed("37.6", of="sly_edit")
def a_wait_too_few() -> tuple[str, str]:
    """a wait is made too short: that is right in reverse, where copies complete at once"""
    return "cp_async_wait<2>();   // V", "cp_async_wait<3>();   // V"


@listed("37.6", of="sly_edit")
def barrier_taken() -> tuple[str, str]:
    """a barrier is taken away, as in section 5"""
    return "        __syncthreads();   // the next turn fills this tile's memory again\n", ""


@listed("37.6", of="sly_edit")
def other_half_read() -> tuple[str, str]:
    """the next tile goes into the half that is multiplied, but is looked for in the other"""
    return "next = KEYS * WIDTH - now;", "next = now;"


@listed("37.6", of="sly_edit")
def only_words() -> tuple[str, str]:
    """only a comment is changed, and the kernel stays right"""
    return "cp_async_wait<2>();   // V", "cp_async_wait<2>();   // the values"
