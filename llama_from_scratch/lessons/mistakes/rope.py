"""Mistakes that readers make in chapter 12."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from llama_from_scratch.lessons.mistakes import Listed
from llama_from_scratch.model.rope import apply_rope, rope_frequencies, rope_rotation

listed = Listed()


# --- 1: undo RoPE ---------------------------------------------------------------------------------


@listed("12.1", of="unturn")
def turned_twice(turned_BTHK: Tensor, rotation_BTR: Tensor) -> Tensor:
    """the hands are turned once more in the same direction"""
    return apply_rope(turned_BTHK, rotation_BTR)


@listed("12.1", of="unturn")
def not_turned_back(turned_BTHK: Tensor, rotation_BTR: Tensor) -> Tensor:
    """the hands are not turned at all"""
    return turned_BTHK


@listed("12.1", of="unturn")
def rotation_negated(turned_BTHK: Tensor, rotation_BTR: Tensor) -> Tensor:
    """the rotation is multiplied by -1: that adds half a turn, and does not turn back"""
    return apply_rope(turned_BTHK, -rotation_BTR)


@listed("12.1", of="unturn")
def hands_mirrored(turned_BTHK: Tensor, rotation_BTR: Tensor) -> Tensor:
    """the hands are mirrored instead of the rotation, and then turned"""
    pairs = torch.view_as_complex(turned_BTHK.unflatten(-1, (-1, 2))).conj()
    return torch.view_as_real((pairs * rotation_BTR[:, :, None]).resolve_conj()).flatten(-2)


@listed("12.1", of="unturn")
def cosine_only(turned_BTHK: Tensor, rotation_BTR: Tensor) -> Tensor:
    """the hands are multiplied by the cosine alone: turning back needs the sine, too"""
    return apply_rope(turned_BTHK, rotation_BTR.real.to(rotation_BTR.dtype))


# --- 2: from neighbors to halves ------------------------------------------------------------------


@listed("12.2", of="to_halves")
def other_way_round(x_BTHK: Tensor) -> Tensor:
    """this is the way back: it makes neighbors of halves"""
    return torch.stack(x_BTHK.chunk(2, dim=-1), dim=-1).flatten(-2)


@listed("12.2", of="to_halves")
def odd_channels_first(x_BTHK: Tensor) -> Tensor:
    """the odd channels come first: then each hand has its two parts exchanged"""
    return torch.cat([x_BTHK[..., 1::2], x_BTHK[..., 0::2]], dim=-1)


@listed("12.2", of="to_halves")
def same_order(x_BTHK: Tensor) -> Tensor:
    """the channels are in the same order as before"""
    return x_BTHK


@listed("12.2", of="to_halves")
def halves_exchanged(x_BTHK: Tensor) -> Tensor:
    """the two halves are exchanged: neighbors must move apart"""
    return x_BTHK.roll(x_BTHK.shape[-1] // 2, dims=-1)


@listed("12.2", of="to_halves")
def neighbors_exchanged(x_BTHK: Tensor) -> Tensor:
    """each channel changes places with its neighbor: neighbors must move apart"""
    return x_BTHK.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)


# --- 3: slow enough -------------------------------------------------------------------------------


def _smallest(n_positions: int, head_dim: int, *, turn: float, pair: int = -1) -> float:
    theta = 10.0
    while rope_frequencies(head_dim, theta=theta)[pair] * n_positions >= turn:
        theta *= 10
    return theta


@listed("12.3", of="smallest_theta")
def one_radian(n_positions: int, head_dim: int) -> float:
    """a full turn is taken as 1 radian: it has 2π"""
    return _smallest(n_positions, head_dim, turn=1)


@listed("12.3", of="smallest_theta")
def half_a_turn(n_positions: int, head_dim: int) -> float:
    """half a turn is allowed: a full turn has 2π radians, not π"""
    return _smallest(n_positions, head_dim, turn=math.pi)


@listed("12.3", of="smallest_theta")
def degrees(n_positions: int, head_dim: int) -> float:
    """a full turn is taken as 360: angles are in radians here"""
    return _smallest(n_positions, head_dim, turn=360)


@listed("12.3", of="smallest_theta")
def last_too_fast(n_positions: int, head_dim: int) -> float:
    """this is the last θ that is still too fast; the next power of ten is asked for"""
    return _smallest(n_positions, head_dim, turn=2 * math.pi) / 10


@listed("12.3", of="smallest_theta")
def one_over_theta(n_positions: int, head_dim: int) -> float:
    """the slowest frequency is taken as 1/θ: it is a little faster, θ^(-2(R - 1)/K)"""
    theta = 10.0
    while n_positions / theta >= 2 * math.pi:
        theta *= 10
    return theta


# --- 4: a test of distance ------------------------------------------------------------------------

Turn = Callable[[Tensor, Tensor], Tensor]

_N = 10
_ROTATION_BTR = rope_rotation(torch.arange(_N)[None], rope_frequencies(8, theta=1e4))
_X_BTHK = torch.randn(2, _N, 3, 8, generator=torch.Generator().manual_seed(1))


def _scores(q_BTHK: Tensor, k_BSHK: Tensor) -> Tensor:
    return torch.einsum("bthk,bshk->bhts", q_BTHK, k_BSHK)


def _moved(score_BHTS: Tensor) -> bool:
    """True if scores one step further along both axes are the same."""
    return torch.allclose(score_BHTS[..., 1:, 1:], score_BHTS[..., :-1, :-1], atol=1e-4)


@listed("12.4", of="sees_only_distance")
def another_token_each(rope: Turn) -> bool:
    """each position holds another token: the same query and the same key must be moved"""
    turned_BTHK = rope(_X_BTHK, _ROTATION_BTR)
    return _moved(_scores(turned_BTHK, turned_BTHK))


@listed("12.4", of="sees_only_distance")
def only_query_turned(rope: Turn) -> bool:
    """only the query is turned: the key must be turned, too"""
    return _moved(_scores(rope(_X_BTHK[:, [0] * _N], _ROTATION_BTR), _X_BTHK[:, [1] * _N]))


@listed("12.4", of="sees_only_distance")
def lengths_compared(rope: Turn) -> bool:
    """the lengths of the hands are compared: every rotation keeps them, also a wrong one"""
    turned_BTHK = rope(_X_BTHK, _ROTATION_BTR)
    return torch.allclose(turned_BTHK.norm(dim=-1), _X_BTHK.norm(dim=-1), atol=1e-4)


@listed("12.4", of="sees_only_distance")
def first_position_compared(rope: Turn) -> bool:
    """only position 0 is compared, where nothing is turned"""
    return torch.allclose(rope(_X_BTHK, _ROTATION_BTR)[:, 0], _X_BTHK[:, 0], atol=1e-4)


@listed("12.4", of="sees_only_distance")
def distance_zero_only(rope: Turn) -> bool:
    """only scores at distance 0 are compared: other distances must be constant, too"""
    q_BTHK, k_BSHK = (rope(_X_BTHK[:, [t] * _N], _ROTATION_BTR) for t in (0, 1))
    score_BHT = _scores(q_BTHK, k_BSHK).diagonal(dim1=-2, dim2=-1)
    return torch.allclose(score_BHT, score_BHT[..., :1].expand_as(score_BHT), atol=1e-4)


@listed("12.4", of="sees_only_distance")
def everything_equal(rope: Turn) -> bool:
    """all scores are compared with one another: those at another distance may differ"""
    q_BTHK, k_BSHK = (rope(_X_BTHK[:, [t] * _N], _ROTATION_BTR) for t in (0, 1))
    score_BHTS = _scores(q_BTHK, k_BSHK)
    return torch.allclose(score_BHTS, score_BHTS[..., :1, :1].expand_as(score_BHTS), atol=1e-4)


@listed("12.4", of="sees_only_distance")
def compared_with_library(rope: Turn) -> bool:
    """the result is compared with the library's: another RoPE can see only the distance, too"""
    return torch.allclose(rope(_X_BTHK, _ROTATION_BTR), apply_rope(_X_BTHK, _ROTATION_BTR),
                          atol=1e-4)


# --- 5: the pair that falls farthest --------------------------------------------------------------


def _first(reach: int, head_dim: int, theta: float, *, angle: float) -> int:
    rates = rope_frequencies(head_dim, theta=theta).tolist()
    return next((r for r, rate in enumerate(rates) if rate * reach <= angle), len(rates) - 1)


@listed("12.5", of="best_pair")
def whole_turn(reach: int, head_dim: int, theta: float) -> int:
    """a whole turn is allowed: a cosine falls only for half a turn, π, and then rises again"""
    return _first(reach, head_dim, theta, angle=2 * math.pi)


@listed("12.5", of="best_pair")
def quarter_turn(reach: int, head_dim: int, theta: float) -> int:
    """only a quarter of a turn is allowed: a cosine falls on past 0, down to -1 at π"""
    return _first(reach, head_dim, theta, angle=math.pi / 2)


@listed("12.5", of="best_pair")
def slowest_pair(reach: int, head_dim: int, theta: float) -> int:
    """this is the slowest pair: it falls all the way, but by the least"""
    return head_dim // 2 - 1


@listed("12.5", of="best_pair")
def fastest_pair(reach: int, head_dim: int, theta: float) -> int:
    """this is the fastest pair: its score falls and rises many times on the way"""
    return 0


@listed("12.5", of="best_pair")
def pair_before(reach: int, head_dim: int, theta: float) -> int:
    """this is the last pair that does not fall all the way: pairs are counted from 0"""
    return _first(reach, head_dim, theta, angle=math.pi) - 1


@listed("12.5", of="best_pair")
def channel_not_pair(reach: int, head_dim: int, theta: float) -> int:
    """this is the number of a channel: pair r holds the channels 2r and 2r + 1"""
    return 2 * _first(reach, head_dim, theta, angle=math.pi)
