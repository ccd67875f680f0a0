"""Mistakes that readers make in chapter 51."""

import math

import torch
from torch import Tensor

from llama_from_scratch.lessons.mistakes import Listed

listed = Listed()
Shapes = list[tuple[int, int]]


# --- 1: what learns -------------------------------------------------------------------------------


@listed("51.1", of="n_learned")
def the_product(shapes: Shapes, rank: int) -> int:
    """the product of A and B is counted: it is never stored, only its factors learn"""
    return sum(n_out * n_in for n_out, n_in in shapes)


@listed("51.1", of="n_learned")
def without_the_rank(shapes: Shapes, rank: int) -> int:
    """the rank is forgotten: A has `rank` rows and B `rank` columns"""
    return sum(n_out + n_in for n_out, n_in in shapes)


@listed("51.1", of="n_learned")
def only_a(shapes: Shapes, rank: int) -> int:
    """only A is counted: B learns too"""
    return sum(rank * n_in for _, n_in in shapes)


@listed("51.1", of="n_learned")
def only_b(shapes: Shapes, rank: int) -> int:
    """only B is counted: A learns too"""
    return sum(rank * n_out for n_out, _ in shapes)


# --- 2: the forward pass --------------------------------------------------------------------------


@listed("51.2", of="adapted_forward")
def without_the_scale(w: Tensor, a: Tensor, b: Tensor, alpha: float, x: Tensor) -> Tensor:
    """the scale is forgotten: the adapter's part is multiplied by alpha / rank"""
    return x @ w.T + (x @ a.T) @ b.T


@listed("51.2", of="adapted_forward")
def only_alpha(w: Tensor, a: Tensor, b: Tensor, alpha: float, x: Tensor) -> Tensor:
    """the adapter's part is multiplied by alpha: it is alpha / rank"""
    return x @ w.T + alpha * (x @ a.T) @ b.T


@listed("51.2", of="adapted_forward")
def without_w(w: Tensor, a: Tensor, b: Tensor, alpha: float, x: Tensor) -> Tensor:
    """the frozen matrix is left out: the adapter is added to what it computes"""
    return alpha / len(a) * (x @ a.T) @ b.T


@listed("51.2", of="adapted_forward")
def scaled_whole(w: Tensor, a: Tensor, b: Tensor, alpha: float, x: Tensor) -> Tensor:
    """the frozen part is scaled too: the scale is for the adapter's part"""
    return alpha / len(a) * (x @ w.T + (x @ a.T) @ b.T)


@listed("51.2", of="adapted_forward")
def subtracted(w: Tensor, a: Tensor, b: Tensor, alpha: float, x: Tensor) -> Tensor:
    """the adapter's part is subtracted: it is added"""
    return x @ w.T - alpha / len(a) * (x @ a.T) @ b.T


# --- 3: merging -----------------------------------------------------------------------------------


def _merged(w: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    return w + scale * b @ a


@listed("51.3", of="merged_weight")
def always_by_rank(
    w: Tensor, a: Tensor, b: Tensor, alpha: float, is_stabilized: bool
) -> Tensor:
    """`is_stabilized` has no effect: with it, the scale is alpha / sqrt(rank)"""
    return _merged(w, a, b, alpha / len(a))


@listed("51.3", of="merged_weight")
def always_by_root(
    w: Tensor, a: Tensor, b: Tensor, alpha: float, is_stabilized: bool
) -> Tensor:
    """the scale is always alpha / sqrt(rank): that is for `is_stabilized` only"""
    return _merged(w, a, b, alpha / math.sqrt(len(a)))


@listed("51.3", of="merged_weight")
def unscaled(w: Tensor, a: Tensor, b: Tensor, alpha: float, is_stabilized: bool) -> Tensor:
    """the scale is forgotten: the forward pass has it too"""
    return _merged(w, a, b, 1.0)


@listed("51.3", of="merged_weight")
def root_of_scale(w: Tensor, a: Tensor, b: Tensor, alpha: float, is_stabilized: bool) -> Tensor:
    """the root of alpha / rank is taken: only the rank is under the root"""
    scale = alpha / len(a)
    return _merged(w, a, b, math.sqrt(scale) if is_stabilized else scale)


# --- 4: the nearest change of a rank --------------------------------------------------------------


def _parts(delta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.linalg.svd(delta, full_matrices=False)


@listed("51.4", of="nearest_of_rank")
def values_twice(delta: Tensor, rank: int) -> Tensor:
    """the singular values are there twice: each direction is multiplied by its value once"""
    u, s, v = _parts(delta)
    return (u[:, :rank] * s[:rank]) @ (s[:rank, None] * v[:rank])


@listed("51.4", of="nearest_of_rank")
def without_values(delta: Tensor, rank: int) -> Tensor:
    """the singular values are left out: then all directions count alike"""
    u, _, v = _parts(delta)
    return u[:, :rank] @ v[:rank]


@listed("51.4", of="nearest_of_rank")
def the_smallest(delta: Tensor, rank: int) -> Tensor:
    """the last directions are kept: the first ones are the largest"""
    u, s, v = _parts(delta)
    return (u[:, -rank:] * s[-rank:]) @ v[-rank:]


@listed("51.4", of="nearest_of_rank")
def the_rest(delta: Tensor, rank: int) -> Tensor:
    """this is what the first directions leave over: the task asks for them"""
    u, s, v = _parts(delta)
    return (u[:, rank:] * s[rank:]) @ v[rank:]


# --- 5: memory ------------------------------------------------------------------------------------


def _n_learned(shapes: Shapes, rank: int) -> int:
    return sum(rank * (n_out + n_in) for n_out, n_in in shapes)


@listed("51.5", of="training_gb")
def only_gradients(n_weights: int, shapes: Shapes, rank: int) -> tuple[float, float]:
    """only the gradients are counted: AdamW keeps two averages of the same size"""
    return 4 * n_weights / 1e9, 4 * _n_learned(shapes, rank) / 1e9


@listed("51.5", of="training_gb")
def with_the_weights(n_weights: int, shapes: Shapes, rank: int) -> tuple[float, float]:
    """the weights are counted too: the task asks for what comes on top of them"""
    return 16 * n_weights / 1e9, 16 * _n_learned(shapes, rank) / 1e9


@listed("51.5", of="training_gb")
def one_average(n_weights: int, shapes: Shapes, rank: int) -> tuple[float, float]:
    """one average is counted: AdamW has two"""
    return 8 * n_weights / 1e9, 8 * _n_learned(shapes, rank) / 1e9


@listed("51.5", of="training_gb")
def gradients_of_all(n_weights: int, shapes: Shapes, rank: int) -> tuple[float, float]:
    """with LoRA all weights have a gradient: the frozen ones have none"""
    return 12 * n_weights / 1e9, (4 * n_weights + 8 * _n_learned(shapes, rank)) / 1e9
