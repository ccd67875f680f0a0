"""Mistakes that readers make in chapter 11."""

import math

import torch
from torch import Tensor

from llama_from_scratch.lessons.mistakes import Listed
from llama_from_scratch.model.norm import RMSNorm

listed = Listed()


# --- 1: LayerNorm from RMSNorm --------------------------------------------------------------------


@listed("11.1", of="layer_norm_from")
def mean_kept(rms: RMSNorm, x_TD: Tensor) -> Tensor:
    """the mean is not subtracted: this is still RMSNorm"""
    return rms(x_TD)


@listed("11.1", of="layer_norm_from")
def mean_over_tokens(rms: RMSNorm, x_TD: Tensor) -> Tensor:
    """the mean runs over the tokens: each token has a mean of its own, over its channels"""
    return rms(x_TD - x_TD.mean(0, keepdim=True))


@listed("11.1", of="layer_norm_from")
def mean_of_everything(rms: RMSNorm, x_TD: Tensor) -> Tensor:
    """one mean is subtracted from all tokens: each token has a mean of its own"""
    return rms(x_TD - x_TD.mean())


@listed("11.1", of="layer_norm_from")
def mean_subtracted_last(rms: RMSNorm, x_TD: Tensor) -> Tensor:
    """the mean is subtracted after the norm: then it still counts in the size"""
    normed_TD = rms(x_TD)
    return normed_TD - normed_TD.mean(-1, keepdim=True)


@listed("11.1", of="layer_norm_from")
def mean_added(rms: RMSNorm, x_TD: Tensor) -> Tensor:
    """the mean is added instead of subtracted"""
    return rms(x_TD + x_TD.mean(-1, keepdim=True))


# --- 2: the weight inside the matrix --------------------------------------------------------------


@listed("11.2", of="fold")
def rows_weighted(matrix_FD: Tensor, weight_D: Tensor) -> Tensor:
    """the rows are multiplied instead of the columns: the channels of y meet the columns"""
    return matrix_FD * weight_D[:, None]


@listed("11.2", of="fold")
def weight_left_out(matrix_FD: Tensor, weight_D: Tensor) -> Tensor:
    """the matrix is returned without the weight"""
    return matrix_FD


@listed("11.2", of="fold")
def divided_by_weight(matrix_FD: Tensor, weight_D: Tensor) -> Tensor:
    """the columns are divided by the weight instead of multiplied"""
    return matrix_FD / weight_D


@listed("11.2", of="fold")
def weight_added(matrix_FD: Tensor, weight_D: Tensor) -> Tensor:
    """the weight is added to the columns instead of multiplied"""
    return matrix_FD + weight_D


@listed("11.2", of="fold")
def transposed_matrix(matrix_FD: Tensor, weight_D: Tensor) -> Tensor:
    """the result is transposed: it keeps the shape (F, D) of the matrix"""
    return (matrix_FD * weight_D).T


# --- 3: the backward pass -------------------------------------------------------------------------


def _backward(
    g_TD: Tensor, x_TD: Tensor, weight_D: Tensor, eps: float, *, along: float | None = None,
    is_weighted: bool = True,
) -> tuple[Tensor, Tensor]:
    """The right gradients, or with `along` times the part along y, by default 1."""
    size_T1 = torch.sqrt(x_TD.square().mean(-1, keepdim=True) + eps)
    y_TD = x_TD / size_T1
    gy_TD = g_TD * weight_D if is_weighted else g_TD
    along_T1 = (gy_TD * y_TD).mean(-1, keepdim=True) * (1.0 if along is None else along)
    return (gy_TD - y_TD * along_T1) / size_T1, (g_TD * y_TD).sum(0)


@listed("11.3", of="rms_norm_backward")
def weight_not_in_x(
    g_TD: Tensor, x_TD: Tensor, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """the gradient of x is without the weight: first carry g back through it, g * weight"""
    return _backward(g_TD, x_TD, weight_D, eps, is_weighted=False)


@listed("11.3", of="rms_norm_backward")
def part_along_kept(
    g_TD: Tensor, x_TD: Tensor, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """the part along y is not removed: the size, too, depends on x"""
    return _backward(g_TD, x_TD, weight_D, eps, along=0.0)


@listed("11.3", of="rms_norm_backward")
def part_along_summed(
    g_TD: Tensor, x_TD: Tensor, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """the part along y is a sum over the channels instead of their mean"""
    return _backward(g_TD, x_TD, weight_D, eps, along=float(x_TD.shape[-1]))


@listed("11.3", of="rms_norm_backward")
def eps_left_out(
    g_TD: Tensor, x_TD: Tensor, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """eps is not under the root: a small token notices"""
    return _backward(g_TD, x_TD, weight_D, 0.0)


@listed("11.3", of="rms_norm_backward")
def size_left_out(
    g_TD: Tensor, x_TD: Tensor, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """the gradient of x is not divided by the size"""
    size_T1 = torch.sqrt(x_TD.square().mean(-1, keepdim=True) + eps)
    grad_TD, grad_D = _backward(g_TD, x_TD, weight_D, eps)
    return grad_TD * size_T1, grad_D


@listed("11.3", of="rms_norm_backward")
def weight_gradient_from_x(
    g_TD: Tensor, x_TD: Tensor, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """the gradient of the weight is made from x: the weight multiplies y = x / size"""
    return _backward(g_TD, x_TD, weight_D, eps)[0], (g_TD * x_TD).sum(0)


@listed("11.3", of="rms_norm_backward")
def weight_gradient_averaged(
    g_TD: Tensor, x_TD: Tensor, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """the gradient of the weight is the mean over the tokens instead of their sum"""
    grad_TD, grad_D = _backward(g_TD, x_TD, weight_D, eps)
    return grad_TD, grad_D / len(x_TD)


@listed("11.3", of="rms_norm_backward")
def weight_gradient_per_token(
    g_TD: Tensor, x_TD: Tensor, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """the gradient of the weight is not summed over the tokens, which all use the same weight"""
    size_T1 = torch.sqrt(x_TD.square().mean(-1, keepdim=True) + eps)
    return _backward(g_TD, x_TD, weight_D, eps)[0], g_TD * x_TD / size_T1


# --- 4: how large the stream becomes --------------------------------------------------------------


def _without(gain: float, n_layers: int) -> float:
    return math.sqrt(1 + gain**2) ** n_layers


def _with(gain: float, n_layers: int) -> float:
    return math.sqrt(1 + n_layers * gain**2)


@listed("11.4", of="predicted_sizes")
def gain_left_out(gain: float, n_layers: int) -> tuple[float, float]:
    """the gain is left out: the added side is `gain` times as long"""
    return _without(1, n_layers), _with(1, n_layers)


@listed("11.4", of="predicted_sizes")
def lengths_added(gain: float, n_layers: int) -> tuple[float, float]:
    """the lengths are added, as if all sides pointed the same way: at right angles, squares add"""
    return (1 + gain) ** n_layers, 1 + n_layers * gain


@listed("11.4", of="predicted_sizes")
def root_forgotten(gain: float, n_layers: int) -> tuple[float, float]:
    """the root is forgotten: these are the squares of the sizes"""
    return _without(gain, n_layers) ** 2, _with(gain, n_layers) ** 2


@listed("11.4", of="predicted_sizes")
def sizes_exchanged(gain: float, n_layers: int) -> tuple[float, float]:
    """the two sizes are exchanged: first without norm, then with it"""
    return _with(gain, n_layers), _without(gain, n_layers)


@listed("11.4", of="predicted_sizes")
def gain_not_squared(gain: float, n_layers: int) -> tuple[float, float]:
    """the gain is not squared: Pythagoras adds the squares of the sides"""
    return math.sqrt(1 + gain) ** n_layers, math.sqrt(1 + n_layers * gain)


@listed("11.4", of="predicted_sizes")
def layers_not_multiplied(gain: float, n_layers: int) -> tuple[float, float]:
    """both sizes grow by a sum: without norm, each layer multiplies the size"""
    return _with(gain, n_layers), _with(gain, n_layers)


# --- 5: which sizes notice ------------------------------------------------------------------------


def _gap(size: float, eps: float = 1e-5) -> float:
    return abs(size / (size + eps) - size / math.sqrt(size**2 + eps))


@listed("11.5", of="sizes_that_notice")
def sizes_that_agree(sizes: list[float]) -> list[float]:
    """the sizes for which both give the same are listed: those that differ are asked for"""
    return [size for size in sizes if _gap(size) <= 0.1]


@listed("11.5", of="sizes_that_notice")
def all_small_sizes(sizes: list[float]) -> list[float]:
    """every size below the root of eps is listed; far below eps, both come out near 0"""
    return [size for size in sizes if size <= math.sqrt(1e-5)]


@listed("11.5", of="sizes_that_notice")
def large_sizes(sizes: list[float]) -> list[float]:
    """sizes from 1 on are listed: there eps is too small to matter"""
    return [size for size in sizes if size >= 1]


@listed("11.5", of="sizes_that_notice")
def any_difference(sizes: list[float]) -> list[float]:
    """every difference counts: it must be more than 0.1"""
    return [size for size in sizes if _gap(size) > 1e-4]


@listed("11.5", of="sizes_that_notice")
def signed_difference(sizes: list[float]) -> list[float]:
    """the difference is taken the wrong way round, so that it is negative and none is above 0.1"""
    return []
