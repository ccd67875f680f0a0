"""Mistakes that readers make in chapter 31."""

import torch
from torch import Tensor

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()

EPS, DIM, BYTES_PER_US = 1e-5, 4096, 4.3e6


# --- 1: the time of two norms ---------------------------------------------------------------------


@listed("31.1", of="norms_of_a_block")
def one_norm(n_tokens: int) -> float:
    """one norm is counted, or half of the bytes: a block has two norms of four passes each"""
    return n_tokens * DIM * 4 * 2 / BYTES_PER_US


@listed("31.1", of="norms_of_a_block")
def sum_read_again(n_tokens: int) -> float:
    """five passes are counted: a fused norm still has the sum in registers and does not read it"""
    return 2 * n_tokens * DIM * 5 * 2 / BYTES_PER_US


@listed("31.1", of="norms_of_a_block")
def sum_not_written(n_tokens: int) -> float:
    """three passes are counted: the sum is written, too, because the next addition needs it"""
    return 2 * n_tokens * DIM * 3 * 2 / BYTES_PER_US


@listed("31.1", of="norms_of_a_block")
def in_milliseconds(n_tokens: int) -> float:
    """the time is in milliseconds: microseconds are asked for"""
    return 2 * n_tokens * DIM * 4 * 2 / BYTES_PER_US / 1000


# --- 2: the residual, in CUDA ---------------------------------------------------------------------

_ADD = """
    accum added[VECTOR];
    widen(load(residual + begin + column), added);
    for (int i = 0; i < VECTOR; i++) value[i] += added[i];
"""
_STORE = "    store(total + begin + column, narrow(value));\n"


@listed("31.2", of="residual_lines")
def unrounded_sum() -> str:
    """the sum is not rounded before its size is taken: `as_stored(value)` is missing"""
    return _ADD + _STORE


@listed("31.2", of="residual_lines")
def sum_not_stored() -> str:
    """the sum is not stored in `total`"""
    return _ADD + "    as_stored(value);\n"


@listed("31.2", of="residual_lines")
def stored_in_y() -> str:
    """the sum is stored in `y` instead of `total`, and the result is later written over it"""
    return _ADD + "    as_stored(value);\n" + _STORE.replace("total", "y")


@listed("31.2", of="residual_lines")
def stored_before_added() -> str:
    """`total` is stored before the residual is added"""
    return _STORE + _ADD + "    as_stored(value);\n"


@listed("31.2", of="residual_lines")
def first_row_again() -> str:
    """every row gets the residual of the first row: its address lacks `begin`"""
    return _ADD.replace("begin + ", "") + "    as_stored(value);\n" + _STORE


@listed("31.2", of="residual_lines")
def residual_instead() -> str:
    """the residual takes the place of `x` instead of being added to it"""
    return _ADD.replace("+= added", "= added") + "    as_stored(value);\n" + _STORE


# --- 3: two rows for a warp, in CUDA --------------------------------------------------------------

_PLACE = """
    size_t row = (size_t)blockIdx.x * 2 + threadIdx.x / 16;
    int column = threadIdx.x % 16 * VECTOR;
"""
_SUM = """
    for (int distance = 8; distance > 0; distance /= 2)
        sum += __shfl_xor_sync(ALL_LANES, sum, distance);
"""


@listed("31.3", of="half_warp_lines")
def sum_of_both_rows() -> tuple[str, str]:
    """the sum runs over all 32 lanes and so over two rows: distance 16 leaves the half"""
    return _PLACE, _SUM.replace("= 8;", "= 16;")


@listed("31.3", of="half_warp_lines")
def eight_lanes_summed() -> tuple[str, str]:
    """the first distance is 4, so a sum holds 8 of the 16 lanes"""
    return _PLACE, _SUM.replace("= 8;", "= 4;")


@listed("31.3", of="half_warp_lines")
def one_row_per_block() -> tuple[str, str]:
    """rows are counted as if a block had one row: it has two, so its first row is 2 * blockIdx.x"""
    return _PLACE.replace("blockIdx.x * 2", "blockIdx.x"), _SUM


@listed("31.3", of="half_warp_lines")
def both_halves_same_row() -> tuple[str, str]:
    """both halves work on the same row: `threadIdx.x / 16` is missing"""
    return _PLACE.replace(" + threadIdx.x / 16", ""), _SUM


@listed("31.3", of="half_warp_lines")
def columns_of_a_whole_warp() -> tuple[str, str]:
    """the columns are counted over 32 lanes: the second half begins at column 0 again"""
    return _PLACE.replace("% 16 ", ""), _SUM


@listed("31.3", of="half_warp_lines")
def no_sum() -> tuple[str, str]:
    """the 16 lanes do not add their sums, so each lane divides by its own"""
    return _PLACE, ""


# --- 4: parts of the weight's gradient ------------------------------------------------------------


@listed("31.4", of="parts")
def neighboring_rows(dy_ND: Tensor, n_ND: Tensor, n_blocks: int) -> Tensor:
    """a block gets neighboring rows: block b visits row b and then every n_blocks-th row"""
    return torch.stack([part.sum(0) for part in (dy_ND * n_ND).tensor_split(n_blocks)])


@listed("31.4", of="parts")
def n_forgotten(dy_ND: Tensor, n_ND: Tensor, n_blocks: int) -> Tensor:
    """`dy` is added up without its factor `n`"""
    return torch.stack([dy_ND[block::n_blocks].sum(0) for block in range(n_blocks)])


@listed("31.4", of="parts")
def mean_of_rows(dy_ND: Tensor, n_ND: Tensor, n_blocks: int) -> Tensor:
    """a block takes the mean of its rows: a gradient is their sum"""
    return torch.stack([(dy_ND * n_ND)[block::n_blocks].mean(0) for block in range(n_blocks)])


@listed("31.4", of="parts")
def one_row_each(dy_ND: Tensor, n_ND: Tensor, n_blocks: int) -> Tensor:
    """each block visits a single row: it stays and visits the others, too"""
    return (dy_ND * n_ND)[:n_blocks]


@listed("31.4", of="parts")
def sum_along_rows(dy_ND: Tensor, n_ND: Tensor, n_blocks: int) -> Tensor:
    """the sum runs along the rows: `dweight` has one number for each column"""
    return torch.stack([(dy_ND * n_ND)[block::n_blocks].sum() for block in range(n_blocks)])


# --- 5: LayerNorm ---------------------------------------------------------------------------------


def _layer_norm(
    dy_ND: Tensor, x_ND: Tensor, weight_D: Tensor, *, is_centered: bool = True,
    takes_mean: bool = True, takes_along: bool = True, is_scaled: bool = True,
    correction: int = 0,
) -> Tensor:
    centered_ND = x_ND - x_ND.mean(-1, keepdim=True) if is_centered else x_ND
    square_ND = centered_ND.square()
    mean_N1 = square_ND.sum(-1, keepdim=True) / (x_ND.shape[-1] - correction)
    r_N1 = torch.rsqrt(mean_N1 + EPS)
    n_ND, g_ND = centered_ND * r_N1, dy_ND * weight_D
    inside_ND = g_ND
    if takes_mean:
        inside_ND = inside_ND - g_ND.mean(-1, keepdim=True)
    if takes_along:
        inside_ND = inside_ND - n_ND * (g_ND * n_ND).mean(-1, keepdim=True)
    return r_N1 * inside_ND if is_scaled else inside_ND


@listed("31.5", of="layer_norm_backward")
def as_rms_norm(dy_ND: Tensor, x_ND: Tensor, weight_D: Tensor) -> Tensor:
    """this is the backward pass of RMSNorm: no mean is subtracted anywhere"""
    return _layer_norm(dy_ND, x_ND, weight_D, is_centered=False, takes_mean=False)


@listed("31.5", of="layer_norm_backward")
def mean_of_g_kept(dy_ND: Tensor, x_ND: Tensor, weight_D: Tensor) -> Tensor:
    """the mean of g is not subtracted: an x also acts through the mean of its row"""
    return _layer_norm(dy_ND, x_ND, weight_D, takes_mean=False)


@listed("31.5", of="layer_norm_backward")
def along_n_kept(dy_ND: Tensor, x_ND: Tensor, weight_D: Tensor) -> Tensor:
    """the component along n is not taken away: an x also acts through the size of its row"""
    return _layer_norm(dy_ND, x_ND, weight_D, takes_along=False)


@listed("31.5", of="layer_norm_backward")
def weight_forgotten(dy_ND: Tensor, x_ND: Tensor, weight_D: Tensor) -> Tensor:
    """`dy` is not multiplied by the weight"""
    return _layer_norm(dy_ND, x_ND, torch.ones_like(weight_D))


@listed("31.5", of="layer_norm_backward")
def r_forgotten(dy_ND: Tensor, x_ND: Tensor, weight_D: Tensor) -> Tensor:
    """the bracket is not multiplied by r"""
    return _layer_norm(dy_ND, x_ND, weight_D, is_scaled=False)


@listed("31.5", of="layer_norm_backward")
def divided_by_one_less(dy_ND: Tensor, x_ND: Tensor, weight_D: Tensor) -> Tensor:
    """the variance is divided by D - 1, as `torch.var` does by default: LayerNorm divides by D"""
    return _layer_norm(dy_ND, x_ND, weight_D, correction=1)
